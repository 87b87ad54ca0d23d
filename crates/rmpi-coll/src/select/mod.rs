//! Which algorithm: by a cost model of latency, byte time and reduction time over the layout of ranks, unless
//! the user names one. Pure, and a function of things all ranks know alike; never measured in a run.

mod cost;
mod level;
mod overrides;

pub use cost::Layout;
pub use level::{Collective, Level, Sharing};
pub use overrides::{OverrideError, Overrides};

use crate::algo::{Allgather, Allreduce, Bcast, Gather, Named, Reduce, ReduceScatter, Scan, Scatter};
use cost::Model;
use rmpi_types::Costs;
use std::fmt;

/// Allreduces of two ranks above this many bytes go by measurement, not by the model.
const PAIR_FROM: usize = 32 << 10;
/// They exchange everything up to this size, from which the second addition costs more than the second exchange.
const PAIR_WHOLE_TO: usize = 512 << 10;

/// Why an algorithm was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// The user named it.
    Named,
    /// It was the fastest where it was tried; the model does not tell these apart.
    Measured,
    /// It is the cheapest of those allowed.
    Cheapest {
        /// Its estimate in nanoseconds.
        ns: f64,
        /// The next best and its estimate; `None` when there is no other.
        next: Option<(&'static str, f64)>,
        /// The named one that was passed over, because the operation does not commute.
        refused: Option<&'static str>,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named by the user"),
            Self::Measured => f.write_str("measured between two ranks"),
            Self::Cheapest { ns, next, refused } => {
                write!(f, "estimated {:.1} us", ns / 1e3)?;
                if let Some((name, ns)) = next {
                    write!(f, ", next {name} {:.1} us", ns / 1e3)?;
                }
                if let Some(name) = refused {
                    write!(f, "; {name} was named but the operation does not commute")?;
                }
                Ok(())
            }
        }
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<A> {
    /// The algorithm.
    pub algorithm: A,
    /// Why this one.
    pub why: Why,
}

impl<A: Named> fmt::Display for Choice<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.algorithm.name(), self.why)
    }
}

/// Chooses for one communicator.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// Ranks and nodes.
    pub layout: Layout,
    /// What things cost.
    pub costs: Costs,
    /// What the user named.
    pub overrides: Overrides,
    /// What memory the ranks share.
    pub sharing: Sharing,
}

