//! Who a rank is to its encrypted peers: an Ed25519 key pair, shown as a raw public key (RFC 7250) and pinned to
//! the endpoint table. No certificates, no names, no dates.

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use std::fmt;
use std::io;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of both halves of a key pair.
pub const KEY_LEN: usize = 32;
/// What precedes the seed in an Ed25519 private key (RFC 8410, PKCS #8 version 1).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What precedes the point in an Ed25519 public key (RFC 8410, SubjectPublicKeyInfo).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public half of a rank's key pair, as the endpoint table gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    fn spki(self) -> Vec<u8> {
        [&SPKI[..], &self.0].concat()
    }

    /// The key in a SubjectPublicKeyInfo; `None` for any other kind of key or length.
    pub(crate) fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI[..])?.try_into().ok().map(Self)
    }
}

/// A rank's own key pair, ready for use. Printing it shows nothing secret.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    public: PublicKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:02x?}..)", &self.public.0[..4])
    }
}

/// What a rank expects the other end to be.
pub(crate) trait Pins: fmt::Debug + Send + Sync {
    /// Whether a peer with this key may connect.
    fn known(&self, key: PublicKey) -> bool;
}

/// One rank's key.
impl Pins for PublicKey {
    fn known(&self, key: PublicKey) -> bool {
        *self == key
    }
}

impl Identity {
    /// The identity with this private half (an Ed25519 seed).
    ///
    /// # Errors
    /// When the seed cannot be used as a signing key.
    pub fn new(secret: &[u8; KEY_LEN]) -> io::Result<Self> {
        let mut provider = provider::default_provider();
        // TLS 1.3 suites only; ring has AES-128-GCM at the highest rate, ChaCha20 where a CPU has no AES.
        provider.cipher_suites = vec![
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        provider.kx_groups = vec![provider::kx_group::X25519];
        let der = Zeroizing::new([&PKCS8[..], secret].concat());
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(&der[..]));
        let signing = provider::sign::any_eddsa_type(match &der {
            PrivateKeyDer::Pkcs8(der) => der,
            _ => return Err(io::Error::other("not a PKCS #8 key")),
        })
        .map_err(io::Error::other)?;
        let spki = signing.public_key().ok_or_else(|| io::Error::other("the key has no public half"))?;
        let public = PublicKey::from_spki(&spki).ok_or_else(|| io::Error::other("not an Ed25519 key"))?;
        let key = CertifiedKey::new(vec![CertificateDer::from(public.spki())], signing);
        Ok(Self { key: Arc::new(key), provider: Arc::new(provider), public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    fn verifier(&self, pins: Arc<dyn Pins>) -> Arc<Verifier> {
        Arc::new(Verifier { pins, algorithms: self.provider.signature_verification_algorithms })
    }

    /// Configuration of the dialling side: only a peer that `pins` knows is let in.
    ///
    /// # Errors
    /// When the provider cannot do TLS 1.3.
    pub(crate) fn client(&self, pins: Arc<dyn Pins>) -> io::Result<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(pins))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.key.clone())));
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// Configuration of the accepting side.
    ///
    /// # Errors
    /// When the provider cannot do TLS 1.3.
    pub(crate) fn server(&self, pins: Arc<dyn Pins>) -> io::Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(self.verifier(pins))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        // Nothing to resume, so nothing of a recorded conversation is worth anything.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }
}

/// Lets in who holds a key that the endpoint table has; the handshake itself proves that it holds it.
#[derive(Debug)]
struct Verifier {
    pins: Arc<dyn Pins>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let known = PublicKey::from_spki(key).is_some_and(|k| self.pins.known(k));
        if known {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms)
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
