//! A host list as written (mentions in order) and the pool it makes (hosts with repeats added up). The
//! rules for counts that were not given live here.

use super::lexer::At;
use super::line::parse_line;
use super::{MAX_LINE, MAX_SLOTS};
use crate::error::{HostsError, HostsProblem};
use crate::fold::fold_hosts;
use rmpi_types::spec::{BindTo, Host, Slots};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Whose rules hold for what a list leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostDialect {
    /// A host-file line without a count means the node's cores, a `--host` mention one slot.
    #[default]
    Default,
    /// A mention without a count is one slot (also right for node files of resource managers).
    Hydra,
    /// Counts are mandatory.
    Horovod,
}

/// Where a list came from: what a bare mention means depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    File,
    Option,
}

/// The host of one mention.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// By name or address.
    Name(String),
    /// `+nK`: host K of the pool, from 0.
    Relative(u32),
    /// `+e` (all) or `+e:K`: hosts no earlier program uses.
    Empty(Option<u32>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Relative(k) => write!(f, "+n{k}"),
            Self::Empty(None) => f.write_str("+e"),
            Self::Empty(Some(k)) => write!(f, "+e:{k}"),
        }
    }
}

/// The slots of one mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Nothing was said.
    Bare,
    /// So many.
    Given(u32),
    /// `:*` or `:auto`: all the node has.
    All,
}

/// One mention of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which host.
    pub who: Who,
    /// `^host`: it is taken out of the list.
    pub exclude: bool,
    /// Slots.
    pub count: Count,
    /// Limit even with oversubscription.
    pub max_slots: Option<u32>,
    /// SSH user.
    pub user: Option<String>,
    /// SSH port.
    pub port: Option<u16>,
    /// Binding of this host's ranks.
    pub bind_to: Option<BindTo>,
    /// Line, from 1; 0 in a `--host` list.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A host file or `--host` list as written.
#[derive(Clone, Debug, PartialEq)]
pub struct HostList {
    /// Name of the file or option, for messages.
    pub source_name: String,
    /// Mentions in order.
    pub entries: Vec<Entry>,
    pub(super) kind: ListKind,
    pub(super) dialect: HostDialect,
}

/// The pool a list makes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedHosts {
    /// Name of the file or option, for messages.
    pub source_name: String,
    /// Hosts in order of first mention, repeats added up.
    pub hosts: Vec<Host>,
    /// Index into `hosts` of each mention in order, repeats kept: the lines of `--map-by seq`.
    pub listed: Vec<usize>,
    /// Slots of each mention of `listed`; 1 where they are not known yet.
    pub listed_slots: Vec<u32>,
    /// One-line notes for the user.
    pub notes: Vec<String>,
}

impl ParsedHosts {
    /// Mentions with each repeated as often as it has slots: the places of Hydra's `-hosts n1:2,n2,n1`, for
    /// [`rmpi_types::spec::MapBy::Seq`] together with `listed_order`. Cut at `limit` places.
    #[must_use]
    pub fn places(&self, limit: usize) -> Vec<usize> {
        let each = self.listed.iter().zip(&self.listed_slots);
        each.flat_map(|(&host, &n)| std::iter::repeat_n(host, n as usize)).take(limit).collect()
    }
}

/// Reads the list of `--host`, `-H`, `-hosts`, `--hosts`: `h1,h2:4,h1`, `h:*`, `+n0`, `n[1-3]`, `^h`. `origin` is the
/// option, for messages.
///
/// # Errors
/// The first word that is no host, with its column in the list; a list without hosts.
pub fn parse_host_list(text: &str, origin: &str, dialect: HostDialect) -> Result<HostList, HostsError> {
    let at = At { source_name: origin, line: 0, text };
    if text.len() > 16 * MAX_LINE {
        return Err(at.error(0, HostsProblem::LineTooLong { limit: 16 * MAX_LINE }));
    }
    let mut list = HostList::new(origin, ListKind::Option, dialect);
    parse_line(at, &mut list)?;
    if list.entries.is_empty() {
        return Err(at.error(0, HostsProblem::Empty("list")));
    }
    Ok(list)
}

/// What a host is told apart by: its name without case, and its port.
pub(super) fn key(name: &str, port: Option<u16>) -> (String, Option<u16>) {
    (name.to_ascii_lowercase(), port)
}

impl HostList {
    pub(super) fn new(source_name: &str, kind: ListKind, dialect: HostDialect) -> Self {
        Self { source_name: source_name.to_owned(), entries: Vec::new(), kind, dialect }
    }

    /// An error at a mention.
    pub(super) fn error(&self, entry: &Entry, problem: HostsProblem) -> HostsError {
        At { source_name: &self.source_name, line: entry.line, text: "" }.error(entry.column, problem)
    }

