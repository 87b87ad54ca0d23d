//! The failure summary: who failed first and how, what became of the others, its last words. Pure rendering.

use super::fold::{ranks, sanitize};
use super::signals;
use crate::outcome::Outcome;
use rmpi_types::outcome::Cause;
use rmpi_types::{RankEnd, RankExit, RankSet};
use std::fmt::Write as _;

/// Later failures named one by one, at most.
const ALSO_MAX: usize = 8;

/// One rank's end in words: `rank 3 on n2 (pid 3042) died: signal 11 (segmentation fault), core dumped`.
fn rank_line(outcome: &Outcome, exit: &RankExit) -> String {
    let host = outcome.host_of(exit.proc.rank).map_or_else(|| "an unknown host".to_owned(), sanitize);
    let who = format!("{} on {host} (pid {})", exit.proc, exit.pid);
    if let Some(abort) = &exit.abort {
        if !abort.called {
            return format!("{who} {}", sanitize(&abort.message));
        }
        let mut text = format!("{} on {host} called abort with code {}", exit.proc, abort.code);
        if !abort.message.is_empty() {
            let _ = write!(text, ": {}", sanitize(&abort.message));
        }
        return text;
    }
    match exit.end {
        RankEnd::Exited(code) => format!("{who} exited with code {code}"),
        RankEnd::Signaled { signal, core } => {
            let core = if core { ", core dumped" } else { "" };
            let oom = if exit.oom { ", out of memory" } else { "" };
            format!("{who} died: {}{core}{oom}", signals::described(signal))
        }
    }
}

/// `3 other ranks were stopped (2 by SIGTERM, 1 by SIGKILL)`; `None` when none was.
fn stopped(stopped: &[(i32, u32)], other: &str) -> Option<String> {
    let total: u32 = stopped.iter().map(|&(_, n)| n).sum();
    if total == 0 {
        return None;
    }
    let how = |&(signal, n): &(i32, u32)| match signal {
        0 => format!("{n} ended by themselves"),
        _ => format!("{n} by {}", signals::name(signal)),
    };
    let list: Vec<String> = stopped.iter().filter(|s| s.1 > 0).map(how).collect();
    let (s, were) = if total == 1 { ("", "was") } else { ("s", "were") };
    Some(format!("{total} {other}rank{s} {were} stopped ({})", list.join(", ")))
}

/// The lines that say what ended the job, without the exit code line. Empty for success.
pub(super) fn summary(outcome: &Outcome) -> String {
    let job = &outcome.job;
    let mut out = String::new();
    match &job.cause {
        Cause::Success | Cause::BrokenPipe | Cause::Launch(_) | Cause::Plan { .. } => return out,
        Cause::Rank(exit) => {
            let _ = writeln!(out, "rmpirun: {}", rank_line(outcome, exit));
            let at = job.failed_after_us.map(|us| format!("first failure at {:.3} s", seconds(us)));
            let parts: Vec<String> = at.into_iter().chain(stopped(&job.stopped, "other ")).collect();
            if !parts.is_empty() {
                let _ = writeln!(out, "rmpirun:   {}", parts.join("; "));
            }
            if let Some(line) = exit.last_stderr.last() {
                let _ = writeln!(out, "rmpirun:   its last stderr line: \"{}\"", sanitize(line));
            }
        }
        Cause::NodeLost { node, what, ranks: lost } => {
            let host = outcome.host_name(*node);
            let _ = write!(out, "rmpirun: host {} was lost: {}", sanitize(host), sanitize(what));
            if !lost.is_empty() {
                let _ = write!(out, "; {} ran there", ranks(lost));
            }
            out.push('\n');
            others(&mut out, outcome);
        }
        Cause::Timeout { limit_ms } => {
            let _ = writeln!(out, "rmpirun: the job's time limit of {} s was reached", decimal(*limit_ms));
            others(&mut out, outcome);
        }
        Cause::Signal(signal) => {
            let _ = writeln!(out, "rmpirun: stopped by {}", signals::name(*signal));
            others(&mut out, outcome);
        }
        Cause::Internal(what) => {
            let _ = writeln!(out, "rmpirun: {}", sanitize(what));
        }
    }
    also(&mut out, outcome);
    out
}

fn others(out: &mut String, outcome: &Outcome) {
    if let Some(text) = stopped(&outcome.job.stopped, "") {
        let _ = writeln!(out, "rmpirun:   {text}");
    }
}

/// Further failures, and ranks whose end nobody saw.
fn also(out: &mut String, outcome: &Outcome) {
    for exit in outcome.job.also.iter().take(ALSO_MAX) {
        let _ = writeln!(out, "rmpirun:   also: {}", rank_line(outcome, exit));
    }
    if outcome.job.also.len() > ALSO_MAX {
        let rest: RankSet = outcome.job.also[ALSO_MAX..].iter().map(|e| e.proc.rank).collect();
        let _ = writeln!(out, "rmpirun:   also failed: {}", ranks(&rest));
    }
    let is_lost = |r: &rmpi_types::Rank| matches!(&outcome.job.cause, Cause::NodeLost { ranks, .. } if ranks.contains(*r));
    let unknown: RankSet = outcome.job.unknown.iter().copied().filter(|r| !is_lost(r)).collect();
    if !unknown.is_empty() {
        let _ = writeln!(out, "rmpirun:   unknown fate: {}", ranks(&unknown));
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a job fit 53 bits for 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Milliseconds as seconds without needless digits: `2`, `0.5`.
fn decimal(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
