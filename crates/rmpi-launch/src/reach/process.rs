//! A command started on another host, however it was started: its streams, and what it leaves behind when it
//! ends, for faults and quoted.

use super::agent::{self, Agent};
use rmpi_ssh::RemoteProcess;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;

/// Bytes of a stderr that are kept.
const KEPT: usize = 4 << 10;
/// How long a command that has closed its output may take to end before it counts as running.
const SETTLE: Duration = Duration::from_millis(500);

/// The streams of a started command.
pub(crate) struct Process {
    /// Its standard input.
    pub(crate) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub(crate) stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it says when it ends.
    pub(crate) words: Arc<Words>,
    /// The address of the host, if known.
    pub(crate) peer: Option<IpAddr>,
}

/// A command's last words. Holds what must live as long as the command: dropping it kills an agent.
#[derive(Debug)]
pub(crate) struct Words {
    stderr: Mutex<VecDeque<u8>>,
    ended: watch::Sender<Option<String>>,
    agent: Option<agent::Child>,
}

impl Words {
    fn new(agent: Option<agent::Child>) -> Arc<Self> {
        Arc::new(Self { stderr: Mutex::default(), ended: watch::Sender::new(None), agent })
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }

    /// How it ended, if it has, and its last line on stderr: `exit code 255: "Permission denied"`.
    pub(crate) fn now(&self) -> Option<String> {
        let ended = self.ended.borrow().clone().or_else(|| self.agent.as_ref()?.ended());
        let kept: Vec<u8> =
            self.stderr.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        // What `set -x` and kubectl say of every host, good or bad, explains nothing.
        let noise = |l: &str| l.is_empty() || l.starts_with("+ ") || l.starts_with("Defaulted container");
        let line = text.lines().map(str::trim).rfind(|l| !noise(l));
        match (ended, line) {
            (Some(ended), Some(line)) => Some(format!("{ended}: \"{line}\"")),
            (Some(ended), None) => Some(ended),
            (None, Some(line)) => Some(format!("it says: \"{line}\"")),
            (None, None) => None,
        }
    }

    /// The same, after giving a command that has closed its output a moment to end.
    pub(crate) async fn settled(&self) -> Option<String> {
        let mut ended = self.ended.subscribe();
        let _ = tokio::time::timeout(SETTLE, ended.wait_for(Option::is_some)).await;
        self.now()
    }
}

/// Keeps the tail of a stderr, then waits for the end. Holds no strong reference while waiting.
fn watch_end(
    words: &Arc<Words>,
    mut stderr: impl AsyncRead + Send + Unpin + 'static,
    end: impl Future<Output = String> + Send + 'static,
) {
    let words = Arc::downgrade(words);
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
            let Some(words) = words.upgrade() else { return };
            words.keep(&buffer[..n]);
        }
        let end = end.await;
        if let Some(words) = words.upgrade() {
            words.ended.send_replace(Some(end));
        }
    });
}

impl Process {
    /// A command on an SSH connection.
    pub(super) fn of_ssh(process: RemoteProcess, peer: Option<IpAddr>) -> Self {
        let RemoteProcess { stdin, stdout, stderr, exit } = process;
        let words = Words::new(None);
        watch_end(&words, stderr, async { exit.await.to_string() });
        Self { stdin: Box::new(stdin), stdout: Box::new(stdout), words, peer }
    }

    /// An agent's command.
    pub(super) fn of_agent(agent: Agent) -> Self {
        let Agent { stdin, stdout, stderr, child } = agent;
        let ended = child.watch();
        let words = Words::new(Some(child));
        watch_end(&words, stderr, ended);
        let stdin: Box<dyn AsyncWrite + Send + Unpin> = match stdin {
            Some(stdin) => Box::new(stdin),
            None => Box::new(tokio::io::sink()),
        };
        Self { stdin, stdout: Box::new(stdout), words, peer: None }
    }
}
