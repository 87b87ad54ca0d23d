//! The CPUs of this node, read from a `/sys` tree under a given root: a pure function of files and of the
//! affinity mask, so that captured trees of other machines can be tested. Numbers are logical and dense in
//! the order package, NUMA node, core, thread; an object's place is that of its lowest CPU, as hwloc has it.

pub(crate) mod cgroup;
mod gpu;

use crate::spawn::{Memory, NODE_WORDS};
use rmpi_types::CpuSet;
use rmpi_types::cpus::{Cpu, Topology};
use rmpi_types::launch::MemoryPolicy;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// Whether the caches are looked at: a dozen files for each core, which only placing by caches needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caches {
    /// They are.
    Read,
    /// Each core counts as having its own.
    Assumed,
}

/// Reads the tree under `root`; only CPUs in `allowed` are listed, cores are numbered over all that are
/// online. A tree that says nothing gives each allowed CPU a core of its own.
pub(crate) fn read(root: &Path, allowed: &CpuSet, caches: Caches) -> Topology {
    let system = root.join("sys/devices/system");
    let online = text(&system.join("cpu/online"))
        .and_then(|t| CpuSet::parse_list(&t))
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| each_online(&system.join("cpu")));
    let numa = numa_of(&system.join("node"));
    let mut known = Known::default();
    let raw = online.iter().filter_map(|cpu| Raw::read(&system, cpu, &numa, caches, &mut known)).collect();
    let quota_milli = cgroup::Groups::read(root).quota_milli();
    let mut cpus = number(raw);
    // The system's numbers of NUMA nodes and ours.
    let ours = cpus.iter().filter_map(|c| Some((*numa.get(&c.os)?, c.numa))).collect();
    let gpus = gpu::read(root, &ours);
    cpus.retain(|c| allowed.contains(c.os));
    if cpus.is_empty() {
        cpus = (0u32..).zip(allowed.iter()).map(|(i, os)| flat(i, os)).collect();
    }
    Topology { cpus, quota_milli, gpus }
}

/// The GPUs alone.
pub(crate) fn gpus(root: &Path) -> Vec<rmpi_types::cpus::Gpu> {
    gpu::read(root, &BTreeMap::new())
}

/// A policy for memory on this node: over all NUMA nodes that have some.
pub(crate) fn memory(root: &Path, policy: MemoryPolicy) -> Memory {
    let mut nodes = [0; NODE_WORDS];
    let mode = match policy {
        // `MPOL_LOCAL`.
        MemoryPolicy::Local => 4,
        MemoryPolicy::Interleave => {
            let listed = text(&root.join("sys/devices/system/node/has_memory"));
            let set = listed.and_then(|t| CpuSet::parse_list(t.trim())).unwrap_or_default();
            nodes.iter_mut().zip(set.words()).for_each(|(to, from)| *to = *from);
            if set.is_empty() {
                nodes[0] = 1;
            }
            nix::libc::MPOL_INTERLEAVE
        }
    };
    Memory { mode, nodes }
}

/// What the CPUs' own files say where the list is missing.
fn each_online(cpus: &Path) -> CpuSet {
    let off = |cpu: &u32| text(&cpus.join(format!("cpu{cpu}/online"))).is_some_and(|t| t.trim() == "0");
    numbered(cpus, "cpu").into_iter().filter(|cpu| !off(cpu)).collect()
}

const fn flat(i: u32, os: u32) -> Cpu {
    Cpu { os, core: i, package: 0, numa: 0, cache: [i; 3] }
}

/// A CPU with each object named by its lowest CPU.
struct Raw {
    os: u32,
    core: u32,
    package: u32,
    numa: u32,
    cache: [Option<u32>; 3],
}

/// What the files of earlier CPUs have said of later ones: reading a file costs more than all else here, and
/// all CPUs of an object say the same of it.
#[derive(Default)]
struct Known {
    core: BTreeMap<u32, u32>,
    package: BTreeMap<u32, u32>,
    /// By first CPU of the core: threads of a core share what it has.
    cache: BTreeMap<u32, [Option<u32>; 3]>,
}

/// The lowest CPU of the object that `os` is in: known, or read and noted for all in it.
fn lowest(known: &mut BTreeMap<u32, u32>, os: u32, read: impl FnOnce() -> Option<CpuSet>) -> Option<u32> {
    if let Some(first) = known.get(&os) {
        return Some(*first);
    }
    let set = read()?;
    let first = set.iter().next()?;
    known.extend(set.iter().map(|cpu| (cpu, first)));
    Some(first)
}

