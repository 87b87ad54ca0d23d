//! Messages of the control protocol, coded inside frames. `Down` goes from the launcher towards daemons,
//! `Up` from a daemon towards the launcher, `LinkMsg` between neighbours only.
//!
//! The life of a namespace on one node:
//!
//! ```text
//! daemon    Report                          who I am, what I have
//! launcher            File*                 what ranks need and the node may not have
//! launcher            Prepare               ranks, environment, key
//! daemon    Prepared | Failed               listeners bound, segment made, programs found
//! launcher            Start                 the whole endpoint table
//! daemon    Started                         pids
//!           Output*, Exited*, Request*, Gather*      until every rank is gone
//! launcher            Credit*, Stdin*, Answer*, Gathered*, Signal*, Stop*, Kill*
//! daemon    Ended                           no process of the namespace is left
//! launcher            Finish                clean up and exit
//! ```

use crate::codec::{self, WireError};
use crate::frame::{Dest, Frame, Kind, Origin};
use crate::service::{Answer, Domain, GatherKey, Request, Scope, Space};
use bytes::Bytes;
use rmpi_types::launch::{NodeEndpoints, Window};
use rmpi_types::{EndpointTable, LaunchFault, NodeIdx, NodeLaunch, NodeReport, ProcId, RankEnd, RankExit};
use serde::{Deserialize, Serialize};

/// An output stream of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// From the launcher to daemons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// Prepare these ranks: find programs, bind listeners, make the segment.
    Prepare(Box<NodeLaunch>),
    /// Start the prepared ranks; the table is complete for their namespace.
    Start(EndpointTable),
    /// Payload: bytes for this rank's standard input. An empty payload is end of file.
    Stdin {
        /// The reader.
        proc: ProcId,
    },
    /// The launcher has written this many output bytes of a stream: the rank may send as many more.
    Credit {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// Bytes.
        bytes: u32,
    },
    /// Deliver a signal to the process groups of ranks.
    Signal {
        /// Signal number.
        signal: i32,
        /// The namespace they are of (`rank` is not used); `None` for all.
        of: Option<ProcId>,
    },
    /// Stop all ranks: `signal` now, SIGTERM after the grace if `signal` was another, then SIGKILL.
    Stop {
        /// First signal.
        signal: i32,
        /// Milliseconds between the steps.
        grace_ms: u32,
        /// Say first, as notes, which ranks have not come to gathers that others wait in.
        name_absent: bool,
    },
    /// SIGKILL every process of the job at once.
    Kill,
    /// Answer to [`Up::Request`], payload as the request demands.
    Answer {
        /// The request's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// What a gather brought: payload is the data of all members, cut anywhere into pieces of at most
    /// [`crate::frame::MAX_PAYLOAD`] bytes.
    Gathered {
        /// Which.
        key: GatherKey,
        /// A number no other gather of the job has.
        serial: u64,
        /// The last piece.
        last: bool,
    },
    /// A gather cannot complete, nor any later round of it: this member is gone.
    GatherLost {
        /// Which.
        key: GatherKey,
        /// The member.
        lost: ProcId,
    },
    /// A server of another node asks one of this node; answered by [`Up::Answer`]. Payload: the question.
    Asked {
        /// The asking node.
        asker: NodeIdx,
        /// Its request's number.
        id: u64,
        /// The process it is about.
        of: ProcId,
        /// Which server.
        domain: Domain,
        /// Milliseconds it may take.
        wait_ms: u32,
    },
    /// A namespace comes into being beside those that run: for the servers of all nodes, before it starts.
    Space(Box<Space>),
    /// Payload: for the servers of this domain.
    Notified {
        /// Which servers.
        domain: Domain,
        /// For whom.
        scope: Scope,
        /// On whose behalf.
        by: ProcId,
    },
    /// A rank somewhere ended in failure; only for nodes that watch.
    RankEnded {
        /// The rank.
        proc: ProcId,
        /// How.
        end: RankEnd,
    },
    /// The launcher is about to stop itself (SIGTSTP): watch only for end of file until it speaks again.
    Pause,
    /// Clean up and exit: nothing more will come.
    Finish,
    /// Before `Prepare`. Payload: the next bytes of a file for this node's ranks, which `Prepare` names.
    File {
        /// Which, from 0, one after the other.
        number: u32,
        /// No more will come of it.
        last: bool,
    },
    /// The launcher's terminal has another size: so have those of the ranks.
    Resize(Window),
}

