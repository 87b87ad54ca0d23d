//! Thin wrappers over system calls that have no safe form elsewhere: fork of the guard, reaping with any
//! signal number, adopting inherited descriptors. Nothing here decides anything.
#![allow(unsafe_code, reason = "fork, waitpid and descriptors inherited by number")]

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signalfd::SignalFd;
use rmpi_types::RankEnd;
use rmpi_types::launch::Window;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
                if libc::WIFSTOPPED(status) {
                    leave_stopped(pid);
                }
            }
        }
    }
}

/// Lets go of a child that we trace and that has come to its first instruction: it stays stopped, as by SIGSTOP, until
/// somebody continues it. Must be called by the thread that started it (ptrace(2)).
fn leave_stopped(pid: i32) {
    // SAFETY: detaching takes no memory of ours; the last argument is a signal's number.
    unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            pid,
            std::ptr::null_mut::<libc::c_void>(),
            libc::SIGSTOP as *mut libc::c_void,
        )
    };
}

/// Waits until this child ends; `None` when there is no such child.
#[cfg(test)]
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

/// What a child was seen doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has ended, and is reaped.
    Ended(RankEnd),
    /// It was stopped.
    Stopped,
    /// It was continued.
    Continued,
    /// Nothing new.
    Same,
}

/// Looks at a child without waiting.
///
/// # Errors
/// That it is no child.
pub(crate) fn look_at(pid: i32) -> io::Result<Look> {
    let mut status = 0;
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL;
    // SAFETY: `status` is ours.
    match unsafe { libc::waitpid(pid, &raw mut status, options) } {
        0 => Ok(Look::Same),
        -1 if interrupted() => Ok(Look::Same),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFSTOPPED(status) => Ok(Look::Stopped),
        _ if libc::WIFCONTINUED(status) => Ok(Look::Continued),
        _ => Ok(end_of(status).map_or(Look::Same, Look::Ended)),
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

/// Ends this process without any of the steps that a program takes at its end: what its memory holds is gone with it,
/// and each page that is touched on the way costs more than the step. Nothing may be left to be written.
pub(crate) fn exit_at_once(code: u8) -> ! {
    // SAFETY: runs no code of this process.
    unsafe { libc::_exit(code.into()) }
}

/// Makes the pages ready that a process touches next one by one: the stack it is on, and the heap as far as it has been
/// asked for. After a fork they are shared with the parent or not there yet, and a fault for each costs some ten times
/// what it costs to make all of them ready at once.
pub(crate) fn warm() {
    /// What a launch uses of the stack below here and has used above.
    const STACK: [usize; 2] = [40 << 10, 12 << 10];
    /// What the C library asks the kernel for at once, and what it has given out before.
    const HEAP: usize = 132 << 10;
    let page = page();
    let here = std::ptr::from_ref(&page).addr();
    // SAFETY: asks where the heap ends, moves nothing.
    let end = unsafe { libc::sbrk(0) }.addr();
    for (from, to) in [(here - STACK[0], here + STACK[1]), (end.saturating_sub(HEAP), end)] {
        populate(from / page * page, to.next_multiple_of(page));
    }
}

/// Makes the pages of a range of addresses ready to be written, as far as it is mapped. Both ends are pages' borders, or
/// nothing happens.
pub(crate) fn populate(from: usize, to: usize) {
    // SAFETY: changes no byte of any page. Where the range is not all mapped, or the kernel older than 5.14, it says so,
    // and nothing is lost.
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(from),
            to.saturating_sub(from),
            libc::MADV_POPULATE_WRITE,
        )
    };
}

/// Bytes of a page.
pub(crate) fn page() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// Sends a signal of any number to a process, or with a negative `pid` to a process group. Whether it was
/// delivered; a process that is gone is no error.
pub(crate) fn send_signal(pid: i32, signal: i32) -> bool {
    // SAFETY: plain numbers; 0, -1 and 1 (everything, the init process) are refused here.
    pid != 0 && pid != -1 && pid != 1 && unsafe { libc::kill(pid, signal) } == 0
}

/// Bytes in a pipe that nobody has read, asked at either end; 0 where the kernel does not say.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> u32 {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which `count` is.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) } == 0;
    if done { u32::try_from(count).unwrap_or(0) } else { 0 }
}

/// The kernel's form of a window's size.
pub(crate) fn winsize(window: Window) -> libc::winsize {
    libc::winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The size of a terminal; `None` for what is none.
pub(crate) fn window(fd: BorrowedFd<'_>) -> Option<Window> {
    let mut size = winsize(Window::default());
    // SAFETY: TIOCGWINSZ writes one `winsize`, which `size` is.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } == 0;
    done.then_some(Window { rows: size.ws_row, columns: size.ws_col })
}

/// Gives a terminal another size.
pub(crate) fn resize(fd: BorrowedFd<'_>, window: Window) {
    let size = winsize(window);
    // SAFETY: TIOCSWINSZ reads one `winsize`.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}

/// A copy of a descriptor at `lowest` or above that closes on exec.
///
/// # Errors
/// What `fcntl` says (not open, too many open).
pub(crate) fn keep(fd: BorrowedFd<'_>, lowest: i32) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: just made, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Closes all descriptors from `first` up, which this process inherited and nothing in it owns: an inherited
/// end of another daemon's control stream would keep that from ever ending. Only at the very start.
pub(crate) fn close_from(first: u32) {
    // SAFETY: nothing has been opened yet, so no owner's descriptor is closed.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    let Ok(dir) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|&fd| u32::try_from(fd).is_ok_and(|fd| fd >= first)) {
        // SAFETY: as above; the directory's own descriptor is closed already, a second close is EBADF.
        unsafe { libc::close(fd) };
    }
}

/// Lets the runtime watch a descriptor for reading and writing.
///
/// # Errors
/// What `epoll` says.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has the same number and stays open for as long as the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Lets the runtime watch for signals.
///
/// # Errors
/// What `epoll` says.
pub(crate) fn watch_signals(fd: SignalFd) -> io::Result<AsyncFd<SignalFd>> {
    // SAFETY: as in `watch`: a `SignalFd` is an `OwnedFd` inside.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Gives this process another name, and for its command line that name alone: who ends launchers by name must
/// not end the daemons that clean up after them. Only while there is one thread.
pub(crate) fn rename(name: &std::ffi::CStr) {
    unsafe extern "C" {
        /// The C library's pointer to the first argument, where the kernel has put it.
        static program_invocation_name: *mut std::ffi::c_char;
    }
    let _ = nix::sys::prctl::set_name(name);
    // The kernel puts arguments one after the other, each with its NUL.
    let bytes: usize = std::env::args_os().map(|arg| arg.len() + 1).sum();
    // SAFETY: set before `main` and not written since: this program has no other C code.
    let first = unsafe { program_invocation_name };
    let name = name.to_bytes();
    if first.is_null() || bytes <= name.len() {
        return;
    }
    // SAFETY: the arguments' `bytes` bytes begin at `first`, are ours to write, and nobody reads them now.
    unsafe {
        std::ptr::write_bytes(first, 0, bytes);
        std::ptr::copy_nonoverlapping(name.as_ptr().cast(), first, name.len());
    }
}

/// Ignores a signal.
pub(crate) fn ignore(signal: nix::sys::signal::Signal) {
    // SAFETY: no code of ours runs.
    let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) };
}

/// Restores a signal's default action: an ignored SIGCHLD, which a parent may hand down, would make the
/// kernel reap children behind our back.
pub(crate) fn default_action(signal: nix::sys::signal::Signal) {
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
}
