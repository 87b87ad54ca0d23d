//! One line of a `known_hosts` file: marker, hosts, key. Pure; lines that make no sense are reported beside
//! the others, never fatal, as OpenSSH does.

use super::Place;
use crate::{base64, glob};
use std::path::Path;
use std::sync::Arc;

/// What a line says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A host key.
    Key,
    /// `@cert-authority`: this key signs host certificates.
    CertAuthority,
    /// `@revoked`: never accept it.
    Revoked,
}

/// Which hosts a line is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Patterns, lower case, with wildcards and negation.
    Patterns(Vec<String>),
    /// `|1|salt|hash`: HMAC-SHA1 of one name.
    Hashed {
        /// The HMAC's key.
        salt: Vec<u8>,
        /// The HMAC of the name.
        hash: Vec<u8>,
    },
}

impl Hosts {
    /// Whether the line is for this name (`host` or `[host]:port`, lower case).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => glob::list_matches(patterns.iter().map(String::as_str), name),
            Self::Hashed { salt, hash } => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                ring::hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
        }
    }

    /// The hashed form of a name, as `HashKnownHosts` writes it.
    #[must_use]
    pub fn hashed_text(name: &str, salt: &[u8]) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
        let tag = ring::hmac::sign(&key, name.as_bytes());
        format!("|1|{}|{}", base64::encode(salt), base64::encode(tag.as_ref()))
    }
}

/// A line that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it is.
    pub place: Place,
    /// Its marker.
    pub marker: Marker,
    /// Its hosts.
    pub hosts: Hosts,
    /// Type name of the key: `ssh-ed25519`.
    pub key_type: String,
    /// The key in SSH wire format.
    pub blob: Vec<u8>,
}

/// All lines of a file, and the numbers of those that make no sense.
#[must_use]
pub fn parse(text: &str, file: &Path) -> (Vec<Line>, Vec<usize>) {
    let file = Arc::new(file.to_owned());
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (n, text) in text.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse_line(text, Place { file: file.clone(), line: n + 1 }) {
            Some(line) => lines.push(line),
            None => bad.push(n + 1),
        }
    }
    (lines, bad)
}

fn parse_line(text: &str, place: Place) -> Option<Line> {
    let mut words = text.split([' ', '\t']).filter(|w| !w.is_empty());
    let mut first = words.next()?;
    let marker = match first {
        "@cert-authority" => Marker::CertAuthority,
        "@revoked" => Marker::Revoked,
        word if word.starts_with('@') => return None,
        _ => Marker::Key,
    };
    if marker != Marker::Key {
        first = words.next()?;
    }
    let hosts = parse_hosts(first)?;
    let key_type = words.next()?.to_owned();
    let blob = base64::decode(words.next()?)?;
    // The blob repeats its type; a line where they differ would be looked up under the wrong name.
    let length = u32::from_be_bytes(blob.get(..4)?.try_into().ok()?) as usize;
    let inner = blob.get(4..4usize.checked_add(length)?)?;
    (inner == key_type.as_bytes()).then_some(Line { place, marker, hosts, key_type, blob })
}

fn parse_hosts(word: &str) -> Option<Hosts> {
    let Some(rest) = word.strip_prefix('|') else {
        return Some(Hosts::Patterns(word.split(',').map(str::to_ascii_lowercase).collect()));
    };
    let mut parts = rest.split('|');
    let (version, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    if version != "1" || parts.next().is_some() {
        return None;
    }
    Some(Hosts::Hashed { salt: base64::decode(salt)?, hash: base64::decode(hash)? })
}
