//! What a host discovery script prints: `host` or `host:slots` a line, no lines for no hosts.

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the host discovery script: {what}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Longest name of a host.
const LONGEST: usize = 255;
/// Most slots of a host.
const MOST: u32 = 1 << 16;

/// Hosts in the order of their lines, each once; the last count of a name counts. `each` are the slots of a line
/// without a count.
///
/// # Errors
/// The first line that cannot be a host.
pub fn read(output: &[u8], each: Option<u32>) -> Result<Vec<(String, u32)>, BadLine> {
    let text = String::from_utf8_lossy(output);
    let mut hosts: Vec<(String, u32)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line_text = line.trim();
        if line_text.is_empty() {
            continue;
        }
        let bad = |what: String| BadLine { line: n + 1, what };
        let (name, slots) = match line_text.rsplit_once(':') {
            Some((name, count)) => {
                let slots = count.parse().ok().filter(|n| *n <= MOST);
                (name, slots.ok_or_else(|| bad(format!("'{}' is not a number of slots", clip(count))))?)
            }
            None => {
                let none =
                    || bad(format!("'{}' has no slots and there is no --slots-per-host", clip(line_text)));
                (line_text, each.ok_or_else(none)?)
            }
        };
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > LONGEST || name.starts_with('-') || !name.chars().all(fine) {
            return Err(bad(format!("'{}' is not the name of a host", clip(name))));
        }
        match hosts.iter_mut().find(|(h, _)| h == name) {
            Some((_, old)) => *old = slots,
            None => hosts.push((name.to_owned(), slots)),
        }
    }
    Ok(hosts)
}

fn clip(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_order() {
        let read = |text: &str, each| read(text.as_bytes(), each).map_err(|e| e.to_string());
        let list = |l: &[(&str, u32)]| Ok(l.iter().map(|(h, n)| ((*h).to_owned(), *n)).collect::<Vec<_>>());
        assert_eq!(read("", None), list(&[]));
        assert_eq!(read("b:2\n\n a \nb:2\r\n", Some(4)), list(&[("b", 2), ("a", 4)]));
        assert!(read("a\n", None).is_err_and(|e| e.contains("no --slots-per-host")));
        for garbage in [
            "a b:1",
            "a:x",
            ":1",
            "a:99999999",
            "-a:1",
            "\u{1}\u{2}:1",
            "Traceback (most recent call last)",
            "a/b:1",
        ] {
            let error = read(garbage, Some(1)).unwrap_err();
            assert!(error.starts_with("line 1 of the host discovery script"), "{garbage}: {error}");
        }
    }
}
