//! Jobs on small simulated clusters: how they end, what is said, what is delivered. Every run is checked for
//! lost output, ranks left behind and daemons that stay (`Report::check`).

use rmpi_sim::{Act, Config, Fault, LOST_CODE, Report, Sim, Tree};
use rmpi_types::outcome::Cause;
use rmpi_types::spec::{Limits, OnFailure, Stdin};
use rmpi_types::{NodeIdx, Rank, Stage};
use std::time::Duration;

const SEEDS: u64 = 10;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn each(cfg: &Config, test: impl Fn(&Report)) {
    for tree in [Tree::Star, Tree::DepthTwo { fanout: 3 }] {
        for seed in 0..SEEDS {
            let report = Sim::new(seed, Config { tree, ..cfg.clone() }).run();
            report.check();
            test(&report);
        }
    }
}

#[test]
fn all_ranks_exit_with_0() {
    let program = |_, _| vec![Act::Print(100), Act::Sleep(ms(10)), Act::Print(200_000)];
    each(&Config { daemons: 8, program, ..Config::default() }, |r| {
        assert_eq!(r.job().cause, Cause::Success, "seed {}", r.seed);
        assert_eq!(r.output, [200_100; 16]);
        assert_eq!(r.started, 16);
        assert!(r.job().stopped.is_empty() && r.job().unknown.is_empty());
    });
}

#[test]
fn a_slow_reader_stops_the_ranks_and_loses_nothing() {
    let program = |_, _| vec![Act::Print(60_000); 20];
    let cfg = Config { daemons: 2, program, write: ms(50), credit: 0, ..Config::default() };
    each(&cfg, |r| {
        assert_eq!(r.job().cause, Cause::Success);
        assert_eq!(r.output, [1_200_000; 4]);
    });
}

#[test]
fn the_first_failure_in_time_is_the_cause_and_the_rest_is_stopped() {
    // Clocks differ by up to ten seconds; ends of more than the largest delay apart are told apart.
    let program = |r: Rank, _| match r.0 {
        3 => vec![Act::Sleep(ms(100)), Act::Exit(11)],
        6 => vec![Act::Sleep(ms(80)), Act::Crash(11)],
        _ => vec![Act::Print(500), Act::Hang],
    };
    each(&Config { program, ..Config::default() }, |r| {
        assert_eq!(r.cause_rank(), Some(Rank(6)), "seed {}: {:?}", r.seed, r.job());
        assert_eq!(r.job().code(), 139);
        let stopped: u32 = r.job().stopped.iter().map(|s| s.1).sum();
        assert_eq!(stopped as usize + r.job().also.len(), 7);
        assert!(r.done_at < Some(ms(1000)), "nobody ignored SIGTERM");
    });
}

#[test]
fn ranks_that_ignore_sigterm_are_killed_after_the_grace() {
    let program = |r: Rank, _| match r.0 {
        0 => vec![Act::Exit(3)],
        _ => vec![Act::IgnoreTerm, Act::Hang],
    };
    each(&Config { program, ..Config::default() }, |r| {
        assert_eq!((r.job().code(), r.job().stopped.clone()), (3, vec![(9, 7)]));
        assert!(r.done_at.is_some_and(|t| t > ms(5000) && t < ms(6000)));
    });
}

#[test]
fn with_continue_the_others_run_on_and_the_code_still_tells() {
    let program = |r: Rank, _| match r.0 {
        1 => vec![Act::Exit(11)],
        2 => vec![Act::Sleep(ms(300)), Act::Exit(12)],
        _ => vec![Act::Sleep(ms(500)), Act::Print(10)],
    };
    let cfg = Config { program, on_failure: OnFailure::Continue, ..Config::default() };
    each(&cfg, |r| {
        assert_eq!((r.job().code(), r.job().also.len()), (11, 1));
        assert_eq!(r.output.iter().sum::<u64>(), 60);
    });
}

