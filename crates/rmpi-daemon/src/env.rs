//! The environment of ranks: how what the launcher sent meets the node's own (`docs/environment.md`), and the
//! variables set for each rank. Pure.

use crate::frameworks;
use crate::prepare::KVS_FD;
use rmpi_types::launch::{
    AppLaunch, EndpointTable, EnvEdit, EnvMerge, NodeLaunch, PmiKind, RankLaunch, StdioKind,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Variables by name.
pub(crate) type Vars = BTreeMap<OsString, OsString>;

/// Lists whose missing entries are appended instead of left out.
const LISTS: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
/// What [`EnvMerge::Clear`] keeps.
const KEPT: [&str; 3] = ["PATH", "HOME", "USER"];
/// Above this many hosts `RMPIRUN_HOSTS` is left out: an environment has a limit.
const MAX_HOSTS: usize = 1024;

/// The environment of an application's ranks before the per-rank variables.
pub(crate) fn merge(node: &Vars, app: &AppLaunch) -> Vars {
    let mut env = match app.merge {
        EnvMerge::Fill | EnvMerge::Overwrite => node.clone(),
        EnvMerge::Clear => {
            let kept = KEPT.iter().filter_map(|n| node.get_key_value(OsStr::new(n)));
            kept.map(|(n, v)| (n.clone(), v.clone())).collect()
        }
    };
    for (name, value) in &app.env {
        match (app.merge, env.get_mut(name)) {
            (EnvMerge::Fill, Some(old)) if LISTS.iter().any(|l| OsStr::new(l) == name) => append(old, value),
            (EnvMerge::Fill, Some(_)) => {}
            (EnvMerge::Fill | EnvMerge::Overwrite | EnvMerge::Clear, _) => {
                env.insert(name.clone(), value.clone());
            }
        }
    }
    for (name, value) in &app.set {
        match value {
            Some(value) => env.insert(name.clone(), value.clone()),
            None => env.remove(name),
        };
    }
    app.edits.iter().for_each(|edit| edit_list(&mut env, edit));
    env
}

/// Adds to a list variable, or makes it.
fn edit_list(env: &mut Vars, edit: &EnvEdit) {
    let old = env.get(&edit.name).filter(|v| !v.is_empty());
    let value = match old {
        None => edit.value.clone(),
        Some(old) => {
            let (first, second) = if edit.front { (&edit.value, old) } else { (old, &edit.value) };
            let parts = [first.as_bytes(), &[edit.separator], second.as_bytes()];
            OsString::from_vec(parts.concat())
        }
    };
    env.insert(edit.name.clone(), value);
}

/// Appends the entries of a `:` list that are missing.
fn append(list: &mut OsString, more: &OsStr) {
    let mut bytes = std::mem::take(list).into_vec();
    for entry in more.as_bytes().split(|&b| b == b':').filter(|e| !e.is_empty()) {
        if !bytes.split(|&b| b == b':').any(|e| e == entry) {
            if !bytes.is_empty() {
                bytes.push(b':');
            }
            bytes.extend_from_slice(entry);
        }
    }
    *list = OsString::from_vec(bytes);
}

/// Adds the variables that all ranks of an application on this node share.
pub(crate) fn add_shared(env: &mut Vars, launch: &NodeLaunch, table: &EndpointTable, app: &AppLaunch) {
    add_mpi(env, launch, table, app);
    let local = launch.ranks.len().to_string();
    let (size, node, nodes) = (launch.size.to_string(), launch.node.to_string(), launch.nodes.to_string());
    let mut set = |name: &str, value: &str| {
        env.insert(name.into(), value.into());
    };
    for name in ["OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "RMPIRUN_SIZE"] {
        set(name, &size);
    }
    for name in ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"] {
        set(name, &local);
    }
    if launch.universe > 0 {
        set("OMPI_UNIVERSE_SIZE", &launch.universe.to_string());
    }
    set("OMPI_NUM_APP_CTX", &launch.apps.len().to_string());
    if launch.apps.len() == 1 {
        set("OMPI_FIRST_RANKS", "0");
        set("OMPI_APP_CTX_NUM_PROCS", &size);
    }
    set("RMPIRUN_JOB_ID", &launch.job.to_string());
    set("RMPIRUN_NODE_RANK", &node);
    set("RMPIRUN_NNODES", &nodes);
    set("RMPIRUN_RESTART", &launch.extras.restart.to_string());
    if table.nodes.len() <= MAX_HOSTS {
        let hosts: Vec<&str> = table.nodes.iter().map(|n| n.host.as_str()).collect();
        set("RMPIRUN_HOSTS", &hosts.join(","));
    }
    if !launch.ifaces.is_empty() {
        set("RMPIRUN_IFACE", &launch.ifaces.join(","));
    }
    let torch = [
        ("WORLD_SIZE", &size),
        ("LOCAL_WORLD_SIZE", &local),
        ("GROUP_RANK", &node),
        ("GROUP_WORLD_SIZE", &nodes),
    ];
    for (name, value) in torch {
        if !named(app, name) {
            set(name, value);
        }
    }
    let meeting = frameworks::meeting(table);
    if !launch.ifaces.is_empty() {
        // Interfaces by name serve NCCL and Gloo too; networks they do not understand.
        let names: Vec<&str> =
            launch.ifaces.iter().map(String::as_str).filter(|w| !w.contains(['/', '^', ':'])).collect();
        for name in ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"].into_iter().filter(|_| !names.is_empty()) {
            env.entry(name.into()).or_insert_with(|| names.join(",").into());
        }
    }
    let mut unless_set = |name: &str, value: Option<String>| {
        if let (Some(value), false) = (value, env.contains_key(OsStr::new(name))) {
            env.insert(name.into(), value.into());
        }
    };
    unless_set("MASTER_ADDR", frameworks::first_address(table).map(|ip| ip.to_string()));
    unless_set("MASTER_PORT", meeting.map(|m| m.port().to_string()));
    if launch.stdio == StdioKind::Pipe {
        unless_set("PYTHONUNBUFFERED", Some("1".into()));
        unless_set("GFORTRAN_UNBUFFERED_PRECONNECTED", Some("y".into()));
    }
    frameworks::add(env, launch, meeting);
}

