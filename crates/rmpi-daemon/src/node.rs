//! What this node says of itself in its first message, and the limits the daemon raises for itself.

use crate::passwd;
use crate::topo::{self, Caches};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rmpi_types::{CpuSet, NodeId, NodeReport};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Variable of the start command that names the node, instead of what is found.
pub(crate) const ENV_NODE_ID: &str = "RMPI_NODE_ID";

/// Wall clock in microseconds since 1970.
pub(crate) fn wall_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// How closely a node is looked at: reading the kernel's files is a good part of a small job's launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survey {
    /// Its caches.
    pub(crate) caches: Caches,
    /// What tells it apart from other nodes.
    pub(crate) identity: bool,
}

impl Survey {
    /// Everything.
    pub(crate) const WHOLE: Self = Self { caches: Caches::Read, identity: true };
}

/// Examines the node. `nofile` is the hard limit of open files, `allowed` are the CPUs of this process.
pub(crate) fn report(nofile: u64, allowed: &CpuSet, survey: Survey) -> NodeReport {
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    NodeReport {
        id: if survey.identity { identity() } else { NodeId("here".into()) },
        hostname: hostname.to_string_lossy().into_owned(),
        pid: std::process::id(),
        topology: topo::read(Path::new("/"), allowed, survey.caches),
        home: passwd::home(),
        nofile,
        wall_us: wall_us(),
    }
}

/// The id given by the start command, else boot id and namespaces.
fn identity() -> NodeId {
    if let Some(id) = std::env::var_os(ENV_NODE_ID).filter(|id| !id.is_empty()) {
        return NodeId(id.to_string_lossy().into_owned());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = boot.trim().to_owned();
    for namespace in ["pid", "ipc", "net"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap_or_default();
        id.push('/');
        id.push_str(&link.to_string_lossy());
    }
    NodeId(id)
}

/// The limits of open files: as they were (for ranks), and as raised for the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileLimit {
    /// Soft limit before it was raised.
    pub(crate) soft: u64,
    /// Hard limit.
    pub(crate) hard: u64,
}

/// Raises the soft limit of open files to the hard one.
pub(crate) fn raise_files() -> FileLimit {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // Not being allowed to is no fault: too many ranks are told at preparation.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    FileLimit { soft, hard }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_about_here() {
        let report = report(1024, &CpuSet::default(), Survey::WHOLE);
        assert!(!report.id.0.is_empty() && !report.hostname.is_empty());
        assert_eq!(report.id, identity());
    }
}
