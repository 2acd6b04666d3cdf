//! Beside each probe: what every step makes, by hash.

use model::Session;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// Watches a conversation: a line `PHASE START STEP HASH` for each step from now on.
pub fn watch(chat: &mut Session<'_>) -> Arc<Mutex<String>> {
    let seen = Arc::new(Mutex::new(String::new()));
    let theirs = Arc::clone(&seen);
    chat.observe(move |view| {
        let bits = view.iter().flatten().map(|x| x.to_bits());
        // FNV-1a over words of 32 bits.
        let hash = bits.fold(0xcbf2_9ce4_8422_2325u64, |h, x| (h ^ u64::from(x)).wrapping_mul(0x0100_0000_01b3));
        let (phase, start, step) = (view.phase.name(), view.start, view.step.name);
        writeln!(theirs.lock().expect("one observer"), "{phase} {start} {step} {hash:016x}").expect("a text");
    });
    seen
}
