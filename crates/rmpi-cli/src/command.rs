//! What goes in ([`Sources`]) and what comes out ([`Parsed`]).

use crate::personality::Personality;
use rmpi_types::JobSpec;
use rmpi_types::spec::EnvMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Everything a command line may refer to besides itself.
#[derive(Clone)]
pub struct Sources<'a> {
    /// The environment.
    pub env: &'a EnvMap,
    /// Reads a host file, rank file or app file; the path has been joined to `cwd`.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Reads standard input to its end, for a host file called `-`.
    pub read_stdin: &'a dyn Fn() -> io::Result<Vec<u8>>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The name the program was called with.
    pub argv0: OsString,
}

/// A command line understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A job to run.
    Run(Box<Command>),
    /// Text for standard output (help, version); then exit 0.
    Print {
        /// The text, with its last newline.
        text: String,
    },
}

/// A job and what the command itself does beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// The job.
    pub job: JobSpec,
    /// Our own messages.
    pub log: LogSettings,
    /// What to show of the plan.
    pub display: Display,
    /// Notes for standard error, each after `rmpirun: note: `; empty under `-q`.
    pub notes: Vec<String>,
    /// The dialect that was used.
    pub personality: Personality,
}

/// What to show on standard error besides the job's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// Stop after planning (`--dry-run`, `--do-not-launch`).
    pub dry_run: bool,
    /// The table of ranks and nodes.
    pub map: bool,
    /// Hosts and their slots.
    pub allocation: bool,
    /// A line a rank with its CPUs.
    pub bindings: bool,
}

/// Our own log (`--log`, `--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important level shown.
    pub level: LogLevel,
    /// JSON lines instead of text.
    pub json: bool,
}

/// Levels of the log, each with all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// What may go wrong.
    #[default]
    Warn,
    /// What is being done (`-v`).
    Info,
    /// Launcher internals (`-d`).
    Debug,
    /// Every frame.
    Trace,
}
