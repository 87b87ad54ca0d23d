//! Launch orders for this crate's unit tests.

use rmpi_types::launch::{AppLaunch, EnvMerge, NodeLaunch, RankLaunch, StdioKind};
use rmpi_types::{JobId, NodeIdx, ProcId, Rank};

/// A program in `/tmp` with nothing special.
pub(crate) fn app(program: &str, args: &[&str]) -> AppLaunch {
    AppLaunch {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        wdir: "/tmp".into(),
        wdir_explicit: true,
        search: Vec::new(),
        merge: EnvMerge::Fill,
        env: Vec::new(),
        set: Vec::new(),
        edits: Vec::new(),
    }
}

/// `n` ranks of the first program on the only node.
pub(crate) fn launch(apps: Vec<AppLaunch>, n: u32) -> NodeLaunch {
    let rank = |r| RankLaunch { rank: Rank(r), app: 0, local_rank: r, cpus: None, stdin: r == 0 };
    NodeLaunch {
        job: JobId([7; 16]),
        ns: ProcId::default(),
        node: NodeIdx(0),
        nodes: 1,
        size: n,
        universe: n,
        host: "here".into(),
        apps,
        ranks: (0..n).map(rank).collect(),
        layout: vec![(n, 1)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: None,
        ifaces: Vec::new(),
        port_range: None,
        key: [1; 32],
        data: rmpi_types::DataPlane::default(),
        oversubscribed: false,
        stdio: StdioKind::Pipe,
        kill_grace_ms: 1000,
        drain_ms: 1000,
        extras: Default::default(),
        output_credit: 256 << 10,
    }
}
