//! What a daemon says about its node in its first message.

use crate::Topology;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;

/// What makes a node one node: boot id and PID-, IPC- and network-namespace ids, or an id that the start
/// command gave (`RMPI_NODE_ID`). Two host names with one `NodeId` are one node. Never an address or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub String);

/// A daemon's report: all the planner and the launcher need to know of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node's identity.
    pub id: NodeId,
    /// `gethostname(2)`.
    pub hostname: String,
    /// The worker process of the daemon.
    pub pid: u32,
    /// Usable CPUs.
    pub topology: Topology,
    /// The login's home directory.
    pub home: OsString,
    /// The hard limit of open files after the daemon raised its own.
    pub nofile: u64,
    /// The node's wall clock in microseconds since 1970, read when the report was sent.
    pub wall_us: u64,
}
