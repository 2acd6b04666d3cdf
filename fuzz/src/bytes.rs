//! Numbers out of the fuzzer's bytes; zeros when they are used up.

pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (front, back) = self.0.split_at(N.min(self.0.len()));
        array[..front.len()].copy_from_slice(front);
        self.0 = back;
        array
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(u16::from_le_bytes(self.array())) % n
    }

    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub fn float(&mut self) -> f32 {
        f32::from_bits(self.word())
    }

    /// A count of all sizes: mostly small, sometimes absurd.
    pub fn count(&mut self) -> usize {
        match self.byte() {
            small @ 0..=239 => usize::from(small),
            240..=250 => usize::from(u16::from_le_bytes(self.array())),
            _ => self.long() as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
