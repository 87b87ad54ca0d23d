//! The plan as a user may see it (`--display-map`, `--report-bindings`, `--dry-run`). Pure rendering.

use rmpi_plan::Plan;
use rmpi_types::{CpuSet, Rank, RankSet};
use std::fmt::Write as _;

/// Where everything is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanView {
    /// Nodes in order, those without ranks included.
    pub nodes: Vec<NodeView>,
}

/// One node of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Host name as the user wrote it.
    pub host: String,
    /// Its slots.
    pub slots: u32,
    /// Its ranks with their CPUs; `None` is unbound.
    pub ranks: Vec<(Rank, Option<CpuSet>)>,
}

impl PlanView {
    /// `names`: of the planner's nodes, in its order.
    pub(crate) fn new(plan: &Plan, names: Vec<String>) -> Self {
        let view = |(host, node): (String, &rmpi_plan::PlannedNode)| NodeView {
            host,
            slots: node.slots,
            ranks: Vec::new(),
        };
        let mut nodes: Vec<NodeView> = names.into_iter().zip(&plan.nodes).map(view).collect();
        for rank in &plan.ranks {
            nodes[rank.node.0 as usize].ranks.push((rank.rank, rank.cpus.clone()));
        }
        Self { nodes }
    }

    /// The parts that were asked for, a line a node or rank; empty when none was.
    #[must_use]
    pub fn render(&self, allocation: bool, map: bool, bindings: bool) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            let ranks: RankSet = node.ranks.iter().map(|(rank, _)| *rank).collect();
            let slots = if allocation { format!(" slots={}", node.slots) } else { String::new() };
            let on = if map && !ranks.is_empty() { format!(" ranks={ranks}") } else { String::new() };
            if !slots.is_empty() || !on.is_empty() {
                let _ = writeln!(out, "rmpirun: node {}{slots}{on}", node.host);
            }
        }
        for node in self.nodes.iter().filter(|_| bindings) {
            for (rank, cpus) in &node.ranks {
                let _ = match cpus {
                    Some(cpus) => writeln!(out, "rmpirun: rank {rank} on {} bound to cpus {cpus}", node.host),
                    None => writeln!(out, "rmpirun: rank {rank} on {} is not bound", node.host),
                };
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_was_asked_for() {
        let node = |host: &str, ranks: &[u32], cpus: Option<CpuSet>| NodeView {
            host: host.into(),
            slots: 2,
            ranks: ranks.iter().map(|&r| (Rank(r), cpus.clone())).collect(),
        };
        let plan =
            PlanView { nodes: vec![node("n1", &[0, 1], CpuSet::parse_list("0-1")), node("n2", &[2], None)] };
        assert_eq!(plan.render(false, false, false), "");
        assert_eq!(plan.render(true, false, false), "rmpirun: node n1 slots=2\nrmpirun: node n2 slots=2\n");
        assert_eq!(
            plan.render(false, true, true),
            "rmpirun: node n1 ranks=0-1\nrmpirun: node n2 ranks=2\n\
             rmpirun: rank 0 on n1 bound to cpus 0-1\nrmpirun: rank 1 on n1 bound to cpus 0-1\n\
             rmpirun: rank 2 on n2 is not bound\n"
        );
    }
}
