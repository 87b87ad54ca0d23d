//! What one node is told to start, and the addresses its ranks can be reached at.

use crate::{CpuSet, DataPlane, JobId, NodeIdx, ProcId, Rank, RankSet};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::IpAddr;

/// How a daemon merges the launcher's environment with the node's own (`--env`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvMerge {
    /// Set what the node's login does not set; `PATH` and `LD_LIBRARY_PATH` get the missing entries appended.
    #[default]
    Fill,
    /// Overwrite the node's values.
    Overwrite,
    /// Start from nothing but `PATH`, `HOME` and `USER`.
    Clear,
}

/// A change of a list variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvEdit {
    /// The variable.
    pub name: OsString,
    /// What is added.
    pub value: OsString,
    /// What stands between entries.
    pub separator: u8,
    /// Before what is there, else after it.
    pub front: bool,
}

/// Variables that the ranks of some launchers have besides the usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RankVars {
    /// None.
    #[default]
    Usual,
    /// horovodrun's `HOROVOD_RANK` and its family.
    Horovod,
    /// torchrun's `ROLE_RANK` and its family.
    Torch,
    /// TensorFlow's `TF_CONFIG`; the ports of native ranks are left to it.
    Tensorflow,
}

/// A host's name as Horovod's workers use it (`HOROVOD_HOSTNAME`): it becomes part of paths and keys there.
#[must_use]
pub fn horovod_label(host: &str) -> String {
    host.chars().map(|c| if matches!(c, '/' | ':' | '#' | ',' | '%') { '_' } else { c }).collect()
}

/// GPUs a rank sees (`-gpus-per-proc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpusPerRank {
    /// The node's, dealt evenly.
    Auto,
    /// This many.
    Count(u32),
}

/// Where a rank's memory comes from (`-membind`, `set_mempolicy(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryPolicy {
    /// The NUMA node of the CPU that first uses it.
    Local,
    /// All NUMA nodes in turn, page by page.
    Interleave,
}

/// Versions of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamily {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// One program of the job (MPMD: several), as its ranks on one node need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLaunch {
    /// Program as the user wrote it: with a `/` used as is (relative to the working directory), else looked
    /// up in `search`, else the rank's `PATH`, then the working directory.
    pub program: OsString,
    /// Arguments after the program.
    pub args: Vec<OsString>,
    /// Working directory.
    pub wdir: OsString,
    /// Whether the user gave `wdir`: a missing one is then an error (125), else the home directory is used
    /// and a note sent.
    pub wdir_explicit: bool,
    /// `--path`: directories to search first.
    pub search: Vec<OsString>,
    /// How `env` meets the node's environment.
    pub merge: EnvMerge,
    /// The forwarded environment.
    pub env: Vec<(OsString, OsString)>,
    /// Explicit settings (`-x`); `None` unsets.
    pub set: Vec<(OsString, Option<OsString>)>,
    /// Changes of lists, applied last.
    pub edits: Vec<EnvEdit>,
}

/// One rank of a node. Strings that repeat live in [`AppLaunch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankLaunch {
    /// The rank.
    pub rank: Rank,
    /// Index into [`NodeLaunch::apps`].
    pub app: u32,
    /// Rank among the job's ranks on this node, dense from 0.
    pub local_rank: u32,
    /// CPUs to bind to; `None` leaves it unbound.
    pub cpus: Option<CpuSet>,
    /// Whether this rank gets the launcher's standard input; all others read `/dev/null`.
    pub stdin: bool,
}

/// Standard output of ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdioKind {
    /// A pipe each for stdout and stderr.
    #[default]
    Pipe,
    /// A pseudo-terminal for stdout (raw, so no carriage returns), a pipe for stderr.
    Pty,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The seldom used part of a [`NodeLaunch`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Further variables of ranks.
    pub rank_vars: RankVars,
    /// Which start of the job this is, from 0.
    pub restart: u32,
    /// How often it may be started again in all.
    pub restarts: u32,
    /// GPUs each rank sees; `None` leaves that to the node.
    pub gpus_per_rank: Option<GpusPerRank>,
    /// Those are parts of GPUs, where a GPU has some.
    pub gpu_parts: bool,
    /// Only addresses of this family.
    pub ip: Option<IpFamily>,
    /// The address that other nodes are to use, if it could be resolved.
    pub advertise: Option<IpAddr>,
    /// Files that were sent before this order, in the order of their numbers.
    pub files: Vec<StagedFile>,
    /// Ranks start in the job's own folder on the node.
    pub in_session: bool,
    /// Ranks are stopped before their first instruction, for a debugger.
    pub stop_on_exec: bool,
    /// Size of the ranks' terminals, where they have some: that of the launcher's.
    pub window: Option<Window>,
    /// This rank reads the daemon's own standard input, which is the launcher's.
    pub own_stdin: Option<Rank>,
    /// PMI is offered on a TCP port (`PMI_PORT`, `PMI_ID`) instead of an inherited descriptor.
    pub pmi_port: bool,
    /// Where ranks' memory comes from; `None` leaves what the daemon has.
    pub memory: Option<MemoryPolicy>,
    /// Output files on this node.
    pub output: Option<NodeFiles>,
    /// An MPI program may end with code 0 without finalizing.
    pub unfinished_ok: bool,
    /// Signals go to the ranks' own processes only, not to their process groups.
    pub signal_direct: bool,
}

