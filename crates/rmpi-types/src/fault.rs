//! What can go wrong before the first rank runs: one [`LaunchFault`] a host, with the exact stage.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The stage of reaching and preparing a host, in order. The printed names are those of the launch report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Resolving the host's name.
    Name,
    /// The TCP connection.
    Tcp,
    /// SSH version and key exchange, host key.
    Ssh,
    /// User authentication.
    Auth,
    /// The remote shell or agent command.
    Shell,
    /// Pushing and starting the daemon, its hello and report.
    Daemon,
    /// A dialled-back control stream.
    Back,
    /// Rank listeners, shared segment, reachability between nodes.
    Wire,
    /// Program, working directory, limits: what starting a rank needs.
    Exec,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Ssh => "ssh",
            Self::Auth => "auth",
            Self::Shell => "shell",
            Self::Daemon => "daemon",
            Self::Back => "back",
            Self::Wire => "wire",
            Self::Exec => "exec",
        })
    }
}

/// What a fault is, where its stage and code do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// They do.
    #[default]
    Usual,
    /// A host key that is not known, not the known one, or revoked.
    HostKey,
}

/// Why one host could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFault {
    /// Where it stopped.
    pub stage: Stage,
    /// What it is beyond that.
    pub kind: FaultKind,
    /// What happened, lower case, no full stop: `host key not in known_hosts: ssh-ed25519 SHA256:…`.
    pub what: String,
    /// What to do about it, if anything is known to help: `accept once with --host-keys accept-new`.
    pub hint: Option<String>,
    /// The exit code it asks for: [`crate::exit::LAUNCH`], or 125-127 for [`Stage::Exec`].
    pub code: u8,
    /// Whether trying again may help (refused, unresolved, busy server), or never will (wrong key).
    pub retry: bool,
}

impl LaunchFault {
    /// A fault that a second attempt will not mend.
    #[must_use]
    pub fn fatal(stage: Stage, what: impl Into<String>) -> Self {
        let kind = FaultKind::Usual;
        Self { stage, kind, what: what.into(), hint: None, code: crate::exit::LAUNCH, retry: false }
    }

    /// A fault that may pass.
    #[must_use]
    pub fn passing(stage: Stage, what: impl Into<String>) -> Self {
        Self { retry: true, ..Self::fatal(stage, what) }
    }

    /// The stable name of this kind of fault (`docs/exit-codes.md`).
    #[must_use]
    pub fn id(&self) -> &'static str {
        match (self.stage, self.code) {
            (Stage::Name, _) => "E-NAME",
            (Stage::Tcp, _) => "E-TCP",
            (Stage::Ssh, _) if self.kind == FaultKind::HostKey => "E-SSH-HOSTKEY",
            (Stage::Ssh, _) => "E-SSH",
            (Stage::Auth, _) => "E-AUTH",
            (Stage::Shell, _) => "E-SHELL",
            (Stage::Daemon, _) => "E-DAEMON",
            (Stage::Back, _) => "E-BACK",
            (Stage::Wire, _) => "E-WIRE",
            (Stage::Exec, crate::exit::NOT_FOUND) => "E-EXEC-NOTFOUND",
            (Stage::Exec, crate::exit::NOT_EXECUTABLE) => "E-EXEC-FORMAT",
            (Stage::Exec, crate::exit::NO_WDIR) => "E-EXEC-WDIR",
            (Stage::Exec, _) => "E-EXEC",
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same of another kind.
    #[must_use]
    pub fn kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl fmt::Display for LaunchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.what)?;
        self.hint.as_ref().map_or(Ok(()), |h| write!(f, " ({h})"))
    }
}

impl std::error::Error for LaunchFault {}
