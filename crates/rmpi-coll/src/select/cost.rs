//! The cost model: rounds of messages between ranks at a distance, after Thakur, Rabenseifner and Gropp
//! (2005). Ranks are taken to lie on nodes in blocks; ranks of a node that send to other nodes in one round
//! share its link.

use crate::DEFAULT_SEGMENT;
use crate::algo::{Allgather, Allreduce, Bcast, Reduce, ReduceScatter, Scan};

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

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Latency of a message, ns.
    pub alpha: f64,
    /// Time of a byte, ns.
    pub beta: f64,
}

/// What things cost on this kind of machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Between ranks of one node.
    pub inside: Link,
    /// Between nodes.
    pub between: Link,
    /// Reducing a byte, ns.
    pub gamma: f64,
}

impl Default for Costs {
    /// Shared memory at 0.5 µs and 10 GB/s, TCP at 10 µs and 3 GB/s (measured on loopback between virtual
    /// machines' namespaces), reductions at 10 GB/s (one core, out of cache).
    fn default() -> Self {
        Self {
            inside: Link { alpha: 500.0, beta: 0.1 },
            between: Link { alpha: 10_000.0, beta: 0.33 },
            gamma: 0.1,
        }
    }
}

impl Costs {
    /// A round in which all exchange `bytes` with a rank `distance` away.
    fn exchange(&self, at: Layout, distance: f64, bytes: f64) -> f64 {
        let per_node = at.per_node();
        if at.nodes <= 1 || distance < per_node {
            return self.inside.alpha + bytes * self.inside.beta;
        }
        self.between.alpha + bytes * self.between.beta * per_node.min(distance)
    }

    /// A step from neighbour to neighbour: one message a node leaves it, whatever the number of ranks on it.
    fn neighbour(&self, at: Layout, bytes: f64) -> f64 {
        let link = if at.nodes <= 1 { self.inside } else { self.between };
        link.alpha + bytes * link.beta
    }

    /// The rounds of distance 1, 2, 4 … with the bytes of each.
    fn doubling(&self, at: Layout, bytes: impl Fn(u32) -> f64) -> f64 {
        (0..at.rounds()).map(|k| self.exchange(at, f64::from(k).exp2(), bytes(k))).sum()
    }

    /// A chain of all ranks, pipelined by segments.
    fn chain(&self, at: Layout, bytes: f64, gamma: f64) -> f64 {
        let segment = bytes.min(DEFAULT_SEGMENT as f64);
        let hops = f64::from(at.ranks) - 1.0;
        let step = self.neighbour(at, segment) + segment * gamma;
        hops * step + (bytes - segment) / segment.max(1.0) * step
    }

    pub(crate) fn bcast(&self, at: Layout, bytes: usize, algorithm: Bcast) -> f64 {
        let (n, p) = (bytes as f64, f64::from(at.ranks));
        match algorithm {
            Bcast::Binomial => self.doubling(at, |_| n),
            Bcast::Chain => self.chain(at, n, 0.0),
            Bcast::ScatterAllgather => {
                let scatter: f64 =
                    (0..at.rounds()).map(|k| self.neighbour(at, n / f64::from(k + 1).exp2())).sum();
                scatter + (p - 1.0) * self.neighbour(at, n / p)
            }
        }
    }

    pub(crate) fn reduce(&self, at: Layout, bytes: usize, algorithm: Reduce) -> f64 {
        let (n, p) = (bytes as f64, f64::from(at.ranks));
        let tree = self.doubling(at, |_| n) + f64::from(at.rounds()) * n * self.gamma;
        let last = self.neighbour(at, n);
        match algorithm {
            Reduce::Binomial => tree,
            Reduce::Ordered => tree + last,
            Reduce::Linear => self.fan(at, n) + (p - 1.0) * n * self.gamma,
            Reduce::Chain => {
                self.chain(at, n, self.gamma) + self.neighbour(at, n.min(DEFAULT_SEGMENT as f64))
            }
        }
    }

    pub(crate) fn allreduce(&self, at: Layout, bytes: usize, algorithm: Allreduce) -> f64 {
        let (n, p) = (bytes as f64, f64::from(at.ranks));
        let fold =
            if at.ranks.is_power_of_two() { 0.0 } else { 2.0 * self.exchange(at, 1.0, n) + n * self.gamma };
        match algorithm {
            Allreduce::Direct => {
                let shared = if at.nodes <= 1 { 1.0 } else { at.per_node() };
                // One copy more where the result begins with the own contribution.
                self.fan(at, n * shared) + p * n * self.gamma
            }
            Allreduce::RecursiveDoubling => {
                fold + self.doubling(at, |_| n) + f64::from(at.rounds() + 1) * n * self.gamma
            }
            Allreduce::Rabenseifner => {
                let halving = 2.0 * self.doubling(at, |k| n / f64::from(k + 1).exp2());
                fold + halving + ((p - 1.0) / p + 1.0) * n * self.gamma
            }
            Allreduce::Ring => (p - 1.0) * (2.0 * self.neighbour(at, n / p) + n / p * self.gamma),
            Allreduce::Chain => self.chain(at, n, self.gamma) + self.chain(at, n, 0.0),
        }
    }

    /// All others send to one rank at once, or one to all: a quarter of the latency is the ends' own work.
    fn fan(&self, at: Layout, bytes: f64) -> f64 {
        let link = if at.nodes <= 1 { self.inside } else { self.between };
        let peers = f64::from(at.ranks) - 1.0;
        link.alpha * (0.75 + 0.25 * peers) + peers * bytes * link.beta
    }

    pub(crate) fn gather(&self, at: Layout, bytes: usize, binomial: bool) -> f64 {
        let n = bytes as f64;
        if !binomial {
            return self.fan(at, n);
        }
        // The inner ranks' copies cost as much as the bytes of reductions.
        let p = f64::from(at.ranks);
        let link = if at.nodes <= 1 { self.inside } else { self.between };
        f64::from(at.rounds()) * link.alpha + (p - 1.0) * n * (link.beta + self.gamma)
    }

    pub(crate) fn allgather(&self, at: Layout, total: usize, algorithm: Allgather) -> f64 {
        let (n, p) = (total as f64, f64::from(at.ranks));
        let doubling = self.doubling(at, |k| n / p * f64::from(k).exp2());
        match algorithm {
            Allgather::Ring => (p - 1.0) * self.neighbour(at, n / p),
            Allgather::Bruck => doubling + n * self.gamma,
            Allgather::RecursiveDoubling if at.ranks.is_power_of_two() => doubling,
            Allgather::RecursiveDoubling => doubling + 2.0 * self.neighbour(at, n),
        }
    }

    pub(crate) fn reduce_scatter(&self, at: Layout, total: usize, algorithm: ReduceScatter) -> f64 {
        let (n, p) = (total as f64, f64::from(at.ranks));
        let shared = if at.nodes <= 1 { 1.0 } else { at.per_node() };
        match algorithm {
            ReduceScatter::Pairwise => self.fan(at, n / p * shared) + n * self.gamma,
            ReduceScatter::Ring => (p - 1.0) * self.neighbour(at, n / p) + n * self.gamma,
        }
    }

    pub(crate) fn scan(&self, at: Layout, bytes: usize, algorithm: Scan) -> f64 {
        let n = bytes as f64;
        match algorithm {
            Scan::Linear => self.chain(at, n, self.gamma),
            Scan::RecursiveDoubling => self.doubling(at, |_| n) + f64::from(at.rounds()) * n * self.gamma,
        }
    }
}
