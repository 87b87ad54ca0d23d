//! `cargo xtask demo`: the main job for real, on four loopback hosts with the embedded SSH server.

use crate::build;
use crate::stage::{self, say};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const HOSTS: usize = 4;

/// Builds, starts the hosts, prints the command line and runs it.
///
/// # Errors
/// A line saying which step failed.
pub(crate) fn run_in(bin: &Path, dir: &Path) -> Result<(), String> {
    let file = |name: &str| dir.join(name);
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for key in ["hostkey", "id"] {
        let _ = fs::remove_file(file(key));
        let _ = fs::remove_file(file(&format!("{key}.pub")));
        stage::run(&format!("make key {key}"), Command::new(bin.join("rmpi")).arg("keygen").arg(file(key)))?;
    }
    let (mut server, hosts) = serve(bin, dir)?;
    write_client_files(dir, &hosts)?;
    let mut job = Command::new(bin.join("rmpirun"));
    job.args(["-np", "8", "--hostfile"]).arg(file("hosts")).arg("--ssh-config").arg(file("ssh_config"));
    job.arg(bin.join("train"));
    let words: Vec<_> =
        std::iter::once(job.get_program()).chain(job.get_args()).map(|w| w.to_string_lossy()).collect();
    say(&format!("\nhosts ({}):", file("hosts").display()));
    say(&fs::read_to_string(file("hosts")).unwrap_or_default());
    say(&format!("\n$ {}\n", words.join(" ")));
    let result = stage::run("the job", &mut job);
    // The server ends when its standard input does.
    drop(server.stdin.take());
    let _ = server.wait();
    result
}

/// `cargo xtask demo`.
///
/// # Errors
/// As [`run_in`].
pub(crate) fn run() -> Result<(), String> {
    let bin = build::release()?;
    run_in(&bin, &stage::target().join("demo"))
}

/// Starts the embedded SSH server on 127.0.0.2.. with ports of the system's choice; returns `address:port`s.
fn serve(bin: &Path, dir: &Path) -> Result<(Child, Vec<String>), String> {
    let mut serve = Command::new(bin.join("rmpi"));
    serve.arg("serve").arg("--host-key").arg(dir.join("hostkey"));
    serve.arg("--authorized-keys").arg(dir.join("id.pub")).arg("--until-eof");
    for i in 0..HOSTS {
        serve.arg("--listen").arg(format!("127.0.0.{}:0", i + 2));
    }
    let mut server = serve
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("rmpi serve does not start: {e}"))?;
    let stderr = server.stderr.take().ok_or("rmpi serve has no stderr")?;
    let lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let hosts: Vec<String> =
        lines.filter_map(|l| l.strip_prefix("listening ").map(str::to_owned)).take(HOSTS).collect();
    if hosts.len() == HOSTS { Ok((server, hosts)) } else { Err("rmpi serve ended early".into()) }
}

fn write_client_files(dir: &Path, hosts: &[String]) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| format!("{name}: {e}"));
    let public = read("hostkey.pub")?;
    let key: Vec<&str> = public.split_whitespace().take(2).collect();
    let (mut known, mut hostfile) = (String::new(), String::new());
    for host in hosts {
        let (address, port) = host.rsplit_once(':').ok_or("rmpi serve printed no port")?;
        let _ = writeln!(known, "[{address}]:{port} {}", key.join(" "));
        let _ = writeln!(hostfile, "{address} slots=2 port={port}");
    }
    let d = dir.display();
    let config = format!(
        "Host *\n  IdentityFile {d}/id\n  UserKnownHostsFile {d}/known_hosts\n  IdentityAgent none\n"
    );
    for (name, text) in [("known_hosts", known), ("hosts", hostfile), ("ssh_config", config)] {
        fs::write(dir.join(name), text).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}
