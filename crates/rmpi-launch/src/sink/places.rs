//! Where ranks are, for tags and file names: host, node, number on the node, process id. Set once the plan is made;
//! process ids come as ranks start.

use rmpi_types::{Rank, RankSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Shared by the driver and the lanes.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Default)]
struct Inner {
    table: OnceLock<Table>,
    pids: Mutex<Vec<u32>>,
}

#[derive(Default)]
struct Table {
    hosts: Vec<String>,
    /// By rank: node, and number there.
    ranks: Vec<(u32, u32)>,
    namespace: String,
}

/// One rank's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) node: u32,
    pub(crate) local: u32,
    pub(crate) pid: u32,
    pub(crate) namespace: &'a str,
}

impl Places {
    /// Sets the hosts with their ranks, in node order; once.
    pub(crate) fn set(&self, hosts: Vec<(String, RankSet)>, namespace: String) {
        let mut table = Table { namespace, ..Table::default() };
        for ((host, ranks), node) in hosts.into_iter().zip(0u32..) {
            table.hosts.push(host);
            for (rank, local) in ranks.iter().zip(0u32..) {
                let at = rank.0 as usize;
                if table.ranks.len() <= at {
                    table.ranks.resize(at + 1, (0, 0));
                }
                table.ranks[at] = (node, local);
            }
        }
        let _ = self.0.table.set(table);
    }

    /// Notes a rank's process id.
    pub(crate) fn started(&self, rank: Rank, pid: u32) {
        let mut pids = self.0.pids.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rank.0 as usize;
        if pids.len() <= at {
            pids.resize(at + 1, 0);
        }
        pids[at] = pid;
    }

    /// The rank's place; an empty one before the plan.
    pub(crate) fn of(&self, rank: Rank) -> Place<'_> {
        let Some(table) = self.0.table.get() else { return Place::default() };
        let at = rank.0 as usize;
        let &(node, local) = table.ranks.get(at).unwrap_or(&(0, 0));
        let pid = self.0.pids.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied().unwrap_or(0);
        let host = table.hosts.get(node as usize).map_or("", String::as_str);
        Place { host, node, local, pid, namespace: &table.namespace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_found() {
        let places = Places::default();
        assert_eq!(places.of(Rank(0)).host, "");
        let nodes =
            vec![("a".into(), [0, 2].map(Rank).into_iter().collect()), ("b".into(), RankSet::range(1, 1))];
        places.set(nodes, "ns".into());
        places.started(Rank(2), 77);
        let want = Place { host: "a", node: 0, local: 1, pid: 77, namespace: "ns" };
        assert_eq!(places.of(Rank(2)), want);
        assert_eq!((places.of(Rank(1)).host, places.of(Rank(9)).pid), ("b", 0));
    }
}
