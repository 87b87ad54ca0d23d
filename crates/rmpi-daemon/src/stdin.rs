//! Standard input of ranks: a pipe of one page, so that the kernel tells when the rank has emptied it. What lies in
//! the pipe unread does not count as read: it belongs to the job's input as long as no rank has taken it.

use crate::{stdio, sys};
use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::rc::{Rc, Weak};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// Bytes that a rank has read and that are told together, while it has more to read.
const TELL: u32 = 16 << 10;

/// A rank's standard input: its end, our end. The kernel rounds the size up to a page (pipe(7)); a pipe of one page is
/// writable only when it is empty.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = stdio::pipe()?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(1))?;
    Ok((read, write))
}

/// What a rank's standard input reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has read more: [`Intake::read`] says how much.
    More,
    /// It does not read any more.
    Closed,
}

/// How much a rank has read of its pipe. The end of file needs our end closed: from then on, when nothing is
/// written any more, the other end is held instead.
#[derive(Debug)]
pub(crate) struct Intake {
    writer: Weak<AsyncFd<OwnedFd>>,
    reader: RefCell<Option<OwnedFd>>,
    /// Bytes written and not told to be read.
    untold: Cell<u32>,
}

impl Intake {
    /// Of this pipe.
    pub(crate) fn of(writer: &Rc<AsyncFd<OwnedFd>>) -> Self {
        Self { writer: Rc::downgrade(writer), reader: RefCell::default(), untold: Cell::default() }
    }

    /// Bytes in the pipe; none where that is not to be had.
    fn unread(&self) -> u32 {
        if let Some(reader) = &*self.reader.borrow() {
            return sys::unread(reader.as_fd());
        }
        self.writer.upgrade().map_or(0, |writer| sys::unread(writer.get_ref().as_fd()))
    }

    /// Bytes the rank has read since this was last asked.
    pub(crate) fn read(&self) -> u32 {
        let untold = self.untold.get();
        let unread = self.unread().min(untold);
        self.untold.set(unread);
        untold - unread
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

/// What a pipe says of its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipe {
    Unread,
    Empty,
    Gone,
}

fn look(fd: &OwnedFd) -> Pipe {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    match fds[0].revents() {
        Some(flags) if flags.contains(PollFlags::POLLERR) => Pipe::Gone,
        Some(flags) if flags.contains(PollFlags::POLLOUT) => Pipe::Empty,
        _ => Pipe::Unread,
    }
}

/// Waits until nothing is unread in the pipe; false when nobody can read it any more.
async fn emptied(fd: &AsyncFd<OwnedFd>) -> bool {
    loop {
        let Ok(mut ready) = fd.writable().await else { return false };
        match look(fd.get_ref()) {
            Pipe::Unread => ready.clear_ready(),
            Pipe::Empty => return true,
            Pipe::Gone => return false,
        }
    }
}

/// Writes what comes to a rank's standard input; the channel's end is the end of file.
pub(crate) async fn write(
    fd: Rc<AsyncFd<OwnedFd>>,
    intake: Rc<Intake>,
    mut input: mpsc::UnboundedReceiver<Bytes>,
    report: impl Fn(Taken),
) {
    let mut begun = false;
    loop {
        let next = if begun && intake.untold.get() > 0 && input.is_empty() {
            tokio::select! {
                biased;
                next = input.recv() => next,
                open = emptied(&fd) => {
                    if !open {
                        intake.seal(&fd);
                        return report(Taken::Closed);
                    }
                    report(Taken::More);
                    input.recv().await
                }
            }
        } else {
            input.recv().await
        };
        begun = true;
        let Some(mut bytes) = next else { break };
        while !bytes.is_empty() {
            let Ok(mut ready) = fd.writable().await else { return };
            match ready.try_io(|fd| Ok(nix::unistd::write(fd, &bytes)?)) {
                Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    intake.seal(&fd);
                    return report(Taken::Closed);
                }
                Ok(Ok(n)) => {
                    drop(bytes.split_to(n));
                    let n = u32::try_from(n).unwrap_or(u32::MAX);
                    intake.untold.set(intake.untold.get().saturating_add(n));
                    if intake.untold.get() > TELL {
                        report(Taken::More);
                    }
                }
            }
        }
    }
    intake.seal(&fd);
}
