//! The checksum of the weight file: XXH64.
//!
//! It detects damage, it does not authenticate: who can write the file can also write the checksum. XXH64 because it
//! runs at memory speed without SIMD and is small enough to own.

const PRIMES: [u64; 5] =
    [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63, 0x27D4_EB2F_1656_67C5];

/// XXH64 of `bytes`.
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut state = Xxh64::new(seed);
    state.update(bytes);
    state.finish()
}

/// XXH64 of bytes that come in pieces, such as a header whose own checksum field counts as zero.
#[derive(Clone, Debug)]
pub struct Xxh64 {
    lanes: [u64; 4],
    /// Bytes of an incomplete block of 32.
    tail: [u8; 32],
    n_tail: usize,
    total: u64,
    seed: u64,
}

impl Xxh64 {
    /// The state before any byte.
    pub fn new(seed: u64) -> Self {
        let lanes = [
            seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]),
            seed.wrapping_add(PRIMES[1]),
            seed,
            seed.wrapping_sub(PRIMES[0]),
        ];
        Self { lanes, tail: [0; 32], n_tail: 0, total: 0, seed }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len() as u64);
        if self.n_tail > 0 {
            let take = bytes.len().min(32 - self.n_tail);
            self.tail[self.n_tail..self.n_tail + take].copy_from_slice(&bytes[..take]);
            self.n_tail += take;
            bytes = &bytes[take..];
            if self.n_tail < 32 {
                return;
            }
            let block = self.tail;
            self.block(&block);
            self.n_tail = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            self.block(block);
        }
        self.tail[..rest.len()].copy_from_slice(rest);
        self.n_tail = rest.len();
    }

    /// The checksum of everything taken so far.
    pub fn finish(&self) -> u64 {
        let mut hash = if self.total >= 32 {
            let [a, b, c, d] = self.lanes;
            let mut hash = a
                .rotate_left(1)
                .wrapping_add(b.rotate_left(7))
                .wrapping_add(c.rotate_left(12))
                .wrapping_add(d.rotate_left(18));
            for lane in self.lanes {
                hash = (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
            }
            hash
        } else {
            self.seed.wrapping_add(PRIMES[4])
        };
        hash = hash.wrapping_add(self.total);

        let (words, rest) = self.tail[..self.n_tail].as_chunks::<8>();
        for word in words {
            hash ^= round(0, u64::from_le_bytes(*word));
            hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIMES[0]);
            hash = hash.rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(PRIMES[4]);
            hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
        hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
        hash ^ (hash >> 32)
    }

    fn block(&mut self, block: &[u8; 32]) {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Values of the reference implementation (xxhash 0.8), seed 0 and one other.
    #[test]
    fn equals_the_reference() {
        for (bytes, seed, expected) in [
            (&b""[..], 0, 0xef46_db37_51d8_e999),
            (b"a", 0, 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0, 0x44bc_2cf5_ad77_0999),
            (b"message digest", 0, 0x066e_d728_fcee_b3be),
            (b"abcdefghijklmnopqrstuvwxyz0123456789", 0, 0x64f2_3ecf_1609_b766),
        ] {
            assert_eq!(xxh64(bytes, seed), expected, "{:?}", core::str::from_utf8(bytes));
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        for cut in 0..bytes.len() {
            let mut state = Xxh64::new(7);
            state.update(&bytes[..cut]);
            state.update(&bytes[cut..]);
            assert_eq!(state.finish(), xxh64(&bytes, 7), "cut at {cut}");
        }
    }
}
