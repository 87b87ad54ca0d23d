//! Processes of a test: run under a deadline, and found again by what their environment says.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// It gets a process group of its own and the whole group is killed: what `nsenter` has started does not die with it,
/// and would hold our ends of the pipes open for ever.
///
/// # Panics
/// When it cannot be started.
pub fn attempt(command: &mut Command, limit: Duration) -> (Finished, bool) {
    let start = Instant::now();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().expect("the command starts");
    let stdout = Gathered::from(child.stdout.take().expect("stdout is piped"));
    let stderr = Gathered::from(child.stderr.take().expect("stderr is piped"));
    let ended = || stdout.is_whole() && stderr.is_whole();
    let timed_out = !(ends_within(&mut child, limit) && until(limit.saturating_sub(start.elapsed()), ended));
    if timed_out {
        kill(group(&child));
        until(READERS, ended);
    }
    let status = child.wait().expect("the child can be waited for");
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let stderr = String::from_utf8_lossy(&stderr.take()).into_owned();
    (Finished { code, stdout: stdout.take(), stderr, took: start.elapsed() }, timed_out)
}

/// How long a killed command's output is still read: a process that left its group may hold the pipe for ever.
const READERS: Duration = Duration::from_secs(5);

/// How long a job of a test may take that has no limit of its own to prove.
pub const LIFE: Duration = Duration::from_secs(180);

/// A child in a process group of its own that is killed, with its group, at a deadline and when it is dropped, so that
/// neither a job that hangs nor a test that panics holds the others up.
#[derive(Debug)]
pub struct Job {
    child: Child,
    /// Dropped, it calls the watch off.
    _watch: Sender<()>,
}

/// Starts a job that may take `limit`.
///
/// # Panics
/// When it cannot be started.
pub fn start(command: &mut Command, limit: Duration) -> Job {
    let child = command.process_group(0).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (watch, called_off) = channel();
    let group = group(&child);
    std::thread::spawn(move || {
        if called_off.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            kill(group);
        }
    });
    Job { child, _watch: watch }
}

impl Deref for Job {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Not once it was waited for: its number may belong to somebody else then.
        if let Ok(None) = self.child.try_wait() {
            kill(group(&self.child));
            let _ = self.child.wait();
        }
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process number"))
}

fn kill(group: Pid) {
    // It fails when all have ended in between, which is as good.
    let _ = killpg(group, Signal::SIGKILL);
}

/// What a thread has read from a pipe so far.
#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<(Vec<u8>, bool)>>);

impl Gathered {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let gathered = Self::default();
        let ours = gathered.clone();
        std::thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                ours.lock().0.extend_from_slice(&piece[..n]);
            }
            ours.lock().1 = true;
        });
        gathered
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_whole(&self) -> bool {
        self.lock().1
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().0)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_command_has_started_cannot_hold_a_test_up() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; sleep 314159 & echo two; wait"]);
        let (done, timed_out) = attempt(&mut shell, Duration::from_millis(300));
        assert!(timed_out);
        assert_eq!((done.out().as_str(), done.code), ("one\ntwo\n", 137));
        let left: Vec<_> =
            processes().filter_map(|p| describe(&p)).filter(|d| d.ends_with("sleep 314159")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
