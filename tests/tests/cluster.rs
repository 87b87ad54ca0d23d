//! Real hosts: real OpenSSH servers in namespaces. Runs, and every way of losing a host or one of our halves.

#![allow(clippy::print_stdout, reason = "tests say what they skip and what they measured")]

use rmpi_tests::cluster::Cluster;
use rmpi_tests::procs::{self, Job, ends_within, run, until};
use rmpi_tests::{cluster_or_skip, long};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
/// The promise: within this time a lost node is named and nothing of the job is left anywhere. A machine that has much else
/// to do may take longer, so it is told and not tested; what is tested is that it comes to that.
const PROMISE: Duration = Duration::from_secs(10);
/// Every rank has a child in its group and a grandchild in a session of its own.
const FAMILY: &str = "sleep 271828 & setsid sleep 271829 & echo ready $RANK; wait";

fn rmpirun(cluster: &Cluster, bin: &Path) -> Command {
    let mut command = cluster.command("n0", bin.join("rmpirun"));
    command.arg("--hostfile").arg(cluster.hostfile());
    command
}

/// A running job of eight families, all of them started.
fn families(cluster: &Cluster, bin: &Path) -> Job {
    let mut job = rmpirun(cluster, bin);
    job.args(["-np", "8", "sh", "-c", FAMILY]);
    job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut job = procs::start(&mut job, procs::LIFE);
    let mut out = job.stdout.take().expect("stdout is piped");
    let mut text = String::new();
    let mut piece = [0; 512];
    while text.matches("ready").count() < 8 {
        let n = out.read(&mut piece).expect("the pipe can be read");
        assert!(n > 0, "the job ended early: {}", stderr(&mut job));
        text.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    // Kept open: a closed standard output would end the job for another reason.
    job.stdout = Some(out);
    job
}

fn stderr(job: &mut Child) -> String {
    let mut text = String::new();
    job.stderr.take().map(|mut e| e.read_to_string(&mut text));
    text
}

/// What is left of the job on the hosts given.
fn left(cluster: &Cluster, hosts: &[&str]) -> Vec<String> {
    hosts.iter().flat_map(|h| cluster.ps(h).into_iter().map(move |p| format!("{h} {p}"))).collect()
}

fn assert_clean(cluster: &Cluster, hosts: &[&str], since: Instant) {
    let clean = until(LIMIT, || left(cluster, hosts).is_empty());
    assert!(clean, "left {:.1} s after: {:?}", since.elapsed().as_secs_f64(), left(cluster, hosts));
    tell(since, "nothing left");
}

fn tell(since: Instant, what: &str) {
    let late = if since.elapsed() > PROMISE { ": LATER THAN PROMISED" } else { "" };
    println!("{what} after {:.1} s{late}", since.elapsed().as_secs_f64());
}

fn code(job: &mut Child) -> i32 {
    assert!(ends_within(job, LIMIT), "the launcher did not end");
    job.wait().ok().and_then(|s| s.code()).unwrap_or(-1)
}

fn kill9(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).output();
    // Of several processes one may end with another.
    let gone = || !Path::new(&format!("/proc/{pid}")).exists();
    assert!(killed.is_ok_and(|k| k.status.success()) || gone(), "kill -9 {pid}");
}

