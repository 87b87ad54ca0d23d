//! Frames of a control stream, after the hello.
//!
//! ```text
//! length u32   bytes after this field, at most MAX_FRAME
//! kind u8      1 Down, 2 Up, 3 link-local
//! dest_kind u8 0 neighbour, 1 launcher, 2 nodes
//! ranges u16   number of (lo u32, hi u32) node ranges that follow the header
//! origin u32   node index, or u32::MAX for the launcher
//! seq u64      per link and direction, from 1; 0 on link-local frames
//! body u32     bytes of the coded message
//! ranges..., body..., payload (the rest)
//! ```
//! All integers little endian. A relay looks only at `dest` and passes body and payload on untouched.

use crate::codec::WireError;
use bytes::{Buf, Bytes, BytesMut};
use rmpi_types::{NodeIdx, RankSet};

/// Bytes after the length field, at most.
pub const MAX_FRAME: usize = crate::codec::LIMIT + (1 << 20);
/// Node ranges in one destination set, at most.
pub const MAX_RANGES: usize = 4096;
/// Largest raw payload the machines put in one frame.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Origin of frames of a daemon that was not told its index yet; its neighbour, who knows, puts the right one.
pub const UNNAMED: NodeIdx = NodeIdx(u32::MAX - 1);
const FIXED: usize = 1 + 1 + 2 + 4 + 8 + 4;

/// Who made a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The launcher.
    Launcher,
    /// A node's daemon.
    Node(NodeIdx),
}

/// Whom a frame is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// The other end of this link, whoever it is; never relayed.
    Neighbour,
    /// The launcher.
    Launcher,
    /// These nodes (indices as ranges).
    Nodes(RankSet),
}

impl Dest {
    /// One node.
    #[must_use]
    pub fn node(node: NodeIdx) -> Self {
        Self::Nodes(RankSet::range(node.0, node.0))
    }
}

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`crate::msg::Down`].
    Down,
    /// [`crate::msg::Up`].
    Up,
    /// [`crate::msg::LinkMsg`].
    Link,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What `body` is.
    pub kind: Kind,
    /// Who made it.
    pub origin: Origin,
    /// Whom it is for.
    pub dest: Dest,
    /// Sequence number on this link and direction; 0 for link-local frames.
    pub seq: u64,
    /// The coded message.
    pub body: Bytes,
    /// Raw bytes that go with it.
    pub payload: Bytes,
}

impl Frame {
    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        4 + FIXED + self.ranges().len() * 8 + self.body.len() + self.payload.len()
    }

    fn ranges(&self) -> &[(u32, u32)] {
        match &self.dest {
            Dest::Nodes(set) => set.ranges(),
            Dest::Neighbour | Dest::Launcher => &[],
        }
    }

    /// Appends everything but the payload, which may be written behind it without a copy.
    ///
    /// # Errors
    /// [`WireError::Length`] when the frame is above [`MAX_FRAME`], [`WireError::Header`] above
    /// [`MAX_RANGES`].
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let length = self.wire_len() - 4;
        let Ok(length32) = u32::try_from(length) else { return Err(WireError::Length(length as u64)) };
        if length > MAX_FRAME {
            return Err(WireError::Length(length as u64));
        }
        let ranges = self.ranges();
        let count = u16::try_from(ranges.len()).map_err(|_| WireError::Header("too many node ranges"))?;
        if ranges.len() > MAX_RANGES {
            return Err(WireError::Header("too many node ranges"));
        }
        let body = u32::try_from(self.body.len()).map_err(|_| WireError::Length(length as u64))?;
        out.reserve(length + 4);
        out.extend_from_slice(&length32.to_le_bytes());
        out.push(match self.kind {
            Kind::Down => 1,
            Kind::Up => 2,
            Kind::Link => 3,
        });
        out.push(match self.dest {
            Dest::Neighbour => 0,
            Dest::Launcher => 1,
            Dest::Nodes(_) => 2,
        });
        out.extend_from_slice(&count.to_le_bytes());
        let origin = match self.origin {
            Origin::Launcher => u32::MAX,
            Origin::Node(node) => node.0,
        };
        out.extend_from_slice(&origin.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&body.to_le_bytes());
        for (lo, hi) in ranges {
            out.extend_from_slice(&lo.to_le_bytes());
            out.extend_from_slice(&hi.to_le_bytes());
        }
        out.extend_from_slice(&self.body);
        Ok(())
    }

    /// Appends the whole frame.
    ///
    /// # Errors
    /// As [`Frame::encode_head`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.encode_head(out)?;
        out.extend_from_slice(&self.payload);
        Ok(())
    }

    /// Reads the bytes after a length field.
    fn decode(mut bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() < FIXED {
            return Err(WireError::Length(bytes.len() as u64));
        }
        let kind = match bytes.get_u8() {
            1 => Kind::Down,
            2 => Kind::Up,
            3 => Kind::Link,
            _ => return Err(WireError::Header("unknown kind")),
        };
        let dest_kind = bytes.get_u8();
        let ranges = usize::from(bytes.get_u16_le());
        let origin = match bytes.get_u32_le() {
            u32::MAX => Origin::Launcher,
            node => Origin::Node(NodeIdx(node)),
        };
        let seq = bytes.get_u64_le();
        let body = bytes.get_u32_le() as usize;
        if ranges > MAX_RANGES || bytes.len() < ranges * 8 || bytes.len() - ranges * 8 < body {
            return Err(WireError::Header("parts longer than the frame"));
        }
        let dest = match (dest_kind, ranges) {
            (0, 0) => Dest::Neighbour,
            (1, 0) => Dest::Launcher,
            (2, _) => Dest::Nodes(decode_ranges(&mut bytes, ranges)?),
            _ => return Err(WireError::Header("unknown destination")),
        };
        let body = bytes.split_to(body);
        Ok(Self { kind, origin, dest, seq, body, payload: bytes })
    }
}

fn decode_ranges(bytes: &mut Bytes, count: usize) -> Result<RankSet, WireError> {
    let pairs: Vec<(u32, u32)> = (0..count).map(|_| (bytes.get_u32_le(), bytes.get_u32_le())).collect();
    RankSet::from_ranges(pairs).ok_or(WireError::Header("node ranges not ascending"))
}

/// Cuts a byte stream into frames. Holds at most one frame beyond what was pushed.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// The buffer to read more bytes into (append only).
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// A malformed frame; the stream is unusable from then on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if !(FIXED..=MAX_FRAME).contains(&length) {
            return Err(WireError::Length(length as u64));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Frame::decode(self.buffer.split_to(length).freeze()).map(Some)
    }
}