impl Selector {
    /// Chooses with the default costs and no overrides.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, costs: Costs::default(), overrides: Overrides::default(), sharing: Sharing::Nothing }
    }

    fn model(&self) -> Model {
        Model { costs: self.costs, at: self.layout }
    }

    /// For a broadcast of `bytes`.
    #[must_use]
    pub fn bcast(&self, bytes: usize) -> Choice<Bcast> {
        self.choose(self.overrides.bcast, true, |a| self.model().bcast(bytes, a))
    }

    /// For a reduction of `bytes`; `commutes`: whether operands may change places.
    #[must_use]
    pub fn reduce(&self, bytes: usize, commutes: bool) -> Choice<Reduce> {
        self.choose(self.overrides.reduce, commutes, |a| self.model().reduce(bytes, a))
    }

    /// For an allreduce of `bytes`; `commutes`: whether operands may change places.
    #[must_use]
    pub fn allreduce(&self, bytes: usize, commutes: bool) -> Choice<Allreduce> {
        if let Some(algorithm) = self.pair(bytes, commutes) {
            return Choice { algorithm, why: Why::Measured };
        }
        self.choose(self.overrides.allreduce, commutes, |a| self.model().allreduce(bytes, a))
    }

    /// For two ranks and more than a short message. Measured over TCP: everything at once takes 0.48 of Open MPI's time
    /// with 64 KiB, 0.41 with 256 KiB; halves (the ring, which copies nothing before it sends) 0.87 and 0.75 there, 0.55 with
    /// 1 MiB, 0.60 with 4 MiB, 0.71 with 16 MiB.
    fn pair(&self, bytes: usize, commutes: bool) -> Option<Allreduce> {
        if self.layout.ranks != 2 || self.overrides.allreduce.is_some() {
            return None;
        }
        match bytes {
            _ if bytes <= PAIR_FROM => None,
            _ if bytes < PAIR_WHOLE_TO => Some(Allreduce::Direct),
            _ => commutes.then_some(Allreduce::Ring),
        }
    }

    /// For a gather of `bytes` from each rank.
    #[must_use]
    pub fn gather(&self, bytes: usize) -> Choice<Gather> {
        self.choose(self.overrides.gather, true, |a| self.model().gather(bytes, a == Gather::Binomial))
    }

    /// For a scatter of `bytes` to each rank.
    #[must_use]
    pub fn scatter(&self, bytes: usize) -> Choice<Scatter> {
        self.choose(self.overrides.scatter, true, |a| self.model().gather(bytes, a == Scatter::Binomial))
    }

    /// For an allgather with `total` bytes in all.
    #[must_use]
    pub fn allgather(&self, total: usize) -> Choice<Allgather> {
        self.choose(self.overrides.allgather, true, |a| self.model().allgather(total, a))
    }

    /// For a reduce-scatter with `total` bytes of input a rank; `commutes`: whether operands may change
    /// places.
    #[must_use]
    pub fn reduce_scatter(&self, total: usize, commutes: bool) -> Choice<ReduceScatter> {
        self.choose(self.overrides.reduce_scatter, commutes, |a| self.model().reduce_scatter(total, a))
    }

    /// For a scan of `bytes`, inclusive or exclusive.
    #[must_use]
    pub fn scan(&self, bytes: usize) -> Choice<Scan> {
        self.choose(self.overrides.scan, true, |a| self.model().scan(bytes, a))
    }

    /// The named one if allowed, else the cheapest allowed; the first listed wins a tie.
    fn choose<A: Named + PartialEq>(
        &self,
        named: Option<A>,
        commutes: bool,
        cost: impl Fn(A) -> f64,
    ) -> Choice<A> {
        let allowed = |a: A| commutes || a.ordered();
        if let Some(algorithm) = named.filter(|&a| allowed(a)) {
            return Choice { algorithm, why: Why::Named };
        }
        let mut best: Option<(A, f64)> = None;
        let mut next: Option<(&'static str, f64)> = None;
        for &(name, a) in A::ALL.iter().filter(|&&(_, a)| allowed(a)) {
            let ns = cost(a);
            match best {
                Some((_, least)) if ns >= least => {
                    if next.is_none_or(|(_, n)| ns < n) {
                        next = Some((name, ns));
                    }
                }
                _ => {
                    next = best.map(|(b, n)| (b.name(), n));
                    best = Some((a, ns));
                }
            }
        }
        let (algorithm, ns) = best.unwrap_or((A::ALL[0].1, 0.0));
        Choice { algorithm, why: Why::Cheapest { ns, next, refused: named.map(Named::name) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(ranks: u32, nodes: u32) -> Selector {
        Selector::new(Layout { ranks, nodes })
    }

    #[test]
    fn allreduce_goes_from_latency_to_bandwidth() {
        let s = selector(8, 8);
        let at = |bytes| s.allreduce(bytes, true).algorithm;
        assert!(matches!(at(8), Allreduce::Direct | Allreduce::RecursiveDoubling));
        assert_eq!(at(512 << 10), Allreduce::Rabenseifner);
        assert!(matches!(at(64 << 20), Allreduce::Rabenseifner | Allreduce::Ring));
        // Two ranks: one exchange of everything, or of halves when large.
        let two = |bytes, commutes| selector(2, 2).allreduce(bytes, commutes).algorithm;
        assert_eq!(two(4, true), Allreduce::Direct);
        assert_eq!((two(64 << 10, true), two(256 << 10, true)), (Allreduce::Direct, Allreduce::Direct));
        assert_eq!(two(1 << 20, true), Allreduce::Ring);
        assert_eq!(two(4 << 20, true), Allreduce::Ring);
        assert!(two(64 << 10, false).ordered() && two(4 << 20, false).ordered());
        // The folding that Rabenseifner's needs is dear when the data is large.
        assert_eq!(selector(6, 6).allreduce(64 << 20, true).algorithm, Allreduce::Ring);
    }

    #[test]
    fn broadcast_and_reduce_turn_to_pipelines() {
        let s = selector(16, 16);
        assert_eq!(s.bcast(64).algorithm, Bcast::Binomial);
        assert_ne!(s.bcast(64 << 20).algorithm, Bcast::Binomial);
        assert_eq!(s.reduce(64, true).algorithm, Reduce::Binomial);
        assert_eq!(s.reduce(64 << 20, true).algorithm, Reduce::Chain);
        assert_eq!(s.scan(8).algorithm, Scan::RecursiveDoubling);
        assert_eq!(s.gather(8).algorithm, Gather::Binomial);
        assert_eq!(s.gather(1 << 20).algorithm, Gather::Linear);
    }

    #[test]
    fn operations_that_do_not_commute_get_ordered_algorithms() {
        for ranks in 1..40 {
            for bytes in [0, 8, 1 << 12, 1 << 20, 1 << 28] {
                let s = selector(ranks, ranks.min(4));
                assert!(s.allreduce(bytes, false).algorithm.ordered());
                assert!(s.reduce(bytes, false).algorithm.ordered());
                assert!(s.reduce_scatter(bytes, false).algorithm.ordered());
            }
        }
    }

    #[test]
    fn a_named_algorithm_wins_if_it_may() {
        let mut s = selector(8, 4);
        s.overrides.set("RMPI_COLL_ALLREDUCE", "ring").unwrap();
        let choice = s.allreduce(8, true);
        assert_eq!((choice.algorithm, choice.why), (Allreduce::Ring, Why::Named));
        let choice = s.allreduce(8, false);
        assert!(choice.algorithm.ordered());
        assert!(choice.to_string().contains("ring was named but"), "{choice}");
    }
}
