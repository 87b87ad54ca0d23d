//! More ranks for a running job (`MPI_Comm_spawn`): one order at a time is planned by the driver, prepared and
//! started on nodes that run, and entered as a further namespace. What cannot be done is an answer to the rank
//! that asked, not the end of the job; only ranks that were started and fail count as any others do.

use super::nodes::{NodePhase, RankState};
use super::{JobAction, JobEventOut, JobMachine, Phase, StopReason};
use crate::link::clip;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{EndpointTable, Epoch, LaunchFault, Namespace, NodeIdx, NodeLaunch, ProcId, Rank, RankSet};
use rmpi_wire::Down;
use rmpi_wire::service::{Answer, Space, Spawn};
use std::collections::{BTreeMap, VecDeque};

/// Orders that may wait.
const MAX_WAITING: usize = 1024;
/// Ranks a job may come to have.
const MAX_RANKS: usize = 1 << 20;
/// Bytes of a reason, at most.
const MAX_TEXT: usize = 500;

/// Who asked, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asker {
    node: NodeIdx,
    id: u64,
    by: ProcId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Planning,
    Preparing,
    Starting,
}

/// The order that is being carried out.
#[derive(Debug)]
struct Current {
    asker: Asker,
    step: Step,
    ns: ProcId,
    size: u32,
    /// Ranks of each node.
    ranks: BTreeMap<NodeIdx, RankSet>,
    /// For the servers of all nodes.
    space: Option<Box<Space>>,
    /// Nodes that have not answered this step.
    left: RankSet,
    blocks: Vec<(NodeIdx, NodeEndpoints)>,
    failed: Option<String>,
}

/// All orders of a job.
#[derive(Debug, Default)]
pub(super) struct Spawns {
    current: Option<Current>,
    waiting: VecDeque<(Asker, Box<Spawn>)>,
    /// The last namespace given.
    last: u32,
}

impl JobMachine {
    /// A rank asks for more ranks.
    pub(super) fn spawn(
        &mut self,
        node: NodeIdx,
        id: u64,
        by: ProcId,
        order: Box<Spawn>,
        out: &mut Vec<JobAction>,
    ) {
        let asker = Asker { node, id, by };
        let wanted: usize = order.apps.iter().map(|a| a.ranks as usize).fold(0, usize::saturating_add);
        if wanted == 0 || wanted > MAX_RANKS - self.ranks.ranks.len().min(MAX_RANKS) {
            return self.refuse(asker, "no ranks, or more than a job may have", out);
        }
        if self.spawns.waiting.len() >= MAX_WAITING {
            return self.refuse(asker, "too many spawns wait", out);
        }
        self.spawns.waiting.push_back((asker, order));
        self.next_spawn(out);
    }

    fn refuse(&mut self, asker: Asker, why: &str, out: &mut Vec<JobAction>) {
        tracing::info!(by = %asker.by, why, "spawn refused");
        Self::event(JobEventOut::Note { node: asker.node, text: format!("a spawn was refused: {why}") }, out);
        let answer = Answer::Refused(why.to_owned());
        self.tell(asker.node, Down::Answer { id: asker.id, answer }, Bytes::new(), out);
    }

    /// Begins the next order, when the job itself has started.
    pub(super) fn next_spawn(&mut self, out: &mut Vec<JobAction>) {
        if self.spawns.waiting.is_empty() || self.nodes.iter().any(|n| n.phase == NodePhase::Starting) {
            return;
        }
        while self.spawns.current.is_none() {
            let Some((asker, order)) = self.spawns.waiting.pop_front() else { return };
            if self.ending.stopping() || self.phase != Phase::Running {
                self.refuse(asker, "the job is ending", out);
                continue;
            }
            self.spawns.last += 1;
            let ns = ProcId { ns: Namespace(self.spawns.last), epoch: Epoch(0), rank: Rank(0) };
            let runs = |(i, n): (u32, &super::Node)| (n.phase == NodePhase::Running).then_some(NodeIdx(i));
            let nodes = (0u32..).zip(&self.nodes).filter_map(runs).collect();
            self.spawns.current = Some(Current {
                asker,
                step: Step::Planning,
                ns,
                size: 0,
                ranks: BTreeMap::new(),
                space: None,
                left: RankSet::default(),
                blocks: Vec::new(),
                failed: None,
            });
            out.push(JobAction::PlanSpawn { ns, by: asker.by, order, nodes });
        }
    }

