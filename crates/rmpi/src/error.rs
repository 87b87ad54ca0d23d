//! Errors of this library. All are values; ranks in them are ranks of the world unless said otherwise.

use crate::datatype;
use rmpi_coll::PlanError;
use rmpi_coll::kernels::KernelError;
use rmpi_core::Fault;
use std::sync::Arc;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank that the call needs is gone, or the link to it is cut.
    #[error("rank {rank} on {host} is lost: {cause}")]
    PeerLost {
        /// The lost rank, of the world.
        rank: u32,
        /// Its host.
        host: Arc<str>,
        /// What was seen.
        cause: Arc<str>,
    },
    /// The message is larger than the receive buffer, which holds its beginning now.
    #[error(
        "message of {sent} bytes from rank {rank} with tag {tag} does not fit a receive buffer of {capacity} bytes"
    )]
    Truncated {
        /// The sender.
        rank: u32,
        /// The tag.
        tag: i32,
        /// Bytes sent.
        sent: u64,
        /// Bytes of the buffer.
        capacity: u64,
    },
    /// The message has another element type than the receive.
    #[error("rank {rank} sent {got} with tag {tag} where {expected} is received")]
    WrongType {
        /// The sender.
        rank: u32,
        /// The tag.
        tag: i32,
        /// Type of the receive.
        expected: String,
        /// Type of the message.
        got: String,
    },
    /// Another rank called another collective, or the same with other counts, types, operation or root.
    #[error(
        "rank {rank} does not take part in this {call}: its call has another kind, count, type, operation or root"
    )]
    Mismatched {
        /// The collective this rank called.
        call: &'static str,
        /// The rank that differs.
        rank: u32,
    },
    /// Another rank gave up the communicator's collectives after a failure.
    #[error("{call} was given up by rank {by}: rank {culprit} failed or called something else")]
    GivenUp {
        /// The collective this rank called.
        call: &'static str,
        /// Who gave up.
        by: u32,
        /// The rank it blames.
        culprit: u32,
    },
    /// The rank number is not in the communicator.
    #[error("rank {rank} does not exist in a communicator of {size} ranks")]
    NoSuchRank {
        /// The number, a rank of the communicator.
        rank: u32,
        /// Its size.
        size: u32,
    },
    /// Tags of messages are 0 or more.
    #[error("tag {0} is negative")]
    BadTag(i32),
    /// A buffer has the wrong number of elements for this call.
    #[error("{what} has {got} elements where this call needs {need}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements needed.
        need: usize,
        /// Elements it has.
        got: usize,
    },
    /// A persistent operation is under way: wait for it first.
    #[error("the persistent operation is under way, or has failed: wait for it before its buffer is used")]
    Running,
    /// The receive was cancelled.
    #[error("the receive was cancelled")]
    Cancelled,
    /// The operation is not defined for the element type, or failed.
    #[error("reduction refused")]
    Reduction(#[from] KernelError),
    /// Arguments of a collective contradict each other.
    #[error("impossible collective")]
    Plan(#[from] PlanError),
    /// The key-value space cannot do it.
    #[error("key-value space: {0}")]
    Kvs(String),
    /// Not all messages could be delivered before the limit.
    #[error("messages were left undelivered at the end")]
    Undelivered,
    /// A buffer in the memory of this rank's node could not be made.
    #[error("no {bytes} bytes of the memory that this node's ranks share: {what}")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// Why.
        what: String,
    },
    /// Something that should not happen inside the library.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl Error {
    /// A fault of a message between two ranks.
    pub(crate) fn message(fault: Fault) -> Self {
        match fault {
            Fault::PeerLost { rank, host, cause } => Self::PeerLost { rank, host, cause },
            Fault::Truncated { rank, tag, sent, capacity } => Self::Truncated { rank, tag, sent, capacity },
            Fault::Mismatch { rank, tag, expected, got } => {
                Self::WrongType { rank, tag, expected: datatype::name(expected), got: datatype::name(got) }
            }
            Fault::Cancelled => Self::Cancelled,
            Fault::Revoked { by, culprit } => Self::GivenUp { call: "message", by, culprit },
            Fault::NoSuchRank { rank, size } => Self::NoSuchRank { rank, size },
            Fault::Spent => Self::Internal("a request was completed twice"),
            Fault::Overlap => Self::Internal("a step would use memory in use"),
        }
    }

    /// A fault inside the collective `call`.
    pub(crate) fn collective(call: &'static str, fault: Fault) -> Self {
        match fault {
            Fault::Mismatch { rank, .. } | Fault::Truncated { rank, .. } => Self::Mismatched { call, rank },
            Fault::Revoked { by, culprit } => Self::GivenUp { call, by, culprit },
            other => Self::message(other),
        }
    }

    /// The rank to blame for a failed collective, if one is.
    pub(crate) fn culprit(&self) -> Option<u32> {
        match self {
            Self::PeerLost { rank, .. } | Self::Mismatched { rank, .. } => Some(*rank),
            Self::GivenUp { culprit, .. } => Some(*culprit),
            _ => None,
        }
    }
}

/// Why a rank could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// `World::init` was called before in this process.
    #[error("the world was initialised before in this process")]
    Twice,
    /// A variable set by the launcher is missing or malformed.
    #[error("environment variable {name} is {what}: start the program with rmpirun, or unset it")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// An inherited descriptor cannot be used.
    #[error("inherited descriptor `{name}` cannot be used; does a wrapper program close descriptors?")]
    Descriptor {
        /// Its name in the variable.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The boot block contradicts itself or this library.
    #[error("the launcher's boot block is not usable")]
    Boot(#[source] rmpi_wire::WireError),
    /// The rank is outside the boot block.
    #[error("rank {rank} is not in the launcher's table of {size}")]
    Rank {
        /// The rank.
        rank: u32,
        /// Ranks in the table.
        size: u32,
    },
    /// The rail asked for cannot be had in this job.
    #[error("the {transport} rail cannot be used: {what}")]
    Transport {
        /// The rail.
        transport: rmpi_types::Transport,
        /// Why, and what to do.
        what: String,
    },
    /// A variable that names algorithms of collectives is wrong.
    #[error("cannot follow the choice of a collective's algorithm")]
    Algorithm(#[from] rmpi_coll::select::OverrideError),
    /// The memory that the ranks of this node share cannot be used.
    #[error("cannot use the memory shared by the ranks of this node")]
    Segment(#[from] rmpi_shm::SegmentError),
    /// The operating system refused something.
    #[error("cannot set up the rank's engine")]
    System(#[source] std::io::Error),
}
