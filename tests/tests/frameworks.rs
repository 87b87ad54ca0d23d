//! Real frameworks under the built launcher, as far as that is quick; `cargo xtask test --frameworks` has the rest.

#![allow(clippy::print_stdout, reason = "tests say what they skip")]

use rmpi_tests::bins::{path, root};
use rmpi_tests::procs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Importing it alone takes a minute on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// PyTorch's collectives with known answers over Gloo, its ranks found by their environment alone.
#[test]
fn the_ranks_of_torch_find_each_other() {
    let python = std::env::var_os("RMPI_TORCH").unwrap_or_else(|| "/usr/bin/python3".into());
    let mut import = Command::new(&python);
    import.args(["-c", "import torch"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !import.status().is_ok_and(|status| status.success()) {
        println!("skipped: {} has no torch (python3-torch; RMPI_TORCH names another)", python.display());
        return;
    }
    let mut command = Command::new(path("rmpirun"));
    command
        .args(["-np", "2", "--oversubscribe"])
        .arg(python)
        .arg(root().join("tests/frameworks/torch_gloo.py"));
    let run = procs::run(&mut command, LIMIT);
    assert_eq!(run.code, 0, "{}{}", run.out(), run.stderr);
    for rank in ["rank 0 of 2: ok", "rank 1 of 2: ok"] {
        assert!(run.out().contains(rank), "{}{}", run.out(), run.stderr);
    }
}
