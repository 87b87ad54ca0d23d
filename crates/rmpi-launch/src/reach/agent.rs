//! An agent command (`ssh`, a `kubectl exec` script, `srun`): called as `agent host command`, in a process group
//! of its own, killed when nobody holds it any more.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rmpi_types::spec::Host;
use rmpi_types::{LaunchFault, Stage};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe;

/// How often an agent that has closed its stderr is asked whether it has ended.
const ASK: Duration = Duration::from_millis(5);

/// A running agent.
pub(super) struct Agent {
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    pub(super) child: Child,
}

/// The agent's process; dropping the last of these kills its process group.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: Arc<Mutex<process::Child>>,
}

impl Agent {
    /// Starts `words... [user@]host command`; where a word has `{host}` in it that is the host's place. Without
    /// `input` its standard input is empty.
    ///
    /// # Errors
    /// A fault of stage `shell` that names the agent.
    pub(super) fn start(
        words: &[OsString],
        host: &Host,
        command: &str,
        input: bool,
    ) -> Result<Self, LaunchFault> {
        let Some((program, own)) = words.split_first() else {
            return Err(LaunchFault::fatal(Stage::Shell, "the agent command is empty"));
        };
        let name = program.to_string_lossy().into_owned();
        let login = host.user.as_ref().map_or_else(|| host.name.clone(), |u| format!("{u}@{}", host.name));
        let mut agent = Command::new(program);
        const HERE: &str = "{host}";
        let mut placed = false;
        for word in own {
            match word.to_str().filter(|w| w.contains(HERE)) {
                Some(text) => {
                    agent.arg(text.replace(HERE, &login));
                    placed = true;
                }
                None => drop(agent.arg(word)),
            }
        }
        if !placed {
            agent.arg(login);
        }
        agent.arg(command).process_group(0);
        agent
            .stdin(if input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        agent.spawn().and_then(|process| Self::adopt(process, name.clone())).map_err(|e| {
            LaunchFault::fatal(Stage::Shell, format!("agent {name} cannot be started: {e}"))
                .hint("name another with --launch-exec")
        })
    }

    fn adopt(mut process: process::Child, name: String) -> io::Result<Self> {
        let (stdin, pipes) = (process.stdin.take(), (process.stdout.take(), process.stderr.take()));
        let child = Child { name, process: Arc::new(Mutex::new(process)) };
        let (Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("no pipes to it"));
        };
        Ok(Self {
            stdin: stdin.map(|end| pipe::Sender::from_owned_fd(OwnedFd::from(end))).transpose()?,
            stdout: pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?,
            stderr: pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?,
            child,
        })
    }
}

fn lock(process: &Mutex<process::Child>) -> MutexGuard<'_, process::Child> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(name: &str, process: &Mutex<process::Child>) -> Option<String> {
    let status = lock(process).try_wait().ok().flatten()?;
    Some(match status.code() {
        Some(code) => format!("agent {name} exited with {code}"),
        None => format!("agent {name} was ended: {status}"),
    })
}

impl Child {
    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        ended(&self.name, &self.process)
    }

    /// Resolves when it has ended. Meant for after its output has: it looks again and again.
    pub(super) fn watch(&self) -> impl Future<Output = String> + Send + 'static {
        let (name, process) = (self.name.clone(), Arc::downgrade(&self.process));
        async move {
            loop {
                let Some(process) = process.upgrade() else { return format!("agent {name} was killed") };
                if let Some(end) = ended(&name, &process) {
                    return end;
                }
                drop(process);
                tokio::time::sleep(ASK).await;
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut process = lock(&self.process);
        if matches!(process.try_wait(), Ok(None)) {
            if let Ok(pid) = i32::try_from(process.id()) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::Process;
    use super::*;
    use tokio::io::AsyncReadExt as _;

    fn start(script: &str) -> Process {
        let words = ["sh", "-c", script, "agent"].map(Into::into);
        let host = Host { name: "n1".into(), user: Some("me".into()), ..Host::default() };
        Process::of_agent(Agent::start(&words, &host, "the command", true).unwrap())
    }

    #[tokio::test]
    async fn is_called_with_login_and_command() {
        let mut process = start("echo $1:$2; cat");
        drop(process.stdin);
        let mut text = String::new();
        process.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "me@n1:the command\n");
    }

    #[tokio::test]
    async fn the_host_can_have_a_place_of_its_own() {
        let words = ["sh", "-c", "echo \"$@\"", "agent", "--on={host}", "sh", "-c"].map(Into::into);
        let host = Host { name: "n1".into(), ..Host::default() };
        let mut process = Process::of_agent(Agent::start(&words, &host, "cmd", true).unwrap());
        let mut text = String::new();
        process.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "--on=n1 sh -c cmd\n");
    }

    #[tokio::test]
    async fn its_end_and_last_words_are_told() {
        let mut process = start("echo one >&2; echo two >&2; exit 7");
        process.stdout.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(process.words.settled().await.unwrap(), "agent sh exited with 7: \"two\"");
        let missing =
            Agent::start(&["/no/such/agent".into()], &Host::default(), "x", true).map(drop).unwrap_err();
        assert!(
            missing.to_string().starts_with("shell: agent /no/such/agent cannot be started"),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn is_killed_when_dropped() {
        let mut process = start("echo $$; sleep 100 & wait");
        let mut pid = [0; 16];
        let n = process.stdout.read(&mut pid).await.unwrap();
        let pid = String::from_utf8_lossy(&pid[..n]).trim().to_owned();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
