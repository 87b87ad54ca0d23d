//! What OpenSSH's manual promises of `known_hosts`, as tables, and properties of the lookup.

use super::*;
use crate::base64;
use crate::keys::KeyPair;
use proptest::prelude::*;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use std::path::Path;

/// A key of type `kind` whose content is `seed`.
fn blob(kind: &str, seed: u8) -> Vec<u8> {
    let mut out = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(&[seed; 9]);
    out
}

fn line(marker: &str, hosts: &str, kind: &str, seed: u8) -> String {
    format!("{marker}{hosts} {kind} {} a comment\n", base64::encode(&blob(kind, seed)))
}

fn known(text: &str) -> KnownHosts {
    let mut all = KnownHosts::default();
    all.extend(parse(text, Path::new("kh")).0);
    all
}

fn check(text: &str, host: &str, port: u16, seed: u8) -> Verdict {
    known(text).check(&HostName::new(host, port), "ssh-ed25519", &blob("ssh-ed25519", seed))
}

#[test]
fn lines_of_every_kind() {
    let ed = "ssh-ed25519";
    let hashed = line("", &Hosts::hashed_text("n1", b"salt"), ed, 1);
    let hashed_port = line("", &Hosts::hashed_text("[n1]:2222", b"pepper"), ed, 1);
    let tabs = line("", "n1", ed, 1).replace(' ', "\t");
    let cases = [
        (line("", "n1", ed, 1), 22, Verdict::Known),
        (line("", "N1,other", ed, 1), 22, Verdict::Known),
        (tabs, 22, Verdict::Known),
        (line("", "other", ed, 1), 22, Verdict::Unknown),
        (line("", "n*", ed, 1), 22, Verdict::Known),
        (line("", "n?,!n1", ed, 1), 22, Verdict::Unknown),
        (hashed.clone(), 22, Verdict::Known),
        (hashed, 2222, Verdict::Known),
        (hashed_port.clone(), 2222, Verdict::Known),
        (hashed_port, 22, Verdict::Unknown),
        (line("", "[n1]:2222", ed, 1), 2222, Verdict::Known),
        (line("", "[n1]:2222", ed, 1), 2223, Verdict::Unknown),
        (line("", "[n1]:2222", ed, 1), 22, Verdict::Unknown),
        (line("@cert-authority ", "n1", ed, 1), 22, Verdict::Unknown),
    ];
    for (text, port, want) in cases {
        assert_eq!(check(&text, "n1", port, 1), want, "{text} port {port}");
    }
}

#[test]
fn any_matching_line_accepts_and_only_same_types_change() {
    let two = line("", "n1", "ssh-ed25519", 2) + &line("", "n1", "ssh-ed25519", 1);
    assert_eq!(check(&two, "n1", 22, 1), Verdict::Known);
    let Verdict::Changed(place) = check(&two, "n1", 22, 3) else { panic!("changed") };
    assert_eq!(place.to_string(), "kh:1");
    let other_type = line("", "n1", "ssh-rsa", 2);
    assert_eq!(check(&other_type, "n1", 22, 1), Verdict::Unknown);
    assert_eq!(known(&other_type).known_types(&HostName::new("n1", 22)), ["ssh-rsa"]);
    let bare_differs = line("", "n1", "ssh-ed25519", 2);
    assert_eq!(check(&bare_differs, "n1", 2222, 1), Verdict::Unknown, "another port may have another key");
}

#[test]
fn revocation_wins_over_everything() {
    let text = line("", "n1", "ssh-ed25519", 1) + &line("@revoked ", "*", "ssh-ed25519", 1);
    let Verdict::Revoked(place) = check(&text, "n1", 22, 1) else { panic!("revoked") };
    assert_eq!(place.line, 2);
    assert!(matches!(check(&text, "n1", 2222, 1), Verdict::Revoked(_)));
    assert_eq!(check(&text, "n1", 22, 2), Verdict::Changed(Place { line: 1, ..place }));
}

#[test]
fn nonsense_is_counted_and_skipped() {
    let good = line("", "n1", "ssh-ed25519", 1);
    let text = format!(
        "# comment\n\nn1\nn1 ssh-ed25519 !!!\n@what n1 ssh-ed25519 AAAA\n|2|a|b x y\nn1 ssh-rsa {}\n{good}",
        base64::encode(&blob("ssh-ed25519", 1))
    );
    let (lines, bad) = parse(&text, Path::new("kh"));
    assert_eq!(lines.len(), 1);
    assert_eq!(bad, [3, 4, 5, 6, 7]);
}

