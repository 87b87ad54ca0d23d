//! Which algorithms are offered: the library's safe defaults, changed by the configuration's lists (`+`, `-`,
//! `^`) and, for host keys, by what is known of the host.

use crate::config::HostConfig;
use crate::glob;
use crate::known_hosts::{HostName, KnownHosts};
use russh::keys::Algorithm;
use russh::{Preferred, cipher, kex, mac};
use std::borrow::Cow;

/// The lists for one host, or which list leaves nothing to offer.
pub(crate) fn preferred(
    config: &HostConfig,
    known: &KnownHosts,
    host: &HostName,
) -> Result<Preferred, String> {
    let mut p = Preferred::DEFAULT;
    p.kex = Cow::Owned(quick_curve_first(&p.kex));
    // Signing the exchange with SHA-1 has to be asked for.
    let keys: Vec<Algorithm> =
        p.key.iter().filter(|a| **a != Algorithm::Rsa { hash: None }).cloned().collect();
    let key_name = |a: &Algorithm| a.as_str().to_owned();
    let key = match &config.host_key_algorithms {
        Some(spec) => choose(spec, &keys, |n| Algorithm::new(n).ok().filter(is_plain), key_name)
            .ok_or_else(|| nothing("HostKeyAlgorithms", spec))?,
        None => known_first(&keys, &known.known_types(host)),
    };
    if known.has_authority(host) {
        p.host_key_certificates = Cow::Owned(key.clone());
    }
    p.key = Cow::Owned(key);
    if let Some(spec) = &config.kex {
        let (extensions, plain): (Vec<kex::Name>, Vec<kex::Name>) = p
            .kex
            .iter()
            .partition(|k| k.as_ref().starts_with("ext-info") || k.as_ref().starts_with("kex-strict"));
        let mut chosen = choose(spec, &plain, |n| kex::Name::try_from(n).ok(), |n| n.as_ref().to_owned())
            .ok_or_else(|| nothing("KexAlgorithms", spec))?;
        chosen.extend(extensions);
        p.kex = Cow::Owned(chosen);
    }
    if let Some(spec) = &config.ciphers {
        let safe =
            |n: &str| cipher::Name::try_from(n).ok().filter(|c| !matches!(c.as_ref(), "none" | "clear"));
        let chosen = choose(spec, &p.cipher, safe, |n| n.as_ref().to_owned());
        p.cipher = Cow::Owned(chosen.ok_or_else(|| nothing("Ciphers", spec))?);
    }
    if let Some(spec) = &config.macs {
        let safe = |n: &str| mac::Name::try_from(n).ok().filter(|m| m.as_ref() != "none");
        let chosen = choose(spec, &p.mac, safe, |n| n.as_ref().to_owned());
        p.mac = Cow::Owned(chosen.ok_or_else(|| nothing("MACs", spec))?);
    }
    Ok(p)
}

/// The library's key exchanges, with NIST's curve P-256 before the others that a quantum computer could break: servers
/// do it several times faster than X25519, and a launch waits for theirs on all hosts.
fn quick_curve_first(defaults: &[kex::Name]) -> Vec<kex::Name> {
    let quick = kex::ECDH_SHA2_NISTP256;
    let mut all: Vec<kex::Name> = defaults.iter().copied().filter(|k| *k != quick).collect();
    let classical = all.iter().position(|k| k.as_ref().starts_with("curve25519")).unwrap_or(0);
    all.insert(classical, quick);
    all
}

fn nothing(option: &str, spec: &str) -> String {
    format!("{option} {spec} leaves nothing this client supports")
}

fn is_plain(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. })
}

/// Algorithms of known key types before the others.
fn known_first(all: &[Algorithm], types: &[&str]) -> Vec<Algorithm> {
    let family = |a: &Algorithm| match a {
        Algorithm::Rsa { .. } => "ssh-rsa".to_owned(),
        other => other.as_str().to_owned(),
    };
    let (mut known, others): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|a| types.contains(&family(a).as_str()));
    known.extend(others);
    known
}

/// Applies an OpenSSH list to the defaults; `None` when nothing is left.
fn choose<T: Clone + PartialEq>(
    spec: &str,
    defaults: &[T],
    parse: impl Fn(&str) -> Option<T>,
    name: impl Fn(&T) -> String,
) -> Option<Vec<T>> {
    let parse_all = |s: &str| s.split(',').filter_map(|n| parse(n.trim())).collect::<Vec<_>>();
    let mut out = match spec.chars().next() {
        Some('+') => [defaults.to_vec(), parse_all(&spec[1..])].concat(),
        Some('^') => [parse_all(&spec[1..]), defaults.to_vec()].concat(),
        Some('-') => {
            let gone: Vec<&str> = spec[1..].split(',').collect();
            defaults.iter().filter(|d| !gone.iter().any(|g| glob::matches(g, &name(d)))).cloned().collect()
        }
        _ => parse_all(spec),
    };
    let mut seen: Vec<T> = Vec::new();
    out.retain(|a| {
        !seen.contains(a) && {
            seen.push(a.clone());
            true
        }
    });
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn lists(config: &HostConfig, known: &str) -> Result<Preferred, String> {
        let mut all = KnownHosts::default();
        all.extend(crate::known_hosts::parse(known, Path::new("kh")).0);
        preferred(config, &all, &HostName::new("n1", 22))
    }

    #[test]
    fn lists_follow_the_configuration() {
        let names = |c: &HostConfig| {
            let p = lists(c, "").unwrap();
            p.cipher.iter().map(|n| n.as_ref().to_owned()).collect::<Vec<_>>()
        };
        let with = |s: &str| HostConfig { ciphers: Some(s.into()), ..HostConfig::default() };
        assert_eq!(names(&with("aes256-ctr,unheard-of")), ["aes256-ctr"]);
        assert_eq!(names(&with("^aes128-ctr"))[0], "aes128-ctr");
        assert!(!names(&with("-chacha20*")).contains(&"chacha20-poly1305@openssh.com".to_owned()));
        assert!(names(&with("+aes128-cbc")).contains(&"aes128-cbc".to_owned()));
        assert!(lists(&with("none"), "").unwrap_err().contains("Ciphers none"));
        let order = lists(&HostConfig::default(), "").unwrap().kex;
        let at = |name: &str| order.iter().position(|k| k.as_ref() == name).unwrap();
        assert!(at("mlkem768x25519-sha256") < at("ecdh-sha2-nistp256"));
        assert!(at("ecdh-sha2-nistp256") < at("curve25519-sha256"));
        let kex = HostConfig { kex: Some("curve25519-sha256".into()), ..HostConfig::default() };
        let offered = lists(&kex, "").unwrap().kex;
        assert!(offered.iter().any(|k| k.as_ref().starts_with("kex-strict")), "extensions stay");
    }

    #[test]
    fn known_types_are_asked_for_first() {
        let rsa = "n1 ssh-rsa AAAAB3NzaC1yc2E=\n";
        let p = lists(&HostConfig::default(), rsa).unwrap();
        assert_eq!(p.key[0], Algorithm::Rsa { hash: Some(russh::keys::HashAlg::Sha512) });
        assert!(p.host_key_certificates.is_empty());
        assert!(!p.key.contains(&Algorithm::Rsa { hash: None }));
        let ca = format!("@cert-authority {rsa}");
        assert!(!lists(&HostConfig::default(), &ca).unwrap().host_key_certificates.is_empty());
    }
}
