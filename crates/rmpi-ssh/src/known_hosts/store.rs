//! `known_hosts` files on disk: reading, and adding a line in one write. A missing file is empty; a file that
//! cannot be read is an error, because hosts in it would pass for unknown.

use super::{HostName, Hosts, KnownHosts, parse};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest file that is read.
const LARGEST: u64 = 64 << 20;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownHostsError {
    /// It exists but cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key cannot be added.
    #[error("cannot add a host key to {}: {source}", path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads files in order.
///
/// # Errors
/// When a file exists and cannot be read.
pub fn load(files: &[PathBuf]) -> Result<KnownHosts, KnownHostsError> {
    let mut all = KnownHosts::default();
    for path in files {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|f| f.take(LARGEST).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(KnownHostsError::Unreadable { path: path.clone(), source }),
        }
        let (lines, bad) = parse(&String::from_utf8_lossy(&bytes), path);
        if !bad.is_empty() {
            tracing::debug!(file = %path.display(), lines = ?bad, "known_hosts lines not understood");
        }
        all.extend(lines);
    }
    Ok(all)
}

/// Adds a key for a host to a file, making the file (0600) and its directory (0700) where missing.
/// `public_line` is `TYPE BASE64`. With `hashed` the name is not readable in the file.
///
/// # Errors
/// When the file cannot be made or written.
pub fn append(path: &Path, host: &HostName, public_line: &str, hashed: bool) -> Result<(), KnownHostsError> {
    try_append(path, host, public_line, hashed)
        .map_err(|source| KnownHostsError::Append { path: path.to_owned(), source })
}

fn try_append(path: &Path, host: &HostName, public_line: &str, hashed: bool) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let name = if hashed {
        let mut salt = [0u8; 20];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut salt)
            .map_err(|_| io::Error::other("no random numbers"))?;
        Hosts::hashed_text(&host.text(), &salt)
    } else {
        host.text()
    };
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = String::new();
    if !ends_with_newline(&mut file)? {
        text.push('\n');
    }
    text.push_str(&format!("{name} {public_line}\n"));
    // One write in append mode: lines of other processes are not cut in two.
    file.write_all(text.as_bytes())
}

/// Whether the file is empty or ends a line; devices count as such.
fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() == 0 {
        return Ok(true);
    }
    let mut last = [0u8];
    file.seek(io::SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0] == b'\n')
}
