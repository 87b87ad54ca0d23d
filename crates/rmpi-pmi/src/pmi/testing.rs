//! Namespaces and conversations for this crate's unit tests.

use rmpi_types::{JobId, Namespace, ProcId, Rank};
use rmpi_wire::service::{Space, SpaceApp, SpaceNode};

/// A namespace whose nodes have these ranks.
pub(crate) fn space(ns: u32, nodes: &[&[u32]]) -> Space {
    let size = u32::try_from(nodes.iter().map(|n| n.len()).sum::<usize>()).unwrap();
    Space {
        job: JobId([7; 16]),
        id: ProcId { ns: Namespace(ns), ..ProcId::default() },
        size,
        universe: size,
        parent: None,
        nodes: (0u32..)
            .zip(nodes)
            .map(|(node, ranks)| SpaceNode {
                node,
                host: format!("n{node}"),
                ranks: ranks.iter().copied().map(Rank).collect(),
            })
            .collect(),
        apps: vec![SpaceApp {
            ranks: rmpi_types::RankSet::range(0, size - 1),
            program: "a.out".into(),
            args: Vec::new(),
            wdir: "/".into(),
        }],
        preputs: Vec::new(),
    }
}
