//! What lowering collects: slots, packed weights, steps.

use std::rc::Rc;

use ir::{WeightId, Weights};
use kernels::library::matrix::Format;
use kernels::library::{Schedule, lines, pitch};
use kernels::{Elem, Kernel, LANES, ParamKind, extents, verify};

use super::{Formats, LowerError, Place, Slot, Step, Tap, Units};
use crate::pack::{PackId, Packs};

/// A slot of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub usize);

/// A value that lies in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub slot: SlotId,
    /// Rows, or pixels of a map; 0 for the rows of the call.
    pub rows: usize,
    pub channels: usize,
    pub elem: Elem,
}

impl Value {
    pub fn pitch(&self) -> usize {
        pitch(self.channels)
    }

    pub fn tap(&self) -> Tap {
        Tap { slot: self.slot, at: 0, rows: self.rows, channels: self.channels, pitch: self.pitch(), elem: self.elem }
    }

    pub fn place(&self) -> Place {
        Place::Slot(self.slot, 0)
    }
}

/// A packed matrix, its bias and its sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    pub format: Format,
    pub pack: PackId,
    pub bias: Option<Place>,
    pub outputs: usize,
    pub inputs: usize,
}

impl Packed {
    /// The arguments for the parameters `w` and, of a quantized matrix, `scales`.
    pub fn bind<'d>(&self, w: &'d str, scales: &'d str) -> Vec<(&'d str, Place)> {
        let mut bind = vec![(w, Place::Weight(self.pack))];
        if self.format != Format::F32 {
            bind.push((scales, Place::Scales(self.pack)));
        }
        bind
    }

    /// The arguments for the parameters of the matrix, its scales and its bias.
    pub fn arguments<'d>(&self, [w, scales, bias]: [&'d str; 3]) -> Vec<(&'d str, Place)> {
        let mut bind = self.bind(w, scales);
        bind.extend(self.bias.map(|b| (bias, b)));
        bind
    }
}

/// Collects a program.
pub(super) struct Context<'a> {
    /// One for each level.
    pub schedules: Vec<Schedule>,
    pub formats: Formats,
    pub weights: &'a mut Weights,
    pub slots: Vec<Slot>,
    pub packs: Packs,
    pub scratch_floats: usize,
}

/// A step before its kernels are built.
pub(super) struct Draft<'d> {
    pub name: String,
    pub shapes: String,
    pub units: Units,
    /// Arguments by parameter name.
    pub bind: Vec<(&'d str, Place)>,
    pub result: Tap,
    pub macs: u64,
    /// Largest values of the sizes that are not `first` and `last`, by parameter name.
    pub most: Vec<(&'d str, i64)>,
}

impl<'a> Context<'a> {
    pub fn new(schedules: &[Schedule], weights: &'a mut Weights, formats: Formats) -> Context<'a> {
        Context {
            schedules: schedules.to_vec(),
            formats,
            weights,
            slots: Vec::new(),
            packs: Packs::default(),
            scratch_floats: 0,
        }
    }

    pub fn slot(&mut self, name: impl Into<String>, floats: usize, persistent: bool) -> SlotId {
        let floats = floats.next_multiple_of(LANES);
        self.slots.push(Slot { name: name.into(), floats, persistent });
        SlotId(self.slots.len() - 1)
    }

    /// A new value of `rows` rows of floats.
    pub fn value(&mut self, name: &str, rows: usize, channels: usize) -> Value {
        self.stored(name, (rows, channels), Elem::F32)
    }

    /// A new value between regions of the vision tower.
    pub fn map(&mut self, name: &str, pixels: usize, channels: usize) -> Value {
        self.stored(name, (pixels, channels), self.formats.maps)
    }

    fn stored(&mut self, name: &str, (rows, channels): (usize, usize), elem: Elem) -> Value {
        let slot = self.slot(name, (rows * pitch(channels) * elem.bytes()).div_ceil(4), false);
        Value { slot, rows, channels, elem }
    }

    /// A bias of `n` channels as lines; zeros where there is none.
    pub fn bias(&mut self, name: &str, bias: Option<WeightId>, n: usize) -> PackId {
        let id = bias.unwrap_or_else(|| self.weights.fill(0.0, &[n]));
        self.packs.vector(&format!("{name}.bias"), id, n)
    }

    /// Builds the kernels of a step and checks that they stay inside their operands.
    ///
    /// `scratch` gives the floats of scratch for a schedule.
    pub fn step(
        &mut self,
        draft: Draft<'_>,
        build: impl Fn(&Schedule) -> Rc<Kernel>,
        scratch: impl Fn(&Schedule) -> usize,
    ) -> Result<Step, LowerError> {
        let mut kernels = Vec::new();
        let mut pointers = Vec::new();
        let mut most = 0;
        for s in &self.schedules.clone() {
            let kernel = build(s);
            let floats = scratch(s).next_multiple_of(LANES);
            most = floats.max(most);
            verify(&kernel).map_err(LowerError::Kernel)?;
            pointers = self.arguments(&draft, &kernel, floats)?;
            kernels.push(kernel);
        }
        self.scratch_floats = self.scratch_floats.max(most);
        let Draft { name, shapes, units, result, macs, .. } = draft;
        Ok(Step { name, shapes, kernels, units, pointers, result, macs, scratch_bytes: 4 * most })
    }

    /// The pointer arguments in parameter order, each checked against the largest sizes.
    fn arguments(&self, draft: &Draft<'_>, kernel: &Kernel, scratch: usize) -> Result<Vec<Place>, LowerError> {
        let rows = draft.most.iter().find(|(n, _)| *n == "rows").map_or(1, |(_, v)| *v as usize);
        let mut sizes = Vec::new();
        let mut places = Vec::new();
        for param in &kernel.params {
            match param.kind {
                ParamKind::Size(_) => {
                    let value = match param.name.as_str() {
                        "first" => 0,
                        "last" => draft.units.count(rows) as i64,
                        name => draft.most.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v),
                    };
                    sizes.push((value, value));
                }
                ParamKind::Ptr(..) => {
                    let place = draft.bind.iter().find(|(n, _)| *n == param.name).map(|(_, p)| *p);
                    let missing = || LowerError::unsupported(&draft.name, format!("{} is not bound", param.name));
                    places.push((param.name.clone(), place.ok_or_else(missing)?));
                }
            }
        }
        let touched = extents(kernel, &sizes).map_err(LowerError::Analysis)?;
        for ((parameter, place), range) in places.iter().zip(touched) {
            let words = match place {
                Place::Weight(pack) => self.packs.floats(*pack),
                Place::Scales(pack) => self.packs.floats(*pack) - self.packs.scales_at(*pack),
                Place::Reach(pack) => self.packs.floats(*pack) - self.packs.reach_at(*pack),
                Place::Slot(slot, at) => self.slots[slot.0].floats - at,
                Place::Scratch => scratch,
            };
            let len = 4 * words as i64;
            if range.end > len {
                let (step, parameter) = (draft.name.clone(), parameter.clone());
                return Err(LowerError::Extent { step, parameter, touched: (range.end, len) });
            }
        }
        Ok(places.into_iter().map(|(_, p)| p).collect())
    }
}

impl Units {
    /// How many there are in a call of `rows` rows.
    pub fn count(self, rows: usize) -> usize {
        match self {
            Units::Fixed(n) => n,
            Units::Rows(group) => rows.div_ceil(group),
            Units::HeadRows { heads, block } => heads * rows.div_ceil(block),
        }
    }
}

/// Lines of `n` channels, as units.
pub(super) fn line_units(n: usize) -> Units {
    Units::Fixed(lines(n))
}
