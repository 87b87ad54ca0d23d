//! The files of pods: a rendered set read, and written for each pod with its keys, names and users.

use super::Way;
use super::exec::KUBECTL;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A rendered set.
#[derive(Debug)]
pub(crate) struct Tree {
    source: PathBuf,
    pub(crate) launcher: String,
    pub(crate) launcher_env: Vec<(String, String)>,
    pub(crate) worker_env: Vec<(String, String)>,
    pub(crate) workers: Vec<String>,
    pub(crate) slots: u32,
    pub(crate) launcher_works: bool,
    /// The headless Service; none where workers have no names.
    pub(crate) service: Option<String>,
    /// Where the secret is mounted; none where there is none.
    pub(crate) secret: Option<String>,
    modes: (u32, u32),
    rsa: bool,
    /// The launcher's user; it may have no account.
    pub(crate) uid: u32,
    pub(crate) worker_uid: u32,
    fs_group: bool,
    /// Owner, group and mode of the launcher's key, where they are not as the operator has them.
    pub(crate) key: Option<(u32, u32, u32)>,
    /// Whether workers hold another key than the launcher.
    pub(crate) strange: bool,
    /// Whether the launcher's service account may look at pods.
    pub(crate) rights: bool,
    pub(crate) port: u16,
}

fn env_of(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

impl Tree {
    pub(crate) fn read(name: &str) -> Result<Self, String> {
        let source = crate::bins::root().join("tests/kubernetes/pods").join(name);
        let text = |file: &str| {
            fs::read_to_string(source.join(file)).map_err(|e| format!("{}: {e}", source.join(file).display()))
        };
        let launcher = text("launcher/hostname")?.trim().to_owned();
        let about = text("launcher/pod.json")?;
        let launcher_env = env_of(&source.join("launcher/env"))?;
        let field = |key: &str| {
            let at = about.find(&format!("\"{key}\": \""))? + key.len() + 5;
            Some(about[at..].split('"').next()?.to_owned())
        };
        let volcano = launcher_env.iter().find(|(n, _)| n == "MPI_HOST").map(|(_, v)| v.clone());
        let list = match &volcano {
            Some(list) => list.split(',').map(|h| format!("{h} slots=1\n")).collect(),
            None => text("launcher/etc/mpi/hostfile")?,
        };
        let default_slots = launcher_env.iter().find(|(n, _)| n.ends_with("set_default_slots"));
        let default_slots = default_slots.and_then(|(_, v)| v.parse().ok()).unwrap_or(1);
        let (mut workers, mut slots, mut launcher_works) = (Vec::new(), 0, false);
        for line in list.lines().filter(|l| !l.trim().is_empty()) {
            let (host, count) = line.split_once([' ', ':']).unwrap_or((line, ""));
            slots += count.trim_start_matches("slots=").parse().unwrap_or(default_slots);
            let label = host.split('.').next().unwrap_or(host);
            match label == launcher {
                true => launcher_works = true,
                false => workers.push(label.to_owned()),
            }
        }
        let secret = field("ssh_mount");
        let uid = if secret.as_deref().is_some_and(|m| m.starts_with("/home")) { 1000 } else { 0 };
        let modes = match field("ssh_items_mode").as_deref() {
            Some("id_rsa 0640, others 0644") => (0o640, 0o644),
            Some(m) if m.starts_with("0600") => (0o600, 0o600),
            _ => (0o644, 0o644),
        };
        Ok(Self {
            worker_env: env_of(&source.join("worker-0/env"))?,
            fs_group: about.contains("\"fs_group\""),
            service: field("service"),
            port: if volcano.is_some() { 22 } else { 2222 },
            rsa: volcano.is_some(),
            source,
            launcher,
            launcher_env,
            workers,
            slots,
            launcher_works,
            secret,
            modes,
            uid,
            worker_uid: uid,
            key: None,
            strange: false,
            rights: true,
        })
    }

    /// Words that make a command run as the pod's user with this environment and nothing else.
    pub(crate) fn as_user(&self, uid: u32, env: &[(String, String)]) -> Vec<String> {
        let home = if uid == 0 { "/root" } else { "/home/mpiuser" };
        let uid = uid.to_string();
        let mut words: Vec<String> =
            ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "env", "-i"]
                .map(str::to_owned)
                .to_vec();
        words.push("PATH=/opt/rmpirun/bin:/usr/local/bin:/usr/bin:/bin".into());
        words.push(format!("HOME={home}"));
        words.push("KUBERNETES_SERVICE_HOST=10.96.0.1".into());
        words.extend(env.iter().map(|(n, v)| format!("{n}={v}")));
        words
    }

    /// What a worker runs.
    pub(crate) fn worker_command(&self, way: Way) -> String {
        let secret = self.secret.as_deref().unwrap_or_default();
        let words: Vec<String> = self
            .as_user(self.worker_uid, &self.worker_env)
            .iter()
            .map(|w| format!("'{}'", w.replace('\'', "'\\''")))
            .collect();
        match way {
            Way::Exec => "exec sleep 31536000".into(),
            Way::Sshd => format!(
                "exec {} /usr/sbin/sshd -D -E /tmp/sshd.log -f {}",
                words.join(" "),
                if self.worker_uid == 0 { "/etc/ssh/sshd_pod" } else { "/home/mpiuser/.sshd_config" }
            ),
            Way::Serve => {
                format!(
                    "exec {} rmpi serve --secret {secret} --listen 0.0.0.0:{}",
                    words.join(" "),
                    self.port
                )
            }
        }
    }

    /// Writes the files of a pod; gives their folder.
    pub(crate) fn write(&self, dir: &Path, name: &str, ip: Ipv4Addr, way: Way) -> io::Result<PathBuf> {
        let pod = dir.join("pods").join(name);
        let _ = fs::remove_dir_all(&pod);
        let launcher = name == self.launcher;
        copy(&self.source.join(if launcher { "launcher" } else { "worker-0" }), &pod)?;
        for folder in ["etc/ssh", "opt/kube", "home/mpiuser", "root"] {
            fs::create_dir_all(pod.join(folder))?;
        }
        let own = match &self.service {
            Some(service) => format!("{name}.{service}.default.svc.cluster.local\t{name}"),
            None => name.to_owned(),
        };
        fs::write(pod.join("etc/hosts"), format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{ip}\t{own}\n"))?;
        let search = "default.svc.cluster.local svc.cluster.local cluster.local";
        fs::write(
            pod.join("etc/resolv.conf"),
            format!("nameserver 10.78.0.1\nsearch {search}\noptions ndots:5 timeout:1 attempts:2\n"),
        )?;
        let accounts = fs::read_to_string("/etc/passwd")?;
        fs::write(
            pod.join("etc/passwd"),
            format!("{accounts}mpiuser:x:1000:1000::/home/mpiuser:/bin/bash\n"),
        )?;
        fs::write(
            pod.join("etc/ssh/ssh_config"),
            format!(
                "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  Port {}\n",
                self.port
            ),
        )?;
        for (file, mode) in
            [("opt/kube/kubectl", 0o755), ("etc/mpi/kubexec.sh", 0o555), ("etc/mpi/discover_hosts.sh", 0o555)]
        {
            let path = pod.join(file);
            if file == "opt/kube/kubectl" && launcher && way == Way::Exec {
                fs::write(&path, KUBECTL)?;
            }
            if path.exists() {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
        }
        if let Some(mount) = &self.secret {
            self.write_secret(dir, &pod.join(mount.trim_start_matches('/')), way, launcher)?;
            self.write_sshd(&pod, mount)?;
        }
        Ok(pod)
    }

    fn write_secret(&self, dir: &Path, mount: &Path, way: Way, launcher: bool) -> io::Result<()> {
        fs::create_dir_all(mount)?;
        let own = if self.strange && !launcher { "other" } else { "id_rsa" };
        let key = dir.join(own);
        if !key.exists() {
            let file = key.display().to_string();
            let make: &[&str] = match self.rsa {
                true => &["genrsa", "-traditional", "-out", &file, "2048"],
                false => &["ecparam", "-name", "secp521r1", "-genkey", "-noout", "-out", &file],
            };
            run("openssl", make)?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            fs::write(key.with_extension("pub"), run("ssh-keygen", &["-y", "-f", &file])?)?;
        }
        for (name, extension) in [("id_rsa", ""), ("id_rsa.pub", "pub"), ("authorized_keys", "pub")] {
            let to = mount.join(name);
            fs::copy(key.with_extension(extension), &to)?;
            let (mode, others) = self.modes;
            let mut mode = if name == "id_rsa" { mode } else { others };
            // OpenSSH's server refuses what the kubelet's copy of the secret would be refused for as well: the
            // images copy it first.
            if way == Way::Sshd && !launcher && name == "id_rsa" && self.worker_uid == 0 {
                mode = 0o600;
            }
            fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
            chown(&to, Some(0), Some(if self.fs_group { 1000 } else { 0 }))?;
            if let Some((user, group, mode)) = self.key.filter(|_| launcher && name == "id_rsa") {
                fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
                chown(&to, Some(user), Some(group))?;
            }
        }
        Ok(())
    }

    fn write_sshd(&self, pod: &Path, mount: &str) -> io::Result<()> {
        let common = format!(
            "Port {}\nStrictModes no\nUsePAM no\nAuthorizedKeysFile {mount}/authorized_keys\n",
            self.port
        );
        let user = format!("{common}HostKey {mount}/id_rsa\nPidFile /tmp/sshd.pid\n");
        fs::write(pod.join("home/mpiuser/.sshd_config"), user)?;
        let root = format!("{common}HostKey {mount}/id_rsa\nPidFile none\nPermitRootLogin yes\n");
        fs::write(pod.join("etc/ssh/sshd_pod"), root)
    }
}

fn run(program: &str, args: &[&str]) -> io::Result<Vec<u8>> {
    let output = Command::new(program).args(args).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
