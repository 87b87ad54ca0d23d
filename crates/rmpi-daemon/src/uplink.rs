//! The control stream: hello, then frames both ways over two descriptors (pipes, or one socket) or in memory.
//! Writing never blocks the worker: frames queue here; what can queue is bounded by the credits of the ranks.

use crate::stdio;
use nix::unistd::{read, write};
use rmpi_wire::hello::{self, Role};
use rmpi_wire::{Frame, FrameDecoder, Hello, WireError};
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;

/// How long the launcher may take to say hello.
const HELLO: Duration = Duration::from_secs(60);
/// Bytes read at once: at first, and of a busy stream.
const CHUNK_MIN: usize = 4 << 10;
const CHUNK_MAX: usize = 64 << 10;

/// Why a control stream did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// Not what was expected on the other side.
    #[error("control stream: {0}")]
    Wire(#[from] WireError),
    /// The stream itself.
    #[error("control stream: {0}")]
    Io(#[from] io::Error),
    /// Silence.
    #[error("control stream: no hello within {} s", HELLO.as_secs())]
    Silent,
    /// The other side is a daemon too.
    #[error("control stream: the other side is no launcher")]
    Role,
}

/// One descriptor of the stream, pipe or socket.
#[derive(Debug)]
pub(crate) struct End(AsyncFd<OwnedFd>);

impl End {
    /// Of this descriptor, which becomes non-blocking.
    ///
    /// # Errors
    /// What `fcntl` or `epoll` say.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        stdio::nonblocking(fd).map(Self)
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|fd| Ok(read(fd, buffer.initialize_unfilled())?)) {
                Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => return Poll::Ready(count.map(|n| buffer.advance(n))),
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(write(fd, bytes)?)) {
                Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => return Poll::Ready(count),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The stream ends when the descriptor is closed.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sends our hello.
///
/// # Errors
/// See [`HelloError`].
pub(crate) async fn say_hello(output: &mut (impl AsyncWrite + Unpin)) -> Result<(), HelloError> {
    let mut nonce = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(output.write_all(&Hello::ours(Role::Daemon, nonce).encode()).await?)
}

/// Takes the launcher's hello.
///
/// # Errors
/// See [`HelloError`].
pub(crate) async fn hear_hello(input: &mut (impl AsyncRead + Unpin)) -> Result<(), HelloError> {
    let mut theirs = [0; hello::LEN];
    let take = input.read_exact(&mut theirs);
    tokio::time::timeout(HELLO, take).await.map_err(|_| HelloError::Silent)??;
    match Hello::decode(&theirs)?.role {
        Role::Launcher => Ok(()),
        Role::Daemon => Err(HelloError::Role),
    }
}

/// Reads frames until the stream ends; a malformed one ends it.
pub(crate) async fn read_frames(
    mut input: impl AsyncRead + Unpin,
    give: impl Fn(Frame),
) -> Result<(), HelloError> {
    let mut decoder = FrameDecoder::default();
    let mut room = CHUNK_MIN;
    loop {
        let buffer = decoder.buffer();
        buffer.reserve(room);
        match input.read_buf(buffer).await? {
            0 => return Ok(()),
            n if n >= room => room = (room * 2).min(CHUNK_MAX),
            _ => {}
        }
        while let Some(frame) = decoder.next_frame()? {
            give(frame);
        }
    }
}

/// Frames on their way up.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: RefCell<Vec<u8>>,
    writing: Cell<bool>,
    broken: Cell<bool>,
    changed: Notify,
    idle: Notify,
}

impl Queue {
    /// Queues a frame.
    pub(crate) fn push(&self, frame: &Frame) {
        if self.broken.get() {
            return;
        }
        // The machine made the frame: it is within the limits.
        if frame.encode(&mut self.bytes.borrow_mut()).is_ok() {
            self.changed.notify_one();
        }
    }

    /// The stream is gone: what waits is dropped, as nobody will write it. A stream that is resumed is sent what its
    /// other end lacks.
    pub(crate) fn cut(&self) {
        self.broken.set(true);
        self.bytes.take();
        self.idle.notify_one();
    }

    /// Another stream has taken its place; [`Queue::write`] is to be called for it.
    pub(crate) fn renew(&self) {
        self.broken.set(false);
        self.writing.set(false);
    }

    /// Waits until everything is written, or cannot be.
    pub(crate) async fn flushed(&self) {
        while !self.broken.get() && (self.writing.get() || !self.bytes.borrow().is_empty()) {
            self.idle.notified().await;
        }
    }

    /// Writes what is queued, for ever; ends when the stream does.
    pub(crate) async fn write(self: Rc<Self>, mut output: impl AsyncWrite + Unpin) -> io::Error {
        loop {
            let bytes = self.bytes.take();
            if bytes.is_empty() {
                self.writing.set(false);
                self.idle.notify_one();
                self.changed.notified().await;
                continue;
            }
            self.writing.set(true);
            if let Err(error) = output.write_all(&bytes).await {
                self.broken.set(true);
                self.bytes.take();
                self.idle.notify_one();
                return error;
            }
        }
    }
}
