//! Our own key pairs: making them for hosts of tests and demos, and writing OpenSSH key files. Private halves
//! are written with mode 0600 and never over an existing file.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can go wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a key we can use.
    #[error("key file {}: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key could not be made.
    #[error("cannot make a key: {0}")]
    Make(String),
}

/// An SSH key pair, cheap to clone.
#[derive(Clone)]
pub struct KeyPair(pub(crate) Arc<PrivateKey>);

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint())
    }
}

impl KeyPair {
    /// A new ed25519 pair.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .map(|k| Self(Arc::new(k)))
            .map_err(|e| KeyError::Make(e.to_string()))
    }

    /// Reads a private key file without a passphrase, in any format OpenSSH writes.
    ///
    /// # Errors
    /// Unreadable, encrypted or malformed files.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read_limited(path)?;
        russh::keys::decode_secret_key(&text, None)
            .map(|k| Self(Arc::new(k)))
            .map_err(|e| KeyError::Format { path: path.to_owned(), why: e.to_string().to_lowercase() })
    }

    /// Writes the private half to `path` (mode 0600) and the public half to `path.pub`. Existing files are not
    /// overwritten.
    ///
    /// # Errors
    /// When either file exists or cannot be written.
    pub fn write(&self, path: &Path, comment: &str) -> Result<(), KeyError> {
        let mut key = (*self.0).clone();
        key.set_comment(comment);
        let text = key.to_openssh(LineEnding::LF).map_err(|e| KeyError::Make(e.to_string()))?;
        write_new(path, 0o600, text.as_bytes())?;
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        write_new(Path::new(&name), 0o644, format!("{} {comment}\n", self.public_line()).as_bytes())
    }

    /// `TYPE BASE64` of the public half, as in `authorized_keys` and `known_hosts`.
    #[must_use]
    pub fn public_line(&self) -> String {
        public_line(self.0.public_key())
    }

    /// `SHA256:...` of the public half.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string()
    }
}

/// `TYPE BASE64` without a comment.
pub(crate) fn public_line(key: &PublicKey) -> String {
    let line = key.to_openssh().unwrap_or_default();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// `TYPE SHA256:...`, how messages name a key.
pub(crate) fn describe(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(russh::keys::HashAlg::Sha256))
}

/// Largest key or certificate file that is read.
const LARGEST_KEY_FILE: u64 = 1 << 20;

/// The text of a small file.
pub(crate) fn read_limited(path: &Path) -> Result<zeroize::Zeroizing<String>, KeyError> {
    use std::io::Read as _;
    let io_error = |source| KeyError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io_error)?;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    file.take(LARGEST_KEY_FILE).read_to_end(&mut bytes).map_err(io_error)?;
    std::str::from_utf8(&bytes)
        .map(|t| zeroize::Zeroizing::new(t.to_owned()))
        .map_err(|_| KeyError::Format { path: path.to_owned(), why: "not a text key file".into() })
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyError> {
    let io_error = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(io_error)?;
    file.write_all(bytes).map_err(io_error)
}

/// Public keys of an `authorized_keys` file: options before the key type are refused, since they would be
/// promises nobody keeps.
///
/// # Errors
/// Unreadable files and lines that are not a public key.
pub fn read_authorized(path: &Path) -> Result<Vec<String>, KeyError> {
    let text = read_limited(path)?;
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = PublicKey::from_openssh(line).map_err(|e| KeyError::Format {
            path: path.to_owned(),
            why: format!("line {}: not a public key: {e}", n + 1),
        })?;
        keys.push(public_line(&key));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::scratch;

    #[test]
    fn a_pair_survives_its_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = scratch("keys");
        let path = dir.join("id");
        let made = KeyPair::generate().unwrap();
        made.write(&path, "test").unwrap();
        assert_eq!(KeyPair::read(&path).unwrap().public_line(), made.public_line());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_authorized(&dir.join("id.pub")).unwrap(), [made.public_line()]);
        assert!(made.write(&path, "again").is_err(), "an existing key is kept");
        std::fs::write(dir.join("bad"), "command=\"x\" ssh-ed25519 AAAA").unwrap();
        assert!(read_authorized(&dir.join("bad")).unwrap_err().to_string().contains("line 1"));
    }

    /// SEC1 and PKCS#1, in files of any mode: the kubelet gives secrets modes that OpenSSH refuses.
    #[test]
    fn keys_as_operators_make_them_are_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = scratch("operators");
        for (kind, words) in [
            ("ecdsa-sha2-nistp521", &["ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out"][..]),
            ("ssh-rsa", &["genrsa", "-traditional", "-out"]),
        ] {
            let path = dir.join(kind);
            let made = std::process::Command::new("openssl").args(words).arg(&path).output();
            if !made.is_ok_and(|o| o.status.success()) {
                eprintln!("skipped: openssl makes no {kind} key here");
                continue;
            }
            for mode in [0o600, 0o640, 0o644] {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                let key = KeyPair::read(&path).unwrap();
                assert!(key.public_line().starts_with(kind), "{}", key.public_line());
            }
        }
    }
}
