//! The control stream: hello, then frames both ways over two descriptors (pipes, or one socket). Writing
//! never blocks the worker: frames queue here; what can queue is bounded by the credits of the ranks.

use bytes::BufMut;
use nix::unistd::{read, write};
use rmpi_wire::hello::{self, Role};
use rmpi_wire::{Frame, FrameDecoder, Hello, WireError};
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// How long the launcher may take to say hello.
const HELLO: Duration = Duration::from_secs(60);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

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

/// Sends our hello.
///
/// # Errors
/// See [`HelloError`].
pub(crate) async fn say_hello(output: &AsyncFd<OwnedFd>) -> Result<(), HelloError> {
    let mut nonce = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(write_all(output, &Hello::ours(Role::Daemon, nonce).encode()).await?)
}

/// Takes the launcher's hello.
///
/// # Errors
/// See [`HelloError`].
pub(crate) async fn hear_hello(input: &AsyncFd<OwnedFd>) -> Result<(), HelloError> {
    let mut theirs = [0; hello::LEN];
    let take = async {
        let mut filled = 0;
        while filled < theirs.len() {
            match read_some(input, &mut theirs[filled..]).await? {
                0 => return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into())),
                n => filled += n,
            }
        }
        Ok(())
    };
    tokio::time::timeout(HELLO, take).await.map_err(|_| HelloError::Silent)??;
    match Hello::decode(&theirs)?.role {
        Role::Launcher => Ok(()),
        Role::Daemon => Err(HelloError::Role),
    }
}

async fn read_some(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = fd.readable().await?;
        match ready.try_io(|fd| Ok(read(fd, buffer)?)) {
            Err(_) => {}
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
        }
    }
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| Ok(write(fd, bytes)?)) {
            Err(_) => {}
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => bytes = &bytes[result?..],
        }
    }
    Ok(())
}

/// Reads frames until the stream ends; a malformed one ends it.
pub(crate) async fn read_frames(fd: AsyncFd<OwnedFd>, give: impl Fn(Frame)) -> Result<(), HelloError> {
    let mut decoder = FrameDecoder::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match read_some(&fd, &mut chunk).await? {
            0 => return Ok(()),
            n => decoder.buffer().put_slice(&chunk[..n]),
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

    /// Waits until everything is written, or cannot be.
    pub(crate) async fn flushed(&self) {
        while !self.broken.get() && (self.writing.get() || !self.bytes.borrow().is_empty()) {
            self.idle.notified().await;
        }
    }

    /// Writes what is queued, for ever; ends when the stream does.
    pub(crate) async fn write(self: Rc<Self>, fd: AsyncFd<OwnedFd>) -> io::Error {
        loop {
            let bytes = self.bytes.take();
            if bytes.is_empty() {
                self.writing.set(false);
                self.idle.notify_one();
                self.changed.notified().await;
                continue;
            }
            self.writing.set(true);
            if let Err(error) = write_all(&fd, &bytes).await {
                self.broken.set(true);
                self.bytes.take();
                self.idle.notify_one();
                return error;
            }
        }
    }
}
