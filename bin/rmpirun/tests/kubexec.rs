//! Workers that are reached by an operator's `kubexec.sh`: an agent that passes no standard input on, traces what it
//! does on standard error and may be told that a pod is not there. Here the script stays on this machine and gives
//! each pod a node id of its own.

mod common;

use common::{DEADLINE, finish, rmpirun, run, signal};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Pods(PathBuf);

impl Drop for Pods {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Pods {
    /// A folder with the script and a host file of `names` with two slots each; pods are there when a file of their
    /// name is.
    fn new(test: &str, names: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("rmpi-kubexec-{test}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a temporary folder");
        let script = format!(
            "#!/bin/sh\nset -x\nPOD_NAME=$1\nshift\n{{ set +x; }} 2>/dev/null\n\
             echo 'Defaulted container \"mpi\" out of: mpi, proxy' >&2\n\
             test -e {dir}/$POD_NAME || {{ echo >> {dir}/asked.$POD_NAME; echo \"Error from server (NotFound): pods \\\"$POD_NAME\\\" not found\" >&2; exit 1; }}\n\
             RMPI_NODE_ID=$POD_NAME /bin/sh -c \"$*\" < /dev/null",
            dir = dir.display()
        );
        fs::write(dir.join("kubexec.sh"), script).expect("the folder is writable");
        fs::set_permissions(dir.join("kubexec.sh"), fs::Permissions::from_mode(0o755)).expect("our own file");
        let lines: String = names.iter().map(|n| format!("{n} slots=2\n")).collect();
        fs::write(dir.join("hostfile"), lines).expect("the folder is writable");
        Self(dir)
    }

    fn ready(&self, name: &str) {
        fs::write(self.0.join(name), "").expect("the folder is writable");
    }

    /// The launcher pod's command, with nothing but an operator's variables.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = rmpirun(words);
        command.env("OMPI_MCA_plm_rsh_agent", self.0.join("kubexec.sh"));
        command.env("OMPI_MCA_orte_default_hostfile", self.0.join("hostfile"));
        command.env("RMPIRUN_TERMINATION_LOG", self.0.join("termination"));
        fs::write(self.0.join("termination"), "").expect("the folder is writable");
        command
    }

    fn termination(&self) -> String {
        fs::read_to_string(self.0.join("termination")).expect("it was made")
    }
}

/// Pids of this machine whose environment or command line has `text`.
fn pids_with(text: &str, of: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("proc").flatten();
    let pid = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(of)).ok()?;
        String::from_utf8_lossy(&bytes).contains(text).then_some(pid)
    };
    all.filter_map(pid).collect()
}

