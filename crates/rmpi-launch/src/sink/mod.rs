//! Where ranks' output goes: our own stdout and stderr, files, an embedder's event stream. A chunk may go to
//! several; its credit returns when the last has taken it. The driver never blocks here.

mod console;
mod files;
mod format;
mod held;
mod lane;
mod places;
#[cfg(test)]
mod tests;

pub(crate) use files::Layout;
pub(crate) use places::Places;

use crate::event::{Event, Events};
use bytes::Bytes;
use format::Format;
use held::Held;
use lane::Lane;
use rmpi_types::spec::{Output, Shown, Tag};
use rmpi_types::{ProcId, Rank, RankExit};
use rmpi_wire::msg::Stream;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

/// Output of one rank on its way.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) proc: ProcId,
    pub(crate) stream: Stream,
    pub(crate) bytes: Bytes,
}

/// What lanes tell the driver, from their threads.
pub(crate) enum SinkEvent {
    /// Every destination has taken these bytes.
    Written { proc: ProcId, stream: Stream, bytes: u32 },
    /// A destination failed; its further output is discarded. `console` is our own stdout.
    Failed { console: bool, error: io::Error },
}

/// How lanes reach the driver.
pub(crate) type Notify = Arc<dyn Fn(SinkEvent) + Send + Sync>;

/// Proof of delivery: when the last clone is dropped, the chunk's credit goes back.
#[derive(Clone)]
pub(crate) struct Receipt {
    _credit: Arc<Credit>,
}

struct Credit {
    proc: ProcId,
    stream: Stream,
    bytes: u32,
    notify: Notify,
}

impl Drop for Credit {
    fn drop(&mut self) {
        (self.notify)(SinkEvent::Written { proc: self.proc, stream: self.stream, bytes: self.bytes });
    }
}

/// Where output is to go beside files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// To our own stdout and stderr, formatted as the specification says.
    #[default]
    Inherit,
    /// As [`Event::Output`]; the reader's pace is the ranks' pace.
    Events,
    /// Nowhere.
    Discard,
}

/// All destinations of a job.
pub(crate) struct Sinks {
    spec: Output,
    delivery: Delivery,
    places: Places,
    notify: Notify,
    events: Events,
    held: Held,
    stdout: Option<Lane>,
    stderr: Option<Lane>,
    files: Option<Lane>,
}

impl Sinks {
    pub(crate) fn new(
        spec: Output,
        delivery: Delivery,
        places: Places,
        notify: Notify,
        events: Events,
    ) -> Self {
        let held = Held::default();
        Self { spec, delivery, places, notify, events, held, stdout: None, stderr: None, files: None }
    }

    /// Starts writing files as well.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn open_files(&mut self, layout: Layout) -> io::Result<()> {
        let notify = Arc::clone(&self.notify);
        let failed = move |error| notify(SinkEvent::Failed { console: false, error });
        self.files = Some(Lane::start("rmpi-files", files::Files::new(layout), failed)?);
        Ok(())
    }

    /// Sends a chunk to all its destinations.
    pub(crate) fn put(&mut self, chunk: Chunk) {
        let bytes = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let credit =
            Credit { proc: chunk.proc, stream: chunk.stream, bytes, notify: Arc::clone(&self.notify) };
        let receipt = Receipt { _credit: Arc::new(credit) };
        if let Some(lane) = &self.files {
            lane.push(chunk.clone(), receipt.clone());
        }
        match self.delivery {
            Delivery::Discard => {}
            Delivery::Events => self.events.output(
                Event::Output { proc: chunk.proc, stream: chunk.stream, bytes: chunk.bytes },
                receipt,
            ),
            Delivery::Inherit if chunk.bytes.is_empty() || !self.shown(&chunk) => {}
            Delivery::Inherit if self.spec.shown == Shown::Failed => self.held.keep(chunk),
            Delivery::Inherit => self.show(chunk, receipt),
        }
    }

    /// Whether this is for the console at all.
    fn shown(&self, chunk: &Chunk) -> bool {
        let place = self.places.of(chunk.proc.rank);
        let rank = match &self.spec.shown {
            Shown::All | Shown::Failed => true,
            Shown::Ranks(set) => set.contains(chunk.proc.rank),
            Shown::Local(set) => set.contains(Rank(place.local)),
        };
        let file = self.spec.files.as_ref();
        let stderr = chunk.stream == Stream::Stderr;
        rank && file.is_none_or(|f| !f.nocopy && f.layout.copied(place.local, stderr))
    }

    fn show(&mut self, chunk: Chunk, receipt: Receipt) {
        let to_stdout = self.spec.merge_stderr || chunk.stream == Stream::Stdout || self.spec.tag == Tag::Xml;
        if let Some(lane) = self.console(to_stdout) {
            lane.push(chunk, receipt);
        }
    }

    /// A rank has ended and all its output was put: what was held back of it is shown if it failed.
    pub(crate) fn ended(&mut self, exit: &RankExit) {
        for chunk in self.held.take(exit.proc) {
            if exit.failed() {
                let credit = Credit {
                    proc: chunk.proc,
                    stream: chunk.stream,
                    bytes: 0,
                    notify: Arc::clone(&self.notify),
                };
                self.show(chunk, Receipt { _credit: Arc::new(credit) });
            }
        }
    }

    /// What was held back has no credit that the job waits for: returns when it is written.
    pub(crate) fn finish(&mut self) {
        if self.spec.shown == Shown::Failed {
            [self.stdout.take(), self.stderr.take()].into_iter().flatten().for_each(Lane::finish);
        }
    }

    /// The lane of a console stream, started on first use.
    fn console(&mut self, to_stdout: bool) -> Option<&Lane> {
        let slot = if to_stdout { &mut self.stdout } else { &mut self.stderr };
        if slot.is_none() {
            let notify = Arc::clone(&self.notify);
            let failed = move |error| notify(SinkEvent::Failed { console: to_stdout, error });
            let fd = if let Some(path) = &self.spec.console {
                File::options().append(true).create(true).open(path).map(OwnedFd::from)
            } else if to_stdout {
                io::stdout().as_fd().try_clone_to_owned()
            } else {
                io::stderr().as_fd().try_clone_to_owned()
            };
            let format = Format { tag: self.spec.tag.clone(), timestamp: self.spec.timestamp };
            let console = |fd| console::Console::new(fd, format, self.places.clone(), self.spec.merge_stderr);
            let name = if to_stdout { "rmpi-stdout" } else { "rmpi-stderr" };
            match fd.and_then(|fd| Lane::start(name, console(fd), failed)) {
                Ok(lane) => *slot = Some(lane),
                Err(error) => (self.notify)(SinkEvent::Failed { console: to_stdout, error }),
            }
        }
        slot.as_ref()
    }
}
