//! One TLS connection without IO: ciphertext in, plaintext and ciphertext out. Only rustls below here decides what
//! is true of the bytes.

use super::keys::{Identity, PublicKey};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, CertificateError, Error};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Most a record adds to its plaintext: header, inner type and tag, with room to spare.
const RECORD_EXTRA: usize = 64;
/// Plaintext of a full record.
pub(super) const RECORD: usize = 16 << 10;

/// Room in the outgoing buffer that `plain` bytes may need: their records, a key update and an alert.
#[must_use]
pub const fn room_for(plain: usize) -> usize {
    plain + (plain / RECORD + 4) * RECORD_EXTRA
}

/// One connection, driven by whoever has its bytes: a rail's link, or a control stream over any runtime.
pub struct Session {
    connection: Connection,
    /// Why it is over; rustls must not be asked again after an error.
    failed: Option<String>,
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// Where [`Session::advance`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No complete record is left.
    Hungry,
    /// Whoever takes the plaintext has enough.
    Full,
    /// The peer has said that it will send nothing more.
    Closed,
}

/// What rustls says, in words for people.
fn told(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "its key is not the one in the job's table".to_owned()
        }
        Error::AlertReceived(AlertDescription::AccessDenied) => {
            "it says that this rank's key is not the one in the job's table".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

fn denied(what: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, what)
}

/// Whether a whole record is at the beginning.
fn whole(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, high, low, rest @ ..] if rest.len() >= usize::from(u16::from_be_bytes([*high, *low])))
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Session {
    /// The dialling side, to a peer with this key.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn client(identity: &Identity, peer: PublicKey) -> io::Result<Self> {
        let config = Arc::new(identity.client(Arc::new(peer))?);
        // The name is neither sent nor checked.
        let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
        let connection = UnbufferedClientConnection::new(config, name).map_err(|e| denied(&told(&e)))?;
        Ok(Self { connection: Connection::Client(Box::new(connection)), failed: None })
    }

    /// The accepting side, of a peer with this key.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn server(identity: &Identity, peer: PublicKey) -> io::Result<Self> {
        let config = Arc::new(identity.server(Arc::new(peer))?);
        let connection = UnbufferedServerConnection::new(config).map_err(|e| denied(&told(&e)))?;
        Ok(Self { connection: Connection::Server(Box::new(connection)), failed: None })
    }

    /// Whether the keys are not agreed upon yet; nothing may be encrypted before.
    #[must_use]
    pub fn handshaking(&self) -> bool {
        match &self.connection {
            Connection::Client(c) => c.is_handshaking(),
            Connection::Server(c) => c.is_handshaking(),
        }
    }

    fn alive(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |what| Err(denied(what)))
    }

    fn step(&mut self, incoming: &mut [u8], out: &mut Vec<u8>, sink: &mut dyn FnMut(&[u8]) -> bool) -> Step {
        match &mut self.connection {
            Connection::Client(c) => step(c.process_tls_records(incoming), out, sink),
            Connection::Server(c) => step(c.process_tls_records(incoming), out, sink),
        }
    }

    /// Works through `incoming`: how much of it is used up, and why it stopped. Plaintext goes to `sink`, which
    /// says whether it wants more; what the handshake has to say is appended to `out`. What is not used up must be
    /// at the beginning of the next call's bytes.
    ///
    /// # Errors
    /// The peer is not who it should be, or the bytes are none of its making; the same again from then on.
    pub fn advance(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> (usize, io::Result<Stop>) {
        let mut used = 0;
        if let Err(e) = self.alive() {
            return (0, Err(e));
        }
        let stop = loop {
            let (discard, step) = self.step(&mut incoming[used..], out, sink);
            used += discard;
            match step {
                Ok(None) => {}
                // Part of a message that is no data, after the handshake: no peer of ours cuts such up, and
                // rustls would have to be shown it again at every send.
                Ok(Some(Stop::Hungry)) if !self.handshaking() && whole(&incoming[used..]) => {
                    break Err("TLS: a message in pieces after the handshake".to_owned());
                }
                Ok(Some(stop)) => break Ok(stop),
                Err(e) => {
                    // The alert that tells the peer why. Without one it sees the connection close.
                    let _ = self.step(&mut incoming[used..], out, &mut |_| true);
                    break Err(told(&e));
                }
            }
        };
        let stop = stop.map_err(|what| {
            let error = denied(&what);
            self.failed = Some(what);
            error
        });
        (used, stop)
    }

    /// Puts the records of `plain` into `out`; how many bytes. `out` must have [`room_for`] it.
    ///
    /// # Errors
    /// Before the handshake is over, or when the connection may not be used any more.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        self.alive()?;
        let mut at = 0;
        loop {
            let step = match &mut self.connection {
                Connection::Client(c) => sealed(c.process_tls_records(&mut []), plain, &mut out[at..]),
                Connection::Server(c) => sealed(c.process_tls_records(&mut []), plain, &mut out[at..]),
            };
            match step {
                Ok(Sealed::Aside(n)) => at += n,
                Ok(Sealed::Plain(n)) => return Ok(at + n),
                Err(what) => {
                    let error = denied(&what);
                    self.failed = Some(what);
                    return Err(error);
                }
            }
        }
    }

    /// The goodbye, into `out`; how many bytes.
    pub fn goodbye(&mut self, out: &mut [u8]) -> usize {
        if self.failed.is_some() || self.handshaking() {
            return 0;
        }
        match &mut self.connection {
            Connection::Client(c) => bye(c.process_tls_records(&mut []), out),
            Connection::Server(c) => bye(c.process_tls_records(&mut []), out),
        }
    }
}

