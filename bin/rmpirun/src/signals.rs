//! The user's signals: blocked in every thread, taken one by one by a thread of their own, passed to the job.
//! A signal that was ignored when we were started stays ignored (`nohup`, a script's `&`).

use nix::sys::signal::{SigSet, Signal};
use rmpi_launch::Control;
use std::io;

/// The third SIGINT leaves at once; the daemons clean up by themselves.
const INTERRUPTS_MAX: u32 = 3;

/// Passed to the job; what each means there is the job's business.
const TAKEN: [Signal; 10] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Blocks what will be taken. Must be called before any thread is started.
pub(crate) fn block() -> SigSet {
    let ignored = ignored_mask();
    let is_ignored = |s: Signal| ignored >> (s as u64 - 1) & 1 == 1;
    let mut set: SigSet = TAKEN.into_iter().filter(|&s| !is_ignored(s)).collect();
    // Not even a script's `&` can make SIGTERM mean nothing.
    set.add(Signal::SIGTERM);
    if set.thread_block().is_err() {
        set = SigSet::empty();
    }
    set
}

/// The mask of ignored signals, bit 0 for signal 1 (`proc_pid_status(5)`).
fn ignored_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Starts the thread.
///
/// # Errors
/// No thread is to be had.
pub(crate) fn forward(set: SigSet, job: Control) -> io::Result<()> {
    let take = move || {
        let mut interrupts = 0;
        while let Ok(signal) = set.wait() {
            interrupts += u32::from(signal == Signal::SIGINT);
            if interrupts >= INTERRUPTS_MAX {
                std::process::exit(rmpi_launch::types::exit::of_signal(signal as i32).into());
            }
            job.signal(signal as i32);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(take).map(drop)
}
