//! Making a node ready before any rank exists: programs found, listeners bound; and then the ranks' own
//! descriptors, environment and the sealed boot block. What is prepared is started at most once.

use crate::env::{self, Vars};
use crate::keys::RankKeys;
use crate::net::{self, Ports};
use crate::node::FileLimit;
use crate::outfiles::{self, RankFiles};
use crate::spawn::{Batch, Child, ExecFault, Program, Step, Variables};
use crate::staging::Staging;
use crate::{frameworks, lookup, rank_vars, stdin, stdio, sys, topo};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use rmpi_pmi::pmix::server::PmixServer;
use rmpi_types::launch::{NodeEndpoints, RankEndpoint, RankLaunch, RankVars};
use rmpi_types::{DataPlane, EndpointTable, LaunchFault, NodeLaunch, ProcId, Rank, Stage, Transport, exit};
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A rank's socket to us.
pub(crate) const KVS_FD: i32 = 5;
/// Where ranks find their descriptors.
const FDS: &str = "boot=3,listen=4,kvs=5";
/// What ranks have beside them that share memory: the node's memory file.
const SHM_FD: i32 = 6;
/// What an encrypted job has: the QUIC rail's socket, and the private half of the rank's key pair.
const UDP_FD: i32 = 7;
const KEY_FD: i32 = 8;
/// Descriptors the daemon needs for a rank while it starts it, and for itself.
const FILES_A_RANK: u64 = 14;
const FILES_OWN: u64 = 32;

/// The port of 127.0.0.1 where PMI is offered, and the `PMI_ID` of a namespace's rank 0.
pub(crate) type PmiPort = (u16, u32);

/// What an application's ranks run.
#[derive(Debug)]
struct App {
    path: PathBuf,
    wdir: PathBuf,
    env: Vars,
}

/// A node ready to start.
#[derive(Debug)]
pub(crate) struct Prepared {
    launch: NodeLaunch,
    apps: Vec<App>,
    wires: Vec<Wires>,
    segment: Option<Arc<OwnedFd>>,
    files: FileLimit,
    output: Vec<RankFiles>,
}

/// What one rank gets of this node's network, made before it exists.
#[derive(Debug)]
struct Wires {
    listener: OwnedFd,
    udp: Option<OwnedFd>,
    keys: Option<RankKeys>,
}

/// Our ends of one rank's descriptors.
#[derive(Debug)]
pub(crate) struct RankEnds {
    pub(crate) proc: ProcId,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) kvs: OwnedFd,
    /// Files of this node that its output goes to.
    pub(crate) files: RankFiles,
    /// Where to note that its process has ended: the node's segment, its number there.
    pub(crate) gone: Option<(Arc<OwnedFd>, u32)>,
}

/// What [`prepare`] has to know of the node.
pub(crate) struct Node<'a> {
    /// The environment of its login.
    pub(crate) env: &'a Vars,
    /// The user's home directory.
    pub(crate) home: &'a Path,
    /// Where the job's folder is made.
    pub(crate) temporary: &'a Path,
    /// Limits of open files.
    pub(crate) files: FileLimit,
}

/// What [`prepare`] gives.
pub(crate) type Ready = (Prepared, NodeEndpoints, Vec<String>);

