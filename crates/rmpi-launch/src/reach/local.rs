//! This machine: the daemon is a child process with two pipes, started before anything else is done: as a
//! program, or forked off this one by [`crate::Job::run_here`]; or it is this process.

use super::{Target, Task, greet, report};
use crate::driver::{Channel, Input};
use crate::job::{Config, Daemon};
use rmpi_control::LinkKind;
use rmpi_daemon::Forked;
use rmpi_types::{LaunchFault, Stage};
use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
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

/// Starts the daemon now, unless that is done already; the task exchanges hellos.
pub(super) fn start(config: &Config, target: &Target, control: &mpsc::UnboundedSender<Input>) -> Task {
    let alone = config.spec.hosts.len() <= 1;
    let started = config.daemon.lock().unwrap_or_else(PoisonError::into_inner).take();
    let spawned = match started {
        Some(Daemon::Forked(Forked { to, from })) => Ok(Local::Apart { to, from, keep: Arc::new(()) }),
        Some(Daemon::Here(stream)) => Ok(Local::Here(stream)),
        None => spawn(config),
    };
    let (node, control) = (target.node, control.clone());
    Box::pin(async move {
        let result = match spawned.and_then(|local| connect(local, alone)) {
            Ok(mut channel) => greet(&mut channel.reader, &mut channel.writer).await.map(|()| channel),
            Err(error) => {
                Err(LaunchFault::fatal(Stage::Daemon, format!("the daemon cannot be started here: {error}")))
            }
        };
        report(&control, node, result);
    })
}

/// A daemon on this machine.
enum Local {
    /// Its streams, and what lives as long as they.
    Apart { to: OwnedFd, from: OwnedFd, keep: Arc<dyn Any + Send + Sync> },
    /// In this process.
    Here(DuplexStream),
}

fn spawn(config: &Config) -> io::Result<Local> {
    let mut command = config.image.local_command()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (to, from) = pipes.ok_or_else(|| io::Error::other("no pipes to it"))?;
    Ok(Local::Apart { to: to.into(), from: from.into(), keep: Arc::new(Reaped(Mutex::new(Some(child)))) })
}

/// `alone`: no other host is in the job, so only the loopback address is offered.
fn connect(local: Local, alone: bool) -> io::Result<Channel> {
    let (reader, writer, keep): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>, _) =
        match local {
            Local::Apart { to, from, keep } => (
                Box::new(pipe::Receiver::from_owned_fd(from)?),
                Box::new(pipe::Sender::from_owned_fd(to)?),
                keep,
            ),
            Local::Here(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Box::new(reader), Box::new(writer), Arc::new(()))
            }
        };
    Ok(Channel {
        reader,
        writer,
        kind: LinkKind::Pipe,
        reached_at: alone.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        durable: true,
        epitaph: None,
        keep,
    })
}
