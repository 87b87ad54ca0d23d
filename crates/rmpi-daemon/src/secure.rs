//! A control stream over TCP in TLS 1.3, both ends known by their raw public keys: the stream of a daemon that
//! dialled the launcher. Before TLS the dialling side sends [`PREAMBLE`] bytes in clear that say which key it will
//! prove, so that not one byte of a stranger reaches the TLS code.

use rmpi_net::session::{Session, Stop, room_for};
use rmpi_net::{Identity, KEY_LEN, PublicKey};
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

/// Bytes before TLS: magic 8, version u16, zero 6, public key 32.
pub const PREAMBLE: usize = 48;
const MAGIC: &[u8; 8] = b"RMPIDIAL";
const VERSION: u16 = 1;

/// Bytes read from the socket at once.
const CHUNK: usize = 16 << 10;
/// Plaintext put into records at once.
const PLAIN: usize = 64 << 10;
/// Ciphertext that may wait for the socket before writers do.
const WAITING: usize = 256 << 10;

/// What the dialling side sends first: the key it is about to prove.
#[must_use]
pub fn preamble(key: PublicKey) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(&key.0);
    bytes
}

/// The key in a preamble; `None` for anything else.
#[must_use]
pub fn read_preamble(bytes: &[u8; PREAMBLE]) -> Option<PublicKey> {
    let head = bytes[..8] == MAGIC[..] && bytes[8..10] == VERSION.to_le_bytes() && bytes[10..16] == [0; 6];
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(&bytes[16..]);
    head.then_some(PublicKey(key))
}

/// A fresh key pair.
///
/// # Errors
/// The system gives no random bytes.
pub fn fresh_identity() -> io::Result<Identity> {
    let mut seed = zeroize::Zeroizing::new([0; KEY_LEN]);
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed[..])?;
    Identity::new(&seed)
}

/// Lower-case hexadecimal of a public key, as it travels on command lines.
#[must_use]
pub fn key_text(key: PublicKey) -> String {
    key.0.iter().map(|b| format!("{b:02x}")).collect()
}

/// The key of a text; `None` when it is not 64 hexadecimal digits.
#[must_use]
pub fn key_of(text: &str) -> Option<PublicKey> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_LEN || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0; KEY_LEN];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(PublicKey(key))
}

/// An encrypted stream.
#[derive(Debug)]
pub struct Secure {
    tcp: TcpStream,
    session: Session,
    /// Ciphertext not worked through yet.
    incoming: Vec<u8>,
    /// Plaintext nobody has read yet, from `taken` on.
    plain: Vec<u8>,
    taken: usize,
    /// Ciphertext for the socket, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    ended: bool,
}

impl Secure {
    /// The dialling side: says who it is, then proves it to the holder of `peer`.
    ///
    /// # Errors
    /// What the socket says; permission denied when the other side is someone else.
    pub async fn dial(mut tcp: TcpStream, identity: &Identity, peer: PublicKey) -> io::Result<Self> {
        let _ = tcp.set_nodelay(true);
        tcp.write_all(&preamble(identity.public())).await?;
        Self::shake(tcp, Session::client(identity, peer)?).await
    }

    /// The accepting side, after the preamble was read and its key found to be `peer`.
    ///
    /// # Errors
    /// As [`Secure::dial`].
    pub async fn accept(tcp: TcpStream, identity: &Identity, peer: PublicKey) -> io::Result<Self> {
        let _ = tcp.set_nodelay(true);
        Self::shake(tcp, Session::server(identity, peer)?).await
    }