type Step = (usize, Result<Option<Stop>, Error>);

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> Step {
    let UnbufferedStatus { discard, state } = status;
    let state = match state {
        Ok(state) => state,
        Err(e) => return (discard, Err(e)),
    };
    let done = match state {
        ConnectionState::ReadTraffic(mut read) => {
            let mut more = true;
            while let Some(record) = read.next_record() {
                match record {
                    Ok(record) => more &= sink(record.payload),
                    Err(e) => return (discard, Err(e)),
                }
            }
            if more { None } else { Some(Stop::Full) }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let at = out.len();
            match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(e)) => out.resize(at + e.required_size, 0),
                _ => return (discard, Err(Error::General("nothing to encode".into()))),
            }
            match data.encode(&mut out[at..]) {
                Ok(n) => out.truncate(at + n),
                Err(e) => return (discard, Err(Error::General(e.to_string()))),
            }
            None
        }
        // What was encoded waits in `out`, in order, before anything that is encrypted later.
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            None
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Some(Stop::Closed),
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Some(Stop::Hungry),
        _ => return (discard, Err(Error::General("early data was not offered".into()))),
    };
    (discard, Ok(done))
}

/// What one step towards an encrypted message wrote.
enum Sealed {
    /// Something that had to go first.
    Aside(usize),
    /// The message.
    Plain(usize),
}

fn sealed<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &[u8],
    out: &mut [u8],
) -> Result<Sealed, String> {
    match status.state.map_err(|e| told(&e))? {
        ConnectionState::WriteTraffic(mut write) => {
            write.encrypt(plain, out).map(Sealed::Plain).map_err(|e| match e {
                EncryptError::InsufficientSize(_) => "TLS: a record does not fit its buffer".to_owned(),
                EncryptError::EncryptExhausted => "TLS: the keys are used up".to_owned(),
            })
        }
        ConnectionState::EncodeTlsData(mut data) => {
            data.encode(out).map(Sealed::Aside).map_err(|e| e.to_string())
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Sealed::Aside(0))
        }
        other => Err(format!("TLS cannot send while {other:?}")),
    }
}

fn bye<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut write)) => write.queue_close_notify(out).unwrap_or(0),
        _ => 0,
    }
}
