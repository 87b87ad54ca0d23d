//! The driver of [`JobMachine`]: owns sockets, pipes, timers, sinks and standard input; feeds what happens
//! with the time, carries out what the machine decides. It decides nothing about the job itself.

mod actions;
mod input;
mod link;
#[cfg(test)]
mod tests;

pub(crate) use input::Input;
pub(crate) use link::{Carrier, Channel};

use crate::event::{Event, Events};
use crate::job::Config;
use crate::outcome::{HostResult, HostState, Outcome};
use crate::plan::{self, Planned};
use crate::reach::{self, Target};
use crate::sink::{Delivery, Places, SinkEvent, Sinks};
use crate::spawn::Base;
use crate::{horovod, hosts, input::Source};
use input::FromLink;
use link::Link;
use nix::sys::signal::Signal;
use rmpi_control::{HostEntry, JobAction, JobEvent, JobMachine, JobPolicy, LinkId, Time};
use rmpi_types::outcome::{Cause, JobOutcome};
use rmpi_types::spec::Stdin;
use rmpi_types::{LaunchFault, NodeIdx, RankSet};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Frames between the reading tasks and the driver.
const FRAMES_QUEUED: usize = 256;
/// Inputs taken before actions and timers are looked at again.
const INPUTS_AT_ONCE: usize = 64;
/// When a patient launch first says what it waits for, and how often again.
const FIRST_WORD: Duration = Duration::from_secs(10);
const NEXT_WORD: Duration = Duration::from_secs(30);
/// How long the last frames may take to be written after the job's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// One job being run.
pub(super) struct Driver {
    machine: JobMachine,
    start: Instant,
    config: Arc<Config>,
    targets: Vec<Target>,
    hosts: Vec<HostResult>,
    links: HashMap<LinkId, Link>,
    reached_at: HashMap<NodeIdx, Option<IpAddr>>,
    link_ends: usize,
    sinks: Sinks,
    stdin: Source,
    events: Events,
    places: Places,
    placement: Vec<(NodeIdx, RankSet)>,
    /// For ranks to come.
    spawns: Option<Base>,
    notes: Vec<String>,
    output_error: Option<String>,
    actions: Vec<JobAction>,
    control: mpsc::UnboundedSender<Input>,
    frames: mpsc::Sender<Input>,
    reaching: JoinSet<()>,
    /// Hosts that a patient launch waits for, with what was last seen of each, and when the user hears of them.
    waiting: HashMap<NodeIdx, Option<LaunchFault>>,
    tell_waiting: Instant,
    done: Option<JobOutcome>,
    /// Ranks whose start is still to be told.
    starting: usize,
}

/// Both queues' reading ends.
struct Inbox {
    control: mpsc::UnboundedReceiver<Input>,
    frames: mpsc::Receiver<Input>,
}

/// Runs a job to its end.
pub(crate) async fn run(
    config: Arc<Config>,
    events: Events,
    control: mpsc::UnboundedSender<Input>,
    control_inbox: mpsc::UnboundedReceiver<Input>,
) -> Outcome {
    run_with(config, events, control, control_inbox, reach::start).await
}

/// What starts reaching all hosts: one task a host.
type Reach =
    fn(&Arc<Config>, &[Target], &mpsc::UnboundedSender<Input>, deadline: Instant) -> Vec<reach::Task>;

async fn run_with(
    config: Arc<Config>,
    events: Events,
    control: mpsc::UnboundedSender<Input>,
    control_inbox: mpsc::UnboundedReceiver<Input>,
    reach: Reach,
) -> Outcome {
    let targets = match reach::targets(&config) {
        Ok(targets) => targets,
        Err(what) => return refused(what),
    };
    if let Err(what) = hosts::raise_nofile(targets.len()) {
        return refused(what);
    }
    let (frames, frames_inbox) = mpsc::channel(FRAMES_QUEUED);
    let mut inbox = Inbox { control: control_inbox, frames: frames_inbox };
    let store = match horovod::open(&config, &targets) {
        Ok(store) => store,
        Err(what) => return refused(what),
    };
    let mut driver = Driver::new(config, targets, events, control, frames);
    if let Some((store, listener)) = store {
        driver.reaching.spawn(store.serve(listener));
    }
    driver.reach(reach);
    while driver.done.is_none() {
        driver.step(&mut inbox).await;
        driver.act().await;
    }
    driver.finish(&mut inbox).await
}

/// A job that cannot even begin.
fn refused(message: String) -> Outcome {
    let cause = Cause::Plan { code: rmpi_types::exit::USAGE, message };
    Outcome {
        job: ended(cause),
        hosts: Vec::new(),
        notes: Vec::new(),
        output_error: None,
        placement: Vec::new(),
    }
}