/// From a daemon to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// First message.
    Report(Box<NodeReport>),
    /// Ready to start.
    Prepared(NodeEndpoints),
    /// Cannot start; nothing was started here.
    Failed(LaunchFault),
    /// Ranks run: `(rank's process, pid)`.
    Started(Vec<(ProcId, u32)>),
    /// Payload: output bytes, in order. Whole lines but for lines above 64 KiB and a last one without newline.
    Output {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// No more will come of this stream.
        last: bool,
    },
    /// The rank has read this much of its standard input: as much more may be sent.
    StdinCredit {
        /// The reader.
        proc: ProcId,
        /// Bytes; 0 says it closed its standard input.
        bytes: u32,
    },
    /// A rank ended, but not all of its output was read yet: failures count from now, not only when a slow
    /// reader has taken the rest. Sent only for ranks that failed or whose pipes stay open.
    Gone {
        /// How it ended.
        exit: RankExit,
    },
    /// A rank ended *and* its output pipes are drained.
    Exited {
        /// How it ended.
        exit: RankExit,
    },
    /// A rank calls abort: the job is to stop; its exit will carry the same.
    Abort {
        /// The caller.
        proc: ProcId,
        /// Its code.
        code: i32,
        /// Its message.
        message: String,
    },
    /// A request that the daemon cannot answer alone, payload as the request demands.
    Request {
        /// Number to repeat in the answer; unique on the node.
        id: u64,
        /// On whose behalf.
        by: ProcId,
        /// The request.
        request: Request,
    },
    /// The answer to [`Down::Asked`], payload the value.
    Answer {
        /// Who asked.
        asker: NodeIdx,
        /// Its request's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// All members on this node have joined a gather: payload is what they bring, cut anywhere into pieces of
    /// at most [`crate::frame::MAX_PAYLOAD`] bytes. Later rounds of a key come after earlier ones.
    Gather {
        /// Which.
        key: GatherKey,
        /// The last piece.
        last: bool,
    },
    /// Some but not all members on this node have been waiting in a gather for a while: tell this node when it
    /// cannot complete.
    GatherWaits {
        /// Which.
        key: GatherKey,
    },
    /// A daemon that this one relays for is lost.
    Lost {
        /// The node.
        node: NodeIdx,
        /// What was seen.
        what: String,
    },
    /// One line for the user (`rmpirun: note: …`), folded over nodes with the same text.
    Note(String),
    /// No process of the namespace is left on the node; the worker will exit after `Finish`.
    Ended,
    /// Answer to SIGQUIT. Payload: lines that say what the rank's processes and threads are doing.
    Stacks {
        /// The rank.
        proc: ProcId,
    },
}

/// How often the ends of a link give a sign of life, and after how much silence the other end is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Milliseconds between heartbeats.
    pub period_ms: u32,
    /// Milliseconds of silence that are a loss.
    pub lost_ms: u32,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { period_ms: 1000, lost_ms: 6000 }
    }
}

/// Between the two ends of one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkMsg {
    /// Sign of life; says which sequence number was received last, so that the sender may forget.
    Heartbeat {
        /// Highest sequence number received in order.
        received: u64,
    },
    /// After a dialled-back stream was replaced: send again from `received + 1`.
    Resume {
        /// Highest sequence number received in order.
        received: u64,
    },
    /// This link's other end is this node (first word from a relaying parent to its child).
    YouAre {
        /// Its index among the hosts.
        node: NodeIdx,
        /// The signs of life this job agrees on.
        pulse: Pulse,
    },
    /// The sender holds this link for lost, dialling again is of no use. From above: clean up and leave. From below:
    /// that is what the sender does.
    GivenUp {
        /// What was seen: `no sign of life for 6.0 s`.
        why: String,
    },
}

/// A decoded frame body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the launcher.
    Down(Down),
    /// From a daemon.
    Up(Up),
    /// From the neighbour.
    Link(LinkMsg),
}

impl Message {
    /// Reads the message in a frame.
    ///
    /// # Errors
    /// A body that is not a message of the frame's kind.
    pub fn of(frame: &Frame) -> Result<Self, WireError> {
        Ok(match frame.kind {
            Kind::Down => Self::Down(codec::decode(&frame.body)?),
            Kind::Up => Self::Up(codec::decode(&frame.body)?),
            Kind::Link => Self::Link(codec::decode(&frame.body)?),
        })
    }

    /// Puts the message into a frame; the link sets the sequence number.
    ///
    /// # Errors
    /// A message above the codec's limit.
    pub fn frame(&self, origin: Origin, dest: Dest, payload: Bytes) -> Result<Frame, WireError> {
        let mut body = Vec::with_capacity(64);
        let kind = match self {
            Self::Down(msg) => codec::encode(msg, &mut body).map(|()| Kind::Down)?,
            Self::Up(msg) => codec::encode(msg, &mut body).map(|()| Kind::Up)?,
            Self::Link(msg) => codec::encode(msg, &mut body).map(|()| Kind::Link)?,
        };
        Ok(Frame { kind, origin, dest, seq: 0, body: body.into(), payload })
    }
}
