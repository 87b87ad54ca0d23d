//! Names and meanings of signals, for messages. Numbers are Linux's on x86-64 and aarch64.

/// `(number, name, meaning)`, as `strsignal(3)` words them, lower case.
const TABLE: &[(i32, &str, &str)] = &[
    (1, "SIGHUP", "hangup"),
    (2, "SIGINT", "interrupt"),
    (3, "SIGQUIT", "quit"),
    (4, "SIGILL", "illegal instruction"),
    (5, "SIGTRAP", "trace trap"),
    (6, "SIGABRT", "aborted"),
    (7, "SIGBUS", "bus error"),
    (8, "SIGFPE", "floating point exception"),
    (9, "SIGKILL", "killed"),
    (10, "SIGUSR1", "user defined signal 1"),
    (11, "SIGSEGV", "segmentation fault"),
    (12, "SIGUSR2", "user defined signal 2"),
    (13, "SIGPIPE", "broken pipe"),
    (14, "SIGALRM", "alarm clock"),
    (15, "SIGTERM", "terminated"),
    (16, "SIGSTKFLT", "stack fault"),
    (17, "SIGCHLD", "child exited"),
    (18, "SIGCONT", "continued"),
    (19, "SIGSTOP", "stopped"),
    (20, "SIGTSTP", "stopped from the terminal"),
    (21, "SIGTTIN", "terminal input in the background"),
    (22, "SIGTTOU", "terminal output in the background"),
    (23, "SIGURG", "urgent I/O condition"),
    (24, "SIGXCPU", "CPU time limit exceeded"),
    (25, "SIGXFSZ", "file size limit exceeded"),
    (26, "SIGVTALRM", "virtual timer expired"),
    (27, "SIGPROF", "profiling timer expired"),
    (28, "SIGWINCH", "window changed"),
    (29, "SIGIO", "I/O possible"),
    (30, "SIGPWR", "power failure"),
    (31, "SIGSYS", "bad system call"),
];

/// `SIGTERM`, or `signal 40` for one without a name.
#[must_use]
pub fn name(signal: i32) -> String {
    let row = TABLE.iter().find(|row| row.0 == signal);
    row.map_or_else(|| format!("signal {signal}"), |row| row.1.to_owned())
}

/// `signal 11 (segmentation fault)`.
#[must_use]
pub fn described(signal: i32) -> String {
    let row = TABLE.iter().find(|row| row.0 == signal);
    row.map_or_else(|| format!("signal {signal}"), |row| format!("signal {signal} ({})", row.2))
}
