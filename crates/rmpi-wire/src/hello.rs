//! The first 64 bytes each side of a control stream sends: hand-coded so that every version can read it.
//!
//! `magic 8 | protocol u16 | role u8 | 0 u8 | 0 u32 | build 32 | nonce 16`, little endian.

use crate::codec::WireError;

/// Bytes of a hello.
pub const LEN: usize = 64;
/// Version of the protocol behind the hello.
pub const PROTOCOL: u16 = 5;
const MAGIC: &[u8; 8] = b"RMPICTRL";
const BUILD: &str = match option_env!("RMPI_BUILD_ID") {
    Some(id) => id,
    None => concat!("rmpirun ", env!("CARGO_PKG_VERSION")),
};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The launcher, or the parent daemon in a tree.
    Launcher,
    /// A daemon.
    Daemon,
}

/// A control stream's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The speaker.
    pub role: Role,
    /// Protocol version.
    pub protocol: u16,
    /// Build of the speaker, NUL-padded text.
    pub build: [u8; 32],
    /// Fresh random bytes: tells a resumed stream from a replay.
    pub nonce: [u8; 16],
}

impl Hello {
    /// Our own hello.
    #[must_use]
    pub fn ours(role: Role, nonce: [u8; 16]) -> Self {
        let mut build = [0; 32];
        let text = BUILD.as_bytes();
        let n = text.len().min(build.len());
        build[..n].copy_from_slice(&text[..n]);
        Self { role, protocol: PROTOCOL, build, nonce }
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&self.protocol.to_le_bytes());
        out[10] = match self.role {
            Role::Launcher => 0,
            Role::Daemon => 1,
        };
        out[16..48].copy_from_slice(&self.build);
        out[48..].copy_from_slice(&self.nonce);
        out
    }

    /// Reads a hello and checks that its build may talk to ours.
    ///
    /// # Errors
    /// [`WireError::NotHello`] quoting the bytes, [`WireError::Version`] naming both builds, or
    /// [`WireError::Header`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self, WireError> {
        if &bytes[..8] != MAGIC {
            return Err(WireError::NotHello(printable(bytes)));
        }
        let protocol = u16::from_le_bytes([bytes[8], bytes[9]]);
        let mut build = [0; 32];
        build.copy_from_slice(&bytes[16..48]);
        let ours = Self::ours(Role::Launcher, [0; 16]).build;
        if protocol != PROTOCOL || build != ours {
            return Err(WireError::Version { ours: printable(&ours), theirs: printable(&build) });
        }
        let role = match bytes[10] {
            0 => Role::Launcher,
            1 => Role::Daemon,
            _ => return Err(WireError::Header("unknown role in hello")),
        };
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[48..]);
        Ok(Self { role, protocol, build, nonce })
    }
}

/// Text for a message: control characters and non-ASCII bytes escaped, trailing NULs dropped.
fn printable(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    bytes[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_golden_start() {
        let hello = Hello::ours(Role::Daemon, [7; 16]);
        let bytes = hello.encode();
        assert_eq!(&bytes[..12], b"RMPICTRL\x05\x00\x01\x00");
        assert_eq!(Hello::decode(&bytes), Ok(hello));
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        let mut bytes = Hello::ours(Role::Daemon, [7; 16]).encode();
        bytes[16..19].copy_from_slice(b"old");
        assert!(
            matches!(Hello::decode(&bytes), Err(WireError::Version { theirs, .. }) if theirs.starts_with("old"))
        );
        let mut banner = [b' '; LEN];
        banner[..7].copy_from_slice(b"Welcome");
        assert!(
            matches!(Hello::decode(&banner), Err(WireError::NotHello(text)) if text.starts_with("Welcome"))
        );
    }
}
