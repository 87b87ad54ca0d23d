//! Gathers on one node: who has joined which, what they bring, who waits for the result. Rounds of one key follow
//! each other; one is sent when all its members of this node have joined, and leaves when its result is here.
//! Pure bookkeeping: what is to be sent and answered comes back as lists.

use bytes::{Bytes, BytesMut};
use rmpi_types::ProcId;
use rmpi_wire::service::{GatherKey, MAX_NAME, OnLoss};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes one node holds for gathers that are not complete, at most.
const MAX_BYTES: usize = 1 << 30;
/// Rounds of one key a node may have open.
const MAX_ROUNDS: usize = 1024;
/// Keys a node may have open.
const MAX_KEYS: usize = 1 << 16;

/// Who waits for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A native rank's request.
    Native(ProcId, u64),
    /// A server's token.
    Server(u64),
}

#[derive(Debug, Default)]
struct Round {
    joined: Vec<(ProcId, Owner)>,
    data: BytesMut,
    /// On its way: all members of this node have joined.
    sent: bool,
}

impl Round {
    /// Whether all of these have joined.
    fn has(&self, members: &[ProcId]) -> bool {
        // Nearly always the number decides.
        self.joined.len() >= members.len() && {
            let joined: BTreeSet<ProcId> = self.joined.iter().map(|(p, _)| *p).collect();
            members.iter().all(|p| joined.contains(p))
        }
    }
}

#[derive(Debug, Default)]
struct Rounds {
    rounds: VecDeque<Round>,
    /// Pieces of the first round's result.
    incoming: BytesMut,
    /// Whether its oldest unsent round was there at the last look, and whether the launcher knows.
    seen: bool,
    announced: bool,
}

/// What the members of a gather on this node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    /// Those that run.
    pub(super) alive: Vec<ProcId>,
    /// One that has ended.
    pub(super) dead: Option<ProcId>,
    /// There is none elsewhere.
    pub(super) all: bool,
}

/// What a join, or the end of a member, leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Joined {
    /// Others are still to come.
    Waiting,
    /// It cannot be: because of this member, or of a limit.
    Failed(ProcId),
    /// These rounds are complete on this node: what to send.
    Send(Vec<Bytes>),
}

/// The end of one round: who waited, and the data.
pub(super) type Ended = (Vec<Owner>, Bytes);

/// All gathers of one node.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    open: BTreeMap<GatherKey, Rounds>,
    bytes: usize,
}

impl Gathers {
    /// A member joins the first round it has not joined.
    pub(super) fn join(
        &mut self,
        key: &GatherKey,
        by: ProcId,
        owner: Owner,
        data: &Bytes,
        here: &Here,
    ) -> Joined {
        let misfit = !key.group.contains(by) || key.name.len() > MAX_NAME;
        let full = self.bytes + data.len() > MAX_BYTES || self.open.len() >= MAX_KEYS;
        if misfit || full {
            return Joined::Failed(by);
        }
        if let (OnLoss::Fail, Some(dead)) = (key.loss, here.dead) {
            return Joined::Failed(dead);
        }
        let rounds = self.open.entry(key.clone()).or_default();
        let at = rounds.rounds.iter().position(|r| !r.sent && r.joined.iter().all(|(p, _)| *p != by));
        let at = at.unwrap_or(rounds.rounds.len());
        if at >= MAX_ROUNDS {
            return Joined::Failed(by);
        }
        if at == rounds.rounds.len() {
            rounds.rounds.push_back(Round::default());
        }
        let round = &mut rounds.rounds[at];
        round.joined.push((by, owner));
        round.data.extend_from_slice(data);
        self.bytes += data.len();
        self.complete(key, here)
    }

    /// Sends the rounds in which all members that run have joined.
    fn complete(&mut self, key: &GatherKey, here: &Here) -> Joined {
        let Some(rounds) = self.open.get_mut(key) else { return Joined::Waiting };
        let mut ready = Vec::new();
        for round in rounds.rounds.iter_mut().filter(|r| !r.sent) {
            if !round.has(&here.alive) {
                break;
            }
            round.sent = true;
            self.bytes = self.bytes.saturating_sub(round.data.len());
            ready.push(std::mem::take(&mut round.data).freeze());
            (rounds.seen, rounds.announced) = (false, false);
        }
        if ready.is_empty() { Joined::Waiting } else { Joined::Send(ready) }
    }

