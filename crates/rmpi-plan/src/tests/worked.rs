//! Which node each rank goes to.

use super::*;
use rmpi_types::spec::{RankfileCpus, RankfileEntry};
use rmpi_types::{NodeIdx, Rank, RankSet};

fn over(map_by: MapBy) -> Placement {
    Placement { oversubscribe: true, ..by(map_by) }
}

fn per_node(n: u32) -> Placement {
    Placement { per_node: Some(n), ..Placement::default() }
}

#[test]
fn three_nodes_of_two_slots() {
    for (np, placement, expected) in [
        (Some(4), by(MapBy::Slot), "1 1 2 2"),
        (None, by(MapBy::Slot), "1 1 2 2 3 3"),
        (Some(4), by(object(Object::Node)), "1 2 3 1"),
        (None, by(object(Object::Node)), "1 2 3 1 2 3"),
        (Some(5), ranked(object(Object::Node), RankBy::Slot), "1 1 2 2 3"),
        (Some(5), ranked(MapBy::Slot, RankBy::Node), "1 2 3 1 2"),
        (None, by(MapBy::Ppr(1, Object::Node)), "1 2 3"),
        (Some(2), by(MapBy::Ppr(1, Object::Node)), "1 2"),
        (Some(4), per_node(2), "1 1 2 2"),
        (None, per_node(1), "1 2 3"),
        (Some(7), over(MapBy::Slot), "1 1 1 2 2 3 3"),
        (Some(8), over(MapBy::Slot), "1 1 1 2 2 2 3 3"),
        (Some(7), over(object(Object::Node)), "1 2 3 1 2 3 1"),
        (Some(13), over(MapBy::Slot), "1 1 1 1 1 2 2 2 2 3 3 3 3"),
        (None, by(MapBy::Seq(vec![0, 1, 0, 0])), "1 2 1 1"),
        (Some(2), by(MapBy::Seq(vec![2, 1, 0])), "3 2"),
        (Some(3), Placement { max_nodes: Some(2), ..by(object(Object::Node)) }, "1 2 1"),
        (Some(4), by(object(Object::Core)), "1 1 2 2"),
        (Some(4), Placement { span: true, ..by(object(Object::Core)) }, "1 1 2 2"),
        (Some(3), Placement { span: true, ..by(object(Object::Package)) }, "1 2 3"),
    ] {
        let spec = job(hosts(&[2, 2, 2]), np, placement);
        let plan = on_two_cores(&spec).unwrap();
        assert_eq!(nodes(&plan), expected, "{np:?} {:?}", spec.placement);
        assert_eq!(plan.universe, 6.max(plan.ranks.len() as u32));
    }
}

#[test]
fn hydra_lists_keep_order_and_wrap() {
    let seq = |places: &[usize]| Placement { listed_order: true, ..by(MapBy::Seq(places.to_vec())) };
    let wrap = Placement { listed_order: true, ..Placement::default() };
    let ppn = Placement { per_node: Some(1), ..wrap.clone() };
    for (slots, np, placement, expected) in [
        (&[2, 1][..], 3, seq(&[0, 1, 0]), "1 2 1"),
        (&[2, 1, 1], 6, seq(&[0, 0, 1, 2]), "1 1 2 3 1 1"),
        (&[2, 1, 1], 4, wrap.clone(), "1 1 2 3"),
        (&[2, 1, 1], 6, wrap, "1 1 2 3 1 1"),
        (&[2, 1, 1], 3, ppn, "1 2 3"),
    ] {
        let spec = job(hosts(slots), Some(np), placement);
        assert_eq!(nodes(&on_two_cores(&spec).unwrap()), expected, "{:?}", spec.placement);
    }
}

#[test]
fn not_enough_slots_says_how_to_get_more() {
    let local = |slots, origin: &str| {
        vec![Host {
            name: "localhost".into(),
            slots: Slots::Count(slots),
            origin: origin.into(),
            ..Host::default()
        }]
    };
    let mut option = hosts(&[1, 1, 1]);
    option.iter_mut().for_each(|h| h.origin = "-H".into());
    for (hosts, np, expected) in [
        (
            local(1, "--host"),
            2,
            "2 ranks asked for, 1 slot given (localhost=1). Write --host localhost:2, or add --oversubscribe.",
        ),
        (vec![], 99, "99 ranks asked for, 2 slots given (localhost=2). Lower -np, or add --oversubscribe."),
        (
            hosts(&[2, 2, 2, 1]),
            9,
            "9 ranks asked for, 7 slots given (n[1-3]=2, n4=1). Give more slots in hosts (slots=N), or add --oversubscribe.",
        ),
        (
            option,
            5,
            "5 ranks asked for, 3 slots given (n[1-3]=1). Write -H n1:2,n2:2,n3:1, or add --oversubscribe.",
        ),
    ] {
        let spec = job(hosts, Some(np), Placement::default());
        assert_eq!(on_two_cores(&spec).unwrap_err().to_string(), expected);
        if !spec.hosts.is_empty() {
            assert_eq!(crate::hosts_needed(&spec, &[]).unwrap_err().to_string(), expected);
        }
    }
}

