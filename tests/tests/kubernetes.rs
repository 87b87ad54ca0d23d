//! Pods of operators, and the manifests we ship: a few of `cargo xtask kubernetes`'s cases, and that every manifest's
//! command line is one of ours.

#![allow(clippy::print_stdout, reason = "tests say what they skip")]

use rmpi_tests::bins::{path, root};
use rmpi_tests::pods::{self, cases};
use rmpi_tests::{long, procs};
use std::process::Command;
use std::time::Duration;

/// One set of each kind, and the cases that take seconds; `--long` runs all.
const LIGHT: [&[&str]; 7] = [
    &["training-v1-1.9 ", "all up"],
    &["training-v1-1.9 ", "late worker"],
    &["training-v1-1.9 ", "pod grace"],
    &["training-v1-1.9-gpu-launcher", "all up"],
    &["mpi-v2beta1-0.8-openmpi Serve", "all up"],
    &["trainer-v2.3", "Sshd", "all up"],
    &["volcano Serve", "all up"],
];

#[test]
fn pods_of_every_kind_run_a_job() {
    if let Err(why) = pods::possible() {
        println!("skipped: no pods of namespaces here: {why}");
        return;
    }
    let all: [&[&str]; 1] = [&[]];
    let wanted = if long() { &all[..] } else { &LIGHT[..] };
    for words in wanted {
        let rows = cases::run(words, |_| {}).expect("pods can be had");
        assert!(!rows.is_empty(), "{words:?} names no case");
        for row in rows {
            assert!(row.result.is_ok(), "{} {:?} {}: {:?}", row.set, row.way, row.case, row.result);
        }
    }
}

/// The words of a flow list, `["a", "b"]`.
fn words(list: &str) -> Vec<String> {
    list.split(['[', ']', ','])
        .map(|w| w.trim().trim_matches('"').to_owned())
        .filter(|w| !w.is_empty())
        .collect()
}

#[test]
fn every_manifest_s_command_line_is_understood() {
    let folder = root().join("deploy/manifests");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the manifests are there").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a manifest");
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if line.trim() != "command: [\"mpirun\"]" {
                continue;
            }
            // The list may go over several lines.
            let rest: String = lines[n + 1..].iter().take(3).copied().collect();
            let args = rest.split_once("args: ").expect("arguments follow").1;
            let args = words(&args[..=args.find(']').expect("a flow list")]);
            let args: Vec<String> =
                args.into_iter().filter(|a| a != "/etc/mpi/hostfile" && a != "--hostfile").collect();
            let mut command = Command::new(path("rmpirun"));
            command.args(["--dry-run", "--host", "localhost:8"]).args(&args);
            let run = procs::run(&mut command, Duration::from_secs(30));
            assert_eq!(run.code, 0, "{}: {args:?}: {}", entry.path().display(), run.stderr);
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} command lines");
}

/// Against the operators' own definitions, where `RMPI_CRDS` names a folder with them.
#[test]
fn manifests_fit_the_operators_schemas() {
    let Some(folder) = std::env::var_os("RMPI_CRDS") else {
        println!("skipped: RMPI_CRDS names no folder with custom resource definitions");
        return;
    };
    let manifests =
        std::fs::read_dir(root().join("deploy/manifests")).expect("the manifests are there").flatten();
    let manifests = manifests.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    let python = std::env::var_os("RMPI_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(root().join("tests/kubernetes/validate.py")).arg(folder).args(manifests);
    let run = procs::run(&mut command, Duration::from_secs(60));
    assert_eq!(run.code, 0, "{}{}", run.out(), run.stderr);
}

/// What the real plugin makes of a task, where `RMPI_FLYTE` names a Python that has it.
#[test]
fn the_lines_of_flyte_s_plugin_are_understood() {
    let Some(python) = std::env::var_os("RMPI_FLYTE") else {
        println!("skipped: RMPI_FLYTE names no Python with flytekitplugins-kfmpi");
        return;
    };
    let mut command = Command::new(python);
    command.arg(root().join("tests/frameworks/flyte_lines.py"));
    let made = procs::run(&mut command, Duration::from_secs(120));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let lines: Vec<Vec<String>> =
        made.out().lines().map(|l| serde_json::from_str(l).expect("a list of words")).collect();
    assert_eq!(lines.len(), 2);
    for words in lines {
        let at = words.iter().position(|w| w == "mpirun" || w == "horovodrun").expect("it calls a launcher");
        let personality = if words[at] == "horovodrun" { "horovodrun" } else { "default" };
        let mut command = Command::new(path("rmpirun"));
        command.args(["--personality", personality, "--dry-run", "--oversubscribe", "--host", "localhost:4"]);
        // The operator's script is asked even for a plan; here is no pod.
        let hosts = std::env::temp_dir().join(format!("rmpi-discover-hosts.{}", std::process::id()));
        std::fs::write(&hosts, "#!/bin/sh\necho localhost:2\necho 127.0.0.1:2\n").expect("a temporary file");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&hosts, executable).expect("our own file");
        let own = |w: &String| match w.as_str() {
            "/etc/mpi/discover_hosts.sh" => hosts.display().to_string(),
            _ => w.clone(),
        };
        command.args(words[at + 1..].iter().map(own));
        let run = procs::run(&mut command, Duration::from_secs(30));
        let _ = std::fs::remove_file(&hosts);
        assert_eq!(run.code, 0, "{words:?}: {}", run.stderr);
    }
}
