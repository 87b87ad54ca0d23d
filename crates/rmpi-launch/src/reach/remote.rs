//! Other hosts: attempts by SSH or through an agent command, tried again while that may help.

use super::agent::Agent;
use super::back::{self, Desk};
use super::process::Process;
use super::{Target, Task, greet, pods, report};
use crate::bootstrap::{DaemonImage, Found, Look, remote_command, start_daemon};
use crate::driver::{Carrier, Channel, Input};
use crate::job::Config;
use rmpi_control::LinkKind;
use rmpi_ssh::Connector;
use rmpi_ssh::retry::backoff;
use rmpi_types::{LaunchFault, NodeIdx, Stage};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Pushing and starting the daemon takes no longer than this.
const START: Duration = Duration::from_secs(60);

/// Pause between attempts on pods that are not there yet: at first, while few are missing, while many are.
const PODS_FIRST: Duration = Duration::from_millis(250);
const PODS_FEW: Duration = Duration::from_millis(500);
const PODS_MANY: Duration = Duration::from_secs(2);
/// Missing pods from which on there are many.
const MANY: usize = 64;
/// When Kubernetes is first asked about a pod that does not come, and how often again.
const ASK_FIRST: Duration = Duration::from_secs(7);
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// How long a pod may refuse our key: its copy of the secret may be older than ours.
const SECRET: Duration = Duration::from_secs(15);
/// Agents without standard input that run at once: each is a session of the cluster's API server.
const AGENTS: usize = 32;

/// What all hosts' tasks share.
struct Shared {
    config: Arc<Config>,
    /// `None` when an agent is used.
    connector: Option<Connector>,
    permits: Semaphore,
    deadline: Instant,
    /// Hosts that are not up yet.
    missing: AtomicUsize,
    /// Whom to ask about pods that do not come, if there is anyone.
    kubectl: Option<&'static str>,
    /// Where daemons dial in that cannot be talked to through the agent.
    desk: Option<Arc<Desk>>,
}

/// One task a host, and one that gets the daemon ready.
pub(super) fn start(
    config: &Arc<Config>,
    far: &[&Target],
    control: &mpsc::UnboundedSender<Input>,
    deadline: Instant,
) -> Vec<Task> {
    let reach = &config.spec.reach;
    let ask = || if config.prompt { rmpi_ssh::auth::ask_on_terminal() } else { None };
    let back = reach.dial_back && reach.agent.is_some();
    let (desk, listening) = match back.then(|| Desk::open(config)).transpose() {
        Ok(open) => open.unzip(),
        Err(fault) => {
            let fail = |t: &&Target| -> Task {
                let (control, node, fault) = (control.clone(), t.node, fault.clone());
                Box::pin(async move { report(&control, node, Err(fault)) })
            };
            return far.iter().map(fail).collect();
        }
    };
    let most = if back { AGENTS } else { Semaphore::MAX_PERMITS };
    let shared = Arc::new(Shared {
        connector: reach.agent.is_none().then(|| Connector::new(reach, ask())),
        permits: Semaphore::new(reach.concurrency.clamp(1, most)),
        config: Arc::clone(config),
        deadline,
        missing: AtomicUsize::new(far.len()),
        kubectl: reach.patient.then(pods::kubectl).flatten(),
        desk: desk.clone(),
    });
    let task =
        |t: &&Target| -> Task { Box::pin(reach_host(Arc::clone(&shared), (*t).clone(), control.clone())) };
    let desk = desk.zip(listening).map(|(desk, listening)| -> Task { Box::pin(desk.serve(listening)) });
    // Read and hashed while the first hosts are still busy with the new connections. What is wrong with it is told by
    // whoever needs it.
    let config = Arc::clone(config);
    let ready: Task = Box::pin(async move { drop(config.image.remote()) });
    far.iter().map(task).chain(desk).chain([ready]).collect()
}

