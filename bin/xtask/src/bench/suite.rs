//! Which benchmarks belong to the suite.

/// One benchmark at one number of ranks over one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) mode: &'static str,
    pub(super) transport: &'static str,
    pub(super) np: usize,
    /// Largest message; 0 is the mode's own.
    pub(super) bytes: usize,
}

impl Suite {
    const fn new(mode: &'static str, transport: &'static str, np: usize, bytes: usize) -> Self {
        Self { mode, transport, np, bytes }
    }

    /// `latency-shm`, `allreduce-shm-8`: the number of ranks where it is not two.
    pub(super) fn name(&self) -> String {
        match self.np {
            2 => format!("{}-{}", self.mode, self.transport),
            np => format!("{}-{}-{np}", self.mode, self.transport),
        }
    }
}

/// All of them.
pub(super) fn all() -> Vec<Suite> {
    const MB: usize = 1 << 20;
    let mut all = Vec::new();
    for transport in ["shm", "tcp"] {
        for (mode, np, bytes) in [
            ("latency", 2, 0),
            ("bw", 2, 0),
            ("rate", 2, 0),
            ("allreduce", 2, 0),
            ("bcast", 2, 0),
            ("allgather", 2, 0),
            ("reduce_scatter", 2, 0),
            ("alltoall", 2, 0),
            ("barrier", 2, 0),
            ("overlap", 2, 0),
        ] {
            all.push(Suite::new(mode, transport, np, bytes));
        }
    }
    all.extend([Suite::new("allreduce", "shm", 4, 4 * MB), Suite::new("allreduce", "shm", 8, 4 * MB)]);
    all.extend([1, 8, 64].map(|np| Suite::new("init", "auto", np, 0)));
    all
}
