//! What daemons say. A message that does not fit what its node is doing is a violation of the protocol; the
//! caller then loses the node.

use super::failure::limited;
use super::fence::Gathered;
use super::nodes::NodePhase;
use super::{JobAction, JobEventOut, JobMachine, StopReason};
use crate::link::clip;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::spec::OnFailure;
use rmpi_types::{LaunchFault, NodeIdx, ProcId, Rank, RankExit};
use rmpi_wire::rank::{MAX_KEY, RankReply, RankRequest};
use rmpi_wire::{Down, Up};

/// Different notes shown, at most.
const MAX_NOTES: usize = 256;
/// Bytes of a note or abort message, at most.
const MAX_TEXT: usize = 1000;
/// Fetches on their way, at most.
const MAX_FETCHES: usize = 1 << 20;

impl JobMachine {
    pub(super) fn up(
        &mut self,
        now: Time,
        node: NodeIdx,
        msg: Up,
        payload: Bytes,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        match msg {
            Up::Report(report) => self.reported(now, node, report, out),
            Up::Prepared(endpoints) => self.prepared(now, node, endpoints, out),
            Up::Failed(fault) => self.failed(now, node, fault, out),
            Up::Started(pids) => self.started(node, &pids, out),
            Up::Output { proc, stream, last } => {
                self.of(node, proc)?;
                self.output(node, proc, stream, payload, last, out)
            }
            Up::StdinCredit { proc, bytes } => {
                self.of(node, proc)?;
                self.stdin_credit(proc, bytes, out)
            }
            Up::StdinLeft { proc, bytes } => {
                self.of(node, proc)?;
                self.input.left(proc.rank, bytes);
                Ok(())
            }
            Up::Stacks { proc } => {
                self.of(node, proc)?;
                Self::event(JobEventOut::Stacks { node, proc, text: payload }, out);
                Ok(())
            }
            Up::Gone { exit, fences } => {
                self.of(node, exit.proc)?;
                self.gone(now, node, limited(exit), fences, out)
            }
            Up::Exited { exit, fences } => {
                self.of(node, exit.proc)?;
                self.exited(now, node, limited(exit), fences, out)
            }
            Up::Abort { proc, code, message } => {
                self.of(node, proc)?;
                tracing::info!(rank = proc.rank.0, code, message = clip(message, MAX_TEXT), "abort");
                let at = super::nodes::signed(self.wall_us(now));
                self.failures.aborted(proc, at);
                self.begin_stop(now, StopReason::Failure(proc), out);
                Ok(())
            }
            Up::Request { proc, id, request } => {
                self.of(node, proc)?;
                self.request(node, proc, id, request, out)
            }
            Up::Fetched { asker, id, reply } => self.fetched(node, asker, id, reply, payload, out),
            Up::Fence { fence, last } => self.fence(node, fence, &payload, last, out),
            Up::FenceWaits { fence } => self.fence_waits(node, fence, out),
            Up::Lost { node: lost, what } => self.below_lost(now, node, lost, what, out),
            Up::Note(text) => {
                let text = clip(text, MAX_TEXT);
                if self.notes.len() < MAX_NOTES && self.notes.insert(text.clone()) {
                    Self::event(JobEventOut::Note { node, text }, out);
                }
                Ok(())
            }
            Up::Ended => self.ended(node),
        }
    }

    /// Whether `proc` is a rank of a node that runs.
    fn of(&mut self, node: NodeIdx, proc: ProcId) -> Result<(), String> {
        let state = self.ranks.get(proc).ok_or_else(|| format!("no process {proc}"))?;
        if state.node != node {
            return Err(format!("{proc} is not on this node"));
        }
        if state.exited {
            return Err(format!("{proc} had ended"));
        }
        self.running(node)
    }

    fn running(&mut self, node: NodeIdx) -> Result<(), String> {
        let runs = self.node(node).is_some_and(|n| n.phase == NodePhase::Running);
        if runs { Ok(()) } else { Err("speaks of ranks that it does not run".into()) }
    }