    /// Where a mention stands, `hosts:3`, or the option.
    pub(super) fn origin(&self, entry: &Entry) -> String {
        if entry.line == 0 {
            self.source_name.clone()
        } else {
            format!("{}:{}", self.source_name, entry.line)
        }
    }

    /// Makes the list a pool of its own, there being no other: bare mentions get the slots of the list's
    /// dialect, repeats add up, `^host` is taken out.
    ///
    /// # Errors
    /// Relative mentions, counts that contradict each other, missing counts where they are mandatory.
    pub fn into_hosts(self) -> Result<ParsedHosts, HostsError> {
        let mut out = ParsedHosts { source_name: self.source_name.clone(), ..ParsedHosts::default() };
        let excluded: HashSet<String> = self
            .entries
            .iter()
            .filter(|e| e.exclude)
            .filter_map(|e| if let Who::Name(n) = &e.who { Some(n.to_ascii_lowercase()) } else { None })
            .collect();
        let mut index: HashMap<(String, Option<u16>), usize> = HashMap::new();
        let mut summed: Vec<&str> = Vec::new();
        let mut mentions: Vec<Mention<'_>> = Vec::new();
        for entry in &self.entries {
            let Who::Name(name) = &entry.who else {
                return Err(self.error(entry, HostsProblem::NoPool { token: entry.who.to_string() }));
            };
            if excluded.contains(&name.to_ascii_lowercase()) {
                continue;
            }
            if self.dialect == HostDialect::Horovod && entry.count == Count::Bare {
                return Err(self.error(entry, HostsProblem::CountMissing { host: name.clone() }));
            }
            let at = *index.entry(key(name, entry.port)).or_insert_with(|| {
                out.hosts.push(Host {
                    name: name.clone(),
                    port: entry.port,
                    origin: self.origin(entry),
                    ..Host::default()
                });
                mentions.push(Mention::default());
                out.hosts.len() - 1
            });
            self.merge(&mut out.hosts[at], entry)?;
            if mentions[at].add(entry) && self.kind == ListKind::File {
                summed.push(name);
            }
            out.listed.push(at);
            out.listed_slots.push(if let Count::Given(n) = entry.count { n } else { 1 });
        }
        if out.hosts.is_empty() {
            return Err(HostsError::whole(&self.source_name, HostsProblem::AllExcluded));
        }
        for (host, mention) in out.hosts.iter_mut().zip(&mentions) {
            host.slots = mention.slots(self.kind, self.dialect);
            if let (Slots::Count(slots), Some(max), Some(last)) = (host.slots, host.max_slots, mention.last)
                && slots > max
            {
                return Err(self.error(last, HostsProblem::MaxBelow { host: host.name.clone(), slots, max }));
            }
        }
        if !summed.is_empty() {
            let names = fold_hosts(&summed);
            out.notes
                .push(format!("{}: {names} listed more than once; the slots are added up", self.source_name));
        }
        Ok(out)
    }

    /// Adds the attributes of a further mention to a host.
    fn merge(&self, host: &mut Host, entry: &Entry) -> Result<(), HostsError> {
        match (&host.user, &entry.user) {
            (Some(first), Some(second)) if first != second => {
                let problem = HostsProblem::TwoUsers {
                    host: host.name.clone(),
                    first: first.clone(),
                    second: second.clone(),
                };
                return Err(self.error(entry, problem));
            }
            (None, Some(_)) => host.user.clone_from(&entry.user),
            _ => {}
        }
        host.max_slots = host.max_slots.max(entry.max_slots);
        if host.bind_to.is_none() {
            host.bind_to.clone_from(&entry.bind_to);
        }
        Ok(())
    }
}

/// The counts of all mentions of one host.
#[derive(Clone, Copy, Debug, Default)]
struct Mention<'a> {
    bare: u32,
    given: u32,
    counts: u32,
    all: bool,
    last: Option<&'a Entry>,
}

impl<'a> Mention<'a> {
    /// Adds one; true when this is the second that gives a count.
    fn add(&mut self, entry: &'a Entry) -> bool {
        self.last = Some(entry);
        match entry.count {
            Count::Bare => self.bare += 1,
            Count::All => self.all = true,
            Count::Given(n) => {
                self.given = self.given.saturating_add(n).min(MAX_SLOTS);
                self.counts += 1;
                return self.counts == 2;
            }
        }
        false
    }

    /// A single bare line of a host file is the node's cores; in every other company a bare mention is one slot.
    fn slots(&self, kind: ListKind, dialect: HostDialect) -> Slots {
        let lone = self.bare == 1 && self.counts == 0;
        if self.all || (lone && kind == ListKind::File && dialect == HostDialect::Default) {
            return Slots::Auto;
        }
        Slots::Count(self.given.saturating_add(self.bare).min(MAX_SLOTS))
    }
}
