//! Pods without a cluster: namespaces with an operator's files, environment, host names, users and keys, a name server
//! that knows them when they are ready, and a `kubectl` that enters them. The sets are those under
//! `tests/kubernetes/pods`; [`cases`] says what is done with each.
//!
//! Needs root, `ip`, `unshare`, `nsenter`, `setpriv`, `openssl`, `ssh-keygen`, `sshd` and overlayfs; [`Set::up`] says
//! in one line what is missing.

pub mod cases;
mod dns;
mod exec;
mod files;
mod server;
mod trouble;

use crate::procs;
use server::Server;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What answers in workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `kubectl exec`; workers sleep.
    Exec,
    /// OpenSSH's server, as the operators' images have it.
    Sshd,
    /// `rmpi serve`, on a root file system that is read-only, with nothing to write to.
    Serve,
}

/// Where the switch is, and what listens there.
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// What a pod does before its first process.
const BOOT: &str = r#"set -e
mount --make-rprivate /
hostname "$NAME"
mount -t proc proc /proc
for d in etc opt root home; do
  if [ -d "$POD/$d" ]; then
    over=
    if [ $d = etc ] && [ "$READ_ONLY" != 1 ]; then
      mkdir -p "$POD/over" && mount -t tmpfs tmpfs "$POD/over" && mkdir "$POD/over/upper" "$POD/over/work"
      over=",upperdir=$POD/over/upper,workdir=$POD/over/work"
    fi
    mount -t overlay -o "lowerdir=$POD/$d:/$d$over" overlay "/$d"
  fi
done
if [ "$READ_ONLY" = 1 ]; then
  mount -t tmpfs -o ro tmpfs /dev/shm
  mount --bind / / && mount -o remount,bind,ro /
  for d in /tmp /var/tmp /run; do mount -t tmpfs -o ro tmpfs "$d"; done
else
  for d in /tmp /dev/shm /run; do mount -t tmpfs -o mode=1777 tmpfs "$d"; done
  mkdir -p /run/sshd
fi
ip link set lo up
read go
exec sh -c "$COMMAND"
"#;

/// A running pod.
#[derive(Debug)]
pub(crate) struct Pod {
    child: Child,
    ip: Ipv4Addr,
}

/// Pods by name, as the name server and `kubectl` see them.
pub(crate) type Shared = Arc<Mutex<BTreeMap<String, Ready>>>;

/// A pod that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) ip: Ipv4Addr,
    pub(crate) pid: u32,
}

/// One operator's pods.
#[derive(Debug)]
pub struct Set {
    dir: PathBuf,
    tree: files::Tree,
    way: Way,
    switch: Child,
    pods: BTreeMap<String, Pod>,
    ready: Shared,
    next_ip: u8,
    _servers: Vec<Server>,
}

impl Set {
    /// The switch, the name server and the launcher pod of a set; no worker yet.
    ///
    /// # Errors
    /// One line saying why that cannot be had here.
    pub fn up(name: &str, way: Way) -> Result<Self, String> {
        Self::with(name, way, |_| {})
    }

