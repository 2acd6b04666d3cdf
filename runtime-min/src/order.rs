//! Sorting and selecting: the standard library's way where there is one, which is fastest; else one that takes a kilobyte of
//! code instead of fifteen, for programs that are downloaded. Items that compare as equal are equal, so both give the same.

use core::cmp::Ordering;

/// Puts items in order.
pub(crate) fn sort<T: Copy>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    #[cfg(feature = "std")]
    items.sort_unstable_by(order);
    #[cfg(not(feature = "std"))]
    small::sort(items, &order);
}

/// Puts item `n`, of those in order, in its place: what comes before stands before it. Nothing happens where there is none.
pub(crate) fn select<T: Copy>(items: &mut [T], n: usize, order: impl Fn(&T, &T) -> Ordering) {
    if n >= items.len() {
        return;
    }
    #[cfg(feature = "std")]
    items.select_nth_unstable_by(n, order);
    #[cfg(not(feature = "std"))]
    small::select(items, n, &order);
}

#[cfg(any(test, not(feature = "std")))]
mod small {
    use core::cmp::Ordering;

    /// Heapsort: never slower than `n log n`.
    pub(super) fn sort<T: Copy>(items: &mut [T], order: &impl Fn(&T, &T) -> Ordering) {
        for root in (0..items.len() / 2).rev() {
            sink(items, root, order);
        }
        for end in (1..items.len()).rev() {
            items.swap(0, end);
            sink(&mut items[..end], 0, order);
        }
    }

    /// Lets an item sink below all that come after it.
    fn sink<T: Copy>(items: &mut [T], mut root: usize, order: &impl Fn(&T, &T) -> Ordering) {
        while let Some(left) = items.get(2 * root + 1) {
            let right = items.get(2 * root + 2).is_some_and(|right| order(left, right).is_lt());
            let child = 2 * root + 1 + usize::from(right);
            if order(&items[root], &items[child]).is_ge() {
                return;
            }
            items.swap(root, child);
            root = child;
        }
    }

    /// Quickselect; what is left after too many bad cuts is sorted.
    pub(super) fn select<T: Copy>(mut items: &mut [T], mut n: usize, order: &impl Fn(&T, &T) -> Ordering) {
        for _ in 0..2 * items.len().max(1).ilog2() + 8 {
            let [first, middle, last] = [0, items.len() / 2, items.len() - 1];
            if items.len() < 3 {
                break;
            }
            sort3(items, [first, middle, last], order);
            let cut = items[middle];
            // What comes before the cut, what equals it, what comes after.
            let (mut before, mut at, mut after) = (0, 0, items.len());
            while at < after {
                match order(&items[at], &cut) {
                    Ordering::Less => {
                        items.swap(before, at);
                        (before, at) = (before + 1, at + 1);
                    }
                    Ordering::Equal => at += 1,
                    Ordering::Greater => {
                        after -= 1;
                        items.swap(at, after);
                    }
                }
            }
            if n < before {
                items = &mut items[..before];
            } else if n < after {
                return;
            } else {
                items = &mut items[after..];
                n -= after;
            }
        }
        sort(items, order);
    }

    fn sort3<T: Copy>(items: &mut [T], [a, b, c]: [usize; 3], order: &impl Fn(&T, &T) -> Ordering) {
        for (x, y) in [(a, b), (b, c), (a, b)] {
            if order(&items[x], &items[y]).is_gt() {
                items.swap(x, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Lists of all kinds: random, few values, rising, falling, made to go wrong.
    fn lists() -> Vec<Vec<u32>> {
        let mut lists = Vec::new();
        let mut seed = 1u32;
        for len in [0, 1, 2, 3, 4, 5, 7, 16, 33, 100, 1000] {
            for kind in 0..5 {
                lists.push(
                    (0..len)
                        .map(|i| {
                            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            [seed >> 8, seed >> 30, i, len - i, (i ^ (len / 2)) % 37][kind]
                        })
                        .collect(),
                );
            }
        }
        lists
    }

    #[test]
    fn both_ways_are_one() {
        for list in lists() {
            let mut expected = list.clone();
            sort(&mut expected, u32::cmp);
            let mut sorted = list.clone();
            small::sort(&mut sorted, &u32::cmp);
            assert_eq!(sorted, expected);
            for n in (0..list.len()).step_by(list.len() / 7 + 1) {
                let mut selected = list.clone();
                small::select(&mut selected, n, &u32::cmp);
                assert_eq!(selected[n], expected[n]);
                assert!(selected[..n].iter().all(|item| *item <= expected[n]));
                sort(&mut selected, u32::cmp);
                assert_eq!(selected, expected);
            }
        }
        select(&mut [1, 2], 2, u32::cmp);
    }
}
