//! This machine without SSH: whichever of our processes is killed, nothing of the job is left.

use rmpi_tests::bins;
use rmpi_tests::procs::{self, Job, ends_within, until};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Three times what is promised: for machines that are slow, and busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// A child in the rank's group and a grandchild in a session of its own.
const FAMILY: &str = "sleep 271828 & setsid sleep 271829 & echo ready; wait";

fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().next().and_then(|p| p.parse().ok()).expect("a child process")
}

/// A job of two families, all started, marked by `mark` in their environment; `apart`: with a daemon of its own.
fn families(mark: &str, apart: bool) -> Job {
    let mut job = Command::new(bins::path("rmpirun"));
    if apart {
        job.arg("--daemon").arg(format!("path:{}", bins::path("rmpid").display()));
    }
    job.args(["--oversubscribe", "-np", "2", "-x", &format!("RMPI_TEST_MARK={mark}"), "sh", "-c", FAMILY]);
    job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut job = procs::start(&mut job, procs::LIFE);
    let mut out = BufReader::new(job.stdout.take().expect("stdout is piped"));
    for _ in 0..2 {
        let mut line = String::new();
        assert!(out.read_line(&mut line).is_ok_and(|n| n > 0), "the job ended early");
        assert_eq!(line, "ready\n");
    }
    // Kept open: a closed standard output would end the job for another reason.
    job.stdout = Some(out.into_inner());
    job
}

/// The launcher is the guard where the whole job is here, and the worker its child; with a daemon apart the guard
/// is the launcher's child and the worker the guard's.
#[test]
fn nothing_survives_whichever_of_our_processes_is_killed() {
    for (apart, victim) in
        [(false, "launcher"), (false, "worker"), (true, "launcher"), (true, "guard"), (true, "worker")]
    {
        let mark = format!("local-{victim}-{apart}-{}", std::process::id());
        let mut job = families(&mark, apart);
        // A process in the middle of its exec shows no environment for a moment.
        let marked = until(PATIENCE, || procs::with_env("RMPI_TEST_MARK", &mark).len() >= 6);
        assert!(marked, "the mark must find the families");
        let child = only_child(job.id());
        let pid = match victim {
            "launcher" => job.id(),
            "worker" if apart => only_child(child),
            _ => child,
        };
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.is_ok_and(|s| s.success()));
        let clean = until(PATIENCE, || procs::with_env("RMPI_TEST_MARK", &mark).is_empty());
        assert!(clean, "{victim} {apart}: left {:?}", procs::with_env("RMPI_TEST_MARK", &mark));
        assert!(ends_within(&mut job, PATIENCE), "{victim}: the launcher did not end");
        let code = job.wait().ok().and_then(|s| s.code());
        if victim != "launcher" {
            let mut text = String::new();
            job.stderr.take().map(|mut e| e.read_to_string(&mut text));
            assert_eq!(code, Some(254), "{victim} {apart}: {text}");
        }
    }
}

/// Someone stops the process that runs the job: the guard gives it up after the time a silent node gets.
#[test]
fn a_stopped_worker_is_lost() {
    let mark = format!("local-stopped-{}", std::process::id());
    let mut job = families(&mark, false);
    let stopped = Command::new("kill").args(["-STOP", &only_child(job.id()).to_string()]).status();
    assert!(stopped.is_ok_and(|s| s.success()));
    assert!(ends_within(&mut job, PATIENCE), "the launcher did not end");
    assert_eq!(job.wait().ok().and_then(|s| s.code()), Some(254));
    let left = procs::with_env("RMPI_TEST_MARK", &mark);
    assert!(left.is_empty(), "left {left:?}");
}

/// Users look their variables up in the page, so it has all of them.
#[test]
fn the_page_of_the_environment_names_what_ranks_get() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environment.md"))
        .expect("docs/environment.md");
    let mut job = Command::new(bins::path("rmpirun"));
    job.args(["--oversubscribe", "-np", "2", "env"]).env_clear().env("PATH", "/usr/bin:/bin");
    job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut job = procs::start(&mut job, procs::LIFE);
    let mut text = String::new();
    job.stdout.take().expect("stdout is piped").read_to_string(&mut text).expect("text");
    assert!(job.wait().is_ok_and(|status| status.success()));
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"RANK"), "{text}");
    let families = ["PMIX_", "OMPI_MCA_"];
    for name in names.into_iter().filter(|name| !families.iter().any(|f| name.starts_with(f))) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/environment.md");
    }
}
