//! Which CPUs each rank gets.

use super::*;
use crate::hosts_needed;
use rmpi_types::CpuSet;
use rmpi_types::Rank;
use rmpi_types::cpus::{Gpu, GpuMaker};
use rmpi_types::spec::{CpuList, RankfileCpus, RankfileEntry};

fn one(slots: u32, np: u32, placement: Placement, topology: &Topology) -> Result<String, String> {
    let spec = job(hosts(&[slots]), Some(np), placement);
    place(&spec, &reached(&spec, topology)).map(|p| cpus(&p)).map_err(|e| e.to_string())
}

#[test]
fn two_sockets_of_four_cores() {
    let pe = |map_by, n| Placement { pe: Some(n), ..bound(map_by, Object::Core) };
    let package = || object(Object::Package);
    let listed =
        Placement { cpu_set: CpuSet::parse_list("0,2,4,6"), ..bound(object(Object::Core), Object::Core) };
    let default = |bind_to| Placement { bind_to, ..Placement::default() };
    for (np, placement, expected) in [
        (4, bound(object(Object::Core), Object::Core), "0 1 2 3"),
        (4, bound(package(), Object::Core), "0 4 1 5"),
        (
            4,
            Placement { rank_by: Some(RankBy::Slot), ..bound(package(), Object::Package) },
            "0-3 0-3 4-7 4-7",
        ),
        (4, Placement { rank_by: Some(RankBy::Fill), ..bound(package(), Object::Core) }, "0 1 4 5"),
        (4, bound(MapBy::Ppr(2, Object::Package), Object::Package), "0-3 0-3 4-7 4-7"),
        (2, pe(MapBy::Slot, 4), "0-3 4-7"),
        (2, pe(MapBy::Ppr(1, Object::Package), 4), "0-3 4-7"),
        (4, listed, "0 2 4 6"),
        (1, Placement::default(), "0-7"),
        (2, Placement::default(), "0-3 4-7"),
        (3, Placement::default(), "0-2 3-5 6-7"),
        (8, Placement::default(), "0 1 2 3 4 5 6 7"),
        (3, by(package()), "0-1 4-7 2-3"),
        (2, default(BindTo::None), "- -"),
        (2, default(BindTo::OpenMpi), "0 1"),
        (3, default(BindTo::OpenMpi), "0-3 4-7 0-3"),
        (2, bound(MapBy::Slot, Object::Node), "0-7 0-7"),
        (4, ranked(object(Object::Core), RankBy::Object(Object::Package)), "0 1 2 3"),
    ] {
        assert_eq!(
            one(8, np, placement.clone(), &two_sockets(1)).as_deref(),
            Ok(expected),
            "{np} {placement:?}"
        );
    }
    let spanning = ranked(object(Object::Core), RankBy::Object(Object::Package));
    assert_eq!(one(8, 8, spanning, &two_sockets(1)).as_deref(), Ok("0 4 1 5 2 6 3 7"));
}

#[test]
fn span_treats_all_objects_as_one() {
    let spec = job(
        hosts(&[8, 8]),
        Some(4),
        Placement { span: true, ..bound(object(Object::Package), Object::Package) },
    );
    let plan = place(&spec, &reached(&spec, &two_sockets(1))).unwrap();
    assert_eq!((nodes(&plan).as_str(), cpus(&plan).as_str()), ("1 1 2 2", "0-3 4-7 0-3 4-7"));
    let spec = job(hosts(&[8, 8]), Some(4), by(object(Object::Package)));
    assert_eq!(nodes(&place(&spec, &reached(&spec, &two_sockets(1))).unwrap()), "1 1 1 1");
}

#[test]
fn hardware_threads_go_with_their_core_or_count_alone() {
    let t = two_sockets(2);
    let threads = |p: Placement| Placement { use_hwthreads: true, ..p };
    assert_eq!(one(8, 2, Placement::default(), &t).as_deref(), Ok("0-3,8-11 4-7,12-15"));
    assert_eq!(one(8, 2, bound(MapBy::Slot, Object::Core), &t).as_deref(), Ok("0,8 1,9"));
    assert_eq!(one(16, 3, threads(bound(MapBy::Slot, Object::Hwthread)), &t).as_deref(), Ok("0 8 1"));
    assert_eq!(one(16, 2, bound(object(Object::Hwthread), Object::Hwthread), &t).as_deref(), Ok("0 8"));
    let spec = job(vec![], None, threads(Placement::default()));
    assert_eq!(place(&spec, &reached(&spec, &t)).unwrap().ranks.len(), 16);
}

#[test]
fn defaults_never_fail_and_explicit_binding_is_kept_or_refused() {
    let flat = Topology::flat(2);
    assert_eq!(one(3, 3, Placement::default(), &flat).as_deref(), Ok("- - -"));
    let refused = one(3, 3, bound(MapBy::Slot, Object::Core), &flat).unwrap_err();
    let expected = "n1: 3 ranks to bind to 2 cores (--bind-to core). Start fewer ranks there, or add --bind-to core:overload-allowed";
    assert_eq!(refused, expected);
    let overload = Placement { overload: true, ..bound(MapBy::Slot, Object::Core) };
    assert_eq!(one(3, 3, overload, &flat).as_deref(), Ok("0 1 0"));
    let pe = Placement { pe: Some(2), ..by(MapBy::Ppr(2, Object::Node)) };
    let refused = one(2, 2, pe, &flat).unwrap_err();
    assert!(refused.starts_with("n1: 2 ranks to bind to 2 cores (PE=2). "), "{refused}");
    let none = Topology::default();
    assert_eq!(one(2, 2, Placement::default(), &none).as_deref(), Ok("- -"));
    assert_eq!(
        one(1, 1, bound(MapBy::Slot, Object::Core), &none).unwrap_err(),
        "n1: no usable CPU is known there to bind to"
    );
    let outside = Placement { cpu_set: CpuSet::parse_list("5"), ..Placement::default() };
    assert_eq!(one(1, 1, outside, &flat).unwrap_err(), "n1: no usable CPU of --cpu-set 5; usable there: 0-1");
}

