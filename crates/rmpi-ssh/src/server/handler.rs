//! One connection of the embedded server: who may log in, and what channels and requests are answered.

use super::{Shared, Socket, exec};
use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use std::collections::HashMap;
use std::sync::Arc;

/// Session channels a connection may have open and not yet used.
const MAX_IDLE_CHANNELS: usize = 16;

/// State of one connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    socket: Socket,
    user: String,
    idle: HashMap<ChannelId, Channel<Msg>>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, socket: Socket) -> Self {
        Self { shared, socket, user: String::new(), idle: HashMap::new() }
    }

    async fn judge(&self, key: &PublicKey) -> Auth {
        let faults = &self.shared.options.faults;
        if !faults.auth_delay.is_zero() {
            tokio::time::sleep(faults.auth_delay).await;
        }
        let known = self.shared.authorized.iter().any(|a| a.key_data() == key.key_data());
        if known && !faults.refuse_auth { Auth::Accept } else { reject() }
    }
}

fn reject() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from([MethodKind::PublicKey].as_slice())),
        partial_success: false,
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(offer.public_key).await)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        user.clone_into(&mut self.user);
        Ok(self.judge(key.public_key).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.idle.len() < MAX_IDLE_CHANNELS {
            self.idle.insert(channel.id(), channel);
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(()) };
        if !self.shared.options.forward {
            return Ok(());
        }
        let host = host.to_owned();
        // Connecting may take long; the connection must go on meanwhile.
        tokio::spawn(async move {
            match tokio::net::TcpStream::connect((host, port)).await {
                Ok(mut to) => {
                    reply.accept().await;
                    let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut to).await;
                }
                Err(_) => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let taken = self.idle.remove(&channel);
        let Some(open) = taken.filter(|_| !self.shared.options.faults.refuse_exec) else {
            return session.channel_failure(channel);
        };
        let command = exec::Command { text: data.to_vec(), user: self.user.clone() };
        let preface = exec::preface(&self.shared.options, &command);
        match exec::start(&self.shared.options, &command) {
            Ok(child) => {
                session.channel_success(channel)?;
                let faults = self.shared.options.faults.clone();
                let (handle, socket) = (session.handle(), self.socket.clone());
                tokio::spawn(exec::carry(child, preface, open, handle, socket, faults));
                Ok(())
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot start the command");
                session.channel_failure(channel)
            }
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _cols: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
