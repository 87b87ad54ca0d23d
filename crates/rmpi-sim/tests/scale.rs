//! The sizes the design is for: a thousand daemons in a unit test, ten thousand behind a flag, and message
//! counts that grow with the number of nodes and not faster.

use rmpi_sim::{Act, Config, Fault, Report, Sim, Tree};
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

fn fences(r: Rank, _: u32) -> Vec<Act> {
    let put = if r.0.is_multiple_of(64) { Act::Put("addr") } else { Act::Hello };
    vec![put, Act::Fence, Act::Get(Rank(64), "addr"), Act::Finalize]
}

fn cluster(daemons: u32, tree: Tree) -> Config {
    Config { daemons, tree, ranks_per_node: 2, program: fences, ..Config::default() }
}

#[test]
fn a_thousand_daemons_in_a_star_run_a_fence() {
    let r = run(1, cluster(1000, Tree::Star));
    assert_eq!((&r.job().cause, r.started), (&Cause::Success, 2000));
    // Report, prepare, prepared, start, started, fence up and down (a piece each here), 2 x (output ends,
    // exit), ended, finish: 18 a node.
    assert!(r.counts.frames <= 20 * 1000, "{:?}", r.counts);
}

#[test]
fn a_thousand_daemons_behind_thirty_relays_run_a_fence() {
    let r = run(2, cluster(1000, Tree::DepthTwo { fanout: 32 }));
    assert_eq!((&r.job().cause, r.started), (&Cause::Success, 2000));
    assert!(r.counts.frames <= 40 * 1000, "every frame passes at most two links: {:?}", r.counts);
}

/// `cargo test --release -p rmpi-sim --test scale -- --ignored`
#[test]
#[ignore = "minutes, in an optimized build too"]
fn a_hundred_thousand_ranks_gather() {
    let program = |r: Rank, _| {
        let first = if r.0 == 0 { Act::Publish("svc") } else { Act::Hello };
        vec![first, Act::Gather, Act::Fence, Act::Lookup("svc"), Act::Finalize]
    };
    let shape = Tree::DepthTwo { fanout: 99 };
    let r = run(5, Config { daemons: 1000, ranks_per_node: 100, tree: shape, program, ..Config::default() });
    assert_eq!((&r.job().cause, r.started), (&Cause::Success, 100_000));
}

#[test]
fn a_thousand_daemons_lose_nodes_and_end() {
    let program = |_, _| vec![Act::Print(100), Act::Hang];
    let last = NodeIdx(999);
    let faults = vec![
        (ms(1000), Fault::Cut(last)),
        (ms(7500), Fault::Kill(NodeIdx(500))),
        (ms(2000), Fault::Stall(NodeIdx(20), ms(3000))),
    ];
    let r = run(4, Config { program, faults, ..cluster(1000, Tree::DepthTwo { fanout: 32 }) });
    let Cause::NodeLost { node, .. } = &r.job().cause else { panic!("{:?}", r.job().cause) };
    assert_eq!(*node, last);
    assert!(r.done_at < Some(ms(9000)), "{:?}", r.done_at);
}

#[test]
fn messages_of_a_fence_grow_with_the_nodes_only() {
    let frames = |daemons: u32, fences: bool| {
        let with: fn(Rank, u32) -> Vec<Act> =
            |_, _| [vec![Act::Hello], vec![Act::Fence; 10], vec![Act::Finalize]].concat();
        let without: fn(Rank, u32) -> Vec<Act> = |_, _| vec![Act::Hello, Act::Finalize];
        let program = if fences { with } else { without };
        run(5, Config { program, ..cluster(daemons, Tree::Star) }).counts.frames
    };
    for daemons in [10, 40, 160] {
        let per_fence = (frames(daemons, true) - frames(daemons, false)) / 10;
        assert_eq!(per_fence, u64::from(2 * daemons), "one up and one down a node");
    }
}

#[test]
fn ten_thousand_daemons() {
    if std::env::var_os("RMPI_LONG").is_none() {
        return say("skipped: 10,000 daemons need RMPI_LONG=1 (and --release)");
    }
    for tree in [Tree::Star, Tree::DepthTwo { fanout: 64 }] {
        let r = run(6, cluster(10_000, tree));
        assert_eq!((&r.job().cause, r.started), (&Cause::Success, 20_000));
        let faults = vec![(ms(1000), Fault::PowerOff(NodeIdx(9_999)))];
        let r = run(7, Config { program: |_, _| vec![Act::Hang], faults, ..cluster(10_000, tree) });
        assert!(matches!(r.job().cause, Cause::NodeLost { node: NodeIdx(9_999), .. }));
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn say(text: &str) {
    eprintln!("{text}");
}
