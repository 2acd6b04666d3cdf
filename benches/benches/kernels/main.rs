//! Printed kernels at the sizes of the real models, next to what this machine can do at most.
//!
//!     cargo bench -p benches                        # all levels
//!     cargo bench -p benches -- v4/gemm             # a part
//!     cargo bench -p benches -- 'v4-vnni/int4/gemv'
//!
//! The peaks are measured first, on one thread: multiply-adds of floats and of bytes in loops that touch no memory, as
//! each level does them. What reads a stream of weights is compared with reading that very stream, a mapped file, in
//! turn with it. A table at the end gives speeds and the share of the peak.

#[cfg(target_arch = "x86_64")]
mod memory;
#[cfg(target_arch = "x86_64")]
mod peak;
#[cfg(target_arch = "x86_64")]
mod table;
#[cfg(target_arch = "x86_64")]
mod timing;

/// The printed kernels of each level.
#[cfg(target_arch = "x86_64")]
macro_rules! printed {
    ($($name:ident)*) => {$(
        #[allow(clippy::all, dead_code, missing_docs)]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
printed!(float_v3 float_v4 exact_v3 exact_v3_vnni exact_v4_vnni);

// Names that the printed tables use.
#[cfg(target_arch = "x86_64")]
use timing::{Case, Unit};

#[cfg(target_arch = "x86_64")]
fn main() {
    use peak::{DOT, EXACT, FUSED, Peak};

    /// What is in this list is there.
    macro_rules! lacks {
        ($($feature:tt)*) => {
            [$(($feature, is_x86_feature_detected!($feature))),*].into_iter().find(|(_, there)| !there).map(|(name, _)| name)
        };
    }
    if let Some(feature) = lacks!("avx2" "fma" "f16c") {
        println!("this processor has no {feature}: nothing to time");
        return;
    }
    let wide = lacks!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    let levels = [
        ("v3", "floats", None, float_v3::CASES, FUSED[0], None),
        ("v4", "floats", wide, float_v4::CASES, FUSED[1], None),
        ("v3", "quantized", None, exact_v3::CASES, EXACT[0], Some(DOT[0])),
        ("v3-vnni", "quantized", lacks!("avxvnni"), exact_v3_vnni::CASES, EXACT[0], Some(DOT[1])),
        ("v4-vnni", "quantized", wide.or(lacks!("avx512vnni")), exact_v4_vnni::CASES, EXACT[1], Some(DOT[2])),
    ];
    let bytes = {
        let big = memory::Buffer::new(128 << 20);
        4.0 * big.floats().len() as f64 / peak::best(|| peak::read(big.floats()))
    };
    println!("reading 512 MB on huge pages: {:.1} GB/s on one thread", bytes / 1e9);
    let mut there = Vec::new();
    for (level, what, lacking, cases, flops, ops) in levels {
        if let Some(feature) = lacking {
            println!("{level}, {what}: not timed, this processor has no {feature}");
            continue;
        }
        // SAFETY: the level's features were detected.
        let (flops, ops) = unsafe { (flops.speed(), ops.map_or(0.0, |ops| ops.speed())) };
        let of_bytes = if ops > 0.0 { format!(", {:.1} Gop/s of bytes", ops / 1e9) } else { String::new() };
        println!("{level}, {what}: at most {:.1} GFLOP/s{of_bytes} on one thread", flops / 1e9);
        there.push((level, cases, Peak { flops, ops, bytes }));
    }
    let mut criterion = timing::criterion();
    let mut rows = Vec::new();
    for (level, cases, peak) in there {
        rows.extend(cases.iter().filter_map(|case| timing::time(&mut criterion, level, case, peak)));
    }
    criterion.final_summary();
    table::print(&rows);
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("kernels are printed for x86-64 only so far: nothing to time");
}