#[test]
fn abort_stops_everybody_with_its_code_whatever_the_policy() {
    let program = |r: Rank, _| match r.0 {
        5 => vec![Act::Abort(256)],
        _ => vec![Act::Hang],
    };
    let cfg = Config { program, on_failure: OnFailure::Continue, ..Config::default() };
    each(&cfg, |r| {
        assert_eq!((r.cause_rank(), r.job().code()), (Some(Rank(5)), 1));
    });
}

#[test]
fn a_rank_that_used_the_library_must_finalize() {
    let good = |_, _| vec![Act::Hello, Act::Finalize];
    each(&Config { program: good, ..Config::default() }, |r| assert_eq!(r.job().code(), 0));
    let bad = |r: Rank, _| if r.0 == 2 { vec![Act::Hello] } else { vec![Act::Hello, Act::Finalize] };
    each(&Config { program: bad, ..Config::default() }, |r| {
        assert_eq!((r.cause_rank(), r.job().code()), (Some(Rank(2)), 1));
    });
}

#[test]
fn keys_are_fetched_from_their_owner_and_fences_bring_all() {
    let program = |r: Rank, size| {
        let (next, far) = (Rank((r.0 + 1) % size), Rank((r.0 + size / 2) % size));
        let early =
            vec![Act::Hello, Act::Sleep(ms(u64::from(r.0) * 7 % 50)), Act::Put("a"), Act::Get(next, "a")];
        let late = vec![Act::Put("b"), Act::Fence, Act::Get(far, "b"), Act::Fence, Act::Finalize];
        [early, late].concat()
    };
    each(&Config { daemons: 8, program, ..Config::default() }, |r| {
        assert_eq!(r.job().cause, Cause::Success, "seed {}", r.seed);
    });
}

#[test]
fn servers_gather_over_groups_ask_each_other_and_share_names() {
    fn whole(r: Rank, size: u32) -> Vec<Act> {
        let publish = if r.0 == 3 { Act::Publish("svc") } else { Act::Hello };
        let ask = Act::Ask(Rank((r.0 + 5) % size));
        let pause = Act::Sleep(ms(u64::from(r.0) * 13 % 40));
        let first = vec![pause, publish, Act::Gather, Act::Lookup("svc"), ask];
        [first, vec![Act::Gather, Act::Fence, Act::Gather, Act::Finalize]].concat()
    }
    each(&Config { daemons: 8, program: whole, ..Config::default() }, |r| {
        assert_eq!(r.job().cause, Cause::Success, "seed {}", r.seed);
    });
}

fn children(_: Rank, _: u32) -> Vec<Act> {
    vec![Act::Hello, Act::Gather, Act::Lookup("port"), Act::Fence, Act::Finalize]
}

#[test]
fn ranks_spawn_others_that_live_and_end_as_they_do() {
    let program = |r: Rank, _| match r.0 {
        0 => vec![Act::Hello, Act::Publish("port"), Act::Spawn(3), Act::Spawn(2), Act::Finalize],
        5 => vec![Act::Hello, Act::Sleep(ms(10)), Act::Spawn(4), Act::Finalize],
        _ => vec![Act::Hello, Act::Sleep(ms(200)), Act::Finalize],
    };
    each(&Config { daemons: 4, program, spawned: children, ..Config::default() }, |r| {
        assert_eq!((&r.job().cause, r.started), (&Cause::Success, 8 + 3 + 2 + 4), "seed {}", r.seed);
    });
}

#[test]
fn a_spawned_rank_that_fails_ends_the_job() {
    let program = |r: Rank, _| match r.0 {
        0 => vec![Act::Hello, Act::Spawn(3), Act::Hang],
        _ => vec![Act::Hello, Act::Hang],
    };
    let spawned = |r: Rank, _| if r.0 == 1 { vec![Act::Exit(9)] } else { vec![Act::Hang] };
    each(&Config { daemons: 4, program, spawned, ..Config::default() }, |r| {
        assert_eq!(r.job().code(), 9, "seed {}", r.seed);
    });
}

