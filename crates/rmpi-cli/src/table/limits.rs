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
            Ok(())
        }),
        "From SIGTERM to SIGKILL when ranks are stopped (5 s).",
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
                "restart" => return Err("restart is not supported by this version".into()),
                _ => return Err(format!("'{what}' is not stop or continue")),
            };
            Ok(())
        }),
        "When a rank fails: stop the others (the default) or let them continue to their own end.",
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
];
