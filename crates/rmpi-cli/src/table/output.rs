//! Rows: standard input and output.

use crate::output;
use crate::row::{Act, Row, Topic, row};
use rmpi_types::spec::Tag;

const T: Topic = Topic::Output;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "stdin",
        &[],
        "RANK",
        Act::Text(output::stdin),
        "Who reads our standard input: a rank (0), 'all' or 'none'. The others read /dev/null.",
    ),
    row(
        T,
        "tag-output",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.output.tag = Tag::OpenMpi4;
            Ok(())
        }),
        "Begin each line with [1,RANK]<stdout>: as Open MPI 4.1 does.",
    ),
    row(
        T,
        "prepend-rank",
        &["l"],
        "",
        Act::Flag(|t| {
            t.job.job.output.tag = Tag::Hydra;
            Ok(())
        }),
        "Begin each line with [RANK] as Hydra does.",
    ),
    row(
        T,
        "timestamp-output",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.output.timestamp = true;
            Ok(())
        }),
        "Begin each line with the time.",
    ),
    row(
        T,
        "output",
        &[],
        "LIST",
        Act::Os(|t, list| output::output(t, &list)),
        "Open MPI 5's list: tag, timestamp, merge-stderr-to-stdout, json, dir=DIR[:nocopy].",
    ),
    row(
        T,
        "merge-stderr-to-stdout",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.output.merge_stderr = true;
            Ok(())
        }),
        "Both streams of the ranks on our standard output.",
    ),
    row(
        T,
        "output-filename",
        &["output-directory"],
        "DIR[:nocopy]",
        Act::Os(|t, dir| output::directory(t, &dir)),
        "Also write DIR/1/rank.N/stdout and stderr on this host. ':nocopy' writes files only, ':nojobid' leaves out the 1/.",
    ),
    row(
        T,
        "ranks-shown",
        &["output-from"],
        "LIST",
        Act::Text(output::shown),
        "Show output of these ranks only (0,3-5, first, all); files get all.",
    ),
    row(
        T,
        "stdio",
        &[],
        "KIND",
        Act::Text(|t, kind| {
            t.job.job.output.pty = match kind {
                "pty" => Some(true),
                "pipe" => Some(false),
                "auto" => None,
                _ => return Err(format!("'{kind}' is not auto, pty or pipe")),
            };
            Ok(())
        }),
        "What ranks write to: pty, pipe, or auto (the default: a pty if our standard output is a terminal).",
    ),
    row(
        T,
        "on-broken-pipe",
        &[],
        "WHAT",
        Act::Text(|t, what| {
            t.job.job.output.ignore_broken_pipe = match what {
                "stop" => false,
                "ignore" => true,
                _ => return Err(format!("'{what}' is not stop or ignore")),
            };
            Ok(())
        }),
        "When the reader of our output is gone: stop (the default) or ignore.",
    ),
    row(
        T,
        "quiet",
        &["q"],
        "",
        Act::Flag(|t| {
            t.job.job.output.quiet = true;
            Ok(())
        }),
        "No notes and summaries of ours; errors are still told.",
    ),
];
