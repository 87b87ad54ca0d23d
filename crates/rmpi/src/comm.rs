//! Communicators: a group of ranks with message contexts of its own.

use crate::error::Error;
use crate::world::Inner;
use rmpi_coll::kernels::Op;
use rmpi_coll::select::Selector;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

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
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Communicator(rank {} of {}, context {})", self.rank, self.size(), self.context)
    }
}

impl Communicator {
    pub(crate) fn world(inner: Arc<Inner>) -> Self {
        let (rank, group): (u32, Arc<[u32]>) = (inner.rank, (0..inner.size).collect());
        let selector = Arc::new(inner.selector(&group));
        Self { inner, group, inverse: None, rank, selector, context: 0 }
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
    pub fn world_rank(&self, rank: u32) -> Result<u32, Error> {
        let found = self.group.get(rank as usize).copied();
        found.ok_or(Error::NoSuchRank { rank, size: self.size() })
    }

    /// The group's number of a rank of the world.
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
        Ok(Self { context: self.fresh_context()?, ..self.clone() })
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
        Ok(Some(Self { inner, group, inverse: Some(Arc::new(inverse)), rank, selector, context }))
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
