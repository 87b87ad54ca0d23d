//! "Did you mean": the nearest known word to a mistyped one. Bounded work, no policy about when to ask.

/// Longest word compared and most candidates looked at: messages must not cost more than the work.
const MAX_WORD: usize = 128;
const MAX_CANDIDATES: usize = 20_000;

/// The candidate nearest to `word`, if one is near enough to be a typing mistake (a third of its letters,
/// at least one). A candidate whose first dot-separated label equals `word` (`n1` for `n1.example.org`) wins at once.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let limit = (word.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for c in candidates.into_iter().take(MAX_CANDIDATES) {
        if c.split('.').next() == Some(word) || word.split('.').next() == Some(c) {
            return Some(c);
        }
        if c.len() > MAX_WORD || c.len().abs_diff(word.len()) > 4 * limit {
            continue;
        }
        let d = distance(word, c);
        if d <= limit && best.is_none_or(|(b, _)| d < b) {
            best = Some((d, c));
        }
    }
    best.map(|(_, c)| c)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("n9", ["m22", "n2"]), Some("n2"));
        assert_eq!(nearest("n1", ["n2", "n1.example.org"]), Some("n1.example.org"));
        assert_eq!(nearest("slot_max", ["slots", "slots_max"]), Some("slots_max"));
        assert_eq!(nearest("worker", ["n1", "n2"]), None);
    }
}
