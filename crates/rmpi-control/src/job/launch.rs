//! From hosts to started ranks. Faults are gathered from all hosts before the job is given up, so that one
//! report names them all; nothing is started unless every used node is prepared.

use super::nodes::NodePhase;
use super::{JobAction, JobEventOut, JobMachine, Phase, PlanFault};
use crate::daemon::ranks::MIN_OUTPUT_CREDIT;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::outcome::Cause;
use rmpi_types::spec::Stdin;
use rmpi_types::{EndpointTable, LaunchFault, NodeIdx, NodeLaunch, NodeReport, Rank, RankSet, Stage};
use rmpi_wire::Down;
use rmpi_wire::frame::MAX_PAYLOAD;
use std::time::Duration;
use tracing::{debug, info};

/// How long the launch goes on after a host has failed for good, to hear of the others.
const SETTLE: Duration = Duration::from_secs(15);

impl JobMachine {
    pub(super) fn reaching(&mut self, node: NodeIdx, stage: Stage, last: Option<Box<LaunchFault>>) {
        if let Some(node) = self.node(node) {
            node.stage = stage;
            node.last = last;
        }
    }

    /// A host cannot be used.
    pub(super) fn host_failed(
        &mut self,
        now: Time,
        node: NodeIdx,
        fault: LaunchFault,
        out: &mut Vec<JobAction>,
    ) {
        let phase = self.phase;
        if phase == Phase::Done {
            return;
        }
        let Some(entry) = self.node(node) else { return };
        match entry.phase {
            NodePhase::Reaching | NodePhase::Linked => {
                debug!(node = node.0, %fault, "host failed");
                entry.phase = NodePhase::Failed(Box::new(fault.clone()));
                Self::event(JobEventOut::HostFailed { node, fault }, out);
                self.reaching_left -= 1;
                self.fail_below(node, out);
                if self.policy.min_hosts.is_none() && phase == Phase::Reaching {
                    self.launch_at = crate::time::earlier(self.launch_at, Some(now + SETTLE));
                }
                self.try_plan(out);
            }
            NodePhase::Reported | NodePhase::Preparing | NodePhase::Prepared(_) => {
                let preparing = matches!(entry.phase, NodePhase::Preparing);
                entry.phase = NodePhase::Failed(Box::new(fault.clone()));
                Self::event(JobEventOut::HostFailed { node, fault }, out);
                if phase == Phase::Preparing {
                    self.preparing_left -= usize::from(preparing);
                    self.launch_at = crate::time::earlier(self.launch_at, Some(now + SETTLE));
                    self.try_start(now, out);
                } else if phase == Phase::Reaching {
                    self.try_plan(out);
                }
            }
            NodePhase::Unused
            | NodePhase::Starting
            | NodePhase::Running
            | NodePhase::Ended
            | NodePhase::Failed(_)
            | NodePhase::Lost => {}
        }
    }

    /// Hosts that would have been reached through this one cannot be used either.
    fn fail_below(&mut self, node: NodeIdx, out: &mut Vec<JobAction>) {
        if !self.has_tree() {
            return;
        }
        let what = format!("it would be reached through {}, which failed", self.name(node));
        for lower in self.subtree(node).iter().map(|r| NodeIdx(r.0)) {
            let Some(entry) = self.node(lower) else { continue };
            if matches!(entry.phase, NodePhase::Reaching | NodePhase::Linked) {
                let fault = LaunchFault::passing(Stage::Daemon, what.clone());
                entry.phase = NodePhase::Failed(Box::new(fault.clone()));
                self.reaching_left -= 1;
                Self::event(JobEventOut::HostFailed { node: lower, fault }, out);
            }
        }
    }

    pub(super) fn reported(
        &mut self,
        now: Time,
        node: NodeIdx,
        report: Box<NodeReport>,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let wall = self.wall_us(now);
        let Some(entry) = self.node(node) else { return Ok(()) };
        if !matches!(entry.phase, NodePhase::Reaching | NodePhase::Linked) {
            return Err("a second report".into());
        }
        entry.clock(report.wall_us, wall);
        entry.phase = NodePhase::Reported;
        entry.report = Some(report);
        self.reaching_left -= 1;
        Self::event(JobEventOut::HostUp { node }, out);
        self.try_plan(out);
        Ok(())
    }

    /// Plans when every host has either reported or failed.
    fn try_plan(&mut self, out: &mut Vec<JobAction>) {
        if self.phase != Phase::Reaching || self.reaching_left > 0 {
            return;
        }
        let reported = self.nodes.iter().filter(|n| n.phase == NodePhase::Reported).count();
        let failed = self.nodes.len() - reported;
        let enough = self.policy.min_hosts.is_some_and(|min| reported >= min.max(1) as usize);
        if self.nodes.is_empty() {
            return self.conclude(Cause::Internal("a job without hosts".into()), out);
        }
        if failed > 0 && !enough {
            return self.launch_failed(out);
        }
        info!(hosts = reported, failed, "hosts reached");
        self.phase = Phase::Planning;
        let indexed = (0u32..).map(NodeIdx).zip(&mut self.nodes);
        let reports = indexed.filter_map(|(i, n)| n.report.take().map(|r| (i, *r))).collect();
        out.push(JobAction::Plan(reports));
    }

