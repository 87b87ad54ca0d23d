//! Hydra's patterns (`-prepend-pattern`, `-outfile-pattern`): text with `%r`, `%g`, `%p`, `%h`, `%t` and `%%`.

use rmpi_types::spec::Piece;

/// Reads a pattern.
///
/// # Errors
/// An unknown letter, a `%` at the end, nothing at all.
pub(crate) fn read(text: &str) -> Result<Vec<Piece>, String> {
    if text.is_empty() {
        return Err("the pattern is empty".into());
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            plain.push(c);
            continue;
        }
        let piece = match chars.next() {
            Some('%') => {
                plain.push('%');
                continue;
            }
            Some('r') => Piece::Rank,
            Some('g') => Piece::Group,
            Some('p') => Piece::Node,
            Some('h') => Piece::Host,
            Some('t') => Piece::Time,
            Some(other) => {
                return Err(format!(
                    "'%{other}' is not known (there are %r rank, %g group, %p node, %h host, %t time, %%)"
                ));
            }
            None => return Err("a '%' at the end; write %% for a percent sign".into()),
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Open MPI 5's pattern of a file name: `%n` the job's name, `%r` the rank.
pub(crate) fn of_file(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let piece = match part.chars().next() {
            Some('n') => Piece::Namespace,
            Some('r') => Piece::Rank,
            other => {
                let letter = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "'%{letter}' is not known in a file's pattern: %n is the job, %r the rank"
                ));
            }
        };
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(piece);
        part[1..].clone_into(&mut plain);
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_percents() {
        let got = read("%h.%r%%x").unwrap();
        assert_eq!(got, [Piece::Host, Piece::Text(".".into()), Piece::Rank, Piece::Text("%x".into())]);
        for (bad, part) in [("%s", "'%s' is not known"), ("a%", "at the end"), ("", "empty")] {
            assert!(read(bad).unwrap_err().contains(part), "{bad}");
        }
    }
}
