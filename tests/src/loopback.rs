//! Loopback hosts: `rmpi serve` on 127.0.0.2 and up, with keys, known hosts and a client configuration in a
//! folder of their own. No root, no sshd. The demo uses them too.

use crate::{bins, procs};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Slots of each host in the host file.
const SLOTS: u32 = 2;

/// Running loopback hosts; they end with the value.
#[derive(Debug)]
pub struct Loopback {
    dir: PathBuf,
    bin: PathBuf,
    /// Whether the folder goes with the value.
    temporary: bool,
    server: Child,
    /// `ADDRESS:PORT` of each host.
    pub hosts: Vec<String>,
}

impl Loopback {
    /// Starts `n` hosts for a test.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn up(n: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique =
            format!("rmpi-loopback.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&dir);
        let mut hosts =
            Self::start(bins::dir(), &dir, n).unwrap_or_else(|why| panic!("no loopback hosts: {why}"));
        hosts.temporary = true;
        hosts
    }

    /// Starts `n` hosts with the programs in `bin` and their files in `dir`: `hostkey`, `id`, `known_hosts`,
    /// `hostfile`, `ssh_config`.
    ///
    /// # Errors
    /// One line saying what failed.
    pub fn start(bin: &Path, dir: &Path, n: usize) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for key in ["hostkey", "id"] {
            let (private, public) = (dir.join(key), dir.join(format!("{key}.pub")));
            let _ = (fs::remove_file(&private), fs::remove_file(&public));
            let made = Command::new(bin.join("rmpi")).arg("keygen").arg(private).status();
            if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
                return Err(format!("rmpi keygen failed: {made:?}"));
            }
        }
        let mut serve = Command::new(bin.join("rmpi"));
        serve.arg("serve").arg("--host-key").arg(dir.join("hostkey"));
        serve.arg("--authorized-keys").arg(dir.join("id.pub")).arg("--until-eof");
        for i in 0..n {
            serve.arg("--listen").arg(format!("127.0.{}.{}:0", i / 250, i % 250 + 2));
        }
        let server = serve.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut server = server.map_err(|e| format!("rmpi serve does not start: {e}"))?;
        let stderr = server.stderr.take().ok_or("rmpi serve has no stderr")?;
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let hosts: Vec<String> =
            lines.filter_map(|l| l.strip_prefix("listening ").map(str::to_owned)).take(n).collect();
        let (dir, bin) = (dir.to_owned(), bin.to_owned());
        let it = Self { dir, bin, temporary: false, server, hosts };
        if it.hosts.len() != n {
            return Err(format!("rmpi serve ended with {} of {n} hosts", it.hosts.len()));
        }
        it.write_client_files()?;
        Ok(it)
    }

    fn write_client_files(&self) -> Result<(), String> {
        let public =
            fs::read_to_string(self.dir.join("hostkey.pub")).map_err(|e| format!("hostkey.pub: {e}"))?;
        let key: Vec<&str> = public.split_whitespace().take(2).collect();
        let (mut known, mut hostfile) = (String::new(), String::new());
        for host in &self.hosts {
            let (address, port) = host.rsplit_once(':').ok_or("rmpi serve printed no port")?;
            let _ = writeln!(known, "[{address}]:{port} {}", key.join(" "));
            let _ = writeln!(hostfile, "{address} slots={SLOTS} port={port}");
        }
        let d = self.dir.display();
        let config = format!(
            "Host *\n  IdentityFile {d}/id\n  UserKnownHostsFile {d}/known_hosts\n  IdentityAgent none\n"
        );
        for (name, text) in [("known_hosts", known), ("hostfile", hostfile), ("ssh_config", config)] {
            fs::write(self.dir.join(name), text).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }

    /// The folder of keys and files; tests may put more there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `rmpirun` with the hostfile and client configuration of these hosts.
    #[must_use]
    pub fn rmpirun(&self) -> Command {
        let mut command = Command::new(self.bin.join("rmpirun"));
        command.arg("--hostfile").arg(self.dir.join("hostfile"));
        command.arg("--ssh-config").arg(self.dir.join("ssh_config"));
        command
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // The server ends when its standard input does.
        drop(self.server.stdin.take());
        if !procs::ends_within(&mut self.server, Duration::from_secs(30)) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
        if self.temporary {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