    /// A rank of this node ended: what that means for each gather it was a member of. `here` says who is left.
    pub(super) fn rank_ended(
        &mut self,
        proc: ProcId,
        here: impl Fn(&GatherKey) -> Here,
    ) -> Vec<(GatherKey, Result<Joined, Vec<Owner>>)> {
        let keys: Vec<GatherKey> = self.open.keys().filter(|k| k.group.contains(proc)).cloned().collect();
        let mut out = Vec::new();
        for key in keys {
            match key.loss {
                OnLoss::Fail => {
                    let Some(rounds) = self.open.get_mut(&key) else { continue };
                    let sent = rounds.rounds.iter().take_while(|r| r.sent).count();
                    let failed: Vec<Round> = rounds.rounds.drain(sent..).collect();
                    let owners = failed.iter().flat_map(|r| r.joined.iter().map(|(_, o)| *o)).collect();
                    self.bytes = self.bytes.saturating_sub(failed.iter().map(|r| r.data.len()).sum());
                    self.tidy(&key);
                    out.push((key, Err(owners)));
                }
                OnLoss::Skip => {
                    let joined = self.complete(&key, &here(&key));
                    out.push((key, Ok(joined)));
                }
            }
        }
        out
    }

    /// A piece of the first round's result; with the last, who waited for it and all of it.
    pub(super) fn result(
        &mut self,
        key: &GatherKey,
        piece: &Bytes,
        last: bool,
    ) -> Result<Option<Ended>, String> {
        // It may have failed here meanwhile.
        let Some(rounds) = self.open.get_mut(key) else { return Ok(None) };
        if rounds.incoming.len() + piece.len() > MAX_BYTES {
            return Err("gather result too large".into());
        }
        if !last {
            rounds.incoming.extend_from_slice(piece);
            return Ok(None);
        }
        let Some(round) = rounds.rounds.pop_front_if(|r| r.sent) else { return Ok(None) };
        let data = if rounds.incoming.is_empty() {
            piece.clone()
        } else {
            rounds.incoming.extend_from_slice(piece);
            std::mem::take(&mut rounds.incoming).freeze()
        };
        self.tidy(key);
        Ok(Some((round.joined.into_iter().map(|(_, o)| o).collect(), data)))
    }

    /// The first round completes here, with what its members brought.
    pub(super) fn finish_here(&mut self, key: &GatherKey) -> Vec<Owner> {
        let Some(rounds) = self.open.get_mut(key) else { return Vec::new() };
        let round = rounds.rounds.pop_front().unwrap_or_default();
        self.tidy(key);
        round.joined.into_iter().map(|(_, o)| o).collect()
    }

    /// All rounds of a key fail: who waited.
    pub(super) fn lost(&mut self, key: &GatherKey) -> Vec<Owner> {
        let Some(rounds) = self.open.remove(key) else { return Vec::new() };
        self.bytes = self.bytes.saturating_sub(rounds.rounds.iter().map(|r| r.data.len()).sum());
        rounds.rounds.into_iter().flat_map(|r| r.joined).map(|(_, o)| o).collect()
    }

    fn tidy(&mut self, key: &GatherKey) {
        if self.open.get(key).is_some_and(|r| r.rounds.is_empty()) {
            self.open.remove(key);
        }
    }

    /// Keys with a round that some have joined and others have not, and who has.
    pub(super) fn incomplete(&self) -> impl Iterator<Item = (&GatherKey, BTreeSet<ProcId>)> {
        let oldest = |rounds: &Rounds| -> Option<BTreeSet<ProcId>> {
            let round = rounds.rounds.iter().find(|r| !r.sent)?;
            Some(round.joined.iter().map(|(p, _)| *p).collect())
        };
        self.open.iter().filter_map(move |(key, rounds)| Some((key, oldest(rounds)?)))
    }

