//! Times variants of kernels in turn and writes the least time of each. `tvlmc tune` writes this program for the
//! processor it runs on, builds and runs it.

mod calls;

use std::io::Write;
use std::time::Instant;

use calls::CALLS;

/// A kernel in several variants, which take the same operands.
pub struct Call {
    /// Bytes of each operand.
    pub bytes: &'static [usize],
    /// An operand that has to come from memory, and how many copies of it are walked through.
    pub stream: Option<(usize, usize)>,
    /// The variants.
    pub runs: &'static [unsafe fn(&[*mut f32])],
}

/// Seconds for each variant.
const BUDGET: f64 = 0.06;
/// Seconds that are timed at once, at the least.
const SAMPLE: f64 = 2e-4;
/// Fewest and most samples of a variant.
const SAMPLES: (usize, usize) = (4, 25);
/// Bytes that operands begin at multiples of.
const ALIGNMENT: usize = 4096;

/// Bytes of memory, filled with small floats.
struct Buffer(Vec<f32>);

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        Buffer((0..bytes.div_ceil(4) + ALIGNMENT / 4).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect())
    }

    fn pointer(&mut self) -> *mut f32 {
        let at = self.0.as_ptr().align_offset(ALIGNMENT);
        self.0[at..].as_mut_ptr()
    }
}

fn main() {
    let most = CALLS.iter().filter_map(|call| call.stream.map(|(at, copies)| call.bytes[at] * copies)).max();
    let mut pool = Buffer::new(most.unwrap_or(0));
    for (i, call) in CALLS.iter().enumerate() {
        let mut buffers: Vec<Buffer> = (call.bytes.iter().enumerate())
            .map(|(at, &n)| Buffer::new(if call.stream.is_some_and(|(stream, _)| stream == at) { 0 } else { n }))
            .collect();
        let pointers: Vec<*mut f32> = buffers.iter_mut().map(Buffer::pointer).collect();
        let least = time(call, pointers, pool.pointer());
        let (again, least) = least.split_last().expect("the first variant is timed twice");
        for (variant, seconds) in least.iter().enumerate() {
            println!("time {i} {variant} {seconds:e}");
        }
        println!("again {i} {again:e}");
        // Whoever reads may have gone; there is nobody to tell then.
        let _ = std::io::stdout().flush();
    }
}

/// The least seconds of each variant, then of the first one again.
fn time(call: &Call, mut pointers: Vec<*mut f32>, pool: *mut f32) -> Vec<f64> {
    let n = call.runs.len();
    let mut copy = 0;
    let mut once = |variant: usize| {
        if let Some((at, copies)) = call.stream {
            // SAFETY: the pool has room for all copies.
            pointers[at] = unsafe { pool.add(copy * (call.bytes[at] / 4)) };
            copy = (copy + 1) % copies;
        }
        // SAFETY: the operands have the bytes that the kernel's extents ask for, and tvlmc has found the level's
        // features on this processor.
        unsafe { call.runs[variant % n](&pointers) };
    };
    let mut sample = |variant: usize, times: usize| {
        let begin = Instant::now();
        (0..times).for_each(|_| once(variant));
        begin.elapsed().as_secs_f64() / times as f64
    };
    // Warm-up: pages are touched, code is read.
    for variant in 0..n {
        sample(variant, 1);
    }
    let slowest = (0..n).map(|variant| sample(variant, 1)).fold(1e-9, f64::max);
    let times = (SAMPLE / slowest).ceil().max(1.0) as usize;
    let samples = ((BUDGET / (slowest * times as f64)) as usize).clamp(SAMPLES.0, SAMPLES.1);
    let mut least = vec![f64::INFINITY; n + 1];
    for round in 0..samples {
        for turn in 0..=n {
            // Nobody is always the first after somebody else.
            let variant = (turn + round) % (n + 1);
            least[variant] = least[variant].min(sample(variant, times));
        }
    }
    least
}
