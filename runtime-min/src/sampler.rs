//! The choice of the next token from logits: greedy, or drawn with temperature, top-k, top-p and repetition penalty.
//!
//! Each setting does what it does in transformers, in the same order: penalty, temperature, top-k, top-p. The random
//! numbers and the exponential are made here from additions, multiplications and divisions only, so that equal logits
//! and an equal seed choose equal tokens on every machine.

use crate::Error;
use crate::float;
use crate::order;
use crate::room::{self, text};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Logits are divided by it; 0 takes the largest logit instead of drawing. At most 100.
    pub temperature: f32,
    /// Only this many of the largest logits, and what equals the last of them, can be drawn; 0 is off.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability can be drawn; above 0, 1 is off.
    pub top_p: f32,
    /// Positive logits of tokens that were there before are divided by it, negative ones multiplied; above 0 and at most
    /// 100, 1 is off.
    pub repetition_penalty: f32,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for SamplerOptions {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplerOptions {
    /// Refuses values outside of the ranges that the fields name, NaN among them, with [`Error::Argument`].
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |name, value: f32, allowed: &str| {
            Err(Error::Argument { name, reason: text!("{} is outside of what is allowed: {allowed}", Short(value)) })
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", self.temperature, "0 (greedy) to 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top-p", self.top_p, "above 0, up to 1 (off)");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0) {
            return refuse("repetition-penalty", self.repetition_penalty, "above 0, up to 100; 1 is off");
        }
        Ok(())
    }
}

/// A number in a message, to three decimals. The standard library's way takes 20 KB, which matters where code is downloaded.
struct Short(f32);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0.0 { "-" } else { "" };
        let size = self.0.abs();
        if size.is_nan() {
            return f.write_str("NaN");
        }
        if size >= 1e9 {
            return write!(f, "{sign}{}", if size.is_infinite() { "infinity" } else { "1000000000 and more" });
        }
        let thousandths = (f64::from(size) * 1e3 + 0.5) as u64;
        write!(f, "{sign}{}", thousandths / 1000)?;
        let (mut rest, mut digits) = (thousandths % 1000, 3);
        if rest == 0 {
            return Ok(());
        }
        while rest % 10 == 0 {
            (rest, digits) = (rest / 10, digits - 1);
        }
        write!(f, ".{rest:0digits$}")
    }
}

/// Chooses tokens. Allocates when it is made, and then no more.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
    /// Most logits of a choice.
    vocab: usize,
    /// One bit per token id: it was there before.
    seen: Vec<u64>,
    candidates: Vec<Candidate>,
}

/// A token that can be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Its probability times a common factor.
    weight: f64,
}

impl Sampler {
    /// A sampler at its seed, for choices among `vocab` tokens. Settings that [`SamplerOptions::check`] refuses count as
    /// off. Fails with [`Error::OutOfMemory`].
    pub fn new(options: SamplerOptions, vocab: usize) -> Result<Self, Error> {
        let random = Random(options.seed);
        let mut this = Self { options, random, vocab, seen: Vec::new(), candidates: Vec::new() };
        if this.penalizes() {
            room::reserve(&mut this.seen, vocab.div_ceil(64), "the sampler")?;
        }
        if this.draws() {
            room::reserve(&mut this.candidates, vocab, "the sampler")?;
        }
        Ok(this)
    }

    /// Back to the seed.
    pub fn restart(&mut self) {
        self.random = Random(self.options.seed);
    }

    /// Where its random numbers are.
    #[cfg(feature = "std")]
    pub(crate) fn state(&self) -> u64 {
        self.random.0
    }

    /// Puts them back where they were.
    #[cfg(feature = "std")]
    pub(crate) fn set_state(&mut self, state: u64) {
        self.random = Random(state);
    }

    /// True where the largest logit always wins, whatever came before.
    pub fn is_greedy(&self) -> bool {
        !self.draws() && !self.penalizes()
    }

    fn draws(&self) -> bool {
        self.options.temperature > 0.0
    }

    fn penalizes(&self) -> bool {
        self.options.repetition_penalty > 0.0 && self.options.repetition_penalty != 1.0
    }

    /// The next token's id, from one logit per id; 0 if there are none. Logits beyond the vocabulary are ignored.
    ///
    /// `history` holds the ids before it, for the penalty; ids beyond `logits` are ignored. The penalty is left in
    /// `logits`. A logit that is NaN is never chosen, unless nothing else is there.
    pub fn pick(&mut self, logits: &mut [f32], history: &[u32]) -> u32 {
        let n = logits.len().min(self.vocab);
        float::standard(|| self.choose(&mut logits[..n], history))
    }

