//! Rules that every row keeps, and the page made from the rows.

use crate::row::{Arity, Behaviour, Row};
use crate::{Personality, options_markdown, table, typed, vars};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

#[test]
fn names_are_unique_in_each_personality() {
    let mut seen = HashSet::new();
    for row in table::rows() {
        for name in row.names() {
            assert!(seen.insert((name, format!("{:?}", row.only))), "{name} twice");
            assert!(!name.contains('_') && !name.starts_with('-'), "{name}");
            let found = table::find(name, row.only.unwrap_or_default()).unwrap();
            assert_eq!(found.name, row.name);
        }
    }
}

#[test]
fn active_rows_act_and_are_explained() {
    for row in table::rows() {
        assert_eq!(row.act.is_some(), row.behaviour == Behaviour::Active, "{}", row.name);
        assert_eq!(row.value.is_empty(), row.arity == Arity::Flag, "{}", row.name);
        assert!(row.behaviour != Behaviour::Active || row.help.ends_with('.'), "{}", row.name);
    }
}

/// Values one of which each active row takes.
const SAMPLES: &[&[&str]] = &[
    &[],
    &["2"],
    &["none"],
    &["node"],
    &["2,9"],
    &["core"],
    &["1:node"],
    &["n1:2"],
    &["FOO=1"],
    &["F", "1"],
    &["5", "60"],
    &["map"],
    &["tag"],
    &["pipe"],
    &["stop"],
    &["strict"],
    &["ssh"],
    &["push"],
    &["text"],
    &["trace"],
    &["default"],
    &["ignore"],
    &["fork"],
    &["json"],
    &["continue"],
    &["path:/d"],
    &["quic"],
    &["slurm"],
    &["gpu"],
    &["4"],
    &["off"],
    &["static"],
    &["timeout=5"],
    &["--timeout 5"],
    &["horovod.yaml"],
];

/// An option without an effect on the draft would be an option that does nothing.
#[test]
fn every_active_row_takes_something_and_changes_something() {
    // Looked at before the rows are applied, or undone by others: their own tests are in `lines`.
    let elsewhere = ["help", "version", "personality", "app", "completions", "man", "check-build"];
    let defaults = ["nooversubscribe", "genvall", "noprefix", "disable-recovery"];
    let mut idle = Vec::new();
    for row in table::rows().filter(|r| r.behaviour == Behaviour::Active) {
        if elsewhere.contains(&row.name) {
            continue;
        }
        let changed = SAMPLES.iter().filter_map(|s| effect(row, s)).any(|c| c);
        if !changed && !defaults.contains(&row.name) {
            idle.push(row.name);
        }
    }
    assert!(idle.is_empty(), "these change nothing: {idle:?}");
}

/// Whether a sample, if the row takes it, changes the draft.
fn effect(row: &Row, sample: &[&str]) -> Option<bool> {
    use crate::draft::{AppDraft, JobDraft, Layer, Target};
    let env = Default::default();
    let sources = crate::Sources {
        env: &env,
        read_file: &super::file,
        read_stdin: &|| Ok(Vec::new()),
        run: &|words| super::program(words),
        have: &|name| name == "srun",
        cwd: "/w".into(),
        argv0: "rmpirun".into(),
    };
    let mut job = JobDraft { layer: Layer::Line, ..JobDraft::default() };
    let mut app = AppDraft::default();
    let before = format!("{job:?}{app:?}");
    let act = row.act?;
    let values = sample.iter().map(|s| typed::read(act, OsStr::new(s))).collect::<Result<_, _>>().ok()?;
    let mut target = Target { job: &mut job, app: &mut app, sources: &sources, spelled: row.name };
    typed::call(act, &mut target, values).ok()?;
    Some(format!("{job:?}{app:?}") != before)
}

#[test]
fn every_row_is_reached_through_the_pre_pass() {
    for row in table::rows() {
        let args: &[&str] = match row.arity {
            Arity::Flag | Arity::Optional => &[],
            Arity::One => &["v"],
            Arity::Pair | Arity::PairOrMode => &["n", "v"],
        };
        for name in row.names() {
            for dashes in ["-", "--"] {
                let mut line = vec![format!("{dashes}{name}").into()];
                line.extend(args.iter().map(Into::into));
                line.extend(["prog".into(), "-np".into()]);
                let personality = row.only.unwrap_or(Personality::Default);
                if row.arity == Arity::Optional {
                    line.insert(1, "topic".into());
                }
                let segment = crate::prepass::segment(&line, personality).unwrap();
                assert_eq!(segment.options[0].row.name, row.name);
                assert_eq!(segment.command, ["prog", "-np"], "{name}");
            }
        }
    }
}

#[test]
fn own_variables_are_unique() {
    let names: Vec<String> = table::rows().filter(|r| vars::own(r)).map(vars::variable_of).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    for rank in ["RMPIRUN_RANK", "RMPIRUN_SIZE", "RMPIRUN_HOSTS", "RMPIRUN_JOB_ID", "RMPIRUN_NNODES"] {
        assert!(!names.iter().any(|n| n == rank), "{rank} is set for ranks");
    }
}

#[test]
fn the_page_of_options_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/options.md");
    let want = options_markdown();
    if std::env::var_os("RMPI_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == want, "docs/options.md differs from the table; run with RMPI_BLESS=1");
}
