//! What the user sees while waiting: notes, bars and errors, all of them on stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::Color;
use crate::error::{Error, grouped};

/// Where notes go, and whether the user wants to stop.
pub struct Ui {
    quiet: bool,
    color: bool,
    /// Whether stderr can redraw a line.
    bars: bool,
    interrupted: Arc<AtomicBool>,
}

impl Ui {
    /// Looks at the surroundings, and from now on notices Ctrl-C instead of dying of it.
    pub fn new(quiet: bool, color: Color) -> Ui {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one ends the process at once. Without handlers the default action is good enough.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, interrupted.clone());
            let _ = signal_hook::flag::register(signal, interrupted.clone());
        }
        // A file above the limit of the shell is then an error of the write, and the output is cleaned up.
        let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !set("NO_COLOR"),
        };
        Ui { quiet, color, bars: terminal && !quiet, interrupted }
    }

    /// Shows no bars from now on: one that moves needs a thread.
    pub fn stop_bars(&mut self) {
        self.bars = false;
    }

    /// A line for the user.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            // When stderr is gone, nobody is left to tell.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Why the command failed.
    pub fn error(&self, error: &Error) {
        let label = if self.color { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        let _ = writeln!(io::stderr(), "{label} {error}");
    }

    /// Whether notes are unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Fails once the user has pressed Ctrl-C.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_interrupted() { Err(Error::Environment("interrupted".into())) } else { Ok(()) }
    }

    /// Whether the user has pressed Ctrl-C.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Work that takes a while: a bar on a terminal (short enough for 80 columns), else a line when it is done.
    pub fn work(&self, what: &'static str, total: Option<u64>) -> Work<'_> {
        let style = match total {
            Some(_) => "{msg} [{bar:20}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}",
            None => "{msg} {spinner} {elapsed}",
        };
        let bar = if self.bars {
            ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        // The templates are ours; one that cannot be read costs only looks.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        if self.bars && total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Work { ui: self, bar, what, begin: Instant::now() }
    }
}

/// Work under way.
pub struct Work<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    what: &'static str,
    begin: Instant,
}

impl Work<'_> {
    /// Units done so far.
    pub fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Says how many of some pieces are done, where their number is not a bar's.
    pub fn step(&self, done: usize, of: usize) {
        self.bar.set_message(format!("{} {done} of {of}", self.what));
    }

    /// Says that it is done, with `detail` (may be empty) and the time.
    pub fn done(self, detail: &str) {
        self.bar.finish_and_clear();
        let seconds = self.begin.elapsed().as_secs_f64();
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.ui.note(&format!("{}{detail} ({seconds:.1} s)", self.what));
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `1,234,567 bytes` as `1.2 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count for a table: `243.4 G`, or with separators below a million.
pub fn count(n: u64) -> String {
    match n {
        0..1_000_000 => grouped(n),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(999), "999 bytes");
        assert_eq!(super::size(1_234_567), "1.2 MB");
        assert_eq!(super::size(999_999), "1.0 MB");
        assert_eq!(super::size(2_500_000_000_000_000), "2500.0 TB");
        assert_eq!(super::count(243_400_000_000), "243.4 G");
    }
}
