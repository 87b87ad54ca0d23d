//! The output of ranks: pipes and pseudo-terminals, reading with credit. A stream
//! without credit is not read, so a slow reader of the job's output stops the ranks and nothing is buffered
//! beyond the window. A stream that fills its pipe is read into buffers of its own, which go the whole way to the
//! launcher uncopied; all others share one.

use crate::lines::{Lines, Tail};
use crate::sys;
use bytes::Bytes;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::pipe2;
use rmpi_types::launch::{StdioKind, Window};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

/// Bytes read at once of a quiet stream.
const CHUNK: usize = 64 << 10;
/// A read of this many bytes says that the writer was waiting for us; so many in a row of fewer than the second number,
/// that it is not any more.
const BUSY: usize = 32 << 10;
const QUIET: usize = 8 << 10;
const QUIET_READS: u32 = 16;
/// What the pipe of a busy stream holds, so that its writer need not wait for each of our reads: a quarter of what
/// everyone may ask for (`pipe(7)`), as users have a limit over all their pipes too.
const PIPE: i32 = 256 << 10;
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

/// Our end of a rank's output, as [`output`] or [`pipe`] made it: no flag of it is set yet.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<Receiver> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // It may be a terminal, which is read in the same way.
    Receiver::from_owned_fd_unchecked(fd)
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

/// Reads an output stream to its end; gives whole lines, and says which are the last. `give` says how many of the bytes
/// were all that there was to do with them: as many more may be read at once.
pub(crate) async fn read_output(
    from: Receiver,
    credit: Rc<Credit>,
    window: u32,
    tail: Option<Rc<RefCell<Tail>>>,
    give: impl AsyncFn(Bytes, bool) -> usize,
) {
    let mut lines = Lines::new(window as usize);
    // Small reads that are still to come before a busy stream is a quiet one.
    let mut busy = 0;
    let mut grown = false;
    loop {
        let allowed = credit.some().await;
        if from.readable().await.is_err() {
            break;
        }
        let read = if busy > 0 {
            lines.fill(allowed, |buffer| from.try_read_buf(buffer))
        } else {
            BUFFER.with_borrow_mut(|buffer| {
                from.try_read(&mut buffer[..allowed.min(CHUNK)])
                    .inspect(|&count| lines.push(&buffer[..count]))
            })
        };
        match read {
            Ok(count @ 1..) => {
                credit.left.set(credit.left.get().saturating_sub(count));
                if let Some(tail) = &tail {
                    tail.borrow_mut().push(lines.newest(count));
                }
                let ready = lines.cut(count);
                if !ready.is_empty() {
                    let done = give(ready, false).await;
                    credit.left.set(credit.left.get().saturating_add(done));
                }
                if count >= BUSY {
                    busy = QUIET_READS;
                    if !std::mem::replace(&mut grown, true) {
                        // Not all have a say in it, and a terminal has no such size.
                        let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(PIPE));
                    }
                } else if count < QUIET && busy > 0 {
                    busy -= 1;
                    if busy == 0 {
                        lines.rest();
                    }
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A pseudo-terminal whose other side is closed says EIO.
            Ok(_) | Err(_) => break,
        }
    }
    give(lines.finish(), true).await;
}
