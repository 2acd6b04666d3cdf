//! What one thread of this machine can do at most: loops that do nothing but what is measured.

use core::arch::x86_64::*;
use std::hint::black_box;
use std::time::Instant;

/// What one thread can do at a level, per second.
#[derive(Clone, Copy)]
pub struct Peak {
    /// Floating-point operations.
    pub flops: f64,
    /// Operations on bytes.
    pub ops: f64,
    /// Bytes read from huge pages of memory.
    pub bytes: f64,
}

/// A loop that runs `n` times; its result keeps it from being left out.
pub type Loop = unsafe fn(n: usize) -> f32;

/// A loop, and the operations of one time through it.
#[derive(Clone, Copy)]
pub struct Counted(Loop, f64);

/// Chains that do not wait for each other: an instruction answers after five cycles and two begin in each.
const CHAINS: usize = 12;

/// A function with [`CHAINS`] values that take the same step again and again.
macro_rules! chains {
    ($name:ident, $features:literal, $start:expr, $a:ident = $a_value:expr, $b:ident = $b_value:expr, |$x:ident| $step:expr, $lane:expr) => {
        #[target_feature(enable = $features)]
        fn $name(n: usize) -> f32 {
            let mut chains = [$start; CHAINS];
            let ($a, $b) = (black_box($a_value), black_box($b_value));
            for _ in 0..n {
                for chain in &mut chains {
                    let $x = *chain;
                    *chain = $step;
                }
            }
            chains.into_iter().fold(0.0, |sum, x| sum + $lane(x))
        }
    };
}

chains!(
    fused_256,
    "avx2,fma",
    _mm256_set1_ps(1.0),
    a = _mm256_set1_ps(0.999),
    b = _mm256_set1_ps(1e-3),
    |x| _mm256_fmadd_ps(x, a, b),
    _mm256_cvtss_f32
);
chains!(
    fused_512,
    "avx512f",
    _mm512_set1_ps(1.0),
    a = _mm512_set1_ps(0.999),
    b = _mm512_set1_ps(1e-3),
    |x| _mm512_fmadd_ps(x, a, b),
    _mm512_cvtss_f32
);
chains!(
    exact_256,
    "avx2",
    _mm256_set1_ps(1.0),
    a = _mm256_set1_ps(0.999),
    b = _mm256_set1_ps(1e-3),
    |x| _mm256_add_ps(_mm256_mul_ps(x, a), b),
    _mm256_cvtss_f32
);
chains!(
    exact_512,
    "avx512f",
    _mm512_set1_ps(1.0),
    a = _mm512_set1_ps(0.999),
    b = _mm512_set1_ps(1e-3),
    |x| _mm512_add_ps(_mm512_mul_ps(x, a), b),
    _mm512_cvtss_f32
);
// Three instructions stand for a dot product; they begin with the sum, or all but the last would be left out.
chains!(
    bytes_256,
    "avx2",
    _mm256_set1_epi8(3),
    w = _mm256_set1_epi8(5),
    one = _mm256_set1_epi16(1),
    |x| _mm256_add_epi32(x, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), one)),
    first_256
);
chains!(
    dot_256,
    "avx2,avxvnni",
    _mm256_set1_epi8(3),
    w = _mm256_set1_epi8(5),
    a = _mm256_set1_epi8(-7),
    |x| _mm256_dpbusd_avx_epi32(x, w, a),
    first_256
);
chains!(
    dot_512,
    "avx512f,avx512vnni",
    _mm512_set1_epi8(3),
    w = _mm512_set1_epi8(5),
    a = _mm512_set1_epi8(-7),
    |x| _mm512_dpbusd_epi32(x, w, a),
    first_512
);

#[target_feature(enable = "avx2")]
fn first_256(x: __m256i) -> f32 {
    _mm256_cvtsi256_si32(x) as f32
}

#[target_feature(enable = "avx512f")]
fn first_512(x: __m512i) -> f32 {
    _mm512_cvtsi512_si32(x) as f32
}

/// Fused multiplies and adds.
pub const FUSED: [Counted; 2] = [Counted(fused_256, 16.0), Counted(fused_512, 32.0)];
/// Multiplies and adds as two instructions.
pub const EXACT: [Counted; 2] = [Counted(exact_256, 16.0), Counted(exact_512, 32.0)];
/// Sums of products of bytes: without a dot instruction, with one of 256 bits, of 512 bits.
pub const DOT: [Counted; 3] = [Counted(bytes_256, 64.0), Counted(dot_256, 64.0), Counted(dot_512, 128.0)];

impl Counted {
    /// Operations per second.
    ///
    /// # Safety
    /// The processor has the loop's features.
    pub unsafe fn speed(self) -> f64 {
        const TIMES: usize = 1_000_000;
        // SAFETY: the caller's.
        let run = || {
            black_box(unsafe { self.0(black_box(TIMES)) });
        };
        (TIMES * CHAINS) as f64 * self.1 / best(run)
    }
}

/// Reads everything once.
pub fn read(data: &[f32]) {
    // SAFETY: `main` has found AVX2.
    black_box(unsafe { sum(black_box(data)) });
}

/// Adds up everything, so that nothing is left out.
#[target_feature(enable = "avx2")]
fn sum(data: &[f32]) -> f32 {
    let mut acc = [_mm256_setzero_ps(); 8];
    for chunk in data.chunks_exact(64) {
        for (j, x) in acc.iter_mut().enumerate() {
            // SAFETY: the chunk has 64 floats, j is below 8.
            *x = _mm256_add_ps(*x, unsafe { _mm256_loadu_ps(chunk.as_ptr().add(8 * j)) });
        }
    }
    acc.into_iter().fold(0.0, |sum, x| sum + _mm256_cvtss_f32(x))
}

/// Seconds of the best of thirty: short runs, since others may use the processor too.
pub fn best(run: impl Fn()) -> f64 {
    let one = |_| {
        let begin = Instant::now();
        run();
        begin.elapsed().as_secs_f64()
    };
    (0..30).map(one).fold(f64::INFINITY, f64::min)
}
