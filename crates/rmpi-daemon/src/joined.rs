//! A control stream inside one process: frames are handed over as they are, neither coded nor copied. What can be on
//! its way is bounded by the credits of the machines at both ends.

use rmpi_wire::Frame;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// One end of it. Its end is seen at the other end, behind all that was sent.
#[derive(Debug)]
pub struct Joined {
    /// Frames to the other end.
    pub to: UnboundedSender<Frame>,
    /// Frames of the other end.
    pub from: UnboundedReceiver<Frame>,
}

impl Joined {
    /// Both ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (to, theirs) = mpsc::unbounded_channel();
        let (their_to, from) = mpsc::unbounded_channel();
        (Self { to, from }, Self { to: their_to, from: theirs })
    }
}
