//! clap's part: values of the options that were given, typed and checked by a clap command made from exactly
//! those rows. The pre-pass has already settled which argument belongs to which option.

use crate::draft::Target;
use crate::error::CliError;
use crate::prepass::Occurrence;
use crate::row::{Act, Row, Set};
use crate::values;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// A checked value.
#[derive(Clone, Debug)]
pub(crate) enum Typed {
    Count(u32),
    Time(Duration),
    Os(OsString),
    Text(String),
}

/// Reads one value as the row wants it.
pub(crate) fn read(act: Act, value: &OsStr) -> Result<Typed, String> {
    if let Act::Os(_) | Act::Pair(_) | Act::Flag(_) = act {
        return Ok(Typed::Os(value.to_owned()));
    }
    let text = value.to_str().ok_or_else(|| format!("'{}' is not valid UTF-8", value.to_string_lossy()))?;
    match act {
        Act::Count(_) => values::count(text).map(Typed::Count),
        Act::Time(_) => values::time(text).map(Typed::Time),
        Act::Text(_) | Act::Os(_) | Act::Pair(_) | Act::Flag(_) => Ok(Typed::Text(text.to_owned())),
    }
}

/// Calls a row's setter with its checked values.
pub(crate) fn call(act: Act, target: &mut Target<'_>, values: Vec<Typed>) -> Set {
    let mut values = values.into_iter();
    match (act, values.next(), values.next()) {
        (Act::Flag(f), None, None) => f(target),
        (Act::Count(f), Some(Typed::Count(n)), None) => f(target, n),
        (Act::Time(f), Some(Typed::Time(t)), None) => f(target, t),
        (Act::Os(f), Some(Typed::Os(v)), None) => f(target, v),
        (Act::Text(f), Some(Typed::Text(v)), None) => f(target, &v),
        (Act::Text(f), None, None) => f(target, ""),
        (Act::Pair(f), Some(Typed::Os(n)), Some(Typed::Os(v))) => f(target, n, v),
        _ => Err("cannot take these values".into()),
    }
}

#[derive(Clone)]
struct Parser {
    act: Act,
    spelled: String,
}

impl TypedValueParser for Parser {
    type Value = Typed;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Typed, clap::Error> {
        read(self.act, value)
            .map_err(|e| clap::Error::raw(ErrorKind::ValueValidation, format!("{}: {e}", self.spelled)))
    }
}

/// The values of each occurrence, in order; empty for rows without an action.
///
/// # Errors
/// The first value that is not what its option takes.
pub(crate) fn check(occurrences: &[Occurrence]) -> Result<Vec<Vec<Typed>>, CliError> {
    let mut command = Command::new("rmpirun").no_binary_name(true).disable_help_flag(true);
    let mut tokens: Vec<OsString> = Vec::new();
    let mut known: Vec<&'static str> = Vec::new();
    for o in occurrences {
        let Some(act) = o.row.act else { continue };
        if !o.values.is_empty() && !known.contains(&o.row.name) {
            known.push(o.row.name);
            command = command.arg(argument(o.row, Parser { act, spelled: o.spelled.clone() }));
        }
        for value in &o.values {
            let mut token = OsString::from(format!("--{}=", o.row.name));
            token.push(value);
            tokens.push(token);
        }
    }
    let mut matches = command.try_get_matches_from(tokens).map_err(|e| message(&e))?;
    Ok(distribute(occurrences, &mut matches))
}

fn argument(row: &'static Row, parser: Parser) -> Arg {
    Arg::new(row.name)
        .long(row.name)
        .num_args(1)
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .value_parser(parser)
}

/// Gives each occurrence its share of what clap collected by row.
fn distribute(occurrences: &[Occurrence], matches: &mut ArgMatches) -> Vec<Vec<Typed>> {
    let mut queues = HashMap::new();
    let mut out = Vec::with_capacity(occurrences.len());
    for o in occurrences {
        if o.row.act.is_none() || o.values.is_empty() {
            out.push(Vec::new());
            continue;
        }
        let queue = match queues.entry(o.row.name) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => match matches.remove_many::<Typed>(o.row.name) {
                Some(values) => e.insert(values),
                None => {
                    out.push(Vec::new());
                    continue;
                }
            },
        };
        out.push(queue.by_ref().take(o.values.len()).collect());
    }
    out
}

/// clap's error without its trimmings.
fn message(error: &clap::Error) -> CliError {
    let text = error.to_string();
    CliError::new(text.trim().trim_start_matches("error: "))
}
