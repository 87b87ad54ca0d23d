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
        let ranks = (rank.local_rank, local);
        vars.extend(devices(per_rank, launch.extras.gpu_parts, ranks, env, gpus));
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

/// How Level Zero numbers devices: whole ones with parts (`0.1`), or parts as if they were devices.
const HIERARCHY: &str = "ZE_FLAT_DEVICE_HIERARCHY";

/// The variable of the devices' maker with this rank's share. With more ranks than shares they go round.
fn devices(
    per_rank: GpusPerRank,
    parts: bool,
    (local_rank, local_size): (u32, u32),
    env: &Vars,
    gpus: &[Gpu],
) -> Vec<(&'static str, String)> {
    let Some(first) = gpus.first() else { return Vec::new() };
    let name = match first.maker {
        GpuMaker::Nvidia => "CUDA_VISIBLE_DEVICES",
        GpuMaker::Amd => "ROCR_VISIBLE_DEVICES",
        GpuMaker::Intel => "ZE_AFFINITY_MASK",
    };
    let divided = gpus.iter().any(|g| g.parts > 1);
    let hierarchy = env.get(OsStr::new(HIERARCHY));
    // The numbers mean what this variable says: where the user does not, we do.
    let flat = divided && hierarchy.is_some_and(|v| v == "FLAT" || v == "COMBINED");
    let mut vars = Vec::new();
    if divided && hierarchy.is_none() {
        vars.push((HIERARCHY, "COMPOSITE".to_owned()));
    }
    let named = env.get(OsStr::new(name)).map(|v| v.to_string_lossy());
    let all: Vec<Vec<String>> = match named {
        Some(list) if !list.is_empty() => {
            let entries = list.split(',').map(|entry| part_names(entry, parts && !flat, gpus));
            entries.flatten().map(|part| vec![part]).collect()
        }
        _ => shares(gpus, parts, flat),
    };
    let count = match per_rank {
        GpusPerRank::Count(n) => n as usize,
        GpusPerRank::Auto => (all.len() / local_size.max(1) as usize).max(1),
    };
    let first = local_rank as usize * count;
    let mine: Vec<&str> = (0..count.min(all.len()))
        .flat_map(|i| all[(first + i) % all.len()].iter().map(String::as_str))
        .collect();
    vars.push((name, mine.join(",")));
    vars
}

/// A device that the user named: itself, or its parts.
fn part_names(entry: &str, parts: bool, gpus: &[Gpu]) -> Vec<String> {
    let of = entry.parse::<usize>().ok().and_then(|i| gpus.get(i)).map_or(1, |g| g.parts);
    if !parts || of < 2 {
        return vec![entry.to_owned()];
    }
    (0..of).map(|part| format!("{entry}.{part}")).collect()
}

/// What can be dealt, each with its names: devices, or their parts.
fn shares(gpus: &[Gpu], parts: bool, flat: bool) -> Vec<Vec<String>> {
    let mut before = 0;
    let mut all = Vec::new();
    for (index, gpu) in gpus.iter().enumerate() {
        let numbers = before..before + gpu.parts;
        before = numbers.end;
        match (flat, parts && gpu.parts > 1) {
            (true, true) => all.extend(numbers.map(|n| vec![n.to_string()])),
            (true, false) => all.push(numbers.map(|n| n.to_string()).collect()),
            (false, true) => all.extend((0..gpu.parts).map(|part| vec![format!("{index}.{part}")])),
            (false, false) => all.push(vec![index.to_string()]),
        }
    }
    all
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
        let gpus = vec![Gpu { maker: GpuMaker::Nvidia, numa: None, parts: 1 }; 8];
        let some: Vars = [("CUDA_VISIBLE_DEVICES".into(), "4,5,6,7".into())].into();
        for (per, rank, ranks, env, want) in [
            (GpusPerRank::Count(2), 1, 4, &Vars::new(), "2,3"),
            (GpusPerRank::Auto, 1, 2, &Vars::new(), "4,5,6,7"),
            (GpusPerRank::Auto, 9, 16, &Vars::new(), "1"),
            (GpusPerRank::Count(1), 3, 4, &some, "7"),
            (GpusPerRank::Count(3), 1, 4, &some, "7,4,5"),
        ] {
            for parts in [false, true] {
                let got = devices(per, parts, (rank, ranks), env, &gpus);
                assert_eq!(got, [("CUDA_VISIBLE_DEVICES", want.to_owned())], "{per:?} {rank}");
            }
        }
        assert_eq!(devices(GpusPerRank::Auto, false, (0, 1), &Vars::new(), &[]), []);
    }

    #[test]
    fn parts_of_devices_are_dealt() {
        let gpu = |parts| Gpu { maker: GpuMaker::Intel, numa: None, parts };
        let gpus = [gpu(2), gpu(1), gpu(2)];
        let vars = |text: &str| -> Vars {
            text.split_whitespace()
                .filter_map(|w| w.split_once('='))
                .map(|(n, v)| (n.into(), v.into()))
                .collect()
        };
        let whole = "ZE_FLAT_DEVICE_HIERARCHY=COMPOSITE";
        for (parts, per, rank, env, want) in [
            (true, GpusPerRank::Count(1), 1, whole, "0.1"),
            (true, GpusPerRank::Count(2), 1, whole, "1,2.0"),
            (true, GpusPerRank::Auto, 1, whole, "1,2.0"),
            (false, GpusPerRank::Count(1), 2, whole, "2"),
            (true, GpusPerRank::Count(2), 1, "ZE_FLAT_DEVICE_HIERARCHY=FLAT", "2,3"),
            (false, GpusPerRank::Count(1), 2, "ZE_FLAT_DEVICE_HIERARCHY=FLAT", "3,4"),
            (
                true,
                GpusPerRank::Count(1),
                1,
                "ZE_FLAT_DEVICE_HIERARCHY=COMPOSITE ZE_AFFINITY_MASK=2,0.1",
                "2.1",
            ),
        ] {
            let got = devices(per, parts, (rank, 2), &vars(env), &gpus);
            assert_eq!(got, [("ZE_AFFINITY_MASK", want.to_owned())], "{parts} {per:?} {env}");
        }
        let unsaid = devices(GpusPerRank::Count(1), true, (0, 2), &Vars::new(), &gpus);
        assert_eq!(unsaid, [(HIERARCHY, "COMPOSITE".to_owned()), ("ZE_AFFINITY_MASK", "0.0".to_owned())]);
    }
}
