//! Where ranks are, for tags and file names: host, node, number on the node, process id. Set once the plan is made;
//! process ids come as ranks start, and in elastic jobs ranks move.

use rmpi_types::names::Writer;
use rmpi_types::{ProcId, Rank, RankSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// Shared by the driver and the lanes.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<RwLock<Table>>);

#[derive(Default)]
struct Table {
    hosts: Vec<Arc<str>>,
    ranks: Vec<At>,
    namespace: Arc<str>,
}

#[derive(Clone, Copy, Default)]
struct At {
    node: u32,
    local: u32,
    pid: u32,
}

/// One rank's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: Arc<str>,
    pub(crate) node: u32,
    pub(crate) local: u32,
    pub(crate) pid: u32,
    pub(crate) namespace: Arc<str>,
}

impl Place {
    /// As file names and patterns have it.
    pub(crate) fn writer(&self, proc: ProcId) -> Writer<'_> {
        Writer { proc, host: &self.host, node: self.node, local: self.local, namespace: &self.namespace }
    }
}

impl Table {
    fn at(&mut self, rank: Rank) -> &mut At {
        let at = rank.0 as usize;
        if self.ranks.len() <= at {
            self.ranks.resize(at + 1, At::default());
        }
        &mut self.ranks[at]
    }
}

impl Places {
    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the hosts with their ranks, in node order.
    pub(crate) fn set(&self, hosts: Vec<(String, RankSet)>, namespace: String) {
        let mut table = self.write();
        *table = Table { namespace: namespace.into(), ..Table::default() };
        for ((host, ranks), node) in hosts.into_iter().zip(0u32..) {
            table.hosts.push(host.into());
            for (rank, local) in ranks.iter().zip(0u32..) {
                *table.at(rank) = At { node, local, pid: 0 };
            }
        }
    }

    /// Puts a rank on a host, with its number there.
    pub(crate) fn moved(&self, rank: Rank, host: &str, local: u32, pid: u32) {
        let mut table = self.write();
        let node = table.hosts.iter().position(|h| **h == *host).unwrap_or_else(|| {
            table.hosts.push(host.into());
            table.hosts.len() - 1
        });
        *table.at(rank) = At { node: u32::try_from(node).unwrap_or(u32::MAX), local, pid };
    }

    /// Notes a rank's process id.
    pub(crate) fn started(&self, rank: Rank, pid: u32) {
        self.write().at(rank).pid = pid;
    }

    /// The rank's place; an empty one before the plan.
    pub(crate) fn of(&self, rank: Rank) -> Place {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let At { node, local, pid } = table.ranks.get(rank.0 as usize).copied().unwrap_or_default();
        let host = table.hosts.get(node as usize).map(Arc::clone).unwrap_or_default();
        Place { host, node, local, pid, namespace: Arc::clone(&table.namespace) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_found() {
        let places = Places::default();
        assert_eq!(&*places.of(Rank(0)).host, "");
        let nodes =
            vec![("a".into(), [0, 2].map(Rank).into_iter().collect()), ("b".into(), RankSet::range(1, 1))];
        places.set(nodes, "ns".into());
        places.started(Rank(2), 77);
        let want = Place { host: "a".into(), node: 0, local: 1, pid: 77, namespace: "ns".into() };
        assert_eq!(places.of(Rank(2)), want);
        assert_eq!((&*places.of(Rank(1)).host, places.of(Rank(9)).pid), ("b", 0));
        places.moved(Rank(1), "c", 3, 5);
        let want = Place { host: "c".into(), node: 2, local: 3, pid: 5, namespace: "ns".into() };
        assert_eq!(places.of(Rank(1)), want);
    }
}
