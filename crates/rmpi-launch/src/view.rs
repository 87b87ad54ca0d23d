//! The plan as a user may see it (`--display`, `--report-bindings`, `--dry-run`). Pure rendering.

use rmpi_plan::Plan;
use rmpi_types::cpus::{Cpu, GpuMaker};
use rmpi_types::{CpuSet, Rank, RankSet, Topology};
use std::collections::BTreeSet;
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
    /// The daemon's process id; 0 in a plan that was made without asking the node.
    pub daemon: u32,
    /// Its CPUs.
    pub topology: Topology,
}

/// What is to be shown of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Hosts and slots.
    pub allocation: bool,
    /// Which ranks are where.
    pub map: bool,
    /// A line a rank with its CPUs.
    pub bindings: bool,
    /// Packages, cores and CPUs of each node.
    pub topology: bool,
    /// Fields after names instead of sentences.
    pub parseable: bool,
}

impl PlanView {
    /// `nodes`: name, daemon and CPUs of the planner's nodes, in its order.
    pub(crate) fn new(plan: &Plan, nodes: Vec<(String, u32, Topology)>) -> Self {
        let view = |((host, daemon, topology), node): ((String, u32, Topology), &rmpi_plan::PlannedNode)| {
            NodeView { host, slots: node.slots, ranks: Vec::new(), daemon, topology }
        };
        let mut nodes: Vec<NodeView> = nodes.into_iter().zip(&plan.nodes).map(view).collect();
        for rank in &plan.ranks {
            nodes[rank.node.0 as usize].ranks.push((rank.rank, rank.cpus.clone()));
        }
        Self { nodes }
    }

    /// The parts that were asked for, a line a node or rank; empty when none was.
    #[must_use]
    pub fn render(&self, parts: Parts) -> String {
        let mut out = String::new();
        if parts.allocation {
            self.allocation(&mut out, parts.parseable);
        }
        for node in self.nodes.iter().filter(|_| parts.topology) {
            node.topology(&mut out);
        }
        for node in self.nodes.iter().filter(|n| parts.map && !n.ranks.is_empty()) {
            let ranks: RankSet = node.ranks.iter().map(|(rank, _)| *rank).collect();
            let node_word = if parts.parseable { "map host=" } else { "node " };
            let _ = writeln!(out, "rmpirun: {node_word}{} slots={} ranks={ranks}", node.host, node.slots);
        }
        for node in self.nodes.iter().filter(|_| parts.bindings) {
            for (rank, cpus) in &node.ranks {
                node.binding(&mut out, *rank, cpus.as_ref(), parts.parseable);
            }
        }
        out
    }

    fn allocation(&self, out: &mut String, parseable: bool) {
        if parseable {
            for node in &self.nodes {
                let _ = writeln!(out, "rmpirun: allocation host={} slots={}", node.host, node.slots);
            }
            return;
        }
        let bar = "=".repeat(22);
        let _ = writeln!(out, "rmpirun: {bar}   ALLOCATED NODES   {bar}");
        for node in &self.nodes {
            let _ =
                writeln!(out, "rmpirun:     {}: slots={} ranks={}", node.host, node.slots, node.ranks.len());
        }
        let _ = writeln!(out, "rmpirun: {}", "=".repeat(65));
    }
}

impl NodeView {
    /// Open MPI's line: `[host:pid] MCW rank 0 bound to socket 0[core 0[hwt 0]]: [B/.]`.
    fn binding(&self, out: &mut String, rank: Rank, cpus: Option<&CpuSet>, parseable: bool) {
        if parseable {
            let cpus = cpus.map_or_else(|| "all".to_owned(), ToString::to_string);
            let _ = writeln!(out, "rmpirun: binding rank={rank} host={} cpus={cpus}", self.host);
            return;
        }
        let _ = write!(out, "[{}:{}] MCW rank {rank} ", self.host, self.daemon);
        let all = &self.topology.cpus;
        let mine = |cpu: &Cpu| cpus.is_some_and(|set| set.contains(cpu.os));
        if all.iter().all(mine) || !all.iter().any(mine) {
            out.push_str("is not bound (or bound to all available processors)\n");
            return;
        }
        let mut places = Vec::new();
        let mut picture = String::new();
        for package in all.chunk_by(|a, b| a.package == b.package) {
            let mut cores = Vec::new();
            for core in package.chunk_by(|a, b| a.core == b.core) {
                cores.push(core.iter().map(|c| if mine(c) { 'B' } else { '.' }).collect::<String>());
                let threads: RankSet =
                    core.iter().zip(0u32..).filter(|(c, _)| mine(c)).map(|(_, t)| Rank(t)).collect();
                if !threads.is_empty() {
                    let (socket, core) = (core[0].package, core[0].core);
                    places.push(format!("socket {socket}[core {core}[hwt {threads}]]"));
                }
            }
            let _ = write!(picture, "[{}]", cores.join("/"));
        }
        let _ = writeln!(out, "bound to {}: {picture}", places.join(", "));
    }

