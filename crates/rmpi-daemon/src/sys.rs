//! Thin wrappers over system calls that have no safe form elsewhere: fork of the guard, reaping with any
//! signal number, adopting inherited descriptors. Nothing here decides anything.
#![allow(unsafe_code, reason = "fork, waitpid and descriptors inherited by number")]

use nix::libc;
use rmpi_types::RankEnd;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One reaped child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// Its process id.
    pub pid: i32,
    /// How it ended.
    pub end: RankEnd,
}

/// What [`reap_any`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// A child ended.
    One(Reaped),
    /// Children are left, none has ended.
    Running,
    /// There is no child, and so, in a subreaper, no descendant.
    NoChild,
}

/// Reaps one ended child, adopted ones included, without waiting.
#[must_use]
pub(crate) fn reap_any() -> Reap {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) } {
            0 => return Reap::Running,
            -1 if interrupted() => {}
            -1 => return Reap::NoChild,
            pid => {
                if let Some(end) = end_of(status) {
                    return Reap::One(Reaped { pid, end });
                }
            }
        }
    }
}

/// Waits until this child ends; `None` when there is no such child.
#[must_use]
pub(crate) fn wait_for(pid: i32) -> Option<Reaped> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } {
            -1 if interrupted() => {}
            -1 => return None,
            pid => {
                if let Some(end) = end_of(status) {
                    return Some(Reaped { pid, end });
                }
            }
        }
    }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

fn end_of(status: i32) -> Option<RankEnd> {
    if libc::WIFEXITED(status) {
        Some(RankEnd::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))
    } else if libc::WIFSIGNALED(status) {
        Some(RankEnd::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) })
    } else {
        None
    }
}

/// Forks. Must be called while the process has one thread: the child may then do anything.
///
/// # Errors
/// What `fork` says.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller has one thread, so no lock can be held by another at this moment.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Sends a signal of any number to a process, or with a negative `pid` to a process group. Whether it was
/// delivered; a process that is gone is no error.
pub(crate) fn send_signal(pid: i32, signal: i32) -> bool {
    // SAFETY: plain numbers; 0, -1 and 1 (everything, the init process) are refused here.
    pid != 0 && pid != -1 && pid != 1 && unsafe { libc::kill(pid, signal) } == 0
}

/// Takes ownership of a descriptor that a start protocol put at this number; `None` when it is not open.
///
/// # Safety-relevant rule
/// Called once per number, at the start, before anything else could own it.
#[must_use]
pub(crate) fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and per the rule above nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Restores a signal's default action: an ignored SIGCHLD, which a parent may hand down, would make the
/// kernel reap children behind our back.
pub(crate) fn default_action(signal: nix::sys::signal::Signal) {
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
}
