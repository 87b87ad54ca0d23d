//! Key and certificate files, each read once for all hosts. A passphrase is asked for once per key, whatever
//! the number of hosts; the unlocked key is kept, the passphrase is not.

use super::prompt::Ask;
use crate::keys::{KeyError, read_limited};
use russh::keys::{Certificate, PrivateKey, PublicKey, decode_secret_key};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Homes that operators mount the job's key in.
const SECRETS: [&str; 2] = ["/root", "/home/mpiuser"];

/// Passphrases asked for before a key is given up.
const MAX_TRIES: u32 = 3;

/// A private key file.
#[derive(Clone)]
pub(crate) enum Loaded {
    /// Ready to sign.
    Plain(Arc<PrivateKey>),
    /// Needs a passphrase.
    Encrypted,
    /// Not there.
    Missing,
    /// Cannot be used, and why.
    Bad(String),
}

/// A private key file with its public half, if that can be known.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) loaded: Loaded,
    pub(crate) public: Option<PublicKey>,
}

impl Identity {
    /// The public half of a private key that can be used without asking.
    pub(crate) fn private_public(&self) -> Option<PublicKey> {
        match &self.loaded {
            Loaded::Plain(key) => Some(key.public_key().clone()),
            Loaded::Encrypted | Loaded::Missing | Loaded::Bad(_) => None,
        }
    }
}

/// All keys of a connector.
pub(crate) struct KeyRing {
    home: PathBuf,
    /// In a launcher pod: keys are also where operators mount their secret.
    pod: bool,
    ask: Option<Ask>,
    read: Mutex<HashMap<PathBuf, Identity>>,
    /// One question at a time; what came of it, by file.
    unlocked: tokio::sync::Mutex<HashMap<PathBuf, Result<Arc<PrivateKey>, String>>>,
}

impl KeyRing {
    /// No keys yet; `ask` is how passphrases are got, if at all; `pod`: in a launcher pod.
    pub(crate) fn new(home: &Path, ask: Option<Ask>, pod: bool) -> Self {
        Self {
            home: home.to_owned(),
            pod,
            ask,
            read: Mutex::default(),
            unlocked: tokio::sync::Mutex::default(),
        }
    }

    /// Files tried when the configuration names none.
    pub(crate) fn default_files(&self) -> Vec<PathBuf> {
        let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
        let mut files: Vec<PathBuf> = names.iter().map(|n| self.home.join(".ssh").join(n)).collect();
        if self.pod {
            // The home of the account may be another than HOME says; the secret's place is the operator's choice.
            let account = crate::users::by_number(nix::unistd::getuid().as_raw());
            let homes = account.map(|a| a.home).into_iter().chain(SECRETS.map(PathBuf::from));
            for file in homes.map(|h| h.join(".ssh/id_rsa")) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files
    }

    /// Reads a key file, or recalls it.
    pub(crate) fn load(&self, path: &Path) -> Identity {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(path) {
            return known.clone();
        }
        let found = read_identity(path);
        // A secret that is mounted late, or refreshed, is looked at again.
        if !self.pod || matches!(found.loaded, Loaded::Plain(_) | Loaded::Encrypted) {
            read.insert(path.to_owned(), found.clone());
        }
        found
    }

    /// Certificates for a key: those configured that certify it, and `PATH-cert.pub`.
    pub(crate) fn certificates(
        &self,
        path: &Path,
        configured: &[PathBuf],
        key: Option<&PublicKey>,
    ) -> Vec<Certificate> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-cert.pub");
        let mut found = Vec::new();
        for file in configured.iter().map(PathBuf::as_path).chain([Path::new(&beside)]) {
            let Ok(text) = read_limited(file) else { continue };
            match Certificate::from_openssh(text.trim()) {
                Ok(cert) if key.is_none_or(|k| k.key_data() == cert.public_key()) => found.push(cert),
                Ok(_) => {}
                Err(e) => tracing::warn!(file = %file.display(), error = %e, "not a certificate"),
            }
        }
        found
    }

    /// Unlocks an encrypted key with a passphrase from the user.
    pub(crate) async fn unlock(&self, path: &Path) -> Result<Arc<PrivateKey>, String> {
        let mut unlocked = self.unlocked.lock().await;
        if let Some(known) = unlocked.get(path) {
            return known.clone();
        }
        let result = match self.ask.clone() {
            None => Err("needs a passphrase and there is no terminal to ask for it".to_owned()),
            Some(ask) => {
                let file = path.to_owned();
                tokio::task::spawn_blocking(move || ask_and_decode(&file, &ask))
                    .await
                    .unwrap_or_else(|_| Err("could not be unlocked".to_owned()))
            }
        };
        unlocked.insert(path.to_owned(), result.clone());
        result
    }
}

fn ask_and_decode(path: &Path, ask: &Ask) -> Result<Arc<PrivateKey>, String> {
    let text = read_limited(path).map_err(|e| e.to_string())?;
    for attempt in 0..MAX_TRIES {
        let Some(passphrase) = ask(path, attempt) else {
            return Err("needs a passphrase and none was given".into());
        };
        if let Ok(key) = decode_secret_key(&text, Some(&passphrase)) {
            return Ok(Arc::new(key));
        }
    }
    Err(format!("could not be unlocked with {MAX_TRIES} passphrases"))
}

/// Why a key file cannot be read, and in a pod's usual case what to do.
fn unreadable(path: &Path, error: &std::io::Error) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let text = error.to_string().to_lowercase();
    let text = text.split(" (os error").next().unwrap_or_default();
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return text.to_owned();
    }
    let mode = std::fs::metadata(path).map(|m| format!(" (mode {:04o})", m.permissions().mode() & 0o7777));
    let uid = nix::unistd::geteuid();
    let hint = match SECRETS.iter().any(|home| path.starts_with(home)) {
        true => ": set sshAuthMountPath to this user's ~/.ssh",
        false => "",
    };
    format!("{text}: cannot be read as uid {uid}{}{hint}", mode.unwrap_or_default())
}

fn read_identity(path: &Path) -> Identity {
    let beside = || {
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        read_limited(Path::new(&name)).ok().and_then(|t| PublicKey::from_openssh(t.trim()).ok())
    };
    let text = match read_limited(path) {
        Ok(text) => text,
        Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            // A public half alone is enough when the agent holds the private one.
            return Identity { loaded: Loaded::Missing, public: beside() };
        }
        Err(KeyError::Io { source, .. }) => {
            let why = unreadable(path, &source);
            return Identity { loaded: Loaded::Bad(why), public: beside() };
        }
        Err(e) => return Identity { loaded: Loaded::Bad(e.to_string()), public: beside() },
    };
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        // `IdentityFile key.pub`: names the key of the agent to use.
        return Identity { loaded: Loaded::Missing, public: Some(public) };
    }
    match decode_secret_key(&text, None) {
        Ok(key) => {
            let public = Some(key.public_key().clone());
            Identity { loaded: Loaded::Plain(Arc::new(key)), public }
        }
        Err(russh::keys::Error::KeyIsEncrypted) => {
            // The newer format shows its public half even when encrypted.
            let inside = PrivateKey::from_openssh(text.as_bytes()).ok().map(|k| k.public_key().clone());
            Identity { loaded: Loaded::Encrypted, public: inside.or_else(beside) }
        }
        Err(e) => {
            let why = format!("not a private key we can read: {}", e.to_string().to_lowercase());
            Identity { loaded: Loaded::Bad(why), public: beside() }
        }
    }
}
