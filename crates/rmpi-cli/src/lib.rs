//! Command lines of `rmpirun` and of the launchers it stands in for: one table of options ([`table`]), a
//! pre-pass that splits a command line by that table, clap for the typed values, and what it all means: a
//! [`rmpi_types::JobSpec`]. Pure: the environment, files and standard input come in through [`Sources`], and
//! what the user is told goes out as values. A further option is a further row of the table.
//!
//! ```
//! use rmpi_cli::{Parsed, Sources, parse};
//! let env = Default::default();
//! let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
//! let no_stdin = || Ok(Vec::new());
//! let sources = Sources {
//!     env: &env,
//!     read_file: &no_file,
//!     read_stdin: &no_stdin,
//!     run: &|_| Err(std::io::ErrorKind::NotFound.into()),
//!     have: &|_| false,
//!     cwd: "/home/me".into(),
//!     argv0: "rmpirun".into(),
//! };
//! let args = ["-np", "2", "--host", "n1:2", "./train", "-np", "x"].map(Into::into).to_vec();
//! let Parsed::Run(command) = parse(args, &sources)? else { unreachable!() };
//! assert_eq!(command.job.apps[0].np, Some(2));
//! assert_eq!(command.job.apps[0].args, ["-np", "x"]);
//! # Ok::<(), rmpi_cli::CliError>(())
//! ```

#![forbid(unsafe_code)]

mod allocation;
mod appfile;
mod command;
mod completions;
mod draft;
mod error;
mod finish;
mod help;
mod horovod_config;
mod man;
mod mca;
mod output;
mod parse;
mod pattern;
mod personality;
mod placement;
mod pod;
mod prepass;
mod resolve;
mod row;
mod settings;
mod signal;
mod ssh_args;
mod suggest;
pub mod table;
mod tune;
mod typed;
mod values;
mod vars;

pub use command::{
    Command, CompatText, Display, LogLevel, LogSettings, Parsed, Progress, Show, SignalRules, Sources, Where,
};
pub use error::CliError;
pub use help::options_markdown;
pub use parse::parse;
pub use personality::Personality;
pub use row::{Arity, Behaviour, Row, Scope, Topic};

#[cfg(test)]
mod tests;
