//! The guard: the daemon's outer process. It forks the worker and does nothing but wait; when the worker is
//! gone, however it ended, the guard ends everything below itself and leaves with the worker's code. The
//! worker watches the guard through a pipe and does the same for its own descendants. Both are subreapers:
//! what the worker leaves behind is handed to the guard by the kernel.
//!
//! It must stay small and single-threaded: no runtime, no protocol, nothing that could fail.

use crate::watch::Watch;
use crate::{family, sys};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, pipe2, setsid};
use rmpi_types::RankEnd;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// Tells a daemon that its host is being shut down: ranks get SIGTERM.
pub(crate) const HOST_ENDS: Signal = Signal::SIGPWR;

/// How long the guard tries to end what the worker left behind.
const LIMIT: Duration = Duration::from_secs(8);

/// Splits this process in two.
///
/// In the worker: calls `worker` with a descriptor that is at end of file when the guard is gone, and returns
/// its code. In the guard: closes `control`, waits for the worker, ends what is left, and returns the
/// worker's code.
///
/// # Errors
/// What `pipe`, `prctl` or `fork` say; nothing was started then.
pub(crate) fn split(
    control: (OwnedFd, OwnedFd),
    worker: impl FnOnce((OwnedFd, OwnedFd), OwnedFd) -> u8,
) -> io::Result<u8> {
    set_child_subreaper(true)?;
    let (watch, held) = pipe2(OFlag::O_CLOEXEC)?;
    let Some(pid) = sys::fork()? else {
        drop(held);
        set_child_subreaper(true)?;
        // Out of reach of the terminal's signals; a fresh child is no group leader, so this cannot fail.
        let _ = setsid();
        return Ok(worker(control, watch));
    };
    drop((watch, control));
    ignore_everything();
    let code = match wait(pid) {
        Ok(RankEnd::Exited(code)) => code,
        Ok(RankEnd::Signaled { signal, .. }) => rmpi_types::exit::of_signal(signal),
        Err(_) => rmpi_types::exit::INTERNAL,
    };
    // The worker's children have become ours.
    family::end_all(LIMIT, |_| {});
    drop(held);
    Ok(code)
}

/// Waits for the worker's end, which comes too when somebody stops it for long.
fn wait(worker: i32) -> io::Result<RankEnd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.add(HOST_ENDS);
    let happened = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut watch = Watch::new(worker);
    loop {
        if let Some(end) = watch.look()? {
            return Ok(end);
        }
        match poll(&mut [PollFd::new(happened.as_fd(), PollFlags::POLLIN)], watch.left()) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(info) = happened.read_signal()? {
            if info.ssi_signo == HOST_ENDS as u32 {
                let _ = kill(Pid::from_raw(worker), HOST_ENDS);
            }
        }
    }
}

/// The guard ends by the worker's end or by SIGKILL only.
fn ignore_everything() {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    sys::default_action(Signal::SIGCHLD);
}
