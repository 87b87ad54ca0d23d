//! The client against the embedded server: the whole way, and each fault at its stage.

use super::*;
use crate::keys::KeyPair;
use crate::server::tests::{Scratch, scratch};
use crate::server::{Faults, Server, ServerOptions};
use rmpi_types::spec::{HostKeys, Reach};
use rmpi_types::{LaunchFault, Stage};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A folder with a user's key, a host's key, a configuration and known hosts.
struct Fixture {
    dir: Scratch,
    user: KeyPair,
    host: KeyPair,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let dir = scratch(name);
        let (user, host) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        user.write(&dir.join("id"), "me").unwrap();
        Self { dir, user, host }
    }

    fn options(&self) -> ServerOptions {
        ServerOptions::new(self.host.clone()).authorize(&self.user)
    }

    async fn serve(&self, options: ServerOptions) -> Server {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
        self.know(&server, &self.host);
        server
    }

    fn know(&self, server: &Server, key: &KeyPair) {
        let host = crate::known_hosts::HostName::new("127.0.0.1", server.addr().port());
        crate::known_hosts::append(&self.dir.join("known_hosts"), &host, &key.public_line(), false).unwrap();
    }

    fn reach(&self) -> Reach {
        let d = self.dir.display();
        let config = self.dir.join("config");
        if !config.exists() {
            let text = format!(
                "IdentityFile {d}/id\nUserKnownHostsFile {d}/known_hosts\nGlobalKnownHostsFile none\nIdentityAgent none\n"
            );
            std::fs::write(&config, text).unwrap();
        }
        Reach { ssh_config: Some(config), connect_timeout: Duration::from_secs(60), ..Reach::default() }
    }

    fn with_config(&self, text: &str) -> Reach {
        std::fs::write(self.dir.join("config"), text).unwrap();
        self.reach()
    }
}

fn target(server: &Server) -> Target {
    Target { host: "127.0.0.1".into(), user: Some("tester".into()), port: Some(server.addr().port()) }
}

async fn connect(reach: &Reach, server: &Server) -> Result<Session, LaunchFault> {
    Connector::new(reach, None).connect(&target(server), &|_| {}).await
}

async fn fault(reach: &Reach, server: &Server) -> LaunchFault {
    connect(reach, server).await.expect_err("must not connect")
}

/// Runs a command with `input` and returns both outputs and the end.
async fn run(session: &Session, command: &str, input: &[u8]) -> (Vec<u8>, String, ExitStatus) {
    let mut p = session.exec(command).await.unwrap();
    let (mut out, mut err) = (Vec::new(), String::new());
    let feed = async {
        let _ = p.stdin.write_all(input).await;
        let _ = p.stdin.shutdown().await;
    };
    let (_, o, e, exit) =
        tokio::join!(feed, p.stdout.read_to_end(&mut out), p.stderr.read_to_string(&mut err), p.exit);
    o.unwrap();
    e.unwrap();
    (out, err, exit)
}

#[tokio::test]
async fn a_command_has_three_streams_and_an_end() {
    let f = Fixture::new("exec");
    let mut options = f.options();
    options.node_id = Some("n-7".into());
    let server = f.serve(options).await;
    let stages = Arc::new(Mutex::new(Vec::new()));
    let seen = stages.clone();
    let session = Connector::new(&f.reach(), None)
        .connect(&target(&server), &move |s| seen.lock().unwrap().push(s))
        .await
        .unwrap();
    assert_eq!(*stages.lock().unwrap(), [Stage::Name, Stage::Tcp, Stage::Ssh, Stage::Auth]);
    assert_eq!(session.peer_ip(), Some("127.0.0.1".parse().unwrap()));
    let command = "read line; echo \"$line $RMPI_NODE_ID $USER\"; echo oops >&2; exit 7";
    let (out, err, exit) = run(&session, command, b"hello\n").await;
    assert_eq!(String::from_utf8(out).unwrap(), "hello n-7 tester\n");
    assert_eq!((err.as_str(), exit), ("oops\n", ExitStatus::Code(7)));
    let (_, _, exit) = run(&session, "kill -TERM $$", b"").await;
    assert_eq!(exit, ExitStatus::Signal("TERM".into()));
    session.close().await;
    assert!(session.exec("true").await.is_err());
}

