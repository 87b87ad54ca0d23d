//! What servers ask of the job, at the launcher: gathers, names, questions to other nodes, notices.

use super::gather::Complete;
use super::names::Who;
use super::{JobAction, JobEventOut, JobMachine};
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::{NodeIdx, ProcId, Rank, RankEnd, RankSet};
use rmpi_wire::Down;
use rmpi_wire::service::{Answer, GatherKey, MAX_VALUE, OnLoss, Request, Scope};

/// Questions on their way, at most.
const MAX_ASKS: usize = 1 << 20;

/// Gathers, and nodes of each, that are named when a job's time is over.
const MAX_NAMED: usize = 8;

impl JobMachine {
    #[allow(clippy::too_many_arguments, reason = "a message's fields and where it came from")]
    pub(super) fn request(
        &mut self,
        now: Time,
        node: NodeIdx,
        by: ProcId,
        id: u64,
        request: Request,
        payload: Bytes,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        if payload.len() > MAX_VALUE {
            return Err(format!("a request of {} bytes", payload.len()));
        }
        let who = Who { proc: by, node };
        let answer = match request {
            Request::Ask { of, domain, wait_ms } => match self.ranks.get(of).map(|s| s.node) {
                None => Answer::Refused(format!("there is no {of}")),
                Some(owner) if self.node(owner).is_none_or(|n| n.is_out()) => Answer::Lost(of),
                Some(_) if self.asks.len() >= MAX_ASKS => Answer::Refused("too many requests wait".into()),
                Some(owner) => {
                    self.asks.insert((node, id), of);
                    let asked = Down::Asked { asker: node, id, of, domain, wait_ms };
                    self.tell(owner, asked, payload, out);
                    return Ok(());
                }
            },
            Request::Publish { domain, name, scope, until } => {
                match self.published.publish((domain, name), payload, who, scope, until) {
                    Ok(found) => {
                        self.found(found, out);
                        Answer::Done
                    }
                    Err(None) => Answer::Taken,
                    Err(Some(why)) => Answer::Refused(why.into()),
                }
            }
            Request::Lookup { domain, name, wait_ms } => {
                let name = (domain, name);
                if let Some(value) = self.published.find(&name, who) {
                    self.tell(node, Down::Answer { id, answer: Answer::Value }, value, out);
                    return Ok(());
                }
                if wait_ms > 0 && self.published.wait(now, who, id, name, wait_ms) {
                    return Ok(());
                }
                Answer::Missing
            }
            Request::Unpublish { domain, name, owner_only } => {
                match self.published.unpublish(&(domain, name), by, owner_only) {
                    true => Answer::Done,
                    false => Answer::Missing,
                }
            }
            Request::Spawn(order) => {
                self.spawn(node, id, by, order, out);
                return Ok(());
            }
            Request::Notify { domain, scope } => {
                let nodes = match scope {
                    Scope::All | Scope::Namespace => self.ranks.nodes_of(by).collect(),
                    Scope::Node => RankSet::range(node.0, node.0),
                };
                self.tell_set(&Down::Notified { domain, scope, by }, &payload, &nodes, out);
                return Ok(());
            }
            Request::Watch => {
                self.watchers.insert(Rank(node.0));
                return Ok(());
            }
        };
        self.tell(node, Down::Answer { id, answer }, Bytes::new(), out);
        Ok(())
    }

    /// Answers for lookups that waited.
    pub(super) fn found(&mut self, found: Vec<super::names::Found>, out: &mut Vec<JobAction>) {
        for (node, id, value) in found {
            let answer = if value.is_some() { Answer::Value } else { Answer::Missing };
            self.tell(node, Down::Answer { id, answer }, value.unwrap_or_default(), out);
        }
    }

    /// A server has answered another node's question.
    pub(super) fn answer(
        &mut self,
        node: NodeIdx,
        asker: NodeIdx,
        id: u64,
        answer: Answer,
        payload: Bytes,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let owner = self.asks.get(&(asker, id)).copied().and_then(|of| self.ranks.get(of)).map(|s| s.node);
        if owner != Some(node) {
            return Err("answered what it was not asked".into());
        }
        self.asks.remove(&(asker, id));
        self.tell(asker, Down::Answer { id, answer }, payload, out);
        Ok(())
    }

    /// The nodes with members of a gather.
    fn members_nodes(&self, key: &GatherKey) -> RankSet {
        let mut nodes = RankSet::default();
        for part in key.group.parts() {
            let ns = ProcId { ns: part.ns, epoch: part.epoch, rank: Rank(0) };
            match &part.ranks {
                None => nodes.extend(self.ranks.nodes_of(ns)),
                Some(ranks) => nodes.extend(
                    ranks
                        .iter()
                        .filter_map(|rank| self.ranks.state(ProcId { rank, ..ns }).map(|s| Rank(s.node.0))),
                ),
            }
        }
        nodes
    }