    /// Looked at with every heartbeat: keys of which a round has been incomplete on this node since the last
    /// look, and that were not announced.
    pub(super) fn stuck(&mut self) -> Vec<GatherKey> {
        let mut out = Vec::new();
        for (key, rounds) in self.open.iter_mut().filter(|(k, _)| k.loss == OnLoss::Fail) {
            let waits = rounds.rounds.iter().any(|r| !r.sent);
            if waits && rounds.seen && !rounds.announced {
                rounds.announced = true;
                out.push(key.clone());
            }
            rounds.seen = waits;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::service::{Domain, Group};

    fn key(loss: OnLoss) -> GatherKey {
        GatherKey { domain: Domain::Pmi, name: b"b".to_vec(), group: Group::all(ProcId::first(0)), loss }
    }

    fn here(alive: &[u32], dead: Option<u32>) -> Here {
        let alive = alive.iter().copied().map(ProcId::first).collect();
        Here { alive, dead: dead.map(ProcId::first), all: false }
    }

    fn join(g: &mut Gathers, key: &GatherKey, rank: u32, data: &'static str, h: &Here) -> Joined {
        let data = Bytes::from_static(data.as_bytes());
        g.join(key, ProcId::first(rank), Owner::Server(rank.into()), &data, h)
    }

    #[test]
    fn a_round_is_sent_when_all_here_have_joined_and_rounds_follow_each_other() {
        let (mut g, key, h) = (Gathers::default(), key(OnLoss::Fail), here(&[0, 1], None));
        assert_eq!(join(&mut g, &key, 0, "a", &h), Joined::Waiting);
        assert_eq!(join(&mut g, &key, 0, "A", &h), Joined::Waiting, "its next round");
        assert_eq!(join(&mut g, &key, 1, "b", &h), Joined::Send(vec![Bytes::from_static(b"ab")]));
        assert_eq!(join(&mut g, &key, 1, "B", &h), Joined::Send(vec![Bytes::from_static(b"AB")]));
        let all = Bytes::from_static(b"xyz");
        assert_eq!(g.result(&key, &all.slice(..2), false), Ok(None));
        let ended = (vec![Owner::Server(0), Owner::Server(1)], all.clone());
        assert_eq!(g.result(&key, &all.slice(2..), true), Ok(Some(ended)));
        assert!(g.result(&key, &all, true).unwrap().is_some());
        assert_eq!((g.result(&key, &all, true), g.bytes, g.open.len()), (Ok(None), 0, 0));
    }

    #[test]
    fn a_member_that_ends_fails_what_was_not_sent() {
        let (mut g, key, h) = (Gathers::default(), key(OnLoss::Fail), here(&[0, 1], None));
        join(&mut g, &key, 0, "a", &h);
        join(&mut g, &key, 1, "b", &h);
        join(&mut g, &key, 0, "c", &h);
        let ended = g.rank_ended(ProcId::first(1), |_| here(&[0], Some(1)));
        assert_eq!(ended, [(key.clone(), Err(vec![Owner::Server(0)]))]);
        assert!(g.result(&key, &Bytes::new(), true).unwrap().is_some(), "the first was sent");
        assert_eq!(join(&mut g, &key, 0, "", &here(&[0], Some(1))), Joined::Failed(ProcId::first(1)));
        assert_eq!(g.bytes, 0);
    }

    #[test]
    fn a_member_that_may_be_left_out_is() {
        let (mut g, key, h) = (Gathers::default(), key(OnLoss::Skip), here(&[0, 1], None));
        join(&mut g, &key, 0, "a", &h);
        let ended = g.rank_ended(ProcId::first(1), |_| here(&[0], Some(1)));
        assert_eq!(ended, [(key, Ok(Joined::Send(vec![Bytes::from_static(b"a")])))]);
    }

    #[test]
    fn a_stuck_round_is_announced_once() {
        let (mut g, key, h) = (Gathers::default(), key(OnLoss::Fail), here(&[0, 1], None));
        join(&mut g, &key, 0, "a", &h);
        assert_eq!([g.stuck(), g.stuck(), g.stuck()], [vec![], vec![key.clone()], vec![]]);
        let who = BTreeSet::from([ProcId::first(0)]);
        assert_eq!(g.incomplete().collect::<Vec<_>>(), [(&key, who)]);
        assert_eq!(g.lost(&key), [Owner::Server(0)]);
        assert_eq!((g.lost(&key), g.stuck()), (vec![], vec![]));
    }

    #[test]
    fn strangers_are_turned_away() {
        let (mut g, mut key, h) = (Gathers::default(), key(OnLoss::Fail), here(&[0, 1], None));
        let proc = ProcId::first(0);
        key.group = Group::ranks(proc, rmpi_types::RankSet::range(1, 1)).unwrap();
        assert_eq!(join(&mut g, &key, 0, "", &h), Joined::Failed(proc));
    }
}
