//! What daemons say. A message that does not fit what its node is doing is a violation of the protocol; the
//! caller then loses the node.

use super::failure::limited;
use super::nodes::NodePhase;
use super::{JobAction, JobEventOut, JobMachine, StopReason};
use crate::link::clip;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::spec::OnFailure;
use rmpi_types::{LaunchFault, NodeIdx, ProcId, Rank, RankExit};
use rmpi_wire::Up;

/// Different notes shown, at most.
const MAX_NOTES: usize = 256;
/// Bytes of a note or abort message, at most.
const MAX_TEXT: usize = 1000;

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
            Up::Stacks { proc } => {
                self.of(node, proc)?;
                self.ending.looked(now);
                Self::event(JobEventOut::Stacks { node, proc, text: payload }, out);
                Ok(())
            }
            Up::Gone { exit } => {
                self.of(node, exit.proc)?;
                self.gone(now, node, limited(exit), out)
            }
            Up::Exited { exit } => {
                self.of(node, exit.proc)?;
                self.exited(now, node, limited(exit), out)
            }
            Up::Abort { proc, code, message } => {
                self.of(node, proc)?;
                tracing::info!(rank = proc.rank.0, code, message = clip(message, MAX_TEXT), "abort");
                if self.apart(proc) {
                    self.end_children(now, node, proc, &format!("called abort with code {code}"), out);
                    return Ok(());
                }
                let at = super::nodes::signed(self.wall_us(now));
                self.failures.aborted(proc, at);
                self.begin_stop(now, StopReason::Failure(proc), out);
                Ok(())
            }
            Up::Request { id, by, request } => {
                self.of(node, by)?;
                self.request(now, node, by, id, request, payload, out)
            }
            Up::Answer { asker, id, answer } => self.answer(node, asker, id, answer, payload, out),
            Up::Gather { key, last } => {
                self.running(node)?;
                self.gather(node, &key, payload, last, out)
            }
            Up::GatherWaits { key } => {
                self.running(node)?;
                self.gather_waits(node, &key, out)
            }
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
        if self.spawn_fault(now, node, &fault, out) {
            return Ok(());
        }
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
                    let proc = self.ranks.proc(rank);
                    self.ranks.gone(proc);
                    self.service_loses(proc, node, out);
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
        if self.spawn_started(node, pids, out)? {
            return Ok(());
        }
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
        self.next_spawn(out);
        Ok(())
    }

    /// A rank ended whose output is not here yet.
    fn gone(
        &mut self,
        now: Time,
        node: NodeIdx,
        exit: RankExit,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let proc = exit.proc;
        self.ranks.gone(proc);
        self.service_loses(proc, node, out);
        let (failed, end) = (exit.failed(), exit.end);
        if let Some(state) = self.ranks.get(proc)
            && failed
            && !std::mem::replace(&mut state.counted, true)
        {
            if self.apart(proc) {
                self.child_failed(now, node, &exit, out);
                self.tell_watchers(proc, end, out);
                return Ok(());
            }
            self.failures.exited(node, exit);
            self.tell_watchers(proc, end, out);
            self.rank_failed(now, proc, out);
        }
        Ok(())
    }

    fn exited(
        &mut self,
        now: Time,
        node: NodeIdx,
        exit: RankExit,
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
        self.ranks.gone(proc);
        self.service_loses(proc, node, out);
        if proc.ns == self.ranks.ns.ns {
            self.input_lost(proc.rank, out);
        }
        let (failed, end) = (exit.failed(), exit.end);
        Self::event(JobEventOut::RankExited { node, exit: exit.clone() }, out);
        let apart = self.apart(proc);
        if !counted {
            if apart && failed {
                self.child_failed(now, node, &exit, out);
            } else {
                self.failures.exited(node, exit);
            }
            if failed {
                self.tell_watchers(proc, end, out);
            }
        }
        if failed && !apart {
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

    /// A rank takes no input any more.
    pub(super) fn input_lost(&mut self, rank: Rank, out: &mut Vec<JobAction>) {
        let reads = self.policy.stdin.read_by(rank);
        if reads {
            self.input.closed(rank);
            self.want_input(out);
        }
    }
}
