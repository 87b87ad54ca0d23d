//! The names of things: job, namespace, epoch, rank, node. Every process id on a wire is
//! `(namespace, epoch, rank)`, so that spawned jobs and elastic members need no second scheme.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A rank of one namespace, `0..size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank(pub u32);

/// A node of a job: index into the launcher's node list, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeIdx(pub u32);

/// A set of ranks started together (MPI's `COMM_WORLD`); 0 is the job's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Namespace(pub u32);

/// Membership generation of a namespace; 0 at start, raised when members come or go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// One process of a job, unambiguous over spawns and membership changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcId {
    /// The namespace the process belongs to.
    pub ns: Namespace,
    /// The membership generation it was started in.
    pub epoch: Epoch,
    /// Its rank there.
    pub rank: Rank,
}

impl ProcId {
    /// A process of the job's first namespace and epoch.
    #[must_use]
    pub const fn first(rank: u32) -> Self {
        Self { ns: Namespace(0), epoch: Epoch(0), rank: Rank(rank) }
    }
}

/// Sixteen random bytes naming a job; not a secret. Printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub [u8; 16]);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProcId {
    /// `rank 3`, or `rank 3 of namespace 1` for spawned ranks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if self.ns.0 != 0 { write!(f, " of namespace {}", self.ns.0) } else { Ok(()) }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ranks as sorted, disjoint, inclusive ranges: compact on the wire and in messages (`0,3-5`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u32)>")]
pub struct RankSet(Vec<(u32, u32)>);

impl TryFrom<Vec<(u32, u32)>> for RankSet {
    type Error = &'static str;

    /// As [`RankSet::from_ranges`]: what came over a wire keeps the order that all methods rely on.
    fn try_from(ranges: Vec<(u32, u32)>) -> Result<Self, Self::Error> {
        Self::from_ranges(ranges).ok_or("ranges not ascending")
    }
}

impl RankSet {
    /// The ranks `lo..=hi`.
    #[must_use]
    pub fn range(lo: u32, hi: u32) -> Self {
        Self(if lo <= hi { vec![(lo, hi)] } else { Vec::new() })
    }

    /// From ranges as a wire has them; `None` unless each is ascending and they are ascending and disjoint.
    #[must_use]
    pub fn from_ranges(ranges: Vec<(u32, u32)>) -> Option<Self> {
        let ascending = ranges.iter().all(|&(lo, hi)| lo <= hi) && ranges.windows(2).all(|w| w[0].1 < w[1].0);
        ascending.then_some(Self(ranges))
    }

    /// Adds a rank; appending in ascending order is O(1).
    pub fn insert(&mut self, rank: Rank) {
        let r = rank.0;
        let at = self.0.partition_point(|&(_, hi)| hi < r);
        if self.0.get(at).is_some_and(|&(lo, _)| lo <= r) {
            return;
        }
        let joins_left = at > 0 && self.0[at - 1].1.checked_add(1) == Some(r);
        let joins_right = self.0.get(at).is_some_and(|&(lo, _)| r.checked_add(1) == Some(lo));
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = r,
            (false, true) => self.0[at].0 = r,
            (false, false) => self.0.insert(at, (r, r)),
        }
    }

    /// Takes a rank out, if it is in.
    pub fn remove(&mut self, rank: Rank) {
        let r = rank.0;
        let at = self.0.partition_point(|&(_, hi)| hi < r);
        let Some(&(lo, hi)) = self.0.get(at).filter(|&&(lo, _)| lo <= r) else { return };
        let left = (lo < r).then(|| (lo, r - 1));
        let right = (r < hi).then(|| (r + 1, hi));
        self.0.splice(at..=at, left.into_iter().chain(right));
    }

    /// Whether `rank` is in the set.
    #[must_use]
    pub fn contains(&self, rank: Rank) -> bool {
        let at = self.0.partition_point(|&(_, hi)| hi < rank.0);
        self.0.get(at).is_some_and(|&(lo, _)| lo <= rank.0)
    }

    /// The ranks, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        self.0.iter().flat_map(|&(lo, hi)| lo..=hi).map(Rank)
    }

    /// The ranges, ascending, both ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// How many ranks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(lo, hi)| (hi - lo) as usize + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Rank> for RankSet {
    fn from_iter<I: IntoIterator<Item = Rank>>(ranks: I) -> Self {
        let mut set = Self::default();
        ranks.into_iter().for_each(|r| set.insert(r));
        set
    }
}

impl Extend<Rank> for RankSet {
    fn extend<I: IntoIterator<Item = Rank>>(&mut self, ranks: I) {
        ranks.into_iter().for_each(|r| self.insert(r));
    }
}

impl fmt::Display for RankSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(lo, hi)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if lo == hi { write!(f, "{comma}{lo}")? } else { write!(f, "{comma}{lo}-{hi}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_sets_fold_and_print() {
        let set: RankSet = [5, 0, 3, 4, 9, 3].map(Rank).into_iter().collect();
        assert_eq!(set.to_string(), "0,3-5,9");
        assert_eq!(set.len(), 5);
        assert!(set.contains(Rank(4)) && !set.contains(Rank(6)));
        assert_eq!(set.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 3, 4, 5, 9]);
        assert!(RankSet::range(2, 1).is_empty());
        let mut set = set;
        for rank in [4, 9, 7, 0] {
            set.remove(Rank(rank));
        }
        assert_eq!(set.to_string(), "3,5");
    }

    #[test]
    fn spawned_ranks_name_their_namespace() {
        assert_eq!(ProcId::first(3).to_string(), "rank 3");
        let spawned = ProcId { ns: Namespace(1), ..ProcId::first(3) };
        assert_eq!(spawned.to_string(), "rank 3 of namespace 1");
    }
}
