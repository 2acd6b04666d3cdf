//! XXH64, the hash of weight files, with seed 0, fed piece by piece.

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Bytes that the four lanes take at once.
const STRIPE: usize = 32;

/// A hash under construction.
#[derive(Clone)]
pub struct Xxh64 {
    lanes: [u64; 4],
    rest: [u8; STRIPE],
    rest_len: usize,
    bytes: u64,
}

impl Xxh64 {
    /// The hash of nothing yet.
    pub fn new() -> Xxh64 {
        let lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        Xxh64 { lanes, rest: [0; STRIPE], rest_len: 0, bytes: 0 }
    }

    /// Takes more bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.rest_len > 0 {
            let n = bytes.len().min(STRIPE - self.rest_len);
            self.rest[self.rest_len..self.rest_len + n].copy_from_slice(&bytes[..n]);
            self.rest_len += n;
            bytes = &bytes[n..];
            if self.rest_len < STRIPE {
                return;
            }
            self.lanes = stripe(self.lanes, &self.rest);
            self.rest_len = 0;
        }
        let (stripes, rest) = bytes.as_chunks::<STRIPE>();
        self.lanes = stripes.iter().fold(self.lanes, stripe);
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> u64 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.bytes < STRIPE as u64 {
            PRIME_5
        } else {
            let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
            let sum = sum.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
            self.lanes
                .iter()
                .fold(sum, |hash, &lane| (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
        };
        hash = hash.wrapping_add(self.bytes);
        let (words, rest) = self.rest[..self.rest_len].as_chunks::<8>();
        for &word in words {
            hash ^= round(0, u64::from_le_bytes(word));
            hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        let (words, rest) = rest.as_chunks::<4>();
        for &word in words {
            hash ^= u64::from(u32::from_le_bytes(word)).wrapping_mul(PRIME_1);
            hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(PRIME_5);
            hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
        hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
        hash ^ (hash >> 32)
    }
}

impl Default for Xxh64 {
    fn default() -> Xxh64 {
        Xxh64::new()
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

fn stripe(mut lanes: [u64; 4], bytes: &[u8; STRIPE]) -> [u64; 4] {
    for (lane, &word) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *lane = round(*lane, u64::from_le_bytes(word));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u64 {
        let mut hash = Xxh64::new();
        hash.update(bytes);
        hash.finish()
    }

    #[test]
    fn published_values() {
        for (text, expected) in [
            ("", 0xef46_db37_51d8_e999),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("as", 0x1c33_0fb2_d66b_e179),
            ("asd", 0x631c_37ce_72a9_7393),
            ("asdf", 0x4158_72f5_99ce_a71e),
            ("Call me Ishmael. Some years ago--never mind how long precisely-", 0x02a2_e854_70d6_fd96),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        for first in 0..100 {
            for second in [0, 1, 31, 32, 33, 100] {
                let mut pieces = Xxh64::new();
                pieces.update(&bytes[..first]);
                pieces.update(&bytes[first..first + second]);
                pieces.update(&bytes[first + second..]);
                assert_eq!(pieces.finish(), hash(&bytes));
            }
        }
    }
}
