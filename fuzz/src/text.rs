//! Text from outside: host files and lists, rank files, command lines, ssh configuration, known hosts.

use crate::Input;
use rmpi_cli::{Command, Parsed, Sources};
use rmpi_plan::hosts::{HostDialect, ParsedHosts, combine, parse_host_list, parse_hostfile, read_hostfile};
use rmpi_plan::{HostsError, NodeFacts, place, rankfile};
use rmpi_ssh::config::{self, Query};
use rmpi_ssh::known_hosts::{self, HostName, KnownHosts, Verdict};
use rmpi_types::spec::{EnvMap, Slots};
use rmpi_types::{Topology, cpus::Cpu};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Longest message about bad text, in bytes: it goes to a terminal.
const MAX_MESSAGE: usize = 8 << 10;

/// A message can be printed: of bearable length, and without the control characters of what it quotes.
#[track_caller]
fn printable(message: &str) {
    assert!(message.len() <= MAX_MESSAGE, "a message of {} bytes", message.len());
    let bad = message.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "control character in {message:?}");
}

fn fails(error: &HostsError) {
    printable(&error.to_string());
    printable(&error.pointer().unwrap_or_default());
}

fn sound(hosts: &ParsedHosts) {
    assert!(!hosts.hosts.is_empty());
    assert!(hosts.listed.iter().all(|&i| i < hosts.hosts.len()));
    assert_eq!(hosts.listed.len(), hosts.listed_slots.len());
    assert!(hosts.hosts.iter().all(|h| !h.name.is_empty()));
    assert!(hosts.places(100).len() <= 100);
    hosts.notes.iter().for_each(|n| printable(n));
}

fn dialect(byte: u8) -> HostDialect {
    [HostDialect::Default, HostDialect::Hydra, HostDialect::Horovod][usize::from(byte % 3)]
}

/// First byte: dialect. The rest: a host file.
pub fn hostfile(data: &[u8]) {
    let mut input = Input::new(data);
    let (dialect, text) = (dialect(input.u8()), input.rest());
    if let Err(e) = read_hostfile(text, "hosts", dialect) {
        fails(&e);
    }
    match parse_hostfile(text, "hosts", dialect) {
        Ok(hosts) => sound(&hosts),
        Err(e) => fails(&e),
    }
}

/// First byte: dialect. The rest: a list as `--host` takes it, alone and as a filter of a pool.
pub fn hostlist(data: &[u8]) {
    let mut input = Input::new(data);
    let dialect = dialect(input.u8());
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let list = match parse_host_list(text, "--host", dialect) {
        Ok(list) => list,
        Err(e) => return fails(&e),
    };
    match list.clone().into_hosts() {
        Ok(hosts) => sound(&hosts),
        Err(e) => fails(&e),
    }
    let pool = pool();
    match combine(&pool, &list) {
        Ok(hosts) => sound(&hosts),
        Err(e) => fails(&e),
    }
}

fn pool() -> ParsedHosts {
    match parse_hostfile(b"n1 slots=2\nn2 slots=4 max_slots=8\nn3\nn1\n", "hosts", HostDialect::Default) {
        Ok(pool) => pool,
        Err(e) => panic!("{e}"),
    }
}

/// A rank file, against a pool and alone.
pub fn rankfile(data: &[u8]) {
    match rankfile::parse(data, "ranks", &pool().hosts) {
        Ok(entries) => assert!(entries.iter().zip(0..).all(|(e, rank)| e.rank.0 == rank && e.host < 3)),
        Err(e) => fails(&e),
    }
    match rankfile::hosts(data, "ranks") {
        Ok(hosts) => sound(&hosts),
        Err(e) => fails(&e),
    }
}

/// Understands the words of `line` (separated by newlines), with `file` behind every file name but `missing`.
fn understand(argv0: &str, env: &EnvMap, line: &[u8], file: &[u8]) -> Option<Command> {
    let words = line.split(|b| *b == b'\n').map(|w| OsString::from_vec(w.to_vec())).collect();
    // Configuration files are read unasked: they would hide what the named ones do.
    let absent = ["missing", "rmpirun.conf", "mca-params.conf"];
    let read_file = |path: &Path| {
        if absent.iter().any(|a| path.ends_with(a)) {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(file.to_vec())
        }
    };
    let read_stdin = || Ok(file.to_vec());
    let sources = Sources {
        env,
        read_file: &read_file,
        read_stdin: &read_stdin,
        run: &|_| Ok(file.to_vec()),
        have: &|_| true,
        cwd: "/w".into(),
        argv0: argv0.into(),
    };
    match rmpi_cli::parse(words, &sources) {
        Ok(Parsed::Run(command)) => {
            assert!(!command.settings().is_empty());
            Some(*command)
        }
        Ok(Parsed::Print { text }) => {
            assert!(text.ends_with('\n'));
            None
        }
        Err(e) => {
            assert!(!e.message.is_empty());
            None
        }
    }
}