#[test]
fn appending_makes_private_files_and_completes_lines() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = crate::server::tests::scratch("kh-append");
    let path = dir.join("new").join("known_hosts");
    let key = KeyPair::generate().unwrap().public_line();
    let (host, other) = (HostName::new("n1", 2222), HostName::new("n2", 22));
    append(&path, &host, &key, false).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("[n1]:2222 {key}\n"));
    std::fs::write(&path, text.trim_end()).unwrap();
    append(&path, &other, &key, true).unwrap();
    let all = load(&[path.clone(), dir.join("missing")]).unwrap();
    let (kind, data) = key.split_once(' ').unwrap();
    for h in [&host, &other] {
        assert_eq!(all.check(h, kind, &base64::decode(data).unwrap()), Verdict::Known);
    }
    assert!(!std::fs::read_to_string(&path).unwrap().contains("n2"), "hashed");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let unreadable = load(&[dir.to_path_buf()]).unwrap_err();
    assert!(unreadable.to_string().contains(&dir.display().to_string()), "{unreadable}");
}

#[test]
fn certificates_are_judged_in_full() {
    let (ca, host_key, stranger) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let text = format!("@cert-authority *.cluster,n? {}\n", ca.public_line());
    let make = |signer: &KeyPair, kind: CertType, name: &str, option: Option<&str>| {
        let mut b = Builder::new(vec![1; 16], host_key.0.public_key(), 1000, 2000).unwrap();
        b.cert_type(kind).unwrap().key_id("k").unwrap().valid_principal(name).unwrap();
        if let Some(o) = option {
            b.critical_option(o, "x").unwrap();
        }
        b.sign(&*signer.0).unwrap()
    };
    let judge = |text: &str, cert: &russh::keys::Certificate, now| {
        check_host_certificate(&known(text), &HostName::new("n1", 2222), &HostCertificate(cert), now)
    };
    let good = make(&ca, CertType::Host, "n1", None);
    assert_eq!(judge(&text, &good, 1500), Ok(()));
    assert_eq!(judge(&text, &make(&ca, CertType::Host, "n*", None), 1500), Ok(()));
    assert_eq!(judge(&text, &good, 999), Err(CertProblem::Window("not valid yet")));
    assert_eq!(judge(&text, &good, 2000), Err(CertProblem::Window("expired")));
    assert_eq!(judge(&text, &make(&ca, CertType::User, "n1", None), 1500), Err(CertProblem::NotHost));
    let elsewhere = judge(&text, &make(&ca, CertType::Host, "n2", None), 1500).unwrap_err();
    assert_eq!(elsewhere.to_string(), "host certificate is for n2, not for n1");
    let odd = judge(&text, &make(&ca, CertType::Host, "n1", Some("odd")), 1500);
    assert_eq!(odd, Err(CertProblem::Critical("odd".into())));
    let unsigned = judge(&text, &make(&stranger, CertType::Host, "n1", None), 1500);
    assert!(matches!(unsigned, Err(CertProblem::UnknownAuthority(_))));
    for revoked in [&ca, &host_key] {
        let text = format!("{text}@revoked * {}\n", revoked.public_line());
        assert!(matches!(judge(&text, &good, 1500), Err(CertProblem::Revoked(_))));
    }
    // A signature by the right key over other content.
    let mut bytes = good.to_bytes().unwrap();
    let at = bytes.windows(2).position(|w| w == b"n1").unwrap();
    bytes[at + 1] = b'2';
    let forged = russh::keys::Certificate::from_bytes(&bytes).unwrap();
    let host = HostName::new("n2", 22);
    let judged = check_host_certificate(&known(&text), &host, &HostCertificate(&forged), 1500);
    assert_eq!(judged, Err(CertProblem::Signature));
}

proptest! {
    #[test]
    fn hostile_text_never_panics_and_every_line_is_accounted_for(text in "[ \t|@!*a-zA-Z0-9/+=,\\[\\]:\n#]{0,400}") {
        let (lines, bad) = parse(&text, Path::new("kh"));
        let content = text.lines().filter(|l| !l.trim().is_empty() && !l.trim().starts_with('#')).count();
        prop_assert_eq!(lines.len() + bad.len(), content);
    }

    #[test]
    fn hashed_and_plain_lines_agree(name in "[a-z][a-z0-9.-]{0,20}", port in 1u16.., salt in any::<[u8; 20]>(), seed in any::<u8>()) {
        let host = HostName::new(&name, port);
        let plain = line("", &host.text(), "ssh-ed25519", seed);
        let hashed = line("", &Hosts::hashed_text(&host.text(), &salt), "ssh-ed25519", seed);
        for text in [plain, hashed] {
            prop_assert_eq!(check(&text, &name, port, seed), Verdict::Known);
            let changed = check(&text, &name, port, seed.wrapping_add(1));
            prop_assert!(matches!(changed, Verdict::Changed(_)));
            let other = check(&text, &format!("{name}x"), port, seed);
            prop_assert_eq!(other, Verdict::Unknown);
        }
    }

    #[test]
    fn adding_lines_never_turns_known_into_unknown(seeds in proptest::collection::vec(any::<u8>(), 1..8)) {
        let mut text = String::new();
        for s in &seeds {
            text.push_str(&line("", "n1", "ssh-ed25519", *s));
        }
        for s in &seeds {
            prop_assert_eq!(check(&text, "n1", 22, *s), Verdict::Known);
        }
    }
}
