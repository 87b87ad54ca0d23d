//! The codec: serde over bincode 2.0.1 with one fixed configuration. Swapping it changes this file only.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Largest coded message in bytes; a hostile length beyond it is refused before anything is allocated.
pub const LIMIT: usize = 16 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<LIMIT>> =
    bincode::config::standard().with_limit::<LIMIT>();

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A message that cannot be coded (larger than [`LIMIT`]).
    #[error("message cannot be encoded: {0}")]
    Encode(String),
    /// A message that does not decode.
    #[error("malformed message: {0}")]
    Decode(String),
    /// Bytes after the end of a message.
    #[error("malformed message: {0} bytes after its end")]
    Trailing(usize),
    /// A frame whose length is above the limit or below its header's size.
    #[error("malformed frame: length {0}")]
    Length(u64),
    /// A frame of an unknown kind or with a malformed header.
    #[error("malformed frame: {0}")]
    Header(&'static str),
    /// First bytes that are no hello of ours.
    #[error("not an rmpirun control stream: first bytes {0}")]
    NotHello(String),
    /// The other side is another version.
    #[error("version mismatch: this is {ours}, the other side is {theirs}")]
    Version {
        /// Our build.
        ours: String,
        /// The other side's build.
        theirs: String,
    },
    /// A boot block that does not hold together.
    #[error("malformed boot block: {0}")]
    Boot(&'static str),
}

/// Appends the coded form of `msg` to `out`.
///
/// # Errors
/// [`WireError::Encode`] when it is larger than [`LIMIT`]; `out` is then as before.
pub fn encode<T: Serialize>(msg: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let written = bincode::serde::encode_into_std_write(msg, out, CONFIG);
    match written {
        Ok(n) if n <= LIMIT => Ok(()),
        Ok(n) => {
            out.truncate(start);
            Err(WireError::Encode(format!("{n} bytes")))
        }
        Err(e) => {
            out.truncate(start);
            Err(WireError::Encode(e.to_string()))
        }
    }
}

/// Decodes a message that must fill `bytes` exactly.
///
/// # Errors
/// [`WireError::Decode`] or [`WireError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (msg, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|e| WireError::Decode(e.to_string()))?;
    if used == bytes.len() { Ok(msg) } else { Err(WireError::Trailing(bytes.len() - used)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::RankSet;

    #[test]
    fn rank_sets_out_of_order_are_refused() {
        let coded = |ranges: &[(u32, u32)]| {
            let mut bytes = Vec::new();
            encode(&ranges, &mut bytes).unwrap();
            decode::<RankSet>(&bytes)
        };
        assert_eq!(coded(&[(0, 1), (3, 3)]).unwrap().to_string(), "0-1,3");
        for bad in [&[(1, 0)][..], &[(3, 4), (0, 1)], &[(0, 3), (3, 4)]] {
            assert!(coded(bad).is_err(), "{bad:?}");
        }
    }
}
