//! The SSH agent: one connection a login, so that many logins at once do not wait for one another.

use super::within;
use crate::client::handler::HostCheck;
use crate::config::AgentSocket;
use russh::client::{AuthResult, Handle};
use russh::keys::HashAlg;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use std::path::PathBuf;
use std::time::Instant;
use tokio::net::UnixStream;

/// A connected agent.
pub(crate) struct Agent {
    client: AgentClient<UnixStream>,
}

impl Agent {
    /// Connects where the configuration says; `None` without an agent.
    pub(crate) async fn connect(socket: &AgentSocket, deadline: Instant) -> Result<Option<Self>, String> {
        let path = match socket {
            AgentSocket::None => return Ok(None),
            AgentSocket::Path(path) => path.clone(),
            AgentSocket::Environment => match std::env::var_os("SSH_AUTH_SOCK") {
                Some(path) if !path.is_empty() => PathBuf::from(path),
                _ => return Ok(None),
            },
        };
        let failed = |why: String| format!("agent at {}: {why}", path.display());
        match within(deadline, UnixStream::connect(&path)).await {
            Some(Ok(stream)) => Ok(Some(Self { client: AgentClient::connect(stream) })),
            Some(Err(e)) => Err(failed(e.to_string().to_lowercase())),
            None => Err(failed("no answer".into())),
        }
    }

    /// What it holds.
    pub(crate) async fn identities(&mut self, deadline: Instant) -> Result<Vec<AgentIdentity>, String> {
        match within(deadline, self.client.request_identities()).await {
            Some(Ok(held)) => Ok(held),
            Some(Err(e)) => Err(format!("agent: {}", e.to_string().to_lowercase())),
            None => Err("agent: no answer".into()),
        }
    }

    /// Logs in with one of its keys.
    pub(crate) async fn authenticate(
        &mut self,
        handle: &mut Handle<HostCheck>,
        user: String,
        identity: AgentIdentity,
        hash: Option<HashAlg>,
    ) -> Result<AuthResult, String> {
        let done = match identity {
            AgentIdentity::PublicKey { key, .. } => {
                handle.authenticate_publickey_with(user, key, hash, &mut self.client).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                handle.authenticate_certificate_with(user, certificate, hash, &mut self.client).await
            }
        };
        done.map_err(|e| format!("agent: {}", e.to_string().to_lowercase()))
    }
}
