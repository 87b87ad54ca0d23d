//! What an embedder can follow of a running job.

use crate::sink::Receipt;
use crate::view::PlanView;
use bytes::Bytes;
use rmpi_types::{LaunchFault, NodeIdx, ProcId, RankExit, RankSet};
pub use rmpi_wire::msg::Stream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Something that happened in a job, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A host's daemon has reported.
    HostUp {
        /// The host.
        node: NodeIdx,
        /// Its name as the user wrote it.
        host: String,
        /// Since the start of the launch.
        elapsed: Duration,
    },
    /// A host could not be used.
    HostFailed {
        /// The host.
        node: NodeIdx,
        /// Its name as the user wrote it.
        host: String,
        /// Where it stopped and why.
        fault: LaunchFault,
    },
    /// A launch that waits for hosts which may be on their way (pods) has not got them all yet.
    Waiting {
        /// Those that are missing, by name, with what was last seen of each.
        hosts: Vec<(String, Option<LaunchFault>)>,
        /// How many the job needs.
        of: usize,
    },
    /// All hosts have reported and every rank has its place.
    Planned(Box<PlanView>),
    /// An elastic job has other members than before.
    Generation {
        /// Which one, from 1.
        n: u32,
        /// How many of its processes are started for it.
        new: u32,
        /// Hosts with their ranks, in order.
        hosts: Vec<(String, RankSet)>,
    },
    /// A rank runs.
    RankStarted {
        /// The rank's process.
        proc: ProcId,
        /// Its node.
        node: NodeIdx,
        /// Its pid there.
        pid: u32,
    },
    /// Output, only under [`crate::Delivery::Events`]: whole lines but for overlong ones and a last one
    /// without newline. Never empty but at a stream's end.
    Output {
        /// The writer.
        proc: ProcId,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: Bytes,
    },
    /// A rank ended and all its output was delivered before this event.
    RankExited(RankExit),
    /// A host was lost while ranks ran.
    NodeLost {
        /// The host.
        node: NodeIdx,
        /// What was seen.
        what: String,
    },
    /// The remaining ranks are being stopped.
    Stopping {
        /// Why, for a user.
        why: String,
        /// Killed without grace.
        force: bool,
    },
    /// What a rank's processes and threads are doing: the answer to SIGQUIT ([`crate::Control::signal`]).
    Stacks {
        /// The rank.
        proc: ProcId,
        /// Its host's name as the user wrote it.
        host: String,
        /// Lines.
        text: String,
    },
    /// One line for the user.
    Note(String),
}

pub(crate) type Sent = (Event, Option<Receipt>);

/// The driver's end of the event stream. Nothing is kept for an embedder that has dropped its end.
#[derive(Clone)]
pub(crate) struct Events(Arc<dyn Fn(Sent) + Send + Sync>);

impl Events {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Sent>) {
        let (tx, rx) = mpsc::channel();
        (Self(Arc::new(move |sent| drop(tx.send(sent)))), rx)
    }

    /// Events go to a function, one at a time.
    pub(crate) fn call(take: impl FnMut(Event) + Send + 'static) -> Self {
        let take = Mutex::new(take);
        // The receipt is dropped after the call: only then may ranks write on.
        Self(Arc::new(move |(event, _receipt)| take.lock().unwrap_or_else(PoisonError::into_inner)(event)))
    }

    pub(crate) fn send(&self, event: Event) {
        (self.0)((event, None));
    }

    /// An output event: its receipt is dropped when the embedder takes it, or at once if there is none.
    pub(crate) fn output(&self, event: Event, receipt: Receipt) {
        (self.0)((event, Some(receipt)));
    }
}
