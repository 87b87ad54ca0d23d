//! Processes of a test: run under a deadline, and found again by what their environment says.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a command printed and how it ended, or that it had to be killed.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; 128 + N for a signal.
    pub code: i32,
    /// Everything on standard output.
    pub stdout: Vec<u8>,
    /// Standard error, lossy.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Standard output, lossy.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or does not end within `limit` (it is then killed); the panic shows its output.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let (finished, timed_out) = attempt(command, limit);
    assert!(
        !timed_out,
        "{command:?} did not end within {limit:?}\nstdout: {}\nstderr: {}",
        finished.out(),
        finished.stderr
    );
    finished
}

/// Runs a command for at most `limit`; says whether it had to be killed then.
///
/// # Panics
/// When it cannot be started.
pub fn attempt(command: &mut Command, limit: Duration) -> (Finished, bool) {
    use std::os::unix::process::ExitStatusExt;
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (output, timed_out) = collect(child.expect("the command starts"), limit);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    (Finished { code, stdout: output.stdout, stderr, took: start.elapsed() }, timed_out)
}

/// Reads a child to its end, killing it after `limit`; says whether that was needed.
fn collect(mut child: Child, limit: Duration) -> (Output, bool) {
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let timed_out = !ends_within(&mut child, limit);
    if timed_out {
        let _ = child.kill();
    }
    let status = child.wait().expect("the child can be waited for");
    let read =
        |t: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| t.join().expect("reader").unwrap_or_default();
    (Output { status, stdout: read(out), stderr: read(err) }, timed_out)
}

/// Whether the child ends within `limit`.
pub fn ends_within(child: &mut Child, limit: Duration) -> bool {
    until(limit, || matches!(child.try_wait(), Ok(Some(_))))
}

/// Polls a condition that no event announces (another host's process table) until it holds or `limit` passes.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// One line for each process whose initial environment holds `NAME=value`.
#[must_use]
pub fn with_env(name: &str, value: &str) -> Vec<String> {
    let wanted = format!("{name}={value}");
    processes()
        .filter(|p| {
            std::fs::read(p.join("environ"))
                .is_ok_and(|e| e.split(|&b| b == 0).any(|v| v == wanted.as_bytes()))
        })
        .filter_map(|p| describe(&p))
        .collect()
}

/// The `/proc` folders of all processes.
pub fn processes() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .map(|e| e.path())
}

/// `pid: command line`; `None` for a process that is gone or a zombie.
#[must_use]
pub fn describe(proc: &std::path::Path) -> Option<String> {
    let words = std::fs::read(proc.join("cmdline")).ok().filter(|c| !c.is_empty())?;
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(format!("{}: {}", proc.file_name()?.to_string_lossy(), text.trim_end()))
}
