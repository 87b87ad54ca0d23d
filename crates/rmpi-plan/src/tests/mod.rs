//! Plans: the worked examples of the command-line contract as tables, and properties of every plan.

mod binding;
mod needed;
mod props;
mod worked;

use crate::{NodeFacts, Plan, PlanError, place};
use rmpi_types::spec::{App, BindTo, Host, JobSpec, MapBy, Object, Placement, RankBy, Slots};
use rmpi_types::{Topology, cpus::Cpu};

/// `n1 … nK` with `slots` each, from a file.
pub(super) fn hosts(slots: &[u32]) -> Vec<Host> {
    let host = |(i, &n): (usize, &u32)| Host {
        name: format!("n{}", i + 1),
        slots: Slots::Count(n),
        origin: format!("hosts:{}", i + 1),
        ..Host::default()
    };
    slots.iter().enumerate().map(host).collect()
}

/// One program of `np` ranks.
pub(super) fn job(hosts: Vec<Host>, np: Option<u32>, placement: Placement) -> JobSpec {
    JobSpec { apps: vec![App { np, ..App::default() }], hosts, placement, ..JobSpec::default() }
}

/// One node a host, all alike.
pub(super) fn reached(spec: &JobSpec, topology: &Topology) -> Vec<NodeFacts> {
    let fact = |h| NodeFacts { hosts: vec![h], local: false, topology: topology.clone() };
    (0..spec.hosts.len().max(1)).map(fact).collect()
}

/// Two packages (NUMA nodes) of four cores of `threads` hardware threads; thread t of core c is CPU c + 8t.
pub(super) fn two_sockets(threads: u32) -> Topology {
    let cpu =
        |c: u32, t: u32| Cpu { os: c + 8 * t, core: c, package: c / 4, numa: c / 4, cache: [c, c, c / 4] };
    Topology {
        cpus: (0..8).flat_map(|c| (0..threads).map(move |t| cpu(c, t))).collect(),
        ..Topology::default()
    }
}

/// Nodes of the ranks, from 1: `1 1 2`.
pub(super) fn nodes(plan: &Plan) -> String {
    plan.ranks.iter().map(|r| (r.node.0 + 1).to_string()).collect::<Vec<_>>().join(" ")
}

/// CPUs of the ranks: `0-3 4-7`, `-` for unbound.
pub(super) fn cpus(plan: &Plan) -> String {
    let one = |r: &crate::PlacedRank| r.cpus.as_ref().map_or("-".to_owned(), ToString::to_string);
    plan.ranks.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Places on two-core nodes.
pub(super) fn on_two_cores(spec: &JobSpec) -> Result<Plan, PlanError> {
    place(spec, &reached(spec, &Topology::flat(2)))
}

pub(super) fn by(map_by: MapBy) -> Placement {
    Placement { map_by, ..Placement::default() }
}

pub(super) fn object(kind: Object) -> MapBy {
    MapBy::Object(kind)
}

pub(super) fn bound(map_by: MapBy, kind: Object) -> Placement {
    Placement { map_by, bind_to: BindTo::Object(kind), ..Placement::default() }
}

pub(super) fn ranked(map_by: MapBy, rank_by: RankBy) -> Placement {
    Placement { map_by, rank_by: Some(rank_by), ..Placement::default() }
}
