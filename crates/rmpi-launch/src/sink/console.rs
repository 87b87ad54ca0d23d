//! Writing to our own stdout or stderr: batched, whole, however slow the reader is.

use super::Chunk;
use super::format::{Format, Now};
use super::lane::Writer;
use super::places::Places;
use crate::clock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

/// A batch is written when it has grown to this many bytes.
const BATCH: usize = 256 << 10;

/// The writer of one console stream.
pub(super) struct Console {
    file: File,
    format: Format,
    places: Places,
    merge: bool,
    batch: Vec<u8>,
}

impl Console {
    /// Writes to `fd`; `merge` names both streams `stdout` in tags.
    pub(super) fn new(fd: OwnedFd, format: Format, places: Places, merge: bool) -> Self {
        Self { file: File::from(fd), format, places, merge, batch: Vec::new() }
    }
}

impl Writer for Console {
    fn add(&mut self, chunk: &Chunk) -> bool {
        let stream = if self.merge { rmpi_wire::msg::Stream::Stdout } else { chunk.stream };
        if self.format.raw() {
            self.batch.extend_from_slice(&chunk.bytes);
        } else {
            let ctime = if self.format.timed() { clock::ctime_now() } else { String::new() };
            let now = Now { ctime, seconds: clock::unix_seconds() };
            let place = self.places.of(chunk.proc.rank);
            self.format.put(&mut self.batch, chunk.proc, &place, stream, &chunk.bytes, &now);
        }
        self.batch.len() >= BATCH
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = write_all(&mut self.file, &self.batch);
        self.batch.clear();
        written
    }
}

/// `write_all` that also waits on a descriptor someone else has made non-blocking.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_non_blocking_pipe_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let thread = std::thread::spawn(move || write_all(&mut File::from(OwnedFd::from(writer)), &sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        thread.join().unwrap().unwrap();
        assert!(got == expected);
    }
}
