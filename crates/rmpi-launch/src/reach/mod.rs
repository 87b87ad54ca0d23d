//! Getting a control stream to every host: directly on this machine, through an agent command, or by SSH. One
//! task a host; each attempt has stages with deadlines of their own, passing faults are tried again with a
//! growing pause, and at most `concurrency` hosts are in their handshakes at once.

mod agent;
mod back;
mod local;
pub(crate) mod pods;
mod process;
mod remote;

use crate::driver::{Channel, Input};
use crate::hosts;
use crate::job::Config;
use ring::rand::{SecureRandom as _, SystemRandom};
use rmpi_types::spec::Host;
use rmpi_types::{LaunchFault, NodeIdx, Stage};
use rmpi_wire::Hello;
use rmpi_wire::hello::{self, Role};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// A daemon that was started answers within this time.
const HELLO: Duration = Duration::from_secs(10);

/// A host to reach; its index in the list is its [`NodeIdx`].
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeIdx,
    /// Index into the specification's hosts.
    pub(crate) index: usize,
    pub(crate) host: Host,
    /// Reached without any remote shell.
    pub(crate) local: bool,
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The hosts the job needs, as far as that is known before any has reported.
///
/// # Errors
/// The planner's words when the job cannot be placed whatever the hosts report.
pub(crate) fn targets(config: &Config) -> Result<Vec<Target>, String> {
    let spec = &config.spec;
    if spec.hosts.is_empty() {
        let host = Host { name: hosts::own_name(), ..Host::default() };
        let local = hosts::needs_no_way(&spec.reach);
        return Ok(vec![Target { node: NodeIdx(0), index: 0, host, local }]);
    }
    let here: Vec<usize> =
        (0..spec.hosts.len()).filter(|&i| hosts::is_this_machine(&spec.hosts[i], &spec.reach)).collect();
    let needed = crate::plan::hosts_needed(spec, &here)?;
    let target = |(node, index): (u32, usize)| Target {
        node: NodeIdx(node),
        index,
        host: spec.hosts[index].clone(),
        local: here.binary_search(&index).is_ok(),
    };
    Ok((0..).zip(needed).map(target).collect())
}

/// Where a job needs daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// On this machine, and nowhere else.
    OnlyHere,
    /// On this machine and on others.
    HereToo,
    /// Not on this machine, or nowhere.
    Elsewhere,
}

/// Where this job does.
pub(crate) fn where_needed(config: &Config) -> Needed {
    match targets(config) {
        Ok(targets) if targets.is_empty() => Needed::Elsewhere,
        Ok(targets) if targets.iter().all(|t| t.local) => Needed::OnlyHere,
        Ok(targets) if targets.iter().any(|t| t.local) => Needed::HereToo,
        Ok(_) | Err(_) => Needed::Elsewhere,
    }
}

/// One task a host. What is local is spawned before this returns.
pub(crate) fn start(
    config: &Arc<Config>,
    targets: &[Target],
    control: &mpsc::UnboundedSender<Input>,
    deadline: Instant,
) -> Vec<Task> {
    let (here, far): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(|t| t.local);
    let mut tasks: Vec<Task> = here.iter().map(|t| local::start(config, t, control)).collect();
    if !far.is_empty() {
        tasks.extend(remote::start(config, &far, control, deadline));
    }
    tasks
}

/// Tells the driver how an attempt to reach a host for good ended.
fn report(control: &mpsc::UnboundedSender<Input>, node: NodeIdx, result: Result<Channel, LaunchFault>) {
    let _ = control.send(match result {
        Ok(channel) => Input::Up { node, channel: Box::new(channel) },
        Err(fault) => Input::GiveUp { node, fault },
    });
}

/// Exchanges hellos on a stream that has nothing but the daemon behind it.
async fn greet(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), LaunchFault> {
    let fault = |what: String| LaunchFault::fatal(Stage::Daemon, what);
    let exchange = async {
        let ours = Hello::ours(Role::Launcher, random()?).encode();
        writer.write_all(&ours).await.map_err(|e| format!("the daemon takes no hello: {e}"))?;
        writer.flush().await.map_err(|e| format!("the daemon takes no hello: {e}"))?;
        let mut bytes = [0; hello::LEN];
        reader.read_exact(&mut bytes).await.map_err(|_| "the daemon ended before its hello".to_owned())?;
        Hello::decode(&bytes).map_err(|e| e.to_string())
    };
    match tokio::time::timeout(HELLO, exchange).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(what)) => Err(fault(what)),
        Err(_) => Err(fault(format!("no hello of the daemon within {} s", HELLO.as_secs()))),
    }
}

fn random() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}
