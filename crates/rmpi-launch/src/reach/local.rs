//! This machine: the daemon is a child process with two pipes, started before anything else is done.

use super::{Target, Task, greet, report};
use crate::driver::{Channel, Input};
use crate::job::Config;
use rmpi_control::LinkKind;
use rmpi_types::{LaunchFault, Stage};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// The daemon's process: reaped when its stream is closed, however long it takes, so that an embedder is left
/// with no zombie. It ends by itself when its standard input does.
struct Reaped(Mutex<Option<Child>>);

impl Drop for Reaped {
    fn drop(&mut self) {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return };
        if matches!(child.try_wait(), Ok(None)) {
            let wait = move || drop(child.wait());
            if let Err(error) = std::thread::Builder::new().name("rmpi-reap".into()).spawn(wait) {
                tracing::debug!(%error, "cannot reap the local daemon");
            }
        }
    }
}

/// Starts the daemon now; the task exchanges hellos.
pub(super) fn start(config: &Config, target: &Target, control: &mpsc::UnboundedSender<Input>) -> Task {
    let alone = config.spec.hosts.len() <= 1;
    let spawned = spawn(config);
    let (node, control) = (target.node, control.clone());
    Box::pin(async move {
        let result = match spawned.and_then(|child| connect(child, alone)) {
            Ok(mut channel) => greet(&mut channel.reader, &mut channel.writer).await.map(|()| channel),
            Err(error) => {
                Err(LaunchFault::fatal(Stage::Daemon, format!("the daemon cannot be started here: {error}")))
            }
        };
        report(&control, node, result);
    })
}

fn spawn(config: &Config) -> io::Result<Child> {
    let mut command = config.image.local_command()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn()
}

/// `alone`: no other host is in the job, so only the loopback address is offered.
fn connect(mut child: Child, alone: bool) -> io::Result<Channel> {
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("no pipes to it"))?;
    Ok(Channel {
        reader: Box::new(pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?),
        writer: Box::new(pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?),
        kind: LinkKind::Pipe,
        reached_at: alone.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        durable: true,
        epitaph: None,
        keep: Arc::new(Reaped(Mutex::new(Some(child)))),
    })
}
