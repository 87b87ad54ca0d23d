//! Starting the daemon over any byte stream that has a remote login shell behind it: an SSH channel or an
//! agent's pipes. One command line is run there; a short dialogue on its standard streams finds this exact
//! daemon in a per-user cache or takes it from us, and ends with the daemon running on the same streams.
//!
//! The shell prints marker lines (`RMPI-HOST`, `RMPI-NEED`, `RMPI-FAIL`, `RMPI-READY`), anything before them is
//! a banner. We send nothing but the daemon's bytes, and those only when asked, so that no program there can
//! read ahead into the daemon's own protocol. `dialogue` is pure, `script` is text, `drive` does the IO.

mod dialogue;
mod drive;
mod script;
#[cfg(test)]
mod tests;

pub use dialogue::{Dialogue, Ending, Step};
pub use drive::{Found, start_daemon};
pub use script::{CommandError, Look, remote_command};

use std::sync::Arc;

/// The daemon to start.
#[derive(Clone, Debug)]
pub struct DaemonImage {
    /// Where it comes from.
    pub source: ImageSource,
    /// Its arguments.
    pub words: Vec<String>,
}

/// Where a daemon comes from.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// Installed on the host at this path; `~/` is the user's home there.
    Installed(String),
    /// These bytes, pushed when the host does not have them.
    Pushed {
        /// The program.
        bytes: bytes::Bytes,
        /// Its SHA-256 in lower-case hexadecimal.
        hash: Arc<str>,
    },
}
