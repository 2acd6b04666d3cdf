//! Byte-pair merging of one piece: the pair of lowest rank first, the leftmost among equals.
//!
//! Words are short, and for them looking at all pairs again after each merge is fastest. A long piece ("aaaa...", a
//! megabyte of blanks) keeps its pairs in a heap instead, which takes `n log n`; both give the same ids.

use super::ITEM;
use super::section::{Merge, Section};
use crate::Error;
use crate::room;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Pieces up to this many bytes are merged by looking at all pairs.
const SHORT: usize = 32;

/// Positions are kept in 32 bits. A piece of more bytes than this is cut, which only changes ids around the cut.
const LONGEST: usize = 1 << 30;

/// No position, and the rank where two neighbors do not merge.
const NONE: u32 = u32::MAX;

/// Merges pieces, one after the other; keeps its working space between them.
pub struct Merger<'s, 'a> {
    section: &'s Section<'a>,
    parts: Vec<Part>,
    /// Pairs that merge, as `rank << 32 | position of the left part`.
    heap: BinaryHeap<Reverse<u64>>,
}

/// A token of the piece, linked to its neighbors while merging.
#[derive(Clone, Copy)]
struct Part {
    id: u32,
    previous: u32,
    next: u32,
    /// Merge with the next part; rank [`NONE`] when there is none, or when this part has gone into the one before it.
    merge: Merge,
}

/// Orders by rank, then by position.
fn pair(rank: u32, at: usize) -> Reverse<u64> {
    Reverse(u64::from(rank) << 32 | at as u64)
}

const NO_MERGE: Merge = Merge { rank: NONE, result: 0 };

impl<'s, 'a> Merger<'s, 'a> {
    pub fn new(section: &'s Section<'a>) -> Self {
        Self { section, parts: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Appends the ids of `piece`.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u32>) -> Result<(), Error> {
        if piece.len() <= SHORT {
            return self.encode_short(piece, out);
        }
        piece.chunks(LONGEST).try_for_each(|part| self.encode_long(part, out))
    }

    fn encode_short(&self, piece: &[u8], out: &mut Vec<u32>) -> Result<(), Error> {
        let mut ids = [0; SHORT];
        // merges[i] joins ids[i] and ids[i + 1].
        let mut merges = [NO_MERGE; SHORT];
        let mut n = piece.len();
        for (id, &byte) in ids.iter_mut().zip(piece) {
            *id = self.section.byte_id(byte);
        }
        for i in 1..n {
            merges[i - 1] = self.merge(ids[i - 1], ids[i]);
        }
        while n > 1 {
            // The first of the lowest; a single lowest one is found as well as any.
            let best = (1..n - 1).fold(0, |best, i| if merges[i].rank < merges[best].rank { i } else { best });
            if merges[best].rank == NONE {
                break;
            }
            ids[best] = merges[best].result;
            ids.copy_within(best + 2..n, best + 1);
            merges.copy_within(best + 1..n, best);
            n -= 1;
            merges[n - 1] = NO_MERGE;
            if best > 0 {
                merges[best - 1] = self.merge(ids[best - 1], ids[best]);
            }
            if best + 1 < n {
                merges[best] = self.merge(ids[best], ids[best + 1]);
            }
        }
        room::extend(out, &ids[..n], ITEM)
    }

    fn encode_long(&mut self, piece: &[u8], out: &mut Vec<u32>) -> Result<(), Error> {
        let n = piece.len() as u32;
        self.parts.clear();
        room::reserve(&mut self.parts, piece.len(), ITEM)?;
        self.parts.extend((0..).zip(piece).map(|(at, &byte)| Part {
            id: self.section.byte_id(byte),
            previous: if at == 0 { NONE } else { at - 1 },
            next: if at + 1 == n { NONE } else { at + 1 },
            merge: NO_MERGE,
        }));
        let mut pairs = core::mem::take(&mut self.heap).into_vec();
        pairs.clear();
        // One for each pair of neighbors, and each of the joins, which are fewer than bytes, puts two in for one.
        room::reserve(&mut pairs, piece.len().saturating_mul(2), ITEM)?;
        for at in 1..piece.len() {
            let merge = self.merge(self.parts[at - 1].id, self.parts[at].id);
            self.parts[at - 1].merge = merge;
            if merge.rank != NONE {
                pairs.push(pair(merge.rank, at - 1));
            }
        }
        self.heap = BinaryHeap::from(pairs);
        while let Some(Reverse(pair)) = self.heap.pop() {
            let (rank, at) = ((pair >> 32) as u32, pair as u32 as usize);
            // Pairs whose parts have changed since stay in the heap; their rank gives them away.
            if self.parts[at].merge.rank == rank {
                self.join(at);
            }
        }
        let mut at = 0;
        while let Some(part) = self.parts.get(at) {
            room::push(out, part.id, ITEM)?;
            at = part.next as usize;
        }
        Ok(())
    }

    /// Joins the part at `at` with its next one, which it has.
    fn join(&mut self, at: usize) {
        let gone = self.parts[at].next as usize;
        let next = self.parts[gone].next;
        self.parts[gone].merge = NO_MERGE;
        let part = &mut self.parts[at];
        part.id = part.merge.result;
        part.next = next;
        let previous = part.previous;
        if let Some(next) = self.parts.get_mut(next as usize) {
            next.previous = at as u32;
        }
        self.renew(at);
        if previous != NONE {
            self.renew(previous as usize);
        }
    }

    /// Looks up again what the part at `at` and its next one make.
    fn renew(&mut self, at: usize) {
        let part = self.parts[at];
        let merge = match self.parts.get(part.next as usize) {
            Some(next) => self.merge(part.id, next.id),
            None => NO_MERGE,
        };
        self.parts[at].merge = merge;
        if merge.rank != NONE {
            self.heap.push(pair(merge.rank, at));
        }
    }

    fn merge(&self, left: u32, right: u32) -> Merge {
        self.section.merge(left, right).unwrap_or(NO_MERGE)
    }
}
