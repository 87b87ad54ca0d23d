//! What goes into a [`super::JobMachine`] and what comes out. The driver carries out actions in the order
//! given and must flush what was sent before it acts on [`JobAction::Close`], [`JobAction::SuspendSelf`] and
//! [`JobAction::Done`].

use crate::link::{LinkId, LinkKind};
use bytes::Bytes;
use rmpi_types::launch::Window;
use rmpi_types::spec::{Limits, OnFailure, Stdin};
use rmpi_types::{JobOutcome, LaunchFault, NodeIdx, NodeLaunch, NodeReport, ProcId, RankExit, Stage};
use rmpi_wire::Frame;
use rmpi_wire::msg::Stream;
use rmpi_wire::service::Spawn;
use std::time::Duration;

/// What failures and limits mean for a job.
#[derive(Clone, Debug)]
pub struct JobPolicy {
    /// Time limits.
    pub limits: Limits,
    /// What a failing rank means for the others.
    pub on_failure: OnFailure,
    /// Go on if at least this many hosts can be used; `None` needs all.
    pub min_hosts: Option<u32>,
    /// Who reads our standard input.
    pub stdin: Stdin,
    /// Go on when our standard output is closed.
    pub ignore_broken_pipe: bool,
    /// Ask what ranks are doing before they are stopped for the time limit, and how long that may take.
    pub stacks_on_timeout: Option<Duration>,
    /// Spawned ranks that fail end only those they were spawned with, and do not count.
    pub children_apart: bool,
    /// Our wall clock at [`crate::Time::ZERO`], microseconds since 1970: ranks' ends on different nodes are
    /// ordered by their clocks' offsets from it.
    pub wall_at_zero_us: u64,
    /// Files every node with ranks is sent before its order.
    pub files: Vec<Bytes>,
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            on_failure: OnFailure::Stop,
            min_hosts: None,
            stdin: Stdin::default(),
            ignore_broken_pipe: false,
            stacks_on_timeout: None,
            children_apart: false,
            wall_at_zero_us: 0,
            files: Vec::new(),
        }
    }
}

/// A host the driver is reaching; its index in the list is its [`NodeIdx`] in events, actions and frames.
/// (`NodeLaunch::node`, dense over the nodes a plan uses, is another number and only for ranks.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEntry {
    /// Name, for messages.
    pub name: String,
    /// The host whose daemon relays for this one; `None` has a link of its own. A parent comes before its
    /// children in the list.
    pub parent: Option<NodeIdx>,
}

/// A plan that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFault {
    /// The exit code it asks for.
    pub code: u8,
    /// What does not fit, and what to do.
    pub message: String,
}

/// What happened around the launcher.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// A host's control stream is open and has exchanged hellos. Again on the same link: a dialled stream was
    /// replaced.
    LinkUp {
        /// Its link.
        link: LinkId,
        /// The host.
        node: NodeIdx,
        /// What the stream is.
        kind: LinkKind,
    },
    /// A frame came.
    Frame {
        /// On this link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// A stream ended.
    LinkEof {
        /// Which.
        link: LinkId,
        /// How: `control stream closed`, an error text, the tail of the daemon's stderr.
        what: String,
    },
    /// Reaching a host has come to this stage; optional, for exact texts at the launch limit.
    Reaching {
        /// The host.
        node: NodeIdx,
        /// What is being done now.
        stage: Stage,
        /// Why it is not the first attempt.
        last: Option<Box<LaunchFault>>,
    },
    /// The driver has given up on a host.
    LaunchFailed {
        /// The host.
        node: NodeIdx,
        /// Why.
        fault: LaunchFault,
    },
    /// The time of [`super::JobMachine::next_timer`] has come. Early and spurious ticks do no harm.
    Tick,
    /// Answer to [`JobAction::Plan`]: what each used host starts. Hosts left out are told to finish.
    Planned(Result<Vec<(NodeIdx, NodeLaunch)>, PlanFault>),
    /// Answer to [`JobAction::PlanSpawn`]: what each node starts, or why it cannot be.
    SpawnPlanned(Result<Vec<(NodeIdx, NodeLaunch)>, String>),
    /// Bytes of our standard input, at most what [`JobAction::ReadStdin`] asked for.
    Stdin(Bytes),
    /// End of our standard input.
    StdinEof,
    /// Output bytes left this process (or were deliberately discarded). Every byte of an
    /// [`JobAction::Output`] is accounted for once, in any portions.
    Written {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// Bytes.
        bytes: u32,
    },
    /// The user's signal to us.
    Signal(i32),
    /// Our terminal has another size.
    Resized(Window),
    /// The embedder cancels the job: as SIGTERM.
    Cancel,
    /// Kubernetes has said how long this pod has from SIGTERM to its end.
    PodGrace(Duration),
    /// The reader of our standard output went away. From then on the driver discards and reports `Written`.
    BrokenPipe,
}

