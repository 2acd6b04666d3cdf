//! The custom section `tvlmc.info`: what the runtime has to know about a compiled model, in binary.
//!
//! The format is described where it is read, in `runtime-wasm/src/info.rs`.

use kernels::library::pitch;
use models::Policy;

use crate::package::{Identity, WEIGHTS_NAME};
use crate::pipeline::Prepared;

/// Name of the section.
pub(super) const SECTION: &str = "tvlmc.info";

pub(super) fn info(prepared: &Prepared, id: &Identity<'_>) -> Vec<u8> {
    let (program, description) = (&prepared.program, &prepared.description);
    let slot = |slot: crate::lower::SlotId| prepared.memory.offsets[slot.0];
    let (hidden, vocab) = (description.text.hidden, description.text.vocab);
    let mut out = Out(b"TVLMINF1".to_vec());
    for text in [id.name, id.system, WEIGHTS_NAME] {
        out.numbers(&[text.len()]);
        out.0.extend_from_slice(text.as_bytes());
    }
    out.0.extend_from_slice(&id.digest);
    out.numbers(&[hidden, vocab, program.context, program.chunk, program.verify_rows]);
    out.numbers(&[prepared.memory.total, program.scratch_bytes, 4 * program.packs.total()]);
    let (rows, logits) = (slot(program.io.rows), slot(program.io.logits));
    out.numbers(&[pitch(hidden), rows, pitch(hidden), logits, pitch(vocab), slot(program.io.token)]);
    out.numbers(&[usize::from(id.baked), usize::from(!program.logits.steps.is_empty())]);
    let (policy, [r, g, b]) = match description.image.policy {
        Policy::Pad { color } => (0, color),
        Policy::Crop => (1, [0; 3]),
    };
    out.numbers(&[policy]);
    out.0.extend_from_slice(&[r, g, b, 0]);
    out.numbers(&[program.cache.len()]);
    for (cache, [pieces, pitch, block, floats]) in &program.cache {
        out.numbers(&[slot(*cache), *pieces, 4 * pitch, *block, 4 * floats]);
    }
    let sides = program.sides(description);
    out.numbers(&[sides.len()]);
    for (side, tokens, image, rows, _) in sides {
        out.numbers(&[side, tokens, slot(image), slot(rows)]);
    }
    out.0
}

struct Out(Vec<u8>);

impl Out {
    /// Numbers below 2^32: offsets in a memory of 32-bit addresses, which [`super::package`] checks.
    fn numbers(&mut self, numbers: &[usize]) {
        for n in numbers {
            self.0.extend_from_slice(&(*n as u32).to_le_bytes());
        }
    }
}
