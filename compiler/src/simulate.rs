//! Runs a lowered program by the kernel interpreter: what the emitted code computes, without it.

use kernels::library::pitch;
use kernels::{Elem, Fault, Memory as Buffers, ParamKind, Place as At, Target, half, interpret, legalize};
use models::Description;

use crate::lower::{Phase, Place, Program, SlotId, Step, Tap};
use crate::memory::Memory;

/// A program with its memory.
pub struct Simulation<'a> {
    program: &'a Program,
    memory: &'a Memory,
    level: usize,
    target: &'a dyn Target,
    buffers: Buffers,
}

const ARENA: usize = 0;
const WEIGHTS: usize = 1;
const SCRATCH: usize = 2;

impl<'a> Simulation<'a> {
    /// The program at one level; `weights` are the packed words.
    pub fn new(
        program: &'a Program,
        memory: &'a Memory,
        level: usize,
        target: &'a dyn Target,
        weights: &[u32],
    ) -> Self {
        let mut buffers = Buffers::default();
        buffers.zeros(memory.total / 4);
        buffers.words(weights);
        buffers.zeros(program.scratch_bytes / 4);
        Simulation { program, memory, level, target, buffers }
    }

    /// All words of the arena.
    pub fn arena(&self) -> &[u32] {
        &self.buffers.buffers[ARENA]
    }

    /// Byte of the arena where a slot begins.
    fn slot(&self, slot: SlotId) -> usize {
        self.memory.offsets[slot.0]
    }

    /// Writes floats to a slot.
    pub fn set(&mut self, slot: SlotId, at: usize, values: &[f32]) {
        let start = self.slot(slot) / 4 + at;
        for (to, value) in self.buffers.buffers[ARENA][start..].iter_mut().zip(values) {
            *to = value.to_bits();
        }
    }

    /// Reads floats of a slot.
    pub fn get(&self, slot: SlotId, at: usize, n: usize) -> Vec<f32> {
        self.buffers.read(At { buffer: ARENA, at: self.slot(slot) + 4 * at }, n)
    }

    /// Reads `n` rows of `channels` from the beginning of a slot, without the padding between them.
    pub fn rows(&self, slot: SlotId, n: usize, channels: usize) -> Vec<f32> {
        (0..n).flat_map(|row| self.get(slot, row * pitch(channels), channels)).collect()
    }

    /// The values of a result of `rows` rows, if their number is that of the call, without the padding between them.
    pub fn result(&self, tap: &Tap, rows: usize) -> Vec<f32> {
        let rows = if tap.rows == 0 { rows } else { tap.rows };
        let words = &self.buffers.buffers[ARENA][self.slot(tap.slot) / 4 + tap.at..];
        let value = |i: usize| match tap.elem {
            Elem::F16 => f32::from_bits(half::widen(words[i / 2] >> (16 * (i % 2)) & 0xffff)),
            _ => f32::from_bits(words[i]),
        };
        (0..rows).flat_map(|row| (0..tap.channels).map(move |c| row * tap.pitch + c)).map(value).collect()
    }

    /// Writes a picture `[side, side, 3]` inside its border.
    pub fn picture(&mut self, side: usize, values: &[f32]) {
        self.picture_at(self.program.io.image, side, values);
    }

    /// Writes a picture of any side into the slot of its phase.
    pub fn picture_at(&mut self, slot: SlotId, side: usize, values: &[f32]) {
        for (y, line) in values.chunks_exact(side * 3).enumerate() {
            self.set(slot, (y + 1) * (side + 2) * 3 + 3, line);
        }
    }

    /// Writes the rows of a prompt, those of the picture that was encoded where its id is; how many there are.
    ///
    /// The picture is one id for each row, or one id outside the vocabulary for all.
    pub fn prompt(&mut self, ids: &[i64], description: &Description) -> Result<usize, Fault> {
        let (hidden, io) = (description.text.hidden, self.program.io);
        let picture = self.rows(io.image_rows, description.vision.tokens(), hidden);
        let mut picture = picture.chunks_exact(hidden);
        let image_id = description.tokens.image.map_or(-200, i64::from);
        let mut n = 0;
        for &id in ids {
            if id == image_id {
                for row in picture.by_ref().take(if id < 0 { usize::MAX } else { 1 }) {
                    self.set(io.rows, n * pitch(hidden), row);
                    n += 1;
                }
            } else {
                self.embed(id as u32, n, pitch(hidden))?;
                n += 1;
            }
        }
        Ok(n)
    }

    /// Writes a token's row.
    pub fn embed(&mut self, id: u32, row: usize, pitch: usize) -> Result<(), Fault> {
        let kernel = legalize(&self.program.embed[self.level], self.target);
        let to = At { buffer: ARENA, at: self.slot(self.program.io.rows) + 4 * row * pitch };
        let mut places: Vec<At> = self.program.embed_pointers.iter().map(|p| self.place(*p)).collect();
        places.push(to);
        interpret(&kernel, &mut self.buffers, &places, &[i64::from(id)])
    }

    /// Runs a phase with the work divided among `threads`; `seen` is called after each step.
    pub fn run(
        &mut self,
        phase: &Phase,
        (start, rows): (usize, usize),
        threads: usize,
        mut seen: impl FnMut(&Step, &Self),
    ) -> Result<(), Fault> {
        for step in &phase.steps {
            self.step(step, (start, rows), threads)?;
            seen(step, self);
        }
        Ok(())
    }

    /// Runs one step.
    pub fn step(&mut self, step: &Step, (start, rows): (usize, usize), threads: usize) -> Result<(), Fault> {
        let kernel = legalize(&step.kernels[self.level], self.target);
        let places: Vec<At> = step.pointers.iter().map(|p| self.place(*p)).collect();
        let units = step.units.count(rows);
        for thread in 0..threads {
            let (first, last) = (units * thread / threads, units * (thread + 1) / threads);
            let sizes: Vec<i64> = kernel
                .params
                .iter()
                .filter(|p| matches!(p.kind, ParamKind::Size(_)))
                .map(|p| match p.name.as_str() {
                    "first" => first as i64,
                    "last" => last as i64,
                    "start" => start as i64,
                    "row" => rows as i64 - 1,
                    _ => rows as i64,
                })
                .collect();
            interpret(&kernel, &mut self.buffers, &places, &sizes)?;
        }
        Ok(())
    }

    fn place(&self, place: Place) -> At {
        let packs = &self.program.packs;
        match place {
            Place::Weight(pack) => At { buffer: WEIGHTS, at: packs.offset(pack) },
            Place::Scales(pack) => At { buffer: WEIGHTS, at: packs.offset(pack) + 4 * packs.scales_at(pack) },
            Place::Reach(pack) => At { buffer: WEIGHTS, at: packs.offset(pack) + 4 * packs.reach_at(pack) },
            Place::Slot(slot, at) => At { buffer: ARENA, at: self.slot(slot) + 4 * at },
            Place::Scratch => At { buffer: SCRATCH, at: 0 },
        }
    }
}
