//! Which instruction sets this processor has, by the level names that emitted code uses.
//!
//! Asked once, before the first emitted kernel: a processor below the lowest level gets an error, never an illegal
//! instruction. `std`'s detection also asks whether the operating system saves the wide registers.

use alloc::string::String;
use alloc::vec::Vec;

/// Name of a feature as the compiler spells it, and whether it is there.
type Feature = (&'static str, bool);

/// True where the code of [`Level`](crate::Level) "x86-64-v3" can run: AVX2 and FMA.
pub fn x86_64_v3() -> bool {
    has_all("x86-64-v3")
}

/// True where the code of [`Level`](crate::Level) "x86-64-v4" can run: v3 and the AVX-512 of servers since 2017.
pub fn x86_64_v4() -> bool {
    has_all("x86-64-v4")
}

/// True where the code of [`Level`](crate::Level) "armv8.0" can run: NEON.
pub fn armv8_0() -> bool {
    has_all("armv8.0")
}

fn has_all(level: &str) -> bool {
    features(level).is_some_and(|features| features.iter().all(|&(_, present)| present))
}

/// What a level needs and what of that is missing here, in words; vague words for levels this table does not know.
pub(crate) fn describe(level: &str) -> (String, String) {
    let features = features(level).unwrap_or_default();
    let missing: Vec<&str> = features.iter().filter(|(_, present)| !present).map(|&(name, _)| name).collect();
    let needed: Vec<&str> = features.iter().map(|&(name, _)| name).collect();
    (listed(&needed, "instruction sets"), listed(&missing, "some of them"))
}

/// "a", "a and b", "a, b and c"; `none` when there are no names.
fn listed(names: &[&str], none: &str) -> String {
    match names {
        [] => none.into(),
        [only] => String::from(*only),
        [init @ .., last] => alloc::format!("{} and {last}", init.join(", ")),
    }
}

fn features(level: &str) -> Option<Vec<Feature>> {
    Some(match level {
        "x86-64-v3" => x86(false),
        "x86-64-v4" => x86(true),
        "armv8.0" => alloc::vec![("neon", cfg!(target_arch = "aarch64"))],
        _ => return None,
    })
}

#[cfg(target_arch = "x86_64")]
fn x86(v4: bool) -> Vec<Feature> {
    // Without `std` only what the whole program was compiled for can be relied on.
    macro_rules! has {
        ($feature:tt) => {{
            #[cfg(feature = "std")]
            let present = std::arch::is_x86_feature_detected!($feature);
            #[cfg(not(feature = "std"))]
            let present = cfg!(target_feature = $feature);
            ($feature, present)
        }};
    }
    let mut features = alloc::vec![has!("avx2"), has!("fma")];
    if v4 {
        features.extend([has!("avx512f"), has!("avx512bw"), has!("avx512cd"), has!("avx512dq"), has!("avx512vl")]);
    }
    features
}

#[cfg(not(target_arch = "x86_64"))]
fn x86(_v4: bool) -> Vec<Feature> {
    alloc::vec![("x86-64", false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(listed(&["avx2"], ""), "avx2");
        assert_eq!(listed(&["avx2", "fma", "avx512f"], ""), "avx2, fma and avx512f");
        assert_eq!(describe("x86-64-v3").0, if cfg!(target_arch = "x86_64") { "avx2 and fma" } else { "x86-64" });
        assert!(!has_all("z80"));
        assert!(!x86_64_v4() || x86_64_v3());
    }
}
