//! The parser against a table and, where OpenSSH is installed, against `ssh -G` on generated files.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::fmt::Write as _;

fn query(host: &str) -> Query {
    Query {
        host: host.into(),
        local_user: "me".into(),
        home: "/home/me".into(),
        local_host: "here".into(),
        ..Query::default()
    }
}

fn resolve_with(
    files: &[(&str, &str)],
    options: &[(&str, &str)],
    q: &Query,
) -> Result<HostConfig, ConfigError> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    let sources = Sources {
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        user_file: Some("/home/me/.ssh/config".into()),
        user_required: true,
        system_file: Some("/etc/ssh/ssh_config".into()),
    };
    let read = |p: &Path| p.to_str().and_then(|p| files.get(p)).map(|t| Ok((*t).to_owned()));
    let expand = |pattern: &str| {
        let mut found: Vec<PathBuf> =
            files.keys().filter(|f| crate::glob::matches(pattern, f)).map(PathBuf::from).collect();
        found.sort();
        found
    };
    finish(&walk(&sources, q, &read, &expand)?, q, &|n| (n == "KEYS").then(|| "/keys".into()))
}

fn one(text: &str, host: &str) -> HostConfig {
    resolve_with(&[("/home/me/.ssh/config", text)], &[], &query(host)).unwrap()
}

const SAMPLE: &str = "
User=early
IdentityFile \"~/.ssh/key one\"
Host n1 *.cluster !bad.cluster
\tHostName %h.example
\tPort\t2222
\tIdentityFile ${KEYS}/%n-%r
\tProxyJump jump@gate:2200,second
\tUserKnownHostsFile ~/kh1 ~/kh2
\tStrictHostKeyChecking accept-new
\tServerAliveInterval 1m30s
\tForwardX11 yes
Match host *.example originalhost n1
  HostKeyAlias alias
Match exec \"touch /tmp/never\"
  Port 1
Match !user early
  Port 2
Host *
  Port 2
  User late
  AddressFamily inet
";

#[test]
fn a_file_with_everything() {
    let c = one(SAMPLE, "n1");
    assert_eq!((c.hostname.as_str(), c.port, c.user.as_str()), ("n1.example", 2222, "early"));
    assert_eq!(c.identities, [PathBuf::from("/home/me/.ssh/key one"), "/keys/n1-early".into()]);
    assert_eq!(c.proxy, Proxy::Jump(vec!["jump@gate:2200".into(), "second".into()]));
    assert_eq!(c.user_known_hosts, [PathBuf::from("/home/me/kh1"), "/home/me/kh2".into()]);
    assert_eq!(c.host_keys, Some(HostKeys::AcceptNew));
    assert_eq!(c.alive_interval, Some(Duration::from_secs(90)));
    assert_eq!(c.host_key_alias.as_deref(), Some("alias"));
    assert_eq!(c.family, Family::Inet);
    assert_eq!(c.notes, ["Match exec is taken as not matching", "option forwardx11 has no effect"]);
    let bad = one(SAMPLE, "bad.cluster");
    assert_eq!((bad.port, bad.hostname.as_str(), bad.proxy), (2, "bad.cluster", Proxy::None));
}

#[test]
fn what_is_given_beside_the_files_comes_first() {
    let mut q = query("n1");
    q.user = Some("given".into());
    q.port = Some(7);
    let options = [("HostKeyAlias", "mine"), ("hostkeyalias", "second"), ("ProxyJump", "none")];
    let c = resolve_with(&[("/home/me/.ssh/config", SAMPLE)], &options, &q).unwrap();
    assert_eq!((c.port, c.user.as_str(), c.host_key_alias.as_deref()), (7, "given", Some("mine")));
    assert_eq!(c.proxy, Proxy::None);
}

#[test]
fn the_first_way_to_a_host_wins() {
    let text = "Host a\nProxyCommand none\nHost b\nProxyJump none\nHost c\nProxyCommand nc %h %p\nHost *\nProxyJump gate\nProxyCommand x\n";
    assert_eq!(one(text, "a").proxy, Proxy::None);
    assert_eq!(one(text, "b").proxy, Proxy::None);
    assert_eq!(one(text, "c").proxy, Proxy::Command("nc c 22".into()));
    assert_eq!(one(text, "d").proxy, Proxy::Jump(vec!["gate".into()]));
}

#[test]
fn includes_and_final_passes() {
    let files = [
        ("/home/me/.ssh/config", "Include conf.d/*\nMatch final host n1.real\n Port 9\n"),
        ("/home/me/.ssh/conf.d/a", "Host other\nPort 1\n"),
        ("/home/me/.ssh/conf.d/b", "HostName n1.real\n"),
        ("/etc/ssh/ssh_config", "User sys\n"),
    ];
    let c = resolve_with(&files, &[], &query("n1")).unwrap();
    assert_eq!((c.hostname.as_str(), c.port, c.user.as_str()), ("n1.real", 9, "sys"));
    let endless = [("/home/me/.ssh/config", "Include config\n")];
    let e = resolve_with(&endless, &[], &query("n1")).unwrap_err();
    assert!(e.to_string().contains("too deep"), "{e}");
}

#[test]
fn nonsense_is_an_error_with_its_place() {
    for (text, want) in [
        ("User a\nPort x\n", "Port \"x\" is not a port"),
        ("User a\nPort 0\n", "is not a port"),
        ("User \"a\n", "config:1: a quote is not closed"),
        ("\nUser\n", "config:2: user has no value"),
        ("Match host\n", "config:1: Match host has no value"),
        ("Match moon full\n", "Match moon is not known"),
        ("HostName %z\n", "token %z"),
        ("IdentityFile ~bob/k\n", "only ~/"),
        ("StrictHostKeyChecking maybe\n", "StrictHostKeyChecking"),
        ("ConnectTimeout 5x\n", "ConnectTimeout \"5x\" is not a time"),
    ] {
        let e = resolve_with(&[("/home/me/.ssh/config", text)], &[], &query("n1")).unwrap_err();
        assert!(e.to_string().contains(want), "{text:?}: {e}");
    }
    let missing = resolve_with(&[], &[], &query("n1")).unwrap_err();
    assert!(missing.to_string().contains("/home/me/.ssh/config"), "{missing}");
}

