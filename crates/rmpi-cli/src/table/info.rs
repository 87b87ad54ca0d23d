//! Rows: seeing what is done.

use crate::command::LogLevel;
use crate::output;
use crate::row::{Act, Arity, Row, Topic, row};

const T: Topic = Topic::Info;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "help",
        &["h"],
        "TOPIC",
        // `parse` looks for it before anything else, so that help needs no valid command line.
        Act::Text(|_, _| Ok(())),
        "Help; with a topic (see there), 'all', or the name of an option more of it.",
    )
    .arity(Arity::Optional),
    row(T, "version", &["V", "info"], "", Act::Flag(|_| Ok(())), "The version."),
    row(
        T,
        "personality",
        &[],
        "NAME",
        // Read before everything else, as it decides what other options mean.
        Act::Text(|_, _| Ok(())),
        "Habits of which launcher hold where they differ: default or hydra.",
    ),
    row(
        T,
        "dry-run",
        &["do-not-launch"],
        "",
        Act::Flag(|t| {
            t.job.display.dry_run = true;
            t.job.display.map = true;
            Ok(())
        }),
        "Show hosts and map, start nothing.",
    ),
    row(
        T,
        "display-map",
        &["display-devel-map", "display-diffable-map", "print-rank-map"],
        "",
        Act::Flag(|t| {
            t.job.display.map = true;
            Ok(())
        }),
        "Show on standard error which rank runs where.",
    ),
    row(
        T,
        "display-allocation",
        &["display-devel-allocation"],
        "",
        Act::Flag(|t| {
            t.job.display.allocation = true;
            Ok(())
        }),
        "Show hosts and slots.",
    ),
    row(
        T,
        "display",
        &[],
        "LIST",
        Act::Text(|t, list| output::display(&mut t.job.display, list)),
        "Open MPI 5's list: allocation, bindings, map.",
    ),
    row(
        T,
        "report-bindings",
        &[],
        "",
        Act::Flag(|t| {
            t.job.display.bindings = true;
            Ok(())
        }),
        "One line a rank about its CPUs.",
    ),
    row(
        T,
        "verbose",
        &["v"],
        "",
        Act::Flag(|t| {
            t.job.log.level = t.job.log.level.max(LogLevel::Info);
            Ok(())
        }),
        "Say what is done: --log info.",
    ),
    row(
        T,
        "debug-devel",
        &["d", "debug-daemons", "debug-daemons-file", "leave-session-attached", "profile"],
        "",
        Act::Flag(|t| {
            t.job.log.level = t.job.log.level.max(LogLevel::Debug);
            Ok(())
        }),
        "Say how it is done: --log debug.",
    ),
    row(
        T,
        "log",
        &[],
        "LEVEL",
        Act::Text(|t, level| {
            t.job.log.level = match level {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => return Err(format!("'{level}' is not error, warn, info, debug or trace")),
            };
            Ok(())
        }),
        "Messages of rmpirun itself: error, warn (the default), info, debug, trace.",
    ),
    row(
        T,
        "log-format",
        &[],
        "FORMAT",
        Act::Text(|t, format| {
            t.job.log.json = match format {
                "text" => false,
                "json" => true,
                _ => return Err(format!("'{format}' is not text or json")),
            };
            Ok(())
        }),
        "Form of those messages: text or json.",
    ),
];
