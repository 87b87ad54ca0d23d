//! Over SSH: loopback hosts with the embedded server, good ones and ones that fail each in its own way.

mod common;

use common::{rmpirun, run};
use rmpi_ssh::{Faults, KeyPair, Server, ServerOptions};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use tokio::runtime::Runtime;

/// Hosts `127.0.0.2` and up, each a node of its own, and the files a client needs to reach them.
struct Cluster {
    dir: PathBuf,
    runtime: Runtime,
    key: KeyPair,
    servers: Vec<Server>,
    hostfile: String,
    config: String,
    known: String,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rmpirun-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        key.write(&dir.join("id"), "test").expect("the key is written");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (hostfile, config, known) = (String::new(), String::new(), String::new());
        Self { dir, runtime, key, servers: Vec::new(), hostfile, config, known }
    }

    fn address(&self) -> Ipv4Addr {
        let n = u8::try_from(self.hostfile.lines().count()).expect("few hosts");
        Ipv4Addr::new(127, 0, 0, n + 2)
    }

    fn list(&mut self, address: Ipv4Addr, port: u16, slots: u32) {
        let _ = writeln!(self.hostfile, "{address} slots={slots}");
        let _ = writeln!(self.config, "Host {address}\n  Port {port}");
    }

    /// Adds a host that misbehaves so; its key is known unless told otherwise.
    fn host(&mut self, slots: u32, faults: Faults, known: bool) -> Ipv4Addr {
        let address = self.address();
        let host_key = KeyPair::generate().expect("a key");
        let public = host_key.public_line();
        let mut options = ServerOptions::new(host_key).authorize(&self.key);
        options.node_id = Some(format!("node-{address}"));
        options.env.push(("HOME".into(), self.dir.display().to_string()));
        options.faults = faults;
        let server = self.runtime.block_on(Server::bind(SocketAddr::from((address, 0)), options));
        let server = server.expect("the server binds");
        let port = server.addr().port();
        if known {
            let _ = writeln!(self.known, "[{address}]:{port} {public}");
        }
        self.list(address, port, slots);
        self.servers.push(server);
        address
    }

    /// Adds a host where nothing listens.
    fn refused(&mut self, slots: u32) -> Ipv4Addr {
        let address = self.address();
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        self.list(address, port, slots);
        address
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let known = write("known_hosts", &self.known);
        let id = self.dir.join("id").display().to_string();
        let common = format!(
            "{}Host *\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n  IdentityFile {id}\n  \
             IdentitiesOnly yes\n  StrictHostKeyChecking yes\n",
            self.config
        );
        let (hosts, config) = (write("hosts", &self.hostfile), write("config", &common));
        let mut command = rmpirun(["--hostfile", &hosts, "--ssh-config", &config]);
        command.args(args).env_remove("SSH_AUTH_SOCK");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn banner() -> Faults {
    Faults { banner_line: Some("Welcome to this machine, have a nice day".into()), ..Faults::default() }
}

#[test]
fn eight_ranks_on_four_hosts_one_of_which_prints_a_banner() {
    let mut cluster = Cluster::new("four");
    for i in 0..4 {
        cluster.host(2, if i == 2 { banner() } else { Faults::default() }, true);
    }
    let script = "echo $RANK $WORLD_SIZE $LOCAL_RANK $RMPIRUN_NODE_RANK $RMPIRUN_NNODES";
    let run = run(&mut cluster.command(&["-np", "8", "sh", "-c", script]));
    assert_eq!((run.code(), run.stderr.as_str()), (0, ""));
    let mut lines: Vec<String> = run.text().lines().map(str::to_owned).collect();
    lines.sort();
    let expected: Vec<String> = (0..8).map(|r| format!("{r} 8 {} {} 4", r % 2, r / 2)).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_failing_rank_on_another_host_is_named() {
    let mut cluster = Cluster::new("failing");
    cluster.host(2, Faults::default(), true);
    cluster.host(2, Faults::default(), true);
    let script = "[ $RANK = 2 ] && { echo bad luck >&2; exit 9; }; exec sleep 100";
    let run = run(&mut cluster.command(&["-np", "4", "sh", "-c", script]));
    assert_eq!(run.code(), 9, "{}", run.stderr);
    assert!(run.stderr.contains("rmpirun: rank 2 on 127.0.0.3 (pid "), "{}", run.stderr);
    assert!(run.stderr.contains("3 other ranks were stopped (3 by SIGTERM)"), "{}", run.stderr);
}

#[test]
fn a_missing_program_is_told_once_for_all_hosts() {
    let mut cluster = Cluster::new("missing");
    cluster.host(1, Faults::default(), true);
    cluster.host(1, Faults::default(), true);
    let run = run(&mut cluster.command(&["-np", "2", "nosuchprogram-x"]));
    assert_eq!(run.code(), 127, "{}", run.stderr);
    assert!(run.stderr.contains("not found") && run.stderr.contains("on 127.0.0.[2-3]"), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
}

#[test]
fn four_faults_are_one_table_before_the_deadline() {
    let mut cluster = Cluster::new("faults");
    cluster.host(2, Faults::default(), true);
    // The daemon is pushed before the time counts: an unoptimised one is large.
    assert_eq!(run(&mut cluster.command(&["-np", "1", "true"])).code(), 0);
    let unknown = cluster.host(2, Faults::default(), false);
    let stalled = cluster.host(2, Faults { stall_in_kex: true, ..Faults::default() }, true);
    let no_exec = cluster.host(2, Faults { refuse_exec: true, ..Faults::default() }, true);
    let refused = cluster.refused(2);
    let began = std::time::Instant::now();
    let run = run(&mut cluster.command(&["--launch-timeout", "12", "-np", "10", "touch", "/nonexistent/x"]));
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!(run.code(), 255, "{}", run.stderr);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[0], "rmpirun: 5 hosts, 4 could not be used; nothing was started", "{}", run.stderr);
    let row = |address: Ipv4Addr| {
        let found = lines.iter().find(|l| l.contains(&format!("  {address} ")));
        *found.unwrap_or_else(|| panic!("no row for {address}: {}", run.stderr))
    };
    assert!(row(Ipv4Addr::new(127, 0, 0, 2)).contains(" ok "), "{}", run.stderr);
    assert!(row(unknown).contains(" ssh ") && row(unknown).contains("not in known_hosts"), "{}", run.stderr);
    assert!(row(stalled).contains(" ssh "), "{}", run.stderr);
    assert!(row(no_exec).contains(" shell "), "{}", run.stderr);
    assert!(row(refused).contains(" tcp ") && row(refused).contains("refused"), "{}", run.stderr);
    assert_eq!(lines.len(), 7, "{}", run.stderr);
    assert!(lines[6].starts_with("rmpirun: exit code 255 "), "{}", run.stderr);
}

#[test]
fn enough_hosts_are_enough() {
    let mut cluster = Cluster::new("enough");
    // The ranks would fit on the first host, which cannot be used.
    cluster.host(2, Faults::default(), false);
    cluster.host(2, Faults::default(), true);
    let args = ["--min-hosts", "1", "-np", "2", "sh", "-c", "echo $RANK"];
    let run = run(&mut cluster.command(&args));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert!(run.stderr.starts_with("rmpirun: note: going on without "), "{}", run.stderr);
    assert_eq!(run.text().lines().count(), 2);
}

/// The agent runs the command on this machine: what it is given and what it says when it fails.
#[test]
fn an_agent_command_reaches_hosts_too() {
    let agent = "#!/bin/sh\ncase $1 in bad*) echo no way to $1 >&2; exit 3;; esac\n\
                 RMPI_NODE_ID=$1 exec sh -c \"$2\"\n";
    let path = std::env::temp_dir().join(format!("rmpirun-agent-{}", std::process::id()));
    std::fs::write(&path, agent).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let agent = path.display().to_string();
    let args = |hosts: &'static str| {
        ["--launch-exec", &agent, "--host", hosts, "-np", "2", "sh", "-c", "echo $RMPIRUN_NNODES"]
            .map(str::to_owned)
    };
    let good = run(&mut rmpirun(args("a,b")));
    assert_eq!((good.code(), good.text().as_str(), good.stderr.as_str()), (0, "2\n2\n", ""));
    let bad = run(&mut rmpirun(args("a,bad1")));
    assert_eq!(bad.code(), 255, "{}", bad.stderr);
    assert!(bad.stderr.contains("no way to bad1"), "{}", bad.stderr);
    std::fs::remove_file(&path).unwrap();
}