    /// The driver has planned.
    pub(super) fn spawn_planned(
        &mut self,
        plan: Result<Vec<(NodeIdx, NodeLaunch)>, String>,
        out: &mut Vec<JobAction>,
    ) {
        let Some(current) = self.spawns.current.as_mut().filter(|c| c.step == Step::Planning) else { return };
        let plan = match plan {
            Ok(plan) if !plan.is_empty() => plan,
            Ok(_) => return self.spawn_over(Err("no node to start on".into()), out),
            Err(why) => return self.spawn_over(Err(why), out),
        };
        current.step = Step::Preparing;
        current.size = plan[0].1.size;
        let of_node = |(_, launch): &(NodeIdx, NodeLaunch)| {
            (launch.host.clone(), launch.ranks.iter().map(|r| r.rank).collect())
        };
        current.space = Some(Box::new(Space::of(&plan[0].1, plan.iter().map(of_node))));
        for (node, launch) in &plan {
            current.ranks.insert(*node, launch.ranks.iter().map(|r| r.rank).collect());
            current.left.insert(Rank(node.0));
        }
        for (node, launch) in plan {
            let runs = self.node(node).is_some_and(|n| n.phase == NodePhase::Running);
            let sent = if runs {
                self.send(node, Down::Prepare(Box::new(launch)), Bytes::new(), out)
            } else {
                Err("its ranks have ended".into())
            };
            if let Err(why) = sent {
                self.spawn_failed(node, &why, out);
            }
        }
    }

    /// Whether a node's answer belongs to the order that is being carried out.
    fn spawning_on(&self, node: NodeIdx, step: Step) -> bool {
        let current = self.spawns.current.as_ref();
        current.is_some_and(|c| c.step == step && c.left.contains(Rank(node.0)))
    }

    /// A node has prepared; false when that was not for a spawn.
    pub(super) fn spawn_prepared(
        &mut self,
        now: Time,
        node: NodeIdx,
        endpoints: &NodeEndpoints,
        out: &mut Vec<JobAction>,
    ) -> bool {
        if !self.spawning_on(node, Step::Preparing) {
            return false;
        }
        let Some(current) = &mut self.spawns.current else { return false };
        let ranks: RankSet = endpoints.ranks.iter().map(|r| r.rank).collect();
        if current.ranks.get(&node) != Some(&ranks) {
            self.spawn_failed(node, "it prepared other ranks than it was told to", out);
            return true;
        }
        current.left.remove(Rank(node.0));
        current.blocks.push((node, endpoints.clone()));
        self.spawn_start(now, out);
        true
    }

    /// A node cannot; false when that was not about a spawn.
    pub(super) fn spawn_fault(
        &mut self,
        now: Time,
        node: NodeIdx,
        fault: &LaunchFault,
        out: &mut Vec<JobAction>,
    ) -> bool {
        if self.spawning_on(node, Step::Preparing) {
            self.spawn_failed(node, &fault.what, out);
            return true;
        }
        if !self.spawning_on(node, Step::Starting) {
            return false;
        }
        // Others run already and wait for these: as when a job does not start.
        let ranks = self.spawns.current.as_ref().and_then(|c| c.ranks.get(&node).map(|r| (c.ns, r.clone())));
        for (ns, rank) in ranks.iter().flat_map(|(ns, r)| r.iter().map(move |rank| (*ns, rank))) {
            let proc = ProcId { rank, ..ns };
            if let Some(state) = self.ranks.get(proc) {
                state.exited = true;
            }
            self.ranks.gone(proc);
            self.service_loses(proc, node, out);
        }
        self.failures.start.push((node, fault.clone()));
        self.spawn_failed(node, &fault.what, out);
        self.begin_stop(now, StopReason::Start(node), out);
        true
    }

    /// A node takes no part in the order any more.
    pub(super) fn spawn_failed(&mut self, node: NodeIdx, why: &str, out: &mut Vec<JobAction>) {
        let name = self.name(node).to_owned();
        let Some(current) = self.spawns.current.as_mut() else { return };
        if !current.left.contains(Rank(node.0)) && !current.blocks.iter().any(|(n, _)| *n == node) {
            return;
        }
        current.left.remove(Rank(node.0));
        current.blocks.retain(|(n, _)| *n != node);
        let why = clip(why.to_owned(), MAX_TEXT);
        current.failed.get_or_insert_with(|| format!("{name}: {why}"));
        match current.step {
            Step::Planning => {}
            Step::Preparing => self.spawn_give_up(out),
            Step::Starting => self.spawn_check(out),
        }
    }