/// Prepares; also gives notes for the user.
///
/// # Errors
/// Why the node cannot start its ranks.
pub(crate) fn prepare(
    launch: NodeLaunch,
    node: &Node<'_>,
    staging: &mut Staging,
) -> Result<Ready, LaunchFault> {
    let files = node.files;
    let count = launch.ranks.len() as u64;
    let needed = FILES_OWN + FILES_A_RANK * count;
    if files.hard < needed {
        let what = format!("limit of {} open files is too low for {count} ranks", files.hard);
        return Err(LaunchFault::fatal(Stage::Exec, what).hint(format!("raise it to {needed} (ulimit -Hn)")));
    }
    if launch.ranks.iter().any(|r| launch.apps.get(r.app as usize).is_none()) {
        return Err(LaunchFault::fatal(Stage::Exec, "order names a program it does not have"));
    }
    let mut notes = Vec::new();
    let apps = find_all(&launch, node, staging, &mut notes)?;
    let addresses = net::offer(&launch, net::interfaces)?;
    // What others are to call this node need not be an address it has.
    let any = addresses.repeat(2);
    let bound = if launch.extras.advertise.is_some() { &any } else { &addresses };
    let mut ports = Ports::new(bound, launch.port_range, launch.size);
    let mut wires = Vec::with_capacity(launch.ranks.len());
    let mut ranks = Vec::with_capacity(launch.ranks.len());
    for rank in &launch.ranks {
        let (wire, endpoint) = wire(rank.rank, launch.data, &mut ports)?;
        wires.push(wire);
        ranks.push(endpoint);
    }
    let first = launch.ranks.iter().any(|r| r.rank == Rank(0));
    let spare_port = if first { ports.spare() } else { None };
    if first && spare_port.is_none() {
        notes.push(
            "no port is left for MASTER_PORT, which is not set; choose a larger --port-range".to_owned(),
        );
    }
    let endpoints =
        NodeEndpoints { node: launch.node, host: launch.host.clone(), addresses, ranks, spare_port };
    let segment = segment(&launch, &mut notes).map(Arc::new);
    let output = launch.ranks.iter().map(|rank| outfiles::make(&launch, rank)).collect::<Result<_, _>>()?;
    Ok((Prepared { launch, apps, wires, segment, files, output }, endpoints, notes))
}

/// The memory that the ranks of this node share, if there are several and it can be had.
fn segment(launch: &NodeLaunch, notes: &mut Vec<String>) -> Option<OwnedFd> {
    let world: Vec<u32> = launch.ranks.iter().map(|r| r.rank.0).collect();
    if world.len() < 2 || world.len() > rmpi_shm::MAX_RANKS as usize {
        return None;
    }
    let made = rmpi_shm::create(&world);
    if let Err(error) = &made {
        notes.push(format!("ranks of this node talk over sockets: no shared memory: {}", text(error)));
    }
    made.ok()
}

/// One rank's sockets, and its key pair where the data plane asks for it.
fn wire(rank: Rank, data: DataPlane, ports: &mut Ports) -> Result<(Wires, RankEndpoint), LaunchFault> {
    let (listener, port) = ports.listener(rank)?;
    let mut endpoint = RankEndpoint::plain(rank, port);
    let mut wires = Wires { listener, udp: None, keys: None };
    if data.transport == Transport::Quic {
        let (udp, port) = ports.udp(rank, port)?;
        (wires.udp, endpoint.udp_port) = (Some(udp), Some(port));
    }
    if data.keyed() {
        let keys = RankKeys::make().map_err(|e| LaunchFault::fatal(Stage::Wire, e.to_string()))?;
        endpoint.public_key = Some(keys.public());
        wires.keys = Some(keys);
    }
    Ok((wires, endpoint))
}

/// The job's folder as a working directory.
fn session(node: &Node<'_>, staging: &mut Staging) -> Result<PathBuf, LaunchFault> {
    let made = staging.folder(node.temporary).and_then(|folder| {
        let work = folder.join("work");
        std::fs::create_dir(&work).map(|()| work)
    });
    made.map_err(|e| {
        let what = format!("cannot make the job's folder in {}: {}", node.temporary.display(), text(&e));
        LaunchFault::fatal(Stage::Exec, what).code(rmpi_types::exit::NO_WDIR)
    })
}

