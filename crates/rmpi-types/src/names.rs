//! Names of output files and what fills patterns. Pure: the launcher and the daemons name files alike.

use crate::ProcId;
use crate::output::{FileLayout, Piece};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

/// Who writes, and where.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The rank.
    pub proc: ProcId,
    /// Its host, as the user wrote it.
    pub host: &'a str,
    /// The number of its node.
    pub node: u32,
    /// Its number on the node.
    pub local: u32,
    /// The job's name, as Open MPI 5 has one in paths.
    pub namespace: &'a str,
}

/// What all names of a job's start have in common.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Digits that ranks are padded to.
    pub digits: usize,
    /// Which start of the job this is, from 0.
    pub attempt: u32,
    /// Both streams go to the file of standard output.
    pub merge: bool,
}

impl Series {
    /// That of a job of `size` ranks.
    #[must_use]
    pub fn new(size: u32, attempt: u32, merge: bool) -> Self {
        Self { digits: size.saturating_sub(1).to_string().len(), attempt, merge }
    }
}

impl FileLayout {
    /// The file of a stream; `None` when the layout has none.
    #[must_use]
    pub fn path(&self, of: &Writer<'_>, stderr: bool, series: Series) -> Option<PathBuf> {
        let Series { digits, attempt, merge } = series;
        let stderr = stderr && !merge;
        let name = if stderr { "stderr" } else { "stdout" };
        let rank = format!("rank.{:0digits$}", of.proc.rank.0);
        Some(match self {
            Self::OpenMpi4 { dir, nojobid: false } => {
                dir.join((of.proc.ns.0 + 1).to_string()).join(rank).join(name)
            }
            Self::OpenMpi4 { dir, nojobid: true } | Self::Horovod(dir) => dir.join(rank).join(name),
            Self::OpenMpi5(dir) => dir.join(of.namespace).join(rank).join(name),
            Self::Prefix(prefix) => {
                let end = if stderr { "err" } else { "out" };
                let mut path = OsString::from(prefix);
                path.push(format!(".{}.{:0digits$}.{end}", of.namespace, of.proc.rank.0));
                path.into()
            }
            Self::Torch { dir, redirects, tee } => {
                if (redirects.of(of.local) | tee.of(of.local)) & bit(stderr) == 0 {
                    return None;
                }
                let place = dir.join(of.host).join(format!("attempt_{attempt}"));
                place.join(of.local.to_string()).join(format!("{name}.log"))
            }
            Self::Pattern(pieces) => {
                let mut path = Vec::new();
                Piece::fill(pieces, of, "", &mut path);
                format!("{}.{name}", String::from_utf8_lossy(&path)).into()
            }
            Self::Patterns { out, err } => {
                let pieces = if stderr { err.as_ref() } else { out.as_ref() };
                let mut path = Vec::new();
                Piece::fill(pieces?, of, "", &mut path);
                String::from_utf8_lossy(&path).into_owned().into()
            }
        })
    }

    /// Whether a stream also goes to the console, as far as the layout says.
    #[must_use]
    pub fn copied(&self, local: u32, stderr: bool) -> bool {
        match self {
            Self::Patterns { out, err } => if stderr { err } else { out }.is_none(),
            Self::Torch { redirects, tee, .. } => {
                tee.of(local) & bit(stderr) != 0 || redirects.of(local) & bit(stderr) == 0
            }
            _ => true,
        }
    }
}

impl Piece {
    /// Appends a pattern with its letters filled in.
    pub fn fill(pieces: &[Self], of: &Writer<'_>, time: &str, out: &mut Vec<u8>) {
        for piece in pieces {
            let written = match piece {
                Self::Text(text) => write!(out, "{text}"),
                Self::Rank => write!(out, "{}", of.proc.rank),
                Self::Group => write!(out, "{}", of.proc.ns.0),
                Self::Node => write!(out, "{}", of.node),
                Self::Host => write!(out, "{}", of.host),
                Self::Time => write!(out, "{time}"),
                Self::Namespace => write!(out, "{}", of.namespace),
            };
            debug_assert!(written.is_ok(), "a Vec takes every write");
        }
    }
}

fn bit(stderr: bool) -> u8 {
    if stderr { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Redirects;

    #[test]
    fn paths_as_each_launcher_lays_them_out() {
        let four = |nojobid| FileLayout::OpenMpi4 { dir: "/d".into(), nojobid };
        let torch = FileLayout::Torch {
            dir: "/d".into(),
            redirects: Redirects { all: 1, of: vec![] },
            tee: Redirects { all: 0, of: vec![(0, 2)] },
        };
        let patterns = FileLayout::Patterns {
            out: Some(vec![Piece::Text("/d/".into()), Piece::Host, Piece::Text(".".into()), Piece::Rank]),
            err: None,
        };
        let five = vec![Piece::Text("/d/".into()), Piece::Namespace, Piece::Text(".".into()), Piece::Rank];
        let five = FileLayout::Pattern(five);
        let (first, second) = (("n1", 0), ("n2", 1));
        for (layout, size, merge, (host, node), rank, stderr, path) in [
            (four(false), 11, false, first, 0, false, Some("/d/1/rank.00/stdout")),
            (four(false), 10, false, second, 9, true, Some("/d/1/rank.9/stderr")),
            (four(true), 2, true, first, 1, true, Some("/d/rank.1/stdout")),
            (FileLayout::Horovod("/d".into()), 2, false, first, 1, true, Some("/d/rank.1/stderr")),
            (FileLayout::OpenMpi5("/d".into()), 2, false, first, 1, false, Some("/d/job@1/rank.1/stdout")),
            (FileLayout::Prefix("/d/f".into()), 2, false, first, 1, true, Some("/d/f.job@1.1.err")),
            (torch.clone(), 2, false, second, 10, false, Some("/d/n2/attempt_3/1/stdout.log")),
            (torch.clone(), 2, false, second, 10, true, None),
            (torch, 2, false, second, 9, true, Some("/d/n2/attempt_3/0/stderr.log")),
            (patterns.clone(), 2, false, second, 10, false, Some("/d/n2.10")),
            (patterns, 2, false, second, 10, true, None),
            (five.clone(), 2, false, first, 1, true, Some("/d/job@1.1.stderr")),
            (five, 2, true, first, 1, true, Some("/d/job@1.1.stdout")),
        ] {
            let local = if node == 0 { rank } else { rank - 9 };
            let of = Writer { proc: ProcId::first(rank), host, node, local, namespace: "job@1" };
            let got = layout.path(&of, stderr, Series::new(size, 3, merge));
            assert_eq!(got, path.map(PathBuf::from), "{layout:?}");
        }
    }

    #[test]
    fn what_goes_to_files_only() {
        let torch = FileLayout::Torch {
            dir: "/d".into(),
            redirects: Redirects { all: 3, of: vec![] },
            tee: Redirects { all: 0, of: vec![(0, 2)] },
        };
        assert_eq!([torch.copied(0, false), torch.copied(0, true)], [false, true]);
        let patterns = FileLayout::Patterns { out: None, err: Some(Vec::new()) };
        assert_eq!([patterns.copied(0, false), patterns.copied(0, true)], [true, false]);
        assert!(FileLayout::Horovod("/d".into()).copied(0, true));
    }
}
