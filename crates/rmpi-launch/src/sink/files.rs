//! `--output-filename D`: `D/1/rank.N/stdout` and `stderr`, rank numbers padded to one width, bytes untouched.
//! All files are made before a rank starts, so that a directory that cannot be written stops the job early.

use super::Chunk;
use super::lane::Writer;
use rmpi_types::spec::OutputDir;
use rmpi_types::{ProcId, Rank};
use rmpi_wire::msg::Stream;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Files kept open at once; further ones are opened again for each batch.
const OPEN_MAX: usize = 256;

/// Where ranks' files are.
#[derive(Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    jobid: bool,
    digits: usize,
    merge: bool,
}

impl Layout {
    /// The layout for `size` ranks.
    pub(crate) fn new(dir: &OutputDir, size: u32, merge: bool) -> Self {
        let digits = size.saturating_sub(1).to_string().len();
        Self { root: dir.path.clone(), jobid: !dir.nojobid, digits, merge }
    }

    fn path(&self, proc: ProcId, stream: Stream) -> PathBuf {
        let mut path = self.root.clone();
        if self.jobid {
            path.push((proc.ns.0 + 1).to_string());
        }
        path.push(format!("rank.{:0w$}", proc.rank.0, w = self.digits));
        path.push(match (self.merge, stream) {
            (true, _) | (false, Stream::Stdout) => "stdout",
            (false, Stream::Stderr) => "stderr",
        });
        path
    }

    /// Makes every directory and empty file.
    ///
    /// # Errors
    /// The path and what the system said.
    pub(crate) fn create(&self, ranks: impl Iterator<Item = Rank>) -> Result<(), String> {
        for rank in ranks {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let path = self.path(ProcId::first(rank.0), stream);
                let parent = path.parent().unwrap_or(&path).to_owned();
                fs::create_dir_all(&parent)
                    .and_then(|()| File::create(&path).map(drop))
                    .map_err(|e| format!("cannot create output file {}: {e}", path.display()))?;
            }
        }
        Ok(())
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
        let path = self.layout.path(chunk.proc, chunk.stream);
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&path) {
            self.open.clear();
        }
        let describe = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let file = match self.open.entry(path.clone()) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => {
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

    #[test]
    fn paths_as_open_mpi_4_lays_them_out() {
        let dir = |nojobid| OutputDir { path: "/d".into(), nocopy: false, nojobid };
        for (nojobid, size, merge, rank, stream, path) in [
            (false, 11, false, 0, Stream::Stdout, "/d/1/rank.00/stdout"),
            (false, 10, false, 9, Stream::Stderr, "/d/1/rank.9/stderr"),
            (true, 2, true, 1, Stream::Stderr, "/d/rank.1/stdout"),
        ] {
            let layout = Layout::new(&dir(nojobid), size, merge);
            assert_eq!(layout.path(ProcId::first(rank), stream), PathBuf::from(path));
        }
    }
}
