//! The environment of ranks: how what the launcher sent meets the node's own (`docs/environment.md`), and the
//! variables set for each rank. Pure.

use rmpi_types::Rank;
use rmpi_types::launch::{AppLaunch, EndpointTable, EnvEdit, EnvMerge, NodeLaunch, RankLaunch, StdioKind};
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
    let first = table.nodes.iter().find(|n| n.ranks.iter().any(|r| r.rank == Rank(0)));
    let address = first.and_then(|n| n.addresses.first()).map(ToString::to_string);
    let port = first.and_then(|n| n.spare_port).map(|p| p.to_string());
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
    unless_set("MASTER_ADDR", address);
    unless_set("MASTER_PORT", port);
    if launch.stdio == StdioKind::Pipe {
        unless_set("PYTHONUNBUFFERED", Some("1".into()));
        unless_set("GFORTRAN_UNBUFFERED_PRECONNECTED", Some("y".into()));
    }
}

/// Names set for each rank: they never come from elsewhere, except those the user names.
const PER_RANK: [&str; 9] = [
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
pub(crate) fn per_rank(rank: &RankLaunch, app: &AppLaunch, fds: &str) -> Vec<(&'static str, String)> {
    let mut vars: Vec<(&'static str, String)> = Vec::with_capacity(12);
    for (i, name) in PER_RANK.into_iter().enumerate() {
        let value = if i < 4 { rank.rank.0 } else { rank.local_rank };
        if name != "RANK" || !named(app, name) {
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
    app.set.iter().any(|(n, v)| n == OsStr::new(name) && v.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let own = per_rank(&launch.ranks[1], &app, "boot=3");
        let get = |name: &str| own.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!((get("RANK"), get("OMPI_COMM_WORLD_RANK")), (Some("1"), Some("1")));
        assert_eq!(
            (get("LOCAL_RANK"), get("MPI_LOCALRANKID"), get("RMPIRUN_FDS")),
            (None, Some("1"), Some("boot=3"))
        );
        assert_eq!(launch.ns, ProcId::default());
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
