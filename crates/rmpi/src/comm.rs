//! Communicators: a group of ranks with message contexts of its own.

use crate::coll::ask::Key;
use crate::coll::levels::Levels;
use crate::coll::node::{Members, Node};
use crate::coll::run::Scope;
use crate::error::Error;
use crate::world::Inner;
use rmpi_coll::Schedule;
use rmpi_coll::kernels::Op;
use rmpi_coll::select::{Collective, Selector, Sharing};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A group of ranks, numbered from 0, whose messages are apart from those of every other communicator. Clones
/// are the same communicator; [`Communicator::dup`] makes another with the same ranks.
#[derive(Clone)]
pub struct Communicator {
    pub(crate) inner: Arc<Inner>,
    /// World ranks of the members.
    pub(crate) group: Arc<[u32]>,
    /// Where each world rank is in the group; `None` when the group is the world.
    inverse: Option<Arc<HashMap<u32, u32>>>,
    rank: u32,
    pub(crate) selector: Arc<Selector>,
    /// Context of messages; the next number is that of collectives.
    pub(crate) context: u32,
    /// What clones have in common.
    pub(crate) shared: Arc<Shared>,
}

/// The state of a communicator's collectives.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Calls over messages made so far.
    pub(crate) calls: AtomicU32,
    /// The members on this node, where they share memory and are two at least.
    pub(crate) node: Option<Node>,
    /// How the members lie on nodes, where collectives in two levels are possible.
    pub(crate) levels: Option<Levels>,
    /// Schedules that were run before.
    pub(crate) plans: Mutex<HashMap<(Key, Scope), Arc<Schedule>>>,
    /// What `RMPI_COLL_EXPLAIN` has said: collective and size class.
    pub(crate) told: Mutex<HashSet<(Collective, Option<u32>)>>,
}

impl Shared {
    fn new(node: Option<Node>, levels: Option<Levels>) -> Self {
        Self { node, levels, ..Self::default() }
    }

    /// What memory the members share.
    fn sharing(&self, size: usize) -> Sharing {
        match (&self.node, &self.levels) {
            (Some(node), _) if node.ranks.len() == size => Sharing::All,
            (_, Some(levels)) => Sharing::Nodes { in_order: levels.nodes.in_order() },
            _ => Sharing::Nothing,
        }
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Communicator(rank {} of {}, context {})", self.rank, self.size(), self.context)
    }
}

impl Communicator {
    pub(crate) fn world(inner: Arc<Inner>) -> Self {
        let (rank, group): (u32, Arc<[u32]>) = (inner.rank, (0..inner.size).collect());
        let levels = if inner.shares { Levels::new(&inner, &group) } else { None };
        let shared = Shared::new(Node::of_world(&inner, &group), levels);
        let bare = Self {
            selector: Arc::new(inner.selector(&group)),
            inner,
            group,
            inverse: None,
            rank,
            context: 0,
            shared: Arc::default(),
        };
        bare.with_shared(shared)
    }

    fn with_shared(self, shared: Shared) -> Self {
        let mut selector = (*self.selector).clone();
        selector.sharing = shared.sharing(self.group.len());
        Self { selector: Arc::new(selector), shared: Arc::new(shared), ..self }
    }

    /// Gives a communicator that has messages so far a place in its nodes' memory. Collective over it.
    fn settle(self) -> Result<Self, Error> {
        if !self.inner.shares || self.group.len() < 2 {
            return Ok(self);
        }
        let members = Members::of(&self.inner, &self.group);
        let block = members.as_ref().and_then(|_| Node::reserve(&self.inner));
        // Two numbers of each member: where its block is, and whether it needs one.
        let mine = [block.map_or(u64::MAX, |b| b.offset), u64::from(members.is_some())];
        let mut all = vec![0; 2 * self.group.len()];
        self.allgather(&mine, &mut all)?;
        let everybody = all.chunks_exact(2).all(|m| m[0] != u64::MAX || m[1] == 0);
        let offsets = |m: &Members| m.ranks.iter().map(|&r| all[2 * r as usize]).collect::<Vec<u64>>();
        let node = match (members, block) {
            (Some(members), Some(block)) if everybody => {
                let offsets = offsets(&members);
                Node::of_blocks(&self.inner, members, &offsets, block)
            }
            _ => None,
        };
        let fine = [u8::from(everybody && (node.is_some() || mine[1] == 0))];
        let mut all_fine = [0];
        self.allreduce(&fine, &mut all_fine, &Op::Min)?;
        if all_fine[0] == 0 {
            return Ok(self);
        }
        let levels = Levels::new(&self.inner, &self.group);
        // Calls over messages go on being numbered.
        let shared = Shared::new(node, levels);
        shared.calls.store(self.shared.calls.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(self.with_shared(shared))
    }

    /// This rank's number in the group.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Ranks of the group.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.group.len()).unwrap_or(u32::MAX)
    }

    /// The world's number of a rank of the group.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`].
    #[inline]
    pub fn world_rank(&self, rank: u32) -> Result<u32, Error> {
        let found = self.group.get(rank as usize).copied();
        found.ok_or_else(|| Error::NoSuchRank { rank, size: self.size() })
    }

    /// The group's number of a rank of the world.
    #[inline]
    pub(crate) fn local(&self, world: u32) -> u32 {
        match &self.inverse {
            None => world,
            Some(map) => map.get(&world).copied().unwrap_or(u32::MAX),
        }
    }

    /// A communicator of the same ranks with messages of its own. Collective.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn dup(&self) -> Result<Self, Error> {
        let context = self.fresh_context()?;
        let selector = Arc::new(self.inner.selector(&self.group));
        Self { context, selector, shared: Arc::default(), ..self.clone() }.settle()
    }

    /// Splits the group: ranks with the same `color` form a new communicator, ordered by `key`, then by rank.
    /// `None` takes part in the call but in no new communicator. Collective.
    ///
    /// # Errors
    /// As [`Communicator::allgather`].
    pub fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Self>, Error> {
        let mine = [i64::from(color.is_some()), i64::from(color.unwrap_or(0)), i64::from(key)];
        let mut all = vec![0i64; 3 * self.group.len()];
        self.allgather(&mine, &mut all)?;
        // Groups of one split are disjoint, so they may share the number.
        let context = self.fresh_context()?;
        let Some(color) = color else { return Ok(None) };
        let mut members: Vec<(i64, u32)> = (0..)
            .zip(all.chunks_exact(3))
            .filter(|(_, c)| c[0] == 1 && c[1] == i64::from(color))
            .map(|(rank, c)| (c[2], rank))
            .collect();
        members.sort_unstable();
        let group: Arc<[u32]> = members.iter().map(|&(_, rank)| self.group[rank as usize]).collect();
        let inverse: HashMap<u32, u32> = group.iter().copied().zip(0..).collect();
        let rank = inverse.get(&self.inner.rank).copied();
        let rank = rank.ok_or(Error::Internal("a rank is missing in its own group"))?;
        let inner = self.inner.clone();
        let selector = Arc::new(inner.selector(&group));
        let (inverse, shared) = (Some(Arc::new(inverse)), Arc::default());
        Self { inner, group, inverse, rank, selector, context, shared }.settle().map(Some)
    }

    /// A context number that no member uses: the greatest of their next ones.
    fn fresh_context(&self) -> Result<u32, Error> {
        let next = || self.inner.next_context.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = *next();
        let mut agreed = [0];
        self.allreduce(&[mine], &mut agreed, &Op::Max)?;
        let mut next = next();
        *next = (*next).max(agreed[0].saturating_add(2));
        Ok(agreed[0])
    }
}
