//! Guessing the tokens to come from what was said before, to verify several of them at the price of one.
//!
//! Answers repeat names, numbers and phrases of the question and of themselves. Where the latest tokens stood together
//! before, what followed then is drafted, and the model computes all of it in one pass over its weights. Each drafted token
//! is then compared with the one that is chosen from its row's logits, so that answers are the same tokens as without.

/// Most tokens of a draft.
pub(crate) const MOST: usize = 15;

/// Tokens that have to match, from long to short: a longer match is a better guess.
const MATCHES: [usize; 2] = [3, 2];

/// Most matches that are left alone after drafts of which nothing was right, so that a text that does not repeat itself
/// loses little.
const LONGEST_WAIT: usize = 31;

/// The tokens that were drafted, and how good drafts have been.
#[derive(Debug, Default)]
pub(crate) struct Speculation {
    ids: [u32; MOST],
    len: usize,
    /// Drafted tokens that turned out right.
    right: usize,
    /// Matches to leave alone after the next draft of which nothing is right.
    wait: usize,
    /// Matches still to leave alone.
    left_alone: usize,
}

impl Speculation {
    /// Drafts at most `most` tokens that may follow `history`; there may be none.
    pub(crate) fn draft(&mut self, history: &[u32], most: usize) -> &[u32] {
        self.settle();
        let most = most.min(MOST);
        let Some(mut at) = (most > 0).then(|| earlier(history)).flatten() else { return &[] };
        if self.left_alone > 0 {
            self.left_alone -= 1;
            return &[];
        }
        for i in 0..most {
            // What follows may reach into the draft: a text that goes in circles.
            self.ids[i] = history.get(at).copied().unwrap_or_else(|| self.ids[at - history.len()]);
            at += 1;
        }
        self.len = most;
        &self.ids[..most]
    }

    /// Whether `id` is the next drafted token, which then is right.
    pub(crate) fn accept(&mut self, id: u32) -> bool {
        let right = self.ids[..self.len].get(self.right) == Some(&id);
        self.right += usize::from(right);
        right
    }

    /// Forgets the draft, whose rows are not those of what comes next.
    pub(crate) fn settle(&mut self) {
        if self.len > 0 {
            self.wait = if self.right > 0 { 0 } else { (2 * self.wait + 1).min(LONGEST_WAIT) };
            self.left_alone = self.wait;
        }
        (self.len, self.right) = (0, 0);
    }

    /// Row of the logits in use: the token before the draft has row 0.
    pub(crate) fn row(&self) -> usize {
        self.right
    }
}

/// What followed where the latest tokens stood before, the latest such place of the longest match.
fn earlier(history: &[u32]) -> Option<usize> {
    MATCHES.into_iter().find_map(|n| {
        let (before, tail) = history.split_at_checked(history.len().checked_sub(n)?)?;
        // The match may overlap the tail.
        let all = history.get(..before.len() + n - 1)?;
        all.windows(n).rposition(|window| window == tail).map(|at| at + n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(history: &[u32], most: usize) -> Vec<u32> {
        Speculation::default().draft(history, most).to_vec()
    }

    #[test]
    fn what_followed_before_is_drafted() {
        assert_eq!(draft(&[1, 2, 3, 4, 5, 9, 2, 3], 3), [4, 5, 9]);
        assert_eq!(draft(&[1, 2, 3, 4, 5, 9, 2, 3], 1), [4]);
        // A match of three goes before a later one of two.
        assert_eq!(draft(&[1, 2, 3, 4, 5, 2, 3, 6, 7, 1, 2, 3], 2), [4, 5]);
        // The latest one counts.
        assert_eq!(draft(&[2, 3, 4, 0, 2, 3, 5, 0, 0, 2, 3], 1), [5]);
    }

    #[test]
    fn circles_go_on() {
        assert_eq!(draft(&[7, 7, 7], 4), [7, 7, 7, 7]);
        assert_eq!(draft(&[0, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
    }

    #[test]
    fn without_a_match_nothing_is_drafted() {
        for history in [&[][..], &[1], &[1, 1], &[1, 2, 3, 4], &[2, 1, 3, 1]] {
            assert_eq!(draft(history, 3), [], "{history:?}");
        }
        assert_eq!(draft(&[7, 7, 7], 0), []);
    }

    #[test]
    fn wrong_drafts_make_it_wait() {
        let mut all = Speculation::default();
        let history = [4, 5, 6, 4, 5];
        let mut drafted = Vec::new();
        for i in 0..200 {
            if !all.draft(&history, 2).is_empty() {
                drafted.push(i);
                assert!(!all.accept(9));
            }
        }
        assert_eq!(drafted, [0, 2, 6, 14, 30, 62, 94, 126, 158, 190]);
        // A right one ends the waiting.
        while all.draft(&history, 2).is_empty() {}
        assert!(all.accept(6) && all.accept(4) && !all.accept(5));
        assert_eq!(all.row(), 2);
        assert_eq!(all.draft(&history, 1), [6]);
        assert_eq!(all.row(), 0);
    }
}
