//! A job of this machine alone: launcher and worker are one process, and the process that the user started stays
//! behind as its guard. Two programs' starts, a fork and every hop between launcher and daemon are saved, and the
//! promise is the same: whichever of the two is killed, the other ends everything below itself.
//!
//! The guard is what the shell and the terminal know. It takes the user's signals and passes them on, stops when
//! the worker says so, and ends with the worker's exit code; the worker is in a session of its own, out of the
//! terminal's reach.

use crate::joined::Joined;
use crate::node::{self, FileLimit, Survey};
use crate::topo::Caches;
use crate::uplink::Carrier;
use crate::watch::{STOPPED, Watch};
use crate::{entry, family, sys, worker};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getpid, pipe2, setsid, write};
use rmpi_types::RankEnd;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{Empty, Sink};

/// How long the guard tries to end what the worker left behind.
const SWEEP: Duration = Duration::from_secs(8);

/// Where the worker leaves its exit code, and one more. A counter and no pipe: who writes to a pipe is taken to sleep
/// next, so that the reader would wait for this process's end on the same CPU.
static TELL: OnceLock<EventFd> = OnceLock::new();

/// Ends this process. A guard that [`guarded`] left behind ends with the same code at once, while the kernel still
/// takes this process's memory apart: there must be no child any more.
pub fn leave(code: u8) -> ! {
    if let Some(tell) = TELL.get() {
        // A guard that is gone needs no code.
        let _ = tell.write(u64::from(code) + 1);
        sys::exit_at_once(code);
    }
    std::process::exit(code.into())
}

/// This process as the worker of a job of this machine, under the guard that [`guarded`] left behind.
#[derive(Debug)]
pub struct Here {
    guard: i32,
    alive: OwnedFd,
    signals: OwnedFd,
    files: FileLimit,
}

/// Forks. The child returns from here and runs the job; the calling process becomes its guard and never returns:
/// it ends with the child's exit code. `signals` must be blocked; the guard passes them on.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] when this process has more than one thread; what `pipe` and `fork` say.
pub fn guarded(signals: &SigSet) -> io::Result<Here> {
    entry::one_thread()?;
    let guard = getpid().as_raw();
    let (alive, held) = pipe2(OFlag::O_CLOEXEC)?;
    let (taken, pass) = pipe2(OFlag::O_CLOEXEC)?;
    let code = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    set_child_subreaper(true)?;
    if let Some(worker) = sys::fork()? {
        drop((alive, taken));
        let code = Guard { worker, pass, code, _held: held }.watch(*signals);
        sys::exit_at_once(code);
    }
    sys::warm();
    drop((held, pass));
    // Nobody else sets it: this process has just begun.
    let _ = TELL.set(code);
    set_child_subreaper(true)?;
    // A fresh child is no group leader, so this cannot fail.
    let _ = setsid();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::rename(c"rmpid");
    Ok(Here { guard, alive, signals: taken, files: node::raise_files() })
}

impl Here {
    /// The user's signals, a byte each, and the end of file when the guard is gone.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn signals(&self) -> io::Result<OwnedFd> {
        self.signals.try_clone()
    }

    /// The process that the user knows, to be stopped when the job is suspended.
    #[must_use]
    pub fn guard(&self) -> i32 {
        self.guard
    }

    /// Serves the launcher, as [`crate::main`] does, to the end of its frames or of the guard. Must be awaited on
    /// the process's main thread in a `LocalSet`. Every child that this process has is reaped here. `caches` says
    /// whether ranks are placed by caches, `identity` whether this node has to be told apart from others.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn serve(self, caches: bool, identity: bool, launcher: Joined) -> io::Result<()> {
        let caches = if caches { Caches::Read } else { Caches::Assumed };
        let up = Carrier::<Empty, Sink>::Memory(launcher);
        worker::serve(up, self.alive, self.files, Survey { caches, identity }).await
    }
}

/// The guard's side.
struct Guard {
    worker: i32,
    /// Signals to the worker.
    pass: OwnedFd,
    /// The exit code it leaves, as [`TELL`] has it.
    code: EventFd,
    /// Open for as long as the guard lives.
    _held: OwnedFd,
}

impl Guard {
    /// Waits for the worker's end and sees to it that nothing is left; the exit code.
    fn watch(self, mut signals: SigSet) -> u8 {
        sys::default_action(Signal::SIGCHLD);
        signals.add(Signal::SIGCHLD);
        // Ends by the worker's end or by SIGKILL only.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
        let mut watch = Watch::new(self.worker);
        let end = match self.wait(&signals, &mut watch) {
            Ok(End::Left(code)) => return code,
            Ok(End::Gone(end)) => Ok(end),
            Err(error) => Err(error),
        };
        // What the worker has left behind has become ours.
        family::end_all(SWEEP, |_| {});
        match end {
            Ok(RankEnd::Exited(code)) => code,
            Ok(RankEnd::Signaled { signal, .. }) if watch.gave_up() => {
                lost(&format!("was stopped for {} s (then ended by signal {signal})", STOPPED.as_secs()))
            }
            Ok(RankEnd::Signaled { signal, .. }) => lost(&format!("was killed by signal {signal}")),
            Err(error) => lost(&format!("cannot be watched: {error}")),
        }
    }

    fn wait(&self, signals: &SigSet, watch: &mut Watch) -> io::Result<End> {
        let fd = SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        loop {
            let end = watch.look()?;
            // What it has left before its end is there by now.
            if let Ok(left) = self.code.read() {
                return Ok(End::Left(u8::try_from(left - 1).unwrap_or(rmpi_types::exit::INTERNAL)));
            }
            if let Some(end) = end {
                return Ok(End::Gone(end));
            }
            while let Some(info) = fd.read_signal()? {
                let number = info.ssi_signo;
                if number != Signal::SIGCHLD as u32 {
                    // A worker that is not there any more has been seen, or will be.
                    let _ = write(&self.pass, &[u8::try_from(number).unwrap_or(0)]);
                }
            }
            let mut ready = [&fd.as_fd(), &self.code.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
            match poll(&mut ready, watch.left()) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// How the worker ended.
enum End {
    /// It has no child any more and left this code.
    Left(u8),
    /// Without a word.
    Gone(RankEnd),
}

fn lost(how: &str) -> u8 {
    entry::complain(&io::Error::other(format!("the process that ran the job {how}; all ranks were stopped")));
    rmpi_types::exit::NODE_LOST
}
