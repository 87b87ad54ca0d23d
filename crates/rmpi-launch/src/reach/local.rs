//! This machine: the daemon is a child process with two pipes, started before anything else is done: as a
//! program, or forked off this one by [`crate::Job::run_here`]; or it is this process.

use super::{Target, Task, greet, report};
use crate::driver::{Carrier, Channel, Input};
use crate::job::{Config, Daemon};
use nix::fcntl::{FcntlArg, fcntl};
use rmpi_control::LinkKind;
use rmpi_daemon::{Forked, Joined};
use rmpi_types::{LaunchFault, Stage};
use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// What the pipe of a daemon's frames holds, so that neither end need wait for each step of the other.
const PIPE: i32 = 256 << 10;

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
        Some(Daemon::Here(joined)) => Ok(Local::Here(joined)),
        None => spawn(config),
    };
    let (node, control) = (target.node, control.clone());
    Box::pin(async move {
        let result = match spawned.and_then(connect) {
            Ok((carrier, keep)) => greeted(carrier).await.map(|carrier| channel(carrier, keep, alone)),
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
    Apart { to: OwnedFd, from: OwnedFd, keep: Keep },
    /// In this process.
    Here(Joined),
}

fn spawn(config: &Config) -> io::Result<Local> {
    let mut command = config.image.local_command()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (to, from) = pipes.ok_or_else(|| io::Error::other("no pipes to it"))?;
    Ok(Local::Apart { to: to.into(), from: from.into(), keep: Arc::new(Reaped(Mutex::new(Some(child)))) })
}

/// What must live as long as a channel.
type Keep = Arc<dyn Any + Send + Sync>;

fn connect(local: Local) -> io::Result<(Carrier, Keep)> {
    Ok(match local {
        Local::Apart { to, from, keep } => {
            // Output of all ranks of this machine comes this way. Not everyone has a say in the size.
            let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(PIPE));
            let reader = pipe::Receiver::from_owned_fd(from)?;
            (Carrier::Stream(Box::new(reader), Box::new(pipe::Sender::from_owned_fd(to)?)), keep)
        }
        Local::Here(joined) => (Carrier::Memory(joined), Arc::new(())),
    })
}

/// Exchanges hellos with a daemon that is another process.
async fn greeted(mut carrier: Carrier) -> Result<Carrier, LaunchFault> {
    if let Carrier::Stream(reader, writer) = &mut carrier {
        greet(reader, writer).await?;
    }
    Ok(carrier)
}

/// `alone`: no other host is in the job, so only the loopback address is offered.
fn channel(carrier: Carrier, keep: Keep, alone: bool) -> Channel {
    Channel {
        carrier,
        kind: LinkKind::Pipe,
        reached_at: alone.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        durable: true,
        epitaph: None,
        keep,
    }
}
