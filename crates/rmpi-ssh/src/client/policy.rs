//! Whether a host's key is accepted: known hosts, certificates, and the policy for unknown keys.

use crate::keys::{describe, public_line};
use crate::known_hosts::{self, CertProblem, HostCertificate, HostName, KnownHosts, Verdict};
use rmpi_types::spec::HostKeys;
use rmpi_types::{FaultKind, LaunchFault, Stage};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything needed to judge one host.
pub(crate) struct HostPolicy {
    pub(crate) host: HostName,
    pub(crate) known: Arc<Mutex<KnownHosts>>,
    pub(crate) host_keys: HostKeys,
    /// Keys of ours that a host may show.
    pub(crate) own: Vec<PublicKey>,
    /// Where accepted keys are added.
    pub(crate) file: Option<PathBuf>,
    pub(crate) hashed: bool,
}

impl HostPolicy {
    /// Accepts or refuses what the host has shown.
    pub(crate) fn judge(&self, shown: &PublicKeyOrCertificate) -> Result<(), LaunchFault> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cert) = shown.certificate() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            match known_hosts::check_host_certificate(&known, &self.host, &HostCertificate(cert), now) {
                Ok(()) => return Ok(()),
                // As OpenSSH does: without a matching authority the bare key may still be known.
                Err(CertProblem::UnknownAuthority(_)) => {}
                Err(problem @ CertProblem::Revoked(_)) => {
                    return Err(LaunchFault::fatal(Stage::Ssh, problem.to_string()));
                }
                Err(_) if self.host_keys == HostKeys::Off => return Ok(()),
                Err(problem) => return Err(LaunchFault::fatal(Stage::Ssh, problem.to_string())),
            }
        }
        self.judge_key(&mut known, &shown.public_key())
    }

    fn judge_key(&self, known: &mut KnownHosts, key: &PublicKey) -> Result<(), LaunchFault> {
        let blob = key.to_bytes().unwrap_or_default();
        let algorithm = key.algorithm();
        // RSA keys are stored under one name whatever signed the exchange.
        let kind = if algorithm.clone().is_rsa() { "ssh-rsa" } else { algorithm.as_str() };
        let wrong = |what: String| LaunchFault::fatal(Stage::Ssh, what).kind(FaultKind::HostKey);
        let shown = format!("{kind} {}", describe(key).split(' ').next_back().unwrap_or_default());
        match known.check(&self.host, kind, &blob) {
            Verdict::Known => Ok(()),
            Verdict::Revoked(place) => Err(wrong(format!("host key is revoked by {place}: {shown}"))
                .hint("this key must not be trusted: ask who runs the host")),
            _ if self.host_keys == HostKeys::Off => Ok(()),
            Verdict::Unknown if self.own.iter().any(|own| own.key_data() == key.key_data()) => Ok(()),
            Verdict::Changed(place) => {
                Err(wrong(format!("host key changed: {shown} is not the key of {place}"))
                    .hint("if the host was set up anew remove that line, else someone may be listening in"))
            }
            Verdict::Unknown if self.host_keys == HostKeys::AcceptNew => self.accept(known, key),
            Verdict::Unknown => Err(wrong(format!("host key not in known_hosts: {shown}"))
                .hint("accept once with --host-keys accept-new")),
        }
    }

    fn accept(&self, known: &mut KnownHosts, key: &PublicKey) -> Result<(), LaunchFault> {
        let Some(file) = &self.file else {
            let what = "no UserKnownHostsFile to add the new host key to";
            return Err(LaunchFault::fatal(Stage::Ssh, what));
        };
        let line = public_line(key);
        known_hosts::append(file, &self.host, &line, self.hashed)
            .map_err(|e| LaunchFault::fatal(Stage::Ssh, e.to_string()))?;
        tracing::info!(host = %self.host.text(), key = %describe(key), file = %file.display(), "host key added");
        known.extend(known_hosts::parse(&format!("{} {line}\n", self.host.text()), file).0);
        Ok(())
    }
}
