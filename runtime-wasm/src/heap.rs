//! The allocator of the memory that runtime, kernels and host share.
//!
//! Free blocks form a list in order of addresses, the first that fits is taken, and neighbors become one again. That wastes
//! little where few and mostly large blocks live: a weight file, an arena, pictures, and texts between them. Memory that
//! was never used is zero already, which matters for an arena of hundreds of megabytes.

use core::ptr::NonNull;

/// Blocks begin and end on multiples of this; it is also the smallest block.
const GRAIN: usize = 16;

/// Where memory comes from.
pub trait Source {
    /// Where the memory that may be used ends, after it was extended to `end` at least. None where there is no more.
    fn extend(&mut self, end: usize) -> Option<usize>;
}

/// A free block; it lies in its own first bytes.
struct Block {
    size: usize,
    next: Option<NonNull<Block>>,
}

/// The memory from an address on.
pub struct Heap<S> {
    source: S,
    free: Option<NonNull<Block>>,
    /// Above this nothing is in use.
    top: usize,
    /// Above this nothing ever was in use, so all is zero.
    clean: usize,
    end: usize,
}

impl<S: Source> Heap<S> {
    /// A heap from `start` on; nothing of it is touched before it is asked for.
    ///
    /// # Safety
    /// All that `source` grants above `start` belongs to this heap alone, and is zero.
    pub const unsafe fn new(start: usize, source: S) -> Self {
        let start = start.next_multiple_of(GRAIN);
        Self { source, free: None, top: start, clean: start, end: 0 }
    }

    /// `size` bytes that begin on a multiple of `align`, a power of two; none where there is no memory.
    pub fn take(&mut self, size: usize, align: usize, zeroed: bool) -> Option<NonNull<u8>> {
        let (size, align) = (rounded(size)?, align.max(GRAIN));
        if let Some(at) = self.reuse(size, align) {
            if zeroed {
                // SAFETY: `size` bytes from `at` on were free, and are the caller's from now on.
                unsafe { at.write_bytes(0, size) };
            }
            return Some(at);
        }
        let start = self.top.checked_next_multiple_of(align)?;
        let end = start.checked_add(size)?;
        self.reach(end)?;
        let (gap, used) = (self.top, self.clean);
        self.top = end;
        self.clean = used.max(end);
        if gap < start {
            self.put(gap, start - gap);
        }
        let at = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(start))?;
        if zeroed && start < used {
            // SAFETY: inside of the block; the rest of it was never used.
            unsafe { at.write_bytes(0, used.min(end) - start) };
        }
        Some(at)
    }

    /// Takes back what [`take`](Self::take) gave for `size`.
    ///
    /// # Safety
    /// It is used no more.
    pub unsafe fn give(&mut self, at: NonNull<u8>, size: usize) {
        if let Some(size) = rounded(size) {
            self.put(at.as_ptr().expose_provenance(), size);
        }
    }

    /// Makes a block longer where it lies, if it is the last one and there is memory.
    pub fn lengthen(&mut self, at: NonNull<u8>, from: usize, to: usize) -> bool {
        let mut lengthened = || {
            let (from, to) = (rounded(from)?, rounded(to)?);
            let start = at.as_ptr().addr();
            if to < from || start + from != self.top {
                return None;
            }
            let end = start.checked_add(to)?;
            self.reach(end)?;
            (self.top, self.clean) = (end, self.clean.max(end));
            Some(())
        };
        lengthened().is_some()
    }

    fn reach(&mut self, end: usize) -> Option<()> {
        if end > self.end {
            self.end = self.source.extend(end)?;
        }
        (end <= self.end).then_some(())
    }

    /// The first free block with room, less what is left of it on both sides.
    fn reuse(&mut self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let mut before: Option<NonNull<Block>> = None;
        let mut next = self.free;
        while let Some(block) = next {
            // SAFETY: blocks of the list lie in memory of this heap that is free.
            let Block { size: whole, next: after } = unsafe { block.read() };
            let at = block.as_ptr().expose_provenance();
            let start = at.next_multiple_of(align);
            if start.checked_add(size).is_some_and(|end| end <= at + whole) {
                self.link(before, after);
                let (left, right) = (start - at, at + whole - start - size);
                if left > 0 {
                    self.put(at, left);
                }
                if right > 0 {
                    self.put(start + size, right);
                }
                return NonNull::new(core::ptr::with_exposed_provenance_mut(start));
            }
            (before, next) = (Some(block), after);
        }
        None
    }

    /// Adds a block to the list, as one with its neighbors; the last one goes back to the top.
    fn put(&mut self, at: usize, size: usize) {
        let mut before: Option<NonNull<Block>> = None;
        let mut ahead: Option<NonNull<Block>> = None;
        let mut next = self.free;
        while let Some(block) = next.filter(|block| block.as_ptr().addr() < at) {
            ahead = before;
            before = Some(block);
            // SAFETY: blocks of the list lie in memory of this heap that is free.
            next = unsafe { block.as_ref() }.next;
        }
        let (mut start, mut size, mut after) = (at, size, next);
        if let Some(block) = next.filter(|block| block.as_ptr().addr() == at + size) {
            // SAFETY: as above.
            let block = unsafe { block.read() };
            size += block.size;
            after = block.next;
        }
        // SAFETY: as above.
        let neighbor = before.filter(|block| block.as_ptr().addr() + unsafe { block.as_ref() }.size == at);
        if let Some(block) = neighbor {
            start = block.as_ptr().addr();
            // SAFETY: as above.
            size += unsafe { block.as_ref() }.size;
            before = ahead;
        }
        if start + size == self.top {
            self.top = start;
            self.link(before, None);
            return;
        }
        let Some(block) = NonNull::new(core::ptr::with_exposed_provenance_mut::<Block>(start)) else { return };
        // SAFETY: the block is free, on a multiple of `GRAIN`, and no smaller than that.
        unsafe { block.write(Block { size, next: after }) };
        self.link(before, Some(block));
    }

    /// Makes `next` follow `before`, or be the first.
    fn link(&mut self, before: Option<NonNull<Block>>, next: Option<NonNull<Block>>) {
        match before {
            // SAFETY: blocks of the list lie in memory of this heap that is free.
            Some(mut block) => unsafe { block.as_mut() }.next = next,
            None => self.free = next,
        }
    }
}

