//! Messages of the control protocol, coded inside frames. `Down` goes from the launcher towards daemons,
//! `Up` from a daemon towards the launcher, `LinkMsg` between neighbours only.
//!
//! The life of a namespace on one node:
//!
//! ```text
//! daemon    Report                          who I am, what I have
//! launcher            Prepare               ranks, environment, key
//! daemon    Prepared | Failed               listeners bound, segment made, programs found
//! launcher            Start                 the whole endpoint table
//! daemon    Started                         pids
//!           Output*, Exited*, Request*      until every rank is gone
//! launcher            Credit*, Stdin*, Reply*, Signal*, Stop*, Kill*
//! daemon    Ended                           no process of the namespace is left
//! launcher            Finish                clean up and exit
//! ```

use crate::codec::{self, WireError};
use crate::frame::{Dest, Frame, Kind, Origin};
use crate::rank::{RankReply, RankRequest};
use bytes::Bytes;
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{
    EndpointTable, LaunchFault, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankExit, RankSet,
};
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
    /// Deliver a signal to the process groups of these ranks.
    Signal {
        /// Signal number.
        signal: i32,
        /// Which ranks; empty for all.
        ranks: RankSet,
    },
    /// Stop all ranks: `signal` now, SIGTERM after the grace if `signal` was another, then SIGKILL.
    Stop {
        /// First signal.
        signal: i32,
        /// Milliseconds between the steps.
        grace_ms: u32,
    },
    /// SIGKILL every process of the job at once.
    Kill,
    /// Answer to a rank's request, payload as the request demands.
    Reply {
        /// The asking rank.
        proc: ProcId,
        /// The request's id.
        id: u64,
        /// The answer.
        reply: RankReply,
    },
    /// The result of a fence: payload is the data of all ranks, as [`crate::rank::encode_entry`] has it, cut
    /// anywhere into pieces of at most [`crate::frame::MAX_PAYLOAD`] bytes.
    FenceDone {
        /// The fence's number in this namespace, from 1.
        fence: u64,
        /// A member that will never reach it: this fence and all later ones fail, waiting ranks get an error
        /// naming it. There is no payload then.
        lost: Option<ProcId>,
        /// The last piece.
        last: bool,
    },
    /// A rank elsewhere asks for a key of a rank of this node; answered by [`Up::Fetched`].
    Fetch {
        /// Who asks.
        asker: ProcId,
        /// Its request's number.
        id: u64,
        /// Whose key.
        rank: Rank,
        /// Key.
        key: String,
        /// Milliseconds to wait for it.
        wait_ms: u32,
    },
    /// The launcher is about to stop itself (SIGTSTP): watch only for end of file until it speaks again.
    Pause,
    /// Clean up and exit: nothing more will come.
    Finish,
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
        /// How many fences it had called.
        fences: u64,
    },
    /// A rank ended *and* its output pipes are drained.
    Exited {
        /// How it ended.
        exit: RankExit,
        /// How many fences it had called.
        fences: u64,
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
        /// The asking rank.
        proc: ProcId,
        /// Number to repeat in the reply.
        id: u64,
        /// The request.
        request: RankRequest,
    },
    /// The answer to [`Down::Fetch`], payload the value.
    Fetched {
        /// Who asked.
        asker: ProcId,
        /// Its request's number.
        id: u64,
        /// The answer.
        reply: RankReply,
    },
    /// All local ranks reached a fence: payload is what they put since the last one, cut anywhere into pieces
    /// of at most [`crate::frame::MAX_PAYLOAD`] bytes.
    Fence {
        /// The fence's number in this namespace, from 1.
        fence: u64,
        /// The last piece.
        last: bool,
    },
    /// Some but not all local ranks have been waiting in this fence for a while: tell this node when it
    /// cannot complete.
    FenceWaits {
        /// The fence's number.
        fence: u64,
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
    /// The rank ended without having read this much of the standard input it has taken. Before its `Exited`.
    StdinLeft {
        /// The reader.
        proc: ProcId,
        /// Bytes.
        bytes: u32,
    },
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
    /// From above: this link is given up, dialling again is of no use; clean up and leave.
    GivenUp,
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