/// What MPI libraries that are not ours find us by, for all ranks; what another launcher around us had set for
/// this process goes.
fn add_mpi(env: &mut Vars, launch: &NodeLaunch, table: &EndpointTable, app: &AppLaunch) {
    env.retain(|name, _| named_os(app, name) || !foreign(name.as_bytes()));
    if !launch.mpi.pmi.pmi() {
        return;
    }
    let mut set = |name: &str, value: String| {
        if !named(app, name) {
            env.insert(name.into(), value.into());
        }
    };
    set("PMI_FD", KVS_FD.to_string());
    set("PMI_SIZE", launch.size.to_string());
    if launch.mpi.parent.is_some() {
        set("PMI_SPAWNED", "1".into());
    }
    match launch.mpi.pmi {
        PmiKind::Pmi1 => set("MPIR_CVAR_PMI_VERSION", "1".into()),
        PmiKind::Pmi2 => set("MPIR_CVAR_PMI_VERSION", "2".into()),
        PmiKind::Auto | PmiKind::Pmix | PmiKind::None => {}
    }
    // What MPICH's own TCP listens at, and tells others.
    let here = table.nodes.iter().find(|n| n.node == launch.node);
    if let Some(address) = here.and_then(|n| n.addresses.first()) {
        set("MPIR_CVAR_CH3_INTERFACE_HOSTNAME", address.to_string());
    }
}

/// PMI on a port of this machine instead of an inherited descriptor, for all ranks; each has its `PMI_ID` besides.
pub(crate) fn offer_pmi_port(env: &mut Vars, port: u16) {
    if env.remove(OsStr::new("PMI_FD")).is_some() {
        env.insert("PMI_PORT".into(), format!("127.0.0.1:{port}").into());
    }
}

