//! The trees are excerpts of hwloc's test data (open-mpi/hwloc, BSD-3): `path text` a line.

use super::*;
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
    ];
    for (name, files, counts, first) in table {
        let tree = Tree::system(name, files);
        let t = read(&tree.0, &any());
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
fn the_mask_narrows_the_list_but_not_the_numbers() {
    let tree = Tree::system("mask", include_str!("trees/16em64t-4s2c2t-offlines.txt"));
    let t = read(&tree.0, &[12, 6].into_iter().collect());
    let got: Vec<_> = t.cpus.iter().map(|c| (c.os, c.core, c.package)).collect();
    assert_eq!(got, [(12, 1, 0), (6, 5, 3)]);
}

#[test]
fn a_silent_tree_is_flat() {
    let tree = Tree::system("silent", "cpu/x y");
    let t = read(&tree.0, &[3, 5].into_iter().collect());
    assert_eq!(t.cpus, [flat(0, 3), flat(1, 5)]);
}

#[test]
fn quotas_and_cpusets_of_both_versions() {
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
        ("v2-set", "proc/self/cgroup 0::/a\nsys/fs/cgroup/a/cpuset.cpus.effective 1-2", None, 2),
        (
            "v1",
            "proc/self/cgroup 8:cpu,cpuacct:/k|3:cpuset:/k\nsys/fs/cgroup/cpu,cpuacct/k/cpu.cfs_quota_us 150000\nsys/fs/cgroup/cpu,cpuacct/k/cpu.cfs_period_us 100000\nsys/fs/cgroup/cpuset/k/cpuset.effective_cpus 0",
            Some(1500),
            1,
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
        let t = read(&tree.0, &(0..4).collect());
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
    let t = read(Path::new("/"), &affinity().unwrap());
    assert!(!t.cpus.is_empty() && t.cores() >= 1);
}
