//! The signal numbers the machines speak of (Linux, the same on x86-64 and AArch64). The machines only name
//! signals; sending them is the driver's work.

/// Terminal hung up.
pub const HUP: i32 = 1;
/// Interrupt, Ctrl-C.
pub const INT: i32 = 2;
/// Quit, Ctrl-\.
pub const QUIT: i32 = 3;
/// Kill.
pub const KILL: i32 = 9;
/// Terminate.
pub const TERM: i32 = 15;
/// Continue.
pub const CONT: i32 = 18;
/// Stop from the terminal, Ctrl-Z.
pub const TSTP: i32 = 20;
