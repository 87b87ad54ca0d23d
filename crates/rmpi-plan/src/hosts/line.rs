//! Lines of host files: hosts with attributes in the words of every dialect, decided line by line.

use super::host::{check_user, parse_count, parse_word};
use super::lexer::{At, Piece, Token, lines, tokens};
use super::list::{Count, Entry, HostDialect, HostList, ListKind, ParsedHosts};
use super::{MAX_HOSTS, MAX_SLOTS};
use crate::error::{HostsError, HostsProblem};
use crate::suggest::nearest;
use rmpi_types::spec::{BindTo, Object};

/// Reads a host file as the pool of a job. `name` is the file's name for messages.
///
/// # Errors
/// The first line that is no host line, with its place; a file without hosts.
pub fn parse_hostfile(bytes: &[u8], name: &str, dialect: HostDialect) -> Result<ParsedHosts, HostsError> {
    read_hostfile(bytes, name, dialect)?.into_hosts()
}

/// Reads a host file without turning it into a pool yet: for files that filter an allocation
/// ([`super::combine`]).
///
/// # Errors
/// As [`parse_hostfile`], except for what needs the whole list.
pub fn read_hostfile(bytes: &[u8], name: &str, dialect: HostDialect) -> Result<HostList, HostsError> {
    let mut list = HostList::new(name, ListKind::File, dialect);
    for line in lines(bytes, name)? {
        let at = At { source_name: name, line: line.number, text: &line.text };
        parse_line(at, &mut list)?;
    }
    if list.entries.is_empty() {
        return Err(HostsError::whole(name, HostsProblem::Empty("file")));
    }
    Ok(list)
}

/// Reads one line (or a whole `--host` list, which is a line of the same grammar).
pub(super) fn parse_line(at: At<'_>, list: &mut HostList) -> Result<(), HostsError> {
    let tokens = tokens(at.text);
    // Entries that attributes belong to: those of the last host word (a range makes several).
    let mut last: Option<usize> = None;
    let mut want_host = true;
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        let fail = |problem| Err(at.error(token.column, problem));
        match token.piece {
            Piece::Comma => want_host = true,
            Piece::Eq => return fail(HostsProblem::Unexpected { word: "=".to_owned() }),
            Piece::Word(key) if matches!(tokens.get(i + 1), Some(Token { piece: Piece::Eq, .. })) => {
                let Some(first) = last else {
                    return fail(HostsProblem::NoHostBefore { word: format!("{key}=") });
                };
                let Some(Token { piece: Piece::Word(value), column, .. }) = tokens.get(i + 2) else {
                    return fail(HostsProblem::NoValue { key: key.to_owned() });
                };
                let columns = (token.column, *column);
                set_attribute(at, list, first, (key, value), columns)?;
                i += 2;
                want_host = false;
            }
            Piece::Word(word) => match last {
                Some(first) if !want_host => {
                    if !word.bytes().all(|b| b.is_ascii_digit()) {
                        return fail(HostsProblem::Unexpected { word: word.chars().take(64).collect() });
                    }
                    set_attribute(at, list, first, ("slots", word), (token.column, token.column))?;
                }
                _ => {
                    last = Some(list.entries.len());
                    add_hosts(at, list, word, token.column)?;
                    want_host = false;
                }
            },
        }
        i += 1;
    }
    Ok(())
}

fn add_hosts(at: At<'_>, list: &mut HostList, word: &str, column: u32) -> Result<(), HostsError> {
    let parsed = parse_word(word).map_err(|p| at.error(column, p))?;
    if list.entries.len() + parsed.who.len() > MAX_HOSTS {
        return Err(at.error(column, HostsProblem::TooManyHosts { limit: MAX_HOSTS }));
    }
    for who in parsed.who {
        list.entries.push(Entry {
            who,
            exclude: parsed.exclude,
            count: parsed.count,
            max_slots: None,
            user: parsed.user.clone(),
            port: None,
            bind_to: None,
            line: at.line,
            column,
        });
    }
    Ok(())
}