pub(crate) fn ended(cause: Cause) -> JobOutcome {
    JobOutcome { cause, also: Vec::new(), failed_after_us: None, stopped: Vec::new(), unknown: Vec::new() }
}

impl Driver {
    fn new(
        config: Arc<Config>,
        targets: Vec<Target>,
        events: Events,
        control: mpsc::UnboundedSender<Input>,
        frames: mpsc::Sender<Input>,
    ) -> Self {
        let spec = &config.spec;
        let start = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let policy = JobPolicy {
            limits: spec.limits,
            on_failure: spec.on_failure,
            min_hosts: spec.reach.min_hosts,
            stdin: if plan::own_stdin(&config).is_some() { Stdin::None } else { spec.stdin.clone() },
            ignore_broken_pipe: spec.output.ignore_broken_pipe,
            stacks_on_timeout: spec
                .on_timeout
                .stacks
                .then(|| spec.on_timeout.stacks_wait.unwrap_or(Duration::from_secs(30))),
            children_apart: spec.children_apart,
            wall_at_zero_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            files: config.staged.contents.clone(),
        };
        let entry = |t: &Target| HostEntry { name: t.host.name.clone(), parent: None };
        let machine = JobMachine::new(policy, targets.iter().map(entry).collect(), Time::ZERO);
        let result = |t: &Target| HostResult {
            name: t.host.name.clone(),
            state: HostState::Unused,
            elapsed: Duration::ZERO,
            tries: 1,
        };
        let places = Places::default();
        let to_driver = control.clone();
        let notify = Arc::new(move |event: SinkEvent| drop(to_driver.send(Input::Sink(event))));
        let to_driver = control.clone();
        let answer = Box::new(move |bytes| {
            drop(to_driver.send(match bytes {
                Some(bytes) => Input::Stdin(bytes),
                None => Input::StdinEof,
            }));
        });
        let sinks = Sinks::new(spec.output.clone(), config.delivery, places.clone(), notify, events.clone());
        Self {
            machine,
            start,
            hosts: targets.iter().map(result).collect(),
            links: HashMap::new(),
            reached_at: HashMap::new(),
            link_ends: 0,
            sinks,
            stdin: Source::new(config.input.clone(), answer),
            events,
            places,
            placement: Vec::new(),
            spawns: None,
            notes: Vec::new(),
            output_error: None,
            actions: Vec::new(),
            control,
            frames,
            reaching: JoinSet::new(),
            waiting: HashMap::new(),
            tell_waiting: start + FIRST_WORD,
            done: None,
            starting: 0,
            config,
            targets,
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed())
    }

    fn feed(&mut self, event: JobEvent) {
        let now = self.now();
        self.machine.on(now, event, &mut self.actions);
    }

    /// Starts reaching all hosts.
    fn reach(&mut self, start: Reach) {
        let deadline = self.start + self.launch_limit();
        for task in start(&self.config, &self.targets, &self.control, deadline) {
            self.reaching.spawn(task);
        }
    }

    /// 60 s and 0.1 s a host unless the user says otherwise.
    fn launch_limit(&self) -> Duration {
        let hosts = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        let default = Duration::from_secs(60) + Duration::from_millis(100).saturating_mul(hosts);
        self.config.spec.limits.launch.unwrap_or(default)
    }

