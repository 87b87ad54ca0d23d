//! A program with a launcher inside: runs a command on this machine, follows the job's events and shows what a
//! report looks like. `cargo run -p rmpi-launch --example embed -- 4 hostname`

use rmpi_launch::{DaemonSource, Delivery, Event, Job};
use std::io::{self, Write as _};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    rmpi_launch::daemon_if_asked(); // this executable is the per-node daemon as well
    let mut args = std::env::args().skip(1);
    let ranks = args.next().map_or(Ok(2), |n| n.parse())?;
    let program = args.next().unwrap_or_else(|| "hostname".into());

    let mut running = Job::builder()
        .program(program)
        .args(args)
        .ranks(ranks)
        .oversubscribe()
        .output(Delivery::Events)
        .daemon(DaemonSource::ThisExecutable)
        .build()?
        .start()?;

    let mut out = io::stdout().lock();
    for event in running.events() {
        match event {
            Event::HostUp { host, elapsed, .. } => writeln!(out, "{host} is up after {elapsed:?}")?,
            Event::RankStarted { proc, pid, .. } => writeln!(out, "{proc} runs as pid {pid}")?,
            Event::Output { proc, bytes, .. } if !bytes.is_empty() => {
                write!(out, "{proc} says {}", String::from_utf8_lossy(&bytes))?;
            }
            Event::RankExited(exit) => writeln!(out, "{} ended: {:?}", exit.proc, exit.end)?,
            _ => {}
        }
    }
    let outcome = running.wait();
    write!(out, "{}", outcome.report())?;
    std::process::exit(outcome.code().into());
}
