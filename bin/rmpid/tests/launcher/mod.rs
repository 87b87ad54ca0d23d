//! A launcher by script: speaks the control protocol with a real daemon over pipes.

#![allow(clippy::unwrap_used, reason = "a test's helper: what is unexpected is the test's failure")]

use bytes::Bytes;
use rmpi_types::launch::{AppLaunch, EnvMerge, RankLaunch, StdioKind};
use rmpi_types::{EndpointTable, JobId, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankExit};
use rmpi_wire::hello::{self, Role};
use rmpi_wire::msg::{Pulse, Stream};
use rmpi_wire::{Dest, Down, Frame, FrameDecoder, Hello, LinkMsg, Message, Origin, Up};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
static JOBS: AtomicU64 = AtomicU64::new(1);

/// One daemon and our side of its stream.
pub(crate) struct Launcher {
    pub(crate) daemon: Child,
    pub(crate) report: Box<NodeReport>,
    pub(crate) job: JobId,
    input: Option<ChildStdin>,
    frames: Receiver<Frame>,
    seq: u64,
}

/// What a job's ranks did until the node was empty.
#[derive(Default, Debug)]
pub(crate) struct Story {
    pub(crate) output: HashMap<(u32, Stream), Vec<u8>>,
    pub(crate) exits: Vec<RankExit>,
    pub(crate) notes: Vec<String>,
    pub(crate) stdin_taken: u32,
}

impl Story {
    pub(crate) fn text(&self, rank: u32, stream: Stream) -> String {
        String::from_utf8_lossy(self.output.get(&(rank, stream)).map_or(&[][..], Vec::as_slice)).into_owned()
    }
}

