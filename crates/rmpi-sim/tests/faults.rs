//! Nodes that die, cables that are pulled, streams that break and stall, by script and by chance.

use rmpi_sim::{Act, Config, Fault, LOST_CODE, Report, Rng, Sim, Tree};
use rmpi_types::outcome::Cause;
use rmpi_types::{NodeIdx, Rank};
use std::time::Duration;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn run(seed: u64, cfg: Config) -> Report {
    let report = Sim::new(seed, cfg).run();
    report.check();
    report
}

fn hang(_: Rank, _: u32) -> Vec<Act> {
    vec![Act::Print(1000), Act::Hang]
}

#[test]
fn a_lost_node_is_named_within_ten_seconds() {
    for (fault, by) in [
        (Fault::Kill(NodeIdx(2)), ms(600)),
        (Fault::PowerOff(NodeIdx(2)), ms(7700)),
        (Fault::Cut(NodeIdx(2)), ms(7700)),
    ] {
        for seed in 0..10 {
            let faults = vec![(ms(500), fault.clone())];
            let r = run(seed, Config { program: hang, faults, ..Config::default() });
            let Cause::NodeLost { node, ranks, .. } = &r.job().cause else { panic!("{:?}", r.job()) };
            assert_eq!((node.0, ranks.to_string(), r.job().code()), (2, "4-5".to_owned(), 254));
            assert_eq!(r.job().unknown, [Rank(4), Rank(5)]);
            assert!(r.done_at < Some(by), "{fault:?}: {:?}", r.done_at);
        }
    }
}

#[test]
fn a_lost_relay_takes_its_children_with_it() {
    for fault in [Fault::Kill(NodeIdx(0)), Fault::PowerOff(NodeIdx(0)), Fault::Cut(NodeIdx(0))] {
        let faults = vec![(ms(500), fault)];
        let tree = Tree::DepthTwo { fanout: 3 };
        let r = run(3, Config { daemons: 8, tree, program: hang, faults, ..Config::default() });
        assert!(matches!(r.job().cause, Cause::NodeLost { node: NodeIdx(0), .. }), "{:?}", r.job());
        assert_eq!(r.lost.len(), 4);
    }
}

#[test]
fn a_killed_launcher_leaves_nothing_behind() {
    let stubborn = |_, _| vec![Act::IgnoreTerm, Act::Hang];
    for tree in [Tree::Star, Tree::DepthTwo { fanout: 3 }] {
        for at in [20, 60, 100, 500] {
            let faults = vec![(ms(at), Fault::KillLauncher)];
            let r = run(at, Config { daemons: 8, tree, program: stubborn, faults, ..Config::default() });
            assert!(r.quiet_at < ms(at) + ms(10_000), "{:?}", r.quiet_at);
        }
    }
}

#[test]
fn a_short_stall_harms_nobody_and_a_dialled_stream_is_resumed() {
    let program = |_, _| {
        vec![Act::Print(90_000), Act::Sleep(ms(300)), Act::Print(90_000), Act::Fence, Act::Sleep(ms(4000))]
    };
    let tree = Tree::DepthTwo { fanout: 3 };
    for seed in 0..20 {
        let faults = vec![
            (ms(200), Fault::Stall(NodeIdx(1), ms(4000))),
            (ms(150), Fault::Break(NodeIdx(4))),
            (ms(400), Fault::Break(NodeIdx(5))),
            (ms(900), Fault::Break(NodeIdx(5))),
        ];
        let r = run(seed, Config { daemons: 8, tree, program, faults, ..Config::default() });
        assert_eq!(r.job().cause, Cause::Success, "seed {seed}: {:?}", r.job());
    }
}

#[test]
fn a_launcher_that_stops_itself_is_not_lost() {
    // It sleeps for 20 s (`Sim` does that when asked to), three times the limit of silence.
    let program = |_, _| vec![Act::Sleep(ms(25_000)), Act::Print(10)];
    for tree in [Tree::Star, Tree::DepthTwo { fanout: 3 }] {
        let faults = vec![(ms(500), Fault::Signal(20))];
        let r = run(1, Config { daemons: 8, tree, program, faults, ..Config::default() });
        assert_eq!(r.job().cause, Cause::Success);
        assert!(r.done_at > Some(ms(25_000)));
    }
}

#[test]
fn a_broken_pipe_stream_is_a_lost_node() {
    let faults = vec![(ms(500), Fault::Break(NodeIdx(1)))];
    let r = run(1, Config { program: hang, faults, ..Config::default() });
    assert!(
        matches!(&r.job().cause, Cause::NodeLost { node: NodeIdx(1), what, .. } if what == "control stream closed")
    );
}

