//! What servers and native ranks of this node ask of the job, what other nodes ask of them, and gathers. Here is
//! only who is to get which answer; what the bytes mean is theirs.

use super::gather::{Joined, Owner};
use super::kvs::{Asker, pieces};
use super::{DaemonAction, DaemonMachine};
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::{NodeIdx, ProcId, RankSet};
use rmpi_wire::rank::{RankReply, Reply};
use rmpi_wire::service::{Answer, Domain, GatherKey, MAX_VALUE, Request, Scope};
use rmpi_wire::{Up, frame};
use std::collections::BTreeMap;

/// Requests of one node without an answer, at most.
const MAX_ASKS: usize = 1 << 20;
/// Asker of questions that stay on the node.
const SELF: NodeIdx = frame::UNNAMED;
/// Gathers that stay on a node have numbers of their own: the node above this bit, and a count.
const LOCAL_SERIAL: u32 = 40;
/// Gathers that are named when a job's time is over.
const MAX_NAMED: usize = 8;

/// Requests on their way.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<u64, Owner>,
    last: u64,
    serial: u64,
}

impl DaemonMachine {
    /// A rank joins a gather.
    pub(super) fn join(
        &mut self,
        owner: Owner,
        by: ProcId,
        key: GatherKey,
        data: &Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        if !self.runs(by) {
            return;
        }
        let here = self.ranks.members(&key.group);
        let joined = self.gathers.join(&key, by, owner, data, &here);
        if let Joined::Failed(lost) = joined {
            return self.gather_failed(key, vec![owner], lost, out);
        }
        self.joined(&key, joined, here.all, out);
    }

    fn joined(&mut self, key: &GatherKey, joined: Joined, all_here: bool, out: &mut Vec<DaemonAction>) {
        let Joined::Send(rounds) = joined else { return };
        for data in rounds {
            if all_here {
                let owners = self.gathers.finish_here(key);
                self.asks.serial += 1;
                let node = u64::from(self.node.map_or(0, |n| n.0)) + 1;
                self.gather_done(key, owners, &data, node << LOCAL_SERIAL | self.asks.serial, out);
                continue;
            }
            let parts = pieces(data);
            let count = parts.len();
            for (i, part) in parts.into_iter().enumerate() {
                let last = i + 1 == count;
                self.send_up(Up::Gather { key: key.clone(), last }, part, out);
            }
        }
    }

    /// A piece of a result.
    pub(super) fn gathered(
        &mut self,
        key: &GatherKey,
        serial: u64,
        piece: &Bytes,
        last: bool,
        out: &mut Vec<DaemonAction>,
    ) -> Result<(), String> {
        if let Some((owners, data)) = self.gathers.result(key, piece, last)? {
            self.gather_done(key, owners, &data, serial, out);
        }
        Ok(())
    }

    fn gather_done(
        &mut self,
        key: &GatherKey,
        owners: Vec<Owner>,
        data: &Bytes,
        serial: u64,
        out: &mut Vec<DaemonAction>,
    ) {
        if key.domain != Domain::Native {
            let tokens = tokens(&owners);
            let result = Ok((data.clone(), serial));
            return out.push(DaemonAction::Gathered { key: key.clone(), tokens, result });
        }
        let ranks = &self.ranks;
        // What daemons made is well-formed; a launcher that spoils it is not believed.
        let answers = self.kvs.result(data, |rank| ranks.rank(rank).is_some()).unwrap_or_default();
        for (asker, reply, value) in answers {
            self.answer(asker, reply, value, out);
        }
        for owner in owners {
            self.answer_owner(owner, Answer::Done, Bytes::new(), out);
        }
    }

    /// Says which ranks of this node have not come to gathers that others of it wait in.
    pub(super) fn name_absent(&mut self, out: &mut Vec<DaemonAction>) {
        let named = self.gathers.incomplete().take(MAX_NAMED).filter_map(|(key, joined)| {
            let here = self.ranks.members(&key.group).alive;
            let absent: RankSet = here.into_iter().filter(|p| !joined.contains(p)).map(|p| p.rank).collect();
            let waiting: RankSet = joined.iter().map(|p| p.rank).collect();
            let many = |set: &RankSet| if set.len() == 1 { "" } else { "s" };
            let (a, w) = (many(&absent), many(&waiting));
            let text = format!("rank{a} {absent} did not come to the fence that rank{w} {waiting} waited in");
            (!absent.is_empty()).then_some(text)
        });
        for text in named.collect::<Vec<_>>() {
            self.send_up(Up::Note(text), Bytes::new(), out);
        }
    }

    pub(super) fn gather_failed(
        &mut self,
        key: GatherKey,
        owners: Vec<Owner>,
        lost: ProcId,
        out: &mut Vec<DaemonAction>,
    ) {
        if key.domain != Domain::Native {
            if !owners.is_empty() {
                out.push(DaemonAction::Gathered { key, tokens: tokens(&owners), result: Err(lost) });
            }
            return;
        }
        for owner in owners {
            self.answer_owner(owner, Answer::Lost(lost), Bytes::new(), out);
        }
    }

    /// A rank of this node ended: what it has not joined fails, or goes on without it.
    pub(super) fn gathers_lose(&mut self, proc: ProcId, out: &mut Vec<DaemonAction>) {
        let ranks = &self.ranks;
        for (key, what) in self.gathers.rank_ended(proc, |key| ranks.members(&key.group)) {
            match what {
                Err(owners) => self.gather_failed(key, owners, proc, out),
                Ok(joined) => {
                    let all = self.ranks.members(&key.group).all;
                    self.joined(&key, joined, all, out);
                }
            }
        }
    }

