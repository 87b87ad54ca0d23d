//! Writing to our own stdout or stderr: batched, whole, however slow the reader is. Untouched output is written from
//! where it lies.

use super::Chunk;
use super::format::{Format, Now};
use super::lane::Writer;
use super::places::Places;
use crate::clock;
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, OwnedFd};

/// A batch is written when it has grown to this many bytes.
const BATCH: usize = 256 << 10;
/// Or to this many chunks.
const CHUNKS: usize = 64;

/// The writer of one console stream.
pub(super) struct Console {
    file: File,
    format: Format,
    places: Places,
    merge: bool,
    /// Formatted lines.
    batch: Vec<u8>,
    /// Chunks as they came, if that is the format, and their bytes.
    chunks: Vec<Bytes>,
    length: usize,
}

impl Console {
    /// Writes to `fd`; `merge` names both streams `stdout` in tags.
    pub(super) fn new(fd: OwnedFd, format: Format, places: Places, merge: bool) -> Self {
        let (batch, chunks) = (Vec::new(), Vec::new());
        Self { file: File::from(fd), format, places, merge, batch, chunks, length: 0 }
    }
}

impl Writer for Console {
    fn add(&mut self, chunk: &Chunk) -> bool {
        if self.format.raw() {
            self.length += chunk.bytes.len();
            self.chunks.push(chunk.bytes.clone());
            return self.length >= BATCH || self.chunks.len() >= CHUNKS;
        }
        let stream = if self.merge { rmpi_wire::msg::Stream::Stdout } else { chunk.stream };
        let ctime = if self.format.timed() { clock::ctime_now() } else { String::new() };
        let now = Now { ctime, seconds: clock::unix_seconds() };
        let place = self.places.of(chunk.proc.rank);
        self.format.put(&mut self.batch, chunk.proc, &place, stream, &chunk.bytes, &now);
        self.batch.len() >= BATCH
    }

    fn flush(&mut self) -> io::Result<()> {
        let whole = [IoSlice::new(&self.batch)];
        let chunks = self.chunks.iter().map(|c| IoSlice::new(c));
        let written = write_all(&mut self.file, &mut whole.into_iter().chain(chunks).collect::<Vec<_>>());
        self.batch.clear();
        self.chunks.clear();
        self.length = 0;
        written
    }
}

/// Writes all parts, also to a descriptor that someone else has made non-blocking.
fn write_all(file: &mut File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Empty ones in front would look like a file that takes nothing.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
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
        let thread = std::thread::spawn(move || {
            let mut parts: Vec<_> = [0..0, 0..7, 7..7, 7..900_000, 900_000..1_000_000, 0..0]
                .map(|part| IoSlice::new(&sent[part]))
                .into();
            write_all(&mut File::from(OwnedFd::from(writer)), &mut parts)
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        thread.join().unwrap().unwrap();
        assert!(got == expected);
    }
}
