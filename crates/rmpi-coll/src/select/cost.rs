//! The cost model: rounds of messages between ranks at a distance, after Thakur, Rabenseifner and Gropp
//! (2005). Ranks are taken to lie on nodes in blocks; ranks of a node that send to other nodes in one round
//! share its link.

use super::level::Collective;
use crate::DEFAULT_SEGMENT;
use crate::algo::{Allgather, Allreduce, Bcast, Named, Reduce, ReduceScatter, Scan};
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
            Reduce::Linear => self.fan(n, false) + (p - 1.0) * n * self.costs.gamma,
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
                // One copy more where the result begins with the own contribution.
                self.fan(n, true) + p * n * self.costs.gamma
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

    /// All others send to one rank at once, or one to all: a quarter of the latency is the ends' own work. Or all
    /// ranks do (`all`), and share their nodes' links.
    fn fan(self, bytes: f64, all: bool) -> f64 {
        let Costs { inside, between, .. } = self.costs;
        let mates = if self.at.nodes <= 1 { f64::from(self.at.ranks) } else { self.at.per_node() } - 1.0;
        let abroad = f64::from(self.at.ranks) - 1.0 - mates;
        let shared = if all { self.at.per_node() } else { 1.0 };
        let first = 0.75 * if abroad > 0.0 { between.alpha } else { inside.alpha };
        let fixed = first + 0.25 * (mates * inside.alpha + abroad * between.alpha);
        fixed + bytes * (mates * inside.beta + abroad * shared * between.beta)
    }

    pub(crate) fn gather(self, bytes: usize, binomial: bool) -> f64 {
        let n = bytes as f64;
        if !binomial {
            return self.fan(n, false);
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
        match algorithm {
            ReduceScatter::Pairwise => self.fan(n / p, true) + n * self.costs.gamma,
            ReduceScatter::Ring => (p - 1.0) * self.neighbour(n / p) + n * self.costs.gamma,
        }
    }

    /// Everyone to everyone, `total` bytes from each.
    pub(crate) fn alltoall(self, total: usize) -> f64 {
        self.fan(total as f64 / f64::from(self.at.ranks), true)
    }

    /// Inside a node and between nodes as [`crate::levels`] does them, with equally many ranks a node. `None` for
    /// collectives that are always done in two levels where that can be, or never.
    pub(crate) fn two_levels(self, collective: Collective, bytes: usize) -> Option<f64> {
        let (k, nodes) = (self.at.per_node(), self.at.nodes);
        let inside = Self { at: Layout { ranks: k as u32, nodes: 1 }, ..self };
        let heads = Self { at: Layout { ranks: nodes, nodes }, ..self };
        // All lanes of a node share its link.
        let mut lanes = heads;
        lanes.costs.between.beta *= k;
        let part = |by: f64| (bytes as f64 / by).ceil() as usize;
        let moved = bytes as f64 * self.costs.gamma;
        Some(match collective {
            Collective::Gather | Collective::Scatter => {
                let (trees, bundle) = ([false, true], bytes as f64 * k);
                bundle * self.costs.gamma
                    + least(&trees, |t| inside.gather(bytes, t))
                    + least(&trees, |t| heads.gather(bundle as usize, t))
            }
            Collective::Allgather => {
                moved
                    + least(&members(), |a| inside.allgather(bytes, a))
                    + least(&members(), |a| lanes.allgather(part(k), a))
            }
            Collective::ReduceScatter => {
                moved
                    + least(&members(), |a| inside.reduce_scatter(bytes, a))
                    + least(&members(), |a| lanes.reduce_scatter(part(k), a))
            }
            Collective::Alltoall => 2.0 * moved + inside.alltoall(bytes) + lanes.alltoall(bytes),
            _ => return None,
        })
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

/// All algorithms of a family.
fn members<A: Named>() -> Vec<A> {
    A::ALL.iter().map(|&(_, a)| a).collect()
}

fn least<A: Copy>(of: &[A], cost: impl Fn(A) -> f64) -> f64 {
    of.iter().map(|&a| cost(a)).fold(f64::INFINITY, f64::min)
}
