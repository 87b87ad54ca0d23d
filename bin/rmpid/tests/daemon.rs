//! The real daemon under a scripted launcher: ranks run, their streams are whole, and whatever is killed
//! nothing survives.

mod launcher;

use launcher::{Launcher, Story};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rmpi_types::launch::StdioKind;
use rmpi_types::outcome::Abort;
use rmpi_types::{ProcId, RankEnd};
use rmpi_wire::msg::Stream;
use rmpi_wire::rank::{RankRequest, Request};
use rmpi_wire::{Down, Up};
use std::time::Instant;

#[test]
fn ranks_run_and_end_and_the_daemon_leaves() {
    let mut l = Launcher::start();
    let script =
        "echo out $RANK/$WORLD_SIZE $FROM_LAUNCHER $RMPIRUN_FDS $(pwd); echo oh $RANK >&2; exit $RANK";
    let pids = l.run(l.shell(script, 2));
    let mut story = l.follow();
    for r in 0..2 {
        assert_eq!(
            story.text(r, Stream::Stdout),
            format!("out {r}/2 yes boot=3,listen=4,kvs=5,shm=6 /tmp\n")
        );
        assert_eq!(story.text(r, Stream::Stderr), format!("oh {r}\n"));
    }
    story.exits.sort_by_key(|e| e.proc);
    for (r, exit) in (0u8..).zip(&story.exits) {
        assert_eq!((exit.end, exit.pid), (RankEnd::Exited(r), pids[usize::from(r)]));
        assert_eq!(exit.last_stderr, [format!("oh {r}")]);
    }
    assert_eq!(l.left().len(), 2, "only guard and worker");
    l.finish();
}

#[test]
fn input_arrives_and_ends() {
    let mut l = Launcher::start();
    l.run(l.shell("cat", 2));
    l.send(Down::Stdin { proc: ProcId::first(0) }, b"one\ntwo");
    l.send(Down::Stdin { proc: ProcId::first(0) }, b"");
    let story = l.follow();
    assert_eq!(story.text(0, Stream::Stdout), "one\ntwo");
    assert_eq!((story.text(1, Stream::Stdout).as_str(), story.stdin_taken), ("", 7));
    l.finish();
}

#[test]
fn a_stream_without_credit_is_not_read_and_nothing_is_lost() {
    let mut l = Launcher::start();
    l.run(l.shell("seq 1 200000; echo done >&2", 1));
    let mut story = Story::default();
    // The other stream ends: all that may come of the first has been read or is about to be.
    while story.text(0, Stream::Stdout).len() < 64 << 10 {
        l.step(&mut story, false);
    }
    let window = 128 << 10;
    let before = story.text(0, Stream::Stdout).len();
    assert!(before <= window, "{before}");
    let bytes = u32::try_from(before).unwrap();
    l.send(Down::Credit { proc: ProcId::first(0), stream: Stream::Stdout, bytes }, b"");
    while !l.step(&mut story, true) {}
    let expected: String = (1..=200_000).map(|i| format!("{i}\n")).collect();
    assert!(story.text(0, Stream::Stdout) == expected);
    l.finish();
}

#[test]
fn a_pseudo_terminal_is_one_and_changes_nothing() {
    let mut l = Launcher::start();
    let mut launch = l.shell("test -t 1 && printf 'a\\nb\\0\\004\\n'", 1);
    launch.stdio = StdioKind::Pty;
    l.run(launch);
    let story = l.follow();
    assert_eq!(story.text(0, Stream::Stdout), "a\nb\0\u{4}\n");
    l.finish();
}

#[test]
fn what_cannot_start_is_told_and_nothing_started() {
    let mut l = Launcher::start();
    let mut launch = l.shell("true", 2);
    launch.apps[0].program = "nosuchprog".into();
    let fault = l.prepare(launch).unwrap_err();
    assert_eq!((fault.what.as_str(), fault.code), ("nosuchprog: not found in PATH", 127));
    l.finish();
}

#[test]
fn a_missing_directory_nobody_asked_for_is_a_note() {
    let mut l = Launcher::start();
    let mut launch = l.shell("cd && pwd", 1);
    launch.apps[0].wdir = "/no/such/place".into();
    launch.apps[0].wdir_explicit = false;
    l.send(Down::Prepare(Box::new(launch)), b"");
    let Some((Up::Note(note), _)) = l.next() else { panic!("no note") };
    assert!(note.starts_with("working directory /no/such/place does not exist; using "), "{note}");
    assert!(matches!(l.next(), Some((Up::Prepared(_), _))));
    l.finish();
}