#[test]
fn patterns_and_limits_have_their_errors() {
    let mut limited = hosts(&[2, 2]);
    limited[0].max_slots = Some(2);
    limited[1].max_slots = Some(3);
    let error = |spec: JobSpec| on_two_cores(&spec).unwrap_err().to_string();
    let plan = on_two_cores(&job(limited.clone(), Some(5), over(MapBy::Slot))).unwrap();
    assert_eq!(nodes(&plan), "1 1 2 2 2");
    for (spec, expected) in [
        (
            job(hosts(&[2, 2, 2]), Some(5), by(MapBy::Ppr(1, Object::Node))),
            "5 ranks asked for, ppr:1:node gives 3 places on 3 nodes. Lower -np, or raise the number per node",
        ),
        (
            job(hosts(&[2, 2, 2]), Some(5), per_node(1)),
            "5 ranks asked for, -N 1 gives 3 places on 3 nodes. Lower -np, or raise the number per node",
        ),
        (
            job(hosts(&[2, 1, 1]), None, per_node(2)),
            "n[2-3]: -N 2 puts 2 ranks on 1 slot. Give more slots, or add --oversubscribe",
        ),
        (
            job(hosts(&[2]), Some(0), by(MapBy::Slot)),
            "0 ranks asked for; give -np 1 or more (was it an empty variable?)",
        ),
        (
            job(limited.clone(), Some(6), over(MapBy::Slot)),
            "n[1-2]: max_slots=2 is reached with ranks left over. Raise max_slots, lower -np, or add hosts",
        ),
        (
            job(limited.clone(), Some(6), over(object(Object::Node))),
            "n[1-2]: max_slots=2 is reached with ranks left over. Raise max_slots, lower -np, or add hosts",
        ),
        (
            job(limited, None, by(MapBy::Seq(vec![0, 0, 0]))),
            "n1: max_slots=2 is reached with ranks left over. Raise max_slots, lower -np, or add hosts",
        ),
        (
            job(hosts(&[2]), Some(3), by(MapBy::Seq(vec![0, 0]))),
            "3 ranks asked for, the host list has 2 lines left for --map-by seq. Lower -np, or add lines",
        ),
        (
            job(hosts(&[1]), Some(u32::MAX), over(MapBy::Slot)),
            "4294967295 ranks asked for; at most 4194304 can be started",
        ),
    ] {
        assert_eq!(error(spec), expected);
    }
}

#[test]
fn the_local_node_can_be_left_out() {
    let spec = job(hosts(&[2, 2]), Some(2), Placement { nolocal: true, ..Placement::default() });
    let mut facts = reached(&spec, &Topology::flat(2));
    facts[0].local = true;
    assert_eq!(nodes(&place(&spec, &facts).unwrap()), "2 2");
    let error = place(&spec, &facts[..1]).unwrap_err().to_string();
    assert_eq!(error, "no host left for ranks: --nolocal leaves out the only one");
}

#[test]
fn programs_follow_each_other() {
    let app = |np, hosts: Option<Vec<usize>>| App { np, hosts, ..App::default() };
    let run = |apps: Vec<App>, placement: Placement| {
        let spec = JobSpec { apps, ..job(hosts(&[2, 2]), None, placement) };
        let plan = on_two_cores(&spec).map_err(|e| e.to_string())?;
        let apps: Vec<u32> = plan.ranks.iter().map(|r| r.app).collect();
        let locals: Vec<u32> = plan.ranks.iter().map(|r| r.local_rank).collect();
        Ok::<_, String>((nodes(&plan), apps, locals))
    };
    let two = vec![app(Some(1), None), app(Some(2), None)];
    assert_eq!(run(two.clone(), by(MapBy::Slot)), Ok(("1 1 2".into(), vec![0, 1, 1], vec![0, 1, 0])));
    assert_eq!(run(two, by(object(Object::Node))), Ok(("1 2 1".into(), vec![0, 1, 1], vec![0, 0, 1])));
    let own = vec![app(Some(1), Some(vec![1])), app(Some(2), Some(vec![0]))];
    assert_eq!(run(own, by(MapBy::Slot)), Ok(("2 1 1".into(), vec![0, 1, 1], vec![0, 0, 1])));
    let rest = vec![app(Some(1), None), app(None, None)];
    assert_eq!(run(rest.clone(), by(MapBy::Slot)).unwrap().0, "1 1 2 2");
    assert_eq!(run(rest, over(MapBy::Slot)).unwrap().0, "1 1 1 2 2");
    let much = vec![app(Some(1), None), app(Some(3), Some(vec![0]))];
    let expected =
        "3 ranks asked for, 1 slot given (n1=1). Give more slots in hosts (slots=N), or add --oversubscribe.";
    assert_eq!(run(much, by(MapBy::Slot)), Err(expected.into()));
}

