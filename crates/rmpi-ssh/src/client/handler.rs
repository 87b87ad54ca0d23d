//! What the SSH library calls back: the host key to judge, and why a connection ended.

use super::policy::HostPolicy;
use rmpi_types::{LaunchFault, Stage};
use russh::client::{DisconnectReason, Handler};
use russh::keys::PublicKeyOrCertificate;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest reason of a host that is quoted.
const LONGEST_REASON: usize = 200;

/// What a connection has told us beside its results.
#[derive(Default, Debug)]
pub(crate) struct Said {
    /// Why its key was refused.
    pub(crate) fault: Option<LaunchFault>,
    /// Why it ended.
    pub(crate) reason: Option<String>,
}

/// Shared between the library's task and ours.
pub(crate) type Words = Arc<Mutex<Said>>;

/// The last reason a host gave.
pub(crate) fn last_words(words: &Words) -> Option<String> {
    words.lock().unwrap_or_else(PoisonError::into_inner).reason.clone()
}

/// Text of a host, made fit for one line of a message.
pub(crate) fn tame(text: &str) -> String {
    text.trim().chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Callbacks of one connection.
pub(crate) struct HostCheck {
    pub(crate) policy: HostPolicy,
    pub(crate) words: Words,
}

impl Handler for HostCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        match self.policy.judge(key) {
            Ok(()) => Ok(true),
            Err(fault) => {
                self.words.lock().unwrap_or_else(PoisonError::into_inner).fault = Some(fault);
                Ok(false)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => Some(tame(&info.message)),
            DisconnectReason::Error(russh::Error::KeepaliveTimeout) => {
                Some("the host no longer answers".to_owned())
            }
            DisconnectReason::Error(russh::Error::HUP | russh::Error::Disconnect) => None,
            DisconnectReason::Error(e) => Some(tame(&e.to_string().to_lowercase())),
        };
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            self.words.lock().unwrap_or_else(PoisonError::into_inner).reason = Some(text);
        }
        Ok(())
    }
}

/// What failed in version and key exchange, as the launch report says it.
pub(crate) fn exchange_fault(error: &russh::Error, words: &Words) -> LaunchFault {
    let said = words.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fault) = &said.fault {
        return fault.clone();
    }
    let reason = said.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    use russh::Error as E;
    match error {
        // Overloaded servers (`MaxStartups`) close new connections: trying again helps.
        E::HUP | E::Disconnect | E::SendError | E::RecvError => LaunchFault::passing(
            Stage::Ssh,
            format!("connection closed before key exchange was done{reason}"),
        ),
        E::IO(e) => {
            LaunchFault::passing(Stage::Ssh, format!("connection lost in key exchange: {}", io_text(e)))
        }
        E::Version => LaunchFault::fatal(Stage::Ssh, "not an SSH server: it sent no SSH-2.0 version line"),
        E::NoCommonAlgo { kind, theirs, .. } => LaunchFault::fatal(
            Stage::Ssh,
            format!("no {kind:?} algorithm in common; the host offers {}", tame(&theirs.join(","))),
        ),
        E::WrongServerSig => LaunchFault::fatal(Stage::Ssh, "the host's key exchange signature is wrong"),
        e => LaunchFault::fatal(Stage::Ssh, format!("{}{reason}", tame(&e.to_string().to_lowercase()))),
    }
}

/// An operating system error without its number, lower case.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    tame(&text.to_lowercase())
}