#[test]
fn equal_failures_of_many_nodes_are_one_message() {
    let spec = job(hosts(&[3, 3, 3]), None, bound(MapBy::Slot, Object::Core));
    let error = on_two_cores(&spec).unwrap_err().to_string();
    assert!(error.starts_with("n[1-3]: 3 ranks to bind to 2 cores"), "{error}");
}

#[test]
fn elements_per_rank_take_slots() {
    let spec = job(hosts(&[8, 8]), Some(3), Placement { pe: Some(4), ..Placement::default() });
    let plan = place(&spec, &reached(&spec, &two_sockets(1))).unwrap();
    assert_eq!((nodes(&plan).as_str(), cpus(&plan).as_str()), ("1 1 2", "0-3 4-7 0-3"));
}

#[test]
fn a_host_may_have_its_own_binding() {
    let mut spec = job(hosts(&[1, 1]), None, Placement::default());
    spec.hosts[1].bind_to = Some(BindTo::Object(Object::Core));
    assert_eq!(cpus(&on_two_cores(&spec).unwrap()), "0-1 0");
}

/// Lists of CPUs, Hydra's order and counts, GPUs: two packages of four cores each.
#[test]
fn lists_orders_and_devices() {
    let sets = |texts: &[&str]| texts.iter().filter_map(|t| CpuSet::parse_list(t)).collect();
    let list = |texts: &[&str], os, ordered, overload| Placement {
        bind_to: BindTo::List(CpuList { entries: sets(texts), os, ordered }),
        overload,
        ..Placement::default()
    };
    let hydra = |kind, order, count| Placement {
        bind_to: BindTo::Object(kind),
        bind_order: Some(order),
        bind_count: count,
        overload: true,
        ..Placement::default()
    };
    let gpu = Placement { bind_to: BindTo::Gpu, ..Placement::default() };
    let line = |rank, os: &str| RankfileEntry {
        rank: Rank(rank),
        host: 0,
        cpus: Some(RankfileCpus::Os(CpuSet::parse_list(os).unwrap())),
        origin: "f:1".into(),
    };
    let lines = |second| by(MapBy::Rankfile(vec![line(0, "2,5"), line(1, second)]));
    let mut topology = two_sockets(1);
    let device = |numa| Gpu { maker: GpuMaker::Nvidia, numa, parts: 1 };
    topology.gpus = vec![device(Some(1)), device(Some(0)), device(None)];
    for (np, placement, expected) in [
        (4, list(&["0", "2", "4", "6"], false, true, false), "0 2 4 6"),
        (2, list(&["0", "2", "4"], false, false, false), "0,2,4 0,2,4"),
        (3, list(&["0", "1-2"], true, true, true), "0 1-2 0"),
        (4, hydra(Object::Core, Object::Package, None), "0 4 1 5"),
        (3, hydra(Object::Package, Object::Node, Some(2)), "0-7 0-7 0-7"),
        (3, hydra(Object::Core, Object::Node, Some(3)), "0-2 3-5 0,6-7"),
        (4, gpu, "4-7 0-3 - 4-7"),
        (2, lines("0"), "2,5 0"),
    ] {
        assert_eq!(one(8, np, placement.clone(), &topology), Ok(expected.to_owned()), "{placement:?}");
    }
    let short = one(8, 3, list(&["0", "1"], false, true, false), &topology).unwrap_err();
    assert!(short.contains("3 ranks to bind to 2 cores (a list of CPUs)"), "{short}");
    assert!(one(8, 2, lines("99"), &topology).is_err_and(|e| e.contains("CPU 99")));
    assert!(one(8, 1, list(&["99"], true, true, false), &topology).is_err());
    let by_gpu = Placement { slots_by_gpu: true, ..Placement::default() };
    let mut spec = job(hosts(&[1]), None, by_gpu);
    spec.hosts[0].slots = Slots::Auto;
    assert_eq!(place(&spec, &reached(&spec, &topology)).map(|p| p.ranks.len()).unwrap(), 3);
}

#[test]
fn patterns_that_cannot_give_enough_are_known_before_any_host_is_reached() {
    let spec = job(hosts(&[2, 2, 2]), Some(5), by(MapBy::Ppr(1, Object::Node)));
    assert!(hosts_needed(&spec, &[]).unwrap_err().to_string().contains("ppr:1:node"));
    let wraps = Placement { per_node: Some(1), listed_order: true, ..Placement::default() };
    let spec = job(hosts(&[2, 2, 2]), Some(5), wraps);
    assert_eq!(hosts_needed(&spec, &[]).unwrap(), [0, 1, 2]);
    assert_eq!(nodes(&on_two_cores(&spec).unwrap()), "1 2 3 1 2");
}
