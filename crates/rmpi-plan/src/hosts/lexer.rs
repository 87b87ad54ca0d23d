//! From bytes to words with places: refuses what is not text, drops comments of all dialects, keeps line
//! and column for messages. It knows nothing of hosts.

use super::{MAX_FILE, MAX_LINE};
use crate::error::{HostsError, HostsProblem};

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Anything without blanks, `=` and `,` (commas inside `[…]` belong to the word).
    Word(&'a str),
    /// `=`.
    Eq,
    /// `,`.
    Comma,
}

/// A piece and its column, from 1, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) piece: Piece<'a>,
    pub(crate) column: u32,
    /// Blanks (or the start of the line) stand before it.
    pub(crate) spaced: bool,
}

/// A line with comments blanked out, columns unchanged.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: u32,
    pub(crate) text: String,
}

/// Where messages about a piece of input point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) source_name: &'a str,
    pub(crate) line: u32,
    pub(crate) text: &'a str,
}

impl At<'_> {
    /// An error at `column` of this line.
    pub(crate) fn error(&self, column: u32, problem: HostsProblem) -> HostsError {
        let text = self.text.chars().take(120).collect();
        HostsError {
            source_name: self.source_name.to_owned(),
            line: self.line,
            column,
            text,
            problem: Box::new(problem),
        }
    }
}

/// Splits a file into lines without comments; lines of blanks are left out.
pub(crate) fn lines(bytes: &[u8], source_name: &str) -> Result<Vec<Line>, HostsError> {
    if bytes.len() > MAX_FILE {
        return Err(HostsError::whole(source_name, HostsProblem::FileTooLarge { limit: MAX_FILE }));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    // Line and column of a `/*` that is still open, and its line.
    let mut open: Option<(u32, u32, String)> = None;
    for (raw, number) in bytes.split(|&b| b == b'\n').zip(1u32..) {
        // Lossy: foreign encodings are no harm in comments, and no host name has a replacement character.
        let decoded = String::from_utf8_lossy(&raw[..raw.len().min(MAX_LINE)]);
        let at = At { source_name, line: number, text: &decoded };
        if raw.len() > MAX_LINE {
            return Err(at.error(0, HostsProblem::LineTooLong { limit: MAX_LINE }));
        }
        let control = |c: &char| c.is_ascii_control() && !matches!(c, '\t' | '\r' | '\x0b' | '\x0c');
        if let Some((c, column)) = decoded.chars().zip(1u32..).find(|(c, _)| control(c)) {
            return Err(at.error(column, HostsProblem::Binary { byte: u8::try_from(c).unwrap_or(0) }));
        }
        let text = blank_comments(&decoded, number, &mut open);
        if !text.trim().is_empty() {
            lines.push(Line { number, text });
        }
    }
    match open {
        Some((line, column, text)) => {
            Err(At { source_name, line, text: &text }.error(column, HostsProblem::OpenComment))
        }
        None => Ok(lines),
    }
}

/// The line with comment characters replaced by blanks; `open` carries a `/*` over lines.
fn blank_comments(text: &str, number: u32, open: &mut Option<(u32, u32, String)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().zip(1u32..).peekable();
    while let Some((c, column)) = chars.next() {
        let next = chars.peek().map(|&(n, _)| n);
        if open.is_some() {
            out.push(' ');
            if c == '*' && next == Some('/') {
                out.push(' ');
                chars.next();
                *open = None;
            }
            continue;
        }
        match (c, next) {
            ('#', _) | ('/', Some('/')) => return out,
            ('/', Some('*')) => {
                out.push_str("  ");
                chars.next();
                *open = Some((number, column, text.to_owned()));
            }
            _ => out.push(c),
        }
    }
    out
}

/// Cuts a line into words, `=` and `,`.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut spaced = true;
    // Byte offset and column of the word being read.
    let mut word: Option<(usize, u32)> = None;
    let mut depth = 0u32;
    for ((offset, c), column) in text.char_indices().zip(1u32..) {
        let single = match c {
            '=' => Some(Piece::Eq),
            ',' if depth == 0 => Some(Piece::Comma),
            _ => None,
        };
        if single.is_none() && !c.is_whitespace() {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            word.get_or_insert((offset, column));
            continue;
        }
        depth = 0;
        if let Some((start, column)) = word.take() {
            out.push(Token { piece: Piece::Word(&text[start..offset]), column, spaced });
            spaced = false;
        }
        match single {
            Some(piece) => {
                out.push(Token { piece, column, spaced });
                spaced = false;
            }
            None => spaced = true,
        }
    }
    if let Some((start, column)) = word {
        out.push(Token { piece: Piece::Word(&text[start..]), column, spaced });
    }
    out
}