    async fn shake(tcp: TcpStream, session: Session) -> io::Result<Self> {
        let mut this = Self {
            tcp,
            session,
            incoming: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            written: 0,
            ended: false,
        };
        loop {
            let done = this.work();
            let send = std::mem::take(&mut this.outgoing);
            this.tcp.write_all(&send).await?;
            done?;
            if !this.session.handshaking() {
                return Ok(this);
            }
            if this.tcp.read_buf(&mut this.incoming).await? == 0 || this.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Works through what has arrived.
    fn work(&mut self) -> io::Result<()> {
        let plain = &mut self.plain;
        let mut take = |bytes: &[u8]| {
            plain.extend_from_slice(bytes);
            true
        };
        let (used, stop) = self.session.advance(&mut self.incoming, &mut self.outgoing, &mut take);
        self.incoming.drain(..used);
        self.ended |= stop? == Stop::Closed;
        Ok(())
    }

    /// Hands ciphertext to the socket as far as it takes it at once, waking nobody.
    fn push(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.tcp.try_write(&self.outgoing[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.outgoing.shrink_to(CHUNK);
            self.written = 0;
        }
        Ok(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, until: usize) -> Poll<io::Result<()>> {
        while self.outgoing.len() - self.written > until {
            let from = &self.outgoing[self.written..];
            self.written += ready!(Pin::new(&mut self.tcp).poll_write(cx, from))?;
        }
        Poll::Ready(self.push())
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.taken < this.plain.len() {
                let n = buffer.remaining().min(this.plain.len() - this.taken);
                buffer.put_slice(&this.plain[this.taken..this.taken + n]);
                this.taken += n;
                if this.taken == this.plain.len() {
                    this.plain.clear();
                    this.plain.shrink_to(CHUNK);
                    this.taken = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let mut room = [0; CHUNK];
            let mut room = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            this.incoming.extend_from_slice(room.filled());
            let done = this.work();
            // An answer to a key update, or an alert: small, and never a reason to wait.
            this.push()?;
            done?;
        }
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx, WAITING))?;
        let this = &mut *self;
        let n = bytes.len().min(PLAIN);
        let at = this.outgoing.len();
        this.outgoing.resize(at + room_for(n), 0);
        let sealed = this.session.encrypt(&bytes[..n], &mut this.outgoing[at..]);
        this.outgoing.truncate(at + *sealed.as_ref().unwrap_or(&0));
        sealed?;
        this.push()?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx, 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            let this = &mut *self;
            let at = this.outgoing.len();
            this.outgoing.resize(at + room_for(0), 0);
            let n = this.session.goodbye(&mut this.outgoing[at..]);
            this.outgoing.truncate(at + n);
        }
        ready!(self.poll_drain(cx, 0))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    async fn pair(pin: bool) -> (io::Result<Secure>, io::Result<Secure>) {
        let (launcher, daemon) = (fresh_identity().unwrap(), fresh_identity().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let expected = if pin { launcher.public() } else { daemon.public() };
        let dial =
            async { Secure::dial(TcpStream::connect(address).await.unwrap(), &daemon, expected).await };
        let accept = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut bytes = [0; PREAMBLE];
            tcp.read_exact(&mut bytes).await.unwrap();
            assert_eq!(read_preamble(&bytes), Some(daemon.public()));
            Secure::accept(tcp, &launcher, daemon.public()).await
        };
        tokio::join!(dial, accept)
    }

    #[tokio::test]
    async fn carries_megabytes_both_ways_at_once_and_ends() {
        let (a, b) = pair(true).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        let run = |side: Secure, seed: u8| async move {
            let (mut reader, mut writer) = tokio::io::split(side);
            let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8 ^ seed).collect();
            let sending = async {
                writer.write_all(&data).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let reading = async { reader.read_to_end(&mut got).await.unwrap() };
            tokio::join!(sending, reading);
            (data, got)
        };
        let both = async { tokio::join!(run(a, 1), run(b, 7)) };
        let ((sent_a, got_a), (sent_b, got_b)) =
            tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
        assert!(sent_a == got_b && sent_b == got_a);
    }

    #[tokio::test]
    async fn another_key_is_refused_on_both_sides() {
        let (dialled, accepted) = pair(false).await;
        assert!(dialled.is_err() && accepted.is_err());
    }

    #[test]
    fn preambles_and_keys_have_one_form() {
        let key = PublicKey([0xa5; KEY_LEN]);
        assert_eq!(key_of(&key_text(key)), Some(key));
        for bad in ["", "a5", &"g".repeat(64), &"a5".repeat(33)] {
            assert_eq!(key_of(bad), None, "{bad}");
        }
        let bytes = preamble(key);
        assert_eq!(read_preamble(&bytes), Some(key));
        for i in 0..16 {
            let mut wrong = bytes;
            wrong[i] ^= 1;
            assert_eq!(read_preamble(&wrong), None, "byte {i}");
        }
    }
}
