//! The small grammars of output options: `--output`, `--output-filename`, `--ranks-shown`, `--stdin`, `--display`.

use crate::command::{Display, Progress};
use crate::draft::Target;
use crate::row::Set;
use crate::values::{abbreviated, count, limit, ranks, truth};
use rmpi_types::spec::{FileLayout, Files, OnFailure, Redirects, Shown, Stdin, Tag};
use rmpi_types::{Rank, RankSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `--output LIST`: what is put before lines, `merge-stderr-to-stdout`, `json`, `xml`, `dir=D`, `file=F`, separated
/// by commas; `:nocopy` after a file.
pub(crate) fn output(target: &mut Target<'_>, text: &OsStr) -> Set {
    const ITEMS: [&str; 9] = [
        "tag",
        "tag-detailed",
        "tag-fullname",
        "timestamp",
        "merge-stderr-to-stdout",
        "json",
        "dir",
        "file",
        "xml",
    ];
    for item in text.as_bytes().split(|&b| b == b',') {
        let (name, value) = match item.iter().position(|&b| b == b'=') {
            Some(at) => (&item[..at], Some(&item[at + 1..])),
            None => (item, None),
        };
        let lossy = String::from_utf8_lossy(name);
        let (word, qualifier) = lossy.split_once(':').unwrap_or((&lossy, ""));
        // A qualifier alone belongs to the list as a whole.
        if word.is_empty() && !qualifier.is_empty() {
            qualifiers(target, qualifier)?;
            continue;
        }
        let item = ITEMS[abbreviated("item", word, &ITEMS)?];
        if value.is_some() && !matches!(item, "dir" | "file") {
            return Err(format!("{item} takes no value"));
        }
        let output = &mut target.job.job.output;
        match item {
            "tag" => output.tag = Tag::OpenMpi5,
            "tag-detailed" => output.tag = Tag::OpenMpi5Detailed,
            "tag-fullname" => output.tag = Tag::OpenMpi5Fullname,
            "timestamp" => {
                output.timestamp = true;
                if output.tag == Tag::None {
                    output.tag = Tag::OpenMpi5Stream;
                }
            }
            "merge-stderr-to-stdout" => output.merge_stderr = true,
            "json" => output.tag = Tag::Json,
            "xml" => output.tag = Tag::Xml,
            _ => {
                let value = value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{item}= needs a path"))?;
                let (path, nocopy, pattern) = qualified(value);
                let path = target.sources.cwd.join(OsStr::from_bytes(path));
                let layout = match (item, pattern) {
                    ("dir", true) => return Err("pattern goes with file=".into()),
                    ("dir", false) => FileLayout::OpenMpi5(path),
                    (_, false) => FileLayout::Prefix(path),
                    (_, true) => {
                        let text = path.to_str().ok_or("a pattern must be UTF-8")?;
                        FileLayout::Pattern(crate::pattern::of_file(text)?)
                    }
                };
                target.job.job.output.files = Some(Files { layout, nocopy });
            }
        }
        if !qualifier.is_empty() {
            qualifiers(target, qualifier)?;
        }
    }
    Ok(())
}

/// Qualifiers of `--output` that are not part of a path.
fn qualifiers(target: &mut Target<'_>, text: &str) -> Set {
    const QUALIFIERS: [&str; 3] = ["nocopy", "copy", "raw"];
    for word in text.split(':') {
        let word = QUALIFIERS[abbreviated("qualifier", word, &QUALIFIERS)?];
        if let Some(files) = &mut target.job.job.output.files {
            files.nocopy = word == "nocopy";
        } else if word != "raw" {
            return Err(format!("{word} goes with dir= or file="));
        }
    }
    Ok(())
}

/// A path without its `:nocopy` and `:pattern`, and whether it had them.
fn qualified(mut path: &[u8]) -> (&[u8], bool, bool) {
    let (mut nocopy, mut pattern) = (false, false);
    loop {
        let at = path.iter().rposition(|&b| b == b':').unwrap_or(path.len());
        let seen = match &path[at..] {
            word if word.eq_ignore_ascii_case(b":nocopy") => &mut nocopy,
            word if word.eq_ignore_ascii_case(b":pattern") => &mut pattern,
            _ => return (path, nocopy, pattern),
        };
        *seen = true;
        path = &path[..at];
    }
}

/// `--output-filename D[:nocopy|:nojobid,…]`; relative directories are meant on the launcher. With
/// `RMPIRUN_COMPAT=openmpi5` it is a prefix, as in Open MPI 5.
pub(crate) fn directory(target: &mut Target<'_>, text: &OsStr) -> Set {
    const QUALIFIERS: [&str; 2] = ["nocopy", "nojobid"];
    let mut path = text.as_bytes();
    let (mut nocopy, mut nojobid) = (false, false);
    // A colon that is followed by something else is part of the path.
    if let Some(at) = path.iter().rposition(|&b| b == b':') {
        let words: Vec<_> = path[at + 1..].split(|&b| b == b',').map(String::from_utf8_lossy).collect();
        if words.iter().all(|w| QUALIFIERS.contains(&w.to_ascii_lowercase().as_str())) {
            nocopy = words.iter().any(|w| w.eq_ignore_ascii_case("nocopy"));
            nojobid = words.iter().any(|w| w.eq_ignore_ascii_case("nojobid"));
            path = &path[..at];
        }
    }
    if path.is_empty() {
        return Err("the directory is empty (nearly always an empty shell variable)".into());
    }
    let dir = target.sources.cwd.join(OsStr::from_bytes(path));
    let five = target.sources.env.get(OsStr::new("RMPIRUN_COMPAT")).is_some_and(|v| v == "openmpi5");
    let layout = if five { FileLayout::Prefix(dir) } else { FileLayout::OpenMpi4 { dir, nojobid } };
    target.job.job.output.files = Some(Files { layout, nocopy });
    Ok(())
}

/// `-outfile-pattern` (stream 0), `-errfile-pattern` (stream 1).
pub(crate) fn pattern(target: &mut Target<'_>, stream: usize, text: &str) -> Set {
    target.job.patterns[stream] = Some(crate::pattern::read(text)?);
    Ok(())
}

/// torchrun's `3` or `0:1,1:3`.
pub(crate) fn redirects(text: &str) -> Result<Redirects, String> {
    let bad = || format!("'{text}' is not 0 to 3, or LOCAL_RANK:0..3 separated by commas");
    let streams = |word: &str| word.trim().parse::<u8>().ok().filter(|&n| n <= 3).ok_or_else(bad);
    if !text.contains(':') {
        return Ok(Redirects { all: streams(text)?, of: Vec::new() });
    }
    let one = |part: &str| {
        let (rank, what) = part.split_once(':').ok_or_else(bad)?;
        Ok::<_, String>((rank.trim().parse().map_err(|_| bad())?, streams(what)?))
    };
    Ok(Redirects { all: 0, of: text.split(',').map(one).collect::<Result<_, _>>()? })
}

/// `--ranks-shown LIST|first|failed|all`.
pub(crate) fn shown(target: &mut Target<'_>, text: &str) -> Set {
    target.job.job.output.shown = match text {
        "all" => Shown::All,
        "first" => Shown::Ranks(RankSet::range(0, 0)),
        "failed" => Shown::Failed,
        list => Shown::Ranks(ranks(list)?),
    };
    Ok(())
}

/// `--stdin N|all|none`.
pub(crate) fn stdin(target: &mut Target<'_>, text: &str) -> Set {
    target.job.stdin_given = true;
    target.job.job.stdin = match text.to_ascii_lowercase().as_str() {
        "all" => Stdin::All,
        "none" => Stdin::None,
        rank => match rank.parse() {
            Ok(r) => Stdin::Rank(Rank(r)),
            Err(_) => return Err(format!("'{text}' is not a rank, 'all' or 'none'")),
        },
    };
    Ok(())
}

/// `--display LIST[:parseable|:stdout]`.
pub(crate) fn display(display: &mut Display, text: &str) -> Set {
    const ITEMS: [&str; 6] = ["allocation", "bindings", "map", "map-devel", "topo", "cpus"];
    const QUALIFIERS: [&str; 3] = ["parseable", "parsable", "stdout"];
    for item in text.split(',') {
        let mut parts = item.split(':');
        let word = parts.next().unwrap_or_default();
        if !word.is_empty() {
            match ITEMS[abbreviated("item", word.split('=').next().unwrap_or_default(), &ITEMS)?] {
                "allocation" => display.allocation = true,
                "bindings" => display.bindings = true,
                "map" | "map-devel" => display.map = true,
                _ => display.topology = true,
            }
        }
        for qualifier in parts {
            match QUALIFIERS[abbreviated("qualifier", qualifier, &QUALIFIERS)?] {
                "stdout" => display.stdout = true,
                _ => display.parseable = true,
            }
        }
    }
    Ok(())
}

/// `--runtime-options LIST`: Open MPI 5's list of keys, some with a value.
pub(crate) fn runtime(target: &mut Target<'_>, text: &str) -> Set {
    for item in text.split(',') {
        let (key, value) = item.split_once('=').map_or((item, None), |(k, v)| (k, Some(v)));
        runtime_one(target, key, value)?;
    }
    Ok(())
}

fn runtime_one(target: &mut Target<'_>, key: &str, value: Option<&str>) -> Set {
    const KEYS: [&str; 19] = [
        "abort-on-nonzero-status",
        "error-nonzero-status",
        "donotlaunch",
        "show-progress",
        "notifyerrors",
        "recoverable",
        "autorestart",
        "continuous",
        "max-restarts",
        "exec-agent",
        "default-exec-agent",
        "output-proctable",
        "stop-on-exec",
        "timeout",
        "spawn-timeout",
        "report-state-on-timeout",
        "get-stack-traces",
        "aggregate-help-messages",
        "fwd-environment",
    ];
    let key = KEYS[abbreviated("option", key, &KEYS)?];
    let valued =
        ["max-restarts", "exec-agent", "default-exec-agent", "timeout", "spawn-timeout"].contains(&key);
    let on = value.filter(|_| !valued).map_or(Ok(true), truth)?;
    let needed = || value.ok_or_else(|| format!("{key} needs a value"));
    let job = &mut target.job.job;
    match key {
        "abort-on-nonzero-status" | "error-nonzero-status" => {
            job.on_failure = if on { OnFailure::Stop } else { OnFailure::Continue };
        }
        "donotlaunch" => (target.job.display.dry_run, target.job.display.map) = (on, on),
        "show-progress" if on => target.job.show.progress = Progress::Plain,
        "recoverable" | "continuous" if on => job.on_failure = OnFailure::Continue,
        "max-restarts" => job.restarts = count(needed()?)?,
        "exec-agent" => target.job.wrap = crate::ssh_args::split(OsStr::new(needed()?))?,
        "output-proctable" => target.job.display.proctable = on,
        "stop-on-exec" => stop_on_exec(target, on),
        "timeout" => job.limits.job = Some(limit(needed()?)?),
        "spawn-timeout" => job.limits.launch = Some(limit(needed()?)?),
        "report-state-on-timeout" => job.on_timeout.state = on,
        "get-stack-traces" => job.on_timeout.stacks = on,
        "fwd-environment" if !on => crate::draft::env_mode(&mut target.job.env, "openmpi"),
        // Errors go to whoever asks, messages are always folded, and what is on already needs nothing.
        _ => {}
    }
    Ok(())
}

/// `--stop-on-exec`: a debugger has to be told where the ranks are.
pub(crate) fn stop_on_exec(target: &mut Target<'_>, on: bool) {
    target.job.job.stop_on_exec = on;
    target.job.display.proctable |= on;
}

/// A directory made absolute against the launcher's.
pub(crate) fn absolute(target: &Target<'_>, dir: &OsString) -> Result<PathBuf, String> {
    if dir.is_empty() {
        return Err("the directory is empty (nearly always an empty shell variable)".into());
    }
    Ok(target.sources.cwd.join(dir))
}
