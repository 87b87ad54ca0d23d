//! Variables by which a program finds this server, whichever MPI it was linked with: one environment for Open
//! MPI 4.1, Open MPI 5 and anything else that speaks PMIx.

use super::PmixServer;
use super::jobs::server_name;
use rmpi_types::ProcId;

impl PmixServer {
    /// Variables that all ranks of a namespace on this node share; the server listens on this port of 127.0.0.1.
    #[must_use]
    pub fn shared_env(&self, of: ProcId, port: u16) -> Vec<(&'static str, String)> {
        let Some(job) = self.jobs.get(of.ns) else { return Vec::new() };
        let space = &job.space;
        let server = server_name(space.job);
        let node = self.setup.node;
        let host = job.here(node).map(|at| job.hosts[at].to_string()).unwrap_or_default();
        let mut vars = vec![
            ("PMIX_NAMESPACE", job.name.to_string()),
            // The variable's name decides how clients pack: this one is known from 3.0 on, and all take it.
            ("PMIX_SERVER_URI3", format!("{server}.{node};tcp4://127.0.0.1:{port}")),
            // Clients that do not see it take the server for one of 3.0, whose spawns they cannot follow.
            ("PMIX_VERSION", "4.2.2".into()),
            ("PMIX_SECURITY_MODE", "native".into()),
            ("PMIX_BFROP_BUFFER_TYPE", "PMIX_BFROP_BUFFER_NON_DESC".into()),
            // No shared-memory store: what clients know comes in answers.
            ("PMIX_GDS_MODULE", "hash".into()),
            ("PMIX_HOSTNAME", host),
            ("PMIX_SERVER_TMPDIR", self.setup.folder.clone()),
            ("PMIX_SYSTEM_TMPDIR", "/tmp".into()),
            // Open MPI 4.1 asks these whether it was launched at all; nothing connects there.
            ("OMPI_MCA_orte_launch", "1".into()),
            ("OMPI_MCA_orte_local_daemon_uri", format!("{server}.{node};tcp://127.0.0.1:{port}")),
            ("OMPI_MCA_orte_ess_num_procs", space.size.to_string()),
            ("OMPI_MCA_orte_num_nodes", space.nodes.len().to_string()),
            ("OMPI_MCA_orte_precondition_transports", transports(space.job.0)),
        ];
        if self.setup.oversubscribed {
            vars.push(("OMPI_MCA_mpi_oversubscribe", "1".into()));
            vars.push(("OMPI_MCA_mpi_yield_when_idle", "1".into()));
        }
        vars
    }

    /// Variables of one rank.
    #[must_use]
    pub fn rank_env(&self, proc: ProcId) -> Vec<(&'static str, String)> {
        let Some(job) = self.jobs.get(proc.ns) else { return Vec::new() };
        vec![("PMIX_RANK", proc.rank.to_string()), ("PMIX_ID", format!("{}.{}", job.name, proc.rank))]
    }
}

/// A key that transports of Open MPI compare: the same for all ranks of a job.
fn transports(job: [u8; 16]) -> String {
    let half = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}-{}", half(&job[..8]), half(&job[8..]))
}
