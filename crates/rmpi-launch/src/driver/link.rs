//! The byte side of control streams: one reading and one writing task a link. The reader hands over whole
//! frames through a bounded channel, so that a driver that is behind stops the stream; the writer batches.

use super::input::{FromLink, Input};
use bytes::Bytes;
use rmpi_control::{LinkId, LinkKind};
use rmpi_daemon::Joined;
use rmpi_wire::{Frame, FrameDecoder};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

/// Bytes read at once at first: thousands of quiet hosts must cost little.
const READ_MIN: usize = 512;
/// Bytes read at once from a busy stream.
const READ_MAX: usize = 256 << 10;
/// Bytes encoded before they are written.
const BATCH: usize = 256 << 10;
/// Frames taken from the queue at once.
const FRAMES: usize = 64;
/// Bytes and frames of those buffers that stay with a quiet link.
const KEPT_BATCH: usize = 256;
const KEPT_FRAMES: usize = 2;

/// What carries frames.
pub(crate) enum Carrier {
    /// Streams of bytes from and to the daemon.
    Stream(Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>),
    /// The worker is in this process.
    Memory(Joined),
}

/// A control stream after its hellos, ready for frames.
pub(crate) struct Channel {
    pub(crate) carrier: Carrier,
    pub(crate) kind: LinkKind,
    /// The address the host was reached at.
    pub(crate) reached_at: Option<IpAddr>,
    /// Whether bytes written are in the kernel's hands (a pipe) and survive our exit.
    pub(crate) durable: bool,
    /// Says why the stream ended, when it has: the tail of an agent's stderr, an SSH disconnect reason.
    pub(crate) epitaph: Option<Epitaph>,
    /// Dropped when both directions have ended: kills an agent, closes an SSH connection.
    pub(crate) keep: Arc<dyn Any + Send + Sync>,
}

/// See [`Channel::epitaph`].
pub(crate) type Epitaph = Box<dyn Fn() -> Option<String> + Send>;

enum ToWriter {
    Frame(Frame),
    Flush(oneshot::Sender<()>),
}

/// The driver's end of a link. Dropping it lets the writer finish and close the stream.
pub(crate) struct Link {
    pub(crate) durable: bool,
    /// Which stream of the host this is, from 0: one that was dialled may be replaced.
    pub(crate) stream: u32,
    writer: Writer,
}

/// Where frames go.
enum Writer {
    /// To the writing task.
    Task(mpsc::UnboundedSender<ToWriter>),
    /// To the worker itself.
    Memory(mpsc::UnboundedSender<Frame>),
}

impl Link {
    /// Starts both tasks. The queue to the writer is bounded by what the machine sends unasked: input credit,
    /// replies, heartbeats.
    pub(crate) fn start(id: LinkId, stream: u32, channel: Channel, frames: mpsc::Sender<Input>) -> Self {
        let Channel { carrier, durable, epitaph, keep, .. } = channel;
        let (reader, writer) = match carrier {
            Carrier::Stream(reader, writer) => (reader, writer),
            Carrier::Memory(Joined { to, mut from }) => {
                tokio::spawn(async move {
                    while let Some(frame) = from.recv().await {
                        if frames.send(Input::Link(id, FromLink::Frame(frame))).await.is_err() {
                            return;
                        }
                    }
                    let what = "this machine's worker has ended".into();
                    let _ = frames.send(Input::Link(id, FromLink::Eof { stream, what })).await;
                    drop(keep);
                });
                return Self { durable, stream, writer: Writer::Memory(to) };
            }
        };
        let (tx, rx) = mpsc::unbounded_channel();
        let kept = Arc::clone(&keep);
        tokio::spawn(async move {
            let end = read(id, reader, &frames).await;
            let what =
                epitaph.and_then(|say| say()).or(end).unwrap_or_else(|| "control stream closed".into());
            let _ = frames.send(Input::Link(id, FromLink::Eof { stream, what })).await;
            drop(kept);
        });
        tokio::spawn(async move {
            write(writer, rx).await;
            drop(keep);
        });
        Self { durable, stream, writer: Writer::Task(tx) }
    }

    pub(crate) fn send(&self, frame: Frame) {
        // One that does not listen any more is seen by its end of file.
        match &self.writer {
            Writer::Task(to) => drop(to.send(ToWriter::Frame(frame))),
            Writer::Memory(to) => drop(to.send(frame)),
        }
    }

    /// Completes when everything sent so far was written or the stream is broken.
    pub(crate) async fn flush(&self) {
        let Writer::Task(to) = &self.writer else { return };
        let (tx, rx) = oneshot::channel();
        if to.send(ToWriter::Flush(tx)).is_ok() {
            let _ = rx.await;
        }
    }
}

/// Reads until end of file; says what went wrong, if it was no plain end.
async fn read(
    id: LinkId,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    frames: &mpsc::Sender<Input>,
) -> Option<String> {
    let mut decoder = FrameDecoder::default();
    let mut room = READ_MIN;
    loop {
        let buffer = decoder.buffer();
        buffer.reserve(room);
        match reader.read_buf(buffer).await {
            Ok(0) => return None,
            Ok(n) if n >= room => room = (room * 2).min(READ_MAX),
            Ok(_) => {}
            Err(e) => return Some(format!("control stream failed: {e}")),
        }
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if frames.send(Input::Link(id, FromLink::Frame(frame))).await.is_err() {
                        return None;
                    }
                }
                Ok(None) => break,
                Err(e) => return Some(format!("control stream broken: {e}")),
            }
        }
    }
}

async fn write(mut writer: Box<dyn AsyncWrite + Send + Unpin>, mut queue: mpsc::UnboundedReceiver<ToWriter>) {
    let mut batch = Vec::new();
    let mut taken = Vec::new();
    let mut broken = false;
    while queue.recv_many(&mut taken, FRAMES).await > 0 {
        let mut flushed = Vec::new();
        for item in taken.drain(..) {
            match item {
                ToWriter::Frame(frame) => {
                    broken |= put(&mut writer, &mut batch, &frame).await.is_err();
                }
                ToWriter::Flush(done) => flushed.push(done),
            }
        }
        if !broken {
            broken = writer.write_all(&batch).await.is_err() || writer.flush().await.is_err();
        }
        // A burst's memory is not kept: most links then are quiet, and there may be thousands.
        batch.clear();
        batch.shrink_to(KEPT_BATCH);
        taken.shrink_to(KEPT_FRAMES);
        for done in flushed {
            let _ = done.send(());
        }
    }
    let _ = writer.shutdown().await;
}

async fn put(
    writer: &mut (dyn AsyncWrite + Send + Unpin),
    batch: &mut Vec<u8>,
    frame: &Frame,
) -> std::io::Result<()> {
    let payload: &Bytes = &frame.payload;
    frame.encode_head(batch).map_err(std::io::Error::other)?;
    batch.extend_from_slice(payload);
    if batch.len() >= BATCH {
        writer.write_all(batch).await?;
        batch.clear();
    }
    Ok(())
}
