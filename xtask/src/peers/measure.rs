//! Running a side: its output, how long it took, the private memory it reached; and the figures of all sides.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::shell;

/// What a process came to.
pub struct Ran {
    pub out: String,
    pub err: String,
    /// From its start to its end.
    pub wall: Duration,
    /// Most anonymous memory, in bytes: what no other process shares and no file backs.
    pub private: f64,
}

/// Shows and runs a command to its end.
///
/// # Errors
/// It could not be started, or failed; with what it said.
pub fn run(command: &mut Command) -> Result<Ran, String> {
    shell::show(command);
    let begin = Instant::now();
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| shell::unable(command, &e))?;
    let status = format!("/proc/{}/status", child.id());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = AtomicBool::new(false);
    let (out, err, end, wall, private) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0.0_f64;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(anonymous(&std::fs::read_to_string(&status).unwrap_or_default()));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let err = scope.spawn(|| text(err));
        let out = text(out);
        let end = child.wait();
        let wall = begin.elapsed();
        ended.store(true, Ordering::Relaxed);
        (out, err.join().unwrap_or_default(), end, wall, watch.join().unwrap_or_default())
    });
    let end = end.map_err(|e| shell::unable(command, &e))?;
    if !end.success() {
        return Err(format!("`{}` failed: {end}\n{err}", shell::text(command)));
    }
    Ok(Ran { out, err, wall, private })
}

/// Everything a pipe gives; peers may print what is not text.
fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came until an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `RssAnon` of a process's status, in bytes.
fn anonymous(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kib| kib * 1024.0)
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Pixels to rows of the decoder's width, ms.
    Vision,
    /// The prompt's tokens to the first token, ms.
    Prefill,
    /// A token after the prompt, ms.
    Decode,
    /// Image to first token in one process, ms.
    First,
    /// Process start until it could begin, ms.
    Ready,
    /// Private memory of the process that runs the vision tower, MiB.
    Memory,
}

impl What {
    /// In the order of the report.
    pub const ALL: [What; 6] = [What::Vision, What::Prefill, What::Decode, What::First, What::Ready, What::Memory];

    /// Name in the report's files.
    pub fn key(self) -> &'static str {
        match self {
            What::Vision => "vision_ms",
            What::Prefill => "prefill_ms",
            What::Decode => "decode_ms",
            What::First => "first_token_ms",
            What::Ready => "ready_ms",
            What::Memory => "private_mib",
        }
    }
}

/// All values of one side, in the order in which they were measured.
pub struct Series {
    pub what: What,
    pub threads: usize,
    pub side: &'static str,
    pub values: Vec<f64>,
}

/// All that was measured.
#[derive(Default)]
pub struct Figures {
    pub series: Vec<Series>,
    /// What peers call themselves, with their versions.
    pub versions: Vec<String>,
}

impl Figures {
    /// Adds values of a side.
    pub fn add(&mut self, what: What, threads: usize, side: &'static str, values: &[f64]) {
        let same = |s: &&mut Series| (s.what, s.threads, s.side) == (what, threads, side);
        match self.series.iter_mut().find(same) {
            Some(series) => series.values.extend(values),
            None => self.series.push(Series { what, threads, side, values: values.to_vec() }),
        }
    }

    /// Remembers a version.
    pub fn version(&mut self, name: &str) {
        if !self.versions.iter().any(|known| known == name) {
            self.versions.push(name.to_string());
        }
    }

    /// The median of a side, if it was measured.
    pub fn median(&self, what: What, threads: usize, side: &str) -> Option<f64> {
        let series = self.series.iter().find(|s| (s.what, s.threads, s.side) == (what, threads, side))?;
        median(&series.values)
    }
}

/// The middle value; of an even number the mean of both middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = values.len().checked_sub(1)? / 2;
    Some((values[at] + values[values.len() / 2]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{Figures, What, anonymous, median, run};
    use crate::shell;

    #[test]
    fn medians_are_of_all_rounds() {
        let mut figures = Figures::default();
        figures.add(What::Vision, 1, "a", &[3.0, 1.0]);
        figures.add(What::Vision, 2, "a", &[9.0]);
        figures.add(What::Vision, 1, "a", &[2.0]);
        assert_eq!(figures.median(What::Vision, 1, "a"), Some(2.0));
        assert_eq!(figures.median(What::Vision, 1, "b"), None);
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn processes_are_measured() {
        let ran = run(&mut shell::command("sh", &["-c", "sleep 0.1; echo out; echo err >&2"])).expect("it runs");
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
        assert!(ran.wall.as_millis() >= 100 && ran.private > 0.0);
        let error = run(&mut shell::command("sh", &["-c", "echo reason >&2; exit 3"])).err().expect("it fails");
        assert!(error.contains("reason") && error.contains('3'), "{error}");
        assert_eq!(anonymous("Name: x\nRssAnon:\t    12 kB\n"), 12288.0);
    }
}
