//! `cargo xtask test`: all tests, with what they need installed when we may.

use crate::build;
use crate::stage::{self, cargo, have, is_root, say};
use std::process::Command;

/// What the tests use: a program to look for, the Debian package that has it, and what is skipped without.
const NEEDS: [(&str, &str, &str); 6] = [
    ("sshd", "openssh-server", "tests against real OpenSSH hosts"),
    ("ssh", "openssh-client", "the differential test of the client configuration"),
    ("ip", "iproute2", "the namespace cluster"),
    ("unshare", "util-linux", "the namespace cluster"),
    ("fish", "fish", "starting the daemon from a fish login shell"),
    ("tcsh", "tcsh", "starting the daemon from a csh login shell"),
];

/// Runs everything; `long` adds the tests that take minutes.
///
/// # Errors
/// The first stage that fails.
pub(crate) fn run(long: bool) -> Result<(), String> {
    install()?;
    let bin = build::release()?;
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("RMPI_BIN_DIR", &bin);
    if long {
        tests.env("RMPI_LONG", "1");
    }
    stage::run("tests", &mut tests)
}

fn install() -> Result<(), String> {
    let missing: Vec<_> = NEEDS.iter().filter(|(program, ..)| !have(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if is_root() && have("apt-get") {
        let mut packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
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
    for (program, package, what) in missing {
        say(&format!("xtask: skipped: {what} ({program} is missing; it is in the package {package})"));
    }
    Ok(())
}
