//! Running commands, timing stages, and saying what happens.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Instant;

/// One line on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
}

/// The workspace root.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo in the workspace root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command as a named stage and prints its seconds.
///
/// # Errors
/// A line naming the stage when the command cannot be started or fails.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), String> {
    let start = Instant::now();
    let status = command.status().map_err(|e| format!("{name}: {:?}: {e}", command.get_program()))?;
    say(&format!("xtask: {name}: {:.1} s", start.elapsed().as_secs_f64()));
    if status.success() { Ok(()) } else { Err(failed(name, status, command)) }
}

/// The line that names a stage whose command failed.
pub(crate) fn failed(name: &str, status: ExitStatus, command: &Command) -> String {
    format!("xtask: {name} failed ({status}): {command:?}")
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n")
}

/// Whether a program can be found (also in the system folders an ordinary user's `PATH` leaves out), or a library.
pub(crate) fn have(file: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let system = ["/usr/sbin", "/sbin", "/usr/lib64", "/usr/lib", &libraries].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(file).is_file())
}