    fn topology(&self, out: &mut String) {
        let cpus = &self.topology.cpus;
        let count = |of: &dyn Fn(&Cpu) -> u32| cpus.iter().map(of).collect::<BTreeSet<u32>>().len();
        let _ = write!(
            out,
            "rmpirun: {}: {} packages, {} NUMA nodes, {} L3 caches, {} cores, {} CPUs",
            self.host,
            count(&|c| c.package),
            count(&|c| c.numa),
            count(&|c| c.cache[2]),
            count(&|c| c.core),
            cpus.len()
        );
        if let Some(quota) = self.topology.quota_milli {
            let _ = write!(out, ", quota of {}.{:03} CPUs", quota / 1000, quota % 1000);
        }
        if let Some(gpu) = self.topology.gpus.first() {
            let maker = match gpu.maker {
                GpuMaker::Nvidia => "NVIDIA",
                GpuMaker::Amd => "AMD",
                GpuMaker::Intel => "Intel",
            };
            let _ = write!(out, ", {} {maker} GPUs", self.topology.gpus.len());
        }
        out.push('\n');
        for group in cpus.chunk_by(|a, b| (a.package, a.numa) == (b.package, b.numa)) {
            let cores: RankSet = group.iter().map(|c| Rank(c.core)).collect();
            let os: CpuSet = group.iter().map(|c| c.os).collect();
            let (package, numa) = (group[0].package, group[0].numa);
            let _ = writeln!(out, "rmpirun:   package {package}, NUMA node {numa}: cores {cores}, CPUs {os}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, ranks: &[u32], cpus: Option<&str>) -> NodeView {
        let cpu = |i: u32| Cpu { os: i, core: i / 2, package: i / 4, numa: 0, cache: [i / 2, i / 2, i / 4] };
        NodeView {
            host: host.into(),
            slots: 2,
            ranks: ranks.iter().map(|&r| (Rank(r), cpus.and_then(CpuSet::parse_list))).collect(),
            daemon: 42,
            topology: Topology { cpus: (0..8).map(cpu).collect(), ..Topology::default() },
        }
    }

    #[test]
    fn shows_what_was_asked_for() {
        let plan = PlanView { nodes: vec![node("n1", &[0, 1], Some("0-2")), node("n2", &[2], None)] };
        assert_eq!(plan.render(Parts::default()), "");
        let shown = plan.render(Parts { allocation: true, map: true, ..Parts::default() });
        assert!(shown.contains("   ALLOCATED NODES   ") && shown.contains("n1: slots=2 ranks=2"), "{shown}");
        assert!(shown.contains("rmpirun: node n2 slots=2 ranks=2\n"), "{shown}");
        let fields =
            plan.render(Parts { allocation: true, bindings: true, parseable: true, ..Parts::default() });
        assert!(fields.contains("rmpirun: allocation host=n1 slots=2\n"), "{fields}");
        assert!(fields.contains("rmpirun: binding rank=0 host=n1 cpus=0-2\n"), "{fields}");
    }

    #[test]
    fn bindings_as_open_mpi_reports_them() {
        let plan = PlanView {
            nodes: vec![node("n1", &[0], Some("0-2")), node("n2", &[1], None), node("n3", &[2], Some("0-7"))],
        };
        assert_eq!(
            plan.render(Parts { bindings: true, ..Parts::default() }),
            "[n1:42] MCW rank 0 bound to socket 0[core 0[hwt 0-1]], socket 0[core 1[hwt 0]]: [BB/B.][../..]\n\
             [n2:42] MCW rank 1 is not bound (or bound to all available processors)\n\
             [n3:42] MCW rank 2 is not bound (or bound to all available processors)\n"
        );
    }

    #[test]
    fn topologies_are_counted() {
        let shown = PlanView { nodes: vec![node("n1", &[], None)] }
            .render(Parts { topology: true, ..Parts::default() });
        assert!(shown.starts_with("rmpirun: n1: 2 packages, 1 NUMA nodes, 2 L3 caches, 4 cores, 8 CPUs\n"));
        assert!(shown.contains("  package 1, NUMA node 0: cores 2-3, CPUs 4-7\n"), "{shown}");
    }
}