impl Raw {
    fn read(
        system: &Path,
        os: u32,
        numa: &BTreeMap<u32, u32>,
        caches: Caches,
        known: &mut Known,
    ) -> Option<Self> {
        let cpu = system.join(format!("cpu/cpu{os}"));
        let topology = cpu.join("topology");
        let either = |names: [&str; 2]| names.iter().find_map(|n| set(&topology.join(n)));
        let core = lowest(&mut known.core, os, || either(["core_cpus", "thread_siblings"]));
        if core.is_none() && !cpu.is_dir() {
            return None;
        }
        let core = core.unwrap_or(os);
        let package =
            lowest(&mut known.package, os, || either(["package_cpus", "core_siblings"])).unwrap_or(0);
        let cache = match caches {
            Caches::Read => *known.cache.entry(core).or_insert_with(|| caches_of(&cpu)),
            Caches::Assumed => [None; 3],
        };
        Some(Self { os, core, package, numa: numa.get(&os).copied().unwrap_or(0), cache })
    }
}

/// Lowest CPUs of the data caches of a CPU, by level.
fn caches_of(cpu: &Path) -> [Option<u32>; 3] {
    let mut cache = [None; 3];
    for index in numbered(&cpu.join("cache"), "index") {
        let dir = cpu.join(format!("cache/index{index}"));
        let level = text(&dir.join("level")).and_then(|t| t.trim().parse::<usize>().ok());
        let data = text(&dir.join("type")).is_none_or(|t| t.trim() != "Instruction");
        if let (Some(level @ 1..=3), true) = (level, data) {
            cache[level - 1] = set(&dir.join("shared_cpu_map")).and_then(|s| s.iter().next());
        }
    }
    cache
}

/// Dense logical numbers in the order of first appearance.
#[derive(Default)]
struct Dense(BTreeMap<u32, u32>);

impl Dense {
    fn of(&mut self, key: u32) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(key).or_insert(next)
    }
}

fn number(mut raw: Vec<Raw>) -> Vec<Cpu> {
    // A NUMA node's place is that of its lowest CPU.
    let mut first: BTreeMap<u32, u32> = BTreeMap::new();
    for cpu in &raw {
        first.entry(cpu.numa).and_modify(|f| *f = cpu.os.min(*f)).or_insert(cpu.os);
    }
    // Cores that share a cache are beside each other, whatever the kernel's numbers: as hwloc has it.
    raw.sort_by_key(|c| {
        let l2 = c.cache[1].unwrap_or(c.core);
        let l3 = c.cache[2].unwrap_or(l2);
        (c.package, first.get(&c.numa).copied(), l3, l2, c.core, c.os)
    });
    let (mut cores, mut packages, mut numas) = (Dense::default(), Dense::default(), Dense::default());
    let mut caches = [Dense::default(), Dense::default(), Dense::default()];
    raw.iter()
        .map(|c| {
            let core = cores.of(c.core);
            let mut cache = [0; 3];
            for (level, dense) in caches.iter_mut().enumerate() {
                // Unknown caches are one a core: keys above any CPU number.
                cache[level] = dense.of(c.cache[level].unwrap_or(1 << 20 | core));
            }
            Cpu { os: c.os, core, package: packages.of(c.package), numa: numas.of(c.numa), cache }
        })
        .collect()
}

fn numa_of(nodes: &Path) -> BTreeMap<u32, u32> {
    let mut map = BTreeMap::new();
    // Most machines have one, and a CPU without a node counts as the first's.
    if text(&nodes.join("online")).is_some_and(|t| t.trim() == "0") {
        return map;
    }
    for node in numbered(nodes, "node") {
        let cpus = set(&nodes.join(format!("node{node}/cpumap")));
        cpus.iter().flat_map(CpuSet::iter).for_each(|cpu| {
            map.insert(cpu, node);
        });
    }
    map
}

/// `N` of all entries `prefixN` of a directory, ascending.
fn numbered(dir: &Path, prefix: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let name = |e: std::fs::DirEntry| e.file_name().to_str()?.strip_prefix(prefix)?.parse().ok();
    let mut numbers: Vec<u32> = entries.flatten().filter_map(name).collect();
    numbers.sort_unstable();
    numbers
}

/// A small file of the kernel's. Not by `std::fs`, which asks for a size first: there are hundreds. A read that
/// does not fill the buffer was the last: such a file is made whole when it is read.
pub(crate) fn text(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match file.read(&mut chunk) {
            Ok(n) => {
                bytes.extend_from_slice(&chunk[..n]);
                if n < chunk.len() {
                    return String::from_utf8(bytes).ok();
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A mask file, `00000000,0000000f`.
fn set(path: &Path) -> Option<CpuSet> {
    parse_mask(&text(path)?)
}

fn parse_mask(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::default();
    for (word, base) in text.trim().rsplit(',').zip((0u32..65_536).step_by(32)) {
        let bits = u32::from_str_radix(word.trim(), 16).ok()?;
        (0..32).filter(|b| bits & (1 << b) != 0).for_each(|b| set.insert(base + b));
    }
    Some(set)
}

#[cfg(test)]
mod tests;
