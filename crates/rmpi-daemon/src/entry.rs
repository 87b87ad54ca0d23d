//! The daemon's first steps: hold the control stream, close what was inherited by accident, split in two.

use crate::dialling::{self, DIAL_WORD, Dialling};
use crate::{guard, sys, worker};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// First word by which another program of ours is told to be the daemon.
pub const HIDDEN_WORD: &str = "__rmpid";

/// The lowest number for descriptors we keep.
const KEPT: i32 = 32;

/// Runs the daemon. `args` are the words after the program's name (and after [`HIDDEN_WORD`]): none when the control
/// stream is on standard input and output, `dial-back KEY ADDRESS:PORT,...` when the daemon is to dial a launcher
/// that holds this key; gives the exit code. Must be called first thing, while the process has one thread and has opened
/// nothing: descriptors above 2 are closed.
pub fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    match args.next() {
        None => serve(),
        Some(word) if word == DIAL_WORD => match Dialling::read(args) {
            Ok(dialling) => dial(&dialling),
            Err(error) => wrong(&error),
        },
        Some(word) => wrong(&io::Error::other(format!("unexpected argument {}", word.display()))),
    }
}

fn wrong(error: &io::Error) -> u8 {
    complain(error);
    rmpi_types::exit::USAGE
}

/// Runs the daemon of a launcher that is dialled; the exit code.
fn dial(dialling: &Dialling) -> u8 {
    sys::close_from(3);
    dialling::detach();
    let null = || open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    let split = || {
        let (input, unused) = (null()?, null()?);
        dup2_stdin(&input)?;
        guard::split((input, unused), |_, guard| worker::dialled(dialling, guard))
    };
    split().unwrap_or_else(|error| {
        complain(&error);
        rmpi_types::exit::INTERNAL
    })
}

/// Runs the daemon with the control stream on standard input and output; the exit code.
fn serve() -> u8 {
    sys::close_from(3);
    let code = take_control().and_then(|control| guard::split(control, worker::main));
    code.unwrap_or_else(|error| {
        complain(&error);
        rmpi_types::exit::INTERNAL
    })
}

/// The launcher's ends of the control stream of a daemon that was forked off it.
#[derive(Debug)]
pub struct Forked {
    /// What is written here the daemon reads.
    pub to: OwnedFd,
    /// What the daemon writes.
    pub from: OwnedFd,
}

/// Forks the daemon off this process, which saves the time of starting a program: for a launcher that is the
/// same program and does nothing else. The child takes nothing along but standard error and the environment,
/// and is called `rmpid`. It is not waited for: it ends when its stream does.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] when this process has more than one thread; what `pipe` and `fork` say.
pub fn fork() -> io::Result<Forked> {
    one_thread()?;
    let (theirs_in, to) = pipe2(OFlag::O_CLOEXEC)?;
    let (from, theirs_out) = pipe2(OFlag::O_CLOEXEC)?;
    if sys::fork()?.is_some() {
        return Ok(Forked { to, from });
    }
    let begun = dup2_stdin(theirs_in).and_then(|()| dup2_stdout(theirs_out)).map_err(io::Error::from);
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::rename(c"rmpid");
    // All descriptors above 2 are closed by number: their owners must not close them again.
    std::mem::forget((to, from));
    let code = begun.map_or_else(
        |error| {
            complain(&error);
            rmpi_types::exit::INTERNAL
        },
        |()| serve(),
    );
    std::process::exit(code.into())
}

/// Whether this process may fork and go on as it likes.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] when it has more than one thread; what the kernel says.
pub(crate) fn one_thread() -> io::Result<()> {
    // Two links and one for each thread.
    match std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("/proc/self/task")?) {
        3 => Ok(()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// What the standard library does before `main`, for a program that begins without it: descriptors 0, 1 and 2 are open,
/// and writing to a reader that is gone is an error and no signal. Must be called first thing.
pub fn begin() {
    for closed in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        if fcntl(closed, FcntlArg::F_GETFD).is_err() {
            // The lowest number that is free: this one.
            let null = open("/dev/null", OFlag::O_RDWR, Mode::empty());
            std::mem::forget(null);
        }
    }
    sys::ignore(Signal::SIGPIPE);
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
