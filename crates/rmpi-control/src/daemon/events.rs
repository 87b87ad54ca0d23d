//! What goes into a [`super::DaemonMachine`] and what comes out. The driver carries out actions in the order
//! given and must flush what was sent before it carries out [`DaemonAction::Exit`].

use crate::link::{LinkId, LinkKind};
use bytes::Bytes;
use rmpi_types::launch::{NodeEndpoints, Window};
use rmpi_types::{EndpointTable, LaunchFault, NodeIdx, NodeLaunch, NodeReport, ProcId, RankEnd, RankExit};
use rmpi_wire::Frame;
use rmpi_wire::msg::Stream;
use rmpi_wire::rank::{RankRequest, Reply};
use rmpi_wire::service::{Answer, Domain, GatherKey, Request, Scope, Space};
use std::time::Duration;

/// What a daemon is told when it starts.
#[derive(Clone, Debug)]
pub struct DaemonPolicy {
    /// Its index among the hosts if the start command gave it; else its neighbour tells.
    pub node: Option<NodeIdx>,
    /// What the control stream is.
    pub up: LinkKind,
    /// Heartbeat period.
    pub heartbeat: Duration,
    /// Silence after which the launcher, or a child, is lost.
    pub lost: Duration,
    /// SIGTERM to SIGKILL after the launcher was lost.
    pub lost_grace: Duration,
}

impl Default for DaemonPolicy {
    fn default() -> Self {
        Self {
            node: None,
            up: LinkKind::Pipe,
            heartbeat: Duration::from_secs(1),
            lost: Duration::from_secs(6),
            lost_grace: Duration::from_secs(2),
        }
    }
}

/// What a server has learned of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// It uses the library (again).
    Hello,
    /// It has finished with it in good order.
    Finalized,
    /// It ends the job.
    Abort {
        /// Exit code.
        code: i32,
        /// Why, possibly empty.
        message: String,
    },
    /// It cannot go on for a reason of the node's: what is said after its name, with our own code for failures.
    Broken(String),
}

