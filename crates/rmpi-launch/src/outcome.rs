//! The end of a job as embedders see it: the control machine's verdict, what became of each host, and the
//! names that a report needs. Plain data.

use rmpi_types::outcome::{Cause, JobOutcome};
use rmpi_types::{LaunchFault, NodeIdx, Rank, RankSet};
use std::time::Duration;

/// What became of one host at launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Its daemon reported.
    Ready,
    /// The job did not need it, or ended before it was reached.
    Unused,
    /// It could not be used.
    Failed(LaunchFault),
}

/// One host's part in the launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostResult {
    /// The name as the user wrote it.
    pub name: String,
    /// How it went.
    pub state: HostState,
    /// From the start of the launch until it was ready or given up.
    pub elapsed: Duration,
    /// Attempts to reach it.
    pub tries: u32,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first cause and what followed from it.
    pub job: JobOutcome,
    /// All hosts, in the order of the host list; index = [`NodeIdx`].
    pub hosts: Vec<HostResult>,
    /// Notes on the launch, folded over hosts.
    pub notes: Vec<String>,
    /// Why output could not be written, when not because its reader went away: the job was stopped for it.
    pub output_error: Option<String>,
    /// Ranks a node.
    pub(crate) placement: Vec<(NodeIdx, RankSet)>,
}

impl Outcome {
    /// The exit code the job asks for (`docs/exit-codes.md`): the first failing rank's own, or the launcher's.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.job.code()
    }

    /// Whether every rank exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.job.cause == Cause::Success
    }

    /// The first cause.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.job.cause
    }

    /// The host a rank of the first namespace was placed on.
    #[must_use]
    pub fn host_of(&self, rank: Rank) -> Option<&str> {
        let (node, _) = self.placement.iter().find(|(_, ranks)| ranks.contains(rank))?;
        Some(self.host_name(*node))
    }

    /// The name of a node, as the user wrote it.
    #[must_use]
    pub fn host_name(&self, node: NodeIdx) -> &str {
        self.hosts.get(node.0 as usize).map_or("an unknown host", |h| &h.name)
    }

    /// The report for a user, as `rmpirun` prints it on stderr; empty after success.
    #[must_use]
    pub fn report(&self) -> String {
        crate::report::render(self, false)
    }
}
