//! What goes in ([`Sources`]) and what comes out ([`Parsed`]).

use crate::personality::Personality;
use rmpi_types::JobSpec;
use rmpi_types::spec::EnvMap;
use std::ffi::{OsStr, OsString};
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
    /// Runs a program with arguments and gives what it prints: a host discovery script, `srun --version`.
    pub run: &'a dyn Fn(&[&OsStr]) -> io::Result<Vec<u8>>,
    /// Whether a program is in our search path.
    pub have: &'a dyn Fn(&str) -> bool,
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
    /// What to write down, tell and show while the job runs and after it.
    pub show: Show,
    /// Signals passed to the job beside the usual ones.
    pub signals: SignalRules,
    /// Notes for standard error, each after `rmpirun: note: `; empty under `-q`.
    pub notes: Vec<String>,
    /// The dialect that was used.
    pub personality: Personality,
}

impl Command {
    /// Everything that is not as it is without options, `name=value` each: what `--dry-run` shows.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        crate::settings::lines(self)
    }
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
    /// Each node's CPUs as its daemon sees them.
    pub topology: bool,
    /// A line a rank with host, pid and program, once all run.
    pub proctable: bool,
    /// Fields after `name=` instead of tables.
    pub parseable: bool,
    /// On standard output, where Open MPI has it.
    pub stdout: bool,
}

/// What to write down, tell and show while the job runs and after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Events as JSON lines (`--events`).
    pub events: Option<PathBuf>,
    /// A Chrome trace of launch, run and end (`--timeline`).
    pub timeline: Option<PathBuf>,
    /// The outcome as one JSON object (`--summary`).
    pub summary: Option<PathBuf>,
    /// Where our process id is written (`--report-pid`).
    pub pid: Option<Where>,
    /// Progress of the launch.
    pub progress: Progress,
    /// Every rank's exit code at the end (`--print-all-exitcodes`).
    pub exit_codes: bool,
    /// Sentences of another launcher that test suites look for (`RMPIRUN_COMPAT_TEXT`).
    pub compat: CompatText,
}

/// Where a line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// `-`.
    Stdout,
    /// `+`.
    Stderr,
    /// A file.
    File(PathBuf),
}

/// Progress of the launch (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// On a terminal, when it takes long.
    #[default]
    Auto,
    /// A line a step, at once.
    Plain,
    /// None.
    Off,
}

/// Another launcher's sentences about failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompatText {
    /// Ours alone.
    #[default]
    None,
    /// Open MPI's too.
    OpenMpi,
    /// MPICH's too.
    Mpich,
}

/// Which signals are passed to the job (`--forward-signals`, `--signals-to-handle`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalRules {
    /// Signals passed on; `None` is the usual set.
    pub forward: Option<Vec<i32>>,
    /// Signals that end the job; `None` is HUP, INT and TERM.
    pub handle: Option<Vec<i32>>,
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