#[test]
fn two_names_of_one_node_are_one_node() {
    let spec = job(hosts(&[1, 2, 1]), None, Placement::default());
    let fact =
        |hosts: &[usize]| NodeFacts { hosts: hosts.to_vec(), local: false, topology: Topology::flat(4) };
    let plan = place(&spec, &[fact(&[1]), fact(&[0, 2])]).unwrap();
    assert_eq!(nodes(&plan), "2 2 1 1");
    assert_eq!(plan.nodes.iter().map(|n| (n.slots, n.ranks)).collect::<Vec<_>>(), [(2, 2), (2, 2)]);
    // Without counts the CPUs of the node are counted once.
    let mut auto = spec.clone();
    auto.hosts.iter_mut().for_each(|h| h.slots = Slots::Auto);
    assert_eq!(place(&auto, &[fact(&[0, 1, 2])]).unwrap().ranks.len(), 4);
}

#[test]
fn hosts_not_reached_count_but_are_not_used() {
    let spec = job(hosts(&[2, 2, 2]), Some(4), Placement::default());
    let facts = reached(&spec, &Topology::flat(2));
    let plan = place(&spec, &facts[..2]).unwrap();
    assert_eq!((nodes(&plan).as_str(), plan.universe), ("1 1 2 2", 6));
    let error = place(&spec, &facts[1..2]).unwrap_err().to_string();
    let expected = "4 ranks asked for, the hosts that were reached have 2 slots (n2=2); n[1,3] not reached";
    assert_eq!(error, expected);
}

#[test]
fn a_shortage_says_what_takes_the_slots() {
    let text = |spec: &JobSpec| on_two_cores(spec).unwrap_err().to_string();
    let wide = Placement { pe: Some(2), ..Placement::default() };
    assert_eq!(
        text(&job(hosts(&[2]), Some(2), wide)),
        "2 ranks asked for, 2 slots given (n1=2). Each rank takes 2 (PE=2): give more slots, or lower -np or PE."
    );
    let mut two = job(hosts(&[2]), None, Placement::default());
    two.apps.push(two.apps[0].clone());
    assert_eq!(
        text(&two),
        "1 rank asked for, 0 slots given (n1=0). The programs before it take all slots: give each its -np."
    );
}

#[test]
fn oversubscription_counts_cores_and_quota() {
    let spec = job(hosts(&[4, 4]), Some(6), Placement::default());
    let mut facts = reached(&spec, &Topology::flat(4));
    let flags = |facts: &[NodeFacts]| {
        place(&spec, facts).unwrap().nodes.iter().map(|n| n.oversubscribed).collect::<Vec<_>>()
    };
    assert_eq!(flags(&facts), [false, false]);
    facts[0].topology.quota_milli = Some(2500);
    facts[1].topology = Topology::flat(1);
    assert_eq!(flags(&facts), [true, true]);
}

#[test]
fn rank_files_place_and_bind() {
    let line =
        |rank, host, cpus| RankfileEntry { rank: Rank(rank), host, cpus, origin: format!("rf:{}", rank + 1) };
    let core = |n| Some(RankfileCpus::Cores(RankSet::range(n, n)));
    let spec = |lines: Vec<RankfileEntry>, np| job(hosts(&[2, 2, 2]), np, by(MapBy::Rankfile(lines)));
    let plan = on_two_cores(&spec(vec![line(0, 2, core(0)), line(1, 0, core(1))], None)).unwrap();
    assert_eq!((nodes(&plan).as_str(), cpus(&plan).as_str()), ("3 1", "0 1"));
    assert!(plan.bind_explicit);
    let error = on_two_cores(&spec(vec![line(0, 2, core(7))], None)).unwrap_err().to_string();
    assert_eq!(error, "rf:1: n3 has no usable core 7; usable cores: 0-1");
    let error = on_two_cores(&spec(vec![line(0, 2, None)], Some(2))).unwrap_err().to_string();
    assert_eq!(error, "the rank file has 1 ranks, 2 asked for; every rank needs one line");
    let sockets = spec(
        vec![
            line(0, 0, Some(RankfileCpus::Package(1, RankSet::range(0, 2)))),
            line(1, 0, Some(RankfileCpus::Package(0, RankSet::default()))),
        ],
        None,
    );
    let plan = place(&sockets, &reached(&sockets, &two_sockets(2))).unwrap();
    assert_eq!(cpus(&plan), "4-6,12-14 0-3,8-11");
    assert_eq!(plan.ranks[1].node, NodeIdx(0));
}
