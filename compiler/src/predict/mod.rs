//! How long a model takes on a device, from the lowered program and a description of the device.
//!
//! Multiply-adds, other arithmetic and bytes are counted from the kernels that the device would run, share by share as
//! its threads would; what a core does in a second is the device's, which share of it kernels reach is measured
//! (`docs/prediction.md`). Nothing is run.

mod device;
mod model;

use std::collections::HashMap;
use std::rc::Rc;

use kernels::{Counter, Kernel, ParamKind, Work, legalize};
use runtime_min::team::part;

pub use device::{Cluster, Device, Products};
pub use model::{Bound, Kind};

use crate::error::{Error, Quoted};
use crate::lower::{Phase, Place, Step};
use crate::pack::PackId;
use crate::package::family;
use crate::pipeline::Prepared;
use model::{Core, Share, Totals};

/// The time a device takes.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Name of the level that it runs.
    pub level: String,
    /// Cores that the threads run on, by clusters, the fastest first.
    pub cores: Vec<(String, usize)>,
    /// Vision, prefill and decode.
    pub phases: Vec<PhaseTime>,
}

/// The time of a phase.
#[derive(Clone, Debug)]
pub struct PhaseTime {
    /// As in [`crate::lower::Program::phases`].
    pub name: &'static str,
    /// What is computed, in words.
    pub what: String,
    /// The time of each step, in order; of a prefill in several calls, call by call.
    pub steps: Vec<StepTime>,
}

/// The time of a step.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// As in the plan.
    pub name: String,
    /// As in the plan.
    pub shapes: String,
    /// Multiply-adds of its products, attention's of a prompt and a token not counted.
    pub macs: u64,
    /// Bytes that pass between memory and cores.
    pub bytes: u64,
    /// Milliseconds by what they are spent on; those of the thread that is last.
    pub kinds: [f64; Kind::ALL.len()],
    /// What more of would make the step faster.
    pub bound: Bound,
}

impl StepTime {
    /// Milliseconds.
    pub fn ms(&self) -> f64 {
        self.kinds.iter().sum()
    }
}

impl PhaseTime {
    /// Milliseconds: the sum over the steps.
    pub fn ms(&self) -> f64 {
        self.steps.iter().map(StepTime::ms).sum()
    }

    /// Milliseconds by what they are spent on.
    pub fn kinds(&self) -> [f64; Kind::ALL.len()] {
        let mut sum = [0.0; Kind::ALL.len()];
        for step in &self.steps {
            sum.iter_mut().zip(step.kinds).for_each(|(sum, ms)| *sum += ms);
        }
        sum
    }

    /// What bounds the steps that take most of the time.
    pub fn bound(&self) -> Bound {
        let of = |bound: Bound| -> f64 { self.steps.iter().filter(|step| step.bound == bound).map(StepTime::ms).sum() };
        Bound::ALL.into_iter().max_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(Bound::Memory)
    }

    /// Multiply-adds, attention's of a prompt and a token not counted.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| step.macs).sum()
    }

    /// Bytes that pass between memory and cores.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes).sum()
    }
}

impl Prediction {
    /// Milliseconds from a picture's pixels to the first token of an answer.
    pub fn first_token_ms(&self) -> f64 {
        self.phases.iter().filter(|phase| phase.name != "decode").map(PhaseTime::ms).sum()
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.cores.iter().map(|(_, n)| n).sum()
    }
}

/// A model on a device, for any number of threads and rows.
pub struct Predictor<'a> {
    prepared: &'a Prepared,
    device: &'a Device,
    /// Of the targets.
    level: usize,
    level_name: String,
    /// The fastest first.
    cores: Vec<Core>,
    counter: Counter,
    legal: HashMap<String, Rc<Kernel>>,
}

