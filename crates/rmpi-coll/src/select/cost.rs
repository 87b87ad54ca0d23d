//! The cost model: rounds of messages between ranks at a distance, after Thakur, Rabenseifner and Gropp
//! (2005). Ranks are taken to lie on nodes in blocks; ranks of a node that send to other nodes in one round
//! share its link.

use crate::DEFAULT_SEGMENT;
use crate::algo::{Allgather, Allreduce, Bcast, Reduce, ReduceScatter, Scan};
use rmpi_types::Costs;

/// How the ranks of a communicator lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of ranks.
    pub ranks: u32,
    /// Number of nodes they are on.
    pub nodes: u32,
}

impl Layout {
    fn per_node(self) -> f64 {
        (f64::from(self.ranks) / f64::from(self.nodes.max(1))).ceil().max(1.0)
    }

    /// lg p, rounded up.
    fn rounds(self) -> u32 {
        self.ranks.max(1).next_power_of_two().ilog2()
    }
}

/// The costs of collectives among ranks that lie so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) costs: Costs,
    pub(crate) at: Layout,
}

impl Model {
    /// A round in which all exchange `bytes` with a rank `distance` away.
    fn exchange(self, distance: f64, bytes: f64) -> f64 {
        let per_node = self.at.per_node();
        if self.at.nodes <= 1 || distance < per_node {
            return self.costs.inside.alpha + bytes * self.costs.inside.beta;
        }
        self.costs.between.alpha + bytes * self.costs.between.beta * per_node.min(distance)
    }

    /// A step from neighbour to neighbour: one message a node leaves it, whatever the number of ranks on it.
    fn neighbour(self, bytes: f64) -> f64 {
        let link = if self.at.nodes <= 1 { self.costs.inside } else { self.costs.between };
        link.alpha + bytes * link.beta
    }

    /// The rounds of distance 1, 2, 4 … with the bytes of each.
    fn doubling(self, bytes: impl Fn(u32) -> f64) -> f64 {
        (0..self.at.rounds()).map(|k| self.exchange(f64::from(k).exp2(), bytes(k))).sum()
    }

    /// A chain of all ranks, pipelined by segments.
    fn chain(self, bytes: f64, gamma: f64) -> f64 {
        let segment = bytes.min(DEFAULT_SEGMENT as f64);
        let hops = f64::from(self.at.ranks) - 1.0;
        let step = self.neighbour(segment) + segment * gamma;
        hops * step + (bytes - segment) / segment.max(1.0) * step
    }

    pub(crate) fn bcast(self, bytes: usize, algorithm: Bcast) -> f64 {
        let (n, p) = (bytes as f64, f64::from(self.at.ranks));
        match algorithm {
            Bcast::Binomial => self.doubling(|_| n),
            Bcast::Chain => self.chain(n, 0.0),
            Bcast::ScatterAllgather => {
                let scatter: f64 =
                    (0..self.at.rounds()).map(|k| self.neighbour(n / f64::from(k + 1).exp2())).sum();
                scatter + (p - 1.0) * self.neighbour(n / p)
            }
        }
    }

    pub(crate) fn reduce(self, bytes: usize, algorithm: Reduce) -> f64 {
        let (n, p) = (bytes as f64, f64::from(self.at.ranks));
        let tree = self.doubling(|_| n) + f64::from(self.at.rounds()) * n * self.costs.gamma;
        let last = self.neighbour(n);
        match algorithm {
            Reduce::Binomial => tree,
            Reduce::Ordered => tree + last,
            Reduce::Linear => self.fan(n) + (p - 1.0) * n * self.costs.gamma,
            Reduce::Chain => self.chain(n, self.costs.gamma) + self.neighbour(n.min(DEFAULT_SEGMENT as f64)),
        }
    }

    pub(crate) fn allreduce(self, bytes: usize, algorithm: Allreduce) -> f64 {
        let (n, p) = (bytes as f64, f64::from(self.at.ranks));
        let fold = if self.at.ranks.is_power_of_two() {
            0.0
        } else {
            2.0 * self.exchange(1.0, n) + n * self.costs.gamma
        };
        match algorithm {
            Allreduce::Direct => {
                let shared = if self.at.nodes <= 1 { 1.0 } else { self.at.per_node() };
                // One copy more where the result begins with the own contribution.
                self.fan(n * shared) + p * n * self.costs.gamma
            }
            Allreduce::RecursiveDoubling => {
                fold + self.doubling(|_| n) + f64::from(self.at.rounds() + 1) * n * self.costs.gamma
            }
            Allreduce::Rabenseifner => {
                let halving = 2.0 * self.doubling(|k| n / f64::from(k + 1).exp2());
                fold + halving + ((p - 1.0) / p + 1.0) * n * self.costs.gamma
            }
            Allreduce::Ring => (p - 1.0) * (2.0 * self.neighbour(n / p) + n / p * self.costs.gamma),
            Allreduce::Chain => self.chain(n, self.costs.gamma) + self.chain(n, 0.0),
        }
    }

    /// All others send to one rank at once, or one to all: a quarter of the latency is the ends' own work.
    fn fan(self, bytes: f64) -> f64 {
        let link = if self.at.nodes <= 1 { self.costs.inside } else { self.costs.between };
        let peers = f64::from(self.at.ranks) - 1.0;
        link.alpha * (0.75 + 0.25 * peers) + peers * bytes * link.beta
    }

    pub(crate) fn gather(self, bytes: usize, binomial: bool) -> f64 {
        let n = bytes as f64;
        if !binomial {
            return self.fan(n);
        }
        // The inner ranks' copies cost as much as the bytes of reductions.
        let p = f64::from(self.at.ranks);
        let link = if self.at.nodes <= 1 { self.costs.inside } else { self.costs.between };
        f64::from(self.at.rounds()) * link.alpha + (p - 1.0) * n * (link.beta + self.costs.gamma)
    }

    pub(crate) fn allgather(self, total: usize, algorithm: Allgather) -> f64 {
        let (n, p) = (total as f64, f64::from(self.at.ranks));
        let doubling = self.doubling(|k| n / p * f64::from(k).exp2());
        match algorithm {
            Allgather::Ring => (p - 1.0) * self.neighbour(n / p),
            Allgather::Bruck => doubling + n * self.costs.gamma,
            Allgather::RecursiveDoubling if self.at.ranks.is_power_of_two() => doubling,
            Allgather::RecursiveDoubling => doubling + 2.0 * self.neighbour(n),
        }
    }

    pub(crate) fn reduce_scatter(self, total: usize, algorithm: ReduceScatter) -> f64 {
        let (n, p) = (total as f64, f64::from(self.at.ranks));
        let shared = if self.at.nodes <= 1 { 1.0 } else { self.at.per_node() };
        match algorithm {
            ReduceScatter::Pairwise => self.fan(n / p * shared) + n * self.costs.gamma,
            ReduceScatter::Ring => (p - 1.0) * self.neighbour(n / p) + n * self.costs.gamma,
        }
    }

    pub(crate) fn scan(self, bytes: usize, algorithm: Scan) -> f64 {
        let n = bytes as f64;
        match algorithm {
            Scan::Linear => self.chain(n, self.costs.gamma),
            Scan::RecursiveDoubling => {
                self.doubling(|_| n) + f64::from(self.at.rounds()) * n * self.costs.gamma
            }
        }
    }
}
