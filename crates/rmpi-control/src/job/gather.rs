//! Gathers at the launcher: what nodes contribute is put together, and the whole is sent once to every node that
//! has members. A gather of which a member is gone before its node has contributed fails, or goes on without it.
//! Pure bookkeeping: which nodes take part, and who is dead, the caller says.

use bytes::{Bytes, BytesMut};
use rmpi_types::{NodeIdx, ProcId, Rank, RankSet};
use rmpi_wire::frame::MAX_PAYLOAD;
use rmpi_wire::service::{GatherKey, MAX_NAME};
use std::collections::{BTreeMap, VecDeque};

/// Bytes gathered for what is not complete, at most.
const MAX_GATHERED: usize = 1 << 30;
/// Rounds of one key a node may be ahead of the slowest one.
const MAX_AHEAD: usize = 4096;
/// Keys that may be open.
const MAX_KEYS: usize = 1 << 20;

#[derive(Debug, Default)]
struct Round {
    arrived: RankSet,
    chunks: Vec<Bytes>,
    tail: BytesMut,
}

impl Round {
    /// Small contributions are put together: the result is then a few frames and not one a node.
    fn add(&mut self, mut data: Bytes) {
        while !data.is_empty() {
            let room = MAX_PAYLOAD - self.tail.len();
            self.tail.extend_from_slice(&data.split_to(room.min(data.len())));
            if self.tail.len() == MAX_PAYLOAD {
                self.chunks.push(self.tail.split().freeze());
            }
        }
    }

    fn bytes(&self) -> usize {
        self.tail.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    fn into_chunks(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() || self.chunks.is_empty() {
            self.chunks.push(self.tail.freeze());
        }
        self.chunks
    }
}

#[derive(Debug)]
struct State {
    /// Nodes with members.
    nodes: RankSet,
    /// Nodes none of whose members can join any more and that are not waited for.
    out: RankSet,
    rounds: VecDeque<Round>,
    /// Pieces of nodes that are not through with their contribution.
    partial: BTreeMap<NodeIdx, BytesMut>,
    /// Nodes that wait with an incomplete round of their own.
    waiting: RankSet,
}

impl State {
    /// The round a node is to contribute to next.
    fn next_of(&self, node: Rank) -> usize {
        self.rounds.iter().position(|r| !r.arrived.contains(node)).unwrap_or(self.rounds.len())
    }
}

/// A complete round.
#[derive(Debug, PartialEq)]
pub(super) struct Complete {
    /// Whom to send it.
    pub(super) nodes: RankSet,
    /// The payloads.
    pub(super) chunks: Vec<Bytes>,
    /// Its number.
    pub(super) serial: u64,
}

/// All gathers of a job.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    open: BTreeMap<GatherKey, State>,
    gathered: usize,
    serial: u64,
}

impl Gathers {
    /// Whether a key is known.
    pub(super) fn is_open(&self, key: &GatherKey) -> bool {
        self.open.contains_key(key)
    }

    /// Makes a key known; `nodes` have members.
    pub(super) fn open(&mut self, key: &GatherKey, nodes: RankSet) -> Result<(), String> {
        if self.open.len() >= MAX_KEYS || key.name.len() > MAX_NAME {
            return Err("more gathers than the launcher keeps".into());
        }
        let state = State {
            nodes,
            out: RankSet::default(),
            rounds: VecDeque::new(),
            partial: BTreeMap::new(),
            waiting: RankSet::default(),
        };
        self.open.insert(key.clone(), state);
        Ok(())
    }

