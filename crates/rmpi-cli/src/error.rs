//! The one error of this crate: text for the user, exit code 2. No source file names, no lists of guesses.

use rmpi_plan::HostsError;
use thiserror::Error;

/// A command line that cannot be used; nothing was started. One or two lines, to be printed after `rmpirun: `.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct CliError {
    /// What happened, where, what to do.
    pub message: String,
}

impl CliError {
    /// The process's exit code: 2.
    pub const EXIT: u8 = rmpi_types::exit::USAGE;

    /// The stable name of this kind of error (`docs/exit-codes.md`).
    pub const ID: &'static str = "E-USAGE";

    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl From<HostsError> for CliError {
    fn from(e: HostsError) -> Self {
        match e.pointer() {
            // Continuation lines begin with two spaces.
            Some(p) if e.line > 0 => {
                let indented: Vec<String> = p.lines().map(|l| format!("  {l}")).collect();
                Self::new(format!("{e}\n{}", indented.join("\n")))
            }
            _ => Self::new(e.to_string()),
        }
    }
}
