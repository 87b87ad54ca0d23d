//! A lane: one destination of output with a thread of its own that may block in `write(2)` for as long as its
//! reader likes. The queue needs no bound: what is in it is bounded by the credit that only a written (or
//! refused) chunk gives back, through its receipt.

use super::{Chunk, Receipt};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a lane's thread does with chunks: put them into a batch, then write the batch.
pub(super) trait Writer: Send + 'static {
    /// Adds a chunk to the batch; says whether the batch should be written before more are added.
    fn add(&mut self, chunk: &Chunk) -> bool;
    /// Writes the batch and empties it.
    fn flush(&mut self) -> io::Result<()>;
}

#[derive(Default)]
struct Queue {
    items: Vec<(Chunk, Receipt)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end. Dropping it lets the thread write what is queued and end.
pub(super) struct Lane {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread; `failed` is called once, with the first error, after which chunks are discarded.
    pub(super) fn start(
        name: &str,
        writer: impl Writer,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name(name.to_owned()).spawn(move || run(&theirs, writer, failed))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues a chunk; its receipt is dropped once it is written or discarded.
    pub(super) fn push(&self, chunk: Chunk, receipt: Receipt) {
        self.shared.lock().items.push((chunk, receipt));
        self.shared.ready.notify_one();
    }
}

impl Lane {
    /// Returns when everything queued is written, however slow the reader is.
    pub(super) fn finish(mut self) {
        let thread = self.thread.take();
        drop(self);
        let _ = thread.map(thread::JoinHandle::join);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_one();
    }
}

fn run(shared: &Shared, mut writer: impl Writer, failed: impl FnOnce(io::Error)) {
    let mut failed = Some(failed);
    loop {
        let mut queue = shared.lock();
        while queue.items.is_empty() {
            if queue.closed {
                return;
            }
            queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let items = std::mem::take(&mut queue.items);
        drop(queue);
        let mut receipts = Vec::with_capacity(items.len());
        for (chunk, receipt) in items {
            receipts.push(receipt);
            if failed.is_some() && writer.add(&chunk) {
                flush(&mut writer, &mut failed);
                receipts.clear();
            }
        }
        flush(&mut writer, &mut failed);
    }
}

fn flush(writer: &mut impl Writer, failed: &mut Option<impl FnOnce(io::Error)>) {
    if failed.is_none() {
        return;
    }
    if let Err(error) = writer.flush()
        && let Some(report) = failed.take()
    {
        report(error);
    }
}
