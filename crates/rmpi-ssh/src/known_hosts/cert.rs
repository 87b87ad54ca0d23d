//! Host certificates: everything the SSH library leaves to its caller. It has checked only that the host holds
//! the certified key.

use super::{HostName, KnownHosts, Place};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, HashAlg, PublicKey};

/// Why a host certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertProblem {
    /// No `@cert-authority` line for this host has the signer.
    #[error("host certificate signed by an authority not in known_hosts: {0}")]
    UnknownAuthority(String),
    /// The authority, the certified key or the certificate is revoked.
    #[error("host certificate revoked at {0}")]
    Revoked(Place),
    /// A user certificate.
    #[error("the host shows a user certificate")]
    NotHost,
    /// It names other hosts.
    #[error("host certificate is for {}, not for {host}", if names.is_empty() { "no host".to_owned() } else { names.join(", ") })]
    OtherHost {
        /// Hosts it names.
        names: Vec<String>,
        /// The host we dialled.
        host: String,
    },
    /// Not yet, or no more.
    #[error("host certificate is {0}")]
    Window(&'static str),
    /// Something it demands that we do not know.
    #[error("host certificate has critical option {0}, which is not known")]
    Critical(String),
    /// The authority's signature is wrong.
    #[error("host certificate has a wrong signature")]
    Signature,
}

/// Whether a host certificate proves the host: the authority is trusted for this host and nothing is revoked,
/// type, names, validity window at `now` (seconds since 1970), critical options and signature are right.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_host_certificate(
    known: &KnownHosts,
    host: &HostName,
    cert: &HostCertificate<'_>,
    now: u64,
) -> Result<(), CertProblem> {
    let cert = cert.0;
    let blob = |key: &russh::keys::ssh_key::public::KeyData| {
        PublicKey::new(key.clone(), "").to_bytes().unwrap_or_default()
    };
    let authority = blob(cert.signature_key());
    for revocable in [&authority, &blob(cert.public_key())] {
        if let Some(place) = known.revoked(host, revocable) {
            return Err(CertProblem::Revoked(place));
        }
    }
    if !known.is_authority(host, &authority) {
        let key = PublicKey::new(cert.signature_key().clone(), "");
        return Err(CertProblem::UnknownAuthority(crate::keys::describe(&key)));
    }
    if cert.cert_type() != CertType::Host {
        return Err(CertProblem::NotHost);
    }
    let names = cert.valid_principals();
    // OpenSSH allows wildcards in the principals of host certificates; an empty list names no host.
    if !names.iter().any(|n| crate::glob::list_matches([n.as_str()], host.principal())) {
        return Err(CertProblem::OtherHost { names: names.to_vec(), host: host.principal().to_owned() });
    }
    if let Some((name, _)) = cert.critical_options().iter().next() {
        return Err(CertProblem::Critical(name.clone()));
    }
    if now < cert.valid_after() {
        return Err(CertProblem::Window("not valid yet"));
    }
    if now >= cert.valid_before() {
        return Err(CertProblem::Window("expired"));
    }
    let print = cert.signature_key().fingerprint(HashAlg::Sha256);
    cert.validate_at(now, [&print]).map_err(|_| CertProblem::Signature)
}

/// A host certificate as the key exchange showed it.
#[derive(Debug)]
pub struct HostCertificate<'a>(pub(crate) &'a Certificate);