    /// A server's request.
    pub(super) fn server_asks(
        &mut self,
        now: Time,
        token: u64,
        by: ProcId,
        request: Request,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        if !self.runs(by) {
            return;
        }
        let owner = Owner::Server(token);
        if payload.len() > MAX_VALUE {
            let why = format!("{} bytes, at most {MAX_VALUE} are allowed", payload.len());
            return self.answer_owner(owner, Answer::Refused(why), Bytes::new(), out);
        }
        match request {
            Request::Ask { of, domain, wait_ms } if self.ranks.get(of).is_some() => {
                if self.ranks.get(of).is_none_or(|s| !s.alive()) {
                    return self.answer_owner(owner, Answer::Lost(of), Bytes::new(), out);
                }
                let Some(id) = self.ask_id(owner) else { return self.too_many(owner, out) };
                self.asked(now, SELF, id, of, domain, wait_ms, payload, out);
            }
            Request::Notify { domain, scope: Scope::Node } => {
                out.push(DaemonAction::Notified { domain, scope: Scope::Node, by, payload });
            }
            Request::Notify { .. } | Request::Watch => {
                self.asks.last += 1;
                self.send_up(Up::Request { id: self.asks.last, by, request }, payload, out);
            }
            request => self.ask_up(owner, by, request, payload, out),
        }
    }

    /// Passes a request on to the launcher.
    pub(super) fn ask_up(
        &mut self,
        owner: Owner,
        by: ProcId,
        request: Request,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        match self.ask_id(owner) {
            Some(id) => self.send_up(Up::Request { id, by, request }, payload, out),
            None => self.too_many(owner, out),
        }
    }

    fn ask_id(&mut self, owner: Owner) -> Option<u64> {
        if self.asks.open.len() >= MAX_ASKS {
            return None;
        }
        self.asks.last += 1;
        self.asks.open.insert(self.asks.last, owner);
        Some(self.asks.last)
    }

    fn too_many(&mut self, owner: Owner, out: &mut Vec<DaemonAction>) {
        let answer = Answer::Refused("too many requests wait".into());
        self.answer_owner(owner, answer, Bytes::new(), out);
    }

    /// An answer to one of our requests.
    pub(super) fn answered(&mut self, id: u64, answer: Answer, payload: Bytes, out: &mut Vec<DaemonAction>) {
        let Some(owner) = self.asks.open.remove(&id) else { return };
        if let Owner::Native(proc, request) = owner
            && !self.kvs.answered(Asker::Local(proc, request))
        {
            // A fence brought the value meanwhile, or its time was over.
            return;
        }
        self.answer_owner(owner, answer, payload, out);
    }

    fn answer_owner(&mut self, owner: Owner, answer: Answer, payload: Bytes, out: &mut Vec<DaemonAction>) {
        let (proc, id) = match owner {
            Owner::Server(token) => return out.push(DaemonAction::Answered { token, answer, payload }),
            Owner::Native(proc, id) => (proc, id),
        };
        let reply = match answer {
            Answer::Done | Answer::Spawned { .. } => RankReply::Done,
            Answer::Value => RankReply::Value,
            Answer::Missing => RankReply::Missing,
            Answer::Lost(lost) => RankReply::Lost(lost.rank),
            Answer::Taken => RankReply::Refused("in use".into()),
            Answer::Refused(why) => RankReply::Refused(why),
        };
        if self.runs(proc) {
            out.push(DaemonAction::ReplyRank { proc, reply: Reply { id, reply }, payload });
        }
    }

    /// Somebody asks about a process of this node.
    #[allow(clippy::too_many_arguments, reason = "a message's fields")]
    pub(super) fn asked(
        &mut self,
        now: Time,
        asker: NodeIdx,
        id: u64,
        of: ProcId,
        domain: Domain,
        wait_ms: u32,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        if domain == Domain::Native {
            let Ok(key) = String::from_utf8(payload.to_vec()) else {
                let answer = Answer::Refused("a key that is not UTF-8".into());
                return self.server_answers(asker, id, answer, Bytes::new(), out);
            };
            return self.fetch(now, Asker::Remote(asker, id), of.rank, key, wait_ms, out);
        }
        let answer = match self.ranks.get(of) {
            Some(slot) if slot.alive() => {
                return out.push(DaemonAction::Asked { asker, id, of, domain, wait_ms, payload });
            }
            Some(_) => Answer::Lost(of),
            None => Answer::Refused(format!("{of} is not on this node")),
        };
        self.server_answers(asker, id, answer, Bytes::new(), out);
    }

    /// The answer to what somebody asked.
    pub(super) fn server_answers(
        &mut self,
        asker: NodeIdx,
        id: u64,
        answer: Answer,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        if asker == SELF {
            self.answered(id, answer, payload, out);
        } else {
            self.send_up(Up::Answer { asker, id, answer }, payload, out);
        }
    }
}

/// The servers' tokens among those who wait.
fn tokens(owners: &[Owner]) -> Vec<u64> {
    let token = |o: &Owner| match o {
        Owner::Server(token) => Some(*token),
        Owner::Native(..) => None,
    };
    owners.iter().filter_map(token).collect()
}
