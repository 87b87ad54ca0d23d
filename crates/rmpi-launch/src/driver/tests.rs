//! The driver against daemons that are real state machines with made-up ranks, over in-memory streams.

use super::*;
use crate::event::Stream;
use crate::{Delivery, Job};
use bytes::Bytes;
use rmpi_control::{DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, LinkKind};
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{LaunchFault, NodeId, NodeReport, ProcId, RankEnd, RankExit, Stage, Topology};
use rmpi_wire::{Frame, FrameDecoder};
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const DEADLINE: Duration = Duration::from_secs(90);

/// Ranks of program `P`: argument 0 is how many bytes to write, argument 1 the exit code, `never` to hang.
struct FakeDaemon {
    machine: DaemonMachine,
    start: Instant,
    actions: VecDeque<DaemonAction>,
    ranks: Vec<FakeRank>,
    node_id: String,
}

struct FakeRank {
    proc: ProcId,
    left: u64,
    code: Option<u8>,
    ended: bool,
}

impl FakeDaemon {
    fn feed(&mut self, event: DaemonEvent) {
        let mut out = Vec::new();
        self.machine.on(Time(self.start.elapsed()), event, &mut out);
        self.actions.extend(out);
    }

    fn exit(&mut self, rank: usize, end: RankEnd) {
        let proc = self.ranks[rank].proc;
        if std::mem::replace(&mut self.ranks[rank].ended, true) {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.feed(DaemonEvent::Output { proc, stream, bytes: Bytes::new(), last: true });
        }
        self.feed(DaemonEvent::RankExited(RankExit {
            proc,
            pid: 100 + proc.rank.0,
            end,
            abort: None,
            stopped: false,
            oom: false,
            last_stderr: vec!["the end".into()],
            wall_us: 0,
        }));
    }

    /// Carries out one action; gives a frame to send, and whether to leave.
    fn carry_out(&mut self, action: DaemonAction) -> (Option<Frame>, bool) {
        match action {
            DaemonAction::SendUp(frame) => return (Some(frame), false),
            DaemonAction::Exit => return (None, true),
            DaemonAction::Prepare(launch) => {
                let args = &launch.apps[0].args;
                let arg = |i: usize| args[i].to_str().unwrap();
                let rank = |r: &rmpi_types::RankLaunch| FakeRank {
                    proc: ProcId::first(r.rank.0),
                    left: arg(0).parse().unwrap(),
                    code: arg(1).parse().ok(),
                    ended: false,
                };
                self.ranks = launch.ranks.iter().map(rank).collect();
                self.feed(DaemonEvent::Prepared(Ok(NodeEndpoints {
                    node: launch.node,
                    host: launch.host.clone(),
                    addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
                    ranks: launch.ranks.iter().map(|r| rmpi_types::RankEndpoint::plain(r.rank, 1)).collect(),
                    spare_port: None,
                })));
            }
            DaemonAction::Spawn(_) => {
                let pids = self.ranks.iter().map(|r| (r.proc, 100 + r.proc.rank.0)).collect();
                self.feed(DaemonEvent::Spawned(Ok(pids)));
                for i in 0..self.ranks.len() {
                    self.advance(i, 0);
                }
            }
            DaemonAction::Read { proc, stream: Stream::Stdout, bytes } => {
                if let Some(i) = self.ranks.iter().position(|r| r.proc == proc) {
                    self.advance(i, bytes);
                }
            }
            DaemonAction::Signal { signal, procs } => {
                for proc in procs {
                    if let Some(i) = self.ranks.iter().position(|r| r.proc == proc) {
                        self.exit(i, RankEnd::Signaled { signal, core: false });
                    }
                }
            }
            DaemonAction::Describe { procs } => {
                for proc in procs {
                    self.feed(DaemonEvent::Stacks { proc, text: "sh (pid 5) sleeps\n".into() });
                }
            }
            DaemonAction::KillAll => {
                for i in 0..self.ranks.len() {
                    self.exit(i, RankEnd::Signaled { signal: 9, core: false });
                }
                self.feed(DaemonEvent::Empty);
            }
            _ => {}
        }
        (None, false)
    }

    /// A rank writes as much as it has credit for, then ends.
    fn advance(&mut self, i: usize, credit: u32) {
        let rank = &mut self.ranks[i];
        let mut n = rank.left.min(credit.into());
        rank.left -= n;
        let (proc, left, code) = (rank.proc, rank.left, rank.code);
        while n > 0 {
            let part = usize::try_from(n.min(60_000)).unwrap();
            let bytes = Bytes::from(vec![b'x'; part]);
            self.feed(DaemonEvent::Output { proc, stream: Stream::Stdout, bytes, last: false });
            n -= part as u64;
        }
        if let (0, Some(code)) = (left, code) {
            self.exit(i, RankEnd::Exited(code));
        }
    }

    async fn run(mut self, mut stream: DuplexStream) {
        self.feed(DaemonEvent::Report(Box::new(NodeReport {
            id: NodeId(self.node_id.clone()),
            hostname: "fake".into(),
            pid: 1,
            topology: Topology::flat(2),
            home: "/".into(),
            nofile: 1024,
            wall_us: 0,
        })));
        let mut decoder = FrameDecoder::default();
        loop {
            while let Some(action) = self.actions.pop_front() {
                let (frame, exit) = self.carry_out(action);
                let mut bytes = Vec::new();
                frame.iter().for_each(|f| f.encode(&mut bytes).unwrap());
                if stream.write_all(&bytes).await.is_err() || exit {
                    return;
                }
            }
            match tokio::time::timeout(Duration::from_millis(200), stream.read_buf(decoder.buffer())).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return,
                Err(_) => self.feed(DaemonEvent::Tick),
            }
            while let Some(frame) = decoder.next_frame().unwrap() {
                self.feed(DaemonEvent::FromUp(frame));
            }
        }
    }
}

