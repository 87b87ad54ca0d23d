//! A real small cluster on one machine: hosts with network, mount, UTS, IPC and PID namespaces of their own,
//! each with its own sshd, `/tmp` and `/dev/shm`, joined by a bridge that lives in a namespace too. Nothing
//! outlives the value: killing a host's first process ends everything on it.
//!
//! Needs root, `ip`, `unshare`, `nsenter` and `sshd`; [`Cluster::up`] says in one line what is missing.

use crate::procs;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Longest wait for a host.
const PATIENCE: Duration = Duration::from_secs(120);

const BOOT: &str = r#"set -e
mount --make-rprivate /
hostname "$NAME"
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t proc proc /proc
mount --bind "$DIR/hosts" /etc/hosts
mount --bind "$DIR/ssh" /etc/ssh
mount --bind "$DIR/passwd" /etc/passwd
mkdir -m 0700 -p /tmp/alice/.ssh
cp "$DIR/id" /tmp/alice/.ssh/id_ed25519
echo "IdentityFile ~/.ssh/id_ed25519" > /tmp/alice/.ssh/config
chown -R 4242:4242 /tmp/alice
ip link set lo up
read go
if [ "$NAME" = n0 ]; then exec sleep infinity; fi
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -E "$DIR/sshd.$NAME.log" -f "$DIR/sshd.$NAME.conf"
"#;

/// The cluster: `n0` is the launcher's host, `n1..` have an sshd and two slots each in [`Cluster::hostfile`].
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    switch: Child,
    hosts: Vec<Child>,
}

