//! What the user asked for, fully understood: the result of reading options, environment and host files,
//! and the input of planning and launching. No field here is text that still has to be parsed, except host
//! and interface names.

use crate::launch::{EnvEdit, EnvMerge, GpusPerRank, IpFamily, MemoryPolicy, PmiKind, RankVars};
pub use crate::output::{FileLayout, Files, Output, Piece, Redirects, Shown, Tag};
use crate::{CpuSet, DataPlane, Rank, RankSet};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A job as asked for. [`Default`] is one rank a usable core on this machine, of no program yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobSpec {
    /// Programs in order of their ranks (MPMD: several).
    pub apps: Vec<App>,
    /// Hosts the job may use, in order; empty means this machine only.
    pub hosts: Vec<Host>,
    /// Mapping, ranking, binding.
    pub placement: Placement,
    /// Getting onto the hosts.
    pub reach: Reach,
    /// Output of ranks.
    pub output: Output,
    /// Who reads our standard input.
    pub stdin: Stdin,
    /// Time limits.
    pub limits: Limits,
    /// What a failing rank means.
    pub on_failure: OnFailure,
    /// Interfaces or networks (names or CIDR) rank traffic may use; empty for all.
    pub ifaces: Vec<String>,
    /// Which process-management protocols MPI programs are offered.
    pub pmi: PmiKind,
    /// Ports our listeners may use, both ends included.
    pub port_range: Option<(u16, u16)>,
    /// The rail of native ranks, and whether their data is encrypted.
    pub data: DataPlane,
    /// Only addresses of this family.
    pub ip: Option<IpFamily>,
    /// What ranks elsewhere are to call the launcher's own node, instead of its own addresses.
    pub advertise: Option<String>,
    /// MPI's universe size, where not the slots of the allocation.
    pub universe: Universe,
    /// How often the whole job is started again after a failure.
    pub restarts: u32,
    /// Variables that the ranks of some launchers have besides the usual ones.
    pub rank_vars: RankVars,
    /// How Horovod's workers find each other.
    pub horovod: Horovod,
    /// Devices each rank sees.
    pub gpus_per_rank: Option<GpusPerRank>,
    /// Those are parts of devices (`-gpu-subdevs-per-proc`).
    pub gpu_parts: bool,
    /// Where ranks' memory comes from.
    pub memory: Option<MemoryPolicy>,
    /// What is told when the time limit is reached.
    pub on_timeout: OnTimeout,
    /// Files of ours that are copied into the ranks' working directory and removed at the end; made absolute.
    pub preload: Vec<PathBuf>,
    /// Ranks start in the job's own folder on each node.
    pub in_session: bool,
    /// Ranks are stopped before their first instruction, for a debugger.
    pub stop_on_exec: bool,
    /// PMI is offered on a TCP port instead of an inherited descriptor.
    pub pmi_port: bool,
    /// What spawned ranks do is told, but does not count (`-report-child-jobs-separately`).
    pub children_apart: bool,
    /// An MPI program may end with code 0 without finalizing.
    pub unfinished_ok: bool,
    /// Signals go to the ranks' own processes only, not to their process groups.
    pub signal_direct: bool,
}

/// How Horovod's workers find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Horovod {
    /// By MPI, or there are none.
    #[default]
    Mpi,
    /// In a store that the launcher serves.
    Gloo,
    /// In that store, in a job whose hosts come and go.
    Elastic(Elastic),
}

/// A job whose hosts come and go (`--min-np`, `--host-discovery-script`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Elastic {
    /// Prints the hosts there are at the moment, run by a shell once a second; without it they are fixed.
    pub script: Option<OsString>,
    /// Slots of a host that it prints without a count.
    pub slots_per_host: Option<u32>,
    /// Slots needed to go on after a change; those of the first start unless set.
    pub min_np: Option<u32>,
    /// Most ranks.
    pub max_np: Option<u32>,
    /// Longest wait for enough slots, each time; 600 s unless set.
    pub timeout: Option<Duration>,
    /// More resets than this end the job.
    pub reset_limit: Option<u32>,
    /// From and to which pause a host that failed may return after; never unless set.
    pub cooldown: Option<(Duration, Duration)>,
}

