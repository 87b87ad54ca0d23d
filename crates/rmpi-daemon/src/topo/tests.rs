//! The trees are excerpts of hwloc's test data (open-mpi/hwloc, BSD-3): `path text` a line.

use super::*;
use rmpi_types::cpus::GpuMaker;
use std::path::PathBuf;

/// A directory of this test's own, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &str) -> Self {
        let root = std::env::temp_dir().join(format!("rmpi-topo-{}-{name}", std::process::id()));
        for line in files.lines().filter(|l| !l.is_empty()) {
            let (path, text) = line.split_once(' ').unwrap();
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{}\n", text.replace('|', "\n"))).unwrap();
        }
        Self(root)
    }

    fn system(name: &str, files: &str) -> Self {
        let files: String = files.lines().map(|l| format!("sys/devices/system/{l}\n")).collect();
        Self::new(name, &files)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn any() -> CpuSet {
    (0..1024).collect()
}

fn count(t: &Topology, of: impl Fn(&Cpu) -> u32) -> usize {
    t.cpus.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn real_machines_look_as_hwloc_sees_them() {
    let table = [
        // name, tree, CPUs, cores, packages, NUMA nodes, L2 and L3 caches, first CPUs in order
        ("xeon", include_str!("trees/16em64t-4s2c2t-offlines.txt"), [12, 7, 4, 1, 7, 4], [0, 8, 4, 12, 1]),
        // hwloc counts 64 cores here by a quirk for this family; the kernel says 32 of two threads
        ("opteron", include_str!("trees/64amd64-4s2n4ca2co.txt"), [64, 32, 4, 8, 32, 8], [0, 1, 2, 3, 4]),
        ("offline", include_str!("trees/offline-cpu0-node0.txt"), [17, 17, 2, 2, 17, 2], [4, 6, 8, 10, 12]),
        ("smt", include_str!("trees/16em64t-4s2c2t.txt"), [16, 8, 4, 1, 8, 4], [0, 8, 4, 12, 1]),
        ("intel", include_str!("trees/40intel64-2g2n4c.txt"), [40, 40, 4, 4, 40, 4], [0, 4, 8, 12, 16]),
        // hwloc knows three L2 caches here and no L3; CPUs without one count as one each
        ("odd", include_str!("trees/8em64t-2s4c-asymcaches.txt"), [8, 8, 2, 1, 5, 8], [0, 2, 6, 4, 1]),
    ];
    for (name, files, counts, first) in table {
        let tree = Tree::system(name, files);
        let t = read(&tree.0, &any(), Caches::Read);
        let got = [
            t.cpus.len(),
            count(&t, |c| c.core),
            count(&t, |c| c.package),
            count(&t, |c| c.numa),
            count(&t, |c| c.cache[1]),
            count(&t, |c| c.cache[2]),
        ];
        assert_eq!(got, counts, "{name}");
        let order: Vec<u32> = t.cpus.iter().take(5).map(|c| c.os).collect();
        assert_eq!(order, first, "{name}");
        assert_eq!(t.quota_milli, None);
    }
}

#[test]
fn an_arm_board_says_little() {
    let tree = Tree::system("arm", include_str!("trees/2arm-2c.txt"));
    let t = read(&tree.0, &any(), Caches::Read);
    assert_eq!((t.cpus.len(), t.cores(), count(&t, |c| c.package)), (2, 2, 1));
}

/// A job step of Slurm's on the first quarter of a four-socket Opteron: the kernel keeps the mask within the group's.
#[test]
fn a_cpuset_narrows_a_real_machine() {
    let files = include_str!("trees/32amd64-4s2n4c-cgroup2.txt");
    let text: String = files.lines().map(|l| format!("sys/devices/system/{l}\n")).collect();
    let tree = Tree::new("step", &text);
    let t = read(&tree.0, &(0..6).collect(), Caches::Read);
    let counts = [t.cpus.len(), t.cores() as usize, count(&t, |c| c.package), count(&t, |c| c.numa)];
    assert_eq!(counts, [6, 6, 1, 2]);
    assert_eq!(count(&t, |c| c.cache[2]), 2);
}

/// Trees of our own: packages x NUMA nodes x cores x threads, the threads of a core numbered far apart as on most
/// x86 machines.
#[test]
fn generated_machines_are_read_as_they_were_made() {
    for (name, packages, numas, cores, threads) in [
        ("g1", 1u32, 1u32, 1u32, 1u32),
        ("g2", 2, 1, 4, 2),
        ("g3", 2, 4, 8, 2),
        ("g4", 8, 1, 3, 1),
        ("g5", 1, 2, 5, 4),
    ] {
        let total = packages * numas * cores;
        let mask = |cpus: Vec<u32>| {
            let words = (total * threads).div_ceil(32);
            let word = |w: u32| cpus.iter().filter(|&&c| c / 32 == w).fold(0u32, |m, c| m | 1 << (c % 32));
            (0..words).rev().map(|w| format!("{:08x}", word(w))).collect::<Vec<_>>().join(",")
        };
        let of = |first: u32, n: u32| {
            mask((0..threads).flat_map(|t| (first..first + n).map(move |c| t * total + c)).collect())
        };
        let mut files = format!("cpu/online 0-{}\n", total * threads - 1);
        for thread in 0..threads {
            for core in 0..total {
                let os = thread * total + core;
                let package = core / (numas * cores) * numas * cores;
                files += &format!("cpu/cpu{os}/topology/core_cpus {}\n", of(core, 1));
                files += &format!("cpu/cpu{os}/topology/package_cpus {}\n", of(package, numas * cores));
                files +=
                    &format!("cpu/cpu{os}/cache/index0/level 2\ncpu/cpu{os}/cache/index0/type Unified\n");
                files += &format!("cpu/cpu{os}/cache/index0/shared_cpu_map {}\n", of(core, 1));
            }
        }
        for numa in 0..packages * numas {
            files += &format!("node/node{numa}/cpumap {}\n", of(numa * cores, cores));
        }
        let tree = Tree::system(name, &files);
        let t = read(&tree.0, &any(), Caches::Read);
        let got = [t.cpus.len(), t.cores() as usize, count(&t, |c| c.package), count(&t, |c| c.numa)];
        let n = |n: u32| n as usize;
        assert_eq!(got, [n(total * threads), n(total), n(packages), n(packages * numas)], "{name}");
        let numbers = t.cpus.iter().enumerate().all(|(i, c)| n(c.core) == i / n(threads));
        assert!(numbers && count(&t, |c| c.cache[1]) == n(total), "{name}");
    }
}

#[test]
fn gpus_of_both_drivers() {
    let numa = "node/node0/cpumap 1\nnode/node1/cpumap 2\ncpu/online 0-1\ncpu/cpu0/x y\ncpu/cpu1/x y\n";
    let system: String = numa.lines().map(|l| format!("sys/devices/system/{l}\n")).collect();
    let pci = "sys/bus/pci/devices/0000:3b:00.0/numa_node 1\nsys/bus/pci/devices/0000:18:00.0/numa_node 0\n";
    let nvidia = "proc/driver/nvidia/gpus/0000:3B:00.0/x y\nproc/driver/nvidia/gpus/0000:18:00.0/x y\n";
    let container = "dev/nvidia3 x\n";
    let amd = "sys/class/kfd/kfd/topology/nodes/0/properties simd_count 0\n\
               sys/class/kfd/kfd/topology/nodes/1/properties simd_count 256|location_id 15104|domain 0\n";
    for (name, files, want) in [
        ("nvidia", format!("{system}{pci}{nvidia}"), vec![Some(0), Some(1)]),
        ("container", format!("{system}{pci}{nvidia}{container}"), vec![None]),
        ("amd", format!("{system}{pci}{amd}"), vec![Some(1)]),
        ("none", system.clone(), vec![]),
    ] {
        let tree = Tree::new(&format!("gpu-{name}"), &files);
        let t = read(&tree.0, &any(), Caches::Read);
        assert_eq!(t.gpus.iter().map(|g| g.numa).collect::<Vec<_>>(), want, "{name}");
    }
}

#[test]
fn tiles_of_intel_gpus() {
    let card = |n: u32, address: &str, vendor: &str| {
        let device = format!("sys/class/drm/card{n}/device");
        format!(
            "{device}/vendor {vendor}\n{device}/uevent DRIVER=x|PCI_SLOT_NAME={address}\n\
             {device}/drm/renderD{}/x y\ndev/dri/renderD{} x\n",
            128 + n,
            128 + n
        )
    };
    let xe = card(1, "0000:18:00.0", "0x8086")
        + "sys/class/drm/card1/device/tile0/x y\nsys/class/drm/card1/device/tile1/x y\n";
    // Two engines, but no memory for each: a tile's media engine.
    let i915 = card(0, "0000:3b:00.0", "0x8086")
        + "sys/class/drm/card0/gt/gt0/id 0\nsys/class/drm/card0/gt/gt1/id 1\n";
    let display = card(2, "0000:01:00.0", "0x1a03");
    let hidden = card(3, "0000:02:00.0", "0x8086").replace("dev/dri", "dev/gone");
    let tree = Tree::new("gpu-intel", &format!("{i915}{xe}{display}{hidden}"));
    let gpus = read(&tree.0, &any(), Caches::Read).gpus;
    assert_eq!(
        gpus.iter().map(|g| (g.maker, g.parts)).collect::<Vec<_>>(),
        [(GpuMaker::Intel, 2), (GpuMaker::Intel, 1)]
    );
    let memory = "sys/class/drm/card0/gt/gt0/addr_range 1\nsys/class/drm/card0/gt/gt1/addr_range 1\n";
    let tree = Tree::new("gpu-i915", &format!("{i915}{memory}"));
    assert_eq!(read(&tree.0, &any(), Caches::Read).gpus[0].parts, 2);
}

#[test]
fn the_mask_narrows_the_list_but_not_the_numbers() {
    let tree = Tree::system("mask", include_str!("trees/16em64t-4s2c2t-offlines.txt"));
    let t = read(&tree.0, &[12, 6].into_iter().collect(), Caches::Read);
    let got: Vec<_> = t.cpus.iter().map(|c| (c.os, c.core, c.package)).collect();
    assert_eq!(got, [(12, 1, 0), (6, 5, 3)]);
}

#[test]
fn a_silent_tree_is_flat() {
    let tree = Tree::system("silent", "cpu/x y");
    let t = read(&tree.0, &[3, 5].into_iter().collect(), Caches::Read);
    assert_eq!(t.cpus, [flat(0, 3), flat(1, 5)]);
}

#[test]
fn quotas_of_both_versions() {
    let table = [
        ("none", "proc/self/cgroup 0::/", None, 4),
        (
            "v2",
            "proc/self/cgroup 0::/a/b\nsys/fs/cgroup/a/b/cpu.max max 100000\nsys/fs/cgroup/a/cpu.max 250000 100000",
            Some(2500),
            4,
        ),
        (
            "v2-container",
            "proc/self/cgroup 0::/not/seen/here\nsys/fs/cgroup/cpu.max 50000 100000",
            Some(500),
            4,
        ),
        (
            "v1",
            "proc/self/cgroup 8:cpu,cpuacct:/k|3:cpuset:/k\nsys/fs/cgroup/cpu,cpuacct/k/cpu.cfs_quota_us 150000\nsys/fs/cgroup/cpu,cpuacct/k/cpu.cfs_period_us 100000",
            Some(1500),
            4,
        ),
        (
            "v1-unlimited",
            "proc/self/cgroup 1:cpu:/\nsys/fs/cgroup/cpu/cpu.cfs_quota_us -1\nsys/fs/cgroup/cpu/cpu.cfs_period_us 100000",
            None,
            4,
        ),
        (
            "hybrid",
            "proc/self/cgroup 1:name=systemd:/|0::/u\nsys/fs/cgroup/unified/u/cpu.max 100000 100000",
            Some(1000),
            4,
        ),
        ("hostile", "proc/self/cgroup 0::/../../..\nsys/fs/cgroup/cpu.max nonsense", None, 4),
    ];
    for (name, files, quota, cpus) in table {
        let tree = Tree::new(name, files);
        let t = read(&tree.0, &(0..4).collect(), Caches::Read);
        assert_eq!((t.quota_milli, t.cpus.len()), (quota, cpus), "{name}");
    }
}

#[test]
fn masks() {
    assert_eq!(parse_mask("00000001,00000000,0000000f").unwrap().to_string(), "0-3,64");
    assert_eq!(parse_mask("ff\n").unwrap().to_string(), "0-7");
    assert!(parse_mask("xyz").is_none());
}

#[test]
fn this_machine_has_a_cpu() {
    let t = read(Path::new("/"), crate::status::Status::get().cpus.as_ref().unwrap(), Caches::Read);
    assert!(!t.cpus.is_empty() && t.cores() >= 1);
}
