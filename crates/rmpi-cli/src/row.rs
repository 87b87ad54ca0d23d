//! The shape of the option table: one static [`Row`] an option. Rows are made by the constructors here, so that
//! what a row takes and what it does with it cannot disagree. Behaviour of single options lives in `table`.

use crate::draft::Target;
use crate::personality::Personality;
use std::ffi::OsString;
use std::time::Duration;

/// Result of a setter: the second half of a message, after the option.
pub(crate) type Set = Result<(), String>;

/// What an active option does with its values.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// No value.
    Flag(fn(&mut Target<'_>) -> Set),
    /// A number of at least 1.
    Count(fn(&mut Target<'_>, u32) -> Set),
    /// A time, maybe zero.
    Time(fn(&mut Target<'_>, Duration) -> Set),
    /// Any bytes.
    Os(fn(&mut Target<'_>, OsString) -> Set),
    /// UTF-8.
    Text(fn(&mut Target<'_>, &str) -> Set),
    /// Two values, or one `NAME=VALUE`.
    Pair(fn(&mut Target<'_>, OsString, OsString) -> Set),
}

/// How many arguments an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// None.
    Flag,
    /// One, as the next argument or after `=`.
    One,
    /// One if the next argument does not begin with a dash.
    Optional,
    /// `NAME VALUE` or `NAME=VALUE`.
    Pair,
    /// [`Arity::Pair`], but one of `fill openmpi all none` alone (`--env`).
    PairOrMode,
}

/// What an option is about in a command line of several programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole job, wherever it stands.
    Job,
    /// The program it precedes.
    App,
    /// The program it precedes, but all programs of a job must agree.
    Placement,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It does something.
    Active,
    /// Accepted with its arguments; nothing is done, nothing printed.
    Ignored,
    /// Accepted with its arguments; the note is printed.
    Noted(&'static str),
    /// An error with this text.
    Refused(&'static str),
}

/// Chapters of the help (`--help TOPIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// How many ranks, on which hosts.
    Hosts,
    /// Mapping, ranking, binding.
    Placement,
    /// Environment, directory, program.
    Environment,
    /// Standard input and output.
    Output,
    /// Getting onto the hosts.
    Ssh,
    /// Interfaces, ports and rails.
    Network,
    /// Time limits and failures.
    Limits,
    /// Seeing what is done.
    Info,
    /// horovodrun's own.
    Horovod,
    /// torchrun's own.
    Torch,
    /// Options of other launchers.
    Compat,
}

impl Topic {
    /// All, in the order of the help.
    pub const ALL: [Self; 11] = [
        Self::Hosts,
        Self::Placement,
        Self::Environment,
        Self::Output,
        Self::Ssh,
        Self::Network,
        Self::Limits,
        Self::Info,
        Self::Horovod,
        Self::Torch,
        Self::Compat,
    ];

    /// The word after `--help`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Placement => "placement",
            Self::Environment => "environment",
            Self::Output => "output",
            Self::Ssh => "ssh",
            Self::Network => "network",
            Self::Limits => "limits",
            Self::Info => "info",
            Self::Horovod => "horovod",
            Self::Torch => "torch",
            Self::Compat => "compat",
        }
    }

    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Hosts => "Ranks and hosts",
            Self::Placement => "Mapping, ranking and binding",
            Self::Environment => "Environment, working directory and program",
            Self::Output => "Standard input and output",
            Self::Ssh => "Getting onto the hosts",
            Self::Network => "Interfaces, ports and rails",
            Self::Limits => "Time limits and failures",
            Self::Info => "Information",
            Self::Horovod => "Options of horovodrun",
            Self::Torch => "Options of torchrun",
            Self::Compat => "Options of other launchers",
        }
    }
}

/// One option.
#[derive(Clone, Copy)]
pub struct Row {
    /// Canonical name without dashes, words joined by `-`.
    pub name: &'static str,
    /// Other spellings, in the same form.
    pub aliases: &'static [&'static str],
    /// Arguments it takes.
    pub arity: Arity,
    /// Name of the argument in the help; empty without one.
    pub value: &'static str,
    /// What it is about.
    pub scope: Scope,
    /// The only personality that has this row, before rows for all.
    pub only: Option<Personality>,
    /// What becomes of it.
    pub behaviour: Behaviour,
    /// Chapter.
    pub topic: Topic,
    /// One sentence or two.
    pub help: &'static str,
    pub(crate) act: Option<Act>,
}

/// An active row that takes what `act` takes. `value` names the argument (empty for flags).
pub(crate) const fn row(
    topic: Topic,
    name: &'static str,
    aliases: &'static [&'static str],
    value: &'static str,
    act: Act,
    help: &'static str,
) -> Row {
    let arity = match act {
        Act::Flag(_) => Arity::Flag,
        Act::Pair(_) => Arity::Pair,
        Act::Count(_) | Act::Time(_) | Act::Os(_) | Act::Text(_) => Arity::One,
    };
    Row {
        name,
        aliases,
        arity,
        value,
        scope: Scope::Job,
        only: None,
        behaviour: Behaviour::Active,
        topic,
        help,
        act: Some(act),
    }
}

/// A row that does nothing: ignored, noted or refused.
pub(crate) const fn idle(
    name: &'static str,
    aliases: &'static [&'static str],
    arity: Arity,
    behaviour: Behaviour,
) -> Row {
    let value = match arity {
        Arity::Flag => "",
        Arity::One | Arity::Optional => "VALUE",
        Arity::Pair | Arity::PairOrMode => "NAME VALUE",
    };
    Row {
        name,
        aliases,
        arity,
        value,
        scope: Scope::Job,
        only: None,
        behaviour,
        topic: Topic::Compat,
        help: "",
        act: None,
    }
}

impl Row {
    /// Belongs to the program it precedes.
    pub(crate) const fn app(mut self) -> Self {
        self.scope = Scope::App;
        self
    }

    /// Belongs to the program it precedes, and all programs must agree.
    pub(crate) const fn placement(mut self) -> Self {
        self.scope = Scope::Placement;
        self
    }

    /// Exists in one personality only.
    pub(crate) const fn only(mut self, personality: Personality) -> Self {
        self.only = Some(personality);
        self
    }

    /// Takes other arguments than the constructor thinks.
    pub(crate) const fn arity(mut self, arity: Arity) -> Self {
        self.arity = arity;
        self
    }

    /// All spellings, the canonical one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// A name with its dashes as it is mostly written: one before a letter, two before a word.
pub(crate) fn dashed(name: &str) -> String {
    if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") }
}
