//! The pre-pass: splits a command line by the table into options with their arguments, and programs, before any
//! value is looked at. Arguments stay as they are, byte for byte; everything from the program on is never
//! looked into, but for a lone `:` that begins the next program.

use crate::error::CliError;
use crate::personality::Personality;
use crate::row::{Arity, Row, dashed};
use crate::suggest::nearest;
use crate::table;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option as it was given.
#[derive(Clone)]
pub(crate) struct Occurrence {
    pub(crate) row: &'static Row,
    /// As typed, without a value.
    pub(crate) spelled: String,
    /// Its arguments: two for pairs.
    pub(crate) values: Vec<OsString>,
}

/// Options and one program.
#[derive(Clone, Default)]
pub(crate) struct Segment {
    pub(crate) options: Vec<Occurrence>,
    /// The program and its arguments; empty when there is none.
    pub(crate) command: Vec<OsString>,
}

/// Modes of `--env`, which is also Hydra's `-env NAME VALUE`.
pub(crate) const ENV_MODES: [&str; 4] = ["fill", "openmpi", "all", "none"];

/// Splits the arguments after `argv[0]`.
///
/// # Errors
/// Unknown options, missing arguments, arguments to flags.
pub(crate) fn split(args: &[OsString], personality: Personality) -> Result<Vec<Segment>, CliError> {
    args.split(|a| a == ":").map(|part| segment(part, personality)).collect()
}

/// One program's part of the command line.
pub(crate) fn segment(args: &[OsString], personality: Personality) -> Result<Segment, CliError> {
    let mut out = Segment::default();
    let mut rest = args.iter();
    while let Some(token) = rest.as_slice().first() {
        let bytes = token.as_bytes();
        if bytes.first() != Some(&b'-') {
            break;
        }
        rest.next();
        if bytes == b"--" {
            break;
        }
        let (dashed_name, inline) = match bytes.iter().position(|&b| b == b'=') {
            Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
            None => (bytes, None),
        };
        let Some(row) = find(dashed_name, personality)? else {
            return Err(unknown(dashed_name, personality));
        };
        let spelled = String::from_utf8_lossy(dashed_name).into_owned();
        let values = arguments(row, &spelled, inline, &mut rest)?;
        out.options.push(Occurrence { row, spelled, values });
    }
    out.command = rest.cloned().collect();
    Ok(out)
}

/// Takes an option's arguments.
fn arguments(
    row: &Row,
    spelled: &str,
    inline: Option<OsString>,
    rest: &mut std::slice::Iter<'_, OsString>,
) -> Result<Vec<OsString>, CliError> {
    let missing = |what: &str| CliError::new(format!("{spelled} needs {what}"));
    let value = row.value;
    match row.arity {
        Arity::Flag if inline.is_some() => Err(CliError::new(format!("{spelled} takes no value"))),
        Arity::Flag => Ok(Vec::new()),
        Arity::One => match inline.or_else(|| rest.next().cloned()) {
            Some(v) => Ok(vec![v]),
            None => Err(missing(&format!("a value: {spelled} {value}"))),
        },
        Arity::Optional => {
            let next = rest.as_slice().first().filter(|t| !t.as_bytes().starts_with(b"-"));
            if inline.is_none() && next.is_some() {
                rest.next();
            }
            Ok(inline.or_else(|| next.cloned()).into_iter().collect())
        }
        Arity::Pair | Arity::PairOrMode => {
            let what = format!("a name and a value: {spelled} {value}");
            let name = inline.or_else(|| rest.next().cloned()).ok_or_else(|| missing(&what))?;
            if let Some(at) = name.as_bytes().iter().position(|&b| b == b'=') {
                let bytes = name.as_bytes();
                let part = |b: &[u8]| OsStr::from_bytes(b).to_owned();
                return Ok(vec![part(&bytes[..at]), part(&bytes[at + 1..])]);
            }
            if row.arity == Arity::PairOrMode && ENV_MODES.iter().any(|m| name == *m) {
                return Ok(vec![OsString::new(), name]);
            }
            let second = rest.next().cloned().ok_or_else(|| missing(&what))?;
            Ok(vec![name, second])
        }
    }
}

/// The row of a token such as `--map_by`; `None` for unknown ones.
fn find(token: &[u8], personality: Personality) -> Result<Option<&'static Row>, CliError> {
    let Some(bare) = token.strip_prefix(b"--").or_else(|| token.strip_prefix(b"-")) else { return Ok(None) };
    let Ok(name) = std::str::from_utf8(bare) else { return Ok(None) };
    let name = name.replace('_', "-");
    if let Some(row) = table::find(&name, personality) {
        return Ok(Some(row));
    }
    if name.len() < 2 {
        return Ok(None);
    }
    table::abbreviated(&name, personality).map_err(|several| {
        let all: Vec<String> = several.into_iter().map(dashed).collect();
        CliError::new(format!("option '--{name}' may mean {}", all.join(" or ")))
    })
}

/// The error for an unknown option, with the nearest known one.
fn unknown(token: &[u8], personality: Personality) -> CliError {
    let shown = String::from_utf8_lossy(token).into_owned();
    let name = shown.trim_start_matches('-').replace('_', "-");
    let (word, digits) = name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
    let hint = if !digits.is_empty() && table::find(word, personality).is_some_and(|r| r.arity == Arity::One)
    {
        Some(format!("-{word} {digits}"))
    } else if name.chars().count() < 2 {
        None
    } else {
        let rows = table::rows().filter(|r| r.only.is_none_or(|p| p == personality));
        nearest(&name, rows.flat_map(Row::names)).map(dashed)
    };
    let help = || "; rmpirun --help all lists them".to_owned();
    let hint = hint.map_or_else(help, |h| format!(" (did you mean '{h}'?)"));
    CliError::new(format!("unknown option '{shown}'{hint}"))
}
