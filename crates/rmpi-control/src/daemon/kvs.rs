//! The key-value space of one node: what its ranks have put, what fences brought from elsewhere, who waits
//! for a key, and how far each fence has come on this node. Pure bookkeeping: answers go out as lists.

use crate::time::{Time, earlier};
use bytes::Bytes;
use rmpi_types::{ProcId, Rank};
use rmpi_wire::frame::MAX_PAYLOAD;
use rmpi_wire::rank::{RankReply, decode_entries, encode_entry};
use std::collections::{BTreeMap, HashMap};

/// Bytes of keys and values one node holds, at most.
const MAX_BYTES: usize = 1 << 30;
/// Requests that wait on one node, at most.
const MAX_WAITERS: usize = 1 << 20;

/// Who waits for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A rank of this node.
    Local(ProcId, u64),
    /// A rank elsewhere.
    Remote(ProcId, u64),
}

/// An answer for somebody who waited.
pub(super) type Answer = (Asker, RankReply, Bytes);

#[derive(Debug)]
struct Waiter {
    asker: Asker,
    key: String,
    deadline: Time,
}

/// The tables.
#[derive(Debug, Default)]
pub(super) struct Kvs {
    table: HashMap<Rank, HashMap<Box<str>, Bytes>>,
    bytes: usize,
    /// What local ranks put since the last fence, coded.
    fresh: Vec<u8>,
    waiters: BTreeMap<Rank, Vec<Waiter>>,
    waiting: usize,
    /// No waiter's deadline is before this.
    next_deadline: Option<Time>,
    /// How many local ranks have called each fence that is not complete here.
    arrived: BTreeMap<u64, usize>,
    /// The fence that had waiters at the last look, and the highest that was announced.
    seen: u64,
    announced: u64,
    /// This fence and later ones fail because of that rank.
    dead: Option<(u64, Rank)>,
    /// Pieces of a fence's result.
    incoming: Vec<u8>,
}

impl Kvs {
    /// Stores what a local rank put. The answers for those who waited, or why not.
    pub(super) fn put(&mut self, rank: Rank, key: &str, value: &Bytes) -> Result<Vec<Answer>, String> {
        if self.bytes + self.fresh.len() + key.len() + value.len() > MAX_BYTES {
            return Err(format!("the node's key-value space is full ({MAX_BYTES} bytes)"));
        }
        encode_entry(rank, key, value, &mut self.fresh);
        self.store(rank, key, value.clone());
        Ok(self.wake(rank, key, value))
    }

    fn store(&mut self, rank: Rank, key: &str, value: Bytes) {
        let of_rank = self.table.entry(rank).or_default();
        self.bytes += key.len() + value.len();
        if let Some(old) = of_rank.insert(key.into(), value) {
            self.bytes = self.bytes.saturating_sub(key.len() + old.len());
        }
    }

    fn wake(&mut self, rank: Rank, key: &str, value: &Bytes) -> Vec<Answer> {
        self.take_waiters(rank, |w| w.key == key)
            .map(|w| (w.asker, RankReply::Value, value.clone()))
            .collect()
    }

    fn take_waiters(
        &mut self,
        rank: Rank,
        mut which: impl FnMut(&Waiter) -> bool,
    ) -> std::vec::IntoIter<Waiter> {
        let Some(all) = self.waiters.remove(&rank) else { return Vec::new().into_iter() };
        let (taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|w| which(w));
        if !left.is_empty() {
            self.waiters.insert(rank, left);
        }
        self.waiting -= taken.len();
        taken.into_iter()
    }

    /// A value that is here.
    pub(super) fn get(&self, rank: Rank, key: &str) -> Option<Bytes> {
        self.table.get(&rank)?.get(key).cloned()
    }

    /// Waits for a key of a rank; false when too many wait.
    pub(super) fn wait(&mut self, asker: Asker, rank: Rank, key: String, deadline: Time) -> bool {
        if self.waiting >= MAX_WAITERS {
            return false;
        }
        self.waiters.entry(rank).or_default().push(Waiter { asker, key, deadline });
        self.waiting += 1;
        self.next_deadline = earlier(self.next_deadline, Some(deadline));
        true
    }

    /// Ends a local rank's wait for a remote key; whether it was waiting.
    pub(super) fn answered(&mut self, asker: Asker) -> bool {
        let holds = |(_, list): &(&Rank, &Vec<Waiter>)| list.iter().any(|w| w.asker == asker);
        let Some(rank) = self.waiters.iter().find(holds).map(|(rank, _)| *rank) else { return false };
        self.take_waiters(rank, |w| w.asker == asker).count() > 0
    }

    /// A rank will put nothing more: everybody waiting for it.
    pub(super) fn rank_ended(&mut self, rank: Rank) -> Vec<Answer> {
        let lost = |w: Waiter| (w.asker, RankReply::Lost(rank), Bytes::new());
        self.take_waiters(rank, |_| true).map(lost).collect()
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Time) -> Vec<Answer> {
        if self.next_deadline.is_none_or(|t| now < t) {
            return Vec::new();
        }
        let ranks: Vec<Rank> = self.waiters.keys().copied().collect();
        let mut out = Vec::new();
        for rank in ranks {
            let over = self.take_waiters(rank, |w| w.deadline <= now);
            out.extend(over.map(|w| (w.asker, RankReply::Missing, Bytes::new())));
        }
        self.next_deadline = self.waiters.values().flatten().map(|w| w.deadline).min();
        out
    }