#[test]
fn those_who_wait_for_a_lost_node_are_told() {
    // Rank 5 never puts its key: node 2 is powered off; the rest runs on and must not wait for ever.
    let program = |r: Rank, _| match r.0 {
        4 | 5 => vec![Act::Hello, Act::Hang],
        0 => vec![Act::Hello, Act::Get(Rank(5), "k"), Act::Finalize],
        _ => vec![Act::Hello, Act::Fence, Act::Finalize],
    };
    let faults = vec![(ms(500), Fault::PowerOff(NodeIdx(2)))];
    let on_failure = rmpi_types::spec::OnFailure::Continue;
    let r = run(7, Config { program, faults, on_failure, ..Config::default() });
    assert!(matches!(r.job().cause, Cause::NodeLost { node: NodeIdx(2), .. }));
    assert_eq!(r.job().also.len(), 6);
    assert!(r.job().also.iter().all(|e| e.code() == LOST_CODE));
}

fn busy(r: Rank, size: u32) -> Vec<Act> {
    let next = Rank((r.0 + 1) % size);
    let pause = |k: u32| Act::Sleep(ms(u64::from((r.0 * 7919 + k * 104_729) % 700)));
    vec![
        Act::Hello,
        Act::Print(5000),
        Act::Put("a"),
        pause(1),
        Act::Get(next, "a"),
        Act::Fence,
        Act::Print(70_000),
        pause(2),
        Act::Fence,
        pause(3),
        Act::Print(300),
        Act::Finalize,
    ]
}

/// Faults by chance; the promises of `Report::check` hold whatever comes, and the cause is one that was made.
fn chaos(seed: u64, daemons: u32) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let tree =
        if rng.below(2) == 0 { Tree::Star } else { Tree::DepthTwo { fanout: 1 + rng.below(8) as u32 } };
    let mut faults = Vec::new();
    for _ in 0..rng.below(4) {
        let node = NodeIdx(rng.below(u64::from(daemons)) as u32);
        let at = ms(rng.below(2500));
        faults.push((
            at,
            match rng.below(8) {
                0 => Fault::Kill(node),
                1 => Fault::PowerOff(node),
                2 => Fault::Cut(node),
                3 | 4 => Fault::Break(node),
                5 | 6 => Fault::Stall(node, ms(rng.below(5000))),
                _ => Fault::Signal([2, 15, 1, 10][rng.below(4) as usize]),
            },
        ));
    }
    let harmless = |f: &Fault| matches!(f, Fault::Stall(..) | Fault::Signal(10));
    let cfg = Config { daemons, tree, faults: faults.clone(), program: busy, ..Config::default() };
    let broken_dialled = |f: &Fault| matches!(f, Fault::Break(n) if cfg.parent(*n).is_some());
    let calm = faults.iter().all(|(_, f)| harmless(f) || broken_dialled(f));
    let r = run(seed, cfg.clone());
    let cause = &r.job().cause;
    if calm {
        assert_eq!(*cause, Cause::Success, "seed {seed}: {faults:?}");
        return;
    }
    match cause {
        Cause::Success | Cause::Signal(_) => {}
        Cause::NodeLost { node, .. } => {
            let hit = |f: &Fault| match f {
                Fault::Kill(n) | Fault::PowerOff(n) | Fault::Cut(n) | Fault::Break(n) => {
                    n == node || cfg.parent(*node) == Some(*n)
                }
                _ => false,
            };
            assert!(faults.iter().any(|(_, f)| hit(f)), "seed {seed}: {node} of {faults:?}");
        }
        Cause::Rank(exit) => {
            assert_eq!(exit.code(), LOST_CODE, "seed {seed}: only lost peers fail here");
        }
        Cause::Launch(failed) => {
            assert!(!failed.is_empty() && r.started < cfg.size() as usize, "seed {seed}")
        }
        other => panic!("seed {seed}: {other:?}"),
    }
    // A node that died before its daemon spoke is only missed at the launch limit.
    let limit = if matches!(cause, Cause::Launch(_)) { 70 } else { 40 };
    assert!(r.done_at < Some(Duration::from_secs(limit)), "seed {seed}: {:?}", r.done_at);
}

#[test]
fn chaos_on_small_clusters() {
    (0..200).for_each(|seed| chaos(seed, 2 + (seed % 11) as u32));
}

#[test]
fn chaos_on_many_seeds() {
    if std::env::var_os("RMPI_LONG").is_none() {
        return say("skipped: 20,000 seeds need RMPI_LONG=1");
    }
    (1000..21_000).for_each(|seed| chaos(seed, 2 + (seed % 40) as u32));
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn say(text: &str) {
    eprintln!("{text}");
}