/// What the driver must do.
#[derive(Clone, Debug)]
pub enum JobAction {
    /// Send a frame.
    Send {
        /// On this link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// Flush and close a stream.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Plan the job on the hosts that reported, then feed [`JobEvent::Planned`].
    Plan(Vec<(NodeIdx, NodeReport)>),
    /// Plan more ranks on nodes that run, then feed [`JobEvent::SpawnPlanned`]. One is asked for at a time.
    PlanSpawn {
        /// Their namespace.
        ns: ProcId,
        /// Who asked.
        by: ProcId,
        /// What.
        order: Box<Spawn>,
        /// Nodes that run.
        nodes: Vec<NodeIdx>,
    },
    /// Output for the sinks.
    Output {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// Bytes, possibly none.
        bytes: Bytes,
        /// End of the stream.
        last: bool,
    },
    /// Take of our standard input once what comes next, at most this many bytes, and feed [`JobEvent::Stdin`]
    /// or [`JobEvent::StdinEof`]. Replaced by nothing: one request is open at a time. Where the input can be
    /// looked at without taking it out, it stays there until [`JobAction::StdinRead`].
    ReadStdin {
        /// Bytes.
        up_to: u32,
    },
    /// A rank has read this many bytes more of our standard input: from now on they are gone from it.
    StdinRead {
        /// Bytes.
        bytes: u64,
    },
    /// Something an embedder may want to know.
    Event(JobEventOut),
    /// Stop this process (SIGTSTP); feed `Signal(SIGCONT)` when it goes on.
    SuspendSelf,
    /// The job is over and every output byte was accounted for. Nothing comes after it.
    Done(Box<JobOutcome>),
}

/// Why a job is being stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A rank failed, or called abort.
    Failure(ProcId),
    /// A node was lost.
    NodeLost(NodeIdx),
    /// Ranks could not be started on this node although it was prepared.
    Start(NodeIdx),
    /// The job's time limit.
    Timeout,
    /// A signal, or SIGTERM for a cancel.
    Signal(i32),
    /// Our standard output is closed.
    BrokenPipe,
}

/// Events for embedders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEventOut {
    /// A host's daemon has reported.
    HostUp {
        /// The host.
        node: NodeIdx,
    },
    /// A host cannot be used.
    HostFailed {
        /// The host.
        node: NodeIdx,
        /// Why.
        fault: LaunchFault,
    },
    /// A rank runs.
    RankStarted {
        /// Its host.
        node: NodeIdx,
        /// The rank.
        proc: ProcId,
        /// Its pid there.
        pid: u32,
    },
    /// A rank ended and all its output is here.
    RankExited {
        /// Its host.
        node: NodeIdx,
        /// How.
        exit: RankExit,
    },
    /// A host was lost after the start.
    NodeLost {
        /// The host.
        node: NodeIdx,
        /// What was seen.
        what: String,
    },
    /// The job is being stopped. Sent once, at the first reason; again with `force` when a further signal
    /// kills at once.
    Stopping {
        /// Why.
        why: StopReason,
        /// Killed without grace.
        force: bool,
    },
    /// What a rank is doing, asked for by SIGQUIT.
    Stacks {
        /// Its host.
        node: NodeIdx,
        /// The rank.
        proc: ProcId,
        /// Lines.
        text: Bytes,
    },
    /// A line for the user, from the first node that sent this text.
    Note {
        /// The host.
        node: NodeIdx,
        /// The text.
        text: String,
    },
}
