//! What can go wrong with a message, as a value: every fault names the rank, and the host where one is lost.

use std::sync::Arc;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The peer's process or host is gone, or the link to it is cut.
    #[error("rank {rank} on {host} is lost: {cause}")]
    PeerLost {
        /// The peer, a rank of the world.
        rank: u32,
        /// Its host.
        host: Arc<str>,
        /// What was seen.
        cause: Arc<str>,
    },
    /// The message is larger than the receive buffer; the buffer holds its beginning.
    #[error(
        "message of {sent} bytes from rank {rank} with tag {tag} is larger than the receive buffer of {capacity} bytes"
    )]
    Truncated {
        /// The sender, a rank of the world.
        rank: u32,
        /// The message's tag.
        tag: i32,
        /// Bytes sent.
        sent: u64,
        /// Bytes of the buffer.
        capacity: u64,
    },
    /// The message's check word (element type, or collective and its arguments) is not the expected one.
    #[error("message from rank {rank} with tag {tag} is of kind {got:#06x}, not {expected:#06x}")]
    Mismatch {
        /// The sender, a rank of the world.
        rank: u32,
        /// The message's tag.
        tag: i32,
        /// The receiver's check word.
        expected: u16,
        /// The message's.
        got: u16,
    },
    /// The receive was cancelled.
    #[error("the receive was cancelled")]
    Cancelled,
    /// A rank gave up the communication context of this operation because of another failure.
    #[error("rank {by} gave up this communicator: rank {culprit} failed or called something else")]
    Revoked {
        /// Who said so, a rank of the world.
        by: u32,
        /// The rank it blames.
        culprit: u32,
    },
    /// The rank number is outside the world.
    #[error("rank {rank} does not exist: the world has {size} ranks")]
    NoSuchRank {
        /// The number given.
        rank: u32,
        /// Ranks there are.
        size: u32,
    },
    /// The operation id is unknown or was waited for already.
    #[error("this request was completed before")]
    Spent,
    /// Memory of a running operation would have been used for another.
    #[error("a schedule step overlaps memory in use")]
    Overlap,
}
