//! Dialling the launcher: for daemons whose start command has no standard input (Kubernetes' `kubexec.sh`). All
//! addresses of the launcher are tried at once, the first that answers as the holder of the launcher's key is used;
//! a stream that breaks is dialled again. The session that started us may end at any time after our key was told.

use crate::secure::{self, Secure};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, getpid, getsid, setsid};
use rmpi_net::{Identity, PublicKey};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

/// First argument of a daemon that is to dial; the launcher's key and its addresses follow.
pub const DIAL_WORD: &str = "dial-back";
/// What a daemon prints before the public key it will prove.
pub const KEY_MARK: &str = "RMPI-KEY ";
/// What it prints before the reason it gives up for.
pub const FAIL_MARK: &str = "RMPI-FAIL ";

/// How long one address may take to connect, and to prove its key.
const TRY: Duration = Duration::from_secs(5);
/// Pause before all addresses are tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a daemon that was just started looks for its launcher.
const FIRST: Duration = Duration::from_secs(60);

/// Whom to dial, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Dialling {
    identity: Identity,
    launcher: PublicKey,
    addresses: Vec<SocketAddr>,
}

impl Dialling {
    /// From the words after [`DIAL_WORD`], with a fresh key of its own.
    ///
    /// # Errors
    /// Which word is wrong; the system gives no random bytes.
    pub(crate) fn read(mut words: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let mut word = |what: &str| {
            let word = words.next().and_then(|w| w.into_string().ok());
            word.ok_or_else(|| io::Error::other(format!("{DIAL_WORD}: no {what}")))
        };
        let (key, list) = (word("key")?, word("addresses")?);
        let wrong = |what: &str, text: &str| io::Error::other(format!("{DIAL_WORD}: {text:?} is not {what}"));
        let launcher = secure::key_of(&key).ok_or_else(|| wrong("a public key", &key))?;
        let addresses: Result<Vec<SocketAddr>, _> = list.split(',').map(str::parse).collect();
        let addresses = addresses.map_err(|_| wrong("a list of addresses and ports", &list))?;
        Ok(Self { identity: secure::fresh_identity()?, launcher, addresses })
    }

    /// Tells our public key to whoever reads our standard output.
    pub(crate) fn tell_key(&self) {
        // The empty line ends a banner that has no line end.
        print(&format!("\n{KEY_MARK}{}\n", secure::key_text(self.identity.public())));
    }

    /// The first stream.
    ///
    /// # Errors
    /// What the last address said; it was printed too.
    pub(crate) async fn first(&self) -> io::Result<Secure> {
        let until = Instant::now() + FIRST;
        loop {
            match self.once().await {
                Err(error) if Instant::now() + PAUSE >= until => {
                    print(&format!("\n{FAIL_MARK}{error}\n"));
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(stream) => return Ok(stream),
            }
        }
    }

    /// A stream after one broke: tried for ever, as the worker knows when to give up.
    pub(crate) async fn again(&self) -> Secure {
        loop {
            match self.once().await {
                Ok(stream) => return stream,
                Err(error) => tracing::debug!(%error, "cannot dial the launcher"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All addresses at once; the first connection that proves the launcher's key.
    async fn once(&self) -> io::Result<Secure> {
        let (tell, mut connected) = mpsc::unbounded_channel();
        for &address in &self.addresses {
            let tell = tell.clone();
            spawn_local(async move {
                let late = Err(io::ErrorKind::TimedOut.into());
                let tcp = tokio::time::timeout(TRY, TcpStream::connect(address)).await.unwrap_or(late);
                let _ = tell.send((address, tcp));
            });
        }
        drop(tell);
        let mut failed = Vec::new();
        while let Some((address, tcp)) = connected.recv().await {
            let proved = match tcp {
                Ok(tcp) => {
                    let late = Err(io::ErrorKind::TimedOut.into());
                    let dial = Secure::dial(tcp, &self.identity, self.launcher);
                    tokio::time::timeout(TRY, dial).await.unwrap_or(late)
                }
                Err(error) => Err(error),
            };
            match proved {
                Ok(stream) => return Ok(stream),
                Err(error) => failed.push(format!("{address}: {}", plain(&error))),
            }
        }
        Err(io::Error::other(format!("the launcher cannot be reached at {}", failed.join(", "))))
    }
}

/// What the system says without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// One write to standard output; whoever started us may be gone.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

/// Gets out of reach of what is done to the session that started us: a process group of our own, in a session of our
/// own where this process does not lead one already.
pub(crate) fn detach() {
    // A session leader has what it needs. A mere group leader cannot have a session; its group is its own at least.
    if getsid(Some(Pid::from_raw(0))).is_ok_and(|session| session != getpid()) {
        let _ = setsid();
    }
}

/// Gives up standard output and error.
///
/// # Errors
/// What the kernel says.
pub(crate) fn silence() -> io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    Ok(dup2_stderr(&null)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        let read = |words: &[&str]| Dialling::read(words.iter().map(Into::into)).map_err(|e| e.to_string());
        let key = "ab".repeat(32);
        assert!(read(&[&key, "10.0.0.1:7,[fd00::1]:7"]).is_ok());
        for (words, want) in [
            (vec![], "dial-back: no key"),
            (vec![key.as_str()], "dial-back: no addresses"),
            (vec!["xy", "10.0.0.1:7"], "is not a public key"),
            (vec![key.as_str(), "launcher:7"], "is not a list of addresses"),
        ] {
            let error = read(&words).unwrap_err();
            assert!(error.contains(want), "{words:?}: {error}");
        }
    }
}
