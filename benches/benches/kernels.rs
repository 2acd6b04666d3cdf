//! Printed kernels at the sizes of the real models, next to what this machine can do at most.
//!
//!     cargo bench -p benches                    # both levels
//!     cargo bench -p benches -- v4/gemm         # a part
//!
//! The peaks are measured first: multiply-adds in a loop that touches no memory, and reading 512 MB once, on one
//! thread. A table at the end gives GFLOP/s, GB/s or elements and the share of the peak.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

#[cfg(target_arch = "x86_64")]
#[allow(clippy::all, dead_code, missing_docs)]
mod v3 {
    include!(concat!(env!("OUT_DIR"), "/v3.rs"));
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::all, dead_code, missing_docs)]
mod v4 {
    include!(concat!(env!("OUT_DIR"), "/v4.rs"));
}

/// What a call's speed is measured in.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Floating-point operations.
    Flops,
    /// Bytes of weights.
    Bytes,
    /// Elements.
    Elements,
}

/// A call that is timed.
pub struct Case {
    name: &'static str,
    /// Floats of each operand.
    floats: &'static [usize],
    unit: Unit,
    /// Of units, in one call (in all calls of a stream).
    amount: f64,
    /// Operand and copies of a stream.
    stream: Option<(usize, usize)>,
    run: unsafe fn(&[*mut f32]),
}

/// Floats on huge pages where the system has them, filled with small values.
struct Buffer(Vec<f32>, usize);

impl Buffer {
    fn new(floats: usize) -> Buffer {
        // Room to start on a page of 2 MB.
        let mut room: Vec<f32> = Vec::with_capacity(floats + HUGE / 4);
        let at = room.as_ptr().align_offset(HUGE);
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the vector's own; the advice changes no contents.
        unsafe {
            madvise(room.as_mut_ptr().add(at).cast(), floats * 4, MADV_HUGEPAGE);
        }
        room.extend((0..at + floats).map(|i| (i % 13) as f32 * 0.01 - 0.06));
        Buffer(room, at)
    }

    fn pointer(&mut self) -> *mut f32 {
        self.0[self.1..].as_mut_ptr()
    }
}

const HUGE: usize = 2 << 20;

#[cfg(target_os = "linux")]
const MADV_HUGEPAGE: i32 = 14;

#[cfg(target_os = "linux")]
unsafe extern "C" {
    fn madvise(at: *mut core::ffi::c_void, len: usize, advice: i32) -> i32;
}

/// What one thread of this machine can do at a level.
#[derive(Clone, Copy)]
struct Peak {
    flops: f64,
    bytes: f64,
}

#[cfg(target_arch = "x86_64")]
mod peak {
    //! Loops that do nothing but what is measured.

    use core::arch::x86_64::*;
    use std::hint::black_box;

    /// Chains of multiply-adds that do not wait for each other.
    const CHAINS: usize = 12;

    /// Flops of [`fma_v3`] and [`fma_v4`] for each iteration.
    pub const FLOPS_V3: f64 = (CHAINS * 8 * 2) as f64;
    pub const FLOPS_V4: f64 = (CHAINS * 16 * 2) as f64;

    #[target_feature(enable = "avx2,fma")]
    pub fn fma_v3(n: usize) -> f32 {
        let mut acc = [_mm256_set1_ps(1.0); CHAINS];
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
        for _ in 0..n {
            for x in &mut acc {
                *x = _mm256_fmadd_ps(*x, a, b);
            }
        }
        acc.into_iter().fold(0.0, |sum, x| sum + _mm256_cvtss_f32(x))
    }

    #[target_feature(enable = "avx512f")]
    pub fn fma_v4(n: usize) -> f32 {
        let mut acc = [_mm512_set1_ps(1.0); CHAINS];
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(1e-3)));
        for _ in 0..n {
            for x in &mut acc {
                *x = _mm512_fmadd_ps(*x, a, b);
            }
        }
        acc.into_iter().fold(0.0, |sum, x| sum + _mm512_cvtss_f32(x))
    }

    /// Reads everything once.
    #[target_feature(enable = "avx2,fma")]
    pub fn read(data: &[f32]) -> f32 {
        let mut acc = [_mm256_setzero_ps(); 8];
        for chunk in data.chunks_exact(64) {
            for (j, x) in acc.iter_mut().enumerate() {
                // SAFETY: the chunk has 64 floats, j is below 8.
                *x = _mm256_add_ps(*x, unsafe { _mm256_loadu_ps(chunk.as_ptr().add(8 * j)) });
            }
        }
        acc.into_iter().fold(0.0, |sum, x| sum + _mm256_cvtss_f32(x))
    }
}

/// The best of thirty: short runs, since others may use the processor too.
fn best(run: impl Fn() -> f32) -> f64 {
    let one = |_| {
        let begin = Instant::now();
        black_box(run());
        begin.elapsed().as_secs_f64()
    };
    (0..30).map(one).fold(f64::INFINITY, f64::min)
}

