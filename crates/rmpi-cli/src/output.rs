//! The small grammars of output options: `--output`, `--output-filename`, `--ranks-shown`, `--stdin`, `--display`.

use crate::command::Display;
use crate::draft::Target;
use crate::row::Set;
use crate::values::{abbreviated, ranks};
use rmpi_types::spec::{OutputDir, Stdin, Tag};
use rmpi_types::{Rank, RankSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `--output LIST`: `tag timestamp merge-stderr-to-stdout json dir=D[:nocopy]`, separated by commas.
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
        let item = ITEMS[abbreviated("item", word, &ITEMS)?];
        if value.is_some() && !matches!(item, "dir" | "file") {
            return Err(format!("{item} takes no value"));
        }
        if !qualifier.is_empty() {
            return Err(format!("qualifier '{qualifier}' of {item} is not known"));
        }
        let output = &mut target.job.job.output;
        match item {
            "tag" => output.tag = Tag::OpenMpi5,
            "timestamp" => {
                output.timestamp = true;
                if output.tag == Tag::None {
                    output.tag = Tag::OpenMpi5Stream;
                }
            }
            "merge-stderr-to-stdout" => output.merge_stderr = true,
            "json" => output.tag = Tag::Json,
            "dir" => {
                let value = value.filter(|v| !v.is_empty()).ok_or("dir= needs a directory")?;
                directory(target, OsStr::from_bytes(value))?;
            }
            "file" => return Err("file= is not supported; use dir=DIR".into()),
            "xml" => return Err("xml is not supported; use --output json".into()),
            _ => return Err(format!("{item} is not supported; use tag or json")),
        }
    }
    Ok(())
}

/// `--output-filename D[:nocopy|:nojobid,…]`; relative directories are meant on the launcher.
pub(crate) fn directory(target: &mut Target<'_>, text: &OsStr) -> Set {
    const QUALIFIERS: [&str; 2] = ["nocopy", "nojobid"];
    let mut path = text.as_bytes();
    let mut dir = OutputDir::default();
    // A colon that is followed by something else is part of the path.
    if let Some(at) = path.iter().rposition(|&b| b == b':') {
        let words: Vec<_> = path[at + 1..].split(|&b| b == b',').map(String::from_utf8_lossy).collect();
        if words.iter().all(|w| QUALIFIERS.contains(&w.to_ascii_lowercase().as_str())) {
            dir.nocopy = words.iter().any(|w| w.eq_ignore_ascii_case("nocopy"));
            dir.nojobid = words.iter().any(|w| w.eq_ignore_ascii_case("nojobid"));
            path = &path[..at];
        }
    }
    if path.is_empty() {
        return Err("the directory is empty (nearly always an empty shell variable)".into());
    }
    dir.path = target.sources.cwd.join(OsStr::from_bytes(path));
    target.job.job.output.directory = Some(dir);
    Ok(())
}

/// `--ranks-shown LIST|first|all`.
pub(crate) fn shown(target: &mut Target<'_>, text: &str) -> Set {
    target.job.job.output.shown = match text {
        "all" => None,
        "first" => Some(RankSet::range(0, 0)),
        "failed" => return Err("failed is not supported; name the ranks".into()),
        list => Some(ranks(list)?),
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

/// `--display LIST`.
pub(crate) fn display(display: &mut Display, text: &str) -> Set {
    const ITEMS: [&str; 6] = ["allocation", "bindings", "map", "map-devel", "topo", "cpus"];
    for item in text.split(',') {
        let (word, qualifier) = item.split_once(':').unwrap_or((item, ""));
        let item = ITEMS[abbreviated("item", word.split('=').next().unwrap_or_default(), &ITEMS)?];
        if !qualifier.is_empty() {
            return Err(format!(
                "qualifier '{qualifier}' is not supported; everything goes to stderr as text"
            ));
        }
        match item {
            "allocation" => display.allocation = true,
            "bindings" => display.bindings = true,
            "map" | "map-devel" => display.map = true,
            _ => return Err(format!("{item} is not supported (there are: allocation bindings map)")),
        }
    }
    Ok(())
}

/// A directory made absolute against the launcher's.
pub(crate) fn absolute(target: &Target<'_>, dir: &OsString) -> Result<PathBuf, String> {
    if dir.is_empty() {
        return Err("the directory is empty (nearly always an empty shell variable)".into());
    }
    Ok(target.sources.cwd.join(dir))
}