const ALL: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// The harness must be able to see what the promises say is not there.
#[test]
fn the_harness_sees_processes_and_ends_with_its_hosts() {
    let Some(mut cluster) = cluster_or_skip(2, None) else { return };
    let over_ssh =
        cluster.command("n0", "ssh").args(["n2", "setsid sleep 141421 >/dev/null 2>&1 & hostname"]).output();
    assert_eq!(over_ssh.expect("ssh starts").stdout, b"n2\n");
    assert!(until(LIMIT, || left(&cluster, &["n1", "n2"])
        .iter()
        .any(|p| p.starts_with("n2") && p.ends_with("sleep 141421"))));
    cluster.cut("n2");
    let reach = |c: &Cluster| {
        c.command("n0", "timeout")
            .args(["2", "bash", "-c", "exec 3<>/dev/tcp/n2/22"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    assert!(!reach(&cluster));
    cluster.mend("n2");
    assert!(until(LIMIT, || reach(&cluster)));
    cluster.power_off("n2");
    assert_eq!(left(&cluster, &["n2"]), Vec::<String>::new());
}

#[test]
fn hosts_with_real_sshd() {
    let Some(mut cluster) = cluster_or_skip(4, None) else { return };
    let bin = cluster.install(&["rmpirun", "rmpid", "train"]);
    trains(&cluster, &bin);
    an_ordinary_user_launches(&cluster, &bin);
    byte_exact_over_ssh(&cluster, &bin);
    for victim in ["launcher", "guard", "worker", "sshd"] {
        nothing_survives_a_killed(victim, &cluster, &bin);
    }
    a_stopped_daemon_is_lost(&cluster, &bin);
    a_cut_cable_is_named(&cluster, &bin);
    a_power_off_is_named(&mut cluster, &bin);
}

fn trains(cluster: &Cluster, bin: &Path) {
    let done =
        run(rmpirun(cluster, bin).args(["-np", "8"]).arg(bin.join("train")).args(["--epochs", "4"]), LIMIT);
    assert_eq!(done.code, 0, "{}\n{}", done.out(), done.stderr);
    assert!(done.out().contains("nodes=4 rail=tcp local=shm "), "{}", done.out());
    assert_clean(cluster, &ALL, Instant::now());
}

/// Nothing of the job needs root: daemons, ranks, the pushed binary.
fn an_ordinary_user_launches(cluster: &Cluster, bin: &Path) {
    let mut job = cluster.command_as_alice("n0", bin.join("rmpirun"));
    job.arg("--hostfile").arg(cluster.hostfile()).args([
        "-np",
        "8",
        "sh",
        "-c",
        "echo $RANK $(id -u) $(pwd)",
    ]);
    let done = run(&mut job, LIMIT);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut lines: Vec<String> = done.out().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, (0..8).map(|r| format!("{r} 4242 /")).collect::<Vec<_>>());
    assert_clean(cluster, &ALL, Instant::now());
}

fn byte_exact_over_ssh(cluster: &Cluster, bin: &Path) {
    let script = "i=0; while [ $i -lt 20000 ]; do echo $RANK $i; i=$((i+1)); done";
    let done = run(rmpirun(cluster, bin).args(["-np", "8", "sh", "-c", script]), LIMIT);
    assert_eq!(done.code, 0, "{}", done.stderr);
    for rank in 0..8 {
        let own: Vec<String> =
            done.out().lines().filter(|l| l.starts_with(&format!("{rank} "))).map(str::to_owned).collect();
        let expected: Vec<String> = (0..20000).map(|i| format!("{rank} {i}")).collect();
        assert!(own == expected, "rank {rank}: {} lines", own.len());
    }
}

/// kill -9 of one of our processes, or of the sshd that holds a daemon's channel, while eight ranks with
/// children run.
fn nothing_survives_a_killed(victim: &str, cluster: &Cluster, bin: &Path) {
    let mut job = families(cluster, bin);
    let start = Instant::now();
    match victim {
        "launcher" => kill9(cluster.pids("n0", "rmpirun --hostfile")[0]),
        "sshd" => {
            let session = cluster.pids("n2", "sshd: root");
            assert!(!session.is_empty(), "no session of sshd on n2");
            session.into_iter().for_each(kill9);
        }
        half => kill9(daemon(cluster, "n2", half)),
    }
    assert_clean(cluster, &ALL, start);
    if victim != "launcher" {
        let code = code(&mut job);
        let text = stderr(&mut job);
        assert_eq!(code, 254, "{victim}: {text}");
        assert!(text.contains("n2"), "{victim}: {text}");
    } else {
        code_of_killed(&mut job);
    }
    tell(start, &format!("kill -9 {victim}: ended"));
}

fn code_of_killed(job: &mut Child) {
    assert!(ends_within(job, LIMIT), "nsenter outlives the launcher");
    let _ = job.wait();
}

/// The pid of the daemon's guard or worker on a host: the worker is the guard's child.
fn daemon(cluster: &Cluster, host: &str, half: &str) -> u32 {
    let both: Vec<(u32, u32)> =
        cluster.pids(host, "rmpid").into_iter().filter_map(|p| Some((p, parent(p)?))).collect();
    let worker = both.iter().find(|(_, parent)| both.iter().any(|(p, _)| p == parent));
    let (worker, guard) = worker.unwrap_or_else(|| panic!("no daemon on {host}: {:?}", cluster.ps(host)));
    if half == "guard" { *guard } else { *worker }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A daemon that answers no more is lost like one whose cable was pulled.
fn a_stopped_daemon_is_lost(cluster: &Cluster, bin: &Path) {
    let mut job = families(cluster, bin);
    let start = Instant::now();
    let worker = daemon(cluster, "n3", "worker");
    let signal = |s: &str| Command::new("kill").args([s, &worker.to_string()]).status();
    assert!(signal("-STOP").is_ok_and(|s| s.success()));
    let code = code(&mut job);
    let text = stderr(&mut job);
    assert_eq!(code, 254, "{text}");
    assert!(text.contains("n3"), "{text}");
    tell(start, "stopped daemon: named");
    let _ = signal("-CONT");
    let resumed = Instant::now();
    assert_clean(cluster, &ALL, resumed);
}

fn a_cut_cable_is_named(cluster: &Cluster, bin: &Path) {
    let mut job = families(cluster, bin);
    let start = Instant::now();
    cluster.cut("n4");
    assert_clean(cluster, &ALL, start);
    let code = code(&mut job);
    let text = stderr(&mut job);
    assert_eq!(code, 254, "{text}");
    assert!(text.contains("n4"), "{text}");
    tell(start, "cut cable: named and clean");
    cluster.mend("n4");
}

fn a_power_off_is_named(cluster: &mut Cluster, bin: &Path) {
    let mut job = families(cluster, bin);
    let start = Instant::now();
    cluster.power_off("n1");
    assert_clean(cluster, &["n2", "n3", "n4"], start);
    let code = code(&mut job);
    let text = stderr(&mut job);
    assert_eq!(code, 254, "{text}");
    assert!(text.contains("n1"), "{text}");
    tell(start, "power off: named and clean");
}

/// Four hosts, four faults, one table, in time.
#[test]
fn four_faults_make_one_table() {
    let Some(mut cluster) = cluster_or_skip(4, None) else { return };
    let bin = cluster.install(&["rmpirun", "rmpid"]);
    cluster.power_off("n1");
    let shared = cluster.shared().display().to_string();
    let on = |host: &str, script: &str| {
        let done = cluster.command(host, "sh").args(["-c", script]).status();
        assert!(done.is_ok_and(|s| s.success()), "{host}: {script}");
    };
    // n2: no sshd any more. n3: another host key than the one known. n4: our key is not accepted.
    on("n2", "kill -STOP 1; ip addr del 10.77.0.2/24 dev eth0; ip addr add 10.77.0.99/24 dev eth0");
    let serve = |host: &str, from: &str, to: &str| {
        let conf = format!("{shared}/sshd.{host}.conf");
        let text = std::fs::read_to_string(&conf)
            .expect("written at boot")
            .replace(from, to)
            .replace("Port 22", "Port 2222");
        std::fs::write(format!("{conf}.2"), text).expect("our own folder");
        on(host, &format!("/usr/sbin/sshd -f {conf}.2"));
    };
    serve("n3", "hostkey.n3", "hostkey.n4");
    serve("n4", "authorized_keys", "no_such_keys");
    let known = format!("{shared}/ssh/ssh_known_hosts");
    let mut text = std::fs::read_to_string(&known).expect("written at boot");
    let ported: String = text
        .lines()
        .filter_map(|l| {
            l.split_once(' ')
                .map(|(names, key)| format!("[{}]:2222 {key}\n", names.split(',').next().unwrap_or_default()))
        })
        .collect();
    text.push_str(&ported);
    std::fs::write(&known, text).expect("our own folder");
    let hostfile = cluster.shared().join("four");
    std::fs::write(&hostfile, "n1 slots=2\nn2 slots=2\nn3 slots=2 port=2222\nn4 slots=2 port=2222\n")
        .expect("our own folder");
    let mut job = cluster.command("n0", bin.join("rmpirun"));
    job.args(["-np", "8", "--launch-timeout", "30", "--connect-timeout", "8", "--hostfile"])
        .arg(&hostfile)
        .arg("hostname");
    let done = run(&mut job, LIMIT);
    println!("{}", done.stderr);
    assert_eq!(done.code, 255, "{}", done.stderr);
    assert!(done.stderr.contains("4 hosts, 4 could not be used; nothing was started"), "{}", done.stderr);
    let stage = |host: &str| {
        done.stderr
            .lines()
            .find(|l| l.split_whitespace().next() == Some(host))
            .and_then(|l| l.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        [stage("n1"), stage("n2"), stage("n3"), stage("n4")],
        ["tcp", "tcp", "ssh", "auth"],
        "{}",
        done.stderr
    );
}

/// Random kills of launcher, guard, worker, sshd and whole hosts; the count of leftovers is the result.
#[test]
fn two_hundred_random_kills_leave_nothing() {
    if !long() {
        println!("skipped: 200 random kills take many minutes (cargo xtask test --long)");
        return;
    }
    let Some(mut cluster) = cluster_or_skip(4, None) else { return };
    let bin = cluster.install(&["rmpirun", "rmpid"]);
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % n as u64).unwrap_or(0)
    };
    let (mut leftovers, mut slowest) = (0, Duration::ZERO);
    for round in 0..200 {
        let mut job = families(&cluster, &bin);
        let host = ALL[random(4)];
        let start = Instant::now();
        let what = random(5);
        match what {
            0 => kill9(cluster.pids("n0", "rmpirun --hostfile")[0]),
            1 => kill9(daemon(&cluster, host, "guard")),
            2 => kill9(daemon(&cluster, host, "worker")),
            3 => cluster.pids(host, "sshd: root").into_iter().for_each(kill9),
            _ => cluster.power_off(host),
        }
        let clean = until(LIMIT, || left(&cluster, &ALL).is_empty());
        slowest = slowest.max(start.elapsed());
        if !clean {
            leftovers += left(&cluster, &ALL).len();
            println!("round {round}: {:?}", left(&cluster, &ALL));
        }
        assert!(procs::ends_within(&mut job, LIMIT), "round {round}: the launcher did not end");
        let _ = job.wait();
        if what == 4 {
            cluster.power_on(host);
        }
    }
    println!("200 random kills: {leftovers} leftovers, slowest clean-up {:.1} s", slowest.as_secs_f64());
    assert_eq!(leftovers, 0);
}
