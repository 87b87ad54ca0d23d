//! The launch report: one table of all hosts when some could not be used, or one line a cause when it is the
//! program that could not be started. Pure rendering.

use super::fold::{fold_hosts, sanitize};
use crate::outcome::{HostResult, HostState};
use rmpi_types::{LaunchFault, Stage};
use std::fmt::Write as _;
use std::time::Duration;

/// Usable hosts listed one a line; more are folded into one.
const OK_ROWS_MAX: usize = 8;

struct Row {
    hosts: String,
    stage: String,
    text: String,
}

/// The table for `hosts`, of which at least one failed. Ends with a newline.
pub(super) fn launch_table(hosts: &[HostResult]) -> String {
    let failed = hosts.iter().filter(|h| matches!(h.state, HostState::Failed(_))).count();
    let s = if hosts.len() == 1 { "" } else { "s" };
    let mut out =
        format!("rmpirun: {} host{s}, {failed} could not be used; nothing was started\n", hosts.len());
    let mut rows = usable_rows(hosts);
    rows.extend(failed_rows(hosts));
    let width = rows.iter().map(|r| r.hosts.chars().count()).max().unwrap_or(0) + 3;
    for Row { hosts, stage, text } in rows {
        let _ = writeln!(out, "  {hosts:<width$}{stage:<8}{text}");
    }
    out
}

fn usable_rows(hosts: &[HostResult]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (state, stage) in [(HostState::Ready, "ok"), (HostState::Unused, "-")] {
        let these: Vec<&HostResult> = hosts.iter().filter(|h| h.state == state).collect();
        let time = |t: Duration| match state {
            HostState::Ready => format!("{:.2} s", t.as_secs_f64()),
            HostState::Unused | HostState::Failed(_) => "not reached".to_owned(),
        };
        if these.len() <= OK_ROWS_MAX {
            let row = |h: &&HostResult| Row {
                hosts: sanitize(&h.name),
                stage: stage.to_owned(),
                text: time(h.elapsed),
            };
            rows.extend(these.iter().map(row));
        } else {
            let slowest = these.iter().map(|h| h.elapsed).max().unwrap_or_default();
            let hosts = fold_hosts(these.iter().map(|h| h.name.as_str()));
            rows.push(Row { hosts, stage: stage.to_owned(), text: time(slowest) });
        }
    }
    rows
}

/// Failures in order of stage, then of appearance; hosts with one cause share a row.
fn failed_rows(hosts: &[HostResult]) -> Vec<Row> {
    let mut groups: Vec<(&LaunchFault, Vec<&HostResult>)> = Vec::new();
    for host in hosts {
        let HostState::Failed(fault) = &host.state else { continue };
        match groups.iter_mut().find(|(f, _)| (f.stage, &f.what) == (fault.stage, &fault.what)) {
            Some((_, members)) => members.push(host),
            None => groups.push((fault, vec![host])),
        }
    }
    groups.sort_by_key(|(fault, _)| fault.stage);
    groups.iter().map(|(fault, members)| failed_row(fault, members)).collect()
}

fn failed_row(fault: &LaunchFault, members: &[&HostResult]) -> Row {
    let mut text = sanitize(&fault.what);
    let tries = members.iter().map(|h| h.tries).max().unwrap_or(1);
    let slowest = members.iter().map(|h| h.elapsed).max().unwrap_or_default();
    if tries > 1 {
        let _ = write!(text, " ({tries} tries, {:.1} s)", slowest.as_secs_f64());
    }
    if let Some(hint) = &fault.hint {
        let _ = write!(text, "  ({})", sanitize(hint));
    }
    Row { hosts: fold_hosts(members.iter().map(|h| h.name.as_str())), stage: fault.stage.to_string(), text }
}

/// When every failure is of the program itself, not of a host: one line a cause, hosts folded.
/// `None` when some host failed before.
pub(super) fn exec_lines(hosts: &[HostResult]) -> Option<String> {
    let mut causes: Vec<(&LaunchFault, Vec<&str>)> = Vec::new();
    for host in hosts {
        let HostState::Failed(fault) = &host.state else { continue };
        if fault.stage != Stage::Exec {
            return None;
        }
        match causes.iter_mut().find(|(f, _)| (&f.what, &f.hint) == (&fault.what, &fault.hint)) {
            Some((_, names)) => names.push(&host.name),
            None => causes.push((fault, vec![&host.name])),
        }
    }
    let found: Vec<&str> =
        hosts.iter().filter(|h| h.state == HostState::Ready).map(|h| h.name.as_str()).collect();
    let mut out = String::new();
    for (fault, names) in &causes {
        let _ = write!(out, "rmpirun: {} on {}", sanitize(&fault.what), fold_hosts(names.iter().copied()));
        if let Some(hint) = &fault.hint {
            let _ = write!(out, " ({})", sanitize(hint));
        }
        if fault.code == rmpi_types::exit::NOT_FOUND && !found.is_empty() {
            let _ = write!(out, " (found on {})", fold_hosts(found.iter().copied()));
        }
        out.push('\n');
    }
    (!causes.is_empty()).then_some(out)
}
