//! Variables that only some launchers' ranks have: horovodrun's, torchrun's, and the devices a rank sees. Pure.

use crate::env::Vars;
use rmpi_types::cpus::{Gpu, GpuMaker};
use rmpi_types::launch::{GpusPerRank, NodeLaunch, RankLaunch, RankVars, horovod_label};
use std::ffi::OsStr;

/// The variables of one rank beside the usual ones. `env` is what its program gets anyway; a device list in it
/// limits what can be dealt. `iface` carries the address that others reach this node at.
pub(crate) fn of(
    launch: &NodeLaunch,
    rank: &RankLaunch,
    env: &Vars,
    gpus: &[Gpu],
    iface: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut vars = Vec::new();
    match launch.extras.rank_vars {
        RankVars::Usual | RankVars::Torch | RankVars::Tensorflow => {}
        RankVars::Horovod => {
            horovod(launch, rank, &mut vars);
            let iface = iface.filter(|_| !env.contains_key(OsStr::new("HOROVOD_GLOO_IFACE")));
            vars.extend(iface.map(|iface| ("HOROVOD_GLOO_IFACE", iface.to_owned())));
        }
    }
    torch(launch, rank, env, &mut vars);
    if let Some(per_rank) = launch.extras.gpus_per_rank {
        let local = u32::try_from(launch.ranks.len()).unwrap_or(u32::MAX);
        vars.extend(devices(per_rank, rank.local_rank, local, env, gpus));
    }
    vars
}

/// Nodes that have a rank with this number, and which of them this one is.
fn across(launch: &NodeLaunch, local_rank: u32) -> (u32, u32) {
    let (mut of, mut before, mut node) = (0, 0, 0);
    for &(ranks, nodes) in &launch.layout {
        if ranks > local_rank {
            of += nodes;
            before += launch.node.0.saturating_sub(node).min(nodes);
        }
        node += nodes;
    }
    (before, of)
}