    fn failed(
        &mut self,
        now: Time,
        node: NodeIdx,
        fault: LaunchFault,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let fault = LaunchFault {
            what: clip(fault.what, MAX_TEXT),
            hint: fault.hint.map(|h| clip(h, MAX_TEXT)),
            ..fault
        };
        let Some(entry) = self.node(node) else { return Ok(()) };
        match entry.phase {
            NodePhase::Preparing => self.host_failed(now, node, fault, out),
            NodePhase::Starting => {
                entry.phase = NodePhase::Failed(Box::new(fault.clone()));
                let ranks = entry.ranks.clone();
                self.running_left -= 1;
                Self::event(JobEventOut::HostFailed { node, fault: fault.clone() }, out);
                self.failures.start.push((node, fault));
                for rank in ranks.iter() {
                    self.input_lost(rank, out);
                }
                if let Some(rank) = ranks.iter().next() {
                    self.fences_lose(self.ranks.proc(rank), 0, out);
                }
                self.begin_stop(now, StopReason::Start(node), out);
            }
            _ => return Err("failed to do what it was not told to".into()),
        }
        Ok(())
    }

    fn started(
        &mut self,
        node: NodeIdx,
        pids: &[(ProcId, u32)],
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let ns = self.ranks.ns;
        let Some(entry) = self.node(node) else { return Ok(()) };
        let named = pids.iter().filter(|(p, _)| p.ns == ns.ns && p.epoch == ns.epoch);
        let same = pids.len() == entry.ranks.len() && named.map(|(p, _)| p.rank).eq(entry.ranks.iter());
        if entry.phase != NodePhase::Starting || !same {
            return Err("started other ranks than it was told to".into());
        }
        entry.phase = NodePhase::Running;
        for &(proc, pid) in pids {
            Self::event(JobEventOut::RankStarted { node, proc, pid }, out);
            let reads = self.policy.stdin.read_by(proc.rank);
            if reads {
                self.input.started(proc, node);
            }
        }
        self.want_input(out);
        Ok(())
    }

    /// A rank ended whose output is not here yet.
    fn gone(
        &mut self,
        now: Time,
        node: NodeIdx,
        exit: RankExit,
        fences: u64,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let proc = exit.proc;
        self.fences_lose(proc, fences, out);
        let failed = exit.failed();
        if let Some(state) = self.ranks.get(proc)
            && failed
            && !std::mem::replace(&mut state.counted, true)
        {
            self.failures.exited(node, exit);
            self.rank_failed(now, proc, out);
        }
        Ok(())
    }

    fn exited(
        &mut self,
        now: Time,
        node: NodeIdx,
        exit: RankExit,
        fences: u64,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let proc = exit.proc;
        let _rank = tracing::debug_span!("rank", rank = proc.rank.0).entered();
        tracing::debug!(code = exit.code(), stopped = exit.stopped, "rank ended");
        let wall = self.wall_us(now);
        if let Some(entry) = self.node(node) {
            entry.clock(exit.wall_us, wall);
        }
        let mut counted = false;
        if let Some(state) = self.ranks.get(proc) {
            state.exited = true;
            counted = state.counted;
        }
        self.fences_lose(proc, fences, out);
        self.input_lost(proc.rank, out);
        let failed = exit.failed();
        Self::event(JobEventOut::RankExited { node, exit: exit.clone() }, out);
        if !counted {
            self.failures.exited(node, exit);
        }
        if failed {
            self.rank_failed(now, proc, out);
        }
        Ok(())
    }

    fn rank_failed(&mut self, now: Time, proc: ProcId, out: &mut Vec<JobAction>) {
        match self.policy.on_failure {
            OnFailure::Stop => self.begin_stop(now, StopReason::Failure(proc), out),
            OnFailure::Continue => {}
        }
    }

    pub(super) fn node_failed(&mut self, now: Time, node: NodeIdx, out: &mut Vec<JobAction>) {
        match self.policy.on_failure {
            OnFailure::Stop => self.begin_stop(now, StopReason::NodeLost(node), out),
            OnFailure::Continue => {}
        }
    }

    fn ended(&mut self, node: NodeIdx) -> Result<(), String> {
        self.running(node)?;
        let Some(entry) = self.nodes.get_mut(node.0 as usize) else { return Ok(()) };
        let all = entry.ranks.iter().all(|r| self.ranks.ranks.get(r.0 as usize).is_none_or(|s| s.exited));
        if !all {
            return Err("ended with ranks it had not reported".into());
        }
        entry.phase = NodePhase::Ended;
        self.running_left -= 1;
        Ok(())
    }