impl Launcher {
    pub(crate) fn start() -> Self {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_rmpid"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = daemon.stdin.take().unwrap();
        let mut output = daemon.stdout.take().unwrap();
        input.write_all(&Hello::ours(Role::Launcher, [1; 16]).encode()).unwrap();
        let mut theirs = [0; hello::LEN];
        output.read_exact(&mut theirs).unwrap();
        assert_eq!(Hello::decode(&theirs).unwrap().role, Role::Daemon);
        let (send, frames) = channel();
        std::thread::spawn(move || {
            let mut decoder = FrameDecoder::default();
            let mut chunk = vec![0; 64 << 10];
            while let Ok(n @ 1..) = output.read(&mut chunk) {
                decoder.push(&chunk[..n]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    if send.send(frame).is_err() {
                        return;
                    }
                }
            }
        });
        let mut job = [0; 16];
        job[..4].copy_from_slice(&std::process::id().to_le_bytes());
        job[4..12].copy_from_slice(&JOBS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let report = Box::new(NodeReport {
            id: rmpi_types::NodeId(String::new()),
            hostname: String::new(),
            pid: 0,
            topology: rmpi_types::Topology::default(),
            home: "/".into(),
            nofile: 0,
            wall_us: 0,
        });
        let mut launcher = Self { daemon, report, job: JobId(job), input: Some(input), frames, seq: 0 };
        launcher.link(LinkMsg::YouAre { node: NodeIdx(0), pulse: Pulse::default() });
        let Some((Up::Report(report), _)) = launcher.next() else { panic!("no report") };
        launcher.report = report;
        launcher
    }

    fn write(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        // A daemon that is gone is what some tests are about.
        let _ = self.input.as_mut().unwrap().write_all(&bytes);
    }

    pub(crate) fn link(&mut self, msg: LinkMsg) {
        let frame = Message::Link(msg).frame(Origin::Launcher, Dest::Neighbour, Bytes::new()).unwrap();
        self.write(&frame);
    }

    pub(crate) fn send(&mut self, msg: Down, payload: &'static [u8]) {
        let dest = Dest::node(NodeIdx(0));
        let mut frame = Message::Down(msg).frame(Origin::Launcher, dest, payload.into()).unwrap();
        self.seq += 1;
        frame.seq = self.seq;
        self.write(&frame);
    }

    /// Closes the stream towards the daemon, as a dying launcher does.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// The next message; `None` at the end of the stream. Keeps the link alive meanwhile.
    #[allow(clippy::should_implement_trait, reason = "it panics after a limit")]
    pub(crate) fn next(&mut self) -> Option<(Up, Bytes)> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match self.frames.recv_timeout(Duration::from_secs(1)) {
                Ok(frame) => match Message::of(&frame).unwrap() {
                    Message::Up(up) => return Some((up, frame.payload)),
                    Message::Link(_) => {}
                    Message::Down(down) => panic!("daemon says {down:?}"),
                },
                Err(RecvTimeoutError::Timeout) => {
                    let received = 0;
                    self.link(LinkMsg::Heartbeat { received });
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        panic!("nothing from the daemon for {LIMIT:?}");
    }

    /// Sends the order; the endpoint table, or the fault.
    pub(crate) fn prepare(&mut self, launch: NodeLaunch) -> Result<EndpointTable, rmpi_types::LaunchFault> {
        self.send(Down::Prepare(Box::new(launch)), b"");
        loop {
            match self.next().unwrap().0 {
                Up::Prepared(endpoints) => return Ok(EndpointTable { nodes: vec![endpoints] }),
                Up::Failed(fault) => return Err(fault),
                Up::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Prepares and starts; pids by rank.
    pub(crate) fn run(&mut self, launch: NodeLaunch) -> Vec<u32> {
        let table = self.prepare(launch).unwrap();
        self.send(Down::Start(table), b"");
        match self.next().unwrap().0 {
            Up::Started(pids) => pids.into_iter().map(|(_, pid)| pid).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Follows the job to its end, returning credit for all output at once.
    pub(crate) fn follow(&mut self) -> Story {
        let mut story = Story::default();
        while !self.step(&mut story, true) {}
        story
    }

    /// Takes one message in; whether the node is empty.
    pub(crate) fn step(&mut self, story: &mut Story, credit: bool) -> bool {
        let (up, payload) = self.next().expect("stream ended early");
        match up {
            Up::Output { proc, stream, .. } => {
                story.output.entry((proc.rank.0, stream)).or_default().extend_from_slice(&payload);
                if credit && !payload.is_empty() {
                    let bytes = u32::try_from(payload.len()).unwrap();
                    self.send(Down::Credit { proc, stream, bytes }, b"");
                }
            }
            Up::Exited { exit, .. } => story.exits.push(exit),
            Up::Note(text) => story.notes.push(text),
            Up::StdinCredit { bytes, .. } => story.stdin_taken += bytes,
            Up::Ended => return true,
            Up::Gone { .. } | Up::Abort { .. } => {}
            other => panic!("{other:?}"),
        }
        false
    }

    /// Tells the daemon to leave and waits for it.
    pub(crate) fn finish(mut self) {
        self.send(Down::Finish, b"");
        assert!(self.next().is_none());
        assert!(self.daemon.wait().unwrap().success());
    }

    /// Waits until no process of the job and neither half of the daemon is left.
    pub(crate) fn assert_gone(&mut self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let _ = self.daemon.try_wait();
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many processes of job and daemon are there.
    pub(crate) fn assert_left(&self, processes: usize) {
        let deadline = Instant::now() + LIMIT;
        while self.left().len() < processes {
            assert!(Instant::now() < deadline, "only {:?}", self.left());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is left of the job: processes whose environment has its id, the daemon's halves.
    pub(crate) fn left(&self) -> Vec<String> {
        let marker = format!("RMPIRUN_JOB_ID={}", self.job);
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let ours = pid == self.report.pid || pid == self.daemon.id();
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if ours || environ.split(|&b| b == 0).any(|v| v == marker.as_bytes()) {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                left.push(stat.chars().take(40).collect());
            }
        }
        left
    }

    /// `n` ranks of `sh -c script`.
    pub(crate) fn shell(&self, script: &str, n: u32) -> NodeLaunch {
        let app = AppLaunch {
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            wdir: "/tmp".into(),
            wdir_explicit: true,
            search: Vec::new(),
            merge: EnvMerge::Fill,
            env: vec![("FROM_LAUNCHER".into(), "yes".into())],
            set: Vec::new(),
            edits: Vec::new(),
        };
        let rank = |r| RankLaunch { rank: Rank(r), app: 0, local_rank: r, cpus: None, stdin: r == 0 };
        NodeLaunch {
            job: self.job,
            ns: ProcId::default(),
            node: NodeIdx(0),
            nodes: 1,
            size: n,
            universe: n,
            host: "here".into(),
            apps: vec![app],
            ranks: (0..n).map(rank).collect(),
            layout: vec![(n, 1)],
            mpi: rmpi_types::launch::Mpi::default(),
            reached_at: None,
            ifaces: Vec::new(),
            port_range: None,
            key: [1; 32],
            data: rmpi_types::DataPlane::default(),
            oversubscribed: false,
            stdio: StdioKind::Pipe,
            kill_grace_ms: 1000,
            drain_ms: 1000,
            extras: Default::default(),
            output_credit: 128 << 10,
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