    /// Opens a key if it is not. Nodes none of whose members run are left out where that is allowed.
    fn gather_open(&mut self, key: &GatherKey, out: &mut Vec<JobAction>) -> Result<(), String> {
        if self.gathers.is_open(key) {
            return Ok(());
        }
        let nodes = self.members_nodes(key);
        self.gathers.open(key, nodes.clone())?;
        if key.loss == OnLoss::Skip && self.ranks.gone > 0 {
            for node in nodes.iter().map(|r| NodeIdx(r.0)) {
                if !self.has_live_member(key, node) {
                    let done = self.gathers.leave_out(key, node);
                    self.gather_done(key, done, out);
                }
            }
        }
        Ok(())
    }

    /// Whether some member on a node runs.
    fn has_live_member(&self, key: &GatherKey, node: NodeIdx) -> bool {
        let out = self.nodes.get(node.0 as usize).is_none_or(|n| n.is_out());
        let runs = |rank: Rank| {
            self.ranks.state(self.ranks.proc(rank)).is_some_and(|s| !s.gone)
                && key.group.contains(self.ranks.proc(rank))
        };
        !out && self.nodes.get(node.0 as usize).is_some_and(|n| n.ranks.iter().any(runs))
    }

    /// A member that is gone and whose node has not contributed to some open round.
    fn gone_member(&self, key: &GatherKey) -> Option<ProcId> {
        if self.ranks.gone == 0 || key.loss == OnLoss::Skip {
            return None;
        }
        let gone = |(rank, s): (u32, &super::nodes::RankState)| {
            let proc = self.ranks.proc(Rank(rank));
            (s.gone && key.group.contains(proc) && self.gathers.lacks(key, s.node)).then_some(proc)
        };
        (0u32..).zip(&self.ranks.ranks).find_map(gone)
    }

    pub(super) fn gather(
        &mut self,
        node: NodeIdx,
        key: &GatherKey,
        piece: Bytes,
        last: bool,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        self.gather_open(key, out)?;
        let (done, first) = self.gathers.add(key, node, piece, last)?;
        // A member that goes later fails it then.
        if first
            && done.is_empty()
            && let Some(lost) = self.gone_member(key)
        {
            self.gather_lost(key, lost, out);
        }
        self.gather_done(key, done, out);
        Ok(())
    }

    fn gather_done(&mut self, key: &GatherKey, done: Vec<Complete>, out: &mut Vec<JobAction>) {
        for Complete { nodes, chunks, serial } in done {
            let count = chunks.len();
            for (i, chunk) in chunks.into_iter().enumerate() {
                let msg = Down::Gathered { key: key.clone(), serial, last: i + 1 == count };
                self.tell_set(&msg, &chunk, &nodes, out);
            }
        }
    }

    pub(super) fn gather_waits(
        &mut self,
        node: NodeIdx,
        key: &GatherKey,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        self.gather_open(key, out)?;
        self.gathers.waits(key, node);
        if let Some(lost) = self.gone_member(key) {
            self.gather_lost(key, lost, out);
        }
        Ok(())
    }

    /// Says of which nodes no word of a gather has come that others wait in; which ranks, the nodes say.
    pub(super) fn name_absent(&self, out: &mut Vec<JobAction>) {
        for (key, nodes) in self.gathers.absent().take(MAX_NAMED) {
            let members = |node: Rank| {
                let ranks = self.nodes.get(node.0 as usize).into_iter().flat_map(|n| n.ranks.iter());
                let of = ranks.map(|r| self.ranks.proc(r)).filter(|p| key.group.contains(*p));
                of.map(|p| p.rank).collect::<RankSet>()
            };
            for node in nodes.iter().take(MAX_NAMED) {
                let (index, ranks) = (NodeIdx(node.0), members(node));
                let what = if ranks.len() == 1 { "rank" } else { "ranks" };
                let text = format!("others wait in a fence for {what} {ranks} on {}", self.name(index));
                Self::event(JobEventOut::Note { node: index, text }, out);
            }
        }
    }

    fn gather_lost(&mut self, key: &GatherKey, lost: ProcId, out: &mut Vec<JobAction>) {
        let nodes = self.gathers.fail(key);
        self.tell_set(&Down::GatherLost { key: key.clone(), lost }, &Bytes::new(), &nodes, out);
    }

    /// A rank is gone: gathers it belongs to and has not joined fail or go on without it, its names may go.
    pub(super) fn service_loses(&mut self, proc: ProcId, node: NodeIdx, out: &mut Vec<JobAction>) {
        let last = self.ranks.all_gone(proc);
        self.published.ended(proc, last);
        for key in self.gathers.keys_of(proc) {
            match key.loss {
                OnLoss::Fail if self.gathers.lacks(&key, node) => self.gather_lost(&key, proc, out),
                OnLoss::Skip if !self.has_live_member(&key, node) => {
                    let done = self.gathers.leave_out(&key, node);
                    self.gather_done(&key, done, out);
                }
                OnLoss::Fail | OnLoss::Skip => {}
            }
        }
    }

    /// Tells those who watch of a failed rank.
    pub(super) fn tell_watchers(&mut self, proc: ProcId, end: RankEnd, out: &mut Vec<JobAction>) {
        let watchers = self.watchers.clone();
        self.tell_set(&Down::RankEnded { proc, end }, &Bytes::new(), &watchers, out);
    }
}
