//! The worker: drives the sans-IO machine on one thread. It feeds what happens (frames, output, exits,
//! requests, time) and carries out the actions that come back, in order. Invariants: it runs on the process's
//! main thread, which creates all ranks (their parent-death signal hangs on it); nothing here waits but the
//! one `select` in [`run`].

mod act;
mod dialled;
mod ported;
mod reap;
mod serve;
mod up;

use crate::dialling::Dialling;
use crate::env::Vars;
use crate::guard::HOST_ENDS;
use crate::kvs::Requests;
use crate::lines::Tail;
use crate::node::{self, FileLimit, Survey};
use crate::outfiles::OutFile;
use crate::prepare::{Prepared, RankEnds};
use crate::spawn::Batch;
use crate::staging::Staging;
use crate::status::Status;
use crate::stdin::{self, Intake, Taken};
use crate::stdio::{self, Credit};
use crate::uplink::{Carrier, End, Queue};
use crate::{family, passwd, sys};
use bytes::Bytes;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rmpi_control::{DaemonEvent, DaemonMachine, DaemonPolicy, LinkKind, Member, Time};
use rmpi_types::{NodeReport, ProcId, RankExit, Topology};
use rmpi_wire::msg::Stream;
use serve::{Input, Serving};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use up::UpTasks;
pub(crate) use up::dialled;

/// Limit on ending what is left when the guard is gone.
const ORPHAN_LIMIT: Duration = Duration::from_secs(8);
/// Limit on writing the last frames.
const FLUSH: Duration = Duration::from_secs(5);

/// One rank as the driver sees it.
struct RankState {
    credits: [Rc<Credit>; 2],
    stdin: Option<mpsc::UnboundedSender<Bytes>>,
    intake: Option<Rc<Intake>>,
    requests: Option<Requests>,
    tail: Rc<RefCell<Tail>>,
    stderr_done: bool,
    requests_done: bool,
    pid: i32,
    alive: bool,
    gone: Option<(std::sync::Arc<OwnedFd>, u32)>,
    /// Our end of its terminal, if it has one.
    terminal: Option<OwnedFd>,
}

/// A batch on its way, and a copy of its report pipe that the runtime watches.
struct Starting {
    batch: Batch,
    watch: AsyncFd<OwnedFd>,
    procs: Vec<ProcId>,
}

/// An end that waits for the rank's last words: on stderr, and an abort in its request socket or at the port.
struct Waiting {
    exit: RankExit,
    until: Instant,
}

/// A killing of everything that is under way.
struct Sweeping {
    give_up: Instant,
    next: Instant,
}

struct Worker {
    machine: DaemonMachine,
    start: Instant,
    up: Rc<Queue>,
    events: mpsc::UnboundedSender<Input>,
    pending: VecDeque<DaemonEvent>,
    env: Vars,
    files: FileLimit,
    topology: Topology,
    oom_before: u64,
    /// Signals that ranks get with their default action.
    reset: u64,
    staging: Staging,
    prepared: Option<Prepared>,
    programs: HashMap<ProcId, std::ffi::OsString>,
    starting: Option<Starting>,
    /// Ranks were started before.
    started: bool,
    /// Signals are for the ranks' own processes only.
    signal_direct: bool,
    ranks: HashMap<ProcId, RankState>,
    serving: Serving,
    door: Option<dialled::Door>,
    ported: Option<ported::Ported>,
    by_pid: HashMap<i32, ProcId>,
    waiting: Vec<Waiting>,
    sweeping: Option<Sweeping>,
    exit: bool,
}

/// Runs the worker to its end; the exit code.
pub(crate) fn main(control: (OwnedFd, OwnedFd), guard: OwnedFd) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.and_then(|runtime| {
        LocalSet::new().block_on(&runtime, async {
            let up = Carrier::Stream(End::new(control.0)?, End::new(control.1)?);
            serve(up, guard, node::raise_files(), Survey::WHOLE).await
        })
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&error);
            rmpi_types::exit::INTERNAL
        }
    }
}

/// Serves a launcher to the end of its stream, of `guard`, or of the job. Runs on the process's main thread, in a
/// `LocalSet`; children of this process that are no ranks are reaped unseen. `files` are the limits for ranks,
/// `survey` says how closely the node is to be examined.
///
/// # Errors
/// What the kernel refuses, and a launcher that does not greet as one.
pub(crate) async fn serve(
    up: Carrier<impl AsyncRead + Unpin + 'static, impl AsyncWrite + Unpin + 'static>,
    guard: OwnedFd,
    files: FileLimit,
    survey: Survey,
) -> io::Result<()> {
    let done = run(up, guard, files, survey, None).await;
    // Normally there is nothing; whatever the way out, nothing may stay.
    family::end_all(ORPHAN_LIMIT, |_| {});
    done
}

