//! The client against real OpenSSH: sshd on a loopback port as the user of the tests, ssh-agent, keys and
//! certificates of ssh-keygen. Skipped with a line where these are not installed.

use crate::server::tests::{Scratch, scratch};
use crate::{Connector, ExitStatus, Session, Target};
use rmpi_types::spec::{HostKeys, Reach};
use rmpi_types::{LaunchFault, Stage};
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd of our own and everything it needs; ends with the value.
struct Sshd {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn keygen(dir: &Path, words: &[&str]) {
    let done = Command::new("ssh-keygen")
        .args(["-q", "-a", "1"])
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(done.unwrap().success(), "ssh-keygen {words:?}");
}

/// A folder with a key of each kind; `None` where OpenSSH is missing.
fn folder(name: &str) -> Option<Scratch> {
    if !Path::new(SSHD).exists() || Command::new("ssh-keygen").arg("-?").output().is_err() {
        eprintln!("skipped: {SSHD} or ssh-keygen is not installed");
        return None;
    }
    let dir = scratch(&format!("openssh-{name}"));
    for (kind, file) in
        [("ed25519", "host_ed25519"), ("rsa", "host_rsa"), ("ed25519", "id"), ("ed25519", "ca")]
    {
        keygen(&dir, &["-t", kind, "-N", "", "-f", file]);
    }
    std::fs::copy(dir.join("id.pub"), dir.join("authorized")).unwrap();
    Some(dir)
}

impl Sshd {
    /// Starts sshd with further configuration lines; `None` where it will not run.
    fn start(dir: &Path, more: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let d = dir.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nHostKey {d}/host_ed25519\nHostKey {d}/host_rsa\nAuthorizedKeysFile {d}/authorized\n\
             TrustedUserCAKeys {d}/ca.pub\nLogLevel ERROR\n{more}\n"
        );
        let file = dir.join(format!("sshd_config.{port}"));
        std::fs::write(&file, config).unwrap();
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(dir.join("sshd.log")).unwrap();
        let child = Command::new(SSHD).args(["-D", "-e", "-f"]).arg(&file).stderr(log).spawn().unwrap();
        let mut sshd = Self { dir: dir.to_owned(), port, child };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if sshd.child.try_wait().unwrap().is_some() || Instant::now() > end {
                let why = std::fs::read_to_string(dir.join("sshd.log")).unwrap_or_default();
                eprintln!("skipped: sshd does not run here: {}", why.trim());
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(sshd)
    }

    /// Options that use nothing of this machine's user, with these configuration lines first.
    fn reach(&self, lines: &str) -> Reach {
        let d = self.dir.display();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let file = self.dir.join(format!("ssh_config.{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let rest = format!(
            "Host *\nPort {}\nUserKnownHostsFile {d}/known\nGlobalKnownHostsFile none\nIdentityAgent none\n\
             StrictHostKeyChecking accept-new\n",
            self.port
        );
        std::fs::write(&file, format!("Host *\n{lines}\n{rest}")).unwrap();
        Reach { ssh_config: Some(file), ..Reach::default() }
    }

    fn id(&self, file: &str) -> String {
        format!("IdentityFile {}/{file}\nIdentitiesOnly yes", self.dir.display())
    }
}

fn here() -> Target {
    Target { host: "127.0.0.1".into(), ..Target::default() }
}

async fn connect(reach: &Reach) -> Result<Session, LaunchFault> {
    Connector::new(reach, None).connect(&here(), &|_| {}).await
}

async fn says(session: &Session, command: &str) -> String {
    let mut process = session.exec(command).await.unwrap();
    let mut out = String::new();
    process.stdout.read_to_string(&mut out).await.unwrap();
    out
}

#[tokio::test]
async fn keys_of_every_kind_and_passphrases() {
    let Some(dir) = folder("kinds") else { return };
    let kinds: [(&str, &[&str]); 4] = [
        ("ed25519", &[]),
        ("ecdsa", &["-b", "384"]),
        ("rsa", &["-b", "2048"]),
        ("rsa", &["-b", "2048", "-m", "PEM"]),
    ];
    let mut authorized = String::new();
    let mut files = Vec::new();
    for (n, (kind, more)) in kinds.iter().enumerate() {
        for passphrase in ["", "secret"] {
            let file = format!("k{n}{passphrase}");
            keygen(&dir, &[&["-t", kind, "-N", passphrase, "-f", &file], *more].concat());
            authorized.push_str(&std::fs::read_to_string(dir.join(format!("{file}.pub"))).unwrap());
            files.push((file, passphrase));
        }
    }
    std::fs::write(dir.join("authorized"), authorized).unwrap();
    let Some(sshd) = Sshd::start(&dir, "") else { return };
    let ask: crate::auth::Ask = Arc::new(|_, _| Some(zeroize("secret")));
    for (file, passphrase) in &files {
        let reach = sshd.reach(&sshd.id(file));
        let connector = Connector::new(&reach, Some(ask.clone()));
        let session = connector.connect(&here(), &|_| {}).await.unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(says(&session, "echo in").await, "in\n", "{file}");
        if !passphrase.is_empty() {
            let fault = connect(&reach).await.unwrap_err();
            assert!(fault.what.contains("needs a passphrase and there is no terminal"), "{file}: {fault}");
        }
    }
}

fn zeroize(text: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(text.to_owned())
}

#[tokio::test]
async fn streams_and_ends_of_commands() {
    let Some(dir) = folder("streams") else { return };
    let Some(sshd) = Sshd::start(&dir, "") else { return };
    let session = connect(&sshd.reach(&sshd.id("id"))).await.unwrap();
    let mut process = session.exec("cat; echo end >&2; exit 3").await.unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let copy = data.clone();
    let mut stdin = process.stdin;
    let feed = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin
    });
    let (mut out, mut err) = (Vec::new(), String::new());
    process.stdout.read_to_end(&mut out).await.unwrap();
    process.stderr.read_to_string(&mut err).await.unwrap();
    assert!(out == data);
    assert_eq!((err.as_str(), process.exit.await), ("end\n", ExitStatus::Code(3)));
    drop(feed.await.unwrap());
    let killed = session.exec("kill -KILL $$").await.unwrap();
    assert_eq!(killed.exit.await, ExitStatus::Signal("KILL".into()));
}

