//! Running an elastic Horovod job: every process is a job of one rank with a daemon of its own, so that one may come
//! and go without the others; who is in the job is decided by `rmpi_horovod::elastic` alone. This file has the
//! clock, the discovery script, the store, the processes and the notices.

use super::Rendezvous;
use super::output::Output;
use super::outside::{discover, notify};
use crate::event::Event as JobEvent;
use crate::image::DaemonSource;
use crate::job::Job;
use crate::outcome::{HostResult, HostState};
use crate::reach::pods;
use crate::running::Control;
use crate::sink::Delivery;
use crate::{hosts, record, report};
use rmpi_horovod::elastic::{Action, Elastic, End, Event, Policy, Process};
use rmpi_horovod::{Slot, discovery};
use rmpi_types::launch::{PmiKind, RankVars, horovod_label};
use rmpi_types::outcome::Cause;
use rmpi_types::spec::{Elastic as Spec, Horovod, Host, JobSpec, Limits, Slots, Stdin, Tag};
use rmpi_types::{NodeIdx, ProcId, Rank, RankEnd, RankExit, RankSet};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// How long enough slots are waited for, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long a worker may take to take a notice.
const NOTICE: Duration = Duration::from_secs(3);
/// How long processes may take to end after the job, beyond their own grace.
const FAREWELL: Duration = Duration::from_secs(20);

/// The exit code after SIGTERM.
const TERMINATED: i32 = 143;

/// What comes to the loop.
enum Input {
    Event(Event),
    /// The script has printed something, or has failed; the first time that is the end.
    Script(Result<Vec<u8>, String>),
    /// Something happened in the job of a process.
    Told(Process, Box<JobEvent>),
    /// A process has ended.
    Gone(Process, Gone),
    /// Output cannot be written to its files.
    Unwritten(String),
}

/// How a process ended.
struct Gone {
    code: i32,
    /// A word of `docs/events.md`.
    cause: &'static str,
    /// What is to be said about it.
    said: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Exit code.
    pub code: u8,
    /// What is to be said about it, lines as [`report::lines`] makes them; empty after success.
    pub report: String,
    /// The same for machines.
    pub record: record::End,
}

impl Ending {
    /// An end for which no host is to blame: `what`, for this `cause` ([`record::End::cause`]).
    #[must_use]
    pub fn new(code: u8, cause: &'static str, what: Option<String>) -> Self {
        let mut report = what.as_deref().map_or_else(String::new, report::lines);
        if code != 0 {
            report.push_str(&format!("rmpirun: exit code {code}\n"));
        }
        let message = what.unwrap_or_default();
        Self { code, report, record: record::End { code, cause, message, ..record::End::default() } }
    }
}

/// Who follows an elastic job, on its thread.
pub trait Follow {
    /// Lines for the user.
    fn say(&self, text: &str);
    /// Something happened. `node` counts hosts in the order in which they came to the job; ranks are those of the
    /// moment. Output is not told.
    fn on(&self, event: JobEvent);
}

