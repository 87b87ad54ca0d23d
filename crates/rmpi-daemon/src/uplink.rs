//! The control stream: hello, then frames both ways over two descriptors (pipes, or one socket), or in memory as they
//! are.
//! Writing never blocks the worker: frames queue here; what can queue is bounded by the credits of the ranks.

use crate::joined::Joined;
use crate::stdio;
use bytes::{Buf as _, Bytes, BytesMut};
use nix::sys::uio::writev;
use nix::unistd::{read, write};
use rmpi_wire::hello::{self, Role};
use rmpi_wire::{Frame, FrameDecoder, Hello, WireError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{Notify, mpsc};

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

impl End {
    /// Writes as soon as something goes in.
    fn poll_out(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&AsyncFd<OwnedFd>) -> nix::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(write(fd)?)) {
                Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => return Poll::Ready(count),
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |fd| write(fd, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |fd| writev(fd, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The stream ends when the descriptor is closed.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What takes frames to the launcher and brings its.
pub(crate) enum Carrier<I, O> {
    /// Streams of bytes.
    Stream(I, O),
    /// Our own memory: the launcher is this very program, and needs no hello.
    Memory(Joined),
}

impl<I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Carrier<I, O> {
    /// Sends our hello.
    ///
    /// # Errors
    /// See [`HelloError`].
    pub(crate) async fn say_hello(&mut self) -> Result<(), HelloError> {
        match self {
            Self::Stream(_, output) => say_hello(output).await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// Takes the launcher's hello.
    ///
    /// # Errors
    /// See [`HelloError`].
    pub(crate) async fn hear_hello(&mut self) -> Result<(), HelloError> {
        match self {
            Self::Stream(input, _) => hear_hello(input).await,
            Self::Memory(_) => Ok(()),
        }
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

/// Payloads of at least this size are written from where they are; smaller ones are copied behind their heads.
const UNCOPIED: usize = 8 << 10;
/// Pieces written at once.
const PIECES: usize = 64;

/// Encoded frames: heads and small payloads together, large payloads for themselves.
#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    last: BytesMut,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.last.is_empty()
    }

    fn push(&mut self, frame: Frame) {
        let mut head = Vec::new();
        // The machine made the frame: it is within the limits.
        if frame.encode_head(&mut head).is_err() {
            return;
        }
        self.last.extend_from_slice(&head);
        if frame.payload.len() < UNCOPIED {
            return self.last.extend_from_slice(&frame.payload);
        }
        self.pieces.push_back(self.last.split().freeze());
        self.pieces.push_back(frame.payload);
    }

    fn take(&mut self) -> VecDeque<Bytes> {
        if !self.last.is_empty() {
            self.pieces.push_back(self.last.split().freeze());
        }
        std::mem::take(&mut self.pieces)
    }
}

/// Writes all pieces.
async fn write_pieces(output: &mut (impl AsyncWrite + Unpin), mut pieces: VecDeque<Bytes>) -> io::Result<()> {
    if !output.is_write_vectored() {
        return output.write_all(&pieces.make_contiguous().concat()).await;
    }
    while !pieces.is_empty() {
        let parts: Vec<IoSlice<'_>> = pieces.iter().take(PIECES).map(|p| IoSlice::new(p)).collect();
        let mut count = output.write_vectored(&parts).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = pieces.front_mut().filter(|p| count > 0 || p.is_empty()) {
            let step = count.min(first.len());
            first.advance(step);
            count -= step;
            if first.is_empty() {
                pieces.pop_front();
            }
        }
    }
    Ok(())
}

/// Frames on their way up.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: RefCell<Waiting>,
    /// A launcher in this process.
    memory: RefCell<Option<mpsc::UnboundedSender<Frame>>>,
    writing: Cell<bool>,
    broken: Cell<bool>,
    changed: Notify,
    idle: Notify,
}

impl Queue {
    /// Hands all further frames to a launcher in this process.
    pub(crate) fn join(&self, to: mpsc::UnboundedSender<Frame>) {
        self.memory.replace(Some(to));
    }

    /// Queues a frame.
    pub(crate) fn push(&self, frame: Frame) {
        if self.broken.get() {
            return;
        }
        if let Some(to) = &*self.memory.borrow() {
            // One that is gone ends the stream, which is told elsewhere.
            return drop(to.send(frame));
        }
        self.waiting.borrow_mut().push(frame);
        self.changed.notify_one();
    }

    /// The stream is gone: what waits is dropped, as nobody will write it. A stream that is resumed is sent what its
    /// other end lacks.
    pub(crate) fn cut(&self) {
        self.broken.set(true);
        self.waiting.take();
        self.memory.take();
        self.idle.notify_one();
    }

    /// Another stream has taken its place; [`Queue::write`] is to be called for it.
    pub(crate) fn renew(&self) {
        self.broken.set(false);
        self.writing.set(false);
    }

    /// Waits until everything is written, or cannot be.
    pub(crate) async fn flushed(&self) {
        while !self.broken.get() && (self.writing.get() || !self.waiting.borrow().is_empty()) {
            self.idle.notified().await;
        }
    }

    /// Writes what is queued, for ever; ends when the stream does.
    pub(crate) async fn write(self: Rc<Self>, mut output: impl AsyncWrite + Unpin) -> io::Error {
        loop {
            let pieces = self.waiting.borrow_mut().take();
            if pieces.is_empty() {
                self.writing.set(false);
                self.idle.notify_one();
                self.changed.notified().await;
                continue;
            }
            self.writing.set(true);
            if let Err(error) = write_pieces(&mut output, pieces).await {
                self.broken.set(true);
                self.waiting.take();
                self.idle.notify_one();
                return error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::{Dest, Message, Origin, Up};

    fn frame(payload: usize) -> Frame {
        let payload = Bytes::from(vec![7; payload]);
        Message::Up(Up::Note("x".into())).frame(Origin::Launcher, Dest::Launcher, payload).unwrap()
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_through_a_pipe_as_they_were() {
        let sizes = [0, 1, UNCOPIED - 1, UNCOPIED, 65_536, 3, 65_536, 65_536];
        for vectored in [true, false] {
            let mut waiting = Waiting::default();
            sizes.iter().for_each(|&n| waiting.push(frame(n)));
            let (near, far) = stdio::pipe().unwrap();
            let (from, mut to) = (End::new(near).unwrap(), End::new(far).unwrap());
            let writing = async {
                if vectored {
                    write_pieces(&mut to, waiting.take()).await.unwrap();
                } else {
                    // Hides that it can take several at once.
                    write_pieces(&mut tokio::io::BufWriter::with_capacity(0, &mut to), waiting.take())
                        .await
                        .unwrap();
                }
                drop(to);
            };
            let got = RefCell::new(Vec::new());
            let reading = read_frames(from, |f| got.borrow_mut().push(f));
            let (read, ()) = tokio::join!(reading, writing);
            read.unwrap();
            assert_eq!(got.take(), sizes.map(frame));
        }
    }
}
