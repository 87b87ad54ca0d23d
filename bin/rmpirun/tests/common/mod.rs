//! Running the real command under a deadline, with nothing of the caller's environment that it would read.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Nothing here takes longer on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What a run left.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The command, its standard input empty.
pub(crate) fn rmpirun<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    // A test run in the background, or under nohup, ignores signals that are to mean something here.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,QUIT", env!("CARGO_BIN_EXE_rmpirun")]);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["OMPI_", "PRTE_", "HYDRA_", "SLURM_", "PBS_", "RMPI"].iter().any(|p| text.starts_with(p)) {
            command.env_remove(&name);
        }
    }
    command
}

/// A shell script on `ranks` ranks of this machine.
pub(crate) fn ranks(ranks: u32, script: &str) -> Command {
    rmpirun(["-np", &ranks.to_string(), "--oversubscribe", "sh", "-c", script])
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Run {
    finish(command.spawn().expect("rmpirun starts"))
}

/// Waits for the end of a started command, reading what it writes.
pub(crate) fn finish(mut child: Child) -> Run {
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    let status = wait(child);
    let take = |r: Option<mpsc::Receiver<Vec<u8>>>| {
        r.map(|r| r.recv_timeout(DEADLINE).expect("output ends with the command")).unwrap_or_default()
    };
    let stdout = take(stdout);
    Run { status, stdout, stderr: String::from_utf8_lossy(&take(stderr)).into_owned() }
}

fn reader(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = tx.send(bytes);
    });
    rx
}

/// Waits under the deadline; a command that misses it is killed and the test fails.
pub(crate) fn wait(mut child: Child) -> ExitStatus {
    let pid = child.id();
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || drop(tx.send(child.wait())));
    match rx.recv_timeout(DEADLINE) {
        Ok(status) => status.expect("waiting works"),
        Err(_) => {
            signal(pid, "KILL");
            panic!("rmpirun did not end within {DEADLINE:?}");
        }
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {pid}");
}

/// Feeds bytes to a command's standard input on a thread.
pub(crate) fn feed(child: &mut Child, bytes: Vec<u8>) {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    thread::spawn(move || {
        // A command that does not read its input is no failure.
        let _ = stdin.write_all(&bytes);
    });
}

/// Reads lines of a pipe until one starts with `prefix`.
pub(crate) fn read_until(pipe: &mut impl Read, prefix: &str) -> String {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        assert_eq!(pipe.read(&mut byte).expect("the pipe can be read"), 1, "end of output before {prefix:?}");
        if byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        } else if line.starts_with(prefix) {
            return line;
        } else {
            line.clear();
        }
    }
}