    /// Waits for the next thing to happen and feeds it, with what else is there already.
    async fn step(&mut self, inbox: &mut Inbox) {
        let due = self.machine.next_timer().map(|t| self.start + t.0);
        let word = (!self.waiting.is_empty()).then_some(self.tell_waiting);
        let due = due.into_iter().chain(word).min();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(input) = inbox.control.recv() => self.take(input),
            () = timer => {
                self.say_waiting();
                self.feed(JobEvent::Tick);
            }
            Some(input) = inbox.frames.recv() => self.take(input),
        }
        for _ in 0..INPUTS_AT_ONCE {
            let Ok(input) = inbox.control.try_recv().or_else(|_| inbox.frames.try_recv()) else { break };
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Link(link, FromLink::Frame(frame)) => self.feed(JobEvent::Frame { link, frame }),
            Input::Link(link, FromLink::Eof { stream, what }) => {
                if self.links.get(&link).is_some_and(|l| l.stream != stream) {
                    return;
                }
                self.link_ends += 1;
                self.feed(JobEvent::LinkEof { link, what });
            }
            Input::Reaching { node, stage, tries, last } => {
                self.hosts[node.0 as usize].tries = tries;
                if self.config.spec.reach.patient {
                    self.waiting.insert(node, last.clone());
                }
                self.feed(JobEvent::Reaching { node, stage, last: last.map(Box::new) });
            }
            Input::Up { node, channel } => self.up(node, *channel),
            Input::GiveUp { node, fault } => {
                self.waiting.remove(&node);
                self.feed(JobEvent::LaunchFailed { node, fault });
            }
            Input::Sink(SinkEvent::Written { proc, stream, bytes }) => {
                if bytes > 0 {
                    self.feed(JobEvent::Written { proc, stream, bytes });
                }
            }
            Input::Sink(SinkEvent::Failed { console, error }) => self.sink_failed(console, &error),
            Input::Stdin(bytes) => self.feed(JobEvent::Stdin(bytes)),
            Input::StdinEof => self.feed(JobEvent::StdinEof),
            Input::Signal(signal) => {
                if let (Ok(Signal::SIGWINCH), Some(window)) =
                    (Signal::try_from(signal), rmpi_daemon::window())
                {
                    self.feed(JobEvent::Resized(window));
                }
                self.feed(JobEvent::Signal(signal));
            }
            Input::Cancel => self.feed(JobEvent::Cancel),
            Input::PodGrace(grace) => self.feed(JobEvent::PodGrace(grace)),
        }
    }

    /// One link a host; its number is the host's. One that was dialled again takes the place of its broken stream.
    fn up(&mut self, node: NodeIdx, channel: Channel) {
        let (id, kind) = (LinkId(node.0), channel.kind);
        self.waiting.remove(&node);
        self.reached_at.insert(node, channel.reached_at);
        let stream = self.links.get(&id).map_or(0, |l| l.stream + 1);
        self.links.insert(id, Link::start(id, stream, channel, self.frames.clone()));
        self.feed(JobEvent::LinkUp { link: id, node, kind });
    }

    /// A reader that went away ends the job quietly; any other failure of our stdout or a file is told first.
    /// Nobody reading stderr is nobody's failure.
    fn sink_failed(&mut self, console: bool, error: &std::io::Error) {
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        if self.config.delivery == Delivery::Inherit && gone && !console {
            return;
        }
        if !gone {
            self.output_error.get_or_insert_with(|| error.to_string());
        }
        self.feed(JobEvent::BrokenPipe);
    }

    /// Tells the user what a patient launch waits for, when it is time to.
    fn say_waiting(&mut self) {
        if self.waiting.is_empty() || Instant::now() < self.tell_waiting {
            return;
        }
        self.tell_waiting += NEXT_WORD;
        let mut hosts: Vec<_> = self.waiting.iter().collect();
        hosts.sort_by_key(|(node, _)| node.0);
        let host = |(node, last): (&NodeIdx, &Option<LaunchFault>)| {
            (self.targets[node.0 as usize].host.name.clone(), last.clone())
        };
        let event = Event::Waiting { hosts: hosts.into_iter().map(host).collect(), of: self.targets.len() };
        self.events.send(event);
    }

    fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.events.send(Event::Note(text.clone()));
            self.notes.push(text);
        }
    }

    fn planned(&mut self, planned: Planned) -> Vec<(NodeIdx, rmpi_types::NodeLaunch)> {
        let left_out = self.hosts.iter().filter_map(|host| match &host.state {
            HostState::Failed(fault) => Some(format!("going on without {}: {fault}", host.name)),
            _ => None,
        });
        for text in left_out.collect::<Vec<_>>() {
            self.note(text);
        }
        let name = |(node, ranks): &(NodeIdx, RankSet)| {
            (self.targets[node.0 as usize].host.name.clone(), ranks.clone())
        };
        self.places.set(planned.placement.iter().map(name).collect(), plan::namespace());
        self.placement = planned.placement;
        self.starting = self.placement.iter().map(|(_, ranks)| ranks.len()).sum();
        self.spawns = Base::of(&planned.launches);
        self.events.send(Event::Planned(Box::new(planned.view)));
        planned.launches
    }

    /// Says goodbye to the daemons and makes the outcome. Every output byte was accounted for before.
    async fn finish(mut self, inbox: &mut Inbox) -> Outcome {
        self.reaching.abort_all();
        self.stdin.finish(self.machine.stdin_unread());
        let open = self.links.values().filter(|l| !l.durable).count();
        let links = std::mem::take(&mut self.links);
        let already = self.link_ends;
        let farewell = async {
            for link in links.values() {
                link.flush().await;
            }
            drop(links);
            let mut left = open.saturating_sub(already);
            while left > 0 {
                match inbox.frames.recv().await {
                    Some(Input::Link(_, FromLink::Eof { .. })) => left -= 1,
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("a daemon did not close its stream in time");
        }
        self.sinks.finish();
        let job = self.done.take().unwrap_or_else(|| ended(Cause::Internal("no outcome".into())));
        if let Cause::Launch(faults) = &job.cause {
            for (node, fault) in faults {
                if let Some(host) = self.hosts.get_mut(node.0 as usize) {
                    host.state = HostState::Failed(fault.clone());
                }
            }
        }
        let (hosts, notes, output_error) = (self.hosts, self.notes, self.output_error);
        Outcome { job, hosts, notes, output_error, placement: self.placement }
    }
}