#[test]
fn signals_reach_the_group_and_stopping_is_no_failure_of_ours() {
    let mut l = Launcher::start();
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    l.run(l.shell(script, 1));
    let mut story = Story::default();
    while !story.text(0, Stream::Stdout).contains("ready") {
        l.step(&mut story, true);
    }
    l.send(Down::Signal { signal: Signal::SIGUSR1 as i32, of: None }, b"");
    while !story.text(0, Stream::Stdout).contains("usr1") {
        l.step(&mut story, true);
    }
    l.send(Down::Stop { signal: Signal::SIGTERM as i32, grace_ms: 1000, name_absent: false }, b"");
    while !l.step(&mut story, true) {}
    assert!(story.exits[0].stopped);
    assert_eq!(story.exits[0].end, RankEnd::Signaled { signal: 15, core: false });
    l.finish();
}

#[test]
fn what_a_rank_leaves_behind_is_ended_with_the_job() {
    let mut l = Launcher::start();
    l.run(l.shell("setsid sleep 1000 >/dev/null 2>&1 & (setsid sleep 1000 >/dev/null 2>&1 &); exit 0", 4));
    let story = l.follow();
    assert_eq!(story.exits.len(), 4);
    assert_eq!(l.left().len(), 2, "{:?}", l.left());
    l.finish();
}

/// Ranks that ignore SIGTERM, with children in other sessions and twice-forked ones.
fn stubborn(l: &mut Launcher) {
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' & \
                  (setsid sleep 1000 &) ; echo ready; sleep 1000; sleep 1000";
    l.run(l.shell(script, 4));
    let mut story = Story::default();
    while (0..4).any(|r| !story.text(r, Stream::Stdout).contains("ready")) {
        l.step(&mut story, true);
    }
    l.assert_left(2 + 4 * 4);
}

#[test]
fn nothing_survives_the_guard() {
    let mut l = Launcher::start();
    stubborn(&mut l);
    kill(Pid::from_raw(i32::try_from(l.daemon.id()).unwrap()), Signal::SIGKILL).unwrap();
    l.assert_gone();
}

#[test]
fn nothing_survives_the_worker() {
    let mut l = Launcher::start();
    stubborn(&mut l);
    kill(Pid::from_raw(i32::try_from(l.report.pid).unwrap()), Signal::SIGKILL).unwrap();
    l.assert_gone();
}

#[test]
fn nothing_survives_the_launcher() {
    let mut l = Launcher::start();
    stubborn(&mut l);
    l.hang_up();
    l.assert_gone();
}

/// A stopped worker cannot notice that its launcher is gone: the guard gives it up after six seconds.
#[test]
fn nothing_survives_the_launcher_of_a_stopped_worker() {
    let mut l = Launcher::start();
    stubborn(&mut l);
    kill(Pid::from_raw(i32::try_from(l.report.pid).unwrap()), Signal::SIGSTOP).unwrap();
    l.hang_up();
    l.assert_gone();
}

#[test]
fn an_abort_just_before_the_end_is_not_lost() {
    let request = Request { id: 1, request: RankRequest::Abort { code: 7, message: "why".into() } };
    let mut bytes = Vec::new();
    rmpi_wire::rank::encode(&request, b"", &mut bytes).unwrap();
    let octal: String = bytes.iter().map(|b| format!("\\{b:03o}")).collect();
    let mut l = Launcher::start();
    l.run(l.shell(&format!("printf '{octal}' >&5"), 8));
    let story = l.follow();
    for exit in &story.exits {
        assert_eq!(exit.abort, Some(Abort::called(7, "why".into())));
    }
    l.finish();
}

#[test]
fn a_stranger_is_turned_away() {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_rmpid"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.stdin.take().unwrap().write_all(&[b'x'; 64]).unwrap();
    let mut text = String::new();
    daemon.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(70));
    assert!(text.starts_with("rmpirun: daemon: control stream: not an rmpirun control stream"), "{text}");
}

/// `RANKS=8 cargo test --release -p rmpid -- --ignored --nocapture launch_times`, all sizes without `RANKS`
#[test]
#[ignore = "a measurement, not a check"]
fn launch_times() {
    let only = std::env::var("RANKS").ok().and_then(|n| n.parse().ok());
    for n in only.map_or(vec![1, 8, 64], |n: u32| vec![n]) {
        let mut times: Vec<f64> = (0..30)
            .map(|_| {
                let start = Instant::now();
                let mut l = Launcher::start();
                let mut launch = l.shell("", n);
                launch.apps[0].program = "true".into();
                l.run(launch);
                assert_eq!(l.follow().exits.len(), n as usize);
                l.finish();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{n} x true through the daemon: median {:.2} ms, best {:.2} ms", times[15], times[0]);
    }
}