    fn choose(&mut self, logits: &mut [f32], history: &[u32]) -> u32 {
        if self.penalizes() {
            self.penalize(logits, history);
        }
        let best = argmax(logits);
        let largest = logits.get(best as usize).copied().unwrap_or(f32::NAN);
        // An infinite logit leaves nothing to chance.
        if !self.draws() || !largest.is_finite() {
            return best;
        }
        self.collect(logits, largest);
        let total = match self.options.top_p {
            top_p if top_p > 0.0 && top_p < 1.0 => self.keep_likeliest(f64::from(top_p)),
            _ => sum(&self.candidates),
        };
        let mut left = self.random.next_unit() * total;
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding has used up the last bit of probability.
        self.candidates.last().map_or(best, |candidate| candidate.id)
    }

    fn penalize(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.options.repetition_penalty;
        self.seen.clear();
        self.seen.resize(logits.len().div_ceil(64), 0);
        for &id in history {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            let (word, bit) = (&mut self.seen[id as usize / 64], 1 << (id % 64));
            if *word & bit == 0 {
                *word |= bit;
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// Makes candidates of the `top_k` largest logits, in order of ids.
    fn collect(&mut self, logits: &[f32], largest: f32) {
        let temperature = f64::from(self.options.temperature);
        let all = (0..).zip(logits).filter(|(_, logit)| !logit.is_nan());
        self.candidates.clear();
        self.candidates.extend(all.map(|(id, logit)| Candidate { id, logit: *logit, weight: 0.0 }));
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            order::select(&mut self.candidates, k - 1, likelier);
            let smallest = self.candidates[k - 1].logit;
            self.candidates.retain(|candidate| candidate.logit >= smallest);
            order::sort(&mut self.candidates, |a, b| a.id.cmp(&b.id));
        }
        for candidate in &mut self.candidates {
            candidate.weight = exp((f64::from(candidate.logit) - f64::from(largest)) / temperature);
        }
    }

    /// Keeps the likeliest candidates up to the one with which they reach `top_p` of the probability, and returns the sum
    /// of their weights.
    fn keep_likeliest(&mut self, top_p: f64) -> f64 {
        let enough = sum(&self.candidates) * top_p;
        let (mut mass, mut n) = (0.0, 0);
        // A few tokens hold nearly all of the probability, so sorting all of them is hardly ever needed.
        let mut sorted = 0;
        while n < self.candidates.len() && mass < enough {
            if n == sorted {
                let rest = &mut self.candidates[sorted..];
                let more = rest.len().min((sorted * 3).max(64));
                order::select(rest, more, likelier);
                order::sort(&mut rest[..more], likelier);
                sorted += more;
            }
            mass += self.candidates[n].weight;
            n += 1;
        }
        self.candidates.truncate(n);
        mass
    }
}

/// The index of the largest logit, the first of equals; NaN loses against everything. 0 if there are none.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NAN);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.1 || (best.1.is_nan() && !logit.is_nan()) {
            best = (id, logit);
        }
    }
    best.0
}

/// Larger logits first, then smaller ids: a total order, as no candidate is NaN.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

fn sum(candidates: &[Candidate]) -> f64 {
    candidates.iter().fold(0.0, |sum, candidate| sum + candidate.weight)
}

/// e to the power of `x`, for `x` of zero and below. Largest error 2e-16 relative on [-700, 0]; 0 below that.
fn exp(x: f64) -> f64 {
    // ln 2 in two parts: a multiple of the first up to 2^11 is exact.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if x.is_nan() || x < -700.0 {
        return 0.0;
    }
    // Nearest whole number: casting cuts towards zero, and x is not positive.
    let power = (x * core::f64::consts::LOG2_E - 0.5) as i64;
    let rest = (x - power as f64 * LN2_HIGH) - power as f64 * LN2_LOW;
    // Taylor's series; at |rest| <= 0.35 the terms after these are below 2^-55.
    let series = (1..=14).rev().fold(1.0, |series, n| 1.0 + rest * series / f64::from(n));
    series * f64::from_bits(((1023 + power) as u64) << 52)
}

/// SplitMix64: every seed, zero too, starts an equally good sequence.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A multiple of 2^-53 in [0, 1).
    fn next_unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "std")]
    fn exp_is_exact_to_the_last_bits() {
        let worst =
            (0..=700_000).map(|i| -f64::from(i) / 1000.0).map(|x| (exp(x) / x.exp() - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst < 5e-16, "{worst:e}");
        assert_eq!((exp(0.0), exp(-701.0), exp(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (-0.1, "-0.1"),
            (101.0, "101"),
            (1.25, "1.25"),
            (2.005, "2.005"),
            (0.0004, "0"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-infinity"),
            (3e9, "1000000000 and more"),
        ];
        for (value, expected) in cases {
            assert_eq!(text!("{}", Short(value)), expected);
        }
    }

    #[test]
    fn random_numbers_are_splitmix64() {
        let mut random = Random(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