/// A line of the closing table.
struct Row {
    name: String,
    seconds: f64,
    unit: Unit,
    amount: f64,
    peak: Peak,
}

#[cfg(target_arch = "x86_64")]
fn main() {
    const ITERATIONS: usize = 2_000_000;
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        println!("this processor has no AVX2 and FMA: nothing to time");
        return;
    }
    let mut big = Buffer::new(128 << 20);
    let data = &big.0[big.1..];
    // SAFETY: AVX2 and FMA were detected above.
    let bytes = 4.0 * data.len() as f64 / best(|| unsafe { peak::read(data) });
    black_box(big.pointer());
    drop(big);
    let mut levels: Vec<(&str, &[Case], Peak)> = Vec::new();
    // SAFETY: as above.
    let seconds = best(|| unsafe { peak::fma_v3(black_box(ITERATIONS)) });
    levels.push(("v3", v3::CASES, Peak { flops: peak::FLOPS_V3 * ITERATIONS as f64 / seconds, bytes }));
    let all = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
    let detected = [
        is_x86_feature_detected!("avx512f"),
        is_x86_feature_detected!("avx512bw"),
        is_x86_feature_detected!("avx512cd"),
        is_x86_feature_detected!("avx512dq"),
        is_x86_feature_detected!("avx512vl"),
    ];
    if let Some(at) = detected.iter().position(|there| !there) {
        println!("this processor has no {}: level v4 is not timed", all[at]);
    } else {
        // SAFETY: AVX-512 was detected above.
        let seconds = best(|| unsafe { peak::fma_v4(black_box(ITERATIONS)) });
        levels.push(("v4", v4::CASES, Peak { flops: peak::FLOPS_V4 * ITERATIONS as f64 / seconds, bytes }));
    }
    for (level, _, peak) in &levels {
        println!("{level}: at most {:.1} GFLOP/s, {:.1} GB/s on one thread", peak.flops / 1e9, peak.bytes / 1e9);
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let rows = RefCell::new(Vec::new());
    for (level, cases, peak) in &levels {
        for case in *cases {
            time(&mut criterion, level, case, *peak, &rows);
        }
    }
    criterion.final_summary();
    table(&rows.borrow());
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("kernels are printed for x86-64 only so far: nothing to time");
}

fn time(criterion: &mut Criterion, level: &str, case: &Case, peak: Peak, rows: &RefCell<Vec<Row>>) {
    let mut group = criterion.benchmark_group(level);
    group.throughput(match case.unit {
        Unit::Bytes => Throughput::Bytes(case.amount as u64),
        Unit::Flops | Unit::Elements => Throughput::Elements(case.amount as u64),
    });
    let mut fastest = f64::INFINITY;
    group.bench_function(case.name, |b| {
        // Buffers are made only for cases that run.
        let mut buffers: Vec<Buffer> = case
            .floats
            .iter()
            .enumerate()
            .map(|(i, &n)| Buffer::new(case.stream.map_or(n, |(at, copies)| if at == i { n * copies } else { n })))
            .collect();
        let mut pointers: Vec<*mut f32> = buffers.iter_mut().map(Buffer::pointer).collect();
        b.iter_custom(|n| {
            let begin = Instant::now();
            for _ in 0..n {
                // SAFETY: every operand has the floats that the kernel's extents ask for, and the level was
                // detected; a stream's operand has `copies` times as many.
                unsafe {
                    match case.stream {
                        None => (case.run)(&pointers),
                        Some((at, copies)) => {
                            let first = pointers[at];
                            for i in 0..copies {
                                pointers[at] = first.add(i * case.floats[at]);
                                (case.run)(&pointers);
                            }
                            pointers[at] = first;
                        }
                    }
                }
            }
            let taken = begin.elapsed();
            fastest = fastest.min(taken.as_secs_f64() / n as f64);
            taken
        });
    });
    group.finish();
    if fastest.is_finite() {
        let name = format!("{level}/{}", case.name);
        rows.borrow_mut().push(Row { name, seconds: fastest, unit: case.unit, amount: case.amount, peak });
    }
}

fn table(rows: &[Row]) {
    println!("\n| kernel | best time | speed | of the peak |\n|---|---|---|---|");
    for row in rows {
        let speed = row.amount / row.seconds;
        let (text, share) = match row.unit {
            Unit::Flops => (format!("{:.1} GFLOP/s", speed / 1e9), format!("{:.0} %", 100.0 * speed / row.peak.flops)),
            Unit::Bytes => (format!("{:.1} GB/s", speed / 1e9), format!("{:.0} %", 100.0 * speed / row.peak.bytes)),
            Unit::Elements => (format!("{:.2} G elements/s", speed / 1e9), String::new()),
        };
        println!("| {} | {:.3} ms | {text} | {share} |", row.name, 1e3 * row.seconds);
    }
}
