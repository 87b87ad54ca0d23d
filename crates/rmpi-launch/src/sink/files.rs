//! Output files in the layouts of several launchers (`docs/output.md`), bytes untouched. All are made before a rank
//! starts, so that a directory that cannot be written stops the job early.

use super::Chunk;
use super::format::{Now, pattern};
use super::lane::Writer;
use super::places::{Place, Places};
use rmpi_types::spec::FileLayout;
use rmpi_types::{ProcId, Rank};
use rmpi_wire::msg::Stream;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Files kept open at once; further ones are opened again for each batch.
const OPEN_MAX: usize = 256;

/// Where ranks' files are.
#[derive(Clone)]
pub(crate) struct Layout {
    kind: FileLayout,
    digits: usize,
    merge: bool,
    attempt: u32,
    places: Places,
}

impl Layout {
    /// The layout for `size` ranks in the job's `attempt`th start.
    pub(crate) fn new(kind: &FileLayout, size: u32, merge: bool, attempt: u32, places: Places) -> Self {
        let digits = size.saturating_sub(1).to_string().len();
        Self { kind: kind.clone(), digits, merge, attempt, places }
    }

    /// The file of a stream; `None` when the layout has none.
    fn path(&self, proc: ProcId, stream: Stream) -> Option<PathBuf> {
        let place = self.places.of(proc.rank);
        let stream = if self.merge { Stream::Stdout } else { stream };
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let rank = format!("rank.{:0w$}", proc.rank.0, w = self.digits);
        Some(match &self.kind {
            FileLayout::OpenMpi4 { dir, nojobid: false } => {
                dir.join((proc.ns.0 + 1).to_string()).join(rank).join(name)
            }
            FileLayout::OpenMpi4 { dir, nojobid: true } | FileLayout::Horovod(dir) => {
                dir.join(rank).join(name)
            }
            FileLayout::OpenMpi5(dir) => dir.join(&*place.namespace).join(rank).join(name),
            FileLayout::Prefix(prefix) => {
                let end = if stream == Stream::Stdout { "out" } else { "err" };
                let mut path = OsString::from(prefix);
                path.push(format!(".{}.{:0w$}.{end}", place.namespace, proc.rank.0, w = self.digits));
                path.into()
            }
            FileLayout::Torch { dir, redirects, tee } => {
                if (redirects.of(place.local) | tee.of(place.local)) & bit(stream) == 0 {
                    return None;
                }
                let attempt = format!("attempt_{}", self.attempt);
                dir.join(&*place.host).join(attempt).join(place.local.to_string()).join(format!("{name}.log"))
            }
            FileLayout::Patterns { out, err } => {
                let pieces = if stream == Stream::Stdout { out.as_ref() } else { err.as_ref() };
                let mut path = Vec::new();
                pattern(&mut path, pieces?, proc, &place, &Now::default());
                String::from_utf8_lossy(&path).into_owned().into()
            }
        })
    }

    /// Makes every directory and empty file.
    ///
    /// # Errors
    /// The path and what the system said.
    pub(crate) fn create(&self, ranks: impl IntoIterator<Item = Rank>) -> Result<(), String> {
        for rank in ranks {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let Some(path) = self.path(ProcId::first(rank.0), stream) else { continue };
                let parent = path.parent().unwrap_or(&path).to_owned();
                fs::create_dir_all(&parent)
                    .and_then(|()| File::create(&path).map(drop))
                    .map_err(|e| format!("cannot create output file {}: {e}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn bit(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// Whether a stream of a rank also goes to the console, as far as the layout says.
pub(super) fn copied(kind: &FileLayout, place: &Place, stream: Stream) -> bool {
    match kind {
        FileLayout::Patterns { out, err } => {
            let file = if stream == Stream::Stdout { out } else { err };
            file.is_none()
        }
        FileLayout::Torch { redirects, tee, .. } => {
            let tee = tee.of(place.local) & bit(stream) != 0;
            tee || redirects.of(place.local) & bit(stream) == 0
        }
        _ => true,
    }
}

/// The writer of all files.
pub(super) struct Files {
    layout: Layout,
    open: HashMap<PathBuf, File>,
    error: Option<io::Error>,
}

impl Files {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, open: HashMap::new(), error: None }
    }

    fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        let Some(path) = self.layout.path(chunk.proc, chunk.stream) else { return Ok(()) };
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&path) {
            self.open.clear();
        }
        let describe = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let file = match self.open.entry(path.clone()) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => {
                // Folders of spawned ranks were not made with the plan.
                if let (Some(parent), true) = (path.parent(), chunk.proc.ns.0 != 0) {
                    fs::create_dir_all(parent).map_err(describe)?;
                }
                e.insert(OpenOptions::new().append(true).create(true).open(&path).map_err(describe)?)
            }
        };
        file.write_all(&chunk.bytes).map_err(describe)
    }
}

impl Writer for Files {
    fn add(&mut self, chunk: &Chunk) -> bool {
        if !chunk.bytes.is_empty()
            && self.error.is_none()
            && let Err(e) = self.write(chunk)
        {
            self.error = Some(e);
        }
        self.error.is_some()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::RankSet;
    use rmpi_types::spec::{Piece, Redirects};

    #[test]
    fn paths_as_each_launcher_lays_them_out() {
        let places = Places::default();
        let nodes = vec![("n1".into(), RankSet::range(0, 8)), ("n2".into(), RankSet::range(9, 10))];
        places.set(nodes, "job@1".into());
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
        for (kind, size, merge, rank, stream, path) in [
            (four(false), 11, false, 0, Stream::Stdout, Some("/d/1/rank.00/stdout")),
            (four(false), 10, false, 9, Stream::Stderr, Some("/d/1/rank.9/stderr")),
            (four(true), 2, true, 1, Stream::Stderr, Some("/d/rank.1/stdout")),
            (FileLayout::Horovod("/d".into()), 2, false, 1, Stream::Stderr, Some("/d/rank.1/stderr")),
            (FileLayout::OpenMpi5("/d".into()), 2, false, 1, Stream::Stdout, Some("/d/job@1/rank.1/stdout")),
            (FileLayout::Prefix("/d/f".into()), 2, false, 1, Stream::Stderr, Some("/d/f.job@1.1.err")),
            (torch.clone(), 2, false, 10, Stream::Stdout, Some("/d/n2/attempt_3/1/stdout.log")),
            (torch.clone(), 2, false, 10, Stream::Stderr, None),
            (torch, 2, false, 9, Stream::Stderr, Some("/d/n2/attempt_3/0/stderr.log")),
            (patterns.clone(), 2, false, 10, Stream::Stdout, Some("/d/n2.10")),
            (patterns, 2, false, 10, Stream::Stderr, None),
        ] {
            let layout = Layout::new(&kind, size, merge, 3, places.clone());
            assert_eq!(layout.path(ProcId::first(rank), stream), path.map(PathBuf::from), "{kind:?}");
        }
    }
}