/// MPI's universe size (`-usize`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Universe {
    /// The slots of the allocation.
    #[default]
    Slots,
    /// Not limited.
    Infinite,
    /// This many.
    Count(u32),
}

/// What is told about ranks when the time limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnTimeout {
    /// A line a rank: where it is and whether it still runs.
    pub state: bool,
    /// What each rank's threads are doing.
    pub stacks: bool,
    /// How long is waited for that; 30 s unless set.
    pub stacks_wait: Option<Duration>,
}

/// One program and how many ranks of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct App {
    /// Program, as written.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Ranks; `None` fills the slots (or what `placement` says per node).
    pub np: Option<u32>,
    /// Working directory, if the user gave one (made absolute against the launcher's).
    pub wdir: Option<PathBuf>,
    /// `--path` directories.
    pub search: Vec<OsString>,
    /// Environment.
    pub env: Env,
    /// Only these hosts (indices into [`JobSpec::hosts`]); `None` for all.
    pub hosts: Option<Vec<usize>>,
    /// Name of the process set its ranks are in (`--pset`).
    pub pset: Option<String>,
    /// The program is ours and copied to the nodes (`--preload-binary`).
    pub preload: bool,
}

/// Which variables ranks get beside those the launcher sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Env {
    /// What is forwarded from our own environment.
    pub forward: Forward,
    /// How it meets the node's.
    pub merge: EnvMerge,
    /// Explicit settings in order (`-x`, `-genv`); `None` unsets.
    pub set: Vec<(OsString, Option<OsString>)>,
    /// Names, or `PREFIX*`, exported although the deny list has them (`-x NAME`).
    pub export: Vec<OsString>,
    /// Changes of lists, applied on the node after everything else (`--prepend-env`, `--prefix`).
    pub edits: Vec<EnvEdit>,
}

/// What is forwarded from the launcher's environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Forward {
    /// Everything but the deny list.
    #[default]
    Most,
    /// Only `OMPI_*`, `PMIX_*`, `RMPI_*`, `RMPIRUN_*` and what `-x` names.
    MpiOnly,
    /// Only what is named.
    Nothing,
}

/// A host of the pool, repeated mentions already added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Name or address to dial, never shortened.
    pub name: String,
    /// SSH user.
    pub user: Option<String>,
    /// SSH port.
    pub port: Option<u16>,
    /// Slots.
    pub slots: Slots,
    /// Limit on ranks even with oversubscription.
    pub max_slots: Option<u32>,
    /// Binding of this host's ranks (Hydra's `binding=`), instead of the job's.
    pub bind_to: Option<BindTo>,
    /// `file:line` (or the option) it came from, for messages.
    pub origin: String,
}

/// Slots of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slots {
    /// The node's usable cores (threads with `use_hwthreads`), known when its daemon reports.
    #[default]
    Auto,
    /// This many.
    Count(u32),
}

/// Mapping, ranking and binding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Which node (and object) each rank goes to.
    pub map_by: MapBy,
    /// Object-level modifier `PE=n`: this many CPUs a rank.
    pub pe: Option<u32>,
    /// `SPAN`: treat all nodes' objects as one.
    pub span: bool,
    /// Order of ranks over mapped places; `None` follows `map_by`.
    pub rank_by: Option<RankBy>,
    /// CPUs.
    pub bind_to: BindTo,
    /// More ranks than slots allowed.
    pub oversubscribe: bool,
    /// More ranks than CPUs allowed where binding was asked for.
    pub overload: bool,
    /// No ranks on the launcher's own host.
    pub nolocal: bool,
    /// Use at most this many nodes.
    pub max_nodes: Option<u32>,
    /// Ranks a node (`-N`, `--npernode`); node by node with `np`.
    pub per_node: Option<u32>,
    /// Slots and PEs are hardware threads.
    pub use_hwthreads: bool,
    /// Host list order and repeats are places, as Hydra's `-hosts n1,n2,n1`.
    pub listed_order: bool,
    /// Only these logical CPUs of each node (`--cpu-set`).
    pub cpu_set: Option<CpuSet>,
    /// A host without a count has as many slots as GPUs, not cores.
    pub slots_by_gpu: bool,
    /// Objects a rank is bound to where `bind_to` names a kind of them (Hydra's `socket:2`); 1 unless set.
    pub bind_count: Option<u32>,
    /// Ranks of a node take the objects they are bound to in this order (Hydra's `-map-by`).
    pub bind_order: Option<Object>,
}

