//! "Did you mean": the option nearest to a mistyped one. A guess is only ever shown, never acted on.

/// Longer words are not compared: a message must not cost more than the work.
const MAX_WORD: usize = 64;

/// The candidate nearest to `word`: the only one it is a prefix of, else the one with the fewest typing
/// mistakes, if there are few enough (a third of its letters, swapped neighbours being one mistake).
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if word.len() < 2 || word.len() > MAX_WORD {
        return None;
    }
    let mut prefixed = candidates.clone().filter(|c| c.starts_with(word));
    if let (Some(only), None) = (prefixed.next(), prefixed.next()) {
        return Some(only);
    }
    let limit = (word.chars().count() / 3).max(1);
    let near = candidates.map(|c| (distance(word, c), c)).filter(|&(d, _)| d <= limit);
    near.min_by_key(|&(d, _)| d).map(|(_, c)| c)
}

/// Edit distance with transpositions (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_options_are_found_and_far_ones_not() {
        let known = ["hostfile", "host", "hosts", "timeout", "np"];
        for (word, want) in [
            ("hostfiel", Some("hostfile")),
            ("hostf", Some("hostfile")),
            ("tiemout", Some("timeout")),
            ("zzzzzz", None),
            ("h", None),
        ] {
            assert_eq!(nearest(word, known.iter().copied()), want, "{word}");
        }
    }
}
