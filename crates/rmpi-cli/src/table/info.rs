//! Rows: seeing what is done.

use crate::command::{LogLevel, Progress, Where};
use crate::draft::Target;
use crate::output;
use crate::row::{Act, Arity, Row, Set, Topic, row};

const T: Topic = Topic::Info;

/// Ranks show their connections at `init` or `finalize`: ours by one variable, Open MPI's by its parameter.
fn display_comm(target: &mut Target<'_>, when: &str) -> Set {
    target.publish("RMPI_DISPLAY_COMM", when)?;
    target.publish("OMPI_MCA_ompi_display_comm", &format!("mpi_{when}"))
}

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
        "completions",
        &[],
        "SHELL",
        // Answered before anything else, as help is.
        Act::Text(|_, shell| match crate::completions::SHELLS.contains(&shell) {
            true => Ok(()),
            false => Err(format!("'{shell}' is not bash, zsh or fish")),
        }),
        "Print completions of these options for bash, zsh or fish.",
    ),
    row(T, "man", &[], "", Act::Flag(|_| Ok(())), "Print the manual page, rmpirun(1)."),
    row(
        T,
        "personality",
        &[],
        "NAME",
        // Read before everything else, as it decides what other options mean.
        Act::Text(|_, _| Ok(())),
        "Habits of which launcher hold where they differ: default, hydra, horovodrun or torchrun.",
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
        "Open MPI 5's list: allocation, bindings, map, topo, cpus; with :parseable as fields, with :stdout on standard \
         output.",
    ),
    row(
        T,
        "parseable",
        &["parsable"],
        "",
        Act::Flag(|t| {
            t.job.display.parseable = true;
            Ok(())
        }),
        "What --display shows as fields instead of tables.",
    ),
    row(
        T,
        "display-topo",
        &["display-topology"],
        "",
        Act::Flag(|t| {
            t.job.display.topology = true;
            Ok(())
        }),
        "Show each node's packages, cores and caches.",
    ),
    row(
        T,
        "output-proctable",
        &[],
        "",
        Act::Flag(|t| {
            t.job.display.proctable = true;
            Ok(())
        }),
        "Show rank, host, process id and program of every rank once all run.",
    ),
    row(
        T,
        "stop-on-exec",
        &[],
        "",
        Act::Flag(|t| {
            output::stop_on_exec(t, true);
            Ok(())
        }),
        "Stop every rank before its first instruction and show where it is: attach a debugger there, or continue it with \
         kill -CONT.",
    ),
    row(
        T,
        "display-comm",
        &[],
        "",
        Act::Flag(|t| display_comm(t, "init")),
        "When ranks begin, one of each node shows by which way its ranks reach the others (ranks of the rmpi library; \
         Open MPI 5 shows its own).",
    ),
    row(
        T,
        "display-comm-finalize",
        &[],
        "",
        Act::Flag(|t| display_comm(t, "finalize")),
        "The same when they end.",
    ),
    row(
        T,
        "print-all-exitcodes",
        &[],
        "",
        Act::Flag(|t| {
            t.job.show.exit_codes = true;
            Ok(())
        }),
        "Show every rank's exit code at the end, on standard error.",
    ),
    row(
        T,
        "report-pid",
        &["report-uri"],
        "WHERE",
        Act::Os(|t, place| {
            t.job.show.pid = Some(match place.as_encoded_bytes() {
                b"-" => Where::Stdout,
                b"+" => Where::Stderr,
                _ => Where::File(output::absolute(t, &place)?),
            });
            Ok(())
        }),
        "Write rmpirun's process id to a file, to standard output (-) or to standard error (+).",
    ),
    row(
        T,
        "events",
        &[],
        "FILE",
        Act::Os(|t, file| {
            t.job.show.events = Some(output::absolute(t, &file)?);
            Ok(())
        }),
        "Write what happens as JSON lines (docs/events.md). FILE may be /dev/fd/N, or unix:PATH for a socket.",
    ),
    row(
        T,
        "timeline",
        &[],
        "FILE",
        Act::Os(|t, file| {
            t.job.show.timeline = Some(output::absolute(t, &file)?);
            Ok(())
        }),
        "Write a trace of launch, run and end for Perfetto or chrome://tracing.",
    ),
    row(
        T,
        "summary",
        &[],
        "FILE",
        Act::Os(|t, file| {
            t.job.show.summary = Some(output::absolute(t, &file)?);
            Ok(())
        }),
        "Write the outcome as one JSON object.",
    ),
    row(
        T,
        "progress",
        &[],
        "HOW",
        Act::Text(|t, how| {
            t.job.show.progress = match how {
                "auto" => Progress::Auto,
                "plain" => Progress::Plain,
                "off" => Progress::Off,
                _ => return Err(format!("'{how}' is not auto, plain or off")),
            };
            Ok(())
        }),
        "Progress of the launch on standard error: auto (a line that changes, on a terminal, when it takes long), plain (a \
         line a step) or off.",
    ),
    row(
        T,
        "show-progress",
        &[],
        "",
        Act::Flag(|t| {
            t.job.show.progress = Progress::Plain;
            Ok(())
        }),
        "As --progress plain.",
    ),
    row(
        T,
        "runtime-options",
        &["rto"],
        "LIST",
        Act::Text(output::runtime),
        "Open MPI 5's list of keys: error-nonzero-status, donotlaunch, show-progress, timeout=, report-state-on-timeout, ...",
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
