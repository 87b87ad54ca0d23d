//! `rmpi`: tools beside `rmpirun`. Its first word is always one of ours, while `rmpirun`'s is the user's program.
#![forbid(unsafe_code)]

mod init;
mod keygen;
mod serve;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Exit code of a wrong command line, as `rmpirun` has it.
const USAGE: u8 = 2;

/// Tools beside rmpirun.
#[derive(Debug, Parser)]
#[command(name = "rmpi", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve SSH without sshd: for worker pods, containers and loopback hosts. Public keys only
    Serve(serve::Serve),
    /// Make an ed25519 key pair: FILE (mode 0600) and FILE.pub
    Keygen(keygen::Keygen),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let wanted = !e.use_stderr();
            let _ = e.print();
            return if wanted { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let done = match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Keygen(keygen) => keygen.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            say(&format!("rmpi: {what}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error. A closed standard error is nobody's loss.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