/// Runs an elastic job ([`Horovod::Elastic`]) to its end on this thread. SIGINT, SIGTERM and SIGHUP stop it.
///
/// # Errors
/// A text when there is no runtime to be had or the store cannot listen.
pub fn run(spec: &JobSpec, daemon: &DaemonSource, follow: &dyn Follow) -> Result<Ending, String> {
    let Horovod::Elastic(elastic) = &spec.horovod else { return Err("the job is not elastic".into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot make a runtime: {e}"))?;
    let ending = runtime.block_on(Runner::run(spec, elastic, daemon, follow));
    runtime.shutdown_background();
    ending
}

struct Runner<'a> {
    spec: &'a JobSpec,
    daemon: &'a DaemonSource,
    follow: &'a dyn Follow,
    output: Arc<Output>,
    machine: Elastic,
    start: Instant,
    store: Arc<Rendezvous>,
    inputs: UnboundedSender<Input>,
    events: UnboundedSender<Event>,
    running: HashMap<Process, Running>,
    /// In the order in which they came.
    hosts: Vec<HostResult>,
    generation: u32,
    /// Notes of the jobs of processes: each is told once.
    noted: HashSet<String>,
    /// Why a process failed last.
    failed: (&'static str, Option<Rank>),
    done: Option<Done>,
}

/// A process that is there, or about to be.
struct Running {
    /// Its rank in this generation.
    rank: Arc<AtomicU32>,
    node: NodeIdx,
    pid: u32,
    control: Option<Control>,
}

/// Why the job is over.
struct Done {
    code: i32,
    cause: &'static str,
    what: Option<String>,
}

impl Done {
    fn new(code: i32, cause: &'static str, what: impl Into<String>) -> Self {
        Self { code, cause, what: Some(what.into()) }
    }
}

impl<'a> Runner<'a> {
    async fn run(
        spec: &'a JobSpec,
        elastic: &Spec,
        daemon: &'a DaemonSource,
        follow: &'a dyn Follow,
    ) -> Result<Ending, String> {
        let cannot = |e: io::Error| format!("cannot wait for signals: {e}");
        let mut stop = [
            signal(SignalKind::terminate()).map_err(cannot)?,
            signal(SignalKind::interrupt()).map_err(cannot)?,
            signal(SignalKind::hangup()).map_err(cannot)?,
        ];
        let (events, mut told) = mpsc::unbounded_channel();
        let (inputs, mut inbox) = mpsc::unbounded_channel();
        let fixed = elastic.script.is_none();
        let here = fixed && spec.hosts.iter().all(|h| hosts::is_this_machine(h, &spec.reach));
        let ip: IpAddr = super::address(spec, here)?;
        let (store, listener) = Rendezvous::open(ip, spec.port_range, Some(events.clone()))
            .map_err(|e| format!("Horovod's store cannot listen on {ip}: {e}"))?;
        tokio::spawn(Arc::clone(&store).serve(listener));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = i64::try_from(wall.as_secs()).unwrap_or(0);
        let machine = Elastic::new(policy(spec, elastic), unix, u64::from(wall.subsec_nanos()));
        match &elastic.script {
            Some(script) => {
                let told = inputs.clone();
                let told = move |output| told.send(Input::Script(output)).is_ok();
                drop(tokio::spawn(discover(script.clone(), told)));
            }
            None => {
                let count = |h: &Host| (h.name.clone(), if let Slots::Count(n) = h.slots { n } else { 1 });
                let list = spec.hosts.iter().map(count).collect();
                let _ = inputs.send(Input::Event(Event::Discovered(list)));
            }
        }
        let most = elastic.max_np.unwrap_or(0).max(np(spec));
        let tell = inputs.clone();
        let failed =
            move |e: io::Error| drop(tell.send(Input::Unwritten(format!("cannot write output: {e}"))));
        let output =
            Output::new(&spec.output, most, failed).map_err(|e| format!("cannot start a thread: {e}"))?;
        let mut runner = Self {
            spec,
            daemon,
            follow,
            output: Arc::new(output),
            machine,
            start: Instant::now(),
            store,
            inputs,
            events,
            running: HashMap::new(),
            hosts: Vec::new(),
            generation: 0,
            noted: HashSet::new(),
            failed: ("rank", None),
            done: None,
        };
        let mut first = true;
        let mut hosts_said = None;
        while runner.done.is_none() {
            let due = runner.machine.next_timer().map(|t| runner.start + t);
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let [term, int, hup] = &mut stop;
            tokio::select! {
                biased;
                _ = term.recv() => runner.stop(TERMINATED, "SIGTERM"),
                _ = int.recv() => runner.stop(130, "SIGINT"),
                _ = hup.recv() => runner.stop(129, "SIGHUP"),
                Some(event) = told.recv() => runner.feed(event),
                Some(input) = inbox.recv() => runner.take(input, elastic, &mut first, &mut hosts_said),
                () = timer => runner.feed(Event::Tick),
            }
        }
        Ok(runner.end(&mut inbox).await)
    }

    fn take(&mut self, input: Input, elastic: &Spec, first: &mut bool, said: &mut Option<String>) {
        match input {
            Input::Event(event) => self.feed(event),
            Input::Told(process, event) => self.tell(process, *event),
            Input::Unwritten(what) => {
                self.done = Some(Done::new(rmpi_types::exit::USAGE.into(), "internal", what));
            }
            Input::Gone(process, gone) => {
                let rank = self.running.remove(&process).map(|r| Rank(r.rank.load(Ordering::Relaxed)));
                // One that was told to end, or that a later generation goes on without, may end as it likes.
                if self.machine.places().any(|(p, _)| p == process) {
                    if gone.code != 0 {
                        self.failed = (gone.cause, rank.filter(|_| gone.cause == "rank"));
                    }
                    self.follow.say(&gone.said);
                }
                self.feed(Event::Ended(process, gone.code));
            }
            Input::Script(output) => {
                let hosts = output
                    .and_then(|o| discovery::read(&o, elastic.slots_per_host).map_err(|e| e.to_string()));
                match hosts {
                    Ok(hosts) => {
                        *said = None;
                        self.feed(Event::Discovered(hosts));
                    }
                    Err(what) if *first => self.done = Some(Done::new(255, "launch", what)),
                    // The hosts stay as they were; said once, as it is asked every second.
                    Err(what) => {
                        if said.as_ref() != Some(&what) {
                            self.follow.say(&report::lines(&format!("{what}; the hosts stay as they are")));
                            *said = Some(what);
                        }
                    }
                }
                *first = false;
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.on(self.start.elapsed(), event, &mut actions);
        if self.machine.generation() != self.generation {
            self.generation = self.machine.generation();
            self.renumber();
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reset(sizes) => self.store.begin(sizes),
            Action::Answer(waiter, text) => self.store.answer(waiter, text),
            Action::Kill(process) => {
                self.running
                    .get(&process)
                    .and_then(|r| r.control.as_ref())
                    .into_iter()
                    .for_each(Control::cancel);
            }
            Action::Note(text) => {
                self.follow.say(&report::lines(&text));
                self.follow.on(JobEvent::Note(text));
            }
            Action::Notify(service, time, change) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let told = tokio::time::timeout(NOTICE, notify(&service, time, change)).await;
                    let _ = events.send(Event::Notified(matches!(told, Ok(Ok(())))));
                });
            }
            Action::Done(end) => {
                let (cause, _) = self.failed;
                self.done = Some(match end {
                    End::Over(0) => Done { code: 0, cause: "success", what: None },
                    End::Over(code) => Done { code, cause, what: None },
                    End::Failed(code, what) => Done::new(code, cause, what),
                    End::Hosts(what) => Done::new(1, "plan", what),
                });
            }
            Action::Start(process, slot) => {
                if let Err(what) = self.spawn(process, &slot) {
                    let gone = Gone { code: 255, cause: "internal", said: report::lines(&what) };
                    let _ = self.inputs.send(Input::Gone(process, gone));
                }
            }
        }
    }

    fn controls(&self) -> impl Iterator<Item = &Control> {
        self.running.values().filter_map(|r| r.control.as_ref())
    }

    fn stop(&mut self, code: i32, signal: &str) {
        self.done = Some(Done::new(code, "signal", format!("stopped by {signal}")));
        self.follow.on(JobEvent::Stopping { why: signal.to_owned(), force: false });
    }

    /// The number of a host, as events have it.
    fn node(&mut self, host: &str) -> NodeIdx {
        let at = self.hosts.iter().position(|h| h.name == host).unwrap_or_else(|| {
            self.hosts.push(HostResult {
                name: host.to_owned(),
                state: HostState::Unused,
                elapsed: Duration::ZERO,
                tries: 0,
            });
            self.hosts.len() - 1
        });
        NodeIdx(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// A generation has begun: processes have the ranks it gives them.
    fn renumber(&mut self) {
        let mut places: Vec<(Process, Slot)> = self.machine.places().map(|(p, s)| (p, s.clone())).collect();
        places.sort_by_key(|(_, slot)| slot.rank);
        let mut hosts: Vec<(String, Vec<Rank>)> = Vec::new();
        let mut new = 0;
        for (process, slot) in places {
            let (rank, host) = (Rank(slot.rank), slot.member.host);
            let node = self.node(&host);
            let running = self.running.entry(process).or_insert_with(|| {
                new += 1;
                Running { rank: Arc::default(), node, pid: 0, control: None }
            });
            running.rank.store(rank.0, Ordering::Relaxed);
            if let Err(what) = self.output.placed(rank, &host, slot.member.local, running.pid) {
                self.done = Some(Done::new(rmpi_types::exit::USAGE.into(), "plan", what));
            }
            match hosts.iter_mut().find(|(h, _)| *h == host) {
                Some((_, ranks)) => ranks.push(rank),
                None => hosts.push((host, vec![rank])),
            }
        }
        let hosts: Vec<(String, RankSet)> =
            hosts.into_iter().map(|(host, ranks)| (host, ranks.into_iter().collect())).collect();
        self.follow.on(JobEvent::Generation { n: self.generation, new, hosts });
    }

    /// Passes on what happened in the job of a process, with the numbers of the whole.
    fn tell(&mut self, process: Process, event: JobEvent) {
        let Some(running) = self.running.get_mut(&process) else { return };
        let (node, rank) = (running.node, Rank(running.rank.load(Ordering::Relaxed)));
        let proc = ProcId::first(rank.0);
        let host = &mut self.hosts[node.0 as usize];
        let event = match event {
            JobEvent::HostUp { elapsed, .. } => {
                if host.state == HostState::Ready {
                    return;
                }
                (host.state, host.elapsed, host.tries) = (HostState::Ready, elapsed, host.tries + 1);
                JobEvent::HostUp { node, host: host.name.clone(), elapsed }
            }
            JobEvent::HostFailed { fault, .. } => {
                (host.state, host.tries) = (HostState::Failed(fault.clone()), host.tries + 1);
                JobEvent::HostFailed { node, host: host.name.clone(), fault }
            }
            JobEvent::NodeLost { what, .. } => {
                host.state = HostState::Unused;
                JobEvent::NodeLost { node, what }
            }
            JobEvent::RankStarted { pid, .. } => {
                running.pid = pid;
                self.output.started(rank, pid);
                JobEvent::RankStarted { proc, node, pid }
            }
            JobEvent::RankExited(exit) => JobEvent::RankExited(RankExit { proc, ..exit }),
            JobEvent::Stacks { text, .. } => JobEvent::Stacks { proc, host: host.name.clone(), text },
            JobEvent::Note(text) if self.noted.insert(text.clone()) => JobEvent::Note(text),
            event @ JobEvent::Waiting { .. } => event,
            // Each is of one process: generations and the end say more.
            JobEvent::Note(_)
            | JobEvent::Planned(_)
            | JobEvent::Stopping { .. }
            | JobEvent::Generation { .. }
            | JobEvent::Output { .. } => return,
        };
        self.follow.on(event);
    }

    /// Starts a process: a job of its own.
    fn spawn(&mut self, process: Process, slot: &Slot) -> Result<(), String> {
        let job = Job::from_spec(self.job_of(slot)).daemon(self.daemon.clone()).output(Delivery::Events);
        let job = job.input(crate::input::Input::Null).build().map_err(|e| e.to_string())?;
        let mut running = job.start().map_err(|e| e.to_string())?;
        let Some(known) = self.running.get_mut(&process) else {
            return Err("a process without a place".into());
        };
        known.control = Some(running.control());
        let (inputs, output, rank) = (self.inputs.clone(), Arc::clone(&self.output), Arc::clone(&known.rank));
        let host = slot.member.host.clone();
        let follow = move || {
            let rank = || Rank(rank.load(Ordering::Relaxed));
            for event in running.events() {
                match event {
                    JobEvent::Output { stream, bytes, .. } => output.put(rank(), stream, bytes),
                    event => {
                        if let JobEvent::RankExited(exit) = &event {
                            output.ended(rank(), exit);
                        }
                        let _ = inputs.send(Input::Told(process, Box::new(event)));
                    }
                }
            }
            let outcome = running.wait();
            let said = match outcome.cause() {
                // Its only rank need not be the world's rank 0, and its exit code is not the job's.
                Cause::Rank(exit) => report::lines(&format!("rank {} on {host} {}", rank(), how(exit))),
                Cause::NodeLost { what, .. } => {
                    report::lines(&format!("host {host} was lost: {what}; rank {} ran there", rank()))
                }
                _ => {
                    let text = report::render(&outcome, true);
                    let said = text.split_inclusive('\n').filter(|l| !l.starts_with("rmpirun: exit code"));
                    said.collect()
                }
            };
            let cause = record::word(outcome.cause());
            let _ = inputs.send(Input::Gone(process, Gone { code: outcome.code().into(), cause, said }));
        };
        std::thread::Builder::new()
            .name("rmpi-member".into())
            .spawn(follow)
            .map(drop)
            .map_err(|e| e.to_string())
    }

    /// The job of one process: one rank on one host, which knows its place in the world from its environment.
    fn job_of(&self, slot: &Slot) -> JobSpec {
        let named = self.spec.hosts.iter().find(|h| h.name == slot.member.host);
        let host = named.cloned().unwrap_or_else(|| Host {
            name: slot.member.host.clone(),
            origin: "the host discovery script".into(),
            ..Host::default()
        });
        let mut spec = self.spec.clone();
        spec.hosts = vec![Host { slots: Slots::Count(1), max_slots: None, ..host }];
        spec.horovod = Horovod::Mpi;
        spec.rank_vars = RankVars::Usual;
        spec.pmi = PmiKind::None;
        spec.stdin = Stdin::None;
        (spec.output.tag, spec.output.files) = (Tag::None, None);
        spec.placement = rmpi_types::spec::Placement {
            bind_to: rmpi_types::spec::BindTo::None,
            oversubscribe: true,
            ..rmpi_types::spec::Placement::default()
        };
        let mut vars = super::store_variables(self.store.address(), true, &self.spec.ifaces);
        if self.store.address().ip().is_loopback() {
            vars.push(("HOROVOD_GLOO_IFACE", "lo".into()));
        }
        for app in &mut spec.apps {
            (app.np, app.hosts) = (Some(1), None);
            let said = |name: &str, app: &rmpi_types::spec::App| app.env.set.iter().any(|(n, _)| n == name);
            for (name, value) in &vars {
                if !said(name, app) && std::env::var_os(name).is_none() {
                    app.env.set.push(((*name).into(), Some(value.into())));
                }
            }
            for (name, value) in place(slot) {
                app.env.set.push((name.into(), Some(value.into())));
            }
        }
        spec
    }

    /// Ends everything that still runs and says why the job is over.
    async fn end(mut self, inbox: &mut UnboundedReceiver<Input>) -> Ending {
        let Done { code, cause, what } =
            self.done.take().unwrap_or_else(|| Done::new(250, "internal", "the job has lost its end"));
        let Limits { kill_grace, pod_grace, drain, .. } = self.spec.limits;
        // This pod is being ended.
        let pod_grace = pod_grace.filter(|_| code == TERMINATED);
        for control in self.controls() {
            if pod_grace.is_some() { control.signal(rmpi_control::signals::TERM) } else { control.cancel() }
        }
        let limit = |grace: Duration| Instant::now() + grace + drain + FAREWELL;
        let mut until = limit(pod_grace.unwrap_or(kill_grace));
        let (mut asking, mut asked) = (pod_grace.is_some(), pin!(pods::grace()));
        while !self.running.is_empty() {
            tokio::select! {
                input = inbox.recv() => match input {
                    Some(Input::Gone(process, _)) => drop(self.running.remove(&process)),
                    Some(Input::Told(process, event)) => self.tell(process, *event),
                    Some(Input::Event(_) | Input::Script(_) | Input::Unwritten(_)) => {}
                    None => break,
                },
                grace = &mut asked, if asking => {
                    asking = false;
                    if let Some(grace) = grace {
                        until = limit(grace);
                        self.controls().for_each(|control| control.pod_grace(grace));
                    }
                }
                () = tokio::time::sleep_until(until.into()) => break,
            }
        }
        if self.running.is_empty() {
            self.output.finish();
        }
        let mut ending = Ending::new(u8::try_from(code).unwrap_or(u8::MAX), cause, what);
        ending.record.rank = self.failed.1.filter(|_| cause == "rank");
        ending.record.hosts = self.hosts;
        ending
    }
}

/// How a process ended.
fn how(exit: &RankExit) -> String {
    let last = exit.last_stderr.last().map_or_else(String::new, |line| format!(": \"{line}\""));
    match exit.end {
        RankEnd::Exited(code) => format!("(pid {}) exited with code {code}{last}", exit.pid),
        RankEnd::Signaled { signal, .. } => {
            format!("(pid {}) died: {}{last}", exit.pid, report::signals::described(signal))
        }
    }
}

fn np(spec: &JobSpec) -> u32 {
    spec.apps.first().and_then(|app| app.np).unwrap_or(1)
}

fn policy(spec: &JobSpec, elastic: &Spec) -> Policy {
    let np = np(spec);
    Policy {
        np,
        min_np: elastic.min_np.unwrap_or(np),
        max_np: elastic.max_np,
        timeout: elastic.timeout.unwrap_or(TIMEOUT),
        reset_limit: elastic.reset_limit,
        cooldown: elastic.cooldown,
    }
}

/// What a process knows its place by; torch's names too, for scripts that look there.
fn place(slot: &Slot) -> Vec<(&'static str, String)> {
    let label = horovod_label(&slot.member.host);
    let (rank, size) = (slot.rank.to_string(), slot.size.to_string());
    let (local, local_size) = (slot.member.local.to_string(), slot.local_size.to_string());
    vec![
        ("HOROVOD_HOSTNAME", label),
        ("HOROVOD_RANK", rank.clone()),
        ("HOROVOD_SIZE", size.clone()),
        ("HOROVOD_LOCAL_RANK", local.clone()),
        ("HOROVOD_LOCAL_SIZE", local_size.clone()),
        ("HOROVOD_CROSS_RANK", slot.cross_rank.to_string()),
        ("HOROVOD_CROSS_SIZE", slot.cross_size.to_string()),
        ("RANK", rank),
        ("WORLD_SIZE", size),
        ("LOCAL_RANK", local),
        ("LOCAL_WORLD_SIZE", local_size),
    ]
}
