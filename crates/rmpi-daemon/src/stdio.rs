//! The output of ranks: pipes and pseudo-terminals, reading with credit. A stream
//! without credit is not read, so a slow reader of the job's output stops the ranks and nothing is buffered
//! beyond the window.

use crate::lines::{Lines, Tail};
use crate::sys;
use bytes::Bytes;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{pipe2, read};
use rmpi_types::launch::{StdioKind, Window};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// More than the C library's allocator keeps itself (`mallopt(3)`, `M_MMAP_THRESHOLD`).
const FRESH: usize = 256 << 10;

/// A pipe: read end, write end; both close on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// A rank's standard output: our end, its end. A terminal has the size of `window`.
pub(crate) fn output(kind: StdioKind, window: Option<Window>) -> io::Result<(OwnedFd, OwnedFd)> {
    match kind {
        StdioKind::Pipe => pipe(),
        StdioKind::Pty => {
            let pty = nix::pty::openpty(window.map(sys::winsize).as_ref(), None)?;
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