fn horovod(launch: &NodeLaunch, rank: &RankLaunch, vars: &mut Vec<(&'static str, String)>) {
    let (cross_rank, cross_size) = across(launch, rank.local_rank);
    vars.extend([
        ("HOROVOD_HOSTNAME", horovod_label(&launch.host)),
        ("HOROVOD_RANK", rank.rank.to_string()),
        ("HOROVOD_SIZE", launch.size.to_string()),
        ("HOROVOD_LOCAL_RANK", rank.local_rank.to_string()),
        ("HOROVOD_LOCAL_SIZE", launch.ranks.len().to_string()),
        ("HOROVOD_CROSS_RANK", cross_rank.to_string()),
        ("HOROVOD_CROSS_SIZE", cross_size.to_string()),
    ]);
}

/// What torchrun gives each worker; what the user has set stays.
fn torch(launch: &NodeLaunch, rank: &RankLaunch, env: &Vars, vars: &mut Vec<(&'static str, String)>) {
    let all = [
        ("ROLE_RANK", rank.rank.to_string()),
        ("ROLE_WORLD_SIZE", launch.size.to_string()),
        ("TORCHELASTIC_RESTART_COUNT", launch.extras.restart.to_string()),
        ("TORCHELASTIC_MAX_RESTARTS", launch.extras.restarts.to_string()),
    ];
    vars.extend(all.into_iter().filter(|(name, _)| !env.contains_key(OsStr::new(name))));
}

/// The variable of the devices' maker with this rank's share. With more ranks than shares they go round.
fn devices(
    per_rank: GpusPerRank,
    local_rank: u32,
    local_size: u32,
    env: &Vars,
    gpus: &[Gpu],
) -> Option<(&'static str, String)> {
    let name = match gpus.first()?.maker {
        GpuMaker::Nvidia => "CUDA_VISIBLE_DEVICES",
        GpuMaker::Amd => "ROCR_VISIBLE_DEVICES",
        GpuMaker::Intel => "ZE_AFFINITY_MASK",
    };
    let all: Vec<String> = match env.get(OsStr::new(name)).map(|v| v.to_string_lossy()) {
        Some(list) if !list.is_empty() => list.split(',').map(str::to_owned).collect(),
        _ => (0..gpus.len()).map(|i| i.to_string()).collect(),
    };
    let count = match per_rank {
        GpusPerRank::Count(n) => n as usize,
        GpusPerRank::Auto => (all.len() / local_size.max(1) as usize).max(1),
    };
    let first = local_rank as usize * count;
    let mine: Vec<&str> = (0..count.min(all.len())).map(|i| all[(first + i) % all.len()].as_str()).collect();
    Some((name, mine.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::NodeIdx;

    fn launch(layout: &[(u32, u32)], node: u32, vars: RankVars) -> NodeLaunch {
        let mut launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 2);
        launch.layout = layout.to_vec();
        launch.node = NodeIdx(node);
        launch.extras.rank_vars = vars;
        launch
    }

    #[test]
    fn cross_ranks_count_nodes_that_have_the_local_rank() {
        let layout = [(2, 1), (1, 2), (3, 1)];
        for (node, local, want) in [(0, 0, (0, 4)), (3, 0, (3, 4)), (3, 1, (1, 2)), (3, 2, (0, 1))] {
            assert_eq!(across(&launch(&layout, node, RankVars::Horovod), local), want, "{node} {local}");
        }
    }

    #[test]
    fn families() {
        let usual = launch(&[(2, 1)], 0, RankVars::Usual);
        let vars = of(&usual, &usual.ranks[1], &Vars::new(), &[], None);
        assert!(vars.contains(&("ROLE_RANK", "1".into())), "{vars:?}");
        let own: Vars = [("ROLE_RANK".into(), "9".into())].into();
        assert!(of(&usual, &usual.ranks[1], &own, &[], None).iter().all(|(n, _)| *n != "ROLE_RANK"));
        let horovod = launch(&[(2, 1)], 0, RankVars::Horovod);
        let vars = of(&horovod, &horovod.ranks[1], &Vars::new(), &[], Some("eth0"));
        assert!(vars.contains(&("HOROVOD_LOCAL_RANK", "1".into())), "{vars:?}");
        assert!(vars.contains(&("HOROVOD_GLOO_IFACE", "eth0".into())), "{vars:?}");
        let own: Vars = [("HOROVOD_GLOO_IFACE".into(), "ib0".into())].into();
        let vars = of(&horovod, &horovod.ranks[1], &own, &[], Some("eth0"));
        assert!(vars.iter().all(|(n, _)| *n != "HOROVOD_GLOO_IFACE"), "the user's stays: {vars:?}");
        let torch = launch(&[(2, 1)], 0, RankVars::Torch);
        let vars = of(&torch, &torch.ranks[1], &Vars::new(), &[], None);
        assert!(vars.contains(&("ROLE_WORLD_SIZE", "2".into())), "{vars:?}");
    }

    #[test]
    fn devices_are_dealt() {
        let gpus = vec![Gpu { maker: GpuMaker::Nvidia, numa: None }; 8];
        let some: Vars = [("CUDA_VISIBLE_DEVICES".into(), "4,5,6,7".into())].into();
        for (per, rank, ranks, env, want) in [
            (GpusPerRank::Count(2), 1, 4, &Vars::new(), "2,3"),
            (GpusPerRank::Auto, 1, 2, &Vars::new(), "4,5,6,7"),
            (GpusPerRank::Auto, 9, 16, &Vars::new(), "1"),
            (GpusPerRank::Count(1), 3, 4, &some, "7"),
            (GpusPerRank::Count(3), 1, 4, &some, "7,4,5"),
        ] {
            let got = devices(per, rank, ranks, env, &gpus);
            assert_eq!(got, Some(("CUDA_VISIBLE_DEVICES", want.to_owned())), "{per:?} {rank}");
        }
        assert_eq!(devices(GpusPerRank::Auto, 0, 1, &Vars::new(), &[]), None);
    }
}
