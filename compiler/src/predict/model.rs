//! From counts to milliseconds: which share of a core's peak kernels reach, and who waits for whom.

use kernels::Counts;

use super::device::{Cluster, Products};

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Products of integers, with what is done to nibbles before and to sums behind them.
    Integers,
    /// Products of floats.
    Floats,
    /// Depthwise convolutions.
    Depthwise,
    /// Attention: its products, softmax, positions and the cache.
    Attention,
    /// What is done to each value by itself or with its row: GELU, SwiGLU, norms, quantizing.
    Elements,
    /// Waiting for memory beyond what arithmetic takes meanwhile.
    Memory,
    /// Threads that wait for each other between steps.
    Barrier,
}

impl Kind {
    /// All, in the order of [`super::StepTime::kinds`].
    pub const ALL: [Kind; 7] =
        [Kind::Integers, Kind::Floats, Kind::Depthwise, Kind::Attention, Kind::Elements, Kind::Memory, Kind::Barrier];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Integers => "integer matrix products",
            Kind::Floats => "float matrix products",
            Kind::Depthwise => "depthwise convolutions",
            Kind::Attention => "attention",
            Kind::Elements => "activations, norms, quantizing",
            Kind::Memory => "waiting for memory",
            Kind::Barrier => "threads waiting for each other",
        }
    }

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Integers => "integer_products",
            Kind::Floats => "float_products",
            Kind::Depthwise => "depthwise",
            Kind::Attention => "attention",
            Kind::Elements => "elementwise",
            Kind::Memory => "memory",
            Kind::Barrier => "barriers",
        }
    }

    /// What a kernel of `family` does that a step of the family `whole` calls. What a product is of is told by its
    /// operations: one of floats has few on integers.
    pub(super) fn of(whole: &str, family: &str, counts: &Counts) -> Kind {
        match (whole, family) {
            ("attention", _) | (_, "attention") => Kind::Attention,
            (_, "depthwise") => Kind::Depthwise,
            (_, "elementwise" | "quantize" | "norm" | "squeeze_excite") => Kind::Elements,
            _ if counts.dots + counts.half_dots > 0 || counts.integers > counts.fused + counts.floats => Kind::Integers,
            _ => Kind::Floats,
        }
    }

    /// Share of the peak that dot products reach.
    fn products(self) -> f64 {
        match self {
            Kind::Integers => INTEGERS,
            _ => ATTENTION,
        }
    }

    /// Share of the peak that all other arithmetic reaches.
    fn others(self) -> f64 {
        match self {
            Kind::Integers => INTEGERS,
            Kind::Floats => FLOATS,
            Kind::Depthwise => DEPTHWISE,
            Kind::Attention => ATTENTION,
            Kind::Elements | Kind::Memory | Kind::Barrier => ELEMENTS,
        }
    }
}

// Shares of the peak, measured over counted: `docs/prediction.md` has the figures, which are those of
// `docs/performance.md` on two cores of an AMD EPYC (Zen 5).

/// Products of integers, what is done to sums and nibbles included: 456 ms counted in the tower, 540 ms measured, where the
/// kernels alone reach 86 to 96 %.
const INTEGERS: f64 = 0.845;

/// Products of floats, in f32: 1781 ms counted in the tower and 773 ms in a prefill, 1917 and 1001 ms measured, which is less
/// what is counted of all else.
const FLOATS: f64 = 0.85;

/// Depthwise convolutions, which load a line for each tap: 45 ms counted, 130 ms measured.
const DEPTHWISE: f64 = 0.35;

/// Attention on bytes, softmax included: 33 ms counted in the tower, 76 ms measured.
const ATTENTION: f64 = 0.43;

/// Quantizing and GELU, chains of operations that wait for each other: 44 ms counted in the tower, 115 ms measured.
const ELEMENTS: f64 = 0.38;

/// Share of the bandwidth of a long read: 88 to 93 % while decoding.
const READING: f64 = 0.9;

/// Milliseconds until all threads have met after a step, spinning. An estimate: nothing in the documents measures it alone.
const BARRIER_MS: f64 = 0.002;

