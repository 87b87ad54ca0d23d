//! Other hosts: attempts by SSH or through an agent command, tried again while that may help.

use super::agent::Agent;
use super::process::Process;
use super::{Target, Task, greet, report};
use crate::bootstrap::{DaemonImage, Found, Look, remote_command, start_daemon};
use crate::driver::{Channel, Input};
use crate::job::Config;
use rmpi_control::LinkKind;
use rmpi_ssh::Connector;
use rmpi_ssh::retry::backoff;
use rmpi_types::{LaunchFault, NodeIdx, Stage};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Pushing and starting the daemon takes no longer than this.
const START: Duration = Duration::from_secs(60);

/// What all hosts' tasks share.
struct Shared {
    config: Arc<Config>,
    /// `None` when an agent is used.
    connector: Option<Connector>,
    permits: Semaphore,
    deadline: Instant,
}

/// One task a host.
pub(super) fn start(
    config: &Arc<Config>,
    far: &[&Target],
    control: &mpsc::UnboundedSender<Input>,
    deadline: Instant,
) -> Vec<Task> {
    let reach = &config.spec.reach;
    let ask = || if config.prompt { rmpi_ssh::auth::ask_on_terminal() } else { None };
    let shared = Arc::new(Shared {
        connector: reach.agent.is_none().then(|| Connector::new(reach, ask())),
        permits: Semaphore::new(reach.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
        config: Arc::clone(config),
        deadline,
    });
    let task =
        |t: &&Target| -> Task { Box::pin(reach_host(Arc::clone(&shared), (*t).clone(), control.clone())) };
    far.iter().map(task).collect()
}

/// Attempts until one succeeds or no further one would help.
async fn reach_host(shared: Arc<Shared>, target: Target, control: mpsc::UnboundedSender<Input>) {
    let mut last: Option<LaunchFault> = None;
    for tries in 1.. {
        tokio::time::sleep(backoff(tries - 1)).await;
        let result = {
            // The semaphore is never closed.
            let _permit = shared.permits.acquire().await;
            attempt(&shared, &target, tries, last.as_ref(), &control).await
        };
        match result {
            Err(fault) if shared.again(&fault, tries) => last = Some(fault),
            result => return report(&control, target.node, result),
        }
    }
}

impl Shared {
    /// Whether another attempt is worth its time: names that do not resolve yet, refused connections and busy
    /// servers until the launch limit, other passing faults a few times.
    fn again(&self, fault: &LaunchFault, tries: u32) -> bool {
        let patient = match fault.stage {
            Stage::Name => true,
            Stage::Tcp => fault.what.contains("refused"),
            Stage::Ssh => !fault.what.contains("within"),
            _ => false,
        };
        let allowed = patient || tries < self.config.spec.reach.connect_retries.max(1);
        fault.retry && allowed && Instant::now() + backoff(tries) < self.deadline
    }
}

async fn attempt(
    shared: &Shared,
    target: &Target,
    tries: u32,
    last: Option<&LaunchFault>,
    control: &mpsc::UnboundedSender<Input>,
) -> Result<Channel, LaunchFault> {
    let node: NodeIdx = target.node;
    let tell = control.clone();
    let last = last.cloned();
    let on_stage = move |stage| drop(tell.send(Input::Reaching { node, stage, tries, last: last.clone() }));
    let image = shared.config.image.remote().map_err(daemon_fault)?;
    let host = &target.host;
    let session = match &shared.connector {
        None => None,
        Some(connector) => {
            let ssh = rmpi_ssh::Target { host: host.name.clone(), user: host.user.clone(), port: host.port };
            Some(connector.connect(&ssh, &on_stage).await?)
        }
    };
    let mut look = Look::Quick;
    loop {
        let command = remote_command(&image, look).map_err(|e| daemon_fault(e.to_string()))?;
        on_stage(Stage::Shell);
        let process = match &session {
            None => {
                let words = shared.config.spec.reach.agent.as_deref().unwrap_or_default();
                Process::of_agent(Agent::start(words, host, &command)?)
            }
            Some(session) => Process::of_ssh(session.exec(&command).await?, session.peer_ip()),
        };
        on_stage(Stage::Daemon);
        match begin(process, &image, shared.deadline.min(Instant::now() + START)).await {
            Err((fault, Some(Found::ByName))) if look == Look::Quick => {
                tracing::info!(host = host.name, %fault, "what has the daemon's name is not it");
                look = Look::Close;
            }
            result => return result.map_err(|(fault, _)| fault),
        }
    }
}

fn daemon_fault(what: String) -> LaunchFault {
    LaunchFault::fatal(Stage::Daemon, what)
}

/// Gets the daemon running behind a shell and exchanges hellos with it. A fault tells how the command ended, and
/// comes with what the daemon was recognised by if it was there.
async fn begin(
    mut process: Process,
    image: &DaemonImage,
    deadline: Instant,
) -> Result<Channel, (LaunchFault, Option<Found>)> {
    let started = match start_daemon(&mut process.stdin, &mut process.stdout, image, deadline).await {
        Ok(found) => {
            greet(&mut process.stdout, &mut process.stdin).await.map_err(|fault| (fault, Some(found)))
        }
        Err(fault) => Err((fault, None)),
    };
    if let Err((fault, found)) = started {
        let what = match process.words.settled().await {
            Some(words) => format!("{}; {words}", fault.what),
            None => fault.what,
        };
        return Err((LaunchFault { what, ..fault }, found));
    }
    let words = Arc::clone(&process.words);
    Ok(Channel {
        reader: process.stdout,
        writer: process.stdin,
        kind: LinkKind::Pipe,
        reached_at: process.peer,
        durable: false,
        epitaph: Some(Box::new(move || words.now())),
        keep: process.words,
    })
}
