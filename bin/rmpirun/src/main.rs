//! The command: understand, launch, report. Everything real is in the crates; here are the process's own
//! matters only: which personality it was called by, signals, log, exit code. Nothing of ours goes to stdout
//! but what was asked for there (help, version).
#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

mod dry;
mod follow;
mod log;
mod printer;
mod progress;
mod run;
mod signals;
mod sources;
#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
mod start;
mod termination;

use rmpi_cli::{CliError, Command, Parsed};
use rmpi_launch::types::exit;
use rmpi_launch::{DaemonSource, StartError};
use std::ffi::OsString;
use std::io::{self, Write as _};

/// The daemon for the hosts: a packaged build carries it, any other takes the file beside it, else itself.
#[cfg(embedded_daemon)]
const DAEMON: DaemonSource = DaemonSource::Bytes(include_bytes!(concat!(env!("OUT_DIR"), "/rmpid")));
#[cfg(not(embedded_daemon))]
const DAEMON: DaemonSource = DaemonSource::ThisExecutable;

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    run_program().into()
}

/// Does what the command line asks for; gives the exit code.
fn run_program() -> u8 {
    let mut args = std::env::args_os().peekable();
    let argv0 = args.next().unwrap_or_else(|| "rmpirun".into());
    if args.next_if(|word| word == rmpi_daemon::HIDDEN_WORD).is_some() {
        return rmpi_daemon::main(args);
    }
    let words: Vec<OsString> = args.collect();
    let loud = log::asked_for(&words);
    match sources::understand(argv0, words) {
        Ok(Parsed::Print { text }) => print(&text),
        Ok(Parsed::Run(command)) => rmpi_launch::leave(run(*command)),
        Err(error) => {
            let text = rmpi_launch::report::lines(&error.message);
            say(&text);
            if loud {
                say(&format!("rmpirun: error {}\n", CliError::ID));
            }
            say(&format!("rmpirun: exit code {}\n", CliError::EXIT));
            termination::leave(&text, CliError::EXIT);
            CliError::EXIT
        }
    }
}

/// Runs the job, or shows what it would be; gives the exit code.
fn run(command: Command) -> u8 {
    log::start(command.log);
    if !command.job.output.quiet {
        command.notes.iter().for_each(|note| say_note(note));
    }
    if command.display.dry_run { dry::run(&command) } else { run::run(&command) }
}

fn failed(error: &StartError) -> u8 {
    let code = match error {
        StartError::NoProgram => exit::USAGE,
        StartError::File(code, _) => *code,
        StartError::System(_) => exit::INTERNAL,
    };
    say(&format!("rmpirun: {error}\nrmpirun: exit code {code}\n"));
    code
}

fn say_note(text: &str) {
    say(&note_line(text));
}

fn note_line(text: &str) -> String {
    format!("rmpirun: note: {}\n", rmpi_launch::report::sanitize(text))
}

/// One write to stderr, so that lines of ours and of ranks do not mix.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Text that was asked for; a reader that went away is no failure.
fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => 0,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => 141,
        Err(_) => exit::INTERNAL,
    }
}
