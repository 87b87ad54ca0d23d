//! The user's signals: blocked in every thread, taken one by one, passed to the job.
//! A signal that was ignored when we were started stays ignored (`nohup`, a script's `&`).

use nix::sys::signal::{SigSet, Signal};
use rmpi_cli::SignalRules;
use rmpi_launch::Control;

/// The third SIGINT leaves at once; the daemons clean up by themselves.
const INTERRUPTS_MAX: u32 = 3;

/// These end the job.
const ENDING: [i32; 3] = [Signal::SIGHUP as i32, Signal::SIGINT as i32, Signal::SIGTERM as i32];

/// Passed on to ranks unless `--forward-signals` names others.
const FORWARDED: [i32; 3] = [Signal::SIGUSR1 as i32, Signal::SIGUSR2 as i32, Signal::SIGALRM as i32];

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
pub(crate) fn block(rules: &SignalRules) -> SigSet {
    let ignored = rmpi_daemon::ignored_signals();
    let is_ignored = |s: Signal| ignored >> (s as u64 - 1) & 1 == 1;
    let asked = rules.forward.iter().chain(&rules.handle).flatten();
    let asked = asked.filter_map(|&n| Signal::try_from(n).ok());
    let mut set: SigSet = TAKEN.into_iter().chain(asked).filter(|&s| !is_ignored(s)).collect();
    // Not even a script's `&` can make SIGTERM mean nothing.
    set.add(Signal::SIGTERM);
    if set.thread_block().is_err() {
        set = SigSet::empty();
    }
    set
}

/// Passes a signal on; `interrupts` counts. Signals that are always forwarded are dropped where the user named
/// others; signals that the user wants to end the job do, as SIGTERM does.
pub(crate) fn forward(job: &Control, signal: i32, rules: &SignalRules, interrupts: &mut u32) {
    *interrupts += u32::from(signal == Signal::SIGINT as i32);
    if *interrupts >= INTERRUPTS_MAX {
        std::process::exit(rmpi_launch::types::exit::of_signal(signal).into());
    }
    if rules.handle.as_ref().is_some_and(|list| list.contains(&signal)) && !ENDING.contains(&signal) {
        return job.signal(Signal::SIGTERM as i32);
    }
    let optional = FORWARDED.contains(&signal);
    if optional && rules.forward.as_ref().is_some_and(|list| !list.contains(&signal)) {
        return;
    }
    job.signal(signal);
}
