//! What is simulated: size and shape of the cluster, what ranks do, and which faults come when.

use rmpi_types::spec::{Limits, OnFailure, Stdin};
use rmpi_types::{NodeIdx, Rank};
use std::time::Duration;

/// The shape of the launch tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Every daemon has a link to the launcher.
    Star,
    /// Relays with links to the launcher, each with up to `fanout` daemons that dialled it.
    DepthTwo {
        /// Children of a relay.
        fanout: u32,
    },
}

/// A step of a rank's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Writes this many bytes to its standard output.
    Print(u32),
    /// Computes.
    Sleep(Duration),
    /// Uses the library: says hello.
    Hello,
    /// Ends its use of the library.
    Finalize,
    /// Puts a value under this key.
    Put(&'static str),
    /// Gets what a rank put under a key, waiting; a wrong value is a failed check, a lost rank ends this one
    /// with [`LOST_CODE`].
    Get(Rank, &'static str),
    /// Takes part in a fence; ends with [`LOST_CODE`] when that fails.
    Fence,
    /// As a server's client: gathers with the ranks of its third of the job, each bringing its number; a wrong
    /// result is a failed check. Ends with [`LOST_CODE`] when that fails.
    Gather,
    /// As a server's client: publishes a name.
    Publish(&'static str),
    /// As a server's client: looks a name up, waiting for it; another value than the publisher's is a failed check.
    Lookup(&'static str),
    /// As a server's client: asks the server on a rank's node; another answer than what it gives is a failed
    /// check. Ends with [`LOST_CODE`] when the rank is lost.
    Ask(Rank),
    /// As a server's client: spawns so many ranks, which do [`Config::spawned`]; being refused ends it with
    /// [`LOST_CODE`].
    Spawn(u32),
    /// Reads standard input to its end.
    ReadStdin,
    /// Calls abort, then hangs.
    Abort(i32),
    /// Exits.
    Exit(u8),
    /// Dies of a signal.
    Crash(i32),
    /// Does nothing until it is killed.
    Hang,
    /// From now on does not die of SIGTERM or SIGINT.
    IgnoreTerm,
}

/// With what a rank exits whose peer was lost.
pub const LOST_CODE: u8 = 77;

/// What each rank does; after the last act it exits with 0.
pub type Program = fn(Rank, u32) -> Vec<Act>;

/// Something that goes wrong, or that the user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The driver gives the host up.
    Unreachable(NodeIdx),
    /// The daemon cannot prepare its ranks.
    CannotPrepare(NodeIdx),
    /// Daemon and ranks die at once; its streams end.
    Kill(NodeIdx),
    /// The node is powered off: nothing comes from it any more, not even an end of file.
    PowerOff(NodeIdx),
    /// The cable of the node's link towards the launcher is pulled: both sides live, nothing passes.
    Cut(NodeIdx),
    /// The node's stream towards the launcher breaks; a dialled one is dialled again after a moment.
    Break(NodeIdx),
    /// Nothing passes the node's link for this long; then everything does.
    Stall(NodeIdx, Duration),
    /// The launcher is killed.
    KillLauncher,
    /// The user's signal.
    Signal(i32),
    /// The host is being shut down, and its daemon is told.
    HostEnds(NodeIdx),
    /// Kubernetes says how long the launcher's pod has from SIGTERM to its end.
    PodGrace(Duration),
    /// Our standard output is closed.
    BrokenPipe,
}

/// One simulation.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nodes.
    pub daemons: u32,
    /// Ranks on each.
    pub ranks_per_node: u32,
    /// Shape.
    pub tree: Tree,
    /// Least and largest delay of a frame.
    pub delay: (Duration, Duration),
    /// When what goes wrong.
    pub faults: Vec<(Duration, Fault)>,
    /// What ranks do.
    pub program: Program,
    /// What spawned ranks do.
    pub spawned: Program,
    /// How long the sink of output takes for each piece.
    pub write: Duration,
    /// Bytes of our standard input.
    pub stdin: u64,
    /// Who reads it.
    pub stdin_to: Stdin,
    /// Time limits of the job.
    pub limits: Limits,
    /// What a failing rank means.
    pub on_failure: OnFailure,
    /// Go on with at least so many hosts.
    pub min_hosts: Option<u32>,
    /// Credit of an output stream in bytes.
    pub credit: u32,
    /// When the simulation is given up, which is a failed check.
    pub until: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            daemons: 4,
            ranks_per_node: 2,
            tree: Tree::Star,
            delay: (Duration::from_micros(50), Duration::from_millis(5)),
            faults: Vec::new(),
            program: |_, _| Vec::new(),
            spawned: |_, _| Vec::new(),
            write: Duration::ZERO,
            stdin: 0,
            stdin_to: Stdin::None,
            limits: Limits::default(),
            on_failure: OnFailure::Stop,
            min_hosts: None,
            credit: 256 << 10,
            until: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Which node relays for `node`; relays are the first nodes.
    #[must_use]
    pub fn parent(&self, node: NodeIdx) -> Option<NodeIdx> {
        let Tree::DepthTwo { fanout } = self.tree else { return None };
        let relays = self.daemons.div_ceil(fanout + 1);
        (node.0 >= relays).then(|| NodeIdx((node.0 - relays) % relays))
    }

    /// The node a rank is on.
    #[must_use]
    pub fn node_of(&self, rank: Rank) -> NodeIdx {
        NodeIdx(rank.0 / self.ranks_per_node)
    }

    /// Ranks of the job.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.daemons * self.ranks_per_node
    }
}