/// Hosts called `sameN` are names of one node; those called `badN` cannot be reached.
fn fake_reach(
    _: &Arc<Config>,
    targets: &[Target],
    control: &mpsc::UnboundedSender<Input>,
    _: Instant,
) -> Vec<reach::Task> {
    let mut tasks: Vec<reach::Task> = Vec::new();
    for target in targets {
        let (node, control, name) = (target.node, control.clone(), target.host.name.clone());
        tasks.push(Box::pin(async move {
            if name.starts_with("bad") {
                let fault = LaunchFault::fatal(Stage::Tcp, "connection refused");
                return drop(control.send(Input::GiveUp { node, fault }));
            }
            let node_id = if name.starts_with("same") { "same".to_owned() } else { name };
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let start = Instant::now();
            let machine = DaemonMachine::new(DaemonPolicy::default(), Time::ZERO);
            let daemon = FakeDaemon { machine, start, actions: VecDeque::new(), ranks: Vec::new(), node_id };
            tokio::spawn(daemon.run(theirs));
            let (reader, writer) = tokio::io::split(ours);
            let channel = Channel {
                carrier: Carrier::Stream(Box::new(reader), Box::new(writer)),
                kind: LinkKind::Pipe,
                reached_at: None,
                durable: false,
                epitaph: None,
                keep: Arc::new(()),
            };
            let _ = control.send(Input::Up { node, channel: Box::new(channel) });
        }));
    }
    tasks
}

/// Runs `ranks` fake ranks on these hosts of two slots; gives outcome and the bytes each rank wrote.
fn run_job(hosts: &[&str], ranks: u32, args: [&str; 2]) -> (Outcome, Vec<Event>) {
    let mut job = Job::builder().program("P").args(args).ranks(ranks).output(Delivery::Events);
    job = hosts.iter().fold(job, |job, host| job.host(*host, 2));
    let job = job.daemon(crate::DaemonSource::ThisExecutable).build().unwrap();
    let (events, stream) = Events::channel();
    let (control, inbox) = mpsc::unbounded_channel();
    let runner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let job = run_with(Arc::new(job.config), events, control, inbox, fake_reach);
        runtime.block_on(async { tokio::time::timeout(DEADLINE, job).await })
    });
    let events = stream.into_iter().map(|(event, _receipt)| event).collect();
    (runner.join().unwrap().expect("the job ends in time"), events)
}

fn written(events: &[Event], rank: u32) -> usize {
    let bytes = |e: &Event| match e {
        Event::Output { proc, bytes, .. } if proc.rank.0 == rank => bytes.len(),
        _ => 0,
    };
    events.iter().map(bytes).sum()
}

#[test]
fn output_far_above_the_credit_arrives_and_all_ends_well() {
    let (outcome, events) = run_job(&["n1", "n2"], 4, ["5000000", "0"]);
    assert!(outcome.success(), "{}", outcome.report());
    assert_eq!((0..4).map(|r| written(&events, r)).collect::<Vec<_>>(), [5_000_000; 4]);
    let started = events.iter().filter(|e| matches!(e, Event::RankStarted { .. })).count();
    let exited = events.iter().filter(|e| matches!(e, Event::RankExited(_))).count();
    assert_eq!((started, exited), (4, 4));
    assert_eq!(outcome.host_of(rmpi_types::Rank(2)), Some("n2"));
    assert!(outcome.hosts.iter().all(|h| h.state == HostState::Ready));
}

#[test]
fn two_names_of_one_node_add_their_slots_up() {
    let (outcome, _) = run_job(&["same1", "same2"], 4, ["0", "0"]);
    assert!(outcome.success(), "{}", outcome.report());
    assert!((0..4).all(|r| outcome.host_of(rmpi_types::Rank(r)) == Some("same1")));
}

#[test]
fn the_first_failure_is_the_cause_and_the_rest_is_stopped() {
    let (outcome, events) = run_job(&["n1", "n2"], 3, ["10", "7"]);
    assert_eq!(outcome.code(), 7, "{}", outcome.report());
    assert!(matches!(outcome.cause(), Cause::Rank(exit) if exit.last_stderr == ["the end"]));
    assert!(events.iter().any(|e| matches!(e, Event::Stopping { .. })));
}

#[test]
fn one_bad_host_is_a_table_of_all() {
    let (outcome, _) = run_job(&["n1", "bad1", "n2"], 6, ["0", "0"]);
    assert_eq!(outcome.code(), 255);
    let report = outcome.report();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "rmpirun: 3 hosts, 1 could not be used; nothing was started");
    assert!(lines[1].starts_with("  n1     ok      "), "{report}");
    assert_eq!(lines[3], "  bad1   tcp     connection refused");
}

#[test]
fn a_plan_that_does_not_fit_is_told_and_starts_nothing() {
    let (outcome, events) = run_job(&["n1"], 3, ["0", "0"]);
    assert_eq!(outcome.code(), 2, "{}", outcome.report());
    assert!(!events.iter().any(|e| matches!(e, Event::RankStarted { .. })));
}