/// What PMIx clients find us by, for all ranks of an application. A parameter of Open MPI that the user has set
/// stays as it is.
pub(crate) fn add_pmix(
    env: &mut Vars,
    app: &AppLaunch,
    launch: &NodeLaunch,
    vars: &[(&'static str, String)],
) {
    for (name, value) in vars {
        let parameter = name.starts_with("OMPI_MCA_mpi_") && env.contains_key(OsStr::new(name));
        if !named(app, name) && !parameter {
            env.insert(name.into(), value.into());
        }
    }
    // Of libraries that can do both, MPICH speaks PMI-1 with us.
    if !vars.is_empty() && launch.mpi.pmi == PmiKind::Auto && !env.contains_key(OsStr::new(PMI_VERSION)) {
        env.insert(PMI_VERSION.into(), "1".into());
    }
}

/// Which PMI MPICH speaks.
const PMI_VERSION: &str = "MPIR_CVAR_PMI_VERSION";

/// Whether a variable is one by which a process finds the launcher that started it.
fn foreign(name: &[u8]) -> bool {
    let parameter = name.starts_with(b"PMIX_MCA_");
    let of_server = name.starts_with(b"PMI_") || name.starts_with(b"PMIX_") && !parameter;
    of_server
        || [&b"HYDI_CONTROL_FD"[..], b"PRTE_LAUNCHED"].contains(&name)
        || name.starts_with(b"OMPI_MCA_orte_ess_")
}

/// Names set for each rank: they never come from elsewhere, except those the user names.
const PER_RANK: [&str; 10] = [
    "PMI_RANK",
    "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_RANK",
    "RMPIRUN_RANK",
    "RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_NODE_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "RMPIRUN_LOCAL_RANK",
];

/// The variables of one rank; `fds` is the text of [`rmpi_wire::boot::ENV_FDS`]. Those of `env` with these
/// names must be removed before, see [`strip_per_rank`].
pub(crate) fn per_rank(
    rank: &RankLaunch,
    app: &AppLaunch,
    pmi: bool,
    fds: &str,
) -> Vec<(&'static str, String)> {
    let mut vars: Vec<(&'static str, String)> = Vec::with_capacity(12);
    for (i, name) in PER_RANK.into_iter().enumerate() {
        let value = if i < 5 { rank.rank.0 } else { rank.local_rank };
        let left_out = name == "RANK" && named(app, name) || name == "PMI_RANK" && !pmi;
        if !left_out {
            vars.push((name, value.to_string()));
        }
    }
    if !named(app, "LOCAL_RANK") {
        vars.push(("LOCAL_RANK", rank.local_rank.to_string()));
    }
    vars.push((rmpi_wire::boot::ENV_FDS, fds.to_owned()));
    vars
}

/// Removes what [`per_rank`] will set.
pub(crate) fn strip_per_rank(env: &mut Vars, app: &AppLaunch) {
    for name in PER_RANK.into_iter().chain(["LOCAL_RANK", rmpi_wire::boot::ENV_FDS]) {
        if !(named(app, name) && ["RANK", "LOCAL_RANK"].contains(&name)) {
            env.remove(OsStr::new(name));
        }
    }
}

/// Whether the user named a value for this variable.
fn named(app: &AppLaunch, name: &str) -> bool {
    named_os(app, OsStr::new(name))
}

fn named_os(app: &AppLaunch, name: &OsStr) -> bool {
    app.set.iter().any(|(n, v)| n == name && v.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::Rank;
    use rmpi_types::launch::{NodeEndpoints, RankEndpoint};
    use rmpi_types::{NodeIdx, ProcId};

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    fn app(merge: EnvMerge, env: &[(&str, &str)], set: &[(&str, Option<&str>)]) -> AppLaunch {
        AppLaunch {
            merge,
            env: env.iter().map(|(n, v)| (n.into(), v.into())).collect(),
            set: set.iter().map(|(n, v)| (n.into(), v.map(Into::into))).collect(),
            ..crate::testing::app("true", &[])
        }
    }

    #[test]
    fn merging() {
        let node = [("PATH", "/bin:/usr/bin"), ("HOME", "/home/n"), ("A", "node"), ("GONE", "1")];
        let sent = [("PATH", "/opt/bin:/bin"), ("A", "sent"), ("B", "sent"), ("LD_LIBRARY_PATH", "/l")];
        let set = [("C", Some("x=1,y")), ("GONE", None), ("B", Some("set"))];
        let table = [
            (
                EnvMerge::Fill,
                vec![
                    ("PATH", "/bin:/usr/bin:/opt/bin"),
                    ("HOME", "/home/n"),
                    ("A", "node"),
                    ("B", "set"),
                    ("C", "x=1,y"),
                    ("LD_LIBRARY_PATH", "/l"),
                ],
            ),
            (
                EnvMerge::Overwrite,
                vec![
                    ("PATH", "/opt/bin:/bin"),
                    ("HOME", "/home/n"),
                    ("A", "sent"),
                    ("B", "set"),
                    ("C", "x=1,y"),
                    ("LD_LIBRARY_PATH", "/l"),
                ],
            ),
            (
                EnvMerge::Clear,
                vec![
                    ("PATH", "/opt/bin:/bin"),
                    ("HOME", "/home/n"),
                    ("A", "sent"),
                    ("B", "set"),
                    ("C", "x=1,y"),
                    ("LD_LIBRARY_PATH", "/l"),
                ],
            ),
        ];
        for (how, expected) in table {
            assert_eq!(merge(&vars(&node), &app(how, &sent, &set)), vars(&expected), "{how:?}");
        }
        assert_eq!(merge(&vars(&node), &app(EnvMerge::Clear, &[], &[])).len(), 2);
        let edit = |name: &str, value: &str, front| EnvEdit {
            name: name.into(),
            value: value.into(),
            separator: b':',
            front,
        };
        let edits = vec![edit("PATH", "/front", true), edit("PATH", "/back", false), edit("NEW", "x", true)];
        let edited = merge(&vars(&node), &AppLaunch { edits, ..app(EnvMerge::Fill, &[], &[]) });
        assert_eq!(edited.get(OsStr::new("PATH")), Some(&"/front:/bin:/usr/bin:/back".into()));
        assert_eq!(edited.get(OsStr::new("NEW")), Some(&"x".into()));
    }

    #[test]
    fn ranks_know_their_place() {
        let launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 2);
        let rank = |r| RankEndpoint::plain(Rank(r), 9);
        let node = |i, ranks, port| NodeEndpoints {
            node: NodeIdx(i),
            host: format!("n{i}"),
            addresses: vec![format!("10.0.0.{i}").parse().unwrap()],
            ranks,
            spare_port: port,
        };
        let table =
            EndpointTable { nodes: vec![node(0, vec![rank(2)], None), node(1, vec![rank(0)], Some(77))] };
        let mut env = vars(&[("RANK", "9"), ("WORLD_SIZE", "99"), ("LOCAL_RANK", "9")]);
        let app = app(EnvMerge::Fill, &[], &[("LOCAL_RANK", Some("9"))]);
        add_shared(&mut env, &launch, &table, &app);
        strip_per_rank(&mut env, &app);
        for (name, value) in [
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "10.0.0.1"),
            ("MASTER_PORT", "77"),
            ("RMPIRUN_HOSTS", "n0,n1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("PYTHONUNBUFFERED", "1"),
            ("LOCAL_RANK", "9"),
        ] {
            assert_eq!(env.get(OsStr::new(name)), Some(&value.into()), "{name}");
        }
        assert!(!env.contains_key(OsStr::new("RANK")));
        let own = per_rank(&launch.ranks[1], &app, true, "boot=3");
        let get = |name: &str| own.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!((get("RANK"), get("OMPI_COMM_WORLD_RANK")), (Some("1"), Some("1")));
        assert_eq!(
            (get("LOCAL_RANK"), get("MPI_LOCALRANKID"), get("RMPIRUN_FDS")),
            (None, Some("1"), Some("boot=3"))
        );
        assert_eq!(launch.ns, ProcId::default());
    }

    #[test]
    fn mpi_libraries_find_us_and_nobody_else() {
        let mut launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 2);
        let outer = [("PMI_PORT", "h:1"), ("PMI_ID", "3"), ("PMIX_RANK", "7"), ("PMIX_MCA_gds", "hash")];
        let app = app(EnvMerge::Fill, &[], &[("PMI_DEBUG", Some("1"))]);
        let vars_of = |launch: &NodeLaunch| {
            let mut env = vars(&outer);
            env.insert("PMI_DEBUG".into(), "1".into());
            add_shared(&mut env, launch, &EndpointTable::default(), &app);
            env.retain(|n, _| n.as_bytes().starts_with(b"PMI") || n.as_bytes().starts_with(b"MPIR"));
            env
        };
        let kept = [("PMI_DEBUG", "1"), ("PMIX_MCA_gds", "hash")];
        let own = [("PMI_FD", "5"), ("PMI_SIZE", "2")];
        assert_eq!(vars_of(&launch), vars(&[kept, own].concat()));
        launch.mpi.pmi = PmiKind::None;
        assert_eq!(vars_of(&launch), vars(&kept));
        launch.mpi.pmi = PmiKind::Pmi2;
        launch.mpi.parent = Some(ProcId::first(0));
        let two = [("PMI_SPAWNED", "1"), ("MPIR_CVAR_PMI_VERSION", "2")];
        assert_eq!(vars_of(&launch), vars(&[kept, own, two].concat()));
        assert!(per_rank(&launch.ranks[1], &app, false, "").iter().all(|(n, _)| *n != "PMI_RANK"));
    }

    #[test]
    fn the_users_rendezvous_stays() {
        let launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 1);
        let mut env = vars(&[("MASTER_ADDR", "mine"), ("PYTHONUNBUFFERED", "0")]);
        add_shared(&mut env, &launch, &EndpointTable::default(), &launch.apps[0]);
        assert_eq!(env.get(OsStr::new("MASTER_ADDR")), Some(&"mine".into()));
        assert_eq!(env.get(OsStr::new("PYTHONUNBUFFERED")), Some(&"0".into()));
        assert!(!env.contains_key(OsStr::new("MASTER_PORT")));
    }
}
