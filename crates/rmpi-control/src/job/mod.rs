//! The machine of one job in the launcher.

mod events;

pub use events::{HostEntry, JobAction, JobEvent, JobEventOut, JobPolicy, PlanFault, StopReason};

use crate::time::Time;

/// The machine of one job. See the crate's page for how it is driven.
#[derive(Debug)]
pub struct JobMachine {
    policy: JobPolicy,
    hosts: Vec<HostEntry>,
}

impl JobMachine {
    /// A job on these hosts, none of which is reached yet. The launch limit runs from `now`.
    #[must_use]
    pub fn new(policy: JobPolicy, hosts: Vec<HostEntry>, _now: Time) -> Self {
        Self { policy, hosts }
    }

    /// Takes one event; appends what is to be done.
    pub fn on(&mut self, _now: Time, _event: JobEvent, _out: &mut Vec<JobAction>) {}

    /// When the next [`JobEvent::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        (!self.hosts.is_empty()).then_some(Time(self.policy.limits.heartbeat))
    }

    /// Bytes of our standard input that no rank has taken: a driver may seek a file back by as many, so that
    /// the next command of a script finds its input.
    #[must_use]
    pub fn stdin_untaken(&self) -> u64 {
        0
    }
}
