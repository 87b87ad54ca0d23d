//! The daemon's first steps: hold the control stream, close what was inherited by accident, split in two.

use crate::{guard, sys, worker};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// First word by which another program of ours is told to be the daemon.
pub const HIDDEN_WORD: &str = "__rmpid";

/// The lowest number for descriptors we keep.
const KEPT: i32 = 32;

/// Runs the daemon with the control stream on standard input and output. `args` are the words after the
/// program's name (and after [`HIDDEN_WORD`]); there are none to give yet. Must be called first thing, while
/// the process has one thread and has opened nothing: descriptors above 2 are closed.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    if let Some(word) = args.next() {
        complain(&io::Error::other(format!("unexpected argument {}", word.display())));
        return ExitCode::from(rmpi_types::exit::USAGE);
    }
    sys::close_from(3);
    let code = take_control().and_then(|control| guard::split(control, worker::main));
    ExitCode::from(code.unwrap_or_else(|error| {
        complain(&error);
        rmpi_types::exit::INTERNAL
    }))
}

/// Says an error on standard error: before there is a control stream, or after it.
pub(crate) fn complain(error: &io::Error) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "rmpirun: daemon: {error}");
}

/// Moves the control stream away from 0 and 1, where `/dev/null` takes its place.
fn take_control() -> io::Result<(OwnedFd, OwnedFd)> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    if fcntl(io::stderr(), FcntlArg::F_GETFD).is_err() {
        dup2_stderr(&null)?;
    }
    let input = sys::keep(io::stdin().as_fd(), KEPT)?;
    let output = sys::keep(io::stdout().as_fd(), KEPT)?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok((input, output))
}