/// What `ssh -G` says, by key; `None` without ssh.
fn oracle(file: &Path, host: &str) -> Option<HashMap<String, Vec<String>>> {
    let out = std::process::Command::new("ssh").args(["-F"]).arg(file).args(["-G", host]).output().ok()?;
    assert!(out.status.success(), "ssh -G: {}", String::from_utf8_lossy(&out.stderr));
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        if let Some((k, v)) = line.split_once(' ') {
            all.entry(k.into()).or_default().push(v.into());
        }
    }
    Some(all)
}

fn compare(ours: &Raw, q: &Query, theirs: &HashMap<String, Vec<String>>, text: &str) {
    let config = finish(ours, q, &|_| None).unwrap();
    let they = |k: &str| theirs.get(k).map(|v| v.join(" ")).unwrap_or_default();
    assert_eq!(config.hostname, they("hostname"), "hostname {}\n{text}", q.host);
    assert_eq!(config.port.to_string(), they("port"), "port {}\n{text}", q.host);
    assert_eq!(config.user, they("user"), "user {}\n{text}", q.host);
    let raw = |k: &str| {
        let all = ours.values.get(k).into_iter().flatten().flatten().cloned();
        all.collect::<Vec<_>>().join(" ")
    };
    for key in ["identityfile", "userknownhostsfile", "proxyjump", "hostkeyalias"] {
        if !raw(key).is_empty() {
            assert_eq!(raw(key), they(key), "{key} {}\n{text}", q.host);
        }
    }
    let alive = config.alive_interval.unwrap_or_default().as_secs().to_string();
    assert_eq!(alive, they("serveraliveinterval"), "{text}");
}

/// Lines of a configuration made from a small alphabet in which names collide often.
fn any_config() -> impl Strategy<Value = String> {
    let pattern = prop::sample::select(vec!["n1", "n2", "n*", "*", "!n1", "?2", "n1.real"]);
    let value = (0usize..8, 1u16..999, any::<bool>()).prop_map(|(kind, n, eq)| {
        let sep = if eq { "=" } else { "\t " };
        match kind {
            0 => format!("Port{sep}{n}"),
            1 => format!("User{sep}\"u {n}\""),
            2 => format!("HostName{sep}n{}.real", n % 3),
            3 => format!("IdentityFile{sep}/k/{} # why", n % 4),
            4 => format!("UserKnownHostsFile{sep}/kh/{n} /kh/b"),
            5 => format!("ProxyJump{sep}u@j{n}:22{}", n % 10),
            6 => format!("ServerAliveInterval{sep}{n}s"),
            _ => format!("hostkeyalias{sep}a{n}"),
        }
    });
    let head = (0usize..6, prop::collection::vec(pattern, 1..3)).prop_map(|(kind, p)| match kind {
        0..=2 => format!("Host {}", p.join(" ")),
        3 => format!("Match host {}", p.join(",")),
        4 => format!("Match originalhost \"{}\" !user nobody", p.join(",")),
        _ => format!("Match final host {}", p.join(",")),
    });
    let line = prop_oneof![3 => value, 1 => head];
    prop::collection::vec(line, 1..14).prop_map(|l| l.join("\n"))
}

#[test]
fn agrees_with_openssh_on_generated_files() {
    use proptest::strategy::ValueTree as _;
    let dir = crate::server::tests::scratch("ssh-g");
    let file = dir.join("config");
    std::fs::write(&file, "").unwrap();
    let Some(defaults) = oracle(&file, "n1") else {
        eprintln!("skipped: ssh is not installed, nothing to compare the configuration parser with");
        return;
    };
    let me = defaults["user"][0].clone();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..60 {
        let text = any_config().new_tree(&mut runner).unwrap().current();
        std::fs::write(&file, &text).unwrap();
        for host in ["n1", "n2"] {
            let q = Query { local_user: me.clone(), ..query(host) };
            let sources = Sources { user_file: Some(file.clone()), ..Sources::default() };
            let read = |p: &Path| Some(std::fs::read_to_string(p));
            let ours = walk(&sources, &q, &read, &file::expand_on_disk).unwrap();
            compare(&ours, &q, &oracle(&file, host).unwrap(), &text);
        }
    }
}

#[test]
fn globs_on_disk() {
    let dir = crate::server::tests::scratch("include");
    for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    let found = file::expand_on_disk(&format!("{}/*.conf", dir.display()));
    assert_eq!(found, [dir.join("a.conf"), dir.join("b.conf")]);
}

proptest! {
    #[test]
    fn hostile_text_never_panics(text in "[ \t=\"'\\\\#*%!a-zA-Z0-9\n]{0,300}", option in "[ -~]{0,30}") {
        let mut q = query("n1");
        q.host.push_str(&option);
        let _ = resolve_with(&[("/home/me/.ssh/config", &text)], &[("User", &option)], &q);
    }

    #[test]
    fn the_first_value_wins(ports in prop::collection::vec(1u16.., 1..6)) {
        let text = ports.iter().fold(String::new(), |mut t, p| {
            let _ = writeln!(t, "Port {p}");
            t
        });
        prop_assert_eq!(one(&text, "n1").port, ports[0]);
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let error = read_file(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "larger than 1 MiB");
}