    fn request(
        &mut self,
        node: NodeIdx,
        proc: ProcId,
        id: u64,
        request: RankRequest,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let RankRequest::Get { rank, key, wait_ms } = request else {
            return Err("passed on a request it answers itself".into());
        };
        let refused = |why: &str| RankReply::Refused(why.into());
        let reply = match self.ranks.node(rank) {
            _ if key.len() > MAX_KEY => refused("key too long"),
            None => refused("no such rank"),
            Some(owner) if self.node(owner).is_none_or(|n| n.is_out()) => RankReply::Lost(rank),
            Some(_) if self.fetches.len() >= MAX_FETCHES => refused("too many requests wait"),
            Some(owner) => {
                self.fetches.insert((proc, id), rank);
                self.tell(owner, Down::Fetch { asker: proc, id, rank, key, wait_ms }, Bytes::new(), out);
                return Ok(());
            }
        };
        self.tell(node, Down::Reply { proc, id, reply }, Bytes::new(), out);
        Ok(())
    }

    fn fetched(
        &mut self,
        node: NodeIdx,
        asker: ProcId,
        id: u64,
        reply: RankReply,
        payload: Bytes,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let owner = self.fetches.get(&(asker, id)).and_then(|rank| self.ranks.node(*rank));
        if owner != Some(node) {
            return Err("answered what it was not asked".into());
        }
        self.fetches.remove(&(asker, id));
        if let Some(at) = self.ranks.node(asker.rank) {
            self.tell(at, Down::Reply { proc: asker, id, reply }, payload, out);
        }
        Ok(())
    }

    fn fence(
        &mut self,
        node: NodeIdx,
        fence: u64,
        piece: &Bytes,
        last: bool,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        self.running(node)?;
        let used = self.used;
        let Some(entry) = self.node(node) else { return Ok(()) };
        if fence != entry.fences + 1 {
            return Err(format!("fence {fence} after fence {}", entry.fences));
        }
        if last {
            entry.fences = fence;
        }
        match self.fences.add(fence, piece, last, used)? {
            Gathered::Waiting => {}
            Gathered::Dead(proc) => self.fence_lost(node, fence, proc, out),
            Gathered::Complete(pieces) => {
                let count = pieces.len();
                for (i, piece) in pieces.into_iter().enumerate() {
                    let msg = Down::FenceDone { fence, lost: None, last: i + 1 == count };
                    self.send_all(msg, &piece, false, out)?;
                }
            }
        }
        Ok(())
    }

    fn fence_waits(&mut self, node: NodeIdx, fence: u64, out: &mut Vec<JobAction>) -> Result<(), String> {
        self.running(node)?;
        self.fences.waited = true;
        if let Some(entry) = self.node(node) {
            entry.waits = fence;
        }
        if let Some(proc) = self.fences.dead(fence) {
            self.fence_lost(node, fence, proc, out);
        }
        Ok(())
    }

    fn fence_lost(&mut self, node: NodeIdx, fence: u64, proc: ProcId, out: &mut Vec<JobAction>) {
        let msg = Down::FenceDone { fence, lost: Some(proc), last: true };
        self.tell(node, msg, Bytes::new(), out);
    }

    /// A rank is gone that has called so many fences: nodes waiting in later ones are told.
    pub(super) fn fences_lose(&mut self, proc: ProcId, called: u64, out: &mut Vec<JobAction>) {
        let Some(from) = self.fences.kill(proc, called) else { return };
        let waits = |n: &super::Node| n.phase == NodePhase::Running && (n.fences >= from || n.waits >= from);
        let waiting: Vec<NodeIdx> =
            (0u32..).map(NodeIdx).zip(&self.nodes).filter(|(_, n)| waits(n)).map(|(i, _)| i).collect();
        for node in waiting {
            self.fence_lost(node, from, proc, out);
        }
    }

    /// A rank takes no input any more.
    pub(super) fn input_lost(&mut self, rank: Rank, out: &mut Vec<JobAction>) {
        let reads = self.policy.stdin.read_by(rank);
        if reads {
            self.input.closed(rank);
            self.want_input(out);
        }
    }
}
