//! Rows: standard input and output.

use crate::output;
use crate::row::{Act, Row, Topic, row};
use rmpi_types::spec::{FileLayout, Files, Tag};

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
        "Open MPI 5's list: tag, tag-detailed, tag-fullname, timestamp, merge-stderr-to-stdout, xml, dir=DIR and \
         file=PREFIX, these with :nocopy for files only, file= with :pattern for a name with %n (job) and %r (rank); and \
         json, one object a line.",
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
        &[],
        "DIR[:nocopy]",
        Act::Os(|t, dir| output::directory(t, &dir)),
        "Also write DIR/1/rank.N/stdout and stderr on this host. ':nocopy' writes files only, ':nojobid' leaves out the 1/.",
    ),
    row(
        T,
        "output-directory",
        &[],
        "DIR",
        Act::Os(|t, dir| {
            let dir = output::absolute(t, &dir)?;
            t.job.job.output.files = Some(Files { layout: FileLayout::OpenMpi5(dir), nocopy: false });
            Ok(())
        }),
        "Also write DIR/NAMESPACE/rank.N/stdout and stderr, as --output dir=DIR.",
    ),
    row(
        T,
        "prepend-pattern",
        &[],
        "PATTERN",
        Act::Text(|t, text| {
            t.job.job.output.tag = Tag::Pattern(crate::pattern::read(text)?);
            Ok(())
        }),
        "Begin each line with a pattern: %r rank, %g group, %p node, %h host, %t time, %% percent.",
    ),
    row(
        T,
        "outfile-pattern",
        &["outfile"],
        "PATTERN",
        Act::Text(|t, text| output::pattern(t, 0, text)),
        "Write standard output of each rank to the file of this name only, with the letters of --prepend-pattern.",
    ),
    row(
        T,
        "errfile-pattern",
        &["errfile"],
        "PATTERN",
        Act::Text(|t, text| output::pattern(t, 1, text)),
        "Write standard error of each rank to the file of this name only.",
    ),
    row(
        T,
        "xml",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.output.tag = Tag::Xml;
            Ok(())
        }),
        "Lines as XML elements. --output json is easier to read for programs.",
    ),
    row(
        T,
        "xml-file",
        &[],
        "FILE",
        Act::Os(|t, file| {
            t.job.job.output.tag = Tag::Xml;
            t.job.job.output.console = Some(output::absolute(t, &file)?);
            Ok(())
        }),
        "As --xml, into this file instead of our standard output.",
    ),
    row(
        T,
        "output-where",
        &[],
        "PLACE",
        Act::Text(|t, place| {
            t.job.job.output.on_nodes = match place {
                "launcher" => false,
                "node" => true,
                _ => return Err(format!("'{place}' is not launcher or node")),
            };
            Ok(())
        }),
        "Where output files are written: launcher (here, the default) or node (by each rank's own node, as Open MPI does).",
    ),
    row(
        T,
        "stream-buffering",
        &[],
        "KIND",
        Act::Text(|t, kind| {
            // What a rank's C library does is decided by what it writes to.
            t.job.job.output.pty = match kind {
                "0" | "1" => Some(true),
                "2" => Some(false),
                _ => return Err(format!("'{kind}' is not 0 (none), 1 (lines) or 2 (full)")),
            };
            Ok(())
        }),
        "How ranks buffer: 0 or 1 gives them a pty, which makes them write whole lines at once, 2 a pipe.",
    ),
    row(
        T,
        "ranks-shown",
        &["output-from"],
        "LIST",
        Act::Text(output::shown),
        "Show output of these ranks only (0,3-5, first, all), or with 'failed' the end of what a failing rank wrote; \
         files get all.",
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
