//! How far two names are apart: what "did you mean" rests on.

/// Insertions, deletions and replacements of characters from `a` to `b`, if at most `limit`.
pub fn edit_distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|&d| d > limit) {
            return None;
        }
    }
    row.last().copied().filter(|&d| d <= limit)
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn distances_up_to_the_limit() {
        let pairs = [("", "", 0), ("", "ab", 2), ("silu", "silu", 0), ("silu", "sillu", 1), ("Row", "row", 1)];
        for (a, b, distance) in pairs.into_iter().chain([("kitten", "sitting", 3), ("é", "e", 1), ("abc", "xyz", 3)]) {
            for limit in 0..5 {
                let expected = (distance <= limit).then_some(distance);
                assert_eq!(edit_distance(a, b, limit), expected, "{a} {b}, at most {limit}");
                assert_eq!(edit_distance(b, a, limit), expected, "{b} {a}, at most {limit}");
            }
        }
    }
}