impl Placement {
    /// Whether it depends on which CPUs share caches.
    #[must_use]
    pub fn by_caches(&self) -> bool {
        let map = match &self.map_by {
            MapBy::Object(object) | MapBy::Ppr(_, object) => object.is_cache(),
            MapBy::Slot | MapBy::Seq(_) | MapBy::Rankfile(_) => false,
        };
        let rank = matches!(self.rank_by, Some(RankBy::Object(object)) if object.is_cache());
        map || rank || self.bind_to.by_caches()
    }
}

impl BindTo {
    /// Whether it depends on which CPUs share caches.
    #[must_use]
    pub fn by_caches(&self) -> bool {
        matches!(self, Self::Object(object) if object.is_cache())
    }
}

impl Object {
    const fn is_cache(self) -> bool {
        matches!(self, Self::L1 | Self::L2 | Self::L3)
    }
}

/// Hardware objects ranks can be mapped by and bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// Hardware thread.
    Hwthread,
    /// Core.
    Core,
    /// First-level cache.
    L1,
    /// Second-level cache.
    L2,
    /// Third-level cache.
    L3,
    /// NUMA node.
    Numa,
    /// Package (socket).
    Package,
    /// The whole node.
    Node,
}

/// Mapping policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MapBy {
    /// Fill a node's slots, then the next.
    #[default]
    Slot,
    /// Deal over objects: over nodes for [`Object::Node`], over a node's objects (filling it) otherwise.
    Object(Object),
    /// N ranks on each object of this kind.
    Ppr(u32, Object),
    /// One rank a host line, in order, slots ignored: indices into [`JobSpec::hosts`].
    Seq(Vec<usize>),
    /// Explicit: one entry a rank.
    Rankfile(Vec<RankfileEntry>),
}

/// One line of a rank file.
#[derive(Clone, Debug, PartialEq)]
pub struct RankfileEntry {
    /// The rank.
    pub rank: Rank,
    /// Index into [`JobSpec::hosts`].
    pub host: usize,
    /// Logical CPUs it is bound to; `None` when the line names none.
    pub cpus: Option<RankfileCpus>,
    /// `file:line` for messages.
    pub origin: String,
}

/// CPUs of a rank-file line: logical core numbers, or per package.
#[derive(Clone, Debug, PartialEq)]
pub enum RankfileCpus {
    /// Logical cores of the node.
    Cores(RankSet),
    /// `package:cores`; an empty set means all cores of that package.
    Package(u32, RankSet),
    /// CPUs by the operating system's numbers.
    Os(CpuSet),
}

/// Ranking policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    /// Node by node in slot order.
    Slot,
    /// Round-robin over nodes.
    Node,
    /// Fill each object before the next.
    Fill,
    /// Round-robin over all objects of all nodes.
    Span,
    /// Round-robin over objects of this kind.
    Object(Object),
}

/// Binding policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum BindTo {
    /// Each local rank an equal, contiguous, NUMA-respecting share of the usable CPUs.
    #[default]
    Share,
    /// Not bound.
    None,
    /// To one object (or `pe` of them).
    Object(Object),
    /// Open MPI's default: core for two ranks or fewer, else package.
    OpenMpi,
    /// Local rank I to the CPUs of entry I; with fewer entries than ranks round again if that is allowed.
    List(CpuList),
    /// To the CPUs near the GPU that the rank uses.
    Gpu,
}

/// CPUs named one by one (`--map-by pe-list=`, `--bind-to cpu-list`, Hydra's `user:`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList {
    /// One entry a local rank.
    pub entries: Vec<CpuSet>,
    /// Numbers are the operating system's; else logical cores (with `use_hwthreads`, threads).
    pub os: bool,
    /// Each rank gets its entry; else every rank all of them.
    pub ordered: bool,
}

