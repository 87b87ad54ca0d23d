//! Rows: time limits and what a failure means.

use crate::row::{Act, Row, Topic, row};
use crate::values;
use rmpi_types::spec::OnFailure;

const T: Topic = Topic::Limits;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "timeout",
        &["maxtime"],
        "TIME",
        Act::Text(|t, text| {
            t.job.job.limits.job = Some(values::limit(text)?);
            Ok(())
        }),
        "Stop the job after that time (seconds, 5m, 1:30:00); exit code 110.",
    ),
    row(
        T,
        "kill-grace",
        &[],
        "TIME",
        Act::Time(|t, time| {
            t.job.job.limits.kill_grace = time;
            t.job.grace_said = true;
            Ok(())
        }),
        "From SIGTERM to SIGKILL when ranks are stopped (5 s; after SIGTERM to us in a pod, what the pod has).",
    ),
    row(
        T,
        "drain",
        &[],
        "TIME",
        Act::Time(|t, time| {
            t.job.job.limits.drain = time;
            Ok(())
        }),
        "How long output is still carried after a failure (5 s).",
    ),
    row(
        T,
        "heartbeat",
        &[],
        "PERIOD,LIMIT",
        Act::Text(|t, text| {
            let (period, limit) =
                text.split_once(',').ok_or_else(|| format!("'{text}' is not PERIOD,LIMIT"))?;
            let (period, limit) = (values::limit(period)?, values::limit(limit)?);
            if limit < 2 * period {
                return Err(format!("'{text}': the limit must be at least twice the period"));
            }
            (t.job.job.limits.heartbeat, t.job.job.limits.lost) = (period, limit);
            Ok(())
        }),
        "Heartbeats to each host, and the silence after which it is lost (1,6).",
    ),
    row(
        T,
        "on-failure",
        &[],
        "WHAT",
        Act::Text(|t, what| {
            t.job.job.on_failure = match what {
                "stop" => OnFailure::Stop,
                "continue" => OnFailure::Continue,
                "restart" => {
                    t.job.job.restarts = t.job.job.restarts.max(1);
                    OnFailure::Stop
                }
                _ => return Err(format!("'{what}' is not stop, continue or restart")),
            };
            Ok(())
        }),
        "When a rank fails: stop the others (the default), let them continue to their own end, or stop all and start them \
         again, once unless --max-restarts says otherwise.",
    ),
    row(
        T,
        "max-restarts",
        &["restarts"],
        "N",
        Act::Text(|t, text| {
            t.job.job.restarts = match text.trim() {
                "0" => 0,
                n => values::count(n)?,
            };
            Ok(())
        }),
        "After a failure stop all ranks and start them again, at most N times; RMPIRUN_RESTART tells them which start it is.",
    ),
    row(
        T,
        "report-state-on-timeout",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.on_timeout.state = true;
            Ok(())
        }),
        "When the time limit is reached, a line a rank: where it is and whether it still runs.",
    ),
    row(
        T,
        "get-stack-traces",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.on_timeout.stacks = true;
            Ok(())
        }),
        "When the time limit is reached, what the threads of each rank are doing.",
    ),
    row(
        T,
        "forward-signals",
        &[],
        "LIST",
        Act::Text(|t, list| {
            t.job.signals.forward = Some(crate::signal::list(list)?);
            Ok(())
        }),
        "Signals passed on to the ranks, by name or number, or 'none' (ABRT ALRM CONT TSTP USR1 USR2 unless given).",
    ),
    row(
        T,
        "continuous",
        &["enable-recovery", "disable-auto-cleanup"],
        "",
        Act::Flag(|t| {
            t.job.job.on_failure = OnFailure::Continue;
            Ok(())
        }),
        "As --on-failure continue.",
    ),
    row(
        T,
        "disable-recovery",
        &["enable-auto-cleanup"],
        "",
        Act::Flag(|t| {
            t.job.job.on_failure = OnFailure::Stop;
            Ok(())
        }),
        "As --on-failure stop.",
    ),
    row(
        T,
        "report-child-jobs-separately",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.children_apart = true;
            Ok(())
        }),
        "What ranks do that were spawned does not count for the exit code: one that fails ends only those it was spawned \
         with.",
    ),
    row(
        T,
        "allow-exit-without-sync",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.unfinished_ok = true;
            Ok(())
        }),
        "An MPI program that ends with code 0 without finalizing has not failed.",
    ),
    row(
        T,
        "signal-direct-children-only",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.signal_direct = true;
            Ok(())
        }),
        "Signals go to the ranks themselves, not to the processes they have started; killing still finds all.",
    ),
];
