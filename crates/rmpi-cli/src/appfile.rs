//! App files (`--app`, `-configfile`): a program with its options on each line, `#` comments, `\` at the end of a
//! line, quoting as in a shell. A `:` alone also separates programs, unless it is quoted.

use crate::error::CliError;
use crate::personality::Personality;
use crate::prepass::{Segment, segment};
use crate::values::words;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Largest file in bytes, and most programs.
const MAX_FILE: usize = 16 << 20;
const MAX_APPS: usize = 10_000;

/// The programs of a file, in order.
///
/// # Errors
/// With file and line: quotes left open, unknown options, lines without a program; a file without programs.
pub(crate) fn read(bytes: &[u8], name: &str, personality: Personality) -> Result<Vec<Segment>, CliError> {
    if bytes.len() > MAX_FILE {
        return Err(CliError::new(format!("{name}: larger than {MAX_FILE} bytes")));
    }
    let mut out = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    let mut begins = 1usize;
    let mut lines = bytes.split(|&b| b == b'\n').enumerate().peekable();
    while let Some((i, line)) = lines.next() {
        if joined.is_empty() {
            begins = i + 1;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let (Some(start), true) = (line.strip_suffix(b"\\"), lines.peek().is_some()) {
            joined.extend_from_slice(start);
            joined.push(b' ');
            continue;
        }
        joined.extend_from_slice(line);
        let at = |e: &str| CliError::new(format!("{name}:{begins}: {e}"));
        add(&joined, personality, &mut out).map_err(|e| at(&e))?;
        if out.len() > MAX_APPS {
            return Err(at("more programs than a job may have"));
        }
        joined.clear();
    }
    if out.is_empty() {
        return Err(CliError::new(format!("{name}: no program in the file")));
    }
    Ok(out)
}

/// The programs of one line, if it is not blank.
fn add(line: &[u8], personality: Personality, out: &mut Vec<Segment>) -> Result<(), String> {
    let words = words(&without_comment(line))?;
    if words.is_empty() {
        return Ok(());
    }
    for part in words.split(|(w, quoted)| w == b":" && !quoted) {
        let args: Vec<OsString> = part.iter().map(|(w, _)| OsString::from_vec(w.clone())).collect();
        let segment = segment(&args, personality).map_err(|e| e.message)?;
        let misplaced = |name: &str| ["app", "help", "version", "personality", "tune"].contains(&name);
        if let Some(o) = segment.options.iter().find(|o| misplaced(o.row.name)) {
            return Err(format!("{} has no place in an app file", o.spelled));
        }
        if segment.command.is_empty() {
            return Err("no program in this line".into());
        }
        out.push(segment);
    }
    Ok(())
}

/// A line up to an unquoted `#` that begins a word.
fn without_comment(line: &[u8]) -> Vec<u8> {
    let mut quote = None;
    let mut escaped = false;
    let mut before = b' ';
    for (i, &b) in line.iter().enumerate() {
        match (quote, b) {
            _ if escaped => escaped = false,
            (None | Some(b'"'), b'\\') => escaped = true,
            (Some(q), b) if q == b => quote = None,
            (None, b'\'' | b'"') => quote = Some(b),
            (None, b'#') if before.is_ascii_whitespace() => return line[..i].to_vec(),
            _ => {}
        }
        before = b;
    }
    line.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Result<Vec<Vec<OsString>>, CliError> {
        Ok(read(text.as_bytes(), "apps", Personality::Default)?.into_iter().map(|s| s.command).collect())
    }

    #[test]
    fn lines_comments_quotes_and_colons() {
        let text = "# two programs\n-np 1 a 'x y' # rest\n\n-np 2 \\\n b \":\" c#d : -n 1 d\n";
        let want: [&[&str]; 3] = [&["a", "x y"], &["b", ":", "c#d"], &["d"]];
        assert_eq!(commands(text).unwrap(), want);
    }

    #[test]
    fn errors_have_the_line() {
        for (text, part) in [
            ("a\n'b", "apps:2: a quote"),
            ("-np 1\n", "apps:1: no program"),
            ("--zzzz b", "apps:1: unknown option"),
            ("#\n", "apps: no program"),
            ("--app x", "apps:1: --app has no place"),
        ] {
            assert!(commands(text).unwrap_err().message.contains(part), "{text}");
        }
    }
}