async fn run(
    mut carrier: Carrier<impl AsyncRead + Unpin + 'static, impl AsyncWrite + Unpin + 'static>,
    guard: OwnedFd,
    files: FileLimit,
    survey: Survey,
    redial_as: Option<Dialling>,
) -> io::Result<()> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.add(HOST_ENDS);
    children.thread_block()?;
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut children = sys::watch_signals(children)?;
    let guard = stdio::nonblocking(guard)?;
    carrier.say_hello().await.map_err(io::Error::other)?;
    // The launcher's hello is on its way meanwhile.
    let status = Status::get();
    let report = node::report(files.hard, &status.cpus.clone().unwrap_or_default(), survey);
    tokio::select! {
        heard = carrier.hear_hello() => heard.map_err(io::Error::other)?,
        _ = guard.readable() => return Ok(()),
    }
    let (events, mut inbox) = mpsc::unbounded_channel();
    let up = Rc::new(Queue::default());
    let mut tasks = UpTasks::start(0, carrier, &up, &events);
    let mut worker = Worker::new(up, events, files, redial_as.is_some());
    worker.reset = status.not_default();
    worker.topology = report.topology.clone();
    worker.feed(DaemonEvent::Report(Box::new(NodeReport { wall_us: node::wall_us(), ..report })));
    while !worker.exit {
        let due = worker.due();
        tokio::select! {
            biased;
            _ = guard.readable() => return Ok(()),
            ready = children.readable_mut() => {
                let mut ready = ready?;
                let mut host_ends = false;
                while let Ok(Some(info)) = ready.get_inner_mut().read_signal() {
                    host_ends |= info.ssi_signo == HOST_ENDS as u32;
                }
                ready.clear_ready();
                if host_ends {
                    worker.feed(DaemonEvent::HostEnds);
                }
                worker.reap();
            }
            input = inbox.recv() => match input {
                Some(Input::Event(event)) => worker.feed(event),
                Some(Input::Took(proc)) => worker.took(proc),
                Some(Input::UpEnded(number)) if tasks.ended(number, &worker.up) => {
                    worker.feed(DaemonEvent::UpEof);
                    if let Some(dialling) = &redial_as {
                        spawn_local(up::redial(dialling.clone(), worker.events.clone()));
                    }
                }
                Some(Input::Redialled(stream)) => {
                    let (input, output) = tokio::io::split(*stream);
                    worker.up.renew();
                    let carrier = Carrier::Stream(input, output);
                    tasks = UpTasks::start(tasks.number + 1, carrier, &worker.up, &worker.events);
                    worker.feed(DaemonEvent::UpResumed);
                }
                Some(Input::Bytes(proc, bytes)) => worker.pmi_bytes(proc, bytes),
                Some(Input::Accepted(stream)) => worker.dialled_in(stream),
                Some(Input::PmiAccepted(stream)) => worker.pmi_dialled_in(stream),
                Some(Input::Heard(conn, bytes)) => worker.dialled_heard(conn, bytes),
                Some(Input::HungUp(conn)) => worker.dialled_end(conn),
                Some(Input::UpEnded(_)) | None => {}
            },
            () = started(worker.starting.as_ref()) => worker.collect(),
            () = sleep_until(due) => worker.tick(),
        }
    }
    let _ = tokio::time::timeout(FLUSH, worker.up.flushed()).await;
    Ok(())
}

/// Writes output to a file of this node; gives how many bytes nobody else is to have. A rank whose file cannot be
/// written is stopped, and the job with it: what it says would be lost.
async fn keep(file: &OutFile, proc: ProcId, bytes: &Bytes, events: &mpsc::UnboundedSender<Input>) -> usize {
    if !bytes.is_empty()
        && let Err(message) = file.write(bytes.clone()).await
    {
        let what = Member::Broken(message);
        let _ = events.send(DaemonEvent::Member { proc, what }.into());
    }
    if file.copy { 0 } else { bytes.len() }
}

