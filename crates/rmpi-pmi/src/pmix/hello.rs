//! A client's first words and the answer. The header is in the client's own byte order, unlike everything
//! later; the rest is strings with a NUL and big-endian numbers.

use super::codec::{Codec, Text};
use bytes::Bytes;
use std::fmt;
use thiserror::Error;

/// Bytes of the header.
pub const HEADER: usize = 16;
/// Bytes after the header, at most.
pub const MAX_BODY: usize = 128 << 10;
/// Bytes of a name, at most.
const MAX_NAME: usize = 255;
/// Bytes of a credential, at most.
const MAX_CREDENTIAL: usize = 4096;

/// Why somebody is not let in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HelloError {
    /// Not the header of a client.
    #[error("not a PMIx client: first bytes {0}")]
    Stranger(String),
    /// The body ends too early.
    #[error("greeting ends inside a field")]
    Short,
    /// A text that is too long or not closed.
    #[error("greeting with a malformed text")]
    Text,
    /// A kind of process that we do not serve.
    #[error("a tool or singleton (kind {0}), which this server does not take")]
    Kind(u8),
    /// A packing module from before 3.0.
    #[error("packing module {0:?} is not known")]
    Module(String),
}

/// Version of a client's library: numbers that its features go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Of each dotted part its leading digits count: `4.2.2rc2` is 4.2.2 and not 4.2.22.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.trim_start_matches('v').split('.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit);
            digits.fold(0u32, |n, d| n.saturating_mul(10).saturating_add(u32::from(d - b'0')))
        });
        let mut next = || parts.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a client says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Security module.
    pub security: Text,
    /// What that module says of the client.
    pub credential: Bytes,
    /// Its namespace.
    pub ns: Text,
    /// Its rank.
    pub rank: u32,
    /// Its library.
    pub version: Version,
    /// How it packs.
    pub codec: Codec,
}

/// How many bytes the whole greeting has, once its header is there.
///
/// # Errors
/// [`HelloError::Stranger`].
pub fn length(bytes: &[u8]) -> Result<Option<usize>, HelloError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        // The first eight bytes are the same for every client.
        let known = bytes.iter().take(8).all(|&b| b == 0xff);
        return if known { Ok(None) } else { Err(stranger(bytes)) };
    };
    let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if header[..8] != [0xff; 8] || body > MAX_BODY {
        return Err(stranger(bytes));
    }
    Ok(Some(HEADER + body))
}

fn stranger(bytes: &[u8]) -> HelloError {
    HelloError::Stranger(bytes.iter().take(HEADER).map(|b| format!("{b:02x}")).collect())
}

/// Fields of a greeting.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], HelloError> {
        let (taken, left) = self.0.split_at_checked(n).ok_or(HelloError::Short)?;
        self.0 = left;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u32, HelloError> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn text(&mut self) -> Result<Text, HelloError> {
        let end = self.0.iter().take(MAX_NAME + 1).position(|&b| b == 0).ok_or(HelloError::Text)?;
        let text = Text(Bytes::copy_from_slice(self.take(end)?));
        self.byte()?;
        Ok(text)
    }
}

impl Hello {
    /// Reads a whole greeting, header included. What follows the known fields is left alone: some clients send
    /// a stray byte there, newer ones an array of facts.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub fn parse(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut fields = Fields(bytes);
        fields.take(HEADER)?;
        let security = fields.text()?;
        let length = fields.word()? as usize;
        if length > MAX_CREDENTIAL {
            return Err(HelloError::Text);
        }
        let credential = Bytes::copy_from_slice(fields.take(length)?);
        let kind = fields.byte()?;
        if kind != 0 {
            return Err(HelloError::Kind(kind));
        }
        let (ns, rank) = (fields.text()?, fields.word()?);
        let version = Version::parse(&fields.text()?.lossy());
        let module = fields.text()?;
        let described = fields.byte()? == 2;
        let module = module.lossy();
        let codec = Codec::of_module(&module, described);
        let codec = codec.ok_or_else(|| HelloError::Module(module.into_owned()))?;
        Ok(Self { security, credential, ns, rank, version, codec })
    }

    /// Whether the credential agrees with the user id that the kernel gave for the socket's other end.
    #[must_use]
    pub fn vouched(&self, peer: u32) -> bool {
        match self.credential.first_chunk::<4>() {
            Some(uid) if self.security == "native" => u32::from_ne_bytes(*uid) == peer,
            _ => self.security == "none",
        }
    }
}

/// The answer to one who is let in under this number.
#[must_use]
pub fn welcome(index: u32) -> Bytes {
    let mut out = [0; 8];
    out[4..].copy_from_slice(&index.to_be_bytes());
    Bytes::copy_from_slice(&out)
}

/// The answer to one who is not.
#[must_use]
pub fn refusal(status: i32) -> Bytes {
    Bytes::copy_from_slice(&status.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a client of PMIx 4.2.2 under Open MPI 4.1.4 sent it.
    fn captured() -> Vec<u8> {
        let mut bytes = vec![0xff; 8];
        bytes.extend_from_slice(&0x35u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(b"native\0\0\0\0\x08");
        bytes.extend_from_slice(&1000u32.to_ne_bytes());
        bytes.extend_from_slice(&1000u32.to_ne_bytes());
        bytes.extend_from_slice(b"\x00707461121\0\0\0\0\x034.2.2rc2\0v3\0\x01hash\0\0");
        bytes
    }

    #[test]
    fn a_clients_greeting() {
        let bytes = captured();
        assert_eq!(length(&bytes), Ok(Some(bytes.len())));
        assert!((0..16).all(|n| length(&bytes[..n]) == Ok(None)));
        let hello = Hello::parse(&bytes).unwrap();
        assert_eq!((hello.ns.lossy().as_ref(), hello.rank), ("707461121", 3));
        assert_eq!((hello.version, hello.codec), (Version(4, 2, 2), Codec::PLAIN));
        assert!(hello.vouched(1000) && !hello.vouched(0));
        assert!(Hello { security: "none".into(), ..hello.clone() }.vouched(0));
        assert!(!Hello { security: "munge".into(), ..hello }.vouched(1000));
    }

    #[test]
    fn strangers_are_told_apart_at_the_first_byte() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00", b"\xff\xff\xff\xfe", &[0xff; 16]] {
            assert!(matches!(length(bytes), Err(HelloError::Stranger(_))), "{bytes:?}");
        }
    }

    #[test]
    fn greetings_that_are_wrong_say_how() {
        let good = captured();
        // The store's name and what follows it are not looked at.
        for cut in HEADER..good.len() - 6 {
            assert!(Hello::parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        let with = |at: usize, new: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + new.len()].copy_from_slice(new);
            Hello::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(35, &[3]), HelloError::Kind(3));
        assert_eq!(with(23, &[0xff; 4]), HelloError::Text);
        let module = good.windows(3).position(|w| w == b"v3\0").unwrap();
        assert_eq!(with(module, b"v9x"), HelloError::Module("v9x\u{1}hash".into()));
    }

    #[test]
    fn versions_are_leading_digits() {
        let table = [
            ("4.2.2rc2", Version(4, 2, 2)),
            ("v5.0.11rc1", Version(5, 0, 11)),
            ("6.1", Version(6, 1, 0)),
            ("", Version(0, 0, 0)),
            ("99999999999.x", Version(u32::MAX, 0, 0)),
        ];
        for (text, version) in table {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version(4, 2, 22) > Version(4, 2, 4) && Version(4, 10, 0) > Version(4, 2, 9));
    }
}