#[test]
fn a_spawn_ends_however_the_job_ends() {
    // At all moments of a spawn: the user interrupts, a node is lost, another rank fails.
    let program = |r: Rank, _| match r.0 {
        0 => vec![Act::Hello, Act::Spawn(4), Act::Spawn(4), Act::Hang],
        _ => vec![Act::Hello, Act::Hang],
    };
    for at in (15..120).step_by(5) {
        for fault in
            [Fault::Signal(2), Fault::Kill(NodeIdx(3)), Fault::PowerOff(NodeIdx(2)), Fault::KillLauncher]
        {
            let faults = vec![(ms(at), fault.clone())];
            let cfg = Config { program, spawned: |_, _| vec![Act::Hang], faults, ..Config::default() };
            each(&cfg, |r| assert!(r.seed < SEEDS));
        }
    }
}

#[test]
fn more_ranks_than_can_be_are_refused() {
    let program = |r: Rank, _| match r.0 {
        0 => vec![Act::Hello, Act::Spawn(99), Act::Finalize],
        _ => vec![Act::Hello, Act::Finalize],
    };
    let cfg = Config { program, on_failure: OnFailure::Continue, ..Config::default() };
    each(&cfg, |r| assert_eq!(r.job().code(), LOST_CODE, "seed {}", r.seed));
}

#[test]
fn a_gather_fails_for_its_group_only() {
    // Rank 1 of 8 dies before the gather of ranks 0 to 2; the others do not notice.
    let program = |r: Rank, _| match r.0 {
        1 => vec![Act::Hello, Act::Sleep(ms(20)), Act::Crash(9)],
        _ => vec![Act::Hello, Act::Gather, Act::Finalize],
    };
    let cfg = Config { program, on_failure: OnFailure::Continue, ..Config::default() };
    each(&cfg, |r| {
        // Which of the three counts as first is a matter of their nodes' clocks.
        let Cause::Rank(first) = &r.job().cause else { panic!("{:?}", r.job().cause) };
        let all = r.job().also.iter().chain([first]);
        let mut ends: Vec<(u32, u8)> = all.map(|e| (e.proc.rank.0, e.code())).collect();
        ends.sort_unstable();
        assert_eq!(ends, [(0, LOST_CODE), (1, 137), (2, LOST_CODE)], "seed {}", r.seed);
    });
}

#[test]
fn a_fence_fails_when_a_member_ends_without_it() {
    // Rank 1 is gone before the fence; nobody is stopped for it, and nobody waits for ever.
    let program = |r: Rank, _| match r.0 {
        1 => vec![Act::Sleep(ms(20))],
        _ => vec![Act::Hello, Act::Sleep(ms(u64::from(r.0))), Act::Fence, Act::Finalize],
    };
    let cfg = Config { program, on_failure: OnFailure::Continue, ..Config::default() };
    each(&cfg, |r| {
        assert_eq!(r.job().code(), LOST_CODE, "seed {}", r.seed);
        assert_eq!(r.job().also.len(), 6);
        assert!(r.done_at < Some(ms(4000)), "{:?}", r.done_at);
    });
}

#[test]
fn stdin_reaches_one_rank_or_all_and_waits_for_readers() {
    let program = |_, _| vec![Act::Sleep(ms(20)), Act::ReadStdin];
    let one = Stdin::Rank(Rank(3));
    let cfg = Config { program, stdin: 1_300_000, stdin_to: one.clone(), ..Config::default() };
    let reader_only = |r: Rank, _| if r.0 == 3 { vec![Act::ReadStdin] } else { Vec::new() };
    each(&Config { program: reader_only, ..cfg.clone() }, |r| {
        assert_eq!((r.job().code(), r.input[3], r.stdin_unread), (0, 1_300_000, 0));
    });
    each(&Config { stdin_to: Stdin::All, ..cfg.clone() }, |r| {
        assert_eq!((r.job().code(), &r.input[..]), (0, &[1_300_000; 8][..]));
    });
    let nobody = |_, _| vec![Act::Sleep(ms(500))];
    each(&Config { program: nobody, ..cfg }, |r| {
        assert!(r.stdin_unread <= 4096, "{} bytes were eaten", r.stdin_unread);
    });
}

