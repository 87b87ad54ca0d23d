//! Requests of a rank to its daemon, over the inherited Unix stream socket.
//!
//! Each message: `length u32 | body u32 | coded body | payload`, little endian, `length` counting what
//! follows it. A rank sends [`Request`]s with ids of its own choice; the daemon answers each with a [`Reply`]
//! of the same id, in any order. End of file means the rank is gone or has no more to ask.

use crate::codec::{self, WireError};
use rmpi_types::Rank;
use serde::{Deserialize, Serialize};

/// Bytes of a key, at most.
pub const MAX_KEY: usize = 512;
/// Bytes of a value, at most.
pub const MAX_VALUE: usize = 4 << 20;
/// Bytes of one message, at most.
pub const MAX_MESSAGE: usize = MAX_VALUE + (64 << 10);

/// What a rank may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RankRequest {
    /// Payload: the value. Visible to the rank's own node at once, to all after the next fence, and to a
    /// waiting `Get` that names the rank as soon as it arrives. Answer: `Done`.
    Put {
        /// Key, unique per rank; a second put replaces.
        key: String,
    },
    /// The value another rank put, waiting for it up to the deadline. Answer: `Value` with the payload,
    /// `Missing`, or `Lost`.
    Get {
        /// Whose key.
        rank: Rank,
        /// Key.
        key: String,
        /// Milliseconds to wait; 0 answers at once.
        wait_ms: u32,
    },
    /// Wait until all ranks of the namespace have called it as often. Answer: `Done` or `Lost`.
    Fence,
    /// Stop the job with this code. No answer.
    Abort {
        /// Exit code.
        code: i32,
        /// Why.
        message: String,
    },
    /// This rank has finished with the library in good order; exiting without it is an error only for ranks
    /// that sent `Hello`. Answer: `Done`.
    Finalize,
    /// First word of a rank that uses the library.
    Hello,
}

/// The daemon's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RankReply {
    /// It is done.
    Done,
    /// Payload: the value.
    Value,
    /// Nobody put that key in time.
    Missing,
    /// A rank that this depends on is gone.
    Lost(Rank),
    /// The request was malformed or too large; the text says how.
    Refused(String),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Number to repeat in the reply.
    pub id: u64,
    /// What.
    pub request: RankRequest,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub id: u64,
    /// What.
    pub reply: RankReply,
}

/// Appends one message.
///
/// # Errors
/// [`WireError::Length`] above [`MAX_MESSAGE`].
pub fn encode<T: Serialize>(msg: &T, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    codec::encode(msg, out)?;
    let body = out.len() - start - 8;
    out.extend_from_slice(payload);
    let length = out.len() - start - 4;
    match (u32::try_from(length), u32::try_from(body)) {
        (Ok(length32), Ok(body32)) if length <= MAX_MESSAGE => {
            out[start..start + 4].copy_from_slice(&length32.to_le_bytes());
            out[start + 4..start + 8].copy_from_slice(&body32.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(WireError::Length(length as u64))
        }
    }
}

/// Takes the first whole message off `buffer`: the message and its payload, or `None` when more bytes are
/// needed.
///
/// # Errors
/// A malformed message; the stream is unusable from then on.
pub fn decode<T: serde::de::DeserializeOwned>(
    buffer: &mut Vec<u8>,
) -> Result<Option<(T, Vec<u8>)>, WireError> {
    let Some(prefix) = buffer.first_chunk::<8>() else { return Ok(None) };
    let [l0, l1, l2, l3, b0, b1, b2, b3] = *prefix;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let body = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
    if !(4..=MAX_MESSAGE).contains(&length) || body > length - 4 {
        return Err(WireError::Length(length as u64));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let msg = codec::decode(&buffer[8..8 + body])?;
    let payload = buffer[8 + body..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some((msg, payload)))
}

/// Appends one `(rank, key, value)` of a fence's data: `rank u32 | key length u16 | value length u32 | key |
/// value`. The data of a fence is any number of them in a row.
pub fn encode_entry(rank: Rank, key: &str, value: &[u8], out: &mut Vec<u8>) {
    let key_len = u16::try_from(key.len().min(MAX_KEY)).unwrap_or(0);
    let value_len = u32::try_from(value.len().min(MAX_VALUE)).unwrap_or(0);
    out.extend_from_slice(&rank.0.to_le_bytes());
    out.extend_from_slice(&key_len.to_le_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(&key.as_bytes()[..usize::from(key_len)]);
    out.extend_from_slice(&value[..value_len as usize]);
}

/// Reads a fence's data back.
///
/// # Errors
/// [`WireError::Decode`] on entries that run over the end, are too large, or have a key that is not UTF-8.
pub fn decode_entries(mut data: &[u8]) -> Result<Vec<(Rank, String, Vec<u8>)>, WireError> {
    let bad = || WireError::Decode("key-value entry".into());
    let mut entries = Vec::new();
    while !data.is_empty() {
        let (head, rest) = data.split_first_chunk::<10>().ok_or_else(bad)?;
        let [r0, r1, r2, r3, k0, k1, v0, v1, v2, v3] = *head;
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if key_len > MAX_KEY || value_len > MAX_VALUE || rest.len() < key_len + value_len {
            return Err(bad());
        }
        let (key, rest) = rest.split_at(key_len);
        let (value, rest) = rest.split_at(value_len);
        let key = std::str::from_utf8(key).map_err(|_| bad())?.to_owned();
        entries.push((Rank(u32::from_le_bytes([r0, r1, r2, r3])), key, value.to_vec()));
        data = rest;
    }
    Ok(entries)
}
