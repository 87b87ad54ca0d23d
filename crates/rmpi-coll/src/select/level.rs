//! Where a collective runs: all ranks alike over messages, in the memory that a node's ranks share, or in two
//! levels, inside the nodes and between them.

use super::{PAIR_WHOLE_TO, Why};
use crate::algo::{Allreduce, Bcast};
use std::fmt;

/// A collective, for choices and variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Collective {
    Barrier,
    Bcast,
    Reduce,
    Allreduce,
    Gather,
    Scatter,
    Allgather,
    ReduceScatter,
    Alltoall,
    Scan,
}

impl Collective {
    /// All, in the order of documentation.
    pub const ALL: [Self; 10] = [
        Self::Barrier,
        Self::Bcast,
        Self::Reduce,
        Self::Allreduce,
        Self::Gather,
        Self::Scatter,
        Self::Allgather,
        Self::ReduceScatter,
        Self::Alltoall,
        Self::Scan,
    ];

    /// As in `RMPI_COLL_ALLREDUCE`.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Barrier => "BARRIER",
            Self::Bcast => "BCAST",
            Self::Reduce => "REDUCE",
            Self::Allreduce => "ALLREDUCE",
            Self::Gather => "GATHER",
            Self::Scatter => "SCATTER",
            Self::Allgather => "ALLGATHER",
            Self::ReduceScatter => "REDUCE_SCATTER",
            Self::Alltoall => "ALLTOALL",
            Self::Scan => "SCAN",
        }
    }

    /// Whether there is a form in two levels.
    #[must_use]
    pub fn has_two_levels(self) -> bool {
        self != Self::Scan
    }
}

/// Where a collective runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Over messages between all ranks.
    Flat,
    /// In the memory that all ranks share.
    Node,
    /// In shared memory inside each node, over messages between nodes.
    TwoLevel,
}

impl Level {
    /// All with their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("flat", Self::Flat), ("node", Self::Node), ("two_level", Self::TwoLevel)];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat",
            Self::Node => "node",
            Self::TwoLevel => "two_level",
        })
    }
}

/// What memory the ranks of a communicator share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// None, or not enough to matter.
    #[default]
    Nothing,
    /// All ranks share one memory.
    All,
    /// Every node's ranks share a memory, on several nodes.
    Nodes {
        /// Ranks follow each other node by node, so that combining nodes in order is combining ranks in order.
        in_order: bool,
    },
}

impl super::Selector {
    /// Where `collective` of `bytes` runs (of one rank's contribution, or in all for blocks); `commutes`: whether
    /// operands may change places, true where nothing is combined. Collectives of blocks go in two levels where that
    /// is estimated to be cheaper or was named, the others wherever it can be.
    #[must_use]
    #[inline]
    pub fn level(&self, collective: Collective, bytes: usize, commutes: bool) -> Level {
        match self.sharing {
            Sharing::Nothing => Level::Flat,
            Sharing::All => match self.overrides.level(collective) {
                Some(Level::Flat) => Level::Flat,
                _ => Level::Node,
            },
            Sharing::Nodes { in_order } => self.level_of_nodes(in_order, collective, bytes, commutes),
        }
    }

    fn level_of_nodes(&self, in_order: bool, collective: Collective, bytes: usize, commutes: bool) -> Level {
        let possible = collective.has_two_levels() && (commutes || in_order);
        let wanted = match self.overrides.level(collective) {
            Some(named) => named != Level::Flat,
            None => self.both(collective, bytes, commutes).is_none_or(|(two, flat)| two < flat),
        };
        if possible && wanted { Level::TwoLevel } else { Level::Flat }
    }

    /// Whether two ranks that share no memory do `collective` with one message each way at most, which goes without
    /// asking: then there is nothing to schedule.
    #[must_use]
    pub fn is_one_message(&self, collective: Collective, bytes: usize, commutes: bool) -> bool {
        if self.layout.ranks != 2 || bytes > PAIR_WHOLE_TO {
            return false;
        }
        match collective {
            Collective::Barrier => true,
            // Nothing is sent of nothing.
            _ if bytes == 0 => false,
            Collective::Allreduce => self.allreduce(bytes, commutes).algorithm == Allreduce::Direct,
            Collective::Bcast => self.bcast(bytes).algorithm != Bcast::ScatterAllgather,
            Collective::Reduce | Collective::Allgather => true,
            Collective::Gather
            | Collective::Scatter
            | Collective::ReduceScatter
            | Collective::Alltoall
            | Collective::Scan => false,
        }
    }

    /// Estimates in two levels and flat, in nanoseconds, of collectives for which they decide.
    fn both(&self, collective: Collective, bytes: usize, commutes: bool) -> Option<(f64, f64)> {
        let two = self.model().two_levels(collective, bytes)?;
        let ns = |why: Why| if let Why::Cheapest { ns, .. } = why { ns } else { 0.0 };
        let flat = match collective {
            Collective::Gather => ns(self.gather(bytes).why),
            Collective::Scatter => ns(self.scatter(bytes).why),
            Collective::Allgather => ns(self.allgather(bytes).why),
            Collective::ReduceScatter => ns(self.reduce_scatter(bytes, commutes).why),
            _ => self.model().alltoall(bytes),
        };
        Some((two, flat))
    }