/// Bytes of a block for `size`.
fn rounded(size: usize) -> Option<usize> {
    size.max(1).checked_next_multiple_of(GRAIN)
}

const _: () = assert!(size_of::<Block>() <= GRAIN && align_of::<Block>() <= GRAIN);

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of a fixed length.
    struct Fixed(usize);

    impl Source for Fixed {
        fn extend(&mut self, end: usize) -> Option<usize> {
            (end <= self.0).then_some(end)
        }
    }

    const LEN: usize = 1 << 16;

    fn with_heap(test: impl FnOnce(&mut Heap<Fixed>, usize)) {
        let mut memory = vec![0u128; LEN / 16];
        let start = memory.as_mut_ptr().expose_provenance();
        // SAFETY: zeroed, and of this test alone.
        test(&mut unsafe { Heap::new(start, Fixed(start + LEN)) }, start);
        drop(memory);
    }

    #[test]
    fn blocks_are_apart_aligned_and_come_back() {
        with_heap(|heap, start| {
            let mut random = 7u64;
            let mut next = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let mut live: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
            let mut refused = 0;
            for round in 0..20_000u32 {
                if next(2) == 0 || live.is_empty() {
                    let (size, align, zeroed) = (next(3000) as usize, 1 << next(8), next(2) == 0);
                    let Some(at) = heap.take(size, align, zeroed) else {
                        refused += 1;
                        continue;
                    };
                    assert!(at.as_ptr().addr().is_multiple_of(align) && at.as_ptr().addr() + size <= start + LEN);
                    // SAFETY: the block was just given for this size.
                    let bytes = unsafe { core::slice::from_raw_parts_mut(at.as_ptr(), size) };
                    assert!(!zeroed || bytes.iter().all(|&byte| byte == 0));
                    bytes.fill(round as u8);
                    live.push((at, size, round as u8));
                } else {
                    let (at, size, fill) = live.swap_remove(next(live.len() as u64) as usize);
                    // SAFETY: still the block of this size.
                    assert!(unsafe { core::slice::from_raw_parts(at.as_ptr(), size) }.iter().all(|&byte| byte == fill));
                    // SAFETY: used no more.
                    unsafe { heap.give(at, size) };
                }
            }
            assert!(refused > 0, "the memory was never full");
            for (at, size, _) in live {
                // SAFETY: used no more.
                unsafe { heap.give(at, size) };
            }
            // All of it is one block again.
            assert!(heap.free.is_none() && heap.top == start);
            assert!(heap.take(LEN, 16, true).is_some() && heap.take(1, 1, false).is_none());
        });
    }

    #[test]
    fn only_the_last_block_is_lengthened_and_nothing_overflows() {
        with_heap(|heap, _| {
            let first = heap.take(100, 1, false).expect("room");
            assert!(heap.lengthen(first, 100, 1000));
            let second = heap.take(1, 64, false).expect("room");
            assert!(!heap.lengthen(first, 1000, 2000) && heap.lengthen(second, 1, 17));
            assert!(!heap.lengthen(second, 17, LEN) && !heap.lengthen(second, 17, usize::MAX));
            for size in [LEN, usize::MAX, usize::MAX - 15, usize::MAX / 2] {
                assert_eq!(heap.take(size, 64, false), None);
            }
        });
    }
}
