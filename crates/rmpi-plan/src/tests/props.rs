//! What holds for every plan, and the cost of a large one.

use super::*;
use crate::hosts_needed;
use proptest::prelude::*;
use rmpi_types::{CpuSet, NodeIdx};

fn placements() -> impl Strategy<Value = Placement> {
    let kinds = prop::sample::select(vec![
        Object::Hwthread,
        Object::Core,
        Object::L2,
        Object::L3,
        Object::Numa,
        Object::Package,
        Object::Node,
    ]);
    let map_by = prop_oneof![
        Just(MapBy::Slot),
        kinds.clone().prop_map(MapBy::Object),
        (1u32..4, kinds.clone()).prop_map(|(n, k)| MapBy::Ppr(n, k)),
        prop::collection::vec(0usize..4, 1..8).prop_map(MapBy::Seq),
    ];
    let rank_by = prop::option::of(prop_oneof![
        Just(RankBy::Slot),
        Just(RankBy::Node),
        Just(RankBy::Span),
        kinds.clone().prop_map(RankBy::Object),
    ]);
    let bind_to = prop_oneof![
        3 => Just(BindTo::Share), 1 => Just(BindTo::OpenMpi), 1 => Just(BindTo::None), 2 => kinds.prop_map(BindTo::Object),
    ];
    let small = || prop::option::weighted(0.2, 1u32..4);
    let flags = prop::array::uniform6(prop::bool::weighted(0.3));
    (map_by, rank_by, bind_to, small(), small(), small(), flags).prop_map(
        |(
            map_by,
            rank_by,
            bind_to,
            pe,
            per_node,
            max_nodes,
            [span, oversubscribe, overload, use_hwthreads, listed_order, _],
        )| Placement {
            map_by,
            rank_by,
            bind_to,
            pe,
            per_node,
            max_nodes,
            span,
            oversubscribe,
            overload,
            use_hwthreads,
            listed_order,
            ..Placement::default()
        },
    )
}

fn pools() -> impl Strategy<Value = Vec<Host>> {
    let one = (prop::option::of(0u32..6), prop::option::weighted(0.2, 1u32..8));
    prop::collection::vec(one, 4..7).prop_map(|list| {
        let mut out = hosts(&vec![0; list.len()]);
        for (host, (slots, max)) in out.iter_mut().zip(list) {
            host.max_slots = max;
            host.slots = slots.map_or(Slots::Auto, |n| Slots::Count(n.min(max.unwrap_or(u32::MAX))));
        }
        out
    })
}

proptest! {
    #[test]
    fn every_plan_is_sound(
        hosts in pools(), np in prop::option::of(1u32..20), second in prop::option::weighted(0.2, 1u32..4),
        placement in placements(), threads in 1u32..3, lost in 0usize..8,
    ) {
        let mut spec = job(hosts, np, placement);
        spec.apps.extend(second.map(|np| App { np: Some(np), hosts: Some(vec![3, 1]), ..App::default() }));
        let mut topology = two_sockets(threads);
        topology.cpus.truncate(topology.cpus.len() - lost);
        let facts = reached(&spec, &topology);
        let all: CpuSet = topology.cpus.iter().map(|c| c.os).collect();
        let Ok(plan) = place(&spec, &facts) else { return Ok(()) };
        if let Some(np) = np {
            prop_assert_eq!(plan.ranks.iter().filter(|r| r.app == 0).count(), np as usize);
        }
        let strict = !spec.placement.oversubscribe && !spec.placement.listed_order
            && !matches!(spec.placement.map_by, MapBy::Seq(_));
        for (n, node) in plan.nodes.iter().enumerate() {
            let here: Vec<_> = plan.ranks.iter().filter(|r| r.node == NodeIdx(n as u32)).collect();
            prop_assert_eq!(here.len(), node.ranks as usize);
            prop_assert!(here.iter().zip(0u32..).all(|(r, i)| r.local_rank == i));
            prop_assert!(!strict || node.ranks <= node.slots);
            prop_assert!(spec.hosts[n].max_slots.is_none_or(|m| node.ranks <= m));
            let bound: Vec<&CpuSet> = here.iter().filter_map(|r| r.cpus.as_ref()).collect();
            prop_assert!(bound.iter().all(|s| !s.is_empty() && s.iter().all(|c| all.contains(c))));
            if spec.placement.bind_to == BindTo::Share && !spec.placement.overload {
                let total: usize = bound.iter().map(|s| s.len()).sum();
                let union: CpuSet = bound.iter().flat_map(|s| s.iter()).collect();
                prop_assert_eq!(total, union.len(), "shares overlap: {:?}", bound);
            }
        }
        prop_assert!(plan.ranks.iter().zip(0u32..).all(|(r, i)| r.rank.0 == i));
        prop_assert!(plan.ranks.is_sorted_by_key(|r| r.app));
    }

    #[test]
    fn the_needed_hosts_are_enough(
        hosts in pools(), np in prop::option::of(1u32..20), placement in placements(),
        second in prop::option::weighted(0.2, 1u32..4),
    ) {
        let mut spec = job(hosts, np, placement);
        spec.apps.extend(second.map(|np| App { np: Some(np), hosts: Some(vec![3, 1]), ..App::default() }));
        // One core: every host has what is known of it without topology.
        for cores in [1, 8] {
            let facts = reached(&spec, &Topology::flat(cores));
            let all = place(&spec, &facts);
            let needed = match hosts_needed(&spec, &[]) {
                Ok(needed) => needed,
                Err(early) => {
                    prop_assert!(all.is_err(), "refused early: {early}");
                    continue;
                }
            };
            let some: Vec<NodeFacts> = needed.iter().map(|&h| facts[h].clone()).collect();
            if let Ok(all) = all {
                let some = place(&spec, &some);
                prop_assert!(some.is_ok(), "{some:?}");
                let ranks = |p: &Plan, host: &dyn Fn(u32) -> usize| p.ranks.iter().map(|r| (host(r.node.0), r.cpus.clone())).collect::<Vec<_>>();
                prop_assert_eq!(ranks(&some.unwrap(), &|n| needed[n as usize]), ranks(&all, &|n| n as usize));
            }
        }
    }
}

/// Ten thousand hosts; the time is printed, not judged (the target is well under 100 ms in release).
#[test]
fn large_jobs_are_placed() {
    let spec = job(hosts(&[8; 10_000]), None, Placement::default());
    let facts = reached(&spec, &two_sockets(2));
    for placement in [
        Placement::default(),
        by(object(Object::Node)),
        Placement { span: true, ..by(object(Object::Package)) },
        by(MapBy::Ppr(4, Object::Package)),
    ] {
        let spec = JobSpec { placement, ..spec.clone() };
        let start = std::time::Instant::now();
        let plan = place(&spec, &facts).unwrap();
        assert_eq!(plan.ranks.len(), 80_000);
        println!("{:?}: {:?}", spec.placement.map_by, start.elapsed());
    }
}
