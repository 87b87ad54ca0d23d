//! The units of one stream without a connection around it, for who wants to try the format.

use super::carry::Cutter;
use super::pipe::{MAX_UNIT, Pipe};
use std::io;

/// Cuts a stream into units as a connection's reader does: a length in four bytes, the least first, and so many bytes
/// of whole frames.
pub struct Units {
    cutter: Cutter,
    pipe: Pipe,
}

impl std::fmt::Debug for Units {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Units(..)")
    }
}

impl Units {
    /// Longest unit; a longer one is an error, and so is an empty one.
    pub const LONGEST: usize = MAX_UNIT;

    /// At the beginning of a stream.
    ///
    /// # Errors
    /// Descriptors exhausted.
    pub fn new() -> io::Result<Self> {
        Ok(Self { cutter: Cutter::default(), pipe: Pipe::new()? })
    }

    /// Goes on with the stream: the bytes of the units that ended there, `None` when the stream is none of units.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.cutter.take(bytes.to_vec().into(), &self.pipe).ok()?;
        Some(self.pipe.take().unwrap_or_default().concat())
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.cutter.is_between()
    }
}