#[tokio::test]
async fn bytes_pass_unharmed_both_ways_at_once() {
    let f = Fixture::new("bytes");
    let server = f.serve(f.options()).await;
    let session = connect(&f.reach(), &server).await.unwrap();
    let data: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (out, _, exit) = run(&session, "cat", &data).await;
    assert!(out == data, "{} of {} bytes, or others", out.len(), data.len());
    assert_eq!(exit, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let f = Fixture::new("slow");
    let server = f.serve(f.options()).await;
    let session = connect(&f.reach(), &server).await.unwrap();
    // Says on stderr's file how much it could write; far more than all buffers on the way together.
    let count = f.dir.join("count");
    let command = format!(
        "i=0; while [ $i -lt 64 ]; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i > {}; done",
        count.display()
    );
    let mut p = session.exec(&command).await.unwrap();
    // The writer is stuck once the count no longer moves.
    let written =
        || std::fs::read_to_string(&count).ok().and_then(|t| t.trim().parse::<u32>().ok()).unwrap_or(0);
    let mut last = (0, tokio::time::Instant::now());
    while last.1.elapsed() < Duration::from_millis(700) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if written() != last.0 {
            last = (written(), tokio::time::Instant::now());
        }
    }
    assert!(last.0 < 32, "{} MB were taken from a writer nobody read", last.0);
    let mut all = Vec::new();
    p.stdout.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 64_000_000);
}