    /// One line for a collective: where it runs and by which algorithm, and why. `bytes` are of one rank's
    /// contribution, or in all for collectives of blocks.
    #[must_use]
    pub fn explain(&self, collective: Collective, bytes: usize) -> String {
        let level = self.level(collective, bytes, true);
        let named = match self.overrides.level(collective) {
            Some(wanted) if wanted != level => format!("; {wanted} was named but is not possible here"),
            _ => String::new(),
        };
        match level {
            Level::Node => {
                format!("node: all {} ranks share a node's memory{named}", self.layout.ranks)
            }
            Level::TwoLevel => {
                let estimate = match self.both(collective, bytes, true) {
                    Some((two, flat)) => {
                        format!(", estimated {:.1} us, flat {:.1} us", two / 1e3, flat / 1e3)
                    }
                    None => String::new(),
                };
                let nodes = self.layout.nodes;
                format!(
                    "two_level: shared memory inside {nodes} nodes, messages between them{estimate}{named}"
                )
            }
            Level::Flat => {
                let algorithm = match collective {
                    Collective::Barrier => "dissemination: the only one".to_owned(),
                    Collective::Bcast => self.bcast(bytes).to_string(),
                    Collective::Reduce => self.reduce(bytes, true).to_string(),
                    Collective::Allreduce => self.allreduce(bytes, true).to_string(),
                    Collective::Gather => self.gather(bytes).to_string(),
                    Collective::Scatter => self.scatter(bytes).to_string(),
                    Collective::Allgather => self.allgather(bytes).to_string(),
                    Collective::ReduceScatter => self.reduce_scatter(bytes, true).to_string(),
                    Collective::Alltoall => "direct: the only one".to_owned(),
                    Collective::Scan => self.scan(bytes).to_string(),
                };
                let way = if self.is_one_message(collective, bytes, true) { "; in one message" } else { "" };
                format!("{algorithm}{way}{named}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, Selector};
    use super::*;

    #[test]
    fn memory_is_used_where_it_is_shared() {
        let mut s = Selector::new(Layout { ranks: 8, nodes: 1 });
        for c in Collective::ALL {
            assert_eq!(s.level(c, 8, true), Level::Flat);
        }
        s.sharing = Sharing::All;
        assert!(Collective::ALL.into_iter().all(|c| s.level(c, 8, false) == Level::Node));
        s.overrides.set("RMPI_COLL_ALLREDUCE", "ring").unwrap();
        assert_eq!(s.level(Collective::Allreduce, 8, true), Level::Flat);
        s.overrides.set("RMPI_COLL_ALLREDUCE", "two_level").unwrap();
        assert_eq!(s.level(Collective::Allreduce, 8, true), Level::Node);
        assert!(s.explain(Collective::Allreduce, 4).contains("two_level was named but is not possible"));
    }

    #[test]
    fn two_ranks_on_two_nodes_need_one_message_for_what_is_not_long() {
        let mut s = Selector::new(Layout { ranks: 2, nodes: 2 });
        let one = [Collective::Bcast, Collective::Reduce, Collective::Allreduce, Collective::Allgather];
        for c in one {
            assert!(!s.is_one_message(c, 0, true) && !s.is_one_message(c, (512 << 10) + 1, true));
            for bytes in [1, 64, 4096, 64 << 10, 256 << 10] {
                assert!(s.is_one_message(c, bytes, true), "{c:?} of {bytes}");
                assert!(s.explain(c, bytes).ends_with("; in one message"), "{}", s.explain(c, bytes));
            }
        }
        assert!(s.is_one_message(Collective::Barrier, 0, true));
        assert!(!s.is_one_message(Collective::Alltoall, 64, true));
        // What is named is done.
        s.overrides.set("RMPI_COLL_ALLREDUCE", "rabenseifner").unwrap();
        s.overrides.set("RMPI_COLL_BCAST", "scatter_allgather").unwrap();
        assert!(!s.is_one_message(Collective::Allreduce, 64, true));
        assert!(!s.is_one_message(Collective::Bcast, 64, true));
        let three = Selector::new(Layout { ranks: 3, nodes: 3 });
        assert!(Collective::ALL.into_iter().all(|c| !three.is_one_message(c, 64, true)));
    }

    #[test]
    fn nodes_are_combined_in_order_or_by_who_commutes() {
        let mut s = Selector::new(Layout { ranks: 8, nodes: 4 });
        s.sharing = Sharing::Nodes { in_order: false };
        assert_eq!(s.level(Collective::Allreduce, 8, true), Level::TwoLevel);
        assert_eq!(s.level(Collective::Allreduce, 8, false), Level::Flat);
        assert_eq!(s.level(Collective::Scan, 8, true), Level::Flat);
        s.sharing = Sharing::Nodes { in_order: true };
        assert_eq!(s.level(Collective::Allreduce, 8, false), Level::TwoLevel);
        s.overrides.set("RMPI_COLL_BARRIER", "flat").unwrap();
        assert_eq!(s.level(Collective::Barrier, 8, true), Level::Flat);
    }

    #[test]
    fn blocks_go_in_two_levels_where_that_is_cheaper_or_named() {
        let mut s = Selector::new(Layout { ranks: 64, nodes: 8 });
        s.sharing = Sharing::Nodes { in_order: true };
        let blocks = [
            Collective::Gather,
            Collective::Scatter,
            Collective::Allgather,
            Collective::ReduceScatter,
            Collective::Alltoall,
        ];
        for c in blocks {
            // A byte for each rank: fewer messages between nodes.
            assert_eq!(s.level(c, 64, true), Level::TwoLevel, "{}", s.explain(c, 64));
            assert!(s.explain(c, 64).contains("estimated"), "{}", s.explain(c, 64));
        }
        // Much: a detour over heads is paid in bytes.
        assert_eq!(s.level(Collective::Gather, 64 << 20, true), Level::Flat);
        s.overrides.set("RMPI_COLL_GATHER", "two_level").unwrap();
        assert_eq!(s.level(Collective::Gather, 64 << 20, true), Level::TwoLevel);
        s.overrides.set("RMPI_COLL_ALLGATHER", "ring").unwrap();
        assert_eq!(s.level(Collective::Allgather, 64, true), Level::Flat);
    }
}
