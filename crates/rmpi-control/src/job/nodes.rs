//! The launcher's view of hosts, links and ranks as tables. Indices: a node by its host's index, a rank by its
//! number. Small per entry: a job may have 10,000 nodes and 100,000 ranks.

use crate::link::{Link, LinkId};
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{LaunchFault, NodeIdx, NodeReport, ProcId, Rank, RankSet, Stage};
use rmpi_wire::msg::Stream;
use std::collections::BTreeMap;

/// Where a host is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NodePhase {
    /// Being reached by the driver.
    Reaching,
    /// Its stream is there, its report not.
    Linked,
    /// It has reported.
    Reported,
    /// The plan leaves it out.
    Unused,
    /// It was told to prepare.
    Preparing,
    /// It is prepared.
    Prepared(Box<NodeEndpoints>),
    /// It was told to start.
    Starting,
    /// Its ranks run.
    Running,
    /// Nothing of the job is left there.
    Ended,
    /// It could not be used, or did not start.
    Failed(Box<LaunchFault>),
    /// It was lost after the start.
    Lost,
}

/// One host.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<NodeIdx>,
    /// The link frames for it go over.
    pub(super) link: Option<LinkId>,
    pub(super) phase: NodePhase,
    /// What the driver does to reach it.
    pub(super) stage: Stage,
    pub(super) last: Option<Box<LaunchFault>>,
    pub(super) report: Option<Box<NodeReport>>,
    /// Its index among the nodes of the plan.
    pub(super) dense: u32,
    pub(super) ranks: RankSet,
    /// Bytes of one output stream in flight.
    pub(super) credit: u32,
    /// Its wall clock minus ours in microseconds: the largest seen, which is the one least delayed.
    pub(super) offset_us: Option<i64>,
}

impl Node {
    pub(super) fn new(parent: Option<NodeIdx>) -> Self {
        Self {
            parent,
            link: None,
            phase: NodePhase::Reaching,
            stage: Stage::Name,
            last: None,
            report: None,
            dense: 0,
            ranks: RankSet::default(),
            credit: 0,
            offset_us: None,
        }
    }

    /// Whether it still has to end.
    pub(super) fn in_job(&self) -> bool {
        matches!(self.phase, NodePhase::Starting | NodePhase::Running)
    }

    /// Whether nothing it says matters any more.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.phase, NodePhase::Failed(_) | NodePhase::Lost)
    }

    /// Takes a reading of its clock: `theirs` was read there some time before `ours` here.
    pub(super) fn clock(&mut self, theirs: u64, ours: u64) {
        let offset = signed(theirs) - signed(ours);
        self.offset_us = Some(self.offset_us.map_or(offset, |old| old.max(offset)));
    }
}

/// Microseconds as a signed number; the year 294,247 is the last.
pub(super) fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX / 2).min(i64::MAX / 2)
}

/// One link and the nodes behind it.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub(super) link: Link,
    /// The node at its other end.
    pub(super) node: NodeIdx,
    /// All nodes that are reached over it.
    pub(super) nodes: RankSet,
    /// Those of them that take part in the job.
    pub(super) used: RankSet,
}

/// All links.
pub(super) type Links = BTreeMap<LinkId, LinkEntry>;

/// One rank.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RankState {
    pub(super) node: NodeIdx,
    pub(super) exited: bool,
    /// It is known to be gone, reported or not.
    pub(super) gone: bool,
    /// Its failure was entered before its exit was reported.
    pub(super) counted: bool,
    /// Output bytes that came and for which no credit was given back, per stream.
    pub(super) unacked: [u32; 2],
    /// Of these, written.
    pub(super) written: [u32; 2],
    /// Streams at their end.
    pub(super) closed: [bool; 2],
}

/// The ranks of the job's namespace.
#[derive(Debug, Default)]
pub(super) struct RankTable {
    pub(super) ns: ProcId,
    pub(super) ranks: Vec<RankState>,
    /// How many are gone.
    pub(super) gone: usize,
}

impl RankTable {
    /// The state of a rank, if the process is one.
    pub(super) fn state(&self, proc: ProcId) -> Option<&RankState> {
        let known = proc.ns == self.ns.ns && proc.epoch == self.ns.epoch;
        self.ranks.get(proc.rank.0 as usize).filter(|_| known)
    }

    /// Enters that a rank is gone.
    pub(super) fn gone(&mut self, proc: ProcId) {
        if let Some(state) = self.get(proc)
            && !std::mem::replace(&mut state.gone, true)
        {
            self.gone += 1;
        }
    }

    /// The nodes of a namespace, as often as they have ranks in a row.
    pub(super) fn nodes_of(&self, ns: ProcId) -> impl Iterator<Item = Rank> {
        let known = ns.ns == self.ns.ns && ns.epoch == self.ns.epoch;
        let mut last = None;
        let nodes = self.ranks.iter().filter(move |_| known).map(|s| Rank(s.node.0));
        nodes.filter(move |n| last.replace(*n) != Some(*n))
    }

    /// The state of a rank, if the process is one.
    pub(super) fn get(&mut self, proc: ProcId) -> Option<&mut RankState> {
        let known = proc.ns == self.ns.ns && proc.epoch == self.ns.epoch;
        self.ranks.get_mut(proc.rank.0 as usize).filter(|_| known)
    }

    pub(super) fn proc(&self, rank: Rank) -> ProcId {
        ProcId { rank, ..self.ns }
    }
}

/// The place of a stream in pairs.
pub(super) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
