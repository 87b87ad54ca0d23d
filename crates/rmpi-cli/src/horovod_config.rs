//! horovodrun's `--config-file`: settings by group in YAML, each of them one of its options. The grammar and the names
//! are those of Horovod's own reader (`horovod/runner/common/util/config_parser.py`).

use crate::draft::Target;
use crate::personality::Personality;
use crate::row::Set;
use crate::{resolve, table, values, vars};
use std::ffi::{OsStr, OsString};
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;

/// Largest file in bytes.
const MAX_FILE: usize = 1 << 20;

/// What a setting does.
#[derive(Clone, Copy)]
enum To {
    /// It is this option's value.
    Value(&'static str),
    /// It turns on the first option, or the second.
    Switch(&'static str, &'static str),
}

use To::{Switch, Value};

/// Group, setting, and what it does.
const SETTINGS: &[(&str, &str, To)] = &[
    ("params", "fusion_threshold_mb", Value("fusion-threshold-mb")),
    ("params", "cycle_time_ms", Value("cycle-time-ms")),
    ("params", "cache_capacity", Value("cache-capacity")),
    ("params", "hierarchical_allreduce", Switch("hierarchical-allreduce", "no-hierarchical-allreduce")),
    ("params", "hierarchical_allgather", Switch("hierarchical-allgather", "no-hierarchical-allgather")),
    ("params", "torus_allreduce", Switch("torus-allreduce", "no-torus-allreduce")),
    ("autotune", "enabled", Switch("autotune", "no-autotune")),
    ("autotune", "log_file", Value("autotune-log-file")),
    ("autotune", "warmup_samples", Value("autotune-warmup-samples")),
    ("autotune", "steps_per_sample", Value("autotune-steps-per-sample")),
    ("autotune", "bayes_opt_max_samples", Value("autotune-bayes-opt-max-samples")),
    ("autotune", "gaussian_process_noise", Value("autotune-gaussian-process-noise")),
    ("timeline", "filename", Value("timeline-filename")),
    ("timeline", "mark_cycles", Switch("timeline-mark-cycles", "no-timeline-mark-cycles")),
    ("stall_check", "enabled", Switch("stall-check", "no-stall-check")),
    ("stall_check", "warning_time_seconds", Value("stall-check-warning-time-seconds")),
    ("stall_check", "shutdown_time_seconds", Value("stall-check-shutdown-time-seconds")),
    ("library_options", "mpi_threads_disable", Switch("mpi-threads-disable", "no-mpi-threads-disable")),
    ("library_options", "num_nccl_streams", Value("num-nccl-streams")),
    ("library_options", "thread_affinity", Value("thread-affinity")),
    ("library_options", "gloo_timeout_seconds", Value("gloo-timeout-seconds")),
    ("logging", "level", Value("log-level")),
    ("logging", "with_timestamp", Switch("log-with-timestamp", "log-without-timestamp")),
    ("logging", "hide_timestamp", Switch("log-hide-timestamp", "no-log-hide-timestamp")),
];

/// Does what a file says, at the place of the option: what was said before it is overridden, what comes after it
/// overrides.
pub(crate) fn apply(t: &mut Target<'_>, file: &OsStr) -> Set {
    let name = file.to_string_lossy();
    let bytes = resolve::read(file, "config file", t.sources).map_err(|e| e.message)?;
    if bytes.len() > MAX_FILE {
        return Err(format!("{name}: larger than {MAX_FILE} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{name}: not valid UTF-8"))?;
    let at = |(line, what): (usize, String)| format!("{name}:{line}: {what}");
    for setting in settings(text).map_err(at)? {
        one(t, &setting).map_err(|what| at((setting.line, format!("{}: {what}", setting.shown()))))?;
    }
    Ok(())
}

fn one(t: &mut Target<'_>, setting: &Setting) -> Set {
    let value = setting.value.as_str();
    let (option, value) = if (setting.group.as_str(), setting.key.as_str()) == ("", "controller") {
        match value.to_ascii_lowercase().as_str() {
            "gloo" => ("gloo", "1"),
            "mpi" => ("mpi", "1"),
            _ => return Err(format!("'{value}' is not gloo or mpi")),
        }
    } else {
        let known = SETTINGS.iter().find(|(g, k, _)| (*g, *k) == (&*setting.group, &*setting.key));
        match known.map(|(_, _, to)| *to) {
            Some(Value(option)) => (option, value),
            Some(Switch(on, off)) => (if values::truth(value)? { on } else { off }, "1"),
            None => {
                t.note(format!("{}: '{}' has no meaning in a config file", t.spelled, setting.shown()));
                return Ok(());
            }
        }
    };
    let act = table::find(option, Personality::Horovodrun).and_then(|row| row.act);
    act.map_or(Ok(()), |act| vars::set(t.job, t.app, t.sources, act, option, &OsString::from(value)))
}

/// A setting of a file.
#[derive(Debug, PartialEq)]
struct Setting {
    /// Empty outside of groups.
    group: String,
    key: String,
    value: String,
    line: usize,
}

impl Setting {
    fn shown(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.group, self.key)
    }
}

/// The settings in a text, two levels deep; an error is a line and what is wrong there. Values that are null are left
/// out, as they set nothing.
fn settings(text: &str) -> Result<Vec<Setting>, (usize, String)> {
    let mut parser = Parser::new_from_str(text);
    let mut found = Vec::new();
    // The group we are in, and the key whose value comes next.
    let (mut group, mut key): (Option<String>, Option<String>) = (None, None);
    let (mut depth, mut documents) = (0, 0);
    loop {
        let (event, mark) =
            parser.next_token().map_err(|e| (e.marker().line(), format!("not YAML: {}", e.info())))?;
        let wrong = |what: &str| Err((mark.line(), what.to_owned()));
        match (event, depth) {
            (Event::StreamEnd, _) => return Ok(found),
            (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
            (Event::DocumentStart, _) if documents == 0 => documents += 1,
            (Event::DocumentStart, _) => return wrong("a second document"),
            // An empty file is a null.
            (Event::Scalar(text, ..), 0) if text.is_empty() => {}
            (Event::MappingStart(..), 0) => depth = 1,
            (Event::MappingStart(..), 1) if key.is_some() => (group, depth) = (key.take(), 2),
            (Event::MappingEnd, _) => {
                group = None;
                depth -= 1;
            }
            (Event::Scalar(text, ..), 1 | 2) => match key.take() {
                None => key = Some(text),
                Some(_) if matches!(text.as_str(), "" | "~" | "null") => {}
                Some(key) => {
                    let group = group.clone().unwrap_or_default();
                    found.push(Setting { group, key, value: text, line: mark.line() });
                }
            },
            (Event::SequenceStart(..), _) => return wrong("a list where a value is expected"),
            (Event::Alias(_), _) => return wrong("references to other places of the file are not followed"),
            (Event::Scalar(..), _) => return wrong("a value where groups of settings are expected"),
            (Event::MappingStart(..) | Event::SequenceEnd, _) => {
                return wrong("a group where a value is expected");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn groups_values_and_lines() {
        let text = "---\ncontroller: gloo # ours\nparams:\n  cycle_time_ms: 3.5\n  cache_capacity: ~\n\
                    'timeline': {filename: \"a: b.json\", mark_cycles: yes}\nlogging:\n";
        let setting = |group: &str, key: &str, value: &str, line| Setting {
            group: group.into(),
            key: key.into(),
            value: value.into(),
            line,
        };
        let want = [
            setting("", "controller", "gloo", 2),
            setting("params", "cycle_time_ms", "3.5", 4),
            setting("timeline", "filename", "a: b.json", 6),
            setting("timeline", "mark_cycles", "yes", 6),
        ];
        assert_eq!(settings(text).unwrap(), want);
        assert_eq!(settings("").unwrap(), []);
    }

    #[test]
    fn what_is_no_table_of_settings_is_an_error_with_its_line() {
        for (text, line) in [
            ("just words", 1),
            ("- a\n- b\n", 1),
            ("params:\n  - a\n", 2),
            ("params:\n  a:\n    b: c\n", 3),
            ("params: [\n", 1),
            ("a: &x 1\nb: *x\n", 2),
            ("a: 1\n---\nb: 1\n", 2),
            ("params:\n\t- x", 2),
        ] {
            let error = settings(text).unwrap_err();
            assert_eq!(error.0, line, "{text:?}: {error:?}");
        }
        // However deep, it is refused at once.
        assert!(settings(&"{a: ".repeat(100_000)).is_err());
        assert!(settings(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn every_setting_names_options_of_horovodrun() {
        for (_, _, to) in SETTINGS {
            let names = match to {
                Value(name) => vec![*name],
                Switch(on, off) => vec![*on, *off],
            };
            for name in names {
                assert!(
                    table::find(name, Personality::Horovodrun).is_some_and(|r| r.act.is_some()),
                    "{name}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c:{}\\[\\]\\-&*!|>'\"# \n\t]{0,60}") {
            let _ = settings(&text);
        }
    }
}
