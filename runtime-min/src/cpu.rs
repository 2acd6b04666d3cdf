//! Which instruction sets this processor has, by the level names that emitted code uses.
//!
//! Asked once, before the first emitted kernel: a processor below the lowest level gets an error, never an illegal
//! instruction. `std`'s detection also asks whether the operating system saves the wide registers.

use crate::room::text;
use alloc::string::String;
use core::fmt;

/// Name of a feature as the compiler spells it, and whether it is there.
type Feature = (&'static str, bool);

/// True where the code of [`Level`](crate::Level) "x86-64-v3" can run: AVX2, FMA and F16C.
pub fn x86_64_v3() -> bool {
    has_all("x86-64-v3")
}

/// True where the code of [`Level`](crate::Level) "x86-64-v4" can run: v3 and the AVX-512 of servers since 2017.
pub fn x86_64_v4() -> bool {
    has_all("x86-64-v4")
}

/// True where the code of [`Level`](crate::Level) "x86-64-v3-vnni" can run: v3 and AVX-VNNI.
pub fn x86_64_v3_vnni() -> bool {
    has_all("x86-64-v3-vnni")
}

/// True where the code of [`Level`](crate::Level) "x86-64-v4-vnni" can run: v4 and AVX512-VNNI.
pub fn x86_64_v4_vnni() -> bool {
    has_all("x86-64-v4-vnni")
}

/// True where the code of [`Level`](crate::Level) "aarch64-neon" can run: NEON, which all of them have.
pub fn aarch64_neon() -> bool {
    has_all("aarch64-neon")
}

/// True where the code of [`Level`](crate::Level) "aarch64-dotprod" can run: NEON and its dot products of bytes, in processors
/// since 2018.
pub fn aarch64_dotprod() -> bool {
    has_all("aarch64-dotprod")
}

/// True where the code of [`Level`](crate::Level) "aarch64-i8mm" can run: dot products and products of matrices of bytes, in
/// processors since about 2021.
pub fn aarch64_i8mm() -> bool {
    has_all("aarch64-i8mm")
}

/// True in WebAssembly: engines refuse modules with instructions that they lack, before anything runs.
pub fn wasm32() -> bool {
    cfg!(target_arch = "wasm32")
}

fn has_all(level: &str) -> bool {
    features(level).is_some_and(|features| features.iter().flatten().all(|&(_, present)| present))
}

/// What a level needs and what of that is missing here, in words; vague words for levels this table does not know.
pub(crate) fn describe(level: &str) -> (String, String) {
    let features = features(level).unwrap_or_default();
    let named = |wanted: fn(bool) -> bool| {
        let mut names = [None; MOST];
        for (name, feature) in names.iter_mut().zip(&features) {
            *name = feature.filter(|&(_, present)| wanted(present)).map(|(name, _)| name);
        }
        names
    };
    let (needed, missing) = (named(|_| true), named(|present| !present));
    (text!("{}", Listed(&needed, "instruction sets")), text!("{}", Listed(&missing, "some of them")))
}

/// "a", "a and b", "a, b and c"; the second field when there are no names.
struct Listed<'a>(&'a [Option<&'a str>], &'a str);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.iter().flatten().count();
        for (i, name) in self.0.iter().flatten().enumerate() {
            let before = if i == 0 { "" } else { [", ", " and "][usize::from(i + 1 == n)] };
            write!(f, "{before}{name}")?;
        }
        f.write_str(if n == 0 { self.1 } else { "" })
    }
}

/// Most features of a level.
const MOST: usize = 9;

fn features(level: &str) -> Option<[Option<Feature>; MOST]> {
    Some(match level {
        "x86-64-v3" => x86(false, false),
        "x86-64-v4" => x86(true, false),
        "x86-64-v3-vnni" => x86(false, true),
        "x86-64-v4-vnni" => x86(true, true),
        "aarch64-neon" => aarch64(0),
        "aarch64-dotprod" => aarch64(1),
        "aarch64-i8mm" => aarch64(2),
        _ => return None,
    })
}

#[cfg(target_arch = "x86_64")]
fn x86(v4: bool, vnni: bool) -> [Option<Feature>; MOST] {
    // Without `std` only what the whole program was compiled for can be relied on.
    macro_rules! has {
        ($feature:tt) => {{
            #[cfg(feature = "std")]
            let present = std::arch::is_x86_feature_detected!($feature);
            #[cfg(not(feature = "std"))]
            let present = cfg!(target_feature = $feature);
            Some(($feature, present))
        }};
    }
    let v3 = [has!("avx2"), has!("fma"), has!("f16c")];
    if !v4 {
        let dot = if vnni { has!("avxvnni") } else { None };
        return [v3[0], v3[1], v3[2], dot, None, None, None, None, None];
    }
    let dot = if vnni { has!("avx512vnni") } else { None };
    let more = [has!("avx512f"), has!("avx512bw"), has!("avx512cd"), has!("avx512dq"), has!("avx512vl")];
    [v3[0], v3[1], v3[2], more[0], more[1], more[2], more[3], more[4], dot]
}

/// NEON, and the first `more` of what came after it.
#[cfg(target_arch = "aarch64")]
fn aarch64(more: usize) -> [Option<Feature>; MOST] {
    macro_rules! has {
        ($feature:tt) => {{
            #[cfg(feature = "std")]
            let present = std::arch::is_aarch64_feature_detected!($feature);
            #[cfg(not(feature = "std"))]
            let present = cfg!(target_feature = $feature);
            Some(($feature, present))
        }};
    }
    let mut all = [None; MOST];
    let known = [Some(("neon", true)), has!("dotprod"), has!("i8mm")];
    all.iter_mut().zip(known).take(1 + more).for_each(|(feature, known)| *feature = known);
    all
}

#[cfg(not(target_arch = "aarch64"))]
fn aarch64(_more: usize) -> [Option<Feature>; MOST] {
    [Some(("aarch64", false)), None, None, None, None, None, None, None, None]
}

#[cfg(not(target_arch = "x86_64"))]
fn x86(_v4: bool, _vnni: bool) -> [Option<Feature>; MOST] {
    [Some(("x86-64", false)), None, None, None, None, None, None, None, None]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(text!("{}", Listed(&[None, Some("avx2")], "")), "avx2");
        assert_eq!(text!("{}", Listed(&[Some("avx2"), Some("fma"), None], "")), "avx2 and fma");
        assert_eq!(text!("{}", Listed(&[Some("avx2"), Some("fma"), Some("avx512f")], "")), "avx2, fma and avx512f");
        assert_eq!(text!("{}", Listed(&[None], "nothing")), "nothing");
        assert_eq!(describe("x86-64-v3").0, if cfg!(target_arch = "x86_64") { "avx2, fma and f16c" } else { "x86-64" });
        assert!(!has_all("z80"));
        assert!(!x86_64_v4() || x86_64_v3());
    }
}