    /// The same with something changed in its files.
    ///
    /// # Errors
    /// As [`Set::up`].
    fn with(name: &str, way: Way, change: impl FnOnce(&mut files::Tree)) -> Result<Self, String> {
        possible()?;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/run/rmpi-pods.{}.{count}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut tree = files::Tree::read(name)?;
        change(&mut tree);
        // An address of its own: a bridge takes its lowest port's, and a pod that came would make the others' ARP stale.
        let script = "ip link set lo up; ip link add br0 address 02:00:0a:4e:00:01 type bridge; ip addr add 10.78.0.1/24 dev br0; ip link set br0 up; \
                      read go; exec sleep infinity";
        let switch = namespaced(&["-n"], script, &[]);
        let ready = Shared::default();
        let mut set =
            Self { dir, tree, way, switch, pods: BTreeMap::new(), ready, next_ip: 10, _servers: Vec::new() };
        let switch = inner_pid(&set.switch);
        let up = procs::until(Duration::from_secs(10), || {
            let show = ["-t", &switch.to_string(), "-n", "--", "ip", "addr", "show", "br0"];
            let shown = Command::new("nsenter").args(show).stderr(Stdio::null()).output();
            shown.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("10.78.0.1"))
        });
        if !up {
            return Err("the switch does not come up".into());
        }
        let (service, env, ready) = (set.tree.service.clone(), set.tree.worker_env.clone(), &set.ready);
        set._servers.push(dns::start(switch, SWITCH, service, Arc::clone(ready))?);
        set._servers.push(exec::start(switch, SWITCH, env, set.tree.rights, Arc::clone(ready))?);
        let launcher = set.tree.launcher.clone();
        set.boot(&launcher)?;
        Ok(set)
    }

    /// Names of the workers, in the order of the host list.
    #[must_use]
    pub fn workers(&self) -> &[String] {
        &self.tree.workers
    }

    /// The launcher's host name.
    #[must_use]
    pub fn launcher(&self) -> &str {
        &self.tree.launcher
    }

    /// Ranks that fill all slots.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.tree.slots
    }

    /// Whether the launcher is in the host list.
    #[must_use]
    pub fn launcher_works(&self) -> bool {
        self.tree.launcher_works
    }

    /// Starts a pod and, once what it runs answers, lets everybody know of it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&mut self, name: &str) -> Result<(), String> {
        let ip = Ipv4Addr::new(10, 78, 0, self.next_ip);
        self.next_ip = self.next_ip.checked_add(1).ok_or("too many pods")?;
        let launcher = name == self.tree.launcher;
        let pod =
            self.tree.write(&self.dir, name, ip, self.way).map_err(|e| format!("files of {name}: {e}"))?;
        let bin = self.dir.join("pods").join(name).join("opt/rmpirun/bin");
        fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
        for program in ["rmpirun", "rmpi"] {
            let (from, to) = (crate::bins::path(program), bin.join(program));
            let _ = fs::remove_file(&to);
            // A hard link where that is possible saves the copy.
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .map_err(|e| format!("{program}: {e}"))?;
        }
        // As the overlay image has them.
        for name in ["mpirun", "mpiexec"] {
            let _ = fs::remove_file(bin.join(name));
            std::os::unix::fs::symlink("rmpirun", bin.join(name)).map_err(|e| format!("{name}: {e}"))?;
        }
        let command =
            if launcher { "exec sleep infinity".to_owned() } else { self.tree.worker_command(self.way) };
        let read_only = if self.way == Way::Serve && !launcher { "1" } else { "0" };
        let env = [
            ("NAME", name.to_owned()),
            ("POD", pod.display().to_string()),
            ("COMMAND", command),
            ("READ_ONLY", read_only.to_owned()),
        ];
        // Kept at once: whatever fails below, it is ended with the set.
        let child = namespaced(&["-n", "-m", "-u", "-i", "-p"], BOOT, &env);
        let pid = inner_pid(&child);
        self.pods.insert(name.to_owned(), Pod { child, ip });
        let (switch, inner) = (inner_pid(&self.switch).to_string(), pid.to_string());
        let veth = format!("p{}", ip.octets()[3]);
        let on = |pid: &str, args: &[&str]| {
            let output = Command::new("nsenter").args(["-t", pid, "-n", "--"]).args(args).output();
            match output {
                Ok(o) if o.status.success() => Ok(()),
                Ok(o) => Err(format!("{args:?}: {}", String::from_utf8_lossy(&o.stderr))),
                Err(e) => Err(format!("{args:?}: {e}")),
            }
        };
        let address = format!("{ip}/24");
        on(&switch, &["ip", "link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &inner])?;
        on(&switch, &["ip", "link", "set", &veth, "master", "br0", "up"])?;
        on(&inner, &["ip", "addr", "add", &address, "dev", "eth0"])?;
        on(&inner, &["ip", "link", "set", "eth0", "up"])?;
        on(&inner, &["ip", "route", "add", "default", "via", "10.78.0.1"])?;
        let stdin = self.pods.get_mut(name).and_then(|p| p.child.stdin.as_mut()).ok_or("no stdin")?;
        stdin.write_all(b"go\n").map_err(|e| e.to_string())?;
        // Its folders are in place when it runs what it is for.
        let line = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let boots = || String::from_utf8_lossy(&line()).contains("read go");
        if !procs::until(Duration::from_secs(15), || !boots()) {
            return Err(format!("{name} does not boot"));
        }
        if !launcher && self.way != Way::Exec {
            let port = self.tree.port.to_string();
            let probe = format!("exec 3<>/dev/tcp/{ip}/{port}");
            let answers = procs::until(Duration::from_secs(15), || {
                let ask = ["-t", &switch, "-n", "--", "bash", "-c", &probe];
                Command::new("nsenter").args(ask).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
            });
            if !answers {
                let log =
                    fs::read_to_string(self.dir.join("pods").join(name).join("log")).unwrap_or_default();
                return Err(format!("{name} does not answer on port {port}: {log}"));
            }
        }
        // A launcher's own name has a record only where the Service publishes unready pods.
        if !launcher {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.insert(name.to_owned(), Ready { ip, pid });
        }
        Ok(())
    }

    /// Takes a pod away: every process in it dies at once, its name and address go.
    pub fn delete(&mut self, name: &str) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(mut pod) = self.pods.remove(name) {
            end(&mut pod.child);
        }
    }

    /// Sends a pod's first process SIGTERM, as the kubelet does.
    pub fn terminate(&self, name: &str) {
        if let Some(first) = self.pods.get(name).and_then(|p| try_inner_pid(&p.child)) {
            let _ = Command::new("kill").args(["-s", "TERM", &first.to_string()]).status();
        }
    }

    /// Whether a pod's first process, and so all of it, has ended.
    #[must_use]
    pub fn ended(&self, name: &str) -> bool {
        self.pods.get(name).is_none_or(|p| try_inner_pid(&p.child).is_none())
    }

    /// Loses a pod silently: its link goes down, nobody is told.
    pub fn cut(&self, name: &str) {
        let Some(pod) = self.pods.get(name) else { return };
        let (switch, veth) = (inner_pid(&self.switch).to_string(), format!("p{}", pod.ip.octets()[3]));
        let _ = Command::new("nsenter")
            .args(["-t", &switch, "-n", "--", "ip", "link", "set", &veth, "down"])
            .status();
    }

    /// A command in the launcher pod, as its user, with the operator's environment. The first word is looked up in
    /// the image's PATH.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let pid = self.pods.get(&self.tree.launcher).map_or(0, |p| inner_pid(&p.child)).to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--wdns=/", "--"]);
        command.args(self.tree.as_user(self.tree.uid, &self.tree.launcher_env)).args(words);
        command
    }

    /// What runs in a pod beside its first process: `pid: command line`.
    #[must_use]
    pub fn ps(&self, name: &str) -> Vec<String> {
        let Some(init) = self.pods.get(name).and_then(|p| try_inner_pid(&p.child)) else { return Vec::new() };
        let Ok(namespace) = fs::read_link(format!("/proc/{init}/ns/pid")) else { return Vec::new() };
        procs::processes()
            .filter(|p| !p.ends_with(init.to_string()))
            .filter(|p| fs::read_link(p.join("ns/pid")).is_ok_and(|ns| ns == namespace))
            .filter_map(|p| procs::describe(&p))
            .filter(|line| !["sshd", "rmpi serve", "/rmpi serve"].iter().any(|s| line.contains(s)))
            .collect()
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        for mut pod in std::mem::take(&mut self.pods).into_values() {
            end(&mut pod.child);
        }
        let _ = self.switch.kill();
        let _ = self.switch.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether such pods can be had here.
///
/// # Errors
/// What is missing.
pub fn possible() -> Result<(), String> {
    let says = |program: &str, args: &[&str]| -> Result<String, String> {
        let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    };
    if says("id", &["-u"])?.trim() != "0" {
        return Err("namespaces need root".into());
    }
    for tool in ["ip", "unshare", "nsenter", "setpriv", "openssl", "ssh-keygen", "/usr/sbin/sshd", "bash"] {
        says("sh", &["-c", &format!("command -v {tool}")]).map_err(|_| format!("{tool} is not installed"))?;
    }
    let overlay = "mount --make-rprivate / && mount -t overlay -o lowerdir=/etc:/opt overlay /etc";
    says("unshare", &["-n", "-m", "-p", "--fork", "sh", "-c", overlay]).map(drop)
}

/// Starts `sh -c script` in new namespaces; it ends when its parent does.
fn namespaced(kinds: &[&str], script: &str, env: &[(&str, String)]) -> Child {
    let null = || File::options().write(true).open("/dev/null").expect("/dev/null");
    let child = Command::new("unshare")
        .args(kinds)
        .args(["--fork", "--kill-child", "sh", "-c", script])
        .envs(env.iter().map(|(n, v)| (n, v)))
        .stdin(Stdio::piped())
        .stdout(null())
        .stderr(null())
        .spawn()
        .expect("unshare starts");
    let up = procs::until(Duration::from_secs(10), || try_inner_pid(&child).is_some());
    assert!(up, "a pod did not start");
    child
}

/// Ends a pod. Its first process by name: one that has become another user has lost its parent-death signal.
fn end(child: &mut Child) {
    if let Some(first) = try_inner_pid(child) {
        let _ = Command::new("kill").args(["-s", "KILL", &first.to_string()]).stderr(Stdio::null()).status();
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The first process inside: the only child of `unshare`.
fn try_inner_pid(child: &Child) -> Option<u32> {
    let id = child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn inner_pid(child: &Child) -> u32 {
    try_inner_pid(child).unwrap_or(0)
}