#[test]
fn launch_faults_of_all_hosts_are_reported_and_nothing_starts() {
    let faults = vec![
        (ms(30), Fault::Unreachable(NodeIdx(5))),
        (ms(500), Fault::Unreachable(NodeIdx(6))),
        (ms(0), Fault::PowerOff(NodeIdx(7))),
    ];
    let cfg = Config { daemons: 8, tree: Tree::Star, faults, ..Config::default() };
    for seed in 0..SEEDS {
        let r = Sim::new(seed, cfg.clone()).run();
        r.check();
        let Cause::Launch(faults) = &r.job().cause else { panic!("{:?}", r.job()) };
        let hosts: Vec<u32> = faults.iter().map(|(n, _)| n.0).collect();
        assert_eq!((hosts, r.started, r.job().code()), (vec![5, 6, 7], 0, 255));
        assert_eq!(faults[0].1.stage, Stage::Tcp);
        assert!(r.done_at < Some(Duration::from_secs(20)), "not the whole launch limit");
    }
}

#[test]
fn programs_missing_on_several_nodes_are_all_named() {
    let faults = vec![(ms(0), Fault::CannotPrepare(NodeIdx(1))), (ms(0), Fault::CannotPrepare(NodeIdx(3)))];
    each(&Config { faults, ..Config::default() }, |r| {
        let Cause::Launch(faults) = &r.job().cause else { panic!("{:?}", r.job()) };
        assert_eq!(faults.iter().map(|(n, _)| n.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((r.job().code(), r.started), (127, 0));
    });
}

#[test]
fn min_hosts_goes_on_without_the_failed_ones() {
    let faults = vec![(ms(30), Fault::Unreachable(NodeIdx(3)))];
    each(&Config { faults, min_hosts: Some(3), ..Config::default() }, |r| {
        assert_eq!((r.job().code(), r.started), (0, 6));
    });
}

#[test]
fn the_launch_limit_names_hosts_that_never_answered() {
    let faults = vec![(ms(0), Fault::Cut(NodeIdx(0)))];
    let limits = Limits { launch: Some(Duration::from_secs(3)), ..Limits::default() };
    for seed in 0..SEEDS {
        let r = Sim::new(seed, Config { faults: faults.clone(), limits, ..Config::default() }).run();
        r.check();
        let Cause::Launch(faults) = &r.job().cause else { panic!("{:?}", r.job()) };
        assert_eq!((faults.len(), faults[0].0), (1, NodeIdx(0)));
        assert!(faults[0].1.what.contains("launch limit of 3.0 s"), "{}", faults[0].1.what);
    }
}

#[test]
fn signals_once_twice_and_three_times() {
    let stubborn = |_, _| vec![Act::IgnoreTerm, Act::Hang];
    let run = |signals: &[(u64, i32)], program| {
        let faults: Vec<_> = signals.iter().map(|&(at, s)| (ms(at), Fault::Signal(s))).collect();
        let r = Sim::new(1, Config { program, faults, ..Config::default() }).run();
        r.check();
        (r.job().code(), r.done_at.unwrap_or_default())
    };
    let (code, at) = run(&[(500, 2)], |_, _| vec![Act::Hang]);
    assert!(code == 130 && at < ms(600));
    let (code, at) = run(&[(500, 2)], stubborn);
    assert!(code == 130 && at > ms(10_400) && at < ms(11_000), "INT, 5 s, TERM, 5 s, KILL: {at:?}");
    let (code, at) = run(&[(500, 2), (1000, 2)], stubborn);
    assert!(code == 130 && at < ms(1100), "killed at once: {at:?}");
    let (code, at) = run(&[(500, 15)], stubborn);
    assert!(code == 143 && at > ms(5400) && at < ms(6000));
    let (code, at) = run(&[(500, 2), (1000, 2), (1001, 2)], stubborn);
    assert!(code == 130 && at < ms(1010), "left at once: {at:?}");
    let (code, _) = run(&[(1, 1)], stubborn);
    assert_eq!(code, 129, "during the launch");
}

/// In a pod ranks have after SIGTERM what the pod has, less five seconds; each gets the signal once.
#[test]
fn the_end_of_the_pod_is_the_end_of_the_ranks() {
    let stubborn = |_, _| vec![Act::IgnoreTerm, Act::Hang];
    let limits = Limits { pod_grace: Some(Duration::from_secs(30)), ..Limits::default() };
    let run = |faults: &[(u64, Fault)], program| {
        let faults = faults.iter().map(|(at, fault)| (ms(*at), fault.clone())).collect();
        let r = Sim::new(1, Config { program, faults, limits, ..Config::default() }).run();
        r.check();
        (r.job().code(), r.done_at.unwrap_or_default())
    };
    let term = || (500, Fault::Signal(15));
    let says = |at, seconds| (at, Fault::PodGrace(Duration::from_secs(seconds)));
    let within = |(code, at), from, to| assert!(code == 143 && at > ms(from) && at < ms(to), "{code} {at:?}");
    within(run(&[term()], |_, _| vec![Act::Hang]), 500, 600);
    within(run(&[term()], stubborn), 25_400, 26_000);
    within(run(&[term(), says(600, 60)], stubborn), 55_400, 56_000);
    within(run(&[term(), says(600, 6)], stubborn), 3_400, 4_000);
    within(run(&[term(), says(2000, 1)], stubborn), 1_900, 2_300);
    within(run(&[says(400, 60), term()], stubborn), 25_400, 26_000);
    within(run(&[term(), (1000, Fault::Signal(15))], stubborn), 900, 1_500);
    // The other pods' ranks have their time when one pod is gone first.
    within(run(&[term(), (600, Fault::Kill(NodeIdx(1)))], stubborn), 25_400, 26_000);
    let (code, at) = run(&[(500, Fault::Signal(2))], stubborn);
    assert!(code == 130 && at > ms(10_400) && at < ms(11_000), "a person at a terminal: {at:?}");
    // A worker's pod first, then ours: no second signal that kills.
    let (code, at) = run(&[(500, Fault::Kill(NodeIdx(1))), (700, Fault::Signal(15))], stubborn);
    assert!(code == 254 && at > ms(2_400) && at < ms(4_000), "{code} {at:?}");
}

/// A host that is shut down tells its ranks, which end as they like: stubborn ones go on until something else ends them.
#[test]
fn a_host_that_ends_tells_its_ranks() {
    let faults = vec![(ms(500), Fault::HostEnds(NodeIdx(1)))];
    each(&Config { program: |_, _| vec![Act::Hang], faults: faults.clone(), ..Config::default() }, |r| {
        assert_eq!(r.job().code(), 143, "its ranks died of it, and the job with them");
        assert!(r.done_at.unwrap_or_default() < ms(1000), "{:?}", r.done_at);
    });
    let faults = faults.into_iter().chain([(ms(2000), Fault::Signal(15))]).collect();
    let stubborn = |_, _| vec![Act::IgnoreTerm, Act::Hang];
    each(&Config { program: stubborn, faults, ..Config::default() }, |r| {
        assert_eq!(r.job().code(), 143);
        assert!(r.done_at.unwrap_or_default() > ms(6900), "{:?}", r.done_at);
    });
}

#[test]
fn a_job_limit_and_a_closed_output_stop_the_job() {
    let limits = Limits { job: Some(ms(700)), ..Limits::default() };
    let hang = |_, _| vec![Act::Print(10), Act::Hang];
    each(&Config { program: hang, limits, ..Config::default() }, |r| assert_eq!(r.job().code(), 110));
    let faults = vec![(ms(400), Fault::BrokenPipe)];
    each(&Config { program: hang, faults, ..Config::default() }, |r| assert_eq!(r.job().code(), 141));
}