    /// A piece of a node's contribution to an open key: the rounds that are complete with it, and whether it is
    /// the first of its round.
    pub(super) fn add(
        &mut self,
        key: &GatherKey,
        node: NodeIdx,
        piece: Bytes,
        last: bool,
    ) -> Result<(Vec<Complete>, bool), String> {
        let Some(state) = self.open.get_mut(key) else { return Ok((Vec::new(), false)) };
        if !state.nodes.contains(Rank(node.0)) {
            return Err("contributes to a gather of others".into());
        }
        self.gathered += piece.len();
        if self.gathered > MAX_GATHERED {
            return Err("more gathered data than the launcher holds".into());
        }
        if !last {
            state.partial.entry(node).or_default().extend_from_slice(&piece);
            return Ok((Vec::new(), false));
        }
        let data = match state.partial.remove(&node) {
            Some(mut data) => {
                data.extend_from_slice(&piece);
                data.freeze()
            }
            None => piece,
        };
        let at = state.next_of(Rank(node.0));
        if at >= MAX_AHEAD {
            return Err("too many rounds ahead of the others".into());
        }
        let first = at == state.rounds.len();
        if first {
            state.rounds.push_back(Round::default());
        }
        let round = &mut state.rounds[at];
        round.arrived.insert(Rank(node.0));
        round.add(data);
        state.waiting.remove(Rank(node.0));
        Ok((self.complete(key), first))
    }

    /// Takes the rounds that nobody is waited for any more.
    fn complete(&mut self, key: &GatherKey) -> Vec<Complete> {
        let mut done = Vec::new();
        let Some(state) = self.open.get_mut(key) else { return done };
        while let Some(round) = state.rounds.front() {
            let count =
                round.arrived.len() + state.out.iter().filter(|n| !round.arrived.contains(*n)).count();
            if count < state.nodes.len() {
                break;
            }
            let Some(round) = state.rounds.pop_front() else { break };
            self.gathered = self.gathered.saturating_sub(round.bytes());
            self.serial += 1;
            let nodes = round.arrived.clone();
            done.push(Complete { nodes, chunks: round.into_chunks(), serial: self.serial });
        }
        if state.rounds.is_empty() && state.partial.is_empty() && state.waiting.is_empty() {
            self.open.remove(key);
        }
        done
    }

    /// A node waits with an incomplete round of an open key.
    pub(super) fn waits(&mut self, key: &GatherKey, node: NodeIdx) {
        if let Some(state) = self.open.get_mut(key) {
            state.waiting.insert(Rank(node.0));
        }
    }

    /// Open keys that this process belongs to.
    pub(super) fn keys_of(&self, proc: ProcId) -> Vec<GatherKey> {
        self.open.keys().filter(|k| k.group.contains(proc)).cloned().collect()
    }

    /// Whether some open round of a key, or one that nodes wait in, lacks this node's contribution.
    pub(super) fn lacks(&self, key: &GatherKey, node: NodeIdx) -> bool {
        let node = Rank(node.0);
        self.open.get(key).is_some_and(|s| {
            s.rounds.iter().any(|r| !r.arrived.contains(node)) || s.waiting.iter().any(|w| w != node)
        })
    }

    /// Nodes that have not contributed to the oldest round of a key, and have no part of one either.
    pub(super) fn absent(&self) -> impl Iterator<Item = (&GatherKey, RankSet)> {
        let absent = |state: &State| -> RankSet {
            let came = |n: &Rank| {
                state.out.contains(*n)
                    || state.waiting.contains(*n)
                    || state.rounds.front().is_some_and(|r| r.arrived.contains(*n))
            };
            state.nodes.iter().filter(|n| !came(n)).collect()
        };
        self.open.iter().map(move |(key, state)| (key, absent(state))).filter(|(_, nodes)| !nodes.is_empty())
    }

    /// A key fails: the nodes that are in it and must be told.
    pub(super) fn fail(&mut self, key: &GatherKey) -> RankSet {
        let Some(state) = self.open.remove(key) else { return RankSet::default() };
        let partial = state.partial.values().map(BytesMut::len).sum::<usize>();
        let rounds = state.rounds.iter().map(Round::bytes).sum::<usize>();
        self.gathered = self.gathered.saturating_sub(partial + rounds);
        let arrived = state.rounds.iter().flat_map(|r| r.arrived.iter());
        arrived.chain(state.waiting.iter()).chain(state.partial.keys().map(|n| Rank(n.0))).collect()
    }