#[tokio::test]
async fn host_keys_unknown_changed_revoked() {
    let f = Fixture::new("hostkeys");
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), f.options()).await.unwrap();
    let print = f.host.fingerprint();
    let unknown = fault(&f.reach(), &server).await;
    assert_eq!(unknown.what, format!("host key not in known_hosts: ssh-ed25519 {print}"));
    assert_eq!(unknown.id(), "E-SSH-HOSTKEY", "the name goes by the text");
    assert_eq!(unknown.hint.as_deref(), Some("accept once with --host-keys accept-new"));
    assert_eq!((unknown.stage, unknown.retry), (Stage::Ssh, false));
    let accept = Reach { host_keys: Some(HostKeys::AcceptNew), ..f.reach() };
    connect(&accept, &server).await.unwrap();
    connect(&f.reach(), &server).await.expect("strict, now that it is known");
    let known = std::fs::read_to_string(f.dir.join("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 1);
    // Another key: refused by accept-new too, let through by off alone.
    std::fs::remove_file(f.dir.join("known_hosts")).unwrap();
    f.know(&server, &f.user);
    for reach in [f.reach(), accept.clone()] {
        let changed = fault(&reach, &server).await;
        let place = format!("{}/known_hosts:1", f.dir.display());
        assert!(changed.what.contains(&format!("{print} is not the key of {place}")), "{changed}");
    }
    let off = Reach { host_keys: Some(HostKeys::Off), ..f.reach() };
    connect(&off, &server).await.unwrap();
    std::fs::write(f.dir.join("known_hosts"), format!("@revoked * {}\n", f.host.public_line())).unwrap();
    for reach in [accept, off] {
        let revoked = fault(&reach, &server).await;
        assert!(revoked.what.contains("revoked by") && revoked.what.contains("known_hosts:1"), "{revoked}");
    }
}

#[tokio::test]
async fn keys_that_do_not_fit_are_listed() {
    let f = Fixture::new("auth");
    let server = f.serve(ServerOptions::new(f.host.clone())).await;
    let refused = fault(&f.reach(), &server).await;
    assert_eq!((refused.stage, refused.retry), (Stage::Auth, false));
    let tried = format!("tried publickey: ssh-ed25519 {} from {}/id", f.user.fingerprint(), f.dir.display());
    assert!(refused.what.contains(&tried) && refused.what.contains("user tester"), "{refused}");
    let none = Reach {
        identities: vec![f.dir.join("missing")],
        ..f.with_config(&format!("UserKnownHostsFile {}/known_hosts\nIdentityAgent none\n", f.dir.display()))
    };
    let no_key = fault(&none, &server).await;
    assert!(
        no_key.what.contains("no usable key") && no_key.what.contains("missing does not exist"),
        "{no_key}"
    );
}

#[tokio::test]
async fn faults_name_their_stage() {
    let f = Fixture::new("stages");
    let short = Reach { connect_timeout: Duration::from_millis(400), ..f.reach() };
    let with = |faults: Faults| ServerOptions { faults, ..f.options() };
    let stalled = f.serve(with(Faults { stall_in_kex: true, ..Faults::default() })).await;
    let e = fault(&short, &stalled).await;
    assert_eq!((e.stage, e.retry), (Stage::Ssh, true));
    assert!(e.what.contains("no key exchange within"), "{e}");
    let busy = f.serve(with(Faults { drop_before_banner: 1, ..Faults::default() })).await;
    let e = fault(&f.reach(), &busy).await;
    assert_eq!((e.stage, e.retry), (Stage::Ssh, true), "{e}");
    connect(&f.reach(), &busy).await.expect("the second attempt gets through");
    let slow = f.serve(with(Faults { auth_delay: Duration::from_secs(300), ..Faults::default() })).await;
    // Long enough for the exchange of keys on a slow machine.
    let patient = Reach { connect_timeout: Duration::from_secs(4), ..f.reach() };
    let e = fault(&patient, &slow).await;
    assert_eq!((e.stage, e.retry), (Stage::Auth, true), "{e}");
    let no_exec = f.serve(with(Faults { refuse_exec: true, ..Faults::default() })).await;
    let e = connect(&f.reach(), &no_exec).await.unwrap().exec("true").await.unwrap_err();
    assert_eq!((e.stage, e.what.as_str()), (Stage::Shell, "the host refused to run a command"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let t = Target { host: "127.0.0.1".into(), port: Some(port), user: None };
    let c = Connector::new(&f.reach(), None);
    let e = c.connect(&t, &|_| {}).await.unwrap_err();
    assert_eq!(e.stage, Stage::Tcp);
    assert!(e.what.starts_with("connection refused") && e.retry, "{e}");
    let t = Target { host: "no-such-host.invalid".into(), ..Target::default() };
    let e = c.connect(&t, &|_| {}).await.unwrap_err();
    assert_eq!((e.stage, e.retry), (Stage::Name, true));
    assert!(e.what.starts_with("name not known: no-such-host.invalid"), "{e}");
}

#[tokio::test]
async fn a_cut_connection_ends_reading_and_writing() {
    let f = Fixture::new("cut");
    let faults = Faults { drop_after: Some(100_000), ..Faults::default() };
    let server = f.serve(ServerOptions { faults, ..f.options() }).await;
    let session = connect(&f.reach(), &server).await.unwrap();
    let mut p = session.exec("cat").await.unwrap();
    let writing = tokio::spawn(async move {
        let chunk = vec![1u8; 1 << 16];
        while p.stdin.write_all(&chunk).await.is_ok() {}
    });
    let mut out = Vec::new();
    p.stdout.read_to_end(&mut out).await.unwrap();
    assert!(out.len() <= 100_000, "{}", out.len());
    assert!(matches!(p.exit.await, ExitStatus::Lost(_)));
    tokio::time::timeout(Duration::from_secs(60), writing).await.expect("writing ends too").unwrap();
    assert!(session.is_closed());
}

#[tokio::test]
async fn dropping_everything_closes_the_commands_pipes() {
    let f = Fixture::new("drop");
    let server = f.serve(f.options()).await;
    let session = connect(&f.reach(), &server).await.unwrap();
    let mark = f.dir.join("ended");
    let mut p =
        session.exec(&format!("echo up; cat > /dev/null; echo done > {}", mark.display())).await.unwrap();
    let mut line = [0u8; 3];
    p.stdout.read_exact(&mut line).await.unwrap();
    drop(p);
    drop(session);
    for _ in 0..500 {
        if mark.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the command did not see the end of its input");
}

#[tokio::test]
async fn through_jump_hosts_and_proxy_commands() {
    let f = Fixture::new("jump");
    let gate = f.serve(ServerOptions { forward: true, ..f.options() }).await;
    let inner = f.serve(f.options()).await;
    let d = f.dir.display();
    let base =
        format!("IdentityFile {d}/id\nUserKnownHostsFile {d}/known_hosts\nIdentityAgent none\nUser u\n");
    let reach = f.with_config(&format!(
        "Match originalhost hidden\n HostName 127.0.0.1\n Port {}\n ProxyJump a@127.0.0.1:{gate},127.0.0.1:{gate}\nMatch all\n{base}",
        inner.addr().port(),
        gate = gate.addr().port(),
    ));
    let connector = Arc::new(Connector::new(&reach, None));
    let hidden = Target { host: "hidden".into(), ..Target::default() };
    let (one, two) = tokio::join!(connector.connect(&hidden, &|_| {}), connector.connect(&hidden, &|_| {}));
    for session in [one.unwrap(), two.unwrap()] {
        assert_eq!(session.peer_ip(), None);
        assert_eq!(run(&session, "echo $USER", b"").await.0, b"u\n");
    }
    let no_forward = format!("ProxyJump 127.0.0.1:{}\n{base}", inner.addr().port());
    let e = fault(&f.with_config(&no_forward), &inner).await;
    assert!(e.what.contains("in a circle"), "{e}");
    let no_forward = format!(
        "Match originalhost hidden\n HostName 127.0.0.1\n ProxyJump 127.0.0.1:{}\nMatch all\n{base}",
        inner.addr().port()
    );
    let e = Connector::new(&f.with_config(&no_forward), None).connect(&hidden, &|_| {}).await.unwrap_err();
    assert!(e.what.contains("does not allow forwarding to 127.0.0.1:22") && !e.retry, "{e}");
    if Path::new("/usr/bin/nc").exists() {
        let by_command = format!("ProxyCommand /usr/bin/nc %h %p\n{base}");
        let session = connect(&f.with_config(&by_command), &inner).await.unwrap();
        assert_eq!(run(&session, "echo hi", b"").await.0, b"hi\n");
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_for_once() {
    use russh::keys::ssh_key::LineEnding;
    let f = Fixture::new("locked");
    let server = f.serve(f.options()).await;
    let locked = f.user.0.encrypt(&mut russh::keys::key::safe_rng(), "secret").unwrap();
    std::fs::write(f.dir.join("id"), locked.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let e = fault(&f.reach(), &server).await;
    assert!(e.what.contains("needs a passphrase and there is no terminal"), "{e}");
    assert!(e.hint.as_deref().is_some_and(|h| h.contains("ssh-add")), "{e}");
    let asked = Arc::new(Mutex::new(0u32));
    let count = asked.clone();
    let ask: crate::auth::Ask = Arc::new(move |_, attempt| {
        *count.lock().unwrap() += 1;
        Some(zeroize::Zeroizing::new(if attempt == 0 { "wrong" } else { "secret" }.to_owned()))
    });
    let connector = Connector::new(&f.reach(), Some(ask));
    let t = target(&server);
    let (a, b) = tokio::join!(connector.connect(&t, &|_| {}), connector.connect(&t, &|_| {}));
    a.unwrap();
    b.unwrap();
    assert_eq!(*asked.lock().unwrap(), 2, "one wrong, one right, for both connections");
}

#[tokio::test]
async fn a_hundred_connections_at_once() {
    let f = Fixture::new("many");
    let server = f.serve(f.options()).await;
    // Unoptimised cryptography for both ends on one thread: this is about number, not speed.
    let patient = Reach { connect_timeout: Duration::from_secs(60), ..f.reach() };
    let connector = Arc::new(Connector::new(&patient, None));
    let t = target(&server);
    let mut all = tokio::task::JoinSet::new();
    for i in 0..100 {
        let (connector, t) = (connector.clone(), t.clone());
        all.spawn(async move {
            let session = connector.connect(&t, &|_| {}).await.unwrap();
            let (out, _, _) = run(&session, &format!("echo {i}"), b"").await;
            assert_eq!(String::from_utf8(out).unwrap(), format!("{i}\n"));
            session
        });
    }
    assert_eq!(all.join_all().await.len(), 100);
}

#[test]
fn targets_are_parsed() {
    let t = |h: &str, u: Option<&str>, port| Target { host: h.into(), user: u.map(str::to_owned), port };
    for (text, want) in [
        ("n1", t("n1", None, None)),
        ("u@n1:22", t("n1", Some("u"), Some(22))),
        ("u@x@n1", t("n1", Some("u@x"), None)),
        ("ssh://n1:2222", t("n1", None, Some(2222))),
        ("[fe80::1]:22", t("fe80::1", None, Some(22))),
        ("fe80::1", t("fe80::1", None, None)),
    ] {
        assert_eq!(Target::parse(text), Ok(want), "{text}");
    }
    for bad in ["", "@n1", "n1:", "n1:0", "n1:99999", "-oProxyCommand=x", "a b", "[::1", "$(x)@n1", "u@-x"] {
        assert!(Target::parse(bad).is_err(), "{bad}");
    }
}