/// Output files that a node writes itself (`--output-where node`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFiles {
    /// Where they are.
    pub layout: crate::output::FileLayout,
    /// Both streams in one file.
    pub merge: bool,
    /// The launcher gets a copy of what the layout does not keep from the console.
    pub copy: bool,
    /// The job's name in paths.
    pub namespace: String,
}

/// A file that a node was sent for its ranks; it is removed when the job ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its name, without a folder.
    pub name: OsString,
    /// It is the program of this entry of [`NodeLaunch::apps`]; else it belongs into the ranks' working directory.
    pub app: Option<u32>,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

/// Which process-management protocols ranks are offered (`--pmi`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PmiKind {
    /// PMI-1, PMI-2 and PMIx: whatever library a program has finds its own.
    #[default]
    Auto,
    /// PMI-1 only.
    Pmi1,
    /// PMI-2 only.
    Pmi2,
    /// PMIx only.
    Pmix,
    /// Nothing: such programs run as if they were alone.
    None,
}

impl PmiKind {
    /// Whether PMI-1 or PMI-2 is offered.
    #[must_use]
    pub fn pmi(self) -> bool {
        matches!(self, Self::Auto | Self::Pmi1 | Self::Pmi2)
    }

    /// Whether PMIx is offered.
    #[must_use]
    pub fn pmix(self) -> bool {
        matches!(self, Self::Auto | Self::Pmix)
    }
}

/// What MPI programs that are not linked with us get to know of their namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mpi {
    /// What they are offered.
    pub pmi: PmiKind,
    /// Ranks of each program, on all nodes; may be left out where there is one.
    pub apps: Vec<RankSet>,
    /// Which nodes of the job those of this namespace are, in their order; left out where they are all of them.
    pub nodes: Vec<u32>,
    /// Who spawned them.
    pub parent: Option<ProcId>,
    /// What their PMI key-value space begins with.
    pub preputs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything a daemon needs to prepare and start its ranks of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLaunch {
    /// The job.
    pub job: JobId,
    /// Namespace and epoch; `rank` is 0 and not used.
    pub ns: ProcId,
    /// This node's index.
    pub node: NodeIdx,
    /// Number of nodes in the job.
    pub nodes: u32,
    /// Number of ranks in the namespace.
    pub size: u32,
    /// Number of slots in the whole allocation (MPI's universe size); 0 when not limited.
    pub universe: u32,
    /// Host name as the user wrote it, for messages.
    pub host: String,
    /// Programs.
    pub apps: Vec<AppLaunch>,
    /// This node's ranks, ascending.
    pub ranks: Vec<RankLaunch>,
    /// Ranks per node of the whole namespace, ascending node index, run-length coded `(count, nodes)`.
    pub layout: Vec<(u32, u32)>,
    /// What MPI programs that are not linked with us get to know.
    pub mpi: Mpi,
    /// The address the host was reached at. A loopback address here means: offer only this one.
    pub reached_at: Option<IpAddr>,
    /// Interfaces or networks that rank traffic may use, in the user's words; empty for all.
    pub ifaces: Vec<String>,
    /// Ports that rank listeners may use, both ends included.
    pub port_range: Option<(u16, u16)>,
    /// Secret shared by the job's ranks: every data connection proves knowledge of it. 32 bytes.
    pub key: [u8; 32],
    /// The rail of native ranks, and whether their data is encrypted: then each rank gets a key pair.
    pub data: DataPlane,
    /// More ranks than usable cores on this node: waiting ranks must yield.
    pub oversubscribed: bool,
    /// Standard output kind.
    pub stdio: StdioKind,
    /// Milliseconds from SIGTERM to SIGKILL when ranks are stopped.
    pub kill_grace_ms: u32,
    /// Milliseconds to go on draining output of stopped ranks.
    pub drain_ms: u32,
    /// What is seldom asked for.
    pub extras: Extras,
    /// Bytes of one output stream in flight before the daemon stops reading the rank's pipe.
    pub output_credit: u32,
}

/// Where one rank listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankEndpoint {
    /// The rank.
    pub rank: Rank,
    /// TCP port, the same on every address of the node.
    pub port: u16,
    /// UDP port of the QUIC rail, where it is used.
    pub udp_port: Option<u16>,
    /// Public half (Ed25519) of its key pair, when the job's data is encrypted.
    pub public_key: Option<[u8; 32]>,
}

impl RankEndpoint {
    /// A rank that talks in clear, over TCP.
    #[must_use]
    pub const fn plain(rank: Rank, port: u16) -> Self {
        Self { rank, port, udp_port: None, public_key: None }
    }
}

/// One node's block of the endpoint table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoints {
    /// The node.
    pub node: NodeIdx,
    /// Its host name as the user wrote it, for messages of the rank library.
    pub host: String,
    /// Addresses in the order to try: routable first, bridges last. A node reached over loopback has one.
    pub addresses: Vec<IpAddr>,
    /// Its ranks, ascending.
    pub ranks: Vec<RankEndpoint>,
    /// A port on this node that was free at preparation, for `MASTER_PORT`; only rank 0's node needs it.
    pub spare_port: Option<u16>,
}

/// Endpoint table of a namespace and epoch: one block a node, append-only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTable {
    /// Blocks in node order.
    pub nodes: Vec<NodeEndpoints>,
}