    /// A key goes on without a node; the rounds that are complete then.
    pub(super) fn leave_out(&mut self, key: &GatherKey, node: NodeIdx) -> Vec<Complete> {
        if let Some(state) = self.open.get_mut(key) {
            state.out.insert(Rank(node.0));
            state.waiting.remove(Rank(node.0));
            if let Some(partial) = state.partial.remove(&node) {
                self.gathered = self.gathered.saturating_sub(partial.len());
            }
        }
        self.complete(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::service::{Domain, Group, OnLoss};

    fn key() -> GatherKey {
        let group = Group::all(ProcId::first(0));
        GatherKey { domain: Domain::Native, name: Vec::new(), group, loss: OnLoss::Fail }
    }

    fn add(g: &mut Gathers, node: u32, nodes: u32, data: &[u8]) -> Vec<Complete> {
        if !g.is_open(&key()) {
            g.open(&key(), RankSet::range(0, nodes - 1)).unwrap();
        }
        g.add(&key(), NodeIdx(node), Bytes::copy_from_slice(data), true).unwrap().0
    }

    #[test]
    fn contributions_are_put_together_in_few_payloads() {
        let mut g = Gathers::default();
        for node in 0..999 {
            assert_eq!(add(&mut g, node, 1000, &[7; 1000]), []);
        }
        let done = add(&mut g, 999, 1000, &[7; 1000]);
        let chunks = &done[0].chunks;
        assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), 1_000_000);
        assert!(chunks.len() <= 16 && chunks.iter().all(|c| c.len() <= MAX_PAYLOAD));
        assert_eq!((g.gathered, g.open.len(), done[0].nodes.len()), (0, 0, 1000));
        let nothing = add(&mut g, 0, 1, b"");
        assert_eq!(nothing[0].chunks, [Bytes::new()], "no data is still one answer");
        assert!(nothing[0].serial > done[0].serial);
    }

    #[test]
    fn pieces_of_several_nodes_do_not_mix() {
        let mut g = Gathers::default();
        g.open(&key(), RankSet::range(0, 1)).unwrap();
        let mut piece = |node, data: &'static str, last| {
            g.add(&key(), NodeIdx(node), Bytes::from_static(data.as_bytes()), last).unwrap().0
        };
        piece(0, "aa", false);
        piece(1, "bb", false);
        piece(0, "AA", true);
        assert_eq!(piece(1, "BB", true)[0].chunks, [Bytes::from_static(b"aaAAbbBB")]);
    }

    #[test]
    fn rounds_complete_in_order() {
        let mut g = Gathers::default();
        add(&mut g, 0, 2, b"1");
        add(&mut g, 0, 2, b"2");
        assert_eq!(add(&mut g, 1, 2, b"x")[0].chunks, [Bytes::from_static(b"1x")]);
        assert_eq!(add(&mut g, 1, 2, b"y")[0].chunks, [Bytes::from_static(b"2y")]);
        assert!(g.open.is_empty());
    }

    #[test]
    fn a_failed_key_tells_those_who_are_in_it() {
        let mut g = Gathers::default();
        add(&mut g, 0, 4, b"1");
        g.waits(&key(), NodeIdx(2));
        assert_eq!(g.absent().map(|(_, nodes)| nodes.to_string()).collect::<Vec<_>>(), ["1,3"]);
        assert!(g.lacks(&key(), NodeIdx(3)) && !g.keys_of(ProcId::first(9)).is_empty());
        assert_eq!(g.fail(&key()).to_string(), "0,2");
        assert_eq!((g.gathered, g.fail(&key()).len()), (0, 0));
    }

    #[test]
    fn a_node_left_out_is_not_waited_for() {
        let mut g = Gathers::default();
        add(&mut g, 0, 3, b"1");
        add(&mut g, 2, 3, b"3");
        let done = g.leave_out(&key(), NodeIdx(1));
        assert_eq!((done[0].chunks.concat(), done[0].nodes.to_string()), (b"13".to_vec(), "0,2".to_owned()));
    }

    #[test]
    fn strangers_are_refused() {
        let mut g = Gathers::default();
        add(&mut g, 0, 2, b"1");
        assert!(g.add(&key(), NodeIdx(7), Bytes::new(), true).is_err());
    }
}
