//! Everything that can happen to the driver, as one type, and the two queues it comes through: frames through
//! a bounded one, the rest through one that only our own code fills.

use super::link::Channel;
use crate::sink::SinkEvent;
use bytes::Bytes;
use rmpi_control::LinkId;
use rmpi_types::{LaunchFault, NodeIdx, Stage};
use rmpi_wire::Frame;
use std::time::Duration;

/// From a link's reading task.
pub(crate) enum FromLink {
    Frame(Frame),
    /// The host's stream of this number has ended.
    Eof {
        stream: u32,
        what: String,
    },
}

/// Something that happened.
pub(crate) enum Input {
    Link(LinkId, FromLink),
    /// Reaching a host has come to a stage; `last` is what made an earlier attempt fail.
    Reaching {
        node: NodeIdx,
        stage: Stage,
        tries: u32,
        last: Option<LaunchFault>,
    },
    /// A host's stream is ready.
    Up {
        node: NodeIdx,
        channel: Box<Channel>,
    },
    /// A host was given up.
    GiveUp {
        node: NodeIdx,
        fault: LaunchFault,
    },
    Sink(SinkEvent),
    Stdin(Bytes),
    StdinEof,
    Signal(i32),
    Cancel,
    /// How long Kubernetes gives this pod from SIGTERM to its end.
    PodGrace(Duration),
}
