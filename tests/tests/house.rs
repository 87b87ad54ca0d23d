//! Holds the house to its rules: the crate graph of `docs/architecture.md`, file sizes, who names what.

use rmpi_tests::bins::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 600;

/// `crate -> crates of ours it may depend on`, read from the table in the architecture page.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the architecture page");
    let rows = page.lines().filter(|l| l.starts_with("| `"));
    let cells = rows.map(|l| l.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|c| c.len() == 4)
        .map(|c| {
            let names =
                c[2].split(',').map(|n| n.trim().trim_matches('`')).filter(|n| !n.is_empty() && *n != "-");
            (c[0].trim_matches('`').to_owned(), names.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn the_crate_graph_is_the_one_in_the_architecture_page() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let uses: BTreeSet<String> = normal
            .map(|d| d["name"].as_str().unwrap())
            .filter(|d| ours.contains(d))
            .map(str::to_owned)
            .collect();
        match allowed.get(name) {
            None => wrong.push(format!("{name} has no row")),
            Some(may) => {
                wrong.extend(uses.symmetric_difference(may).map(|d| format!("{name} -> {d} differs")))
            }
        }
    }
    wrong.extend(
        allowed.keys().filter(|n| !ours.contains(n.as_str())).map(|n| format!("{n} has a row but no crate")),
    );
    assert!(wrong.is_empty(), "docs/architecture.md and Cargo.toml disagree:\n{}", wrong.join("\n"));
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    ["crates", "bin", "tests"].iter().for_each(|d| sources(&root().join(d), &mut found));
    found.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).expect("a source file"))).collect()
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        if !text.trim_start().starts_with("//!") {
            wrong.push(format!("{}: does not begin with what it owns", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_crate_knows_each_foreign_thing() {
    let rules = [
        ("bincode", "crates/rmpi-wire"),
        ("russh", "crates/rmpi-ssh"),
        ("clap", "crates/rmpi-cli"),
        ("rustls", "crates/rmpi-net"),
        ("quinn", "crates/rmpi-net"),
        ("tracing_subscriber", "bin/rmpirun"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let relative = path.strip_prefix(root()).unwrap();
        for (name, home) in rules {
            let names_it = text
                .lines()
                .map(str::trim_start)
                .any(|l| !l.starts_with("//") && l.contains(&format!("{name}::")));
            let tool = name == "clap" && relative.starts_with("bin/rmpi-tool");
            if names_it && !tool && !relative.starts_with(home) && !relative.starts_with("tests") {
                wrong.push(format!("{}: names {name}, which is {home}'s", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// But for the QUIC rail, which runs it on a thread of its own.
#[test]
fn the_data_plane_is_free_of_tokio() {
    let ours = ["rmpi-net", "rmpi-shm", "rmpi-core", "rmpi-coll", "rmpi"];
    for crate_name in ours.into_iter().filter(|c| *c != "rmpi-net") {
        let manifest = std::fs::read_to_string(root().join("crates").join(crate_name).join("Cargo.toml"));
        assert!(!manifest.unwrap().contains("tokio"), "{crate_name} depends on tokio");
    }
    let homes = ours.map(|c| format!("crates/{c}/"));
    for (path, text) in all_sources() {
        let relative = path.strip_prefix(root()).unwrap();
        let inside = homes.iter().any(|h| relative.starts_with(h.trim_end_matches('/')));
        if inside && !relative.starts_with("crates/rmpi-net/src/quic") {
            assert!(!text.contains("tokio::"), "{} names tokio", relative.display());
        }
    }
}
