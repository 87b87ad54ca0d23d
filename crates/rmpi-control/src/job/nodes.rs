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

/// One namespace: its ranks are the table's entries from `base` on.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ProcId,
    base: u32,
    size: u32,
    /// How many are gone.
    gone: u32,
}

/// The ranks of all namespaces, those of the first at their own number, spawned ones after them. Sets of ranks in
/// the launcher's tables are sets of places in this one.
#[derive(Debug, Default)]
pub(super) struct RankTable {
    /// The first namespace.
    pub(super) ns: ProcId,
    pub(super) ranks: Vec<RankState>,
    entries: Vec<Entry>,
    /// How many are gone.
    pub(super) gone: usize,
}

impl RankTable {
    /// Enters a namespace of so many ranks, nowhere yet; where they begin.
    pub(super) fn add_space(&mut self, id: ProcId, size: u32) -> u32 {
        let base = u32::try_from(self.ranks.len()).unwrap_or(u32::MAX);
        if self.entries.is_empty() {
            self.ns = id;
        }
        self.entries.push(Entry { id, base, size, gone: 0 });
        let nowhere = RankState { node: NodeIdx(u32::MAX), ..RankState::default() };
        self.ranks.resize(self.ranks.len() + size as usize, nowhere);
        base
    }

    fn entry(&self, proc: ProcId) -> Option<&Entry> {
        self.entries.iter().find(|e| e.id.ns == proc.ns && e.id.epoch == proc.epoch)
    }

    fn place(&self, proc: ProcId) -> Option<usize> {
        let entry = self.entry(proc).filter(|e| proc.rank.0 < e.size)?;
        Some((entry.base + proc.rank.0) as usize)
    }

    /// The state of a rank, if the process is one.
    pub(super) fn state(&self, proc: ProcId) -> Option<&RankState> {
        self.ranks.get(self.place(proc)?)
    }

    /// The state of a rank, if the process is one.
    pub(super) fn get(&mut self, proc: ProcId) -> Option<&mut RankState> {
        let at = self.place(proc)?;
        self.ranks.get_mut(at)
    }

    /// Enters that a rank is gone.
    pub(super) fn gone(&mut self, proc: ProcId) {
        let news = self.get(proc).is_some_and(|s| !std::mem::replace(&mut s.gone, true));
        if news {
            self.gone += 1;
            let entry = self.entries.iter_mut().find(|e| e.id.ns == proc.ns && e.id.epoch == proc.epoch);
            entry.into_iter().for_each(|e| e.gone += 1);
        }
    }

    /// Whether all ranks of a process's namespace are gone.
    pub(super) fn all_gone(&self, of: ProcId) -> bool {
        self.entry(of).is_none_or(|e| e.gone == e.size)
    }

    /// The nodes of a namespace, as often as they have ranks in a row.
    pub(super) fn nodes_of(&self, ns: ProcId) -> impl Iterator<Item = Rank> {
        let range = self.entry(ns).map_or(0..0, |e| e.base as usize..(e.base + e.size) as usize);
        let mut last = None;
        let nodes = self.ranks.get(range).unwrap_or_default().iter().map(|s| Rank(s.node.0));
        nodes.filter(move |n| last.replace(*n) != Some(*n))
    }

    /// The process at a place.
    pub(super) fn proc(&self, at: Rank) -> ProcId {
        let entry = self.entries.iter().rev().find(|e| e.base <= at.0);
        entry.map_or(ProcId { rank: at, ..self.ns }, |e| ProcId { rank: Rank(at.0 - e.base), ..e.id })
    }
}

/// The place of a stream in pairs.
pub(super) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
