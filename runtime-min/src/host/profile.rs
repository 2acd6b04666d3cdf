//! `--profile`: the time of every step.

use crate::program::{Phase, Program};
use crate::session::Session;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Collects while the session lives.
pub struct Profile(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    phase: Phase,
    name: &'static str,
    calls: u32,
    took: Duration,
    macs: u64,
}

impl Profile {
    pub fn watch<P: Program>(chat: &mut Session<'_, P>) -> Self {
        let entries = Arc::new(Mutex::new(Vec::<Entry>::new()));
        let theirs = Arc::clone(&entries);
        chat.observe(move |view| {
            let mut entries = theirs.lock().unwrap_or_else(PoisonError::into_inner);
            let known = entries.iter().position(|entry| entry.phase == view.phase && entry.name == view.step.name);
            let at = known.unwrap_or(entries.len());
            if known.is_none() {
                let (phase, name) = (view.phase, view.step.name);
                entries.push(Entry { phase, name, calls: 0, took: Duration::ZERO, macs: 0 });
            }
            if let Some(entry) = entries.get_mut(at) {
                entry.calls += 1;
                entry.took += view.took;
                // Where a step's rows vary, its multiply-adds are those of one row.
                let rows = if view.step.rows == 0 { view.rows as u64 } else { 1 };
                entry.macs += view.step.macs * rows;
            }
        });
        Self(entries)
    }

    /// One line a step: mean milliseconds, calls, multiply-adds per second, name.
    pub fn print(&self, err: &mut dyn Write) {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for phase in Phase::ALL {
            let total: Duration = entries.iter().filter(|entry| entry.phase == phase).map(|entry| entry.took).sum();
            for entry in entries.iter().filter(|entry| entry.phase == phase) {
                let seconds = entry.took.as_secs_f64();
                let mean = seconds * 1e3 / f64::from(entry.calls.max(1));
                let share = 100.0 * seconds / total.as_secs_f64().max(f64::MIN_POSITIVE);
                let rate = entry.macs as f64 / seconds.max(f64::MIN_POSITIVE) / 1e9;
                // Notes on stderr: nobody is left to tell when it is closed.
                let _ = writeln!(
                    err,
                    "{:8} {mean:10.3} ms {share:5.1} % {rate:8.2} GMAC/s {:5} x  {}",
                    phase.name(),
                    entry.calls,
                    entry.name
                );
            }
        }
    }
}
