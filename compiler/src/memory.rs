//! The memory plan: every slot at a constant offset of one arena.
//!
//! Slots that live across phases come first. The others share what follows: within a phase two
//! slots overlap only if their lives do not, and the phases lie over each other.

use crate::lower::{Phase, Place, Program, SlotId};

/// Bytes of a line; slots start on lines.
const LINE: usize = 64;

/// Offsets of all slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Byte offset of each slot.
    pub offsets: Vec<usize>,
    /// Bytes that live across phases.
    pub persistent: usize,
    /// Bytes of vision, prefill, decode, verify and what completes logits, over `persistent`.
    pub phases: [usize; 5],
    /// Bytes of the images of smaller sides, from small to large, over `persistent`.
    pub smaller: Vec<usize>,
    /// Bytes of the arena.
    pub total: usize,
}

impl Memory {
    /// Bytes of the arena that are touched with images of one side: `side` counts from the smallest.
    pub fn touched(&self, side: usize) -> usize {
        let [vision, rest @ ..] = self.phases;
        let image = self.smaller.get(side).copied().unwrap_or(vision);
        self.persistent + rest.into_iter().fold(image, usize::max)
    }
}

/// First and last step that touch a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    slot: SlotId,
    first: usize,
    last: usize,
}

/// Plans the arena of a program.
pub fn plan(program: &Program) -> Memory {
    let bytes = |slot: SlotId| (program.slots[slot.0].floats * 4).next_multiple_of(LINE);
    let mut offsets = vec![0; program.slots.len()];
    let mut persistent = 0;
    for (i, slot) in program.slots.iter().enumerate() {
        if slot.persistent {
            offsets[i] = persistent;
            persistent += bytes(SlotId(i));
        }
    }
    let phases = program.phases().map(|(_, phase)| {
        let lives = lives(program, phase);
        let ends = first_fit(&lives, persistent, &bytes, &mut offsets);
        ends - persistent
    });
    // The phases of smaller images lie over those of the model's own, which need the most.
    let smaller = program.smaller.iter().map(|other| {
        let lives = lives(program, &other.phase);
        first_fit(&lives, persistent, &bytes, &mut offsets) - persistent
    });
    let smaller: Vec<usize> = smaller.collect();
    let most = smaller.iter().copied().chain(phases).max().unwrap_or(0);
    let total = persistent + most;
    Memory { offsets, persistent, phases, smaller, total }
}

fn lives(program: &Program, phase: &Phase) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    let mut touch = |slot: SlotId, at: usize| match lives.iter_mut().find(|l| l.slot == slot) {
        Some(life) => life.last = at,
        None => lives.push(Life { slot, first: at, last: at }),
    };
    for (at, step) in phase.steps.iter().enumerate() {
        for place in &step.pointers {
            if let Place::Slot(slot, _) = place {
                touch(*slot, at);
            }
        }
    }
    // The runtime reads the encoded image after the last step.
    let rows = |slot| slot == program.io.image_rows || program.smaller.iter().any(|other| slot == other.image_rows);
    lives.iter_mut().filter(|l| rows(l.slot)).for_each(|l| l.last = usize::MAX);
    lives.retain(|l| !program.slots[l.slot.0].persistent);
    lives
}

/// Largest slots first, each at the lowest offset free during its life. Returns the end.
fn first_fit(lives: &[Life], base: usize, bytes: &dyn Fn(SlotId) -> usize, offsets: &mut [usize]) -> usize {
    let mut order: Vec<Life> = lives.to_vec();
    order.sort_by_key(|l| (std::cmp::Reverse(bytes(l.slot)), l.first));
    let mut placed: Vec<(Life, usize)> = Vec::new();
    for life in order {
        let size = bytes(life.slot);
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(other, _)| other.first <= life.last && life.first <= other.last)
            .map(|(other, at)| (*at, at + bytes(other.slot)))
            .collect();
        busy.sort_unstable();
        let mut at = base;
        for (from, to) in busy {
            if at + size <= from {
                break;
            }
            at = at.max(to);
        }
        offsets[life.slot.0] = at;
        placed.push((life, at));
    }
    placed.iter().map(|(l, at)| at + bytes(l.slot)).max().unwrap_or(base)
}