#[test]
fn ranks_start_without_a_standard_input() {
    let pods = Pods::new("start", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    pods.ready("pi-worker-1");
    let words = "one\n  two 'three' \"four\" $HOME `five` \\";
    let run = run(&mut pods.command(&[
        "--tag-output",
        "sh",
        "-c",
        "echo $RMPI_NODE_ID; printf '%s' \"$1\"",
        "x",
        words,
    ]));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert_eq!(run.stderr, "", "what the script traces is nobody's business");
    for (rank, pod) in [(0, "pi-worker-0"), (1, "pi-worker-0"), (2, "pi-worker-1"), (3, "pi-worker-1")] {
        let tag = format!("[1,{rank}]<stdout>:");
        let lines: Vec<String> =
            run.text().lines().filter_map(|l| l.strip_prefix(&tag).map(str::to_owned)).collect();
        assert_eq!(lines.join("\n"), format!("{pod}\n{words}"), "{}", run.text());
    }
    assert_eq!(pods.termination(), "", "nothing failed");
}

/// More pods than agents run at once, and than other launchers' trees begin with: all are reached from here.
#[test]
fn seventy_pods_are_reached_from_the_launcher() {
    let names: Vec<String> = (0..70).map(|n| format!("many-worker-{n}")).collect();
    let pods = Pods::new("many", &names.iter().map(String::as_str).collect::<Vec<_>>());
    names.iter().for_each(|name| pods.ready(name));
    let run = run(&mut pods.command(&["--map-by", "ppr:1:node", "sh", "-c", "echo $RMPI_NODE_ID"]));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let text = run.text();
    let mut seen: Vec<&str> = text.lines().collect();
    let mut want: Vec<&str> = names.iter().map(String::as_str).collect();
    seen.sort_unstable();
    want.sort_unstable();
    assert_eq!(seen, want);
}

#[test]
fn a_failing_rank_s_code_and_words_reach_the_pod_s_message() {
    let pods = Pods::new("fail", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    pods.ready("pi-worker-1");
    let script = "test $RANK = 3 && { echo boom >&2; exit 3; }; sleep 100";
    let run = run(&mut pods.command(&["sh", "-c", script]));
    assert_eq!(run.code(), 3, "{}", run.stderr);
    let message = pods.termination();
    assert!(message.starts_with("rank 3 on pi-worker-1 (pid "), "{message}");
    assert!(message.contains("its last stderr line: \"boom\""), "{message}");
}

#[test]
fn a_pod_that_comes_late_is_waited_for() {
    let pods = Pods::new("late", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    let child = pods.command(&["sh", "-c", "echo $RMPI_NODE_ID"]).spawn().expect("rmpirun starts");
    // Asked for twice in vain, so it is waited for.
    let until = Instant::now() + DEADLINE;
    while fs::read(pods.0.join("asked.pi-worker-1")).map_or(0, |asked| asked.len()) < 2 {
        assert!(Instant::now() < until, "it is not asked for again");
        std::thread::sleep(Duration::from_millis(20));
    }
    pods.ready("pi-worker-1");
    let run = finish(child);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert_eq!(run.text().matches("pi-worker-1").count(), 2, "{}", run.text());
}

#[test]
fn a_pod_that_never_comes_is_named_with_what_was_seen() {
    let pods = Pods::new("never", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    let run = run(&mut pods.command(&["--wait-hosts", "2", "true"]));
    assert_eq!(run.code(), 255, "{}", run.stderr);
    assert!(run.stderr.contains("2 hosts, 1 could not be used; nothing was started"), "{}", run.stderr);
    let line = run.stderr.lines().find(|l| l.contains("pi-worker-1")).unwrap_or_default();
    assert!(line.contains("shell") && line.contains("pods \"pi-worker-1\" not found"), "{}", run.stderr);
    assert!(pods.termination().contains("pi-worker-1"), "{}", pods.termination());
}

#[test]
fn an_image_without_us_is_told_what_to_do() {
    let pods = Pods::new("image", &["pi-worker-0"]);
    pods.ready("pi-worker-0");
    let mut command = pods.command(&["--daemon", "path:/nonexistent/rmpirun", "true"]);
    // No other place has one either.
    command.env("PATH", "/usr/bin:/bin");
    let run = run(&mut command);
    assert_eq!(run.code(), 255, "{}", run.stderr);
    assert!(run.stderr.contains("put rmpirun into the worker's image"), "{}", run.stderr);
}

/// Started ranks, when each of the pods has one.
fn running(child: &Child, marker: &str, ranks: usize) -> Vec<u32> {
    let until = Instant::now() + DEADLINE;
    loop {
        let pids = pids_with(marker, "cmdline");
        let pids: Vec<u32> = pids.into_iter().filter(|p| *p != child.id()).collect();
        let sleeping = pids.iter().filter(|p| cmdline(**p).starts_with("sleep")).count();
        if sleeping >= ranks {
            return pids;
        }
        assert!(Instant::now() < until, "the ranks do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn cmdline(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|b| String::from_utf8_lossy(&b).replace('\0', " "))
        .unwrap_or_default()
}

#[test]
fn a_worker_that_vanishes_is_named_and_nothing_stays() {
    let pods = Pods::new("vanish", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    pods.ready("pi-worker-1");
    let marker = format!("86401.{}", std::process::id());
    let child = pods.command(&["sleep", &marker]).spawn().expect("rmpirun starts");
    running(&child, &marker, 4);
    // Everything of one pod at once, as when its node loses power.
    let node = "RMPI_NODE_ID=pi-worker-1\0";
    let here = pods.0.display().to_string();
    let of_pod: Vec<u32> = pids_with(node, "environ")
        .into_iter()
        .filter(|p| {
            fs::read(format!("/proc/{p}/environ")).is_ok_and(|b| String::from_utf8_lossy(&b).contains(&here))
        })
        .collect();
    assert!(!of_pod.is_empty());
    for pid in &of_pod {
        let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    }
    let run = finish(child);
    assert_eq!(run.code(), 254, "{}", run.stderr);
    assert!(run.stderr.contains("host pi-worker-1 was lost"), "{}", run.stderr);
    let gone = Instant::now() + DEADLINE;
    while !pids_with(&marker, "cmdline").is_empty() {
        assert!(Instant::now() < gone, "ranks stay: {:?}", pids_with(&marker, "cmdline"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn daemons_of_a_killed_launcher_leave_by_themselves() {
    let pods = Pods::new("killed", &["pi-worker-0", "pi-worker-1"]);
    pods.ready("pi-worker-0");
    pods.ready("pi-worker-1");
    let marker = format!("86402.{}", std::process::id());
    let child = pods.command(&["sleep", &marker]).spawn().expect("rmpirun starts");
    running(&child, &marker, 4);
    signal(child.id(), "KILL");
    let _ = finish(child);
    let gone = Instant::now() + DEADLINE;
    while !pids_with(&marker, "cmdline").is_empty() {
        assert!(Instant::now() < gone, "ranks stay: {:?}", pids_with(&marker, "cmdline"));
        std::thread::sleep(Duration::from_millis(50));
    }
}