#[tokio::test]
async fn the_agent_signs() {
    let Some(dir) = folder("agent") else { return };
    for (kind, file) in [("rsa", "agent_rsa"), ("ed25519", "other")] {
        keygen(&dir, &["-t", kind, "-N", "", "-f", file]);
    }
    std::fs::copy(dir.join("agent_rsa.pub"), dir.join("authorized")).unwrap();
    let Some(sshd) = Sshd::start(&dir, "") else { return };
    let socket = dir.join("agent.sock");
    let Ok(mut agent) =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn()
    else {
        eprintln!("skipped: ssh-agent is not installed");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60);
    while !socket.exists() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for file in ["other", "agent_rsa"] {
        let added =
            Command::new("ssh-add").arg("-q").arg(dir.join(file)).env("SSH_AUTH_SOCK", &socket).status();
        assert!(added.unwrap().success());
        std::fs::remove_file(dir.join(file)).unwrap();
    }
    let with = |more: &str| sshd.reach(&format!("IdentityAgent {}\n{more}", socket.display()));
    let all = connect(&with("")).await;
    // Only the key that was named, although its private half is in the agent alone.
    let named = connect(&with(&sshd.id("agent_rsa"))).await;
    let wrong = connect(&with(&sshd.id("other"))).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(says(&all.unwrap(), "echo in").await, "in\n");
    named.unwrap();
    let wrong = wrong.unwrap_err();
    assert!(wrong.what.contains("from the agent") && !wrong.what.contains("ssh-rsa"), "{wrong}");
    let gone = connect(&with("")).await.unwrap_err();
    assert!(gone.what.contains("agent at"), "{gone}");
}

#[tokio::test]
async fn certificates_of_users_and_hosts() {
    let Some(dir) = folder("certs") else { return };
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().map_or("root".into(), |u| u.name);
    keygen(&dir, &["-t", "ed25519", "-N", "", "-f", "cert_id"]);
    keygen(&dir, &["-s", "ca", "-I", "me", "-n", &me, "cert_id.pub"]);
    keygen(&dir, &["-s", "ca", "-I", "host", "-h", "-n", "127.0.0.1", "-V", "+1h", "host_ed25519.pub"]);
    let Some(sshd) = Sshd::start(&dir, &format!("HostCertificate {}/host_ed25519-cert.pub", dir.display()))
    else {
        return;
    };
    let ca = std::fs::read_to_string(dir.join("ca.pub")).unwrap();
    std::fs::write(dir.join("known"), format!("@cert-authority 127.0.0.* {ca}")).unwrap();
    let strict = |lines: &str| Reach { host_keys: Some(HostKeys::Strict), ..sshd.reach(lines) };
    let session = connect(&strict(&sshd.id("cert_id"))).await.unwrap();
    assert_eq!(says(&session, "echo in").await, "in\n");
    // Another name than the certificate's.
    let alias = strict(&format!("HostKeyAlias 127.0.0.9\n{}", sshd.id("cert_id")));
    let fault = connect(&alias).await.unwrap_err();
    assert_eq!(fault.what, "host certificate is for 127.0.0.1, not for 127.0.0.9");
    std::fs::write(dir.join("known"), format!("@cert-authority * {ca}@revoked * {ca}")).unwrap();
    let fault = connect(&strict(&sshd.id("cert_id"))).await.unwrap_err();
    assert!(fault.what.contains("revoked at") && fault.what.ends_with("known:2"), "{fault}");
}

