//! `--dry-run`: what would be done, as far as it is known without asking any host.

use rmpi_cli::Command;
use rmpi_launch::types::env::withheld;
use rmpi_launch::types::exit;
use rmpi_launch::types::spec::EnvMap;
use rmpi_launch::{Parts, report};
use std::fmt::Write as _;

/// Shows hosts, slots, map, bindings, ways onto the hosts, settings and what of the environment stays here.
pub(crate) fn run(command: &Command) -> u8 {
    let plan = match rmpi_launch::preview(&command.job) {
        Ok(plan) => plan,
        Err(fault) => {
            crate::say(&report::lines(&fault));
            crate::say(&format!("rmpirun: exit code {}\n", exit::USAGE));
            return exit::USAGE;
        }
    };
    let display = command.display;
    let parts = Parts {
        allocation: true,
        map: true,
        bindings: true,
        topology: display.topology,
        parseable: display.parseable,
    };
    let mut out = plan.render(parts);
    for (host, way) in rmpi_launch::ways(&command.job) {
        let _ = writeln!(out, "rmpirun: reach {host}: {way}");
    }
    for setting in command.settings() {
        let _ = writeln!(out, "rmpirun: setting {}", report::sanitize(&setting));
    }
    let env: EnvMap = std::env::vars_os().collect();
    let mut held: Vec<String> = command
        .job
        .apps
        .iter()
        .flat_map(|app| withheld(&env, &app.env))
        .map(|n| n.to_string_lossy().into_owned())
        .collect();
    held.sort();
    held.dedup();
    if !held.is_empty() {
        let _ = writeln!(out, "rmpirun: not forwarded (name with -x): {}", held.join(" "));
    }
    if display.stdout {
        return crate::print(&out);
    }
    crate::say(&out);
    0
}