/// Finds every program, or takes the one that was sent; faults of several are told together.
fn find_all(
    launch: &NodeLaunch,
    node: &Node<'_>,
    staging: &mut Staging,
    notes: &mut Vec<String>,
) -> Result<Vec<App>, LaunchFault> {
    let extras = &launch.extras;
    let session = if extras.in_session { Some(session(node, staging)?) } else { None };
    let mut found: Vec<App> = Vec::with_capacity(launch.apps.len());
    let mut fault: Option<LaunchFault> = None;
    for (number, app) in (0..).zip(&launch.apps) {
        let mut find = || {
            let wdir = match &session {
                Some(session) => session.clone(),
                None => {
                    let place = lookup::wdir(app, node.home)?;
                    notes.extend(place.note);
                    place.wdir
                }
            };
            if !found.iter().any(|a| a.wdir == wdir) {
                staging.place(&extras.files, &wdir)?;
            }
            let env = env::merge(node.env, app);
            let path = match staging.program(&extras.files, number)? {
                Some(path) => path,
                None => lookup::program(app, env.get(OsStr::new("PATH")).map(OsString::as_os_str), &wdir)?,
            };
            Ok(App { path, wdir, env })
        };
        match (find(), &mut fault) {
            (Ok(app), _) => found.push(app),
            (Err(new), None) => fault = Some(new),
            (Err(new), Some(old)) if old.what.contains(&new.what) => {}
            (Err(new), Some(old)) => {
                old.what = format!("{}; {}", old.what, new.what);
                old.code = old.code.max(new.code);
                old.hint = old.hint.take().or(new.hint);
            }
        }
    }
    fault.map_or(Ok(found), Err)
}

impl Prepared {
    /// The order this was made from.
    pub(crate) fn launch(&self) -> &NodeLaunch {
        &self.launch
    }

    /// Starts the ranks: the batch on its way, and our ends of their descriptors. `reset` as [`Batch::start`] has it.
    ///
    /// # Errors
    /// A table that does not fit, or descriptors or processes exhausted; nothing is left running.
    pub(crate) fn start(
        self,
        table: &EndpointTable,
        pmix: Option<(&PmixServer, u16)>,
        reset: u64,
        pmi_port: Option<PmiPort>,
    ) -> Result<(Batch, Vec<RankEnds>), LaunchFault> {
        let boot = rmpi_wire::boot::build(&self.launch, table)
            .map_err(|e| LaunchFault::fatal(Stage::Wire, e.to_string()))?;
        let exhausted = |e: io::Error| {
            let what = format!("cannot start {} processes: {}", self.launch.ranks.len(), text(&e));
            LaunchFault::fatal(Stage::Exec, what)
                .hint("see ulimit -u, ulimit -n and the control group's pids limit")
        };
        let boot = Arc::new(seal("rmpi-boot", &boot).map_err(exhausted)?);
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        let null = Arc::new(null.map_err(|e| exhausted(e.into()))?);
        let shared = pmix.map(|(server, port)| server.shared_env(self.launch.ns, port));
        let programs = self.programs(table, &shared.unwrap_or_default(), pmi_port)?;
        let mut ends = Vec::with_capacity(self.launch.ranks.len());
        let nofile = (self.files.soft != self.files.hard).then_some((self.files.soft, self.files.hard));
        let gpus = self.launch.extras.gpus_per_rank.map_or_else(Vec::new, |_| topo::gpus(Path::new("/")));
        let iface = match self.launch.extras.rank_vars {
            RankVars::Horovod => self.carrier(table),
            RankVars::Usual | RankVars::Torch | RankVars::Tensorflow => None,
        };
        let tensorflow = self.launch.extras.rank_vars == RankVars::Tensorflow;
        let segment = self.segment;
        let memory = self.launch.extras.memory.map(|policy| topo::memory(Path::new("/"), policy));
        let mut files = self.output.into_iter();
        let children = (0..).zip(self.launch.ranks.iter().zip(self.wires)).map(|(local, (rank, wires))| {
            let program = Arc::clone(&programs[rank.app as usize]);
            let app = &self.launch.apps[rank.app as usize];
            let (mut ours, mut fds) = streams(&self.launch, rank, &null)?;
            ours.files = files.next().unwrap_or_default();
            fds.push((Arc::clone(&boot), 3));
            // TensorFlow opens the port itself: it is let go here, as late as can be.
            if !tensorflow {
                fds.push((Arc::new(wires.listener), 4));
            }
            let mut names = FDS.to_owned();
            let mut add = |name: &str, fd: Arc<OwnedFd>, number: i32| {
                names += &format!(",{name}={number}");
                fds.push((fd, number));
            };
            if let Some(segment) = &segment {
                add("shm", Arc::clone(segment), SHM_FD);
                ours.gone = Some((Arc::clone(segment), local));
            }
            if let Some(udp) = wires.udp {
                add("udp", Arc::new(udp), UDP_FD);
            }
            if let Some(keys) = wires.keys {
                add("key", Arc::new(keys.hand_over()?), KEY_FD);
            }
            let more =
                rank_vars::of(&self.launch, rank, &self.apps[rank.app as usize].env, &gpus, iface.as_deref());
            let tf = frameworks::tf_config(&self.launch, table, rank.rank)
                .filter(|_| !self.apps[rank.app as usize].env.contains_key(OsStr::new("TF_CONFIG")));
            let more = more.into_iter().chain(tf.map(|config| ("TF_CONFIG", config)));
            let proc = ProcId { rank: rank.rank, ..self.launch.ns };
            let of_pmix = pmix.iter().flat_map(|(server, _)| server.rank_env(proc));
            let env = env::per_rank(rank, app, self.launch.mpi.pmi.pmi(), &names).into_iter();
            let pmi_id = pmi_port.map(|(_, first)| ("PMI_ID", first.saturating_add(rank.rank.0).to_string()));
            let env = env.chain(more).chain(of_pmix).chain(pmi_id);
            let env = Variables::of(env);
            ends.push(ours);
            let stopped = self.launch.extras.stop_on_exec;
            Ok(Child { program, env, cpus: rank.cpus.clone(), memory, fds, nofile, stopped })
        });
        let batch = Batch::start(children, reset).map_err(exhausted)?;
        Ok((batch, ends))
    }

