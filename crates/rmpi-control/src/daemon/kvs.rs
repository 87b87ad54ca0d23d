//! The key-value space of one node: what its ranks have put, what fences brought from elsewhere, who waits
//! for a key. Pure bookkeeping: answers go out as lists.

use crate::time::{Time, earlier};
use bytes::Bytes;
use rmpi_types::{NodeIdx, ProcId, Rank};
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
    /// A rank of another node.
    Remote(NodeIdx, u64),
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

    /// What was put since it was last taken, coded: it travels with the next call of a fence.
    pub(super) fn take_fresh(&mut self) -> Bytes {
        std::mem::take(&mut self.fresh).into()
    }

    /// Stores a fence's result but for the values of ranks that `mine` knows as local, which may be newer here.
    pub(super) fn result(
        &mut self,
        data: &Bytes,
        mine: impl Fn(Rank) -> bool,
    ) -> Result<Vec<Answer>, String> {
        let entries = decode_entries(data).map_err(|e| e.to_string())?;
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
    fn what_is_put_travels_once() {
        let mut kvs = Kvs::default();
        kvs.put(Rank(0), "k", &Bytes::from_static(b"1")).unwrap();
        let sent = kvs.take_fresh();
        let mut other = Kvs::default();
        assert!(other.result(&sent, |_| false).unwrap().is_empty());
        assert_eq!(other.get(Rank(0), "k"), Some(Bytes::from_static(b"1")));
        assert!(kvs.take_fresh().is_empty(), "nothing was put since");
    }

    #[test]
    fn a_fence_result_does_not_undo_a_newer_local_put() {
        let mut kvs = Kvs::default();
        let mut old = Vec::new();
        encode_entry(Rank(0), "k", b"old", &mut old);
        kvs.put(Rank(0), "k", &Bytes::from_static(b"new")).unwrap();
        kvs.result(&Bytes::from(old), |r| r == Rank(0)).unwrap();
        assert_eq!(kvs.get(Rank(0), "k"), Some(Bytes::from_static(b"new")));
        assert!(kvs.result(&Bytes::from_static(b"x"), |_| false).is_err());
    }
}
