//! What the user reads on stderr when a job did not go well, rendered from an [`Outcome`]: the launch report,
//! the failure summary, the exit code line. Pure functions; every line starts with `rmpirun: ` or two spaces;
//! texts that came from other machines are sanitised here and nowhere else.

mod fold;
pub mod signals;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

pub use fold::{fold_hosts, ranks, sanitize};
pub use waiting::waiting;

use crate::outcome::{HostState, Outcome};
use rmpi_types::outcome::Cause;

/// The whole report, ending with `rmpirun: exit code N`; empty after success and after a broken pipe.
/// `quiet` drops that last line when a rank's own end is the cause; nothing else can be silenced.
#[must_use]
pub fn render(outcome: &Outcome, quiet: bool) -> String {
    let mut out = match &outcome.job.cause {
        Cause::Success => return String::new(),
        Cause::BrokenPipe => match &outcome.output_error {
            Some(error) => lines(&format!("output cannot be written: {error}")),
            None => return String::new(),
        },
        Cause::Plan { message, .. } => lines(message),
        Cause::Launch(_) => launch(outcome),
        _ => summary::summary(outcome),
    };
    if !(quiet && matches!(outcome.job.cause, Cause::Rank(_))) {
        out.push_str(&format!("rmpirun: exit code {}{}\n", outcome.code(), advice(outcome)));
    }
    out
}

fn launch(outcome: &Outcome) -> String {
    table::exec_lines(&outcome.hosts).unwrap_or_else(|| table::launch_table(&outcome.hosts))
}

/// `   (rerun with --min-hosts 2 to go on without them)` where that would help.
fn advice(outcome: &Outcome) -> String {
    let Cause::Launch(faults) = &outcome.job.cause else { return String::new() };
    let ready = outcome.hosts.iter().filter(|h| h.state == HostState::Ready).count();
    let reach_only = faults.iter().all(|(_, f)| f.stage < rmpi_types::Stage::Exec);
    if ready == 0 || !reach_only {
        return String::new();
    }
    format!("   (rerun with --min-hosts {ready} to go on without them)")
}

/// A message of one or more lines as it is printed: `rmpirun: ` before each but continuations, which begin with
/// two spaces.
#[must_use]
pub fn lines(message: &str) -> String {
    let print = |line: &str| match line.starts_with("  ") {
        true => format!("{}\n", sanitize(line)),
        false => format!("rmpirun: {}\n", sanitize(line)),
    };
    message.lines().map(print).collect()
}
