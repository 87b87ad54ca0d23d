//! OpenSSH's pattern language: `*` and `?`, lists with negation. Pure; never exponential.

/// Whether `text` matches `pattern`, where `*` is any run of characters and `?` any one.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut pi, mut ti) = (0, 0);
    // Where to take up again after the last `*`: position behind it, and the text position it covers to.
    let mut back: Option<(usize, usize)> = None;
    while ti < t.len() {
        match p.get(pi) {
            Some(b'*') => {
                pi += 1;
                back = Some((pi, ti));
            }
            Some(c) if *c == b'?' || *c == t[ti] => {
                pi += 1;
                ti += 1;
            }
            _ => match back {
                Some((star, covered)) => {
                    pi = star;
                    ti = covered + 1;
                    back = Some((star, ti));
                }
                None => return false,
            },
        }
    }
    p[pi..].iter().all(|c| *c == b'*')
}

/// Whether a list of patterns matches: at least one does, and none that begins with `!`. Upper and lower case
/// are the same.
pub(crate) fn list_matches<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let mut found = false;
    for pattern in patterns {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(negated) if matches(negated, &text) => return false,
            Some(_) => {}
            None => found |= matches(&pattern, &text),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("n?", "n1", true),
            ("n?", "n", false),
            ("*.example", "a.b.example", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("", "x", false),
            ("10.0.0.*", "10.0.0.77", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
        assert!(list_matches(["*.Example", "!bad.*"], "GOOD.example"));
        assert!(!list_matches(["*.example", "!bad.*"], "bad.example"));
        assert!(!list_matches(["!bad"], "good"), "only negations match nothing");
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_its_prefix_with_a_star(text in "[a-z.]{0,12}", cut in 0usize..12) {
            prop_assert!(matches(&text, &text));
            let prefix = &text[..cut.min(text.len())];
            let with_star = format!("{prefix}*");
            prop_assert!(matches(&with_star, &text));
        }

        #[test]
        fn many_stars_end_soon(n in 1usize..60) {
            let pattern = "a*".repeat(n) + "b";
            prop_assert!(!matches(&pattern, &"a".repeat(200)));
        }
    }
}