/// What more of would make a step faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Dot products of bytes.
    Integers,
    /// All other arithmetic.
    Floats,
    /// Bytes a second.
    Memory,
}

impl Bound {
    /// All.
    pub const ALL: [Bound; 3] = [Bound::Integers, Bound::Floats, Bound::Memory];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Integers => "integer dot products",
            Bound::Floats => "float arithmetic",
            Bound::Memory => "memory bandwidth",
        }
    }
}

/// A core at one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Core {
    /// Of the device's.
    pub cluster: usize,
    ghz: f64,
    products: Products,
    f32_fused: f64,
    f32_apart: f64,
    read_gbs: f64,
}

impl Core {
    /// A core of a cluster that has the level.
    pub fn new(at: usize, cluster: &Cluster, level: &str) -> Core {
        let Cluster { ghz, f32_fused, f32_apart, read_gbs, .. } = *cluster;
        Core { cluster: at, ghz, products: cluster.products[level], f32_fused, f32_apart, read_gbs }
    }

    /// Multiply-adds of bytes, 10^9 a second.
    pub fn products(&self) -> f64 {
        self.ghz * self.products.whole
    }

    /// Milliseconds of dot products and of the rest.
    fn ms(&self, kind: Kind, counts: &Counts) -> (f64, f64) {
        let cycles = |lanes: u64, per_cycle: f64| lanes as f64 / per_cycle;
        let products =
            cycles(4 * counts.dots, self.products.whole) + cycles(4 * counts.half_dots, self.products.halves);
        // A product or a sum is half of a multiply-add that is rounded twice; anything else takes as long.
        let others =
            cycles(counts.fused, self.f32_fused) + cycles(counts.floats + counts.integers, 2.0 * self.f32_apart);
        let ms = |cycles: f64, share: f64| cycles / (1e6 * self.ghz * share);
        (ms(products, kind.products()), ms(others, kind.others()))
    }
}

/// What one thread does in a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    counts: [Counts; Kind::ALL.len()],
    /// Bytes between memory and this core.
    bytes: u64,
}

impl Share {
    /// No operations yet, on so many bytes.
    pub fn new(bytes: u64) -> Share {
        Share { bytes, ..Share::default() }
    }

    /// More operations.
    pub fn add(&mut self, kind: Kind, counts: &Counts) {
        self.counts[kind as usize] += *counts;
    }
}

/// What all threads share in a step.
pub(super) struct Totals {
    /// Bytes between memory and all cores, those that several read counted once.
    pub bytes: u64,
    /// GB/s (of 10^9 bytes) of all cores.
    pub read_gbs: f64,
    /// Threads of the team, those without work too.
    pub threads: usize,
}

/// Milliseconds of a step by kinds, and its bound: arithmetic and memory overlap, so that the slower one counts.
pub(super) fn time(cores: &[Core], shares: &[Share], totals: &Totals) -> ([f64; Kind::ALL.len()], Bound) {
    let (mut kinds, mut bound, mut slowest) = ([0.0; Kind::ALL.len()], Bound::Floats, 0.0);
    let mut memory = totals.bytes as f64 / (1e6 * totals.read_gbs * READING);
    for (core, share) in cores.iter().zip(shares) {
        let times: [(f64, f64); Kind::ALL.len()] = Kind::ALL.map(|kind| core.ms(kind, &share.counts[kind as usize]));
        let sum = times.iter().map(|(products, others)| products + others).sum::<f64>();
        if sum > slowest {
            slowest = sum;
            kinds = times.map(|(products, others)| products + others);
            // What belongs to a product of integers waits for the same pipes.
            let integers: f64 =
                times.iter().map(|(products, _)| products).sum::<f64>() + times[Kind::Integers as usize].1;
            bound = if integers > sum / 2.0 { Bound::Integers } else { Bound::Floats };
        }
        memory = memory.max(share.bytes as f64 / (1e6 * core.read_gbs * READING));
    }
    if memory > slowest {
        bound = Bound::Memory;
        kinds[Kind::Memory as usize] = memory - slowest;
    }
    if totals.threads > 1 {
        kinds[Kind::Barrier as usize] = BARRIER_MS;
    }
    (kinds, bound)
}
