//! What a user at a terminal sees and can do: Ctrl-C once, twice, three times, Ctrl-Z and fg, the window's size, terminals
//! of ranks, background jobs, progress of a launch.

use rmpi_tests::procs::{until, with_env};
use rmpi_tests::pty::Terminal;
use rmpi_tests::{bins, loopback::Loopback};
use std::time::Duration;

/// A rank that reports INT and TERM and ends at neither.
const STUBBORN: &str =
    "trap 'echo got int' INT; trap 'echo got term' TERM; echo up; while :; do sleep 0.1; done";

fn terminal() -> Terminal {
    Terminal::open(bins::dir())
}

/// Nothing of the job marked so is left.
fn gone(mark: &str) -> bool {
    until(Duration::from_secs(60), || with_env("MARK", mark).is_empty())
}

#[test]
fn ctrl_c_interrupts_the_ranks_and_says_what_is_waited_for() {
    let mut t = terminal();
    t.enter("rmpirun -np 2 --oversubscribe sh -c 'trap \"echo got int; exit 0\" INT; echo up; while :; do sleep 0.1; done'");
    t.see("up");
    t.see("up");
    t.press("\x03");
    let said = t.prompt();
    assert!(said.contains("rmpirun: SIGINT: stopping all ranks"), "{said}");
    assert_eq!(said.matches("got int").count(), 2, "{said}");
    assert_eq!(t.code(), 130);
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let mut t = terminal();
    t.enter(&format!("MARK=twice rmpirun --kill-grace 60 -np 2 --oversubscribe sh -c \"{STUBBORN}\""));
    t.see("up");
    t.see("up");
    t.press("\x03");
    t.see("got int");
    t.press("\x03");
    let said = t.prompt();
    assert!(said.contains("killing all ranks now") && said.contains("rmpirun: exit code 130"), "{said}");
    assert_eq!(t.code(), 130);
    assert!(gone("twice"));
}

#[test]
fn a_third_ctrl_c_leaves_at_once_and_nothing_stays() {
    let mut t = terminal();
    t.enter(&format!("MARK=thrice rmpirun --kill-grace 60 -np 2 --oversubscribe sh -c \"{STUBBORN}\""));
    t.see("up");
    t.see("up");
    t.press("\x03");
    t.see("got int");
    t.press("\x03\x03");
    t.prompt();
    assert_eq!(t.code(), 130);
    assert!(gone("thrice"));
}

#[test]
fn ctrl_z_stops_ranks_and_launcher_and_fg_goes_on() {
    let mut t = terminal();
    t.enter(
        "rmpirun -np 1 sh -c 'echo pid $$.; while :; do sleep 0.1; test -e /tmp/none || echo tick; done'",
    );
    t.see("pid ");
    let pid = t.see(".");
    t.see("tick");
    t.press("\x1a");
    t.see("Stopped");
    t.prompt();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(
        until(Duration::from_secs(60), || state().contains("State:\tT")),
        "the rank goes on: {}",
        state()
    );
    t.enter("fg");
    t.see("tick");
    assert!(until(Duration::from_secs(60), || !state().contains("State:\tT")));
    t.press("\x03");
    t.prompt();
    assert_eq!(t.code(), 130);
}

#[test]
fn ranks_have_a_terminal_of_our_size_that_changes_with_ours() {
    let mut t = terminal();
    t.resize(33, 44);
    t.enter("rmpirun -np 1 sh -c 'test -t 1 && stty size <&1; trap \"stty size <&1; exit 0\" WINCH; echo up; while :; do sleep 0.1; done'");
    let said = t.see("up");
    assert!(said.contains("33 44"), "{said}");
    t.resize(55, 66);
    t.see("55 66");
    t.prompt();
    assert_eq!(t.code(), 0);
}

#[test]
fn rank_0_reads_the_terminal_to_its_end() {
    let mut t = terminal();
    t.enter("rmpirun -np 1 sh -c 'echo up; while read l; do echo read $l; done; echo end'");
    t.see("up");
    t.press("abc\n");
    t.see("read abc");
    t.press("\x04");
    t.see("end");
    t.prompt();
    assert_eq!(t.code(), 0);
}

#[test]
fn a_background_job_leaves_the_terminal_alone() {
    let mut t = terminal();
    t.enter("rmpirun -np 1 sh -c 'echo up; read l; echo read $l' &");
    t.see("up");
    t.enter("jobs");
    t.see("Running");
    t.enter("echo the shell reads");
    t.see("the shell reads");
    t.enter("fg");
    t.press("mine\n");
    t.see("read mine");
    t.prompt();
    assert_eq!(t.code(), 0);
}

#[test]
fn a_launch_that_takes_long_is_seen_and_its_line_goes_again() {
    let hosts = Loopback::up(1);
    let mut t = terminal();
    // One that takes calls and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.9:0").expect("a port");
    let port = silent.local_addr().expect("it is bound").port();
    let both = std::fs::read_to_string(hosts.dir().join("hostfile")).expect("the host file");
    let both = format!("{both}127.0.0.9 slots=1 port={port}\n");
    std::fs::write(hosts.dir().join("both"), both).expect("our own folder");
    t.enter(&format!("cd {}", hosts.dir().display()));
    t.prompt();
    t.enter("rmpirun --hostfile both --ssh-config ssh_config --connect-timeout 60 -np 3 true");
    t.see("rmpirun: 1 of 2 hosts up");
    t.press("\x03");
    t.see("\r\x1b[K");
    let said = t.prompt();
    assert!(!said.contains("hosts up"), "{said}");
    assert_eq!(t.code(), 130);
}