    /// When the next wait may be over.
    pub(super) fn next_timer(&self) -> Option<Time> {
        self.next_deadline
    }

    /// The rank because of which this fence cannot complete.
    pub(super) fn dead(&self, fence: u64) -> Option<Rank> {
        self.dead.filter(|&(from, _)| fence >= from).map(|(_, rank)| rank)
    }

    /// From this fence on none completes, because of that rank; whether that is news.
    pub(super) fn kill_fences(&mut self, from: u64, rank: Rank) -> bool {
        let news = self.dead.is_none_or(|(old, _)| from < old);
        if news {
            self.dead = Some((from, rank));
        }
        news
    }

    /// A local rank called this fence. When all `of` local ranks have, the pieces to send up.
    pub(super) fn arrive(&mut self, fence: u64, of: usize) -> Option<Vec<Bytes>> {
        let count = self.arrived.entry(fence).or_insert(0);
        *count += 1;
        if *count < of {
            return None;
        }
        self.arrived.remove(&fence);
        Some(pieces(Bytes::from(std::mem::take(&mut self.fresh))))
    }

    /// Looked at with every heartbeat: a fence that has been incomplete since the last look and was not
    /// announced yet.
    pub(super) fn stuck(&mut self) -> Option<u64> {
        let first = self.arrived.keys().next().copied()?;
        let stuck = first == self.seen && first > self.announced;
        self.seen = first;
        if stuck {
            self.announced = first;
        }
        stuck.then_some(first)
    }

    /// A piece of a fence's result; with the last, everything is stored but the values of ranks that `mine`
    /// knows as local, which may be newer here.
    pub(super) fn result(
        &mut self,
        piece: &Bytes,
        last: bool,
        mine: impl Fn(Rank) -> bool,
    ) -> Result<Vec<Answer>, String> {
        if self.incoming.len() + piece.len() > MAX_BYTES {
            return Err("fence result too large".into());
        }
        self.incoming.extend_from_slice(piece);
        if !last {
            return Ok(Vec::new());
        }
        let data = std::mem::take(&mut self.incoming);
        let entries = decode_entries(&data).map_err(|e| e.to_string())?;
        let mut answers = Vec::new();
        for (rank, key, value) in entries {
            if mine(rank) {
                continue;
            }
            let value = Bytes::from(value);
            self.store(rank, &key, value.clone());
            answers.extend(self.wake(rank, &key, &value));
        }
        Ok(answers)
    }
}

/// Cuts data into payloads; one empty one for none.
pub(crate) fn pieces(mut data: Bytes) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(data.len() / MAX_PAYLOAD + 1);
    while data.len() > MAX_PAYLOAD {
        out.push(data.split_to(MAX_PAYLOAD));
    }
    out.push(data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(id: u64) -> Asker {
        Asker::Local(ProcId::first(0), id)
    }

    #[test]
    fn a_put_wakes_those_who_wait_for_that_key_only() {
        let mut kvs = Kvs::default();
        assert!(kvs.wait(local(1), Rank(3), "a".into(), Time::from_millis(50)));
        assert!(kvs.wait(local(2), Rank(3), "b".into(), Time::from_millis(20)));
        let value = Bytes::from_static(b"v");
        assert_eq!(kvs.put(Rank(3), "a", &value).unwrap(), [(local(1), RankReply::Value, value)]);
        assert_eq!(kvs.next_timer(), Some(Time::from_millis(20)));
        assert!(kvs.expired(Time::from_millis(19)).is_empty());
        assert_eq!(kvs.expired(Time::from_millis(20)), [(local(2), RankReply::Missing, Bytes::new())]);
        assert_eq!(kvs.next_timer(), None);
    }

    #[test]
    fn a_fence_gathers_all_and_carries_what_was_put_since() {
        let mut kvs = Kvs::default();
        kvs.put(Rank(0), "k", &Bytes::from_static(b"1")).unwrap();
        assert!(kvs.arrive(1, 2).is_none());
        let sent = kvs.arrive(1, 2).unwrap();
        let mut other = Kvs::default();
        assert!(other.result(&sent[0], true, |_| false).unwrap().is_empty());
        assert_eq!(other.get(Rank(0), "k"), Some(Bytes::from_static(b"1")));
        assert!(kvs.arrive(2, 1).unwrap()[0].is_empty(), "nothing was put since");
    }

    #[test]
    fn a_fence_result_does_not_undo_a_newer_local_put() {
        let mut kvs = Kvs::default();
        let mut old = Vec::new();
        encode_entry(Rank(0), "k", b"old", &mut old);
        kvs.put(Rank(0), "k", &Bytes::from_static(b"new")).unwrap();
        kvs.result(&Bytes::from(old), true, |r| r == Rank(0)).unwrap();
        assert_eq!(kvs.get(Rank(0), "k"), Some(Bytes::from_static(b"new")));
        assert!(kvs.result(&Bytes::from_static(b"x"), true, |_| false).is_err());
    }

    #[test]
    fn a_stuck_fence_is_announced_once() {
        let mut kvs = Kvs::default();
        assert_eq!(kvs.stuck(), None);
        assert!(kvs.arrive(1, 2).is_none());
        assert_eq!([kvs.stuck(), kvs.stuck(), kvs.stuck()], [None, Some(1), None]);
        assert!(kvs.kill_fences(1, Rank(7)) && !kvs.kill_fences(2, Rank(8)));
        assert_eq!(kvs.dead(5), Some(Rank(7)));
    }
}
