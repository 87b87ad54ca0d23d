//! `train`: data-parallel training of a small classifier, the worker of the README's main job.
//!
//! Every rank holds the whole model and a share of each global batch. Gradients are summed with our own
//! allreduce, bucket by bucket while the backward pass still runs. Standard output carries results only;
//! trouble goes to standard error and ends the rank with exit code 2 (bad input) or 1 (everything else).

mod args;
mod checkpoint;
mod data;
mod idx;
mod model;
mod ranks;
mod sgd;
mod trainer;

use std::io::Write;
use std::process::ExitCode;

/// Why training cannot go on.
#[derive(Debug, thiserror::Error)]
enum TrainError {
    /// Options, data or checkpoint are not usable; the text names them.
    #[error("{0}")]
    Input(String),
    /// The other ranks cannot be reached.
    #[error("{0}")]
    Ranks(String),
    /// Results cannot be written.
    #[error("{what}: {source}")]
    Write {
        /// The file or stream.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).collect();
    let options = match args::parse(words) {
        Ok(args::Parsed::Train(options)) => options,
        Ok(args::Parsed::Help) => {
            let shown = std::io::stdout().write_all(args::HELP.as_bytes());
            return if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(e) => return fail(&e),
    };
    match trainer::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(error: &TrainError) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "train: {error}");
    ExitCode::from(if matches!(error, TrainError::Input(_)) { 2 } else { 1 })
}
