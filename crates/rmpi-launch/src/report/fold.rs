//! Names and ranks folded for messages, and texts from other machines made harmless. Pure.

use rmpi_types::RankSet;

/// Longest remote text in a message, in characters.
const TEXT_MAX: usize = 400;

/// Host names as one short text, harmless on a terminal.
///
/// ```
/// use rmpi_launch::report::fold_hosts;
/// assert_eq!(fold_hosts(["n2", "n3", "n4", "n12"]), "n[2-4,12]");
/// assert_eq!(fold_hosts(["n1", "login"]), "n1, login");
/// ```
#[must_use]
pub fn fold_hosts<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    sanitize(&spaced(&rmpi_plan::fold_hosts(&names)))
}

/// A space after each comma outside brackets.
fn spaced(list: &str) -> String {
    let mut out = String::with_capacity(list.len() + 8);
    let mut inside = false;
    for c in list.chars() {
        inside = c == '[' || (inside && c != ']');
        out.push(c);
        if c == ',' && !inside {
            out.push(' ');
        }
    }
    out
}

/// `rank 3` or `ranks 0,2-5`.
#[must_use]
pub fn ranks(set: &RankSet) -> String {
    if set.len() == 1 { format!("rank {set}") } else { format!("ranks {set}") }
}

/// Text of another machine for our terminal: control characters become spaces, very long text is cut.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim_end().chars().take(TEXT_MAX).map(clean).collect();
    if text.trim_end().chars().nth(TEXT_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_readable_and_remote_text_is_harmless() {
        for (names, text) in [
            (&["n1"][..], "n1"),
            (&["n2", "n3", "n12", "b"], "n[2-3,12], b"),
            (&["10.0.0.77", "10.0.0.78"], "10.0.0.[77-78]"),
            (&["a\x1b]0;x", "b"], "a ]0;x, b"),
            (&[], ""),
        ] {
            assert_eq!(fold_hosts(names.iter().copied()), text);
        }
        assert_eq!(sanitize("a\x1b[31mb\r\n"), "a [31mb");
        assert_eq!(sanitize(&"x".repeat(500)).chars().count(), TEXT_MAX + 1);
    }
}