/// What an attribute is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Slots,
    MaxSlots,
    User,
    Port,
    Binding,
    Ignored,
}

const KEYS: &[(&str, Key)] = &[
    ("slots", Key::Slots),
    ("slot", Key::Slots),
    ("count", Key::Slots),
    ("cpu", Key::Slots),
    ("cpus", Key::Slots),
    ("max_slots", Key::MaxSlots),
    ("slots_max", Key::MaxSlots),
    ("max_slot", Key::MaxSlots),
    ("slot_max", Key::MaxSlots),
    ("cpu_max", Key::MaxSlots),
    ("max_cpu", Key::MaxSlots),
    ("cpus_max", Key::MaxSlots),
    ("max_cpus", Key::MaxSlots),
    ("count_max", Key::MaxSlots),
    ("max_count", Key::MaxSlots),
    ("username", Key::User),
    ("user_name", Key::User),
    ("user", Key::User),
    ("port", Key::Port),
    ("binding", Key::Binding),
    ("boards", Key::Ignored),
    ("sockets", Key::Ignored),
    ("cores", Key::Ignored),
    ("sockets_per_board", Key::Ignored),
    ("cores_per_socket", Key::Ignored),
];

/// Applies `key=value` to the entries from `first` on.
fn set_attribute(
    at: At<'_>,
    list: &mut HostList,
    first: usize,
    (key, value): (&str, &str),
    (key_column, value_column): (u32, u32),
) -> Result<(), HostsError> {
    let plain = key.to_ascii_lowercase().replace('-', "_");
    let Some(&(_, kind)) = KEYS.iter().find(|(k, _)| *k == plain) else {
        let hint = nearest(&plain, KEYS.iter().map(|(k, _)| *k)).map(str::to_owned);
        let key = key.chars().take(64).collect();
        return Err(at.error(key_column, HostsProblem::UnknownKey { key, hint }));
    };
    let here = |problem| at.error(value_column, problem);
    let entries = &mut list.entries[first..];
    match kind {
        Key::Ignored => {}
        Key::Slots => {
            let n = parse_count(key, value).map_err(here)?;
            for e in entries {
                if e.count != Count::Bare {
                    return Err(at.error(key_column, HostsProblem::SlotsTwice { host: e.who.to_string() }));
                }
                e.count = Count::Given(n);
            }
        }
        Key::MaxSlots => {
            let n = parse_count(key, value).map_err(here)?;
            entries.iter_mut().for_each(|e| e.max_slots = Some(n.min(MAX_SLOTS)));
        }
        Key::User => {
            let user = check_user(value).map_err(here)?;
            entries.iter_mut().for_each(|e| e.user = Some(user.clone()));
        }
        Key::Port => {
            let bad = || here(HostsProblem::BadPort { value: value.chars().take(64).collect() });
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let port = value.parse::<u16>().ok().filter(|&p| p > 0 && digits).ok_or_else(bad)?;
            entries.iter_mut().for_each(|e| e.port = Some(port));
        }
        Key::Binding => {
            let bad = || here(HostsProblem::BadBinding { value: value.chars().take(64).collect() });
            let bind = binding(value).ok_or_else(bad)?;
            entries.iter_mut().for_each(|e| e.bind_to = Some(bind.clone()));
        }
    }
    Ok(())
}

/// Hydra's binding words that name an object.
fn binding(value: &str) -> Option<BindTo> {
    Some(BindTo::Object(match value.to_ascii_lowercase().as_str() {
        "none" => return Some(BindTo::None),
        "hwthread" => Object::Hwthread,
        "core" => Object::Core,
        "l1cache" => Object::L1,
        "l2cache" => Object::L2,
        "l3cache" => Object::L3,
        "numa" => Object::Numa,
        "socket" | "package" => Object::Package,
        "machine" | "node" => Object::Node,
        _ => return None,
    }))
}
