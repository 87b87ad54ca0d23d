//! Misbehaviour on demand, for tests of the client and launcher. The default misbehaves in nothing.

use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a server does wrong. A wrong host key needs no fault: give the server another key.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Wait this long before the first byte of a connection.
    pub delay: Duration,
    /// Close this many first connections before the version banner, as an overloaded sshd does.
    pub drop_before_banner: u32,
    /// Send the banner, then nothing.
    pub stall_in_kex: bool,
    /// Accept no key.
    pub refuse_auth: bool,
    /// Wait this long before answering about a key.
    pub auth_delay: Duration,
    /// Refuse every command.
    pub refuse_exec: bool,
    /// Cut the connection after a command has sent this many bytes of standard output.
    pub drop_after: Option<u64>,
    /// A line printed before a command's own output, as login shells do.
    pub banner_line: Option<String>,
}

impl Faults {
    /// Faults that come before the SSH protocol: `None` when the connection has been dealt with.
    pub(crate) async fn before_banner(&self, mut stream: TcpStream, number: u32) -> Option<TcpStream> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if number <= self.drop_before_banner {
            return None;
        }
        if !self.stall_in_kex {
            return Some(stream);
        }
        stream.write_all(b"SSH-2.0-stalled\r\n").await.ok()?;
        let mut ignored = [0u8; 4096];
        while stream.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
        None
    }
}
