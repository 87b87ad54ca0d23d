//! What a connected host costs the launcher.
#![allow(clippy::print_stdout, reason = "tests say what they skip and what they measured")]

use rmpi_tests::long;
use rmpi_tests::loopback::Loopback;
use rmpi_tests::procs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// The promise, in bytes a host.
const LIMIT: u64 = 100 << 10;

#[test]
fn a_host_costs_the_launcher_less_than_100_kib() {
    if !long() {
        println!("skipped: 256 daemons on one machine (cargo xtask test --long)");
        return;
    }
    let (few, many) = (resident(16), resident(256));
    let each = many.saturating_sub(few) / 240;
    println!("launcher: {few} bytes with 16 hosts, {many} with 256: {each} a host");
    assert!(each < LIMIT, "{each} bytes a host");
}

/// The launcher's resident bytes while one rank runs on each of `n` hosts.
fn resident(n: usize) -> u64 {
    let hosts = Loopback::up(n);
    let np = n.to_string();
    let mut job = hosts.rmpirun();
    job.args(["-np", &np, "--map-by", "node", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut job = procs::start(job.stdin(Stdio::null()).stdout(Stdio::piped()), procs::LIFE);
    let lines = BufReader::new(job.stdout.take().expect("stdout is piped")).lines();
    assert_eq!(
        lines.map_while(Result::ok).take(n).filter(|l| l == "up").count(),
        n,
        "not every rank came up"
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.id())).expect("the launcher runs");
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let stopped = std::process::Command::new("kill").arg(job.id().to_string()).status();
    assert!(stopped.is_ok_and(|s| s.success()));
    assert_eq!(job.wait().expect("the job ends").code(), Some(143));
    kib.expect("VmRSS in /proc") << 10
}