/// Ready when the batch has something to say; never without one.
async fn started(starting: Option<&Starting>) {
    match starting {
        Some(starting) => {
            if let Ok(mut ready) = starting.watch.readable().await {
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    fn new(up: Rc<Queue>, events: mpsc::UnboundedSender<Input>, files: FileLimit, dialled: bool) -> Self {
        let up_is = if dialled { LinkKind::Dialled } else { LinkKind::Pipe };
        Self {
            machine: DaemonMachine::new(DaemonPolicy { up: up_is, ..DaemonPolicy::default() }, Time::ZERO),
            start: Instant::now(),
            up,
            events,
            pending: VecDeque::new(),
            env: std::env::vars_os().collect(),
            files,
            topology: Topology::default(),
            oom_before: 0,
            reset: u64::MAX,
            staging: Staging::default(),
            prepared: None,
            programs: HashMap::new(),
            starting: None,
            started: false,
            signal_direct: false,
            ranks: HashMap::new(),
            serving: Serving::default(),
            door: None,
            ported: None,
            by_pid: HashMap::new(),
            waiting: Vec::new(),
            sweeping: None,
            exit: false,
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed())
    }

    /// When something is due if nothing happens before.
    fn due(&self) -> Option<Instant> {
        let machine = self.machine.next_timer().map(|t| self.start + t.0);
        let sweep = self.sweeping.as_ref().map(|s| s.next);
        let waiting = self.waiting.iter().map(|w| w.until).min();
        let servers = self.servers_due().map(|t| self.start + t);
        [machine, sweep, waiting, servers].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.release(false);
        if self.sweeping.as_ref().is_some_and(|s| s.next <= now) {
            self.sweep();
        }
        if self.machine.next_timer().is_some_and(|t| t <= self.now()) {
            self.pending.push_back(DaemonEvent::Tick);
        }
        if self.servers_due().is_some_and(|t| t <= self.now().0) {
            self.tell_servers(rmpi_pmi::api::Event::Tick);
        }
        self.drain();
    }

    /// Gives the machine an event and carries out all that follows.
    fn feed(&mut self, event: DaemonEvent) {
        let said_all = match &event {
            DaemonEvent::Output { proc, stream: Stream::Stderr, last: true, .. } => Some((*proc, true)),
            DaemonEvent::RankGone { proc } => Some((*proc, false)),
            _ => None,
        };
        if let Some((proc, false)) = said_all {
            self.pmi_eof(proc);
        }
        self.pending.push_back(event);
        if let Some((proc, stderr)) = said_all {
            if let Some(rank) = self.ranks.get_mut(&proc) {
                rank.stderr_done |= stderr;
                rank.requests_done |= !stderr;
            }
            self.release(false);
        }
        self.drain();
    }

    fn drain(&mut self) {
        let mut actions = Vec::new();
        while let Some(event) = self.pending.pop_front() {
            self.machine.on(self.now(), event, &mut actions);
            for action in actions.drain(..) {
                self.act(action);
            }
        }
    }

    /// Begins to serve a rank that was started.
    fn adopt(&mut self, ends: RankEnds, pid: i32, window: u32) -> io::Result<()> {
        let proc = ends.proc;
        let tail = Rc::new(RefCell::new(Tail::default()));
        let credits = [Rc::new(Credit::default()), Rc::new(Credit::default())];
        let terminal = ends.stdout.is_terminal().then(|| ends.stdout.try_clone()).transpose()?;
        let streams = [(Stream::Stdout, ends.stdout, None), (Stream::Stderr, ends.stderr, Some(&tail))];
        for (((stream, fd, tail), file), credit) in streams.into_iter().zip(ends.files).zip(&credits) {
            let from = stdio::readable(fd)?;
            let (events, tail) = (self.events.clone(), tail.map(Rc::clone));
            let give = async move |bytes: Bytes, last| {
                let here = match &file {
                    Some(file) => keep(file, proc, &bytes, &events).await,
                    None => 0,
                };
                let bytes = if here > 0 { Bytes::new() } else { bytes };
                let _ = events.send(DaemonEvent::Output { proc, stream, bytes, last }.into());
                here
            };
            spawn_local(stdio::read_output(from, Rc::clone(credit), window, tail, give));
        }
        let (stdin, intake) = ends.stdin.map(|fd| self.serve_stdin(proc, fd)).transpose()?.unzip();
        let requests = self.serve_requests(proc, ends.kvs)?;
        let state = RankState {
            credits,
            stdin,
            intake,
            requests: Some(requests),
            tail,
            stderr_done: false,
            requests_done: false,
            pid,
            alive: true,
            gone: ends.gone,
            terminal,
        };
        self.ranks.insert(proc, state);
        self.by_pid.insert(pid, proc);
        Ok(())
    }

    fn serve_stdin(
        &self,
        proc: ProcId,
        fd: OwnedFd,
    ) -> io::Result<(mpsc::UnboundedSender<Bytes>, Rc<Intake>)> {
        let (send, receive) = mpsc::unbounded_channel();
        let events = self.events.clone();
        let report = move |taken| {
            let _ = events.send(match taken {
                Taken::More => Input::Took(proc),
                Taken::Closed => DaemonEvent::StdinClosed { proc }.into(),
            });
        };
        let fd = Rc::new(stdio::nonblocking(fd)?);
        let intake = Rc::new(Intake::of(&fd));
        spawn_local(stdin::write(fd, Rc::clone(&intake), receive, report));
        Ok((send, intake))
    }

    fn serve_requests(&self, proc: ProcId, fd: OwnedFd) -> io::Result<Requests> {
        let events = self.events.clone();
        Requests::serve(proc, fd, move |proc, what| {
            serve::heard(proc, what, |input| drop(events.send(input)));
        })
    }

    /// The node's folder for what goes again.
    fn temporary(&self) -> &std::path::Path {
        let named = self.env.get(std::ffi::OsStr::new("TMPDIR")).map(std::path::Path::new);
        named.filter(|t| t.is_absolute()).unwrap_or(std::path::Path::new("/tmp"))
    }

    fn home() -> std::path::PathBuf {
        passwd::home().into()
    }
}
