//! Errors of reading host lists and rank files: where, what, and what to do. They are values for people;
//! nothing here decides anything.

use std::fmt;
use thiserror::Error;

/// Something wrong in a host file, host list or rank file. Prints as `file:line: what (what to do)`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct HostsError {
    /// File name or option, as the user wrote it.
    pub source_name: String,
    /// Line, from 1; 0 when the problem is not in one line.
    pub line: u32,
    /// Column in characters, from 1; 0 when unknown.
    pub column: u32,
    /// The start of the offending line (at most 120 characters), for pointing at `column`.
    pub text: String,
    /// What is wrong.
    pub problem: Box<HostsProblem>,
}

impl fmt::Display for HostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is quoted comes from a file and goes to a terminal.
        let mut problem = String::new();
        for c in self.problem.to_string().chars() {
            if c.is_control() { problem.extend(c.escape_default()) } else { problem.push(c) }
        }
        match (&*self.problem, self.line) {
            (HostsProblem::Unknown { .. }, 0) => write!(f, "{problem}"),
            (_, 0) => write!(f, "{}: {problem}", self.source_name),
            (_, line) => write!(f, "{}:{line}: {problem}", self.source_name),
        }
    }
}

impl HostsError {
    /// A problem of the whole input.
    pub(crate) fn whole(source_name: &str, problem: HostsProblem) -> Self {
        Self {
            source_name: source_name.to_owned(),
            line: 0,
            column: 0,
            text: String::new(),
            problem: Box::new(problem),
        }
    }

    /// The offending line with a caret under the column, two lines joined by a newline; `None` when the
    /// place is unknown or beyond the stored start of the line.
    #[must_use]
    pub fn pointer(&self) -> Option<String> {
        let column = self.column as usize;
        if column == 0 || self.text.chars().count() < column {
            return None;
        }
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = self.text.chars().map(visible).collect();
        Some(format!("{text}\n{:>column$}", '^'))
    }
}

