//! Exit codes and what is said about them, for jobs on this machine.

mod common;

use common::{ranks, rmpirun, run};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

#[test]
fn a_rank_s_own_code_is_the_job_s() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -SEGV $$", 139),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("[ $OMPI_COMM_WORLD_RANK = 1 ] && exit 12; sleep 100", 12),
    ] {
        let run = run(&mut ranks(2, script));
        assert_eq!(run.code(), code, "{script}: {}", run.stderr);
        assert_eq!(run.text(), "", "{script}");
        assert_eq!(run.stderr.is_empty(), code == 0, "{script}: {}", run.stderr);
        let last = run.stderr.lines().last().unwrap_or("rmpirun: exit code 0");
        assert_eq!(last, format!("rmpirun: exit code {code}"));
    }
}

#[test]
fn the_summary_names_rank_host_cause_and_last_words() {
    let script = "[ $RANK = 1 ] && { echo 'index out of range' >&2; exit 3; }; sleep 100";
    let run = run(&mut ranks(3, script));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[0], "index out of range", "{}", run.stderr);
    assert!(lines[1].starts_with("rmpirun: rank 1 on "), "{}", run.stderr);
    assert!(lines[1].ends_with(") exited with code 3"), "{}", run.stderr);
    assert!(lines[2].starts_with("rmpirun:   first failure at "), "{}", run.stderr);
    assert!(lines[2].ends_with("2 other ranks were stopped (2 by SIGTERM)"), "{}", run.stderr);
    assert_eq!(lines[3], "rmpirun:   its last stderr line: \"index out of range\"");
    assert_eq!(lines[4..], ["rmpirun: exit code 3"]);
}

#[test]
fn programs_that_cannot_be_started() {
    let dir = std::env::temp_dir().join(format!("rmpirun-exec-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let garbage = file("garbage", "no such format\n", 0o755);
    let orphan = file("orphan", "#!/no/such/interp\n", 0o755);
    let dir_text = dir.to_str().unwrap().to_owned();
    for (program, code, says) in [
        ("nosuchprogram-x", 127, "not found"),
        ("./nosuchprogram-x", 127, "not found"),
        (plain.as_str(), 126, "permission"),
        (garbage.as_str(), 126, "format"),
        (orphan.as_str(), 126, "/no/such/interp"),
        (dir_text.as_str(), 126, "directory"),
    ] {
        let run = run(&mut rmpirun(["-np", "2", "--oversubscribe", program]));
        assert_eq!(run.code(), code, "{program}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{program}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 2, "{program}: {}", run.stderr);
    }
    let run = run(&mut rmpirun(["-np", "1", "--wdir", "/no/such/dir", "true"]));
    assert_eq!(run.code(), 125, "{}", run.stderr);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_the_user_got_wrong_is_2_and_starts_nothing() {
    for args in [
        &["-np", "0", "touch", "/nonexistent/x"][..],
        &["-np", "x", "true"],
        &["--hostfiel", "f", "true"],
        &["--hostfile", "/no/such/file", "true"],
        &["-np", "2"],
        &["-np", "99999", "true"],
        &["-np", "1", "--stdin", "1", "true"],
        &["-np", "1", "--ranks-shown", "0,1", "true"],
    ] {
        let run = run(&mut rmpirun(args));
        assert_eq!(run.code(), 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("rmpirun: "), "{args:?}: {}", run.stderr);
        assert!(run.stderr.ends_with("rmpirun: exit code 2\n"), "{args:?}: {}", run.stderr);
        assert_eq!(run.text(), "");
    }
}

#[test]
fn the_time_limit_is_110() {
    let run = run(&mut rmpirun(["-np", "2", "--oversubscribe", "--timeout", "1", "sleep", "100"]));
    assert_eq!(run.code(), 110, "{}", run.stderr);
    assert!(run.stderr.contains("time limit of 1 s"), "{}", run.stderr);
}

/// A directory that is gone is one that the node does not have.
#[test]
fn ranks_of_a_launcher_whose_directory_is_gone_run_at_home() {
    let dir = std::env::temp_dir().join(format!("rmpirun-gone-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let mut shell = std::process::Command::new("sh");
    let script = format!("rmdir \"$PWD\"; exec '{}' -np 1 pwd", env!("CARGO_BIN_EXE_rmpirun"));
    shell.args(["-c", &script]).current_dir(&dir).env("PWD", &dir);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run(&mut shell);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let gone = format!("working directory {} does not exist", dir.display());
    assert!(run.stderr.contains(&gone) && run.text().starts_with('/'), "{}{}", run.stderr, run.text());
}
