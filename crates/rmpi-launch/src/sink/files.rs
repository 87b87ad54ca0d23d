//! Output files in the layouts of several launchers (`docs/output.md`), bytes untouched. All are made before a rank
//! starts, so that a directory that cannot be written stops the job early.

use super::Chunk;
use super::lane::Writer;
use super::places::Places;
use rmpi_types::names::Series;
use rmpi_types::spec::FileLayout;
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
    kind: FileLayout,
    series: Series,
    places: Places,
}

impl Layout {
    /// The layout for `size` ranks in the job's `attempt`th start.
    pub(crate) fn new(kind: &FileLayout, size: u32, merge: bool, attempt: u32, places: Places) -> Self {
        Self { kind: kind.clone(), series: Series::new(size, attempt, merge), places }
    }

    /// The file of a stream; `None` when the layout has none.
    fn path(&self, proc: ProcId, stream: Stream) -> Option<PathBuf> {
        let place = self.places.of(proc.rank);
        self.kind.path(&place.writer(proc), stream == Stream::Stderr, self.series)
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
