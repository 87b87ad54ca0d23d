//! An authenticated connection: running commands on it, and forwarding through it for hosts behind.

use super::handler::{self, HostCheck, Words};
use super::process::{self, RemoteProcess};
use crate::auth::within;
use rmpi_types::{LaunchFault, Stage};
use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelStream, Disconnect};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Child;

/// The connection itself; it closes when the last user drops it.
pub(crate) struct Inner {
    pub(crate) handle: Handle<HostCheck>,
    pub(crate) words: Words,
    /// What the connection runs through, kept open with it.
    pub(crate) _through: Option<Arc<Inner>>,
    pub(crate) _proxy: Option<Child>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("closed", &self.handle.is_closed()).finish_non_exhaustive()
    }
}

impl Inner {
    /// A stream to a host behind this one.
    pub(crate) async fn forward(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<ChannelStream<Msg>, LaunchFault> {
        let open = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        match within(deadline, open).await {
            Some(Ok(channel)) => Ok(channel.into_stream()),
            Some(Err(russh::Error::ChannelOpenFailure(
                russh::ChannelOpenFailure::AdministrativelyProhibited,
            ))) => Err(LaunchFault::fatal(
                Stage::Tcp,
                format!("the jump host does not allow forwarding to {host}:{port}"),
            )),
            Some(Err(e)) => Err(LaunchFault::passing(
                Stage::Tcp,
                format!(
                    "the jump host cannot reach {host}:{port} ({})",
                    handler::tame(&e.to_string().to_lowercase())
                ),
            )),
            None => Err(LaunchFault::passing(
                Stage::Tcp,
                format!("no answer from the jump host about {host}:{port}"),
            )),
        }
    }
}

/// An authenticated connection to a host.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) limit: Duration,
}

impl Session {
    /// The address the host was reached at; `None` through a jump host or proxy command.
    #[must_use]
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.handle.is_closed()
    }

    /// Starts a command through the user's login shell. Servers allow about ten at a time on one connection.
    ///
    /// # Errors
    /// A fault of stage `shell` when the host refuses, closes or does not answer.
    pub async fn exec(&self, command: &str) -> Result<RemoteProcess, LaunchFault> {
        let deadline = Instant::now() + self.limit;
        match within(deadline, self.start(command)).await {
            Some(started) => started,
            None => Err(LaunchFault::passing(
                Stage::Shell,
                format!("no answer to the command within {} s", self.limit.as_secs_f32()),
            )),
        }
    }

    async fn start(&self, command: &str) -> Result<RemoteProcess, LaunchFault> {
        let ended = |what: &str| {
            let reason = handler::last_words(&self.inner.words).map(|r| format!(": {r}")).unwrap_or_default();
            LaunchFault::passing(Stage::Shell, format!("{what}{reason}"))
        };
        let mut channel = match self.inner.handle.channel_open_session().await {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(why)) => {
                let what = format!("the host refused a session ({why:?})");
                return Err(LaunchFault::fatal(Stage::Shell, what));
            }
            Err(_) => return Err(ended("connection lost before the command was started")),
        };
        if channel.exec(true, command).await.is_err() {
            return Err(ended("connection lost before the command was started"));
        }
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(process::split(channel, &self.inner)),
                Some(ChannelMsg::Failure) => {
                    return Err(LaunchFault::fatal(Stage::Shell, "the host refused to run a command"));
                }
                Some(ChannelMsg::Close) | None => {
                    return Err(ended("connection closed when the command was to start"));
                }
                Some(_) => {}
            }
        }
    }

    /// Says good-bye; without it the connection just closes when its last user is dropped.
    pub async fn close(&self) {
        let _ = self.inner.handle.disconnect(Disconnect::ByApplication, "done", "").await;
    }
}
