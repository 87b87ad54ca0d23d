//! What training frameworks look for in the environment beside MPI's own: torchrun's set, JAX's coordinator,
//! TensorFlow's cluster. Shared by all ranks of a node; nothing here overrides what the user has set. Pure.
//!
//! Sources: PyTorch `elastic/agent/server/local_elastic_agent.py`, Lightning `environments/torchelastic.py`, JAX
//! `_src/clusters/ompi_cluster.py`, TensorFlow `tfconfig_cluster_resolver.py`; `docs/frameworks.md` has the table.

use crate::env::Vars;
use rmpi_types::Rank;
use rmpi_types::launch::{EndpointTable, NodeEndpoints, NodeLaunch, RankVars};
use std::net::{IpAddr, SocketAddr};

/// JAX takes bits of this from the job's number for a port it then does not use, as the address below says which.
const JAX_JOB: u32 = 4096;

/// Adds the variables; `meeting` is where rank 0 can listen, if its node has told a port.
pub(crate) fn add(env: &mut Vars, launch: &NodeLaunch, meeting: Option<SocketAddr>) {
    let mut unless_set = |name: &str, value: String| {
        env.entry(name.into()).or_insert_with(|| value.into());
    };
    // Lightning and scripts take rank and size from us then, and start nothing a second time.
    unless_set("TORCHELASTIC_RUN_ID", launch.job.to_string());
    unless_set("TORCHELASTIC_USE_AGENT_STORE", "False".into());
    unless_set("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1".into());
    unless_set("ROLE_NAME", "default".into());
    let Some(meeting) = meeting else { return };
    // Without this variable JAX takes our OMPI_COMM_WORLD_* for Open MPI 5's and insists on mpi4py.
    unless_set("OMPI_MCA_orte_hnp_uri", format!("{JAX_JOB}.0;tcp://{meeting}"));
    unless_set("JAX_COORDINATOR_ADDRESS", meeting.to_string());
}

/// The node of rank 0.
fn first(table: &EndpointTable) -> Option<&NodeEndpoints> {
    table.nodes.iter().find(|n| n.ranks.iter().any(|r| r.rank == Rank(0)))
}

/// Its first address.
pub(crate) fn first_address(table: &EndpointTable) -> Option<IpAddr> {
    first(table)?.addresses.first().copied()
}

/// Where rank 0 can listen: that address, and the port that was free there.
pub(crate) fn meeting(table: &EndpointTable) -> Option<SocketAddr> {
    Some(SocketAddr::new(first_address(table)?, first(table)?.spare_port?))
}

/// `TF_CONFIG` of one rank: all ranks are workers, each at the port that its node has kept for it; where that was
/// asked for.
pub(crate) fn tf_config(launch: &NodeLaunch, table: &EndpointTable, rank: Rank) -> Option<String> {
    if launch.extras.rank_vars != RankVars::Tensorflow {
        return None;
    }
    let mut workers: Vec<(Rank, String)> = Vec::new();
    for node in &table.nodes {
        let address = *node.addresses.first()?;
        let host = match address {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        workers.extend(node.ranks.iter().map(|r| (r.rank, format!("\"{host}:{}\"", r.port))));
    }
    workers.sort_unstable_by_key(|(rank, _)| *rank);
    let list: Vec<String> = workers.into_iter().map(|(_, worker)| worker).collect();
    Some(format!(
        "{{\"cluster\":{{\"worker\":[{}]}},\"task\":{{\"type\":\"worker\",\"index\":{rank}}}}}",
        list.join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::NodeIdx;
    use rmpi_types::launch::RankEndpoint;
    use std::ffi::OsStr;

    fn table() -> EndpointTable {
        let node = |n: u32, ip: [u8; 4], ranks: &[u32]| NodeEndpoints {
            node: NodeIdx(n),
            host: format!("n{n}"),
            addresses: vec![ip.into()],
            ranks: ranks
                .iter()
                .map(|&r| RankEndpoint::plain(Rank(r), u16::try_from(5000 + r).unwrap()))
                .collect(),
            spare_port: (n == 0).then_some(7777),
        };
        EndpointTable { nodes: vec![node(0, [10, 0, 0, 1], &[0, 2]), node(1, [10, 0, 0, 2], &[1])] }
    }

    #[test]
    fn jax_and_torchrun_find_what_they_look_for_and_the_users_stays() {
        let launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 3);
        let mut env: Vars = [("TORCHELASTIC_RUN_ID".into(), "mine".into())].into();
        add(&mut env, &launch, meeting(&table()));
        let get = |name: &str| env.get(OsStr::new(name)).and_then(|v| v.to_str()).unwrap_or_default();
        assert_eq!(get("JAX_COORDINATOR_ADDRESS"), "10.0.0.1:7777");
        assert_eq!(get("OMPI_MCA_orte_hnp_uri"), "4096.0;tcp://10.0.0.1:7777");
        assert_eq!(get("TORCHELASTIC_RUN_ID"), "mine");
        assert_eq!(get("TORCHELASTIC_USE_AGENT_STORE"), "False");
    }

    #[test]
    fn tensorflow_gets_one_list_for_all() {
        let mut launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 3);
        assert_eq!(tf_config(&launch, &table(), Rank(1)), None, "only where it was asked for");
        launch.extras.rank_vars = RankVars::Tensorflow;
        assert_eq!(
            tf_config(&launch, &table(), Rank(1)).unwrap(),
            "{\"cluster\":{\"worker\":[\"10.0.0.1:5000\",\"10.0.0.2:5001\",\"10.0.0.1:5002\"]},\
             \"task\":{\"type\":\"worker\",\"index\":1}}"
        );
    }
}
