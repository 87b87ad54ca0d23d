//! Messages on a client's stream after the handshake: 16 bytes of header, all big endian (peer index, tag,
//! payload length, padding), then the payload.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// Bytes of a payload, at most: what a client may make us hold.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Tag of event notifications to clients.
pub const TAG_EVENT: u32 = 0;
/// Tag of heartbeats of clients.
pub const TAG_HEARTBEAT: u32 = 1;
/// Tag of output forwarded to clients.
pub const TAG_OUTPUT: u32 = 2;

/// A payload above [`MAX_PAYLOAD`] was announced; the stream is of no use from there on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("message of {0} bytes, at most {MAX_PAYLOAD} are taken")]
pub struct TooLong(pub u32);

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// A reply has the tag of its request.
    pub tag: u32,
    /// Items.
    pub payload: Bytes,
}

/// A whole message to a client.
#[must_use]
pub fn encode(tag: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&tag.to_be_bytes());
    // What we send is made of what came in through MAX_PAYLOAD, many times at the most.
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.freeze()
}

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TooLong> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (tag, announced) = (word(4), word(8));
        let length = announced as usize;
        if length > MAX_PAYLOAD {
            return Err(TooLong(announced));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { tag, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_however_the_stream_was_cut() {
        let stream = [encode(101, b"abc"), encode(TAG_HEARTBEAT, b""), encode(102, &[7; 5000])].concat();
        for step in [1, 7, 16, 17, 4096, stream.len()] {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push((frame.tag, frame.payload.len()));
                }
            }
            assert_eq!(got, [(101, 3), (1, 0), (102, 5000)], "in steps of {step}");
        }
    }

    #[test]
    fn a_hostile_length_ends_the_stream() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 0, 0, 0, 0, 101, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(TooLong(u32::MAX)));
    }
}