/// What happened on the node.
#[derive(Clone, Debug)]
pub enum DaemonEvent {
    /// The node was examined (once, after the hello); the machine sends the report.
    Report(Box<NodeReport>),
    /// A frame from the launcher or the parent.
    FromUp(Frame),
    /// The control stream ended, with an error or without.
    UpEof,
    /// A dialled control stream was replaced by a new one (hello exchanged).
    UpResumed,
    /// A frame from a child daemon.
    FromChild {
        /// Its link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// This host is being shut down.
    HostEnds,
    /// A child daemon dialled in, or dialled in again on the same link id.
    ChildUp {
        /// Its link.
        link: LinkId,
        /// Who it is (authenticated by the driver).
        node: NodeIdx,
    },
    /// A child's stream ended.
    ChildEof {
        /// Its link.
        link: LinkId,
    },
    /// The time of [`super::DaemonMachine::next_timer`] has come. Early and spurious ticks do no harm.
    Tick,
    /// Answer to [`DaemonAction::Prepare`].
    Prepared(Result<NodeEndpoints, LaunchFault>),
    /// Answer to [`DaemonAction::Spawn`]: pids; on error nothing is left running. What quick ranks do before
    /// this answer may be fed before it.
    Spawned(Result<Vec<(ProcId, u32)>, LaunchFault>),
    /// Output of a rank, whole lines where possible. Bytes count against the credit given by
    /// [`DaemonAction::Read`].
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
    /// The rank has read this many bytes more of what [`DaemonAction::WriteStdin`] gave.
    StdinTaken {
        /// The reader.
        proc: ProcId,
        /// Bytes.
        bytes: u32,
    },
    /// The rank closed its standard input.
    StdinClosed {
        /// The reader.
        proc: ProcId,
    },
    /// Answer to [`DaemonAction::Describe`] for one rank.
    Stacks {
        /// The rank.
        proc: ProcId,
        /// Lines.
        text: Bytes,
    },
    /// `waitpid` of a rank. `abort`, `stopped` are filled in by the machine.
    RankExited(RankExit),
    /// A request from a rank's socket.
    RankRequest {
        /// The rank.
        proc: ProcId,
        /// Its number.
        id: u64,
        /// What.
        request: RankRequest,
        /// Its payload.
        payload: Bytes,
    },
    /// What a server says of a rank of this node.
    Member {
        /// The rank.
        proc: ProcId,
        /// What.
        what: Member,
    },
    /// A rank joins a gather; answered by [`DaemonAction::Gathered`].
    Join {
        /// To be given back; unique.
        token: u64,
        /// The member.
        by: ProcId,
        /// Which gather.
        key: GatherKey,
        /// What it brings.
        data: Bytes,
    },
    /// A server asks the job; answered by [`DaemonAction::Answered`], if at all.
    Request {
        /// To be given back; unique.
        token: u64,
        /// On whose behalf.
        by: ProcId,
        /// What.
        request: Request,
        /// Its payload.
        payload: Bytes,
    },
    /// Answer to [`DaemonAction::Asked`].
    Answer {
        /// As it was asked.
        asker: NodeIdx,
        /// As it was asked.
        id: u64,
        /// The answer.
        answer: Answer,
        /// Its payload.
        payload: Bytes,
    },
    /// A rank's socket ended.
    RankGone {
        /// The rank.
        proc: ProcId,
    },
    /// One line for the user.
    Note(String),
    /// Answer to [`DaemonAction::KillAll`]: no process of the job is left on this node, and every rank's
    /// `RankExited` was given before.
    Empty,
}

/// What the driver must do.
#[derive(Clone, Debug)]
pub enum DaemonAction {
    /// Send towards the launcher.
    SendUp(Frame),
    /// Send to a child.
    SendChild {
        /// Its link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// Flush and close a child's stream. The link id is not used again.
    CloseChild {
        /// Its link.
        link: LinkId,
    },
    /// Keep the next bytes of a file that the coming order names.
    Keep {
        /// Which.
        number: u32,
        /// Bytes, possibly none.
        bytes: Bytes,
        /// It is complete.
        last: bool,
    },
    /// Find programs, bind listeners, make the segment; then feed `Prepared`.
    Prepare(Box<NodeLaunch>),
    /// Start the prepared ranks; then feed `Spawned`. Nothing of their output may be read yet.
    Spawn(EndpointTable),
    /// Bytes for a rank's standard input.
    WriteStdin {
        /// The reader.
        proc: ProcId,
        /// Bytes, at least one.
        bytes: Bytes,
    },
    /// End of file on a rank's standard input, after all bytes given before.
    CloseStdin {
        /// The reader.
        proc: ProcId,
    },
    /// The driver may read this many more bytes of a rank's output. Adds up.
    Read {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// Bytes.
        bytes: u32,
    },
    /// Send a signal to the process groups of these ranks.
    Signal {
        /// Signal number.
        signal: i32,
        /// The ranks, none of which has exited as far as the machine knows.
        procs: Vec<ProcId>,
    },
    /// Give the terminals of ranks this size.
    Resize(Window),
    /// Say what the processes and threads of these ranks are doing: feed `Stacks` for each.
    Describe {
        /// The ranks, as for `Signal`.
        procs: Vec<ProcId>,
    },
    /// SIGKILL every process of the job (descendants, cgroup), again and again until none is left; then feed
    /// `Empty`. Also asked for when all ranks have ended, for what they left behind.
    KillAll,
    /// Answer a rank's request.
    ReplyRank {
        /// The rank.
        proc: ProcId,
        /// The answer.
        reply: Reply,
        /// Its payload.
        payload: Bytes,
    },
    /// Answer to [`DaemonEvent::Request`].
    Answered {
        /// Whose.
        token: u64,
        /// The answer.
        answer: Answer,
        /// Its payload.
        payload: Bytes,
    },
    /// Answer to one [`DaemonEvent::Join`] or several.
    Gathered {
        /// Which gather.
        key: GatherKey,
        /// Whose.
        tokens: Vec<u64>,
        /// The members' data in a row and the gather's number, or the member that is gone.
        result: Result<(Bytes, u64), ProcId>,
    },
    /// A server elsewhere asks one of this node; answered by [`DaemonEvent::Answer`].
    Asked {
        /// To repeat.
        asker: NodeIdx,
        /// To repeat.
        id: u64,
        /// The process it is about.
        of: ProcId,
        /// Which server.
        domain: Domain,
        /// Milliseconds it may take.
        wait_ms: u32,
        /// The question.
        payload: Bytes,
    },
    /// A further namespace, for the servers; its ranks need not be here.
    Space(Box<Space>),
    /// For the servers of this domain.
    Notified {
        /// Which servers.
        domain: Domain,
        /// For whom.
        scope: Scope,
        /// On whose behalf.
        by: ProcId,
        /// What.
        payload: Bytes,
    },
    /// A rank somewhere ended in failure; only after a request to watch.
    RankEnded {
        /// The rank.
        proc: ProcId,
        /// How.
        end: RankEnd,
    },
    /// Nothing is left to do: flush, remove scratch, leave.
    Exit,
}
