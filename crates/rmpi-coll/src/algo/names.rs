//! Names of the algorithms, as users write them to force one.

/// A family of algorithms of one collective.
pub trait Named: Copy + Sized + 'static {
    /// The collective, as in `RMPI_COLL_ALLREDUCE`.
    const COLLECTIVE: &'static str;
    /// All members with their names.
    const ALL: &'static [(&'static str, Self)];

    /// Whether operands are combined in rank order, as operations that do not commute need.
    fn ordered(self) -> bool {
        true
    }

    /// The name.
    #[must_use]
    fn name(self) -> &'static str;

    /// The member of that name.
    #[must_use]
    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|&(_, a)| a)
    }
}

macro_rules! family {
    ($(#[$doc:meta])* $family:ident $collective:literal { $($(#[$mdoc:meta])* $member:ident $name:literal $ordered:literal)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $family { $($(#[$mdoc])* $member,)* }
        impl Named for $family {
            const COLLECTIVE: &'static str = $collective;
            const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$member)),*];
            fn ordered(self) -> bool { match self { $(Self::$member => $ordered),* } }
            fn name(self) -> &'static str { match self { $(Self::$member => $name),* } }
        }
    };
}

family! {
    /// Broadcast.
    Bcast "BCAST" {
        /// Binomial tree: lg p (α + nβ).
        Binomial "binomial" true
        /// A chain in rank order from the root, pipelined by segments: (p−2) segments + n.
        Chain "chain" true
        /// Binomial scatter, then ring allgather: (lg p + p − 1) α + 2n(p−1)/p β.
        ScatterAllgather "scatter_allgather" true
    }
}
family! {
    /// Reduction to a root.
    Reduce "REDUCE" {
        /// Binomial tree around the root: lg p (α + nβ). Operands in order of distance from the root.
        Binomial "binomial" false
        /// Binomial tree around rank 0 in rank order, then a message to the root.
        Ordered "ordered" true
        /// Every rank sends to the root, which combines in rank order, strictly from the left.
        Linear "linear" true
        /// A chain in rank order, pipelined by segments, then on to the root; strictly from the left.
        Chain "chain" true
    }
}
family! {
    /// Reduction to all.
    Allreduce "ALLREDUCE" {
        /// Everyone sends all to everyone and combines in rank order: (p−1)(α + nβ) in one round.
        Direct "direct" true
        /// Recursive doubling: lg p (α + nβ), two more messages for some when p is not a power of two.
        RecursiveDoubling "recursive_doubling" true
        /// Rabenseifner: recursive halving reduce-scatter, then doubling allgather: 2 lg p α + 2n(p−1)/p β.
        Rabenseifner "rabenseifner" true
        /// Ring reduce-scatter and allgather: 2(p−1) α + 2n(p−1)/p β. Operands in ring order.
        Ring "ring" false
        /// A chain up and back, pipelined by segments; strictly from the left.
        Chain "chain" true
    }
}
family! {
    /// Equal blocks to a root.
    Gather "GATHER" {
        /// Everyone sends to the root.
        Linear "linear" true
        /// Binomial tree: lg p α.
        Binomial "binomial" true
    }
}
family! {
    /// Equal blocks from a root.
    Scatter "SCATTER" {
        /// The root sends to everyone.
        Linear "linear" true
        /// Binomial tree: lg p α.
        Binomial "binomial" true
    }
}
family! {
    /// Everyone's block to all.
    Allgather "ALLGATHER" {
        /// Ring: (p−1) α + n(p−1) β, neighbours only.
        Ring "ring" true
        /// Bruck: lg p α + n(p−1) β, and a rotation in memory.
        Bruck "bruck" true
        /// Recursive doubling: lg p α + n(p−1) β; two more messages for some unless p is a power of two.
        RecursiveDoubling "recursive_doubling" true
    }
}
family! {
    /// Reduction with the result scattered in blocks.
    ReduceScatter "REDUCE_SCATTER" {
        /// Each block goes straight to its owner, which combines in rank order, strictly from the left.
        Pairwise "pairwise" true
        /// Ring: (p−1)(α + n/p β). Operands in ring order.
        Ring "ring" false
    }
}
family! {
    /// Prefix reductions.
    Scan "SCAN" {
        /// A chain, pipelined by segments; strictly from the left.
        Linear "linear" true
        /// Doubling distances: lg p (α + nβ).
        RecursiveDoubling "recursive_doubling" true
    }
}
