//! The first process of a container: what daemons leave behind becomes its child and must be reaped, and the whole
//! container dies with it. So that process does only that, and the server is its child: signals are passed on, and
//! after the server's end daemons get the time they need to end their ranks.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long processes may take to end after the server has.
const LEFT: Duration = Duration::from_secs(15);

/// When this is the first process of its namespace: runs the same command line as a child and gives its exit code
/// when everything has ended. `None` in any other process.
///
/// # Errors
/// A line saying what could not be started.
pub(crate) fn run_if_first() -> Result<Option<i32>, String> {
    let cannot = |what: &str, e: String| format!("cannot {what}: {e}");
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    if std::process::id() != 1 {
        // The first process blocks them, and its child inherits that.
        signals.thread_unblock().map_err(|e| cannot("take signals", e.to_string()))?;
        return Ok(None);
    }
    signals.thread_block().map_err(|e| cannot("take signals", e.to_string()))?;
    let taken = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| cannot("take signals", e.to_string()))?;
    let own = std::env::current_exe().map_err(|e| cannot("find ourselves", e.to_string()))?;
    let child = Command::new(own).args(std::env::args_os().skip(1)).spawn();
    let child = child.map_err(|e| cannot("start the server", e.to_string()))?;
    let server =
        Pid::from_raw(i32::try_from(child.id()).map_err(|e| cannot("start the server", e.to_string()))?);
    let mut code: Option<(i32, Instant)> = None;
    loop {
        let mut wait = PollTimeout::NONE;
        if let Some((code, until)) = code {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(code));
            }
            wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        }
        let _ = poll(&mut [PollFd::new(taken.as_fd(), PollFlags::POLLIN)], wait);
        while let Ok(Some(info)) = taken.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            if let Some(signal) = signal.filter(|s| *s != Signal::SIGCHLD) {
                let _ = kill(server, signal);
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == server => {
                    code = Some((status, Instant::now() + LEFT))
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == server => {
                    code = Some((128 + signal as i32, Instant::now() + LEFT));
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(_) => return Ok(Some(code.map_or(1, |(code, _)| code))),
            }
        }
    }
}
