//! The machine of one node's daemon.

mod events;

pub use events::{DaemonAction, DaemonEvent, DaemonPolicy};

use crate::time::Time;

/// The machine of one node's daemon. See the crate's page for how it is driven.
#[derive(Debug)]
pub struct DaemonMachine {
    policy: DaemonPolicy,
}

impl DaemonMachine {
    /// A daemon whose control stream is open and has exchanged hellos.
    #[must_use]
    pub fn new(policy: DaemonPolicy, _now: Time) -> Self {
        Self { policy }
    }

    /// Takes one event; appends what is to be done.
    pub fn on(&mut self, _now: Time, _event: DaemonEvent, _out: &mut Vec<DaemonAction>) {}

    /// When the next [`DaemonEvent::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        Some(Time(self.policy.heartbeat))
    }
}
