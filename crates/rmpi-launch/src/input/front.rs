//! Looking into a pipe or a socket from its front without taking anything out: `tee(2)` for pipes, `MSG_PEEK` for
//! sockets. What lies in front and was looked at stays there until it is taken.

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};
use nix::sys::socket::{MsgFlags, recv};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// Bytes taken out at once.
const CHUNK: usize = 64 << 10;

/// The front of our standard input.
pub(super) struct Front {
    /// Where `tee` copies to; a socket needs none.
    copy: Option<(PipeReader, PipeWriter)>,
    /// Bytes looked at and still in there.
    held: usize,
}

impl Front {
    /// Of a pipe, or else a socket, that nobody has looked into.
    ///
    /// # Errors
    /// No more descriptors.
    pub(super) fn new(pipe: bool) -> io::Result<Self> {
        let copy = pipe.then(io::pipe).transpose()?;
        Ok(Self { copy, held: 0 })
    }

    /// Whether everything that was looked at is taken: only then does `poll` tell of more.
    pub(super) const fn nothing_held(&self) -> bool {
        self.held == 0
    }

    /// What lies behind that which is held, at most `up_to` bytes, if anything does.
    pub(super) fn more(&mut self, fd: BorrowedFd<'_>, up_to: usize) -> Option<Bytes> {
        if self.held == 0 {
            return None;
        }
        self.first(fd, up_to).ok().flatten().filter(|bytes| !bytes.is_empty())
    }

    /// The same, waiting for nothing: `None` when nothing more is there, no bytes at the end.
    ///
    /// # Errors
    /// What the kernel says of the descriptor.
    pub(super) fn first(&mut self, fd: BorrowedFd<'_>, up_to: usize) -> io::Result<Option<Bytes>> {
        let mut bytes = match self.look(fd, self.held + up_to) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            other => other?,
        };
        if self.held > 0 && bytes.len() <= self.held {
            return Ok(None);
        }
        drop(bytes.drain(..self.held));
        self.held += bytes.len();
        Ok(Some(bytes.into()))
    }

    /// At most `up_to` bytes from the front.
    fn look(&mut self, fd: BorrowedFd<'_>, up_to: usize) -> Result<Vec<u8>, Errno> {
        let Some((from, to)) = &mut self.copy else {
            let mut bytes = vec![0; up_to];
            let n = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
            bytes.truncate(n);
            return Ok(bytes);
        };
        // As many pages as ours can be in there; where that is refused, less is seen at a time.
        let size = fcntl(fd, FcntlArg::F_GETPIPE_SZ)?;
        if fcntl(to.as_fd(), FcntlArg::F_GETPIPE_SZ)? < size {
            let _ = fcntl(to.as_fd(), FcntlArg::F_SETPIPE_SZ(size));
        }
        let n = tee(fd, to.as_fd(), up_to, SpliceFFlags::SPLICE_F_NONBLOCK)?;
        let mut bytes = vec![0; n];
        from.read_exact(&mut bytes).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        Ok(bytes)
    }

    /// Takes bytes out that were looked at.
    pub(super) fn take(&mut self, fd: BorrowedFd<'_>, bytes: u64) {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.held);
        self.held -= left;
        let Ok(mut file) = fd.try_clone_to_owned().map(File::from) else { return };
        let mut buffer = vec![0; left.min(CHUNK)];
        while left > 0 {
            let now = left.min(CHUNK);
            match file.read(&mut buffer[..now]) {
                Ok(n) if n > 0 => left -= n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    /// What is looked at stays, what is taken goes, and the end is seen when all is taken.
    fn front_of(pipe: bool, fd: BorrowedFd<'_>, mut writer: impl io::Write) {
        let mut front = Front::new(pipe).unwrap();
        assert_eq!(front.first(fd, 10).unwrap(), None, "nothing is there, nobody waits");
        writer.write_all(b"abcdef").unwrap();
        assert_eq!(front.more(fd, 4), None, "asked for only while something is held");
        assert_eq!(front.first(fd, 4).unwrap().unwrap(), "abcd");
        assert_eq!(front.more(fd, 4).unwrap(), "ef");
        assert_eq!(front.more(fd, 4), None);
        front.take(fd, 3);
        writer.write_all(b"gh").unwrap();
        assert_eq!(front.more(fd, 4).unwrap(), "gh");
        front.take(fd, 4);
        drop(writer);
        assert!(front.more(fd, 4).is_none() && !front.nothing_held());
        let mut rest = [0; 1];
        File::from(fd.try_clone_to_owned().unwrap()).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"h", "the next command's");
    }

    #[test]
    fn a_pipe_keeps_what_was_only_looked_at() {
        let (reader, writer) = io::pipe().unwrap();
        front_of(true, reader.as_fd(), writer);
    }

    #[test]
    fn a_socket_keeps_what_was_only_looked_at() {
        let (reader, writer) = UnixStream::pair().unwrap();
        front_of(false, reader.as_fd(), writer);
    }

    #[test]
    fn the_end_is_no_bytes_when_everything_is_taken() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut front = Front::new(true).unwrap();
        writer.write_all(&[7; 70_000][..60_000]).unwrap();
        let first = front.first(reader.as_fd(), 64 << 10).unwrap().unwrap();
        drop(writer);
        front.take(reader.as_fd(), first.len() as u64);
        assert!(front.nothing_held());
        assert!(front.first(reader.as_fd(), 10).unwrap().unwrap().is_empty());
    }
}
