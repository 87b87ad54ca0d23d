//! Exit codes of the `rmpirun` command (`docs/exit-codes.md`). Codes 1-255 of a failing rank pass through;
//! these are the launcher's own.

/// A wrong option, host file or plan; nothing was started.
pub const USAGE: u8 = 2;
/// Something that should not happen inside the launcher.
pub const INTERNAL: u8 = 70;
/// The limit of `--timeout` was reached.
pub const TIMEOUT: u8 = 110;
/// An explicitly given working directory does not exist on a node.
pub const NO_WDIR: u8 = 125;
/// The program cannot be executed (permission, format, directory, interpreter).
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;
/// A host was lost while the job ran.
pub const NODE_LOST: u8 = 254;
/// A host could not be used at launch.
pub const LAUNCH: u8 = 255;

/// The code a shell gives a process that a signal ended: 128 + N.
#[must_use]
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + (signal & 0x7f)).unwrap_or(u8::MAX)
}
