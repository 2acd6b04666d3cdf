//! Memory that a session can do without, for when the system asks.
//!
//! A session's arena is one block of fixed size, of which a conversation needs the cache of its positions and nothing else:
//! the rest is room for the work, and is written before it is read. So pages of the rest can go back to the system at any
//! time between two calls; they come back as they are used.

use crate::program::{CacheSlot, Program};
use crate::session::Session;
use core::ops::Range;

impl<P: Program> Session<'_, P> {
    /// Gives back memory that can be had again: everything but what the conversation needs to go on. Also forgotten are the
    /// beginnings of earlier conversations, which a new one would not have read again. Returns bytes that were in memory and
    /// went back; arenas below 2 MB belong to the allocator and stay.
    ///
    /// The next answer is the same and takes longer to begin. [`logits`](Self::logits) are gone until there are new ones.
    pub fn trim(&mut self) -> usize {
        self.overwrite(self.position);
        self.speculation.settle();
        self.unfinished = None;
        let (cache, positions, end) = (P::info().cache, self.position, self.arena.len());
        let (mut given, mut at) = (0, 0);
        // The pieces by where they begin; a handful of slots, so no list of all pieces is made.
        while let Some(kept) = next_kept(cache, positions, at) {
            given += self.arena.discard(at..kept.start.max(at));
            at = kept.end.max(at);
        }
        given + self.arena.discard(at..end)
    }
}

/// The first range from `at` on that holds positions of a conversation.
fn next_kept(cache: &[CacheSlot], positions: usize, at: usize) -> Option<Range<usize>> {
    let pieces = cache.iter().flat_map(|slot| {
        let bytes = slot.piece_bytes(positions);
        slot.pieces().map(move |start| start..start.saturating_add(bytes))
    });
    pieces.filter(|piece| piece.end > at && !piece.is_empty()).min_by_key(|piece| piece.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_blocks_of_a_conversation_are_kept() {
        let cache = [
            CacheSlot { slot: 1000, pieces: 2, pitch: 100, block: 4, block_bytes: 40 },
            CacheSlot { slot: 200, pieces: 1, pitch: 0, block: 4, block_bytes: 8 },
        ];
        let kept = |positions: usize| {
            let (mut all, mut at) = (Vec::new(), 0);
            while let Some(piece) = next_kept(&cache, positions, at) {
                at = piece.end;
                all.push((piece.start, piece.end));
            }
            all
        };
        assert_eq!(kept(0), []);
        assert_eq!(kept(1), [(200, 208), (1000, 1040), (1100, 1140)]);
        assert_eq!(kept(5), [(200, 216), (1000, 1080), (1100, 1180)]);
    }
}
