//! Signals to the command: what ranks get, how it ends, what is left.

mod common;

use common::{finish, ranks, read_until, signal};
use std::process::Child;

/// Starts ranks and waits until all have said `ready`.
fn started(n: u32, script: &str) -> (Child, std::process::ChildStdout) {
    let mut child = ranks(n, script).spawn().expect("rmpirun starts");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    for _ in 0..n {
        read_until(&mut stdout, "ready");
    }
    (child, stdout)
}

#[test]
fn stopping_signals_have_their_codes() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (child, _stdout) = started(2, "echo ready; exec sleep 100");
        signal(child.id(), name);
        let run = finish(child);
        assert_eq!(run.code(), code, "{name}: {}", run.stderr);
        assert!(run.stderr.ends_with(&format!("rmpirun: exit code {code}\n")), "{}", run.stderr);
        assert!(run.stderr.contains(&format!("stopped by SIG{name}")), "{}", run.stderr);
    }
}

#[test]
fn a_second_interrupt_kills_ranks_that_do_not_listen() {
    let (child, _stdout) = started(2, "trap '' INT TERM; echo ready; while :; do sleep 1; done");
    signal(child.id(), "INT");
    signal(child.id(), "INT");
    // Two pending signals of one number are one: send until it is over.
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let pid = child.id();
    let sender = std::thread::spawn(move || {
        let pause = std::time::Duration::from_millis(100);
        while ended.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // It may be over by now.
            let _ = std::process::Command::new("kill").args(["-s", "INT", &pid.to_string()]).output();
        }
    });
    let code = finish(child).code();
    drop(over);
    sender.join().unwrap();
    assert_eq!(code, 130);
}

#[test]
fn user_signals_reach_every_rank() {
    let script = "trap 'echo got $RANK; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let (child, mut stdout) = started(2, script);
    signal(child.id(), "USR1");
    let mut ranks = [read_until(&mut stdout, "got"), read_until(&mut stdout, "got")];
    ranks.sort();
    assert_eq!(ranks, ["got 0", "got 1"]);
    assert_eq!(finish(child).code(), 0);
}

#[test]
fn quit_tells_what_ranks_do_and_the_job_goes_on() {
    let script = "trap 'echo told; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let (mut child, mut stdout) = started(2, script);
    let mut stderr = child.stderr.take().unwrap();
    signal(child.id(), "QUIT");
    let mut told = [0, 1].map(|_| {
        let first = read_until(&mut stderr, "rmpirun: rank");
        assert!(read_until(&mut stderr, "  sh (pid ").ends_with(')'));
        assert!(read_until(&mut stderr, "    thread ").contains(" (sh): "));
        first.split(" on ").next().unwrap().to_owned()
    });
    told.sort();
    assert_eq!(told, ["rmpirun: rank 0", "rmpirun: rank 1"]);
    signal(child.id(), "USR1");
    read_until(&mut stdout, "told");
    assert_eq!(finish(child).code(), 0);
}

#[test]
fn nothing_is_left_when_the_launcher_is_killed() {
    let script = "sh -c 'echo pid $$; exec sleep 100' & echo ready; wait";
    let mut child = ranks(1, script).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let pid: u32 = read_until(&mut stdout, "pid ")[4..].parse().unwrap();
    signal(child.id(), "KILL");
    assert_eq!(finish(child).status.code(), None);
    let gone = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    assert!(gone, "process {pid} is still there after a minute");
}

#[test]
fn interrupts_ignored_at_the_start_stay_ignored_but_sigterm_works() {
    let script = format!(
        "trap '' INT; exec '{}' -np 1 sh -c 'echo ready; exec sleep 100'",
        env!("CARGO_BIN_EXE_rmpirun")
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).stdin(std::process::Stdio::null());
    shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = shell.spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "ready");
    signal(child.id(), "INT");
    signal(child.id(), "TERM");
    assert_eq!(finish(child).code(), 143);
}