    /// Some node cannot: the others are told when all have answered.
    fn spawn_give_up(&mut self, out: &mut Vec<JobAction>) {
        let Some(current) = self.spawns.current.as_mut() else { return };
        let Some(why) = current.failed.clone().filter(|_| current.left.is_empty()) else { return };
        let prepared: Vec<NodeIdx> =
            std::mem::take(&mut current.blocks).into_iter().map(|(n, _)| n).collect();
        for node in prepared {
            self.tell(node, Down::Start(EndpointTable::default()), Bytes::new(), out);
        }
        self.spawn_over(Err(why), out);
    }

    /// Starts when all nodes are prepared.
    fn spawn_start(&mut self, _now: Time, out: &mut Vec<JobAction>) {
        let Some(current) = self.spawns.current.as_mut().filter(|c| c.left.is_empty()) else { return };
        if current.failed.is_some() || self.ending.stopping() {
            current.failed.get_or_insert_with(|| "the job is ending".into());
            return self.spawn_give_up(out);
        }
        current.step = Step::Starting;
        let (ns, size) = (current.ns, current.size);
        let mut blocks = std::mem::take(&mut current.blocks);
        blocks.sort_unstable_by_key(|(_, b)| b.node);
        let nodes: Vec<NodeIdx> = blocks.iter().map(|(n, _)| *n).collect();
        current.left = nodes.iter().map(|n| Rank(n.0)).collect();
        let (ranks, space) = (current.ranks.clone(), current.space.take());
        if let Some(space) = space {
            self.tell_all(Down::Space(space), out);
        }
        let base = self.ranks.add_space(ns, size);
        for (node, set) in ranks {
            for rank in set.iter() {
                let at = Rank(base + rank.0);
                self.ranks.ranks[at.0 as usize] = RankState { node, ..RankState::default() };
                if let Some(entry) = self.node(node) {
                    entry.ranks.insert(at);
                }
            }
        }
        let table = EndpointTable { nodes: blocks.into_iter().map(|(_, b)| b).collect() };
        for node in nodes {
            if let Err(why) = self.send(node, Down::Start(table.clone()), Bytes::new(), out) {
                tracing::warn!(why, "a table that cannot be sent");
            }
        }
    }

    /// A node's new ranks run; false when they are not of a spawn.
    pub(super) fn spawn_started(
        &mut self,
        node: NodeIdx,
        pids: &[(ProcId, u32)],
        out: &mut Vec<JobAction>,
    ) -> Result<bool, String> {
        if !self.spawning_on(node, Step::Starting) {
            return Ok(false);
        }
        let Some(current) = &mut self.spawns.current else { return Ok(false) };
        let mine = pids.iter().all(|(p, _)| p.ns == current.ns.ns && p.epoch == current.ns.epoch);
        let ranks = current.ranks.get(&node).map(|r| r.iter().collect::<Vec<_>>()).unwrap_or_default();
        if !mine || !pids.iter().map(|(p, _)| p.rank).eq(ranks) {
            return Err("started other ranks than it was told to".into());
        }
        current.left.remove(Rank(node.0));
        for &(proc, pid) in pids {
            Self::event(JobEventOut::RankStarted { node, proc, pid }, out);
        }
        self.spawn_check(out);
        Ok(true)
    }

    /// Answers when all nodes have started.
    fn spawn_check(&mut self, out: &mut Vec<JobAction>) {
        let Some(current) = self.spawns.current.as_ref().filter(|c| c.left.is_empty()) else { return };
        let result = match &current.failed {
            None => Ok((current.ns.ns, current.size)),
            Some(why) => Err(why.clone()),
        };
        self.spawn_over(result, out);
    }

    fn spawn_over(&mut self, result: Result<(Namespace, u32), String>, out: &mut Vec<JobAction>) {
        let Some(current) = self.spawns.current.take() else { return };
        match result {
            Ok((ns, size)) => {
                let answer = Answer::Spawned { ns, size };
                self.tell(
                    current.asker.node,
                    Down::Answer { id: current.asker.id, answer },
                    Bytes::new(),
                    out,
                );
            }
            Err(why) => self.refuse(current.asker, &why, out),
        }
        self.next_spawn(out);
    }
}
