//! Running an elastic Horovod job: every process is a job of one rank with a daemon of its own, so that one may come
//! and go without the others; who is in the job is decided by `rmpi_horovod::elastic` alone. This file has the
//! clock, the discovery script, the store, the processes and the notices.

use super::Rendezvous;
use crate::event::{Event as JobEvent, Stream};
use crate::image::DaemonSource;
use crate::job::Job;
use crate::running::Control;
use crate::sink::Delivery;
use crate::{hosts, report};
use rmpi_horovod::elastic::{Action, Elastic, Event, Policy, Process};
use rmpi_horovod::notice::{self, Change};
use rmpi_horovod::pickle::Registration;
use rmpi_horovod::{Slot, discovery};
use rmpi_types::launch::{PmiKind, RankVars, horovod_label};
use rmpi_types::outcome::Cause;
use rmpi_types::spec::{Elastic as Spec, Horovod, Host, JobSpec, Slots, Stdin, Tag};
use rmpi_types::{RankEnd, RankExit};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// How often the script is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it may take.
const SCRIPT: Duration = Duration::from_secs(30);
/// How long enough slots are waited for, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long a worker may take to take a notice.
const NOTICE: Duration = Duration::from_secs(3);
/// How long processes may take to end after the job, beyond their own grace.
const FAREWELL: Duration = Duration::from_secs(20);

/// What comes to the loop.
enum Input {
    Event(Event),
    /// The script has printed something, or has failed; the first time that is the end.
    Script(Result<Vec<u8>, String>),
    /// A process has ended, with what is to be said about it.
    Gone(Process, i32, String),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Exit code.
    pub code: u8,
    /// What is to be said about it, lines as [`report::lines`] makes them; empty after success.
    pub report: String,
}