#[tokio::test]
async fn known_hosts_as_openssh_writes_them() {
    let Some(dir) = folder("known") else { return };
    let Some(sshd) = Sshd::start(&dir, "") else { return };
    let strict = Reach { host_keys: Some(HostKeys::Strict), ..sshd.reach(&sshd.id("id")) };
    let fault = connect(&strict).await.unwrap_err();
    assert!(fault.what.starts_with("host key not in known_hosts: ssh-ed25519 SHA256:"), "{fault}");
    // Known by its RSA key alone, and hashed by ssh-keygen.
    let rsa = std::fs::read_to_string(dir.join("host_rsa.pub")).unwrap();
    std::fs::write(dir.join("known"), format!("[127.0.0.1]:{} {rsa}", sshd.port)).unwrap();
    keygen(&dir, &["-H", "-f", "known"]);
    assert!(!std::fs::read_to_string(dir.join("known")).unwrap().contains("127.0.0.1"));
    connect(&strict).await.expect("known by its RSA key");
    // What accept-new writes, ssh-keygen finds.
    std::fs::remove_file(dir.join("known")).unwrap();
    connect(&sshd.reach(&format!("HashKnownHosts yes\n{}", sshd.id("id")))).await.unwrap();
    let found = Command::new("ssh-keygen")
        .args(["-F", &format!("[127.0.0.1]:{}", sshd.port), "-f"])
        .arg(dir.join("known"))
        .output()
        .unwrap();
    assert!(found.status.success());
    std::fs::write(dir.join("known"), "").unwrap();
    let mut swapped = String::new();
    let _ =
        write!(swapped, "[127.0.0.1]:{} {}", sshd.port, std::fs::read_to_string(dir.join("id.pub")).unwrap());
    std::fs::write(dir.join("known"), swapped).unwrap();
    let fault = connect(&sshd.reach(&sshd.id("id"))).await.unwrap_err();
    assert!(fault.what.starts_with("host key changed: ssh-ed25519"), "{fault}");
    assert!(fault.what.ends_with("known:1"), "{fault}");
}

#[tokio::test]
async fn through_a_jump_host() {
    let Some(dir) = folder("jump") else { return };
    let Some(sshd) = Sshd::start(&dir, "") else { return };
    let reach = sshd.reach(&format!(
        "{}\nMatch originalhost inner\nHostName 127.0.0.1\nProxyJump 127.0.0.1:{}\nMatch all",
        sshd.id("id"),
        sshd.port
    ));
    let inner = Target { host: "inner".into(), ..Target::default() };
    let session = Connector::new(&reach, None).connect(&inner, &|_| {}).await.unwrap();
    assert_eq!(session.peer_ip(), None);
    assert_eq!(says(&session, "echo in").await, "in\n");
}

#[tokio::test]
async fn a_full_server_is_worth_another_attempt() {
    let Some(dir) = folder("busy") else { return };
    let Some(sshd) = Sshd::start(&dir, "MaxStartups 1") else { return };
    // A stranger who never speaks takes the only place.
    let mut stranger = tokio::net::TcpStream::connect(("127.0.0.1", sshd.port)).await.unwrap();
    let mut banner = [0u8; 4];
    stranger.read_exact(&mut banner).await.unwrap();
    let reach = sshd.reach(&sshd.id("id"));
    let fault = connect(&reach).await.unwrap_err();
    assert_eq!((fault.stage, fault.retry), (Stage::Ssh, true), "{fault}");
    drop(stranger);
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(e) = connect(&reach).await {
        assert!(e.retry && Instant::now() < end, "{e}");
    }
}
