//! What a simulation showed, and the checks every run must pass.

use rmpi_types::{JobOutcome, NodeIdx, Rank};
use std::time::Duration;

/// Frames and events counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames sent that are not link-local.
    pub frames: u64,
    /// Heartbeats and other link-local frames.
    pub local: u64,
    /// Frames the launcher itself sent or received, link-local ones left out.
    pub launcher: u64,
    /// Events handled.
    pub events: u64,
}

/// The result of a simulation.
#[derive(Debug)]
pub struct Report {
    /// The seed that repeats it.
    pub seed: u64,
    /// The job's outcome; `None` when the launcher was killed, or when it never came.
    pub outcome: Option<JobOutcome>,
    /// When it came, from the start.
    pub done_at: Option<Duration>,
    /// When the last daemon had left.
    pub quiet_at: Duration,
    /// Bytes of output that reached the sink, per rank.
    pub output: Vec<u64>,
    /// Bytes of input each rank took.
    pub input: Vec<u64>,
    /// Bytes the launcher counts as taken by nobody.
    pub stdin_unread: u64,
    /// Counters.
    pub counts: Counts,
    /// Broken promises, in words.
    pub wrong: Vec<String>,
    /// Nodes reported lost.
    pub lost: Vec<NodeIdx>,
    /// Ranks reported started.
    pub started: usize,
}

impl Report {
    /// Fails the test with the seed when a promise was broken.
    ///
    /// # Panics
    /// When one was.
    pub fn check(&self) -> &Self {
        assert!(self.wrong.is_empty(), "seed {}: {:#?}", self.seed, self.wrong);
        self
    }

    /// The outcome.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn job(&self) -> &JobOutcome {
        match &self.outcome {
            Some(outcome) => outcome,
            None => panic!("seed {}: no outcome", self.seed),
        }
    }

    /// The rank that is named as the cause, if one is.
    #[must_use]
    pub fn cause_rank(&self) -> Option<Rank> {
        match &self.job().cause {
            rmpi_types::outcome::Cause::Rank(exit) => Some(exit.proc.rank),
            _ => None,
        }
    }
}
