//! The streams of ranks: pipes and pseudo-terminals, reading with credit, writing standard input. A stream
//! without credit is not read, so a slow reader of the job's output stops the ranks and nothing is buffered
//! beyond the window.

use crate::lines::{Lines, Tail};
use crate::sys;
use bytes::Bytes;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{pipe2, read, write};
use rmpi_types::launch::StdioKind;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::rc::{Rc, Weak};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// More than the C library's allocator keeps itself (`mallopt(3)`, `M_MMAP_THRESHOLD`).
const FRESH: usize = 256 << 10;

/// A pipe: read end, write end; both close on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// A rank's standard output: our end, its end.
pub(crate) fn output(kind: StdioKind) -> io::Result<(OwnedFd, OwnedFd)> {
    match kind {
        StdioKind::Pipe => pipe(),
        StdioKind::Pty => {
            let pty = nix::pty::openpty(None, None)?;
            let mut mode = tcgetattr(&pty.slave)?;
            // No translation of any kind: binary-clean, and no carriage returns.
            cfmakeraw(&mut mode);
            tcsetattr(&pty.slave, SetArg::TCSANOW, &mode)?;
            for fd in [&pty.master, &pty.slave] {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            }
            Ok((pty.master, pty.slave))
        }
    }
}

/// Makes a descriptor fit for [`AsyncFd`].
pub(crate) fn nonblocking(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    sys::watch(fd)
}

/// How much may be read of a stream.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    left: Cell<usize>,
    more: Notify,
}

impl Credit {
    /// Allows more.
    pub(crate) fn add(&self, bytes: u32) {
        self.left.set(self.left.get().saturating_add(bytes as usize));
        self.more.notify_one();
    }

    async fn some(&self) -> usize {
        while self.left.get() == 0 {
            self.more.notified().await;
        }
        self.left.get()
    }
}

thread_local! {
    /// One buffer for all streams: reads do not wait while they hold it. So large that the allocator takes it
    /// from the kernel, which gives zeroes page by page when they are touched: most jobs print little.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; FRESH]);
}

/// Reads an output stream to its end; gives whole lines, and says which are the last.
pub(crate) async fn read_output(
    fd: AsyncFd<OwnedFd>,
    credit: Rc<Credit>,
    window: u32,
    tail: Option<Rc<RefCell<Tail>>>,
    give: impl Fn(Bytes, bool),
) {
    let mut lines = Lines::new(window as usize);
    loop {
        let allowed = credit.some().await.min(CHUNK);
        let Ok(mut ready) = fd.readable().await else { break };
        let step = BUFFER.with_borrow_mut(|buffer| {
            let count = ready.try_io(|fd| Ok(read(fd, &mut buffer[..allowed])?));
            match count {
                Err(_) => Some(Bytes::new()),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => Some(Bytes::new()),
                // A pseudo-terminal whose other side is closed says EIO.
                Ok(Err(_) | Ok(0)) => None,
                Ok(Ok(n)) => {
                    credit.left.set(credit.left.get().saturating_sub(n));
                    if let Some(tail) = &tail {
                        tail.borrow_mut().push(&buffer[..n]);
                    }
                    Some(lines.push(&buffer[..n]))
                }
            }
        });
        match step {
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => give(bytes, false),
            None => break,
        }
    }
    give(lines.finish(), true);
}

/// What a rank's standard input reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It took this many bytes.
    Bytes(u32),
    /// It does not read any more.
    Closed,
}

/// How much of what a rank's standard input took lies in its pipe unread. The end of file needs our end
/// closed: from then on, when nothing is written any more, the other end is held instead.
#[derive(Debug)]
pub(crate) struct Unread {
    writer: Weak<AsyncFd<OwnedFd>>,
    reader: RefCell<Option<OwnedFd>>,
}

impl Unread {
    /// Of this pipe.
    pub(crate) fn of(writer: &Rc<AsyncFd<OwnedFd>>) -> Self {
        Self { writer: Rc::downgrade(writer), reader: RefCell::default() }
    }

    /// Bytes; 0 where that is not to be had.
    pub(crate) fn count(&self) -> u32 {
        if let Some(reader) = &*self.reader.borrow() {
            return sys::unread(reader.as_fd());
        }
        self.writer.upgrade().map_or(0, |writer| sys::unread(writer.get_ref().as_fd()))
    }

    /// Nothing will be written any more: holds the other end if something is in the pipe.
    fn seal(&self, writer: &AsyncFd<OwnedFd>) {
        let fd = writer.get_ref();
        if sys::unread(fd.as_fd()) > 0 {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
            let other = options.open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            *self.reader.borrow_mut() = other.ok().map(Into::into);
        }
    }
}

/// Writes what comes to a rank's standard input; the channel's end is the end of file.
pub(crate) async fn write_stdin(
    fd: Rc<AsyncFd<OwnedFd>>,
    unread: Rc<Unread>,
    mut input: mpsc::UnboundedReceiver<Bytes>,
    report: impl Fn(Taken),
) {
    while let Some(mut bytes) = input.recv().await {
        while !bytes.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| Ok(write(fd, &bytes)?)) {
                Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    unread.seal(&fd);
                    return report(Taken::Closed);
                }
                Ok(Ok(n)) => {
                    drop(bytes.split_to(n));
                    report(Taken::Bytes(u32::try_from(n).unwrap_or(u32::MAX)));
                }
            }
        }
    }
    unread.seal(&fd);
}
