//! The 64-byte header before every message on a link. Little endian, fixed places, no allocation.
//!
//! ```text
//! 0 kind u8 | 1 version u8 | 2 check u16 | 4 context u32 | 8 tag i32 | 12 sequence u32 | 16 length u64 | 24 id u64
//! 32 zero
//! ```
//! The zeros are for the kernel's copies: it puts a message that finds the connection idle at the beginning of a page, and
//! the payload behind the header. Memory from `malloc` lies 16 bytes behind one, and copying to a place that is 1 to 31
//! bytes behind its source within their pages is three times as slow on Zen 4: with 32 bytes of header it always would.
//! `length` payload bytes follow [`Kind::Eager`] and [`Kind::Data`] headers and no others.

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;
const VERSION: u8 = 2;

/// Bytes of it that say something.
const FIELDS: usize = 32;

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole message: its payload follows. `id` bytes of eager window are free again, too.
    Eager,
    /// Request to send: a message of `length` bytes is ready; `id` is the sender's operation.
    Rts,
    /// Clear to send: `id` is the sender's operation, `length` the receiver's.
    Cts,
    /// A piece of a cleared message: `id` is the receiver's operation, `context` and `tag` say where in it
    /// ([`Header::offset`]).
    Data,
    /// `length` bytes of eager window are free again.
    Credit,
    /// The sender has finished; the end of the stream follows.
    Bye,
    /// The sender gives up `context`, blaming rank `id`.
    Revoke,
}

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Element type, or digest of a collective call; compared at the receiver.
    pub check: u16,
    /// Communication context.
    pub context: u32,
    /// Tag.
    pub tag: i32,
    /// Number of this message among the matchable ones (eager and RTS) of the link, wrapping.
    pub sequence: u32,
    /// Bytes, or an id (see [`Kind`]).
    pub length: u64,
    /// Operation id (see [`Kind`]).
    pub id: u64,
}

/// A header that no rank of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message header (kind {kind}, version {version})")]
pub struct HeaderError {
    kind: u8,
    version: u8,
}

impl Kind {
    /// Its number on a rail.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Eager => 1,
            Self::Rts => 2,
            Self::Cts => 3,
            Self::Data => 4,
            Self::Credit => 5,
            Self::Bye => 6,
            Self::Revoke => 7,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Eager,
            2 => Self::Rts,
            3 => Self::Cts,
            4 => Self::Data,
            5 => Self::Credit,
            6 => Self::Bye,
            7 => Self::Revoke,
            _ => return None,
        })
    }
}

impl Header {
    /// A header of `kind` with everything else zero.
    #[must_use]
    pub const fn bare(kind: Kind) -> Self {
        Self { kind, check: 0, context: 0, tag: 0, sequence: 0, length: 0, id: 0 }
    }

    /// The header of a piece of `length` bytes from `offset` of a message, for the receive `id`.
    #[must_use]
    pub const fn piece(id: u64, offset: u64, length: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
        let (context, tag) = (u32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]));
        Self { context, tag, length, id, ..Self::bare(Kind::Data) }
    }

    /// Where in its message a piece begins, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.context.to_le_bytes(), self.tag.to_le_bytes());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The bytes on the link.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = self.kind.code();
        out[1] = VERSION;
        out[2..4].copy_from_slice(&self.check.to_le_bytes());
        out[4..8].copy_from_slice(&self.context.to_le_bytes());
        out[8..12].copy_from_slice(&self.tag.to_le_bytes());
        out[12..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.length.to_le_bytes());
        out[24..32].copy_from_slice(&self.id.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] for an unknown kind or version, and without the zeros. Lengths and ids are checked where they are used.
    pub fn decode(b: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let bad = HeaderError { kind: b[0], version: b[1] };
        let zeros = b[FIELDS..].iter().all(|&z| z == 0);
        let kind = Kind::from_code(b[0]).filter(|_| b[1] == VERSION && zeros).ok_or(bad)?;
        Ok(Self {
            kind,
            check: u16::from_le_bytes([b[2], b[3]]),
            context: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            tag: i32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            sequence: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
            length: u64::from_le_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]),
            id: u64::from_le_bytes([b[24], b[25], b[26], b[27], b[28], b[29], b[30], b[31]]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_and_what_decodes_round_trips(said: [u8; FIELDS], zero in 0..3u8) {
            let mut bytes = [0; HEADER_LEN];
            bytes[..FIELDS].copy_from_slice(&said);
            bytes[HEADER_LEN - 1] = zero / 2;
            if let Ok(h) = Header::decode(&bytes) {
                prop_assert_eq!(h.encode(), bytes);
            }
        }

        #[test]
        fn every_field_round_trips(k in 1u8..8, check: u16, context: u32, tag: i32, sequence: u32, length: u64, id: u64) {
            let mut first = Header::bare(Kind::Bye).encode();
            first[0] = k;
            let kind = Header::decode(&first).unwrap().kind;
            let h = Header { kind, check, context, tag, sequence, length, id };
            prop_assert_eq!(Header::decode(&h.encode()), Ok(h));
            prop_assert_eq!(Header::piece(id, length, 3).offset(), length);
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_refused() {
        for (kind, version) in [(0, 2), (8, 2), (255, 2), (1, 0), (1, 1), (1, 3)] {
            let mut b = [0; HEADER_LEN];
            (b[0], b[1]) = (kind, version);
            assert!(Header::decode(&b).is_err(), "{kind} {version}");
        }
    }
}