impl<'a> Predictor<'a> {
    /// The model on the device, at the best level that all its cores have.
    ///
    /// # Errors
    /// The device has no level of the machine that the model was lowered for.
    pub fn new(prepared: &'a Prepared, device: &'a Device) -> Result<Predictor<'a>, Error> {
        let names: Vec<String> = prepared.targets.iter().map(|t| prepared.machine.level_name(t.level())).collect();
        let has = |name: &String| device.clusters.iter().all(|c| c.products.contains_key(name));
        let Some(level) = names.iter().position(has) else {
            let (device, wanted) = (Quoted(&device.name), names.join(", "));
            let triple = prepared.machine.triple();
            return Err(Error::Usage(format!(
                "--device {device}: its cores have none of the levels {wanted} of {triple}: take another --target, or add one to the \
                 products of each cluster"
            )));
        };
        let level_name = names[level].clone();
        let one = |(at, cluster): (usize, &Cluster)| vec![Core::new(at, cluster, &level_name); cluster.cores];
        let mut cores: Vec<Core> = device.clusters.iter().enumerate().flat_map(one).collect();
        cores.sort_by(|a, b| b.products().total_cmp(&a.products()));
        let (counter, legal) = (Counter::default(), HashMap::new());
        Ok(Predictor { prepared, device, level, level_name, cores, counter, legal })
    }

    /// The time with `threads` threads on the fastest cores, for a picture and a prompt of `rows` positions, the picture's
    /// among them, and for the token after it.
    ///
    /// # Errors
    /// No thread or more than there are cores, no rows besides those of the picture, or more than the cache has room for besides a token.
    pub fn predict(&mut self, threads: usize, rows: usize) -> Result<Prediction, Error> {
        let (prepared, n_cores, context) = (self.prepared, self.cores.len(), self.prepared.program.context);
        if threads == 0 || threads > n_cores {
            return Err(Error::Usage(format!("--threads {threads}: the device has 1 to {n_cores} cores")));
        }
        let (side, picture) = (prepared.description.vision.side, prepared.description.vision.tokens());
        if rows >= context {
            return Err(Error::Usage(format!(
                "--prompt-rows {rows}: up to {} fit into a context of {context} with a token of the answer; --context makes it larger",
                context - 1
            )));
        }
        if rows <= picture {
            return Err(Error::Usage(format!(
                "--prompt-rows {rows}: a picture of {side} x {side} pixels alone takes {picture} positions, and its question more"
            )));
        }
        let program = &prepared.program;
        let vision = self.phase(&program.vision, threads, &[(0, 0)]);
        let calls: Vec<(usize, usize)> =
            (0..rows).step_by(program.chunk).map(|start| (start, program.chunk.min(rows - start))).collect();
        let prefill = self.phase(&program.prefill, threads, &calls);
        let decode = self.phase(&program.decode, threads, &[(rows, 1)]);
        let phases = vec![
            PhaseTime { name: "vision", what: format!("a picture of {side} x {side} pixels"), steps: vision },
            PhaseTime { name: "prefill", what: format!("{rows} positions, the picture's among them"), steps: prefill },
            PhaseTime { name: "decode", what: format!("a token after {rows} positions"), steps: decode },
        ];
        let mut cores: Vec<(String, usize)> = Vec::new();
        for core in &self.cores[..threads] {
            let name = &self.device.clusters[core.cluster].name;
            match cores.last_mut() {
                Some((last, n)) if last == name => *n += 1,
                _ => cores.push((name.clone(), 1)),
            }
        }
        Ok(Prediction { level: self.level_name.clone(), cores, phases })
    }

    /// The number of threads with which the first token comes soonest, and its prediction.
    ///
    /// # Errors
    /// As of [`Predictor::predict`].
    pub fn best(&mut self, rows: usize) -> Result<Prediction, Error> {
        let mut best = self.predict(1, rows)?;
        for threads in 2..=self.cores.len() {
            let next = self.predict(threads, rows)?;
            if next.first_token_ms() < best.first_token_ms() {
                best = next;
            }
        }
        Ok(best)
    }

    /// The steps of a phase that is called at each start with so many rows.
    fn phase(&mut self, phase: &'a Phase, threads: usize, calls: &[(usize, usize)]) -> Vec<StepTime> {
        let cached = self.weights(phase) as f64 <= 1e6 * self.device.cache_mb;
        let steps = |&(start, rows): &(usize, usize)| phase.steps.iter().map(move |step| (step, start, rows));
        let calls: Vec<(&Step, usize, usize)> = calls.iter().flat_map(steps).collect();
        calls.into_iter().map(|(step, start, rows)| self.step(step, threads, (start, rows), cached)).collect()
    }

    /// Bytes of the weights that a phase may read.
    fn weights(&self, phase: &Phase) -> usize {
        let mut packs: Vec<_> = phase.steps.iter().flat_map(|step| &step.pointers).filter_map(pack).collect();
        packs.sort_unstable();
        packs.dedup();
        packs.into_iter().map(|pack| 4 * self.prepared.program.packs.floats(pack)).sum()
    }

    /// One call of a step; `cached` tells that the phase's weights stay in the cache.
    fn step(&mut self, step: &'a Step, threads: usize, (start, rows): (usize, usize), cached: bool) -> StepTime {
        let kernel = self.legal(&step.kernels[self.level]);
        let units = step.units.count(rows);
        let limits: Vec<u64> = step.pointers.iter().map(|place| self.limit(*place, cached)).collect();
        let whole = family(&kernel.name);
        let mut count = |first: usize, last: usize| {
            let sizes = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Size(_)));
            let sizes = sizes.map(|p| match p.name.as_str() {
                "first" => first as i64,
                "last" => last as i64,
                "start" => start as i64,
                "row" => rows as i64 - 1,
                _ => rows as i64,
            });
            self.counter.count(&kernel, &sizes.collect::<Vec<i64>>())
        };
        let touched = |work: &Work| work.bytes.iter().zip(&limits).map(|(bytes, limit)| bytes.min(limit)).sum();
        let mut shares = Vec::new();
        for own in (0..threads).map(|thread| part(units, thread, threads)).filter(|own| !own.is_empty()) {
            let work = count(own.start, own.end);
            let mut share = Share::new(touched(&work));
            for (name, counts) in &work.kernels {
                share.add(Kind::of(whole, family(name), counts), counts);
            }
            shares.push(share);
        }
        // What several threads read comes from memory once.
        let bytes = touched(&count(0, units));
        let totals = Totals { bytes, read_gbs: self.device.read_gbs, threads };
        let (kinds, bound) = model::time(&self.cores, &shares, &totals);
        let macs = if step.result.rows == 0 { step.macs * rows as u64 } else { step.macs };
        StepTime { name: step.name.clone(), shapes: step.shapes.clone(), macs, bytes, kinds, bound }
    }

    /// Most bytes that pass between memory and cores for a pointer, as what is read again is in a cache then.
    fn limit(&self, place: Place, cached: bool) -> u64 {
        let packs = &self.prepared.program.packs;
        let words = match place {
            Place::Weight(_) | Place::Scales(_) | Place::Reach(_) if cached => 0,
            Place::Weight(pack) => packs.floats(pack),
            Place::Scales(pack) => packs.floats(pack) - packs.scales_at(pack),
            Place::Reach(pack) => packs.floats(pack) - packs.reach_at(pack),
            Place::Slot(slot, _) => {
                let floats = self.prepared.program.slots[slot.0].floats;
                // What the step before has written is in the cache still.
                if 4.0 * floats as f64 <= 1e6 * self.device.cache_mb { 0 } else { floats }
            }
            Place::Scratch => 0,
        };
        4 * words as u64
    }

    fn legal(&mut self, kernel: &Rc<Kernel>) -> Rc<Kernel> {
        let target = self.prepared.targets[self.level].as_ref();
        self.legal.entry(kernel.name.clone()).or_insert_with(|| legalize(kernel, target)).clone()
    }
}

/// The pack that a place is the whole of.
fn pack(place: &Place) -> Option<PackId> {
    match place {
        Place::Weight(pack) => Some(*pack),
        // Parts of what a weight is.
        Place::Scales(_) | Place::Reach(_) => None,
        Place::Slot(..) | Place::Scratch => None,
    }
}