    /// The interface with the address that others reach this node at.
    fn carrier(&self, table: &EndpointTable) -> Option<String> {
        let here = table.nodes.iter().find(|n| n.node == self.launch.node)?;
        net::carrier(*here.addresses.first()?)
    }

    fn programs(
        &self,
        table: &EndpointTable,
        pmix: &[(&'static str, String)],
        pmi_port: Option<PmiPort>,
    ) -> Result<Vec<Arc<Program>>, LaunchFault> {
        let nul = |_| LaunchFault::fatal(Stage::Exec, "a NUL byte in a program, argument or variable");
        let mut programs = Vec::with_capacity(self.apps.len());
        for (app, found) in self.launch.apps.iter().zip(&self.apps) {
            let mut vars = found.env.clone();
            env::add_shared(&mut vars, &self.launch, table, app);
            env::add_pmix(&mut vars, app, &self.launch, pmix);
            if let Some((port, _)) = pmi_port {
                env::offer_pmi_port(&mut vars, port);
            }
            env::strip_per_rank(&mut vars, app);
            vars.insert("PWD".into(), found.wdir.clone().into_os_string());
            let env = vars.iter().map(|(name, value)| pair(name.as_bytes(), value.as_bytes()));
            let argv = std::iter::once(&app.program).chain(&app.args);
            let argv = argv.map(|a| CString::new(a.as_bytes())).collect::<Result<_, _>>().map_err(nul)?;
            let path = CString::new(found.path.as_os_str().as_bytes()).map_err(nul)?;
            let cwd = CString::new(found.wdir.as_os_str().as_bytes()).map_err(nul)?;
            let env = env.collect::<Result<_, _>>().map_err(nul)?;
            programs.push(Arc::new(Program { path, argv, cwd, env }));
        }
        Ok(programs)
    }
}

/// A variable as a program gets it.
fn pair(name: &[u8], value: &[u8]) -> Result<CString, NulError> {
    let mut pair = Vec::with_capacity(name.len() + value.len() + 2);
    pair.extend_from_slice(name);
    pair.push(b'=');
    pair.extend_from_slice(value);
    CString::new(pair)
}

/// Their ends of a rank's descriptors, with the numbers there.
type Theirs = Vec<(Arc<OwnedFd>, i32)>;

/// A rank's three streams and its request socket.
fn streams(launch: &NodeLaunch, rank: &RankLaunch, null: &Arc<OwnedFd>) -> io::Result<(RankEnds, Theirs)> {
    let (stdin, their_in) = if rank.stdin {
        let (read, write) = stdin::pipe()?;
        (Some(write), Arc::new(read))
    } else if launch.extras.own_stdin == Some(rank.rank) {
        (None, Arc::new(sys::keep(io::stdin().as_fd(), 3)?))
    } else {
        (None, Arc::clone(null))
    };
    let (stdout, their_out) = stdio::output(launch.stdio, launch.extras.window)?;
    let (stderr, their_err) = stdio::pipe()?;
    let (kvs, their_kvs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let proc = ProcId { rank: rank.rank, ..launch.ns };
    let theirs = vec![
        (their_in, 0),
        (Arc::new(their_out), 1),
        (Arc::new(their_err), 2),
        (Arc::new(their_kvs), KVS_FD),
    ];
    let files = RankFiles::default();
    Ok((RankEnds { proc, stdin, stdout, stderr, kvs, files, gone: None }, theirs))
}

/// A memory file with this content that nobody can change any more.
pub(crate) fn seal(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

pub(crate) fn text(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |e| describe(e).to_lowercase())
}

fn describe(errno: i32) -> String {
    nix::Error::from_raw(errno).desc().to_owned()
}

/// What a child's fault means to the user.
pub(crate) fn exec_fault(program: &OsStr, fault: &ExecFault) -> LaunchFault {
    use nix::Error as E;
    let name = program.to_string_lossy();
    let why = describe(fault.errno).to_lowercase();
    let fatal = |what: String, code| LaunchFault::fatal(Stage::Exec, what).code(code);
    match (fault.step, E::from_raw(fault.errno)) {
        (Step::Exec, E::ENOENT) => {
            fatal(format!("{name}: its interpreter or dynamic loader was not found"), exit::NOT_EXECUTABLE)
        }
        (Step::Exec, E::ENOEXEC) => fatal(format!("{name}: exec format error"), exit::NOT_EXECUTABLE),
        (Step::Exec, E::E2BIG) => {
            fatal(format!("{name}: arguments and environment are too long"), exit::NOT_EXECUTABLE)
        }
        (Step::Exec, _) => fatal(format!("{name}: cannot be executed: {why}"), exit::NOT_EXECUTABLE),
        (Step::Cwd, _) => fatal(format!("working directory of {name}: {why}"), exit::NO_WDIR),
        (Step::Setup | Step::Affinity | Step::Memory, _) => {
            fatal(format!("cannot set up {name}: {why}"), exit::LAUNCH)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_boot_block_cannot_be_changed() {
        let fd = seal("rmpi-boot", b"secret").unwrap();
        let mut file = std::fs::File::from(fd);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        std::io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "secret");
    }

    #[test]
    fn faults_of_several_programs_come_together() {
        let apps = ["nosuch-a", "sh", "nosuch-b", "nosuch-a"].map(|p| crate::testing::app(p, &[]));
        let env: Vars = [("PATH".into(), "/bin".into())].into();
        let launch = crate::testing::launch(apps.into(), 1);
        let files = FileLimit { soft: 1024, hard: 1024 };
        let node = Node { env: &env, home: Path::new("/"), temporary: Path::new("/tmp"), files };
        let fault = find_all(&launch, &node, &mut Staging::default(), &mut Vec::new()).unwrap_err();
        assert_eq!(fault.what, "nosuch-a: not found in PATH; nosuch-b: not found in PATH");
        assert_eq!(fault.code, 127);
    }

    #[test]
    fn too_few_descriptors_are_told_before_the_start() {
        let launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 64);
        let files = FileLimit { soft: 256, hard: 256 };
        let node = Node { env: &Vars::new(), home: Path::new("/"), temporary: Path::new("/tmp"), files };
        let fault = prepare(launch, &node, &mut Staging::default()).unwrap_err();
        assert_eq!(fault.what, "limit of 256 open files is too low for 64 ranks");
    }
}
