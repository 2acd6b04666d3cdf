//! The widest vectors of the machine at hand, from one text.
//!
//! A body is compiled once per level. Rust never contracts a multiplication and an addition, so
//! the levels give the same bits and differ in speed alone.

/// A computation whose `run` is marked `#[inline(always)]`, as is all that it calls.
pub(super) trait Body {
    type Output;
    fn run(self) -> Self::Output;
}

/// How wide the vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// What the compiler itself was built for.
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels of this machine, best last.
    pub fn all() -> impl DoubleEndedIterator<Item = Level> {
        let mut levels = vec![Level::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                levels.push(Level::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                levels.push(Level::Avx512);
            }
        }
        levels.into_iter()
    }

    pub fn best() -> Level {
        Level::all().next_back().unwrap_or(Level::Plain)
    }

    /// Runs `body`. A level that this machine does not have falls back to the plain one.
    pub fn run<B: Body>(self, body: B) -> B::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if self == Level::Avx512 && is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has avx512f, as was just asked.
                return unsafe { avx512(body) };
            }
            if self == Level::Avx2 && is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has avx2, as was just asked.
                return unsafe { avx2(body) };
            }
        }
        body.run()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<B: Body>(body: B) -> B::Output {
    body.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<B: Body>(body: B) -> B::Output {
    body.run()
}
