//! The per-node daemon as a program of its own; everything real is in `rmpi-daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(rmpi_daemon::main(std::env::args_os().skip(1)))
}
