//! Output of an elastic job: one set of destinations for all its processes, each under the rank it has at the moment.
//! Files are named after ranks and written on by whoever has the rank.

use crate::event::Events;
use crate::sink::{Chunk, Delivery, Layout, Places, SinkEvent, Sinks};
use bytes::Bytes;
use rmpi_types::spec::Output as Spec;
use rmpi_types::{ProcId, Rank, RankExit};
use rmpi_wire::msg::Stream;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of a rank that may wait to be written: then it has to wait too.
const WINDOW: u32 = 256 << 10;

/// The destinations.
pub(super) struct Output {
    sinks: Mutex<Sinks>,
    places: Places,
    layout: Option<Layout>,
    made: Mutex<HashSet<Rank>>,
    waiting: Arc<Waiting>,
}

/// What is not written yet.
#[derive(Default)]
struct Waiting {
    bytes: Mutex<HashMap<Rank, u32>>,
    less: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    /// Destinations for at most `most` ranks; `failed` is told of files that cannot be written. A standard output that
    /// nobody reads is nobody's loss: training goes on.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn new(
        spec: &Spec,
        most: u32,
        failed: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (places, waiting) = (Places::default(), Arc::new(Waiting::default()));
        places.set(Vec::new(), crate::plan::namespace());
        let theirs = Arc::clone(&waiting);
        let notify = move |event| match event {
            SinkEvent::Written { proc, bytes, .. } => theirs.written(proc.rank, bytes),
            SinkEvent::Failed { console: true, .. } => {}
            SinkEvent::Failed { console: false, error } => failed(error),
        };
        let events = Events::call(|_| {});
        let mut sinks = Sinks::new(spec.clone(), Delivery::Inherit, places.clone(), Arc::new(notify), events);
        let layout =
            spec.files.as_ref().map(|f| Layout::new(&f.layout, most, spec.merge_stderr, 0, places.clone()));
        if let Some(layout) = &layout {
            sinks.open_files(layout.clone())?;
        }
        Ok(Self { sinks: Mutex::new(sinks), places, layout, made: Mutex::default(), waiting })
    }

    /// A process has this rank now: its place, and its files if nobody had the rank before.
    ///
    /// # Errors
    /// The file that cannot be made.
    pub(super) fn placed(&self, rank: Rank, host: &str, local: u32, pid: u32) -> Result<(), String> {
        self.places.moved(rank, host, local, pid);
        match &self.layout {
            Some(layout) if lock(&self.made).insert(rank) => layout.create([rank]),
            _ => Ok(()),
        }
    }

    /// Puts output of a rank; waits while too much of it is not written.
    pub(super) fn put(&self, rank: Rank, stream: Stream, bytes: Bytes) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        *lock(&self.waiting.bytes).entry(rank).or_default() += length;
        lock(&self.sinks).put(Chunk { proc: ProcId::first(rank.0), stream, bytes });
        self.waiting.until(rank, WINDOW);
    }

    /// A process with this rank has ended: returns when its output is written.
    pub(super) fn ended(&self, rank: Rank, exit: &RankExit) {
        lock(&self.sinks).ended(&RankExit { proc: ProcId::first(rank.0), ..exit.clone() });
        self.waiting.until(rank, 0);
    }

    /// Notes a process id.
    pub(super) fn started(&self, rank: Rank, pid: u32) {
        self.places.started(rank, pid);
    }

    /// Returns when everything is written.
    pub(super) fn finish(&self) {
        lock(&self.sinks).finish();
        let ranks: Vec<Rank> = lock(&self.waiting.bytes).keys().copied().collect();
        ranks.into_iter().for_each(|rank| self.waiting.until(rank, 0));
    }
}

impl Waiting {
    fn written(&self, rank: Rank, bytes: u32) {
        if let Some(left) = lock(&self.bytes).get_mut(&rank) {
            *left = left.saturating_sub(bytes);
        }
        self.less.notify_all();
    }

    /// Waits until no more than `most` bytes of a rank are left.
    fn until(&self, rank: Rank, most: u32) {
        let mut bytes = lock(&self.bytes);
        while bytes.get(&rank).is_some_and(|left| *left > most) {
            bytes = self.less.wait(bytes).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