/// First byte: our name. Then a piece: `NAME=VALUE` lines of the environment. Then a piece: the text behind
/// every file name. The rest: the words of the command line, one a line.
pub fn cmdline(data: &[u8]) {
    let mut input = Input::new(data);
    let argv0 = ["rmpirun", "mpirun", "mpiexec.hydra", "/x/horovodrun"][usize::from(input.u8() % 4)];
    let variables = input.text();
    let env = variables.split('\n').filter_map(|l| l.split_once('=')).map(|(n, v)| (n.into(), v.into()));
    let env: EnvMap = env.collect();
    let file = input.piece();
    if let Some(command) = understand(argv0, &env, input.rest(), file) {
        assert!(!command.job.apps.is_empty());
        assert!(command.job.apps.iter().all(|a| !a.program.is_empty()));
    }
}

/// First a topology as a daemon might report it, then a host file as a piece, then command line words: placed.
pub fn plan(data: &[u8]) {
    let mut input = Input::new(data);
    let cpus = (0..input.below(32)).map(|_| Cpu {
        os: input.number32(),
        core: input.number32(),
        package: input.number32(),
        numa: input.number32(),
        cache: [input.number32(), input.number32(), input.number32()],
    });
    let mut topology = Topology { cpus: cpus.collect(), ..Topology::default() };
    if input.u8() & 1 != 0 {
        topology.quota_milli = Some(input.u32());
    }
    let file = input.piece();
    let Some(mut command) = understand("rmpirun", &EnvMap::new(), input.rest(), file) else { return };
    // Big jobs are legal and slow; they are not what is looked for here.
    for app in &mut command.job.apps {
        app.np = app.np.map(|n| n.min(300));
    }
    for host in &mut command.job.hosts {
        host.slots = match host.slots {
            Slots::Count(n) => Slots::Count(n.min(300)),
            Slots::Auto => Slots::Auto,
        };
    }
    let hosts = command.job.hosts.len();
    let flat = |hosts| NodeFacts { hosts, local: false, topology: Topology::flat(4) };
    let mut nodes: Vec<NodeFacts> = (0..hosts.max(1)).map(|i| flat(vec![i])).collect();
    nodes[0].topology = topology;
    match place(&command.job, &nodes) {
        Ok(plan) => {
            assert!(!plan.ranks.is_empty());
            assert!(plan.ranks.iter().zip(0..).all(|(r, n)| r.rank.0 == n));
            assert!(plan.ranks.iter().all(|r| (r.node.0 as usize) < nodes.len()));
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

/// A piece: the file behind every `Include`. A piece: `-o` settings, one a line. The rest: the user's file.
/// Read for three hosts.
pub fn ssh_config(data: &[u8]) {
    let mut input = Input::new(data);
    let (included, options) = (input.text(), input.text());
    let user = String::from_utf8_lossy(input.rest()).into_owned();
    let options = options.lines().filter_map(|l| l.split_once('='));
    let sources = config::Sources {
        options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        user_file: Some("/home/me/.ssh/config".into()),
        user_required: true,
        system_file: None,
    };
    let read = |path: &Path| {
        Some(Ok(if path == Path::new("/home/me/.ssh/config") { user.clone() } else { included.clone() }))
    };
    let expand = |pattern: &str| vec![PathBuf::from(pattern)];
    let env = |name: &str| (name == "X").then(|| "x".to_owned());
    for host in ["n1", "10.0.0.1", "a.b.example"] {
        let query = Query {
            host: host.into(),
            local_user: "me".into(),
            home: "/home/me".into(),
            local_host: "here.example".into(),
            ..Query::default()
        };
        match config::resolve(&sources, &query, &read, &expand, &env) {
            Ok(config) => assert_ne!(config.port, 0),
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
}

/// A known_hosts file: asked for the keys it has and for one it has not.
pub fn known_hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (lines, bad) = known_hosts::parse(&text, Path::new("known_hosts"));
    let content = text.lines().filter(|l| !l.trim().is_empty() && !l.trim().starts_with('#')).count();
    assert_eq!(lines.len() + bad.len(), content);
    let mut known = KnownHosts::default();
    known.extend(lines.clone());
    for host in [HostName::new("n1", 22), HostName::new("N1", 2222), HostName::new("10.0.0.1", 22)] {
        for line in lines.iter().take(8) {
            let verdict = known.check(&host, &line.key_type, &line.blob);
            let revoked = known.revoked(&host, &line.blob).is_some();
            assert_eq!(matches!(verdict, Verdict::Revoked(_)), revoked);
            let _ = known.is_authority(&host, &line.blob);
        }
        assert_ne!(known.check(&host, "ssh-ed25519", b"not a key"), Verdict::Known);
        assert!(known.known_types(&host).len() <= lines.len());
        let _ = known.has_authority(&host);
    }
}
