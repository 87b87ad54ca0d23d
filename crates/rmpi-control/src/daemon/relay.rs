//! Passing frames on: the daemon as inner node of the launch tree. Knows which child leads to which node.
//! Never looks into what it passes on.

use crate::link::{Link, LinkId};
use rmpi_types::{NodeIdx, RankSet};
use std::collections::BTreeMap;

/// Children of one daemon, at most; more are turned away.
pub(super) const MAX_CHILDREN: usize = 1024;

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) node: NodeIdx,
    pub(super) link: Link,
}

/// The children and the way to the nodes below them.
#[derive(Debug, Default)]
pub(super) struct Relay {
    pub(super) children: BTreeMap<LinkId, Child>,
    routes: BTreeMap<NodeIdx, LinkId>,
}

impl Relay {
    pub(super) fn add(&mut self, id: LinkId, child: Child) {
        self.routes.insert(child.node, id);
        self.children.insert(id, child);
    }

    /// Forgets a child and the way to everything below it.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<Child> {
        let child = self.children.remove(&id)?;
        self.routes.retain(|_, via| *via != id);
        Some(child)
    }

    /// Learns that `node` is below a child; false when it is known to be below another.
    pub(super) fn learn(&mut self, node: NodeIdx, via: LinkId) -> bool {
        *self.routes.entry(node).or_insert(via) == via
    }

    /// Which of `nodes` each child leads to. Nodes that no child leads to (they were lost) are left out.
    pub(super) fn split(&self, nodes: &RankSet) -> BTreeMap<LinkId, RankSet> {
        let mut parts: BTreeMap<LinkId, RankSet> = BTreeMap::new();
        for (node, via) in &self.routes {
            let rank = rmpi_types::Rank(node.0);
            if nodes.contains(rank) {
                parts.entry(*via).or_default().insert(rank);
            }
        }
        parts
    }
}
