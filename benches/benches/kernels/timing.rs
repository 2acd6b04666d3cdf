//! Times one call, and what it is compared with.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

use crate::memory::Buffer;
use crate::peak::{self, Peak};

/// What a call's speed is measured in.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Floating-point operations.
    Flops,
    /// Operations on bytes.
    Ops,
    /// Bytes of weights.
    Bytes,
    /// Elements.
    Elements,
}

/// A call that is timed.
pub struct Case {
    pub name: &'static str,
    /// Floats of each operand.
    pub floats: &'static [usize],
    pub unit: Unit,
    /// Of units, in one call (in all calls of a stream).
    pub amount: f64,
    /// Operand and copies of a stream.
    pub stream: Option<(usize, usize)>,
    pub run: unsafe fn(&[*mut f32]),
}

/// A line of the closing table.
pub struct Row {
    pub name: String,
    /// Of the fastest call.
    pub seconds: f64,
    pub unit: Unit,
    pub amount: f64,
    pub peak: Peak,
}

/// Short runs: the best of them counts.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Times a call; nothing if it was not asked for.
pub fn time(criterion: &mut Criterion, level: &str, case: &Case, peak: Peak) -> Option<Row> {
    let mut group = criterion.benchmark_group(level);
    group.throughput(match case.unit {
        Unit::Bytes => Throughput::Bytes(case.amount as u64),
        Unit::Flops | Unit::Ops | Unit::Elements => Throughput::Elements(case.amount as u64),
    });
    let (mut fastest, mut read) = (f64::INFINITY, f64::INFINITY);
    group.bench_function(case.name, |b| {
        // Buffers are made only for cases that run.
        let mut buffers = buffers(case);
        let mut pointers: Vec<*mut f32> = buffers.iter_mut().map(Buffer::pointer).collect();
        b.iter_custom(|n| match case.stream {
            None => {
                let taken = seconds(|| (0..n).for_each(|_| call(case, &mut pointers)));
                fastest = fastest.min(taken / n as f64);
                Duration::from_secs_f64(taken)
            }
            Some((at, _)) => {
                let mut taken = 0.0;
                for _ in 0..n {
                    read = read.min(seconds(|| peak::read(buffers[at].floats())));
                    let one = seconds(|| call(case, &mut pointers));
                    fastest = fastest.min(one);
                    taken += one;
                }
                Duration::from_secs_f64(taken)
            }
        });
    });
    group.finish();
    let bytes = if read.is_finite() { case.amount / read } else { peak.bytes };
    let name = format!("{level}/{}", case.name);
    let row = Row { name, seconds: fastest, unit: case.unit, amount: case.amount, peak: Peak { bytes, ..peak } };
    fastest.is_finite().then_some(row)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// The operands; a stream is a file, as weights are.
fn buffers(case: &Case) -> Vec<Buffer> {
    let one = |(i, &n): (usize, &usize)| match case.stream {
        Some((at, copies)) if at == i => {
            Buffer::mapped(n * copies).unwrap_or_else(|e| panic!("{}: no file for its weights: {e}", case.name))
        }
        _ => Buffer::new(n),
    };
    case.floats.iter().enumerate().map(one).collect()
}

/// One call, or one for each copy of a stream.
fn call(case: &Case, pointers: &mut [*mut f32]) {
    // SAFETY: every operand has the floats that the kernel's extents ask for, and the level was detected; a stream's
    // operand has `copies` times as many and is only read.
    unsafe {
        let Some((at, copies)) = case.stream else { return (case.run)(pointers) };
        let first = pointers[at];
        for i in 0..copies {
            pointers[at] = first.add(i * case.floats[at]);
            (case.run)(pointers);
        }
        pointers[at] = first;
    }
}
