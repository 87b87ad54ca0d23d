//! `rmpi serve`: the embedded SSH server on one or more addresses in one process, each a node of its own. Ends
//! on SIGINT, SIGTERM or, if asked, with its standard input. Without `--host-key` it is the command of a worker pod:
//! it takes the job's secret where operators mount it, writes nothing anywhere, and at SIGTERM lets ranks end first.

use crate::{init, say};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rmpi_ssh::{KeyPair, Server, ServerOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Where workers listen that are told nothing: the port of mpi-operator's images.
const PORT: u16 = 2222;
/// Where operators mount the job's secret, beside the user's own home.
const SECRETS: [&str; 3] = ["/home/mpiuser/.ssh", "/root/.ssh", "/etc/rmpi/ssh"];
/// How long ranks may take to end after the pod's SIGTERM: what a pod has unless its manifest says otherwise, less a
/// moment.
const FAREWELL: Duration = Duration::from_secs(25);
/// Tells a daemon that its host is being shut down.
const HOST_ENDS: Signal = Signal::SIGPWR;
/// First word by which our program with the daemon in it is told to be the daemon.
const HIDDEN_WORD: &str = "__rmpid";

/// Options of `rmpi serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on, port 0 for any; may be repeated [default: all addresses, port 2222]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// The host's private key (see rmpi keygen) [default: id_rsa of the secret]
    #[arg(long, value_name = "FILE")]
    host_key: Option<PathBuf>,
    /// Public keys that may log in, one a line [default: authorized_keys of the secret]
    #[arg(long, value_name = "FILE")]
    authorized_keys: Option<PathBuf>,
    /// Folder with a job's id_rsa and authorized_keys [default: the first of ~/.ssh, /home/mpiuser/.ssh, /root/.ssh,
    /// /etc/rmpi/ssh that has them]
    #[arg(long, value_name = "DIR", conflicts_with = "host_key")]
    secret: Option<PathBuf>,
    /// Beginning of the node ids (RMPI_NODE_ID) of the addresses; random otherwise
    #[arg(long, value_name = "PREFIX")]
    node_id: Option<String>,
    /// The daemon a launcher gets when it asks for one: rmpid or rmpirun; `push` lets it bring its own
    /// [default: the file rmpid or rmpirun beside this one, when serving a job's secret]
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Let clients open TCP connections through us (jump host)
    #[arg(long)]
    forward: bool,
    /// End when standard input does
    #[arg(long)]
    until_eof: bool,
}

impl Serve {
    /// Serves until told to end.
    ///
    /// # Errors
    /// A line saying which key, file or address cannot be used.
    pub(crate) fn run(&self) -> Result<(), String> {
        if let Some(code) = init::run_if_first()? {
            std::process::exit(code);
        }
        let options = self.options()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?;
        runtime.block_on(self.serve(options))
    }

    fn options(&self) -> Result<ServerOptions, String> {
        let worker = self.host_key.is_none();
        let secret = if worker { Some(self.secret_dir()?) } else { None };
        let file = |given: &Option<PathBuf>, name: &str| match (given, &secret) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(dir)) => Ok(dir.join(name)),
            (None, None) => Err("--host-key goes with --authorized-keys".to_owned()),
        };
        let (key, authorized_keys) =
            (file(&self.host_key, "id_rsa")?, file(&self.authorized_keys, "authorized_keys")?);
        let host_key = KeyPair::read(&key).map_err(|e| e.to_string())?;
        let authorized = rmpi_ssh::keys::read_authorized(&authorized_keys).map_err(|e| e.to_string())?;
        if authorized.is_empty() {
            return Err(format!("{} has no key: nobody could log in", authorized_keys.display()));
        }
        Ok(ServerOptions {
            authorized,
            forward: self.forward,
            inherit: worker,
            daemon: self.daemon(worker)?,
            ..ServerOptions::new(host_key)
        })
    }

    /// The folder with the job's secret.
    fn secret_dir(&self) -> Result<PathBuf, String> {
        if let Some(dir) = &self.secret {
            return Ok(dir.clone());
        }
        let home = std::env::var_os("HOME").filter(|h| !h.is_empty()).map(|h| Path::new(&h).join(".ssh"));
        let places: Vec<PathBuf> = home.into_iter().chain(SECRETS.map(PathBuf::from)).collect();
        let has = |dir: &&PathBuf| {
            ["id_rsa", "authorized_keys"].iter().all(|f| std::fs::File::open(dir.join(f)).is_ok())
        };
        places.iter().find(has).cloned().ok_or_else(|| {
            let list: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
            format!(
                "no readable id_rsa and authorized_keys in {}: name the folder with --secret, or set sshAuthMountPath",
                list.join(", ")
            )
        })
    }

    /// What answers a launcher's search for the daemon.
    fn daemon(&self, worker: bool) -> Result<Option<(PathBuf, Vec<String>)>, String> {
        let words = |program: &Path| match program.file_name().is_some_and(|n| n == "rmpid") {
            true => Vec::new(),
            false => vec![HIDDEN_WORD.to_owned()],
        };
        match &self.daemon {
            Some(push) if push.as_os_str() == "push" => Ok(None),
            Some(program) if program.is_file() => Ok(Some((program.clone(), words(program)))),
            Some(program) => Err(format!("no daemon at {}", program.display())),
            None if worker => {
                let own = std::env::current_exe().map_err(|e| format!("cannot find ourselves: {e}"))?;
                let beside = ["rmpid", "rmpirun"].map(|name| own.with_file_name(name));
                Ok(beside.into_iter().find(|p| p.is_file()).map(|p| (p.clone(), words(&p))))
            }
            None => Ok(None),
        }
    }

    async fn serve(&self, options: ServerOptions) -> Result<(), String> {
        let cannot = |e: std::io::Error| format!("cannot wait for signals: {e}");
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let prefix = match &self.node_id {
            Some(prefix) => prefix.clone(),
            None => rmpi_ssh::server::unique_prefix().map_err(|e| e.to_string())?,
        };
        let mut servers = Vec::new();
        for (n, address) in self.addresses().iter().enumerate() {
            let mut options = options.clone();
            options.node_id = Some(format!("{prefix}-{n}"));
            let server = match Server::bind(*address, options.clone()).await {
                // A kernel without IPv6.
                Err(_) if self.listen.is_empty() => {
                    Server::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT), options).await
                }
                other => other,
            };
            servers.push(server.map_err(|e| format!("cannot listen on {address}: {e}"))?);
        }
        for server in &servers {
            say(&format!("listening {}", server.addr()));
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => return Ok(()),
            () = end_of_input(), if self.until_eof => return Ok(()),
        }
        if self.host_key.is_some() {
            return Ok(());
        }
        // The pod ends. Its ranks hear of it, and as long as they save what they did, their launcher hears of them.
        for daemon in children() {
            let _ = kill(daemon, HOST_ENDS);
        }
        let ended = async {
            for server in &mut servers {
                server.close().await;
            }
        };
        tokio::select! {
            // Ended or not: the pod has no more time.
            _ = tokio::time::timeout(FAREWELL, ended) => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        if self.listen.is_empty() {
            return vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT)];
        }
        self.listen.clone()
    }
}

/// What this process has started and not reaped.
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<String> = lists.flat_map(|l| l.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    pids.iter().filter_map(|pid| pid.trim().parse().ok().map(Pid::from_raw)).collect()
}

/// Resolves when standard input has ended. Read on a plain thread, so that a pending read keeps nothing alive.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}