impl Cluster {
    /// Brings up `n` hosts beside `n0`, links limited to `mbit` megabits a second if given.
    ///
    /// # Errors
    /// One line saying why such a cluster cannot be had here; the test counts as skipped.
    ///
    /// # Panics
    /// When a step fails that should work as root.
    pub fn up(n: usize, mbit: Option<u32>) -> Result<Self, String> {
        let uid = run_text("id", &["-u"])?;
        if uid.trim() != "0" {
            return Err("namespaces need root".into());
        }
        for tool in ["ip", "unshare", "setpriv", "nsenter", "ssh-keygen", "/usr/sbin/sshd"] {
            run_text("sh", &["-c", &format!("command -v {tool}")])
                .map_err(|_| format!("{tool} is not installed"))?;
        }
        run_text("unshare", &["-n", "-m", "-p", "--fork", "true"])
            .map_err(|e| format!("no namespaces: {e}"))?;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/run/rmpi-tests.{}.{count}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("ssh")).map_err(|e| format!("{}: {e}", dir.display()))?;
        write_files(&dir, n);
        let switch = namespaced(
            &["-n"],
            "ip link add br0 type bridge; ip link set br0 up; read go; exec sleep infinity",
            &[],
        );
        let mut cluster = Self { dir, switch, hosts: Vec::new() };
        for i in 0..=n {
            let host = cluster.boot(i, mbit);
            cluster.hosts.push(host);
        }
        (1..=n).for_each(|i| cluster.wait_for_sshd(i));
        Ok(cluster)
    }

    fn wait_for_sshd(&self, i: usize) {
        let up = procs::until(PATIENCE, || {
            let probe = format!("exec 3<>/dev/tcp/n{i}/22");
            let mut command = self.command("n0", "bash");
            command.args(["-c", &probe]).stderr(Stdio::null());
            command.status().is_ok_and(|s| s.success())
        });
        let log = self.dir.join(format!("sshd.n{i}.log"));
        assert!(up, "sshd of n{i} does not answer: {:?}", fs::read_to_string(log));
    }

    fn boot(&self, i: usize, mbit: Option<u32>) -> Child {
        let name = format!("n{i}");
        let env = [("NAME", name.as_str()), ("DIR", self.dir.to_str().expect("an ASCII path"))];
        let mut host = namespaced(&["-n", "-m", "-u", "-i", "-p"], BOOT, &env);
        self.plug(i, inner_pid(&host), 0, mbit);
        host.stdin.as_mut().expect("stdin is piped").write_all(b"go\n").expect("the host is waiting");
        host
    }

    /// Connects host `i`, whose first process is `inner`, to a network: interface `eth{network}`.
    fn plug(&self, i: usize, inner: u32, network: usize, mbit: Option<u32>) {
        let inner = inner.to_string();
        let (veth, bridge, eth) = (veth(network, i), format!("br{network}"), format!("eth{network}"));
        let subnet = 77 + network;
        let on_switch = |args: &[&str]| must(self.on_switch().args(args));
        let on_host =
            |args: &[&str]| must(Command::new("nsenter").args(["-t", &inner, "-n", "--"]).args(args));
        on_switch(&["ip", "link", "add", &veth, "type", "veth", "peer", "name", &eth, "netns", &inner]);
        on_switch(&["ip", "link", "set", &veth, "master", &bridge, "up"]);
        // The same after a power cycle: neighbours remember it for longer than anybody wants to wait.
        on_host(&["ip", "link", "set", &eth, "address", &format!("02:00:00:{subnet}:00:{i:02x}")]);
        on_host(&["ip", "addr", "add", &format!("10.{subnet}.0.{}/24", octet(i)), "dev", &eth]);
        on_host(&["ip", "link", "set", &eth, "up"]);
        if let Some(mbit) = mbit {
            let rate = format!("{mbit}mbit");
            let shape = ["root", "tbf", "rate", &rate, "burst", "256kb", "latency", "50ms"];
            on_switch(&[&["tc", "qdisc", "add", "dev", &veth], &shape[..]].concat());
            on_host(&[&["tc", "qdisc", "add", "dev", &eth], &shape[..]].concat());
        }
    }

    /// Gives every host a second interface, `eth1`, to a network of its own (10.78.0.0/24), limited to `mbit` megabits a
    /// second if given. A host that is powered on later has none.
    ///
    /// # Panics
    /// When a step fails that should work as root.
    pub fn second_network(&self, mbit: Option<u32>) {
        must(self.on_switch().args(["ip", "link", "add", "br1", "type", "bridge"]));
        must(self.on_switch().args(["ip", "link", "set", "br1", "up"]));
        for (i, host) in self.hosts.iter().enumerate() {
            self.plug(i, inner_pid(host), 1, mbit);
        }
    }

    /// A command that will run where the bridges are.
    fn on_switch(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &inner_pid(&self.switch).to_string(), "-n", "--"]);
        command
    }

    /// A hostfile of `n1..` with two slots each.
    #[must_use]
    pub fn hostfile(&self) -> PathBuf {
        self.dir.join("hostfile")
    }

    /// A folder that every host sees (programs are best copied here: `/tmp` is each host's own).
    #[must_use]
    pub fn shared(&self) -> &Path {
        &self.dir
    }

    /// Copies programs to the shared folder and returns it.
    ///
    /// # Panics
    /// When one is missing.
    #[must_use]
    pub fn install(&self, programs: &[&str]) -> PathBuf {
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).expect("the shared folder is writable");
        for program in programs {
            fs::copy(crate::bins::path(program), bin.join(program))
                .unwrap_or_else(|e| panic!("{program}: {e}"));
        }
        bin
    }

    /// Copies a file to where every host sees it, whatever hosts hide of this machine's folders; gives the copy.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn share(&self, file: &Path) -> PathBuf {
        let names: Vec<_> = file.iter().rev().take(2).collect();
        let copy = names.iter().rev().fold(self.dir.join("bin"), |path, name| path.join(name));
        fs::create_dir_all(copy.parent().unwrap_or(&copy)).expect("the shared folder is writable");
        fs::copy(file, &copy).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        copy
    }

    /// A command that will run on `host`, as root, in `/`.
    #[must_use]
    pub fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let pid = inner_pid(self.host(host)).to_string();
        command.args(["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--wdns=/", "--"]).arg(program);
        command
    }

    /// The same as the ordinary user `alice`, whose key opens her account on every host.
    #[must_use]
    pub fn command_as_alice(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(host, "setpriv");
        command.args(["--reuid=4242", "--regid=4242", "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"]);
        command.args(["HOME=/tmp/alice", "USER=alice"]).arg(program);
        command
    }

    /// Powers a host off: every process on it dies at once, its link disappears.
    pub fn power_off(&mut self, host: &str) {
        let index = index(host);
        let _ = self.hosts[index].kill();
        let _ = self.hosts[index].wait();
    }

    /// Powers a host on that was off; its links are not limited.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn power_on(&mut self, host: &str) {
        let i = index(host);
        // The kernel takes the old link away some time after the last process of the host.
        let gone = procs::until(PATIENCE, || {
            let mut command = self.on_switch();
            command.args(["ip", "link", "show", &veth(0, i)]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| !s.success())
        });
        assert!(gone, "the link of {host} is still there");
        self.hosts[i] = self.boot(i, None);
        self.wait_for_sshd(i);
    }

    /// Pulls a host's network cable, without either end being told.
    pub fn cut(&self, host: &str) {
        self.link(0, host, "down");
    }

    /// Pulls the cable of a host's second interface.
    pub fn cut_second(&self, host: &str) {
        self.link(1, host, "down");
    }

    /// Plugs it in again.
    pub fn mend(&self, host: &str) {
        self.link(0, host, "up");
    }

    fn link(&self, network: usize, host: &str, state: &str) {
        must(self.on_switch().args(["ip", "link", "set", &veth(network, index(host)), state]));
    }

    /// What runs on a host beside its first process and sshd's own: `pid: command line`, pids as seen here.
    #[must_use]
    pub fn ps(&self, host: &str) -> Vec<String> {
        let Some(init) = try_inner_pid(self.host(host)) else { return Vec::new() };
        let Ok(namespace) = fs::read_link(format!("/proc/{init}/ns/pid")) else { return Vec::new() };
        procs::processes()
            .filter(|p| !p.ends_with(init.to_string()))
            .filter(|p| fs::read_link(p.join("ns/pid")).is_ok_and(|ns| ns == namespace))
            .filter_map(|p| procs::describe(&p))
            .filter(|line| {
                !line
                    .split_once(": ")
                    .is_some_and(|(_, c)| c.starts_with("sshd:") || c.starts_with("/usr/sbin/sshd"))
            })
            .collect()
    }

    /// Pids (as seen here) of the processes on `host` whose command line contains `text`, sshd's included.
    #[must_use]
    pub fn pids(&self, host: &str, text: &str) -> Vec<u32> {
        let Some(init) = try_inner_pid(self.host(host)) else { return Vec::new() };
        let Ok(namespace) = fs::read_link(format!("/proc/{init}/ns/pid")) else { return Vec::new() };
        procs::processes()
            .filter(|p| fs::read_link(p.join("ns/pid")).is_ok_and(|ns| ns == namespace))
            .filter_map(|p| procs::describe(&p))
            .filter(|line| line.contains(text))
            .filter_map(|line| line.split(':').next()?.parse().ok())
            .collect()
    }

    fn host(&self, host: &str) -> &Child {
        &self.hosts[index(host)]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.hosts.iter_mut().chain([&mut self.switch]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn index(host: &str) -> usize {
    host.strip_prefix('n').and_then(|n| n.parse().ok()).expect("hosts are n0, n1, ...")
}

/// The switch's end of a host's cable.
fn veth(network: usize, i: usize) -> String {
    format!("v{network}.{i}")
}

/// The launcher's host is .254, the others are their number.
fn octet(i: usize) -> usize {
    if i == 0 { 254 } else { i }
}

fn write_files(dir: &Path, n: usize) {
    let put =
        |name: &str, text: &str| fs::write(dir.join(name), text).expect("the shared folder is writable");
    let keygen = |file: &Path| {
        must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))
    };
    keygen(&dir.join("id"));
    fs::copy(dir.join("id.pub"), dir.join("authorized_keys")).expect("the key was just made");
    let (mut hosts, mut known, mut hostfile) =
        (String::from("127.0.0.1 localhost\n"), String::new(), String::new());
    for i in 0..=n {
        let _ = writeln!(hosts, "10.77.0.{} n{i}", octet(i));
        if i == 0 {
            continue;
        }
        let key = dir.join(format!("hostkey.n{i}"));
        keygen(&key);
        let public =
            fs::read_to_string(key.with_extension(format!("n{i}.pub"))).expect("the key was just made");
        let words: Vec<&str> = public.split(' ').collect();
        let _ = writeln!(known, "n{i},10.77.0.{i} {} {}", words[0], words[1].trim_end());
        let _ = writeln!(hostfile, "n{i} slots=2");
        let d = dir.display();
        put(
            &format!("sshd.n{i}.conf"),
            &format!(
                "Port 22\nHostKey {d}/hostkey.n{i}\nAuthorizedKeysFile {d}/authorized_keys\nPermitRootLogin yes\n\
                 StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 500\nMaxSessions 500\n"
            ),
        );
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("the system has accounts");
    put("passwd", &format!("{accounts}alice:*:4242:4242::/tmp/alice:/bin/sh\n"));
    put("hosts", &hosts);
    put("hostfile", &hostfile);
    put("ssh/ssh_known_hosts", &known);
    put(
        "ssh/ssh_config",
        &format!("Host *\n  IdentityFile {}/id\n  StrictHostKeyChecking yes\n", dir.display()),
    );
    // A cluster readable by an ordinary user, for the tests that launch as one.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("our own folder");
}

/// Starts `sh -c script` in new namespaces; it ends when its parent does.
fn namespaced(kinds: &[&str], script: &str, env: &[(&str, &str)]) -> Child {
    let null = || File::options().write(true).open("/dev/null").expect("/dev/null");
    // The kernel ends it with the thread that started it, the test's own, also when that is killed.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(kinds)
        .args(["--fork", "--kill-child", "sh", "-c", script])
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("unshare starts");
    let up = procs::until(PATIENCE, || try_inner_pid(&child).is_some());
    assert!(up, "a host did not start");
    child
}

/// The first process inside: the only child of `unshare`.
fn try_inner_pid(child: &Child) -> Option<u32> {
    let id = child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn inner_pid(child: &Child) -> u32 {
    try_inner_pid(child).expect("the host is up")
}

fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run_text(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