/// Attempts until one succeeds or no further one would help.
async fn reach_host(shared: Arc<Shared>, target: Target, control: mpsc::UnboundedSender<Input>) {
    let mut last: Option<LaunchFault> = None;
    let mut refused_since = None;
    let mut asked = Asked { next: Instant::now() + ASK_FIRST, said: None };
    for tries in 1.. {
        tokio::time::sleep(shared.pause(tries - 1)).await;
        let result = {
            // The semaphore is never closed.
            let _permit = shared.permits.acquire().await;
            attempt(&shared, &target, tries, last.as_ref(), &control).await
        };
        let result = match result {
            Err(fault) => Err(asked.explain(fault, shared.kubectl, &target).await),
            up => up,
        };
        if matches!(&result, Err(fault) if fault.stage == Stage::Auth) {
            refused_since.get_or_insert_with(Instant::now);
        }
        match result {
            Err(fault) if shared.again(&fault, tries, refused_since) => last = Some(fault),
            result => {
                shared.missing.fetch_sub(1, Ordering::Relaxed);
                return report(&control, target.node, result);
            }
        }
    }
}

/// What Kubernetes said of a pod, and when it is asked again.
struct Asked {
    next: Instant,
    said: Option<String>,
}

impl Asked {
    /// Adds it to a fault once the pod is late.
    async fn explain(&mut self, fault: LaunchFault, kubectl: Option<&str>, target: &Target) -> LaunchFault {
        let Some(kubectl) = kubectl else { return fault };
        if Instant::now() >= self.next {
            self.next = Instant::now() + ASK_AGAIN;
            self.said = pods::ask(kubectl, &target.host.name).await;
        }
        match &self.said {
            Some(said) => fault.hint(said.clone()),
            None => fault,
        }
    }
}

impl Shared {
    /// The pause before an attempt, the first being 0.
    fn pause(&self, attempt: u32) -> Duration {
        match attempt {
            0 => Duration::ZERO,
            n if !self.config.spec.reach.patient => backoff(n),
            1 => PODS_FIRST,
            _ if self.missing.load(Ordering::Relaxed) < MANY => PODS_FEW,
            n => PODS_FIRST.saturating_mul(1 << n.min(3)).min(PODS_MANY),
        }
    }

    /// Whether another attempt is worth its time: names that do not resolve yet, refused connections and busy
    /// servers until the launch limit, other passing faults a few times. Of pods everything may still come; a
    /// key that is refused may be in a secret that has not arrived yet.
    fn again(&self, fault: &LaunchFault, tries: u32, refused_since: Option<Instant>) -> bool {
        let reach = &self.config.spec.reach;
        let in_time = Instant::now() + self.pause(tries) < self.deadline;
        if reach.patient && fault.stage == Stage::Auth {
            return in_time && refused_since.is_none_or(|since| since.elapsed() < SECRET);
        }
        let patient = match fault.stage {
            Stage::Name => true,
            Stage::Tcp | Stage::Shell | Stage::Back if reach.patient => true,
            Stage::Tcp => fault.what.contains("refused"),
            Stage::Ssh => reach.patient || !fault.what.contains("within"),
            _ => false,
        };
        fault.retry && in_time && (patient || tries < reach.connect_retries.max(1))
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
    let host = &target.host;
    if let Some(desk) = &shared.desk {
        let words = shared.config.spec.reach.agent.as_deref().unwrap_or_default();
        let limit = shared.deadline.min(Instant::now() + START);
        return back::attempt(desk, words, target, control, limit, &on_stage).await;
    }
    let session = match &shared.connector {
        None => None,
        Some(connector) => {
            let ssh = rmpi_ssh::Target { host: host.name.clone(), user: host.user.clone(), port: host.port };
            Some(connector.connect(&ssh, &on_stage).await?)
        }
    };
    let image = shared.config.image.remote().map_err(daemon_fault)?;
    let mut look = if shared.config.spec.reach.patient { Look::SameImage } else { Look::Quick };
    loop {
        let command = remote_command(&image, look).map_err(|e| daemon_fault(e.to_string()))?;
        on_stage(Stage::Shell);
        let process = match &session {
            None => {
                let words = shared.config.spec.reach.agent.as_deref().unwrap_or_default();
                Process::of_agent(Agent::start(words, host, &command, true)?)
            }
            Some(session) => Process::of_ssh(session.exec(&command).await?, session.peer_ip()),
        };
        on_stage(Stage::Daemon);
        match begin(process, &image, shared.deadline.min(Instant::now() + START)).await {
            Err((fault, Some(Found::ByName))) if look != Look::Close => {
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
        carrier: Carrier::Stream(process.stdout, process.stdin),
        kind: LinkKind::Pipe,
        reached_at: process.peer,
        durable: false,
        epitaph: Some(Box::new(move || words.now())),
        keep: process.words,
    })
}