    /// Nothing was started, and nothing will be.
    pub(super) fn launch_failed(&mut self, out: &mut Vec<JobAction>) {
        let indexed = (0u32..).map(NodeIdx).zip(&self.nodes);
        let fault = |(i, n): (NodeIdx, &super::Node)| match &n.phase {
            NodePhase::Failed(fault) => Some((i, (**fault).clone())),
            _ => None,
        };
        let faults = indexed.filter_map(fault).collect();
        self.finish_all(out);
        self.conclude(Cause::Launch(faults), out);
    }

    /// The launch limit: every host that is not where it should be has failed, at the stage it is at.
    pub(super) fn launch_over(&mut self, now: Time, out: &mut Vec<JobAction>) {
        let limit = self.launch_limit;
        self.launch_at = None;
        let left =
            |p: &NodePhase| matches!(p, NodePhase::Reaching | NodePhase::Linked | NodePhase::Preparing);
        let late: Vec<usize> = (0..self.nodes.len()).filter(|&i| left(&self.nodes[i].phase)).collect();
        match self.phase {
            Phase::Reaching | Phase::Preparing => {}
            Phase::Planning => {
                self.finish_all(out);
                let what = "planning did not end before the launch limit";
                return self.conclude(Cause::Internal(what.into()), out);
            }
            Phase::Running | Phase::Done => return,
        }
        if self.phase == Phase::Reaching && self.policy.min_hosts.is_some() {
            // What is left must prepare within half of the limit once more.
            self.launch_at = Some(now + limit / 2);
        }
        for i in late {
            let node = NodeIdx(u32::try_from(i).unwrap_or(u32::MAX));
            let fault = self.late(i, limit);
            self.host_failed(now, node, fault, out);
        }
        if self.phase == Phase::Reaching {
            self.try_plan(out);
        }
    }

    fn late(&self, index: usize, limit: Duration) -> LaunchFault {
        let node = &self.nodes[index];
        let limit = format!("within the launch limit of {:.1} s", limit.as_secs_f64());
        match (&node.phase, &node.last) {
            (NodePhase::Linked, _) => LaunchFault::passing(Stage::Daemon, format!("no report {limit}")),
            (NodePhase::Preparing, _) => LaunchFault::passing(Stage::Wire, format!("not prepared {limit}")),
            (_, Some(last)) => LaunchFault {
                what: format!("{} (tried again, without success {limit})", last.what),
                ..(**last).clone()
            },
            (_, None) => {
                let stage = node.stage;
                LaunchFault::passing(stage, format!("still at stage {stage}, not reached {limit}"))
            }
        }
    }

    pub(super) fn planned(
        &mut self,
        now: Time,
        plan: Result<Vec<(NodeIdx, NodeLaunch)>, PlanFault>,
        out: &mut Vec<JobAction>,
    ) {
        if self.phase != Phase::Planning {
            return;
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(PlanFault { code, message }) => {
                self.finish_all(out);
                return self.conclude(Cause::Plan { code, message }, out);
            }
        };
        if let Err(what) = self.accept_plan(&plan) {
            self.finish_all(out);
            return self.conclude(Cause::Internal(format!("plan: {what}")), out);
        }
        self.phase = Phase::Preparing;
        self.finish_unused(out);
        let mut too_large = Vec::new();
        for (node, launch) in plan {
            self.send_files(node, out);
            if let Err(what) = self.send(node, Down::Prepare(Box::new(launch)), Bytes::new(), out) {
                too_large.push((node, what));
            }
        }
        for (node, what) in too_large {
            let fault =
                LaunchFault::fatal(Stage::Exec, format!("environment and arguments too large: {what}"));
            self.host_failed(now, node, fault, out);
        }
        // A host may have been lost while the plan was made.
        self.try_start(now, out);
    }

    /// Sends a node the files its ranks need, in pieces.
    fn send_files(&mut self, node: NodeIdx, out: &mut Vec<JobAction>) {
        let files = std::mem::take(&mut self.policy.files);
        for (number, file) in (0..).zip(&files) {
            let mut rest = file.clone();
            loop {
                let piece = rest.split_to(rest.len().min(MAX_PAYLOAD));
                let last = rest.is_empty();
                self.tell(node, Down::File { number, last }, piece, out);
                if last {
                    break;
                }
            }
        }
        self.policy.files = files;
    }