/// Runs an elastic job ([`Horovod::Elastic`]) to its end on this thread. SIGINT, SIGTERM and SIGHUP stop it. `say` gets lines
/// for the user as the job goes on.
///
/// # Errors
/// A text when there is no runtime to be had or the store cannot listen.
pub fn run(spec: &JobSpec, daemon: &DaemonSource, say: &dyn Fn(&str)) -> Result<Ending, String> {
    let Horovod::Elastic(elastic) = &spec.horovod else { return Err("the job is not elastic".into()) };
    if spec.output.files.is_some() {
        return Err(
            "--output-filename goes with jobs of a fixed size only: elastic jobs write to standard output"
                .into(),
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot make a runtime: {e}"))?;
    let ending = runtime.block_on(Runner::run(spec, elastic, daemon, say));
    runtime.shutdown_background();
    ending
}

struct Runner<'a> {
    spec: &'a JobSpec,
    daemon: &'a DaemonSource,
    say: &'a dyn Fn(&str),
    machine: Elastic,
    start: Instant,
    store: Arc<Rendezvous>,
    inputs: UnboundedSender<Input>,
    events: UnboundedSender<Event>,
    running: HashMap<Process, Control>,
    /// Those that were told to end: their end is no news.
    killed: Vec<Process>,
    done: Option<(i32, Option<String>)>,
}

impl<'a> Runner<'a> {
    async fn run(
        spec: &'a JobSpec,
        elastic: &Spec,
        daemon: &'a DaemonSource,
        say: &'a dyn Fn(&str),
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
            Some(script) => drop(tokio::spawn(discover(script.clone(), inputs.clone()))),
            None => {
                let count = |h: &Host| (h.name.clone(), if let Slots::Count(n) = h.slots { n } else { 1 });
                let list = spec.hosts.iter().map(count).collect();
                let _ = inputs.send(Input::Event(Event::Discovered(list)));
            }
        }
        let mut runner = Self {
            spec,
            daemon,
            say,
            machine,
            start: Instant::now(),
            store,
            inputs,
            events,
            running: HashMap::new(),
            killed: Vec::new(),
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
                _ = term.recv() => runner.done = Some((143, Some("stopped by SIGTERM".into()))),
                _ = int.recv() => runner.done = Some((130, Some("stopped by SIGINT".into()))),
                _ = hup.recv() => runner.done = Some((129, Some("stopped by SIGHUP".into()))),
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
            Input::Gone(process, code, report) => {
                self.running.remove(&process);
                if !self.killed.contains(&process) && !report.is_empty() {
                    (self.say)(&report);
                }
                self.feed(Event::Ended(process, code));
            }
            Input::Script(output) => {
                let hosts = output
                    .and_then(|o| discovery::read(&o, elastic.slots_per_host).map_err(|e| e.to_string()));
                match hosts {
                    Ok(hosts) => {
                        *said = None;
                        self.feed(Event::Discovered(hosts));
                    }
                    Err(what) if *first => self.done = Some((255, Some(what))),
                    // The hosts stay as they were; said once, as it is asked every second.
                    Err(what) => {
                        if said.as_ref() != Some(&what) {
                            (self.say)(&report::lines(&format!("{what}; the hosts stay as they are")));
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
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reset(sizes) => self.store.begin(sizes),
            Action::Answer(waiter, text) => self.store.answer(waiter, text),
            Action::Kill(process) => {
                self.killed.push(process);
                if let Some(control) = self.running.get(&process) {
                    control.cancel();
                }
            }
            Action::Note(text) => (self.say)(&report::lines(&text)),
            Action::Notify(service, time, change) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let told = tokio::time::timeout(NOTICE, notify(&service, time, change)).await;
                    let _ = events.send(Event::Notified(matches!(told, Ok(Ok(())))));
                });
            }
            Action::Done(code, what) => self.done = Some((code, what)),
            Action::Start(process, slot) => {
                if let Err(what) = self.spawn(process, &slot) {
                    let _ = self.inputs.send(Input::Gone(process, 255, report::lines(&what)));
                }
            }
        }
    }

    /// Starts a process: a job of its own.
    fn spawn(&mut self, process: Process, slot: &Slot) -> Result<(), String> {
        let job = Job::from_spec(self.job_of(slot)).daemon(self.daemon.clone()).output(Delivery::Events);
        let job = job.input(crate::input::Input::Null).build().map_err(|e| e.to_string())?;
        let mut running = job.start().map_err(|e| e.to_string())?;
        self.running.insert(process, running.control());
        let inputs = self.inputs.clone();
        let tagged = self.spec.output.tag != Tag::None;
        let (rank, host) = (slot.rank, slot.member.host.clone());
        let follow = move || {
            let mut lines = Lines { tagged, rank };
            for event in running.events() {
                if let JobEvent::Output { stream, bytes, .. } = event {
                    lines.write(stream, &bytes);
                }
            }
            let outcome = running.wait();
            let said = match outcome.cause() {
                // Its only rank is not the world's rank 0.
                Cause::Rank(exit) => report::lines(&format!("rank {rank} on {host} {}", how(exit))),
                _ => report::render(&outcome, true),
            };
            let _ = inputs.send(Input::Gone(process, outcome.code().into(), said));
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
        spec.output.tag = Tag::None;
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
        let (code, what) = self.done.take().unwrap_or((250, None));
        self.running.values().for_each(Control::cancel);
        let limit = self.spec.limits.kill_grace + self.spec.limits.drain + FAREWELL;
        let all_gone = async {
            while !self.running.is_empty() {
                match inbox.recv().await {
                    Some(Input::Gone(process, ..)) => drop(self.running.remove(&process)),
                    Some(Input::Event(_) | Input::Script(_)) => {}
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(limit, all_gone).await;
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        let mut text = what.map_or_else(String::new, |what| report::lines(&what));
        if code != 0 {
            text.push_str(&format!("rmpirun: exit code {code}\n"));
        }
        Ending { code, report: text }
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

fn policy(spec: &JobSpec, elastic: &Spec) -> Policy {
    let np = spec.apps.first().and_then(|app| app.np).unwrap_or(1);
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

/// Asks the script for ever, a call after the other.
async fn discover(script: OsString, inputs: UnboundedSender<Input>) {
    loop {
        let next = tokio::time::Instant::now() + PERIOD;
        let name = script.to_string_lossy().into_owned();
        let mut command = tokio::process::Command::new("/bin/sh");
        command.arg("-c").arg(&script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::time::timeout(SCRIPT, command.kill_on_drop(true).output()).await;
        let result = match output {
            Err(_) => {
                Err(format!("host discovery script {name}: it did not end within {} s", SCRIPT.as_secs()))
            }
            Ok(Err(e)) => Err(format!("host discovery script {name}: {e}")),
            Ok(Ok(output)) if output.status.success() => Ok(output.stdout),
            Ok(Ok(output)) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let last = words.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default().to_owned();
                Err(format!("host discovery script {name}: it failed ({}) {last}", output.status))
            }
        };
        if inputs.send(Input::Script(result)).is_err() {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Tells a worker's service; tries its addresses one after the other.
async fn notify(service: &Registration, time: i32, change: Change) -> io::Result<()> {
    let message = notice::message(&service.key, time, change);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &service.addresses {
        let told = async {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.write_all(&message).await?;
            let mut head = [0; notice::HEAD];
            tcp.read_exact(&mut head).await?;
            let length = notice::answer_length(&head).ok_or(io::ErrorKind::InvalidData)?;
            let mut body = vec![0; length];
            tcp.read_exact(&mut body).await?;
            match notice::acknowledged(&service.key, &head, &body) {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            }
        };
        match told.await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Output of a process on our own streams, each line with its rank as horovodrun has it.
struct Lines {
    tagged: bool,
    rank: u32,
}

impl Lines {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut out = Vec::with_capacity(bytes.len() + 32);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            if self.tagged {
                out.extend_from_slice(format!("[{}]<{name}>:", self.rank).as_bytes());
            }
            out.extend_from_slice(line);
        }
        // A closed stream is nobody's loss here: training goes on.
        let _ = match stream {
            Stream::Stdout => io::stdout().lock().write_all(&out).and_then(|()| io::stdout().flush()),
            Stream::Stderr => io::stderr().lock().write_all(&out),
        };
    }
}