/// Getting onto the hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// An agent called as `agent host command…` instead of the built-in SSH client; its own words first.
    pub agent: Option<Vec<OsString>>,
    /// Hosts that are this machine need no agent: it is a resource manager's tool, not the user's wish.
    pub local_beside_agent: bool,
    /// The agent passes no standard input on: it only starts the daemons, which dial the launcher.
    pub dial_back: bool,
    /// Hosts are pods that may be on their way: whatever may pass is tried until the launch limit.
    pub patient: bool,
    /// Names of this machine that its host name does not say, in lower case: a pod's own, qualified.
    pub own_names: Vec<String>,
    /// SSH port for hosts that give none.
    pub ssh_port: Option<u16>,
    /// SSH user for hosts that give none.
    pub ssh_user: Option<String>,
    /// Key files to try first.
    pub identities: Vec<PathBuf>,
    /// Another `ssh_config`; `none` as a path reads no file at all.
    pub ssh_config: Option<PathBuf>,
    /// Further `ssh -o KEY=VALUE` settings, first wins, before the files.
    pub ssh_options: Vec<(String, String)>,
    /// What to do about unknown host keys; `None` follows the configuration, strict when that says nothing.
    pub host_keys: Option<HostKeys>,
    /// Connections in handshake at once.
    pub concurrency: usize,
    /// TCP, key exchange and authentication of one attempt.
    pub connect_timeout: Duration,
    /// Attempts per host within the launch limit; refused and unresolved hosts are tried until that limit.
    pub connect_retries: u32,
    /// The daemon binary on the hosts, instead of pushing ours.
    pub daemon: Option<PathBuf>,
    /// Run ranks of hosts that are this machine without SSH.
    pub local_direct: bool,
    /// Go on if at least this many hosts can be used.
    pub min_hosts: Option<u32>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            agent: None,
            local_beside_agent: false,
            dial_back: false,
            patient: false,
            own_names: Vec::new(),
            ssh_port: None,
            ssh_user: None,
            identities: Vec::new(),
            ssh_config: None,
            ssh_options: Vec::new(),
            host_keys: None,
            concurrency: 64,
            connect_timeout: Duration::from_secs(10),
            connect_retries: 3,
            daemon: None,
            local_direct: true,
            min_hosts: None,
        }
    }
}

/// Policies for host keys (`StrictHostKeyChecking`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeys {
    /// Unknown keys are refused.
    Strict,
    /// Unknown keys are added to the user's file; changed and revoked ones refused.
    AcceptNew,
    /// No check. Changed keys are accepted too.
    Off,
}

/// Who reads our standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// This rank.
    Rank(Rank),
    /// Nobody: it is not touched.
    None,
    /// Every rank gets a copy.
    All,
}

impl Stdin {
    /// Whether this rank reads it.
    #[must_use]
    pub fn read_by(&self, rank: Rank) -> bool {
        match self {
            Self::Rank(reader) => *reader == rank,
            Self::All => true,
            Self::None => false,
        }
    }
}

impl Default for Stdin {
    fn default() -> Self {
        Self::Rank(Rank(0))
    }
}

/// Time limits (defaults: `docs/options.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The whole launch; `None` is 60 s + 0.1 s a host.
    pub launch: Option<Duration>,
    /// The job.
    pub job: Option<Duration>,
    /// SIGTERM to SIGKILL.
    pub kill_grace: Duration,
    /// In a pod, where the user says nothing of the grace: what it has from the launcher's SIGTERM to its own end,
    /// unless Kubernetes says otherwise. Ranks get that, less a moment for us, and not `kill_grace`.
    pub pod_grace: Option<Duration>,
    /// Draining output after a failure.
    pub drain: Duration,
    /// Heartbeat period.
    pub heartbeat: Duration,
    /// Silence after which a peer is lost.
    pub lost: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            launch: None,
            job: None,
            kill_grace: Duration::from_secs(5),
            pod_grace: None,
            drain: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
            lost: Duration::from_secs(6),
        }
    }
}

/// What a failing rank means for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Stop them.
    #[default]
    Stop,
    /// Let them end by themselves; the exit code still tells.
    Continue,
}

/// Variables by name: what a whole environment is passed as.
pub type EnvMap = BTreeMap<OsString, OsString>;
