//! `cargo xtask test`: all tests, with what they need installed when we may.

use crate::group::OneGroup;
use crate::stage::{self, cargo, have, is_root, say};
use crate::{build, failures, mpi};
use std::process::Command;

/// What tests use: a program to look for, the Debian packages that have it and what it needs, and what is skipped
/// without.
pub(crate) type Need = (&'static str, &'static [&'static str], &'static str);

const NEEDS: [Need; 3] = [
    ("ssh", &["openssh-client"], "the differential test of the client configuration"),
    ("fish", &["fish"], "starting the daemon from a fish login shell"),
    ("tcsh", &["tcsh"], "starting the daemon from a csh login shell"),
];

/// What the hosts of tests are made with.
pub(crate) const CLUSTER: [Need; 4] = [
    ("sshd", &["openssh-server"], "tests against real OpenSSH hosts"),
    ("ip", &["iproute2"], "the namespace cluster"),
    ("unshare", &["util-linux"], "the namespace cluster"),
    ("nft", &["nftables"], "links that lose packets, and strangers, between hosts of the cluster"),
];

/// Runs everything; `long` adds the tests that take minutes.
///
/// # Errors
/// The first stage that fails.
pub(crate) fn run(long: bool) -> Result<(), String> {
    install(&[&NEEDS[..], &CLUSTER[..]].concat())?;
    let _one = OneGroup::make();
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    mpi::implementations(&mut tests)?;
    let bin = build::release()?;
    tests.env("RMPI_BIN_DIR", &bin);
    if long {
        tests.env("RMPI_LONG", "1");
    }
    failures::run("tests", &mut tests)?;
    models()
}

/// The lock-free parts in every order of their steps. Compiled apart: loom takes the place of the atomics.
fn models() -> Result<(), String> {
    let mut models = cargo(&["test", "--locked", "--profile", "fast", "--lib"]);
    models.args(["-p", "rmpi-shm", "-p", "rmpi-coll", "models"]);
    models.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", stage::target().join("loom"));
    failures::run("models", &mut models)
}

/// Installs what is missing when we may, else says what will be skipped.
///
/// # Errors
/// Packages that do not install.
pub(crate) fn install(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<_> = needs.iter().filter(|(program, ..)| !have(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if is_root() && have("apt-get") {
        let mut packages: Vec<&str> =
            missing.iter().flat_map(|(_, packages, _)| *packages).copied().collect();
        packages.sort_unstable();
        packages.dedup();
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(args);
            command.stdout(std::process::Stdio::null());
            stage::run(&format!("apt-get {}", args.join(" ")), &mut command)
        };
        apt(&["update"])?;
        return apt(&[&["install", "--no-install-recommends"], &packages[..]].concat());
    }
    for (program, packages, what) in missing {
        let packages = packages.join(", ");
        say(&format!("xtask: skipped: {what} ({program} is missing; it is in {packages})"));
    }
    Ok(())
}