/// What is wrong in a host file, host list or rank file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostsProblem {
    /// Nothing but blanks and comments.
    #[error("no host in the {0}")]
    Empty(&'static str),
    /// `^host` lines left nothing.
    #[error("every host is excluded by ^ entries")]
    AllExcluded,
    /// A count that is none.
    #[error("{key}: '{value}' is not a number")]
    NotANumber {
        /// The attribute.
        key: String,
        /// What was written.
        value: String,
    },
    /// A count beyond any sense.
    #[error("{key}: {value} is more than the limit of {limit}")]
    TooLarge {
        /// The attribute.
        key: String,
        /// What was written.
        value: String,
        /// The limit.
        limit: u32,
    },
    /// `max_slots` below `slots`.
    #[error("{host}: max_slots={max} is below slots={slots}; raise max_slots or lower slots")]
    MaxBelow {
        /// The host.
        host: String,
        /// All its slots.
        slots: u32,
        /// Its limit.
        max: u32,
    },
    /// Slots twice for one mention of a host.
    #[error("slots of {host} are given twice here; keep one of them")]
    SlotsTwice {
        /// The host.
        host: String,
    },
    /// No TCP port.
    #[error("port: '{value}' is not a port number (1 to 65535)")]
    BadPort {
        /// What was written.
        value: String,
    },
    /// No host name.
    #[error("'{name}' is not a host name: {why}")]
    BadName {
        /// What was written.
        name: String,
        /// Why not.
        why: String,
    },
    /// No user name.
    #[error("'{user}' is not a user name")]
    BadUser {
        /// What was written.
        user: String,
    },
    /// Not a range of names.
    #[error("'{text}' is not a range of host names; write n[1-3,7]")]
    BadRange {
        /// What was written.
        text: String,
    },
    /// More than [`crate::hosts::MAX_HOSTS`].
    #[error("more than {limit} hosts")]
    TooManyHosts {
        /// The limit.
        limit: usize,
    },
    /// An unknown attribute.
    #[error("unknown key '{key}'{}", did_you_mean(.hint.as_deref()))]
    UnknownKey {
        /// What was written.
        key: String,
        /// The nearest known one.
        hint: Option<String>,
    },
    /// `key=` and nothing.
    #[error("{key}= needs a value")]
    NoValue {
        /// The attribute.
        key: String,
    },
    /// An attribute before any host.
    #[error("'{word}' without a host before it")]
    NoHostBefore {
        /// What was written.
        word: String,
    },
    /// A word that fits nowhere.
    #[error("unexpected '{word}'; write one host a line, or commas between hosts")]
    Unexpected {
        /// What was written.
        word: String,
    },
    /// Binary content.
    #[error("byte 0x{byte:02x} does not belong in a text file; is this the right file?")]
    Binary {
        /// The first such byte.
        byte: u8,
    },
    /// A line beyond [`crate::hosts::MAX_LINE`].
    #[error("line longer than {limit} bytes; is this the right file?")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// A file beyond [`crate::hosts::MAX_FILE`].
    #[error("larger than {limit} bytes; is this the right file?")]
    FileTooLarge {
        /// The limit.
        limit: usize,
    },
    /// `/*` without `*/`.
    #[error("the comment that begins here with /* is never closed by */")]
    OpenComment,
    /// One host with two users.
    #[error("{host} is given with user '{second}' here and user '{first}' before; a host has one user")]
    TwoUsers {
        /// The host.
        host: String,
        /// User of the first mention.
        first: String,
        /// User of this one.
        second: String,
    },
    /// A filter names a host the pool does not have.
    #[error("{host} is not in {pool}{}", did_you_mean(.hint.as_deref()))]
    Unknown {
        /// What was written.
        host: String,
        /// Name of the pool: the host file's, or `the host list`.
        pool: String,
        /// The nearest host of the pool.
        hint: Option<String>,
    },
    /// `+n0` or `+e` without anything it could be relative to.
    #[error("{token} is relative to a host list; give one with --hostfile, or name the host")]
    NoPool {
        /// What was written.
        token: String,
    },
    /// `+n9` of three hosts.
    #[error("{token} does not exist: {pool} has {have} hosts, +n0 is the first")]
    RelativeRange {
        /// What was written.
        token: String,
        /// Name of the pool.
        pool: String,
        /// Hosts in it.
        have: usize,
    },
    /// `+e:K` with fewer than K unused hosts.
    #[error("{token}: only {have} hosts of {pool} are not used by earlier programs")]
    NotEnoughEmpty {
        /// What was written.
        token: String,
        /// Name of the pool.
        pool: String,
        /// Unused hosts.
        have: usize,
    },
    /// horovodrun demands counts.
    #[error("{host} has no slot count; write {host}:1 for one")]
    CountMissing {
        /// The host.
        host: String,
    },
    /// An unknown binding of a host line.
    #[error("binding: '{value}' is not known; write none, hwthread, core, socket or numa")]
    BadBinding {
        /// What was written.
        value: String,
    },
    /// A rank-file line of another form.
    #[error("expected 'rank N=HOST slot=LIST'{}", but_found(.found))]
    RankLine {
        /// The word in the way; empty at the end of the line.
        found: String,
    },
    /// CPUs of a rank-file line.
    #[error("slot: '{value}' is not a CPU list; write 0, 0-2, 0,4, SOCKET:0-2 or SOCKET:*")]
    BadCpuList {
        /// What was written.
        value: String,
    },
    /// A rank twice.
    #[error("rank {rank} is given twice, on lines {first} and {second}; remove one of them")]
    RankTwice {
        /// The rank.
        rank: u32,
        /// Line of the first.
        first: u32,
        /// Line of the second.
        second: u32,
    },
    /// A rank missing.
    #[error("no line for rank {rank}, but one for rank {highest}; every rank from 0 on needs a line")]
    RankMissing {
        /// The rank.
        rank: u32,
        /// The highest rank of the file.
        highest: u32,
    },
}

/// ` (did you mean X?)`, or nothing.
pub(crate) fn did_you_mean(hint: Option<&str>) -> String {
    hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default()
}

fn but_found(word: &str) -> String {
    if word.is_empty() { ", found the end of the line".to_owned() } else { format!(", found '{word}'") }
}
