//! Loopback hosts: `rmpi serve` on 127.0.0.2 and up, with keys, known hosts and a client configuration in a
//! folder of their own. No root, no sshd.

use crate::{bins, procs};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Running loopback hosts; they end with the value.
#[derive(Debug)]
pub struct Loopback {
    dir: PathBuf,
    server: Child,
    /// `ADDRESS:PORT` of each host.
    pub hosts: Vec<String>,
}

impl Loopback {
    /// Starts `n` hosts from 127.0.0.2 on.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn up(n: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("rmpi-loopback.{}.{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a temporary folder");
        for key in ["hostkey", "id"] {
            let made = Command::new(bins::path("rmpi")).arg("keygen").arg(dir.join(key)).status();
            assert!(made.is_ok_and(|s| s.success()), "rmpi keygen failed");
        }
        let mut serve = Command::new(bins::path("rmpi"));
        serve
            .arg("serve")
            .arg("--host-key")
            .arg(dir.join("hostkey"))
            .arg("--authorized-keys")
            .arg(dir.join("id.pub"));
        for i in 0..n {
            serve.arg("--listen").arg(format!("127.0.{}.{}:0", i / 250, i % 250 + 2));
        }
        let mut server = serve
            .arg("--until-eof")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rmpi serve starts");
        let lines = BufReader::new(server.stderr.take().expect("stderr is piped")).lines();
        let hosts: Vec<String> = lines
            .map_while(Result::ok)
            .filter_map(|l| l.strip_prefix("listening ").map(str::to_owned))
            .take(n)
            .collect();
        assert_eq!(hosts.len(), n, "rmpi serve ended early");
        let it = Self { dir, server, hosts };
        it.write_client_files();
        it
    }

    fn write_client_files(&self) {
        let public = fs::read_to_string(self.dir.join("hostkey.pub")).expect("keygen made it");
        let key: Vec<&str> = public.split_whitespace().take(2).collect();
        let (mut known, mut hostfile) = (String::new(), String::new());
        for host in &self.hosts {
            let (address, port) = host.rsplit_once(':').expect("ADDRESS:PORT");
            let _ = writeln!(known, "[{address}]:{port} {}", key.join(" "));
            let _ = writeln!(hostfile, "{address} slots=2 port={port}");
        }
        let d = self.dir.display();
        let config = format!(
            "Host *\n  IdentityFile {d}/id\n  UserKnownHostsFile {d}/known_hosts\n  IdentityAgent none\n"
        );
        for (name, text) in [("known_hosts", known), ("hostfile", hostfile), ("ssh_config", config)] {
            fs::write(self.dir.join(name), text).expect("our own folder");
        }
    }

    /// The folder of keys and files; tests may put more there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `rmpirun` with the hostfile and client configuration of these hosts.
    #[must_use]
    pub fn rmpirun(&self) -> Command {
        let mut command = Command::new(bins::path("rmpirun"));
        command.arg("--hostfile").arg(self.dir.join("hostfile"));
        command.arg("--ssh-config").arg(self.dir.join("ssh_config"));
        command
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        if !procs::ends_within(&mut self.server, Duration::from_secs(5)) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