    /// Enters a plan into the tables.
    fn accept_plan(&mut self, plan: &[(NodeIdx, NodeLaunch)]) -> Result<(), String> {
        let (_, first) = plan.first().ok_or("no node")?;
        self.ranks.add_space(first.ns, first.size);
        let stdin = self.policy.stdin.clone();
        for (idx, launch) in plan {
            let ranks = &mut self.ranks.ranks;
            let node = self.nodes.get_mut(idx.0 as usize).ok_or_else(|| format!("no node {idx}"))?;
            let lost = matches!(node.phase, NodePhase::Failed(_));
            if !lost && node.phase != NodePhase::Reported {
                return Err(format!("node {idx} cannot be used, or is used twice"));
            }
            for rank in &launch.ranks {
                let state = ranks.get_mut(rank.rank.0 as usize).filter(|s| s.node.0 == u32::MAX);
                state.ok_or_else(|| format!("rank {} twice or above the size", rank.rank))?.node = *idx;
            }
            node.ranks = launch.ranks.iter().map(|r| r.rank).collect();
            node.dense = launch.node.0;
            node.credit = launch.output_credit.max(MIN_OUTPUT_CREDIT);
            self.used += 1;
            if !lost {
                node.phase = NodePhase::Preparing;
                self.preparing_left += 1;
            }
        }
        if let Some(missing) = self.ranks.ranks.iter().position(|s| s.node.0 == u32::MAX) {
            return Err(format!("rank {missing} is nowhere"));
        }
        self.input.expected = match stdin {
            Stdin::None => 0,
            Stdin::Rank(rank) => usize::from((rank.0 as usize) < self.ranks.ranks.len()),
            Stdin::All => self.ranks.ranks.len(),
        };
        Ok(())
    }

    /// Hosts that the plan leaves out leave, unless they relay for others.
    fn finish_unused(&mut self, out: &mut Vec<JobAction>) {
        let used = |p: &NodePhase| *p == NodePhase::Preparing;
        let mut relays = RankSet::default();
        for node in self.nodes.iter().filter(|n| used(&n.phase)) {
            let mut parent = node.parent;
            while let Some(up) = parent {
                relays.insert(Rank(up.0));
                // Parents come before their children, so this ends.
                parent = self.nodes.get(up.0 as usize).and_then(|n| n.parent).filter(|p| p.0 < up.0);
            }
        }
        for entry in self.links.values_mut() {
            let in_job = |r: &Rank| self.nodes.get(r.0 as usize).is_some_and(|n| used(&n.phase));
            entry.used = entry.nodes.iter().filter(in_job).collect();
        }
        for i in 0..self.nodes.len() {
            if self.nodes[i].phase == NodePhase::Reported {
                let node = NodeIdx(u32::try_from(i).unwrap_or(u32::MAX));
                self.nodes[i].phase = NodePhase::Unused;
                if !relays.contains(Rank(node.0)) {
                    self.tell(node, Down::Finish, Bytes::new(), out);
                }
            }
        }
    }

    pub(super) fn prepared(
        &mut self,
        now: Time,
        node: NodeIdx,
        endpoints: NodeEndpoints,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        if self.spawn_prepared(now, node, &endpoints, out) {
            return Ok(());
        }
        let Some(entry) = self.node(node) else { return Ok(()) };
        if entry.phase != NodePhase::Preparing {
            return Err("prepared what it was not told to".into());
        }
        let ranks: RankSet = endpoints.ranks.iter().map(|r| r.rank).collect();
        if endpoints.node.0 != entry.dense || ranks != entry.ranks || endpoints.ranks.len() != ranks.len() {
            return Err("endpoints of other ranks than its own".into());
        }
        entry.phase = NodePhase::Prepared(Box::new(endpoints));
        self.preparing_left -= 1;
        self.try_start(now, out);
        Ok(())
    }

    /// Starts when every used node is prepared; gives up when every one has answered and some have failed.
    fn try_start(&mut self, now: Time, out: &mut Vec<JobAction>) {
        if self.phase != Phase::Preparing || self.preparing_left > 0 {
            return;
        }
        let mut blocks = Vec::with_capacity(self.used);
        for node in self.nodes.iter_mut().filter(|n| matches!(n.phase, NodePhase::Prepared(_))) {
            if let NodePhase::Prepared(block) = std::mem::replace(&mut node.phase, NodePhase::Starting) {
                blocks.push(*block);
            }
        }
        if blocks.len() != self.used {
            return self.launch_failed(out);
        }
        blocks.sort_unstable_by_key(|b| b.node);
        if let Err(what) =
            self.send_all(Down::Start(EndpointTable { nodes: blocks }), &Bytes::new(), false, out)
        {
            self.finish_all(out);
            return self.conclude(Cause::Internal(format!("endpoint table: {what}")), out);
        }
        info!(nodes = self.used, ranks = self.ranks.ranks.len(), "job starts");
        self.phase = Phase::Running;
        self.running_left = self.used;
        self.started_at = now;
        self.launch_at = None;
        self.ending.job_at = self.policy.limits.job.map(|limit| now + limit);
    }
}
