//! CPUs: sets of them, and how a node's are arranged. Reading them from the machine is the daemon's work,
//! choosing among them the planner's.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of operating-system CPU numbers of any size (no 1,024 limit).
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuSet(Vec<u64>);

impl CpuSet {
    /// Adds CPU `cpu`.
    pub fn insert(&mut self, cpu: u32) {
        let word = cpu as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (cpu % 64);
    }

    /// Whether CPU `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.get(cpu as usize / 64).is_some_and(|w| w & (1 << (cpu % 64)) != 0)
    }

    /// The CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let bits = |w: u64| (0..64u32).filter(move |b| w & (1 << b) != 0);
        self.0.iter().zip((0u32..).step_by(64)).flat_map(move |(&w, base)| bits(w).map(move |b| base + b))
    }

    /// How many CPUs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&w| w == 0)
    }

    /// The kernel's mask: 64-bit words, lowest CPUs first (`sched_setaffinity(2)`).
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Reads the kernel's list form, `0-3,8,10-11` (`/sys/devices/system/cpu/online`). Blank is the empty
    /// set. `None` when the text is something else or names a CPU above 65,535.
    #[must_use]
    pub fn parse_list(text: &str) -> Option<Self> {
        const HIGHEST: u32 = 65_535;
        let mut set = Self::default();
        for part in text.trim().split(',').filter(|p| !p.is_empty()) {
            let (lo, hi) = match part.split_once('-') {
                Some((lo, hi)) => (lo.trim().parse().ok()?, hi.trim().parse().ok()?),
                None => part.trim().parse().map(|c| (c, c)).ok()?,
            };
            if lo > hi || hi > HIGHEST {
                return None;
            }
            (lo..=hi).for_each(|c| set.insert(c));
        }
        Some(set)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut set = Self::default();
        cpus.into_iter().for_each(|c| set.insert(c));
        set
    }
}

impl fmt::Display for CpuSet {
    /// The kernel's list form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranks: crate::RankSet = self.iter().map(crate::Rank).collect();
        ranks.fmt(f)
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// One CPU (hardware thread) that the daemon may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// The operating system's number.
    pub os: u32,
    /// Logical index of its core on the node, dense from 0 over *all* cores, package by package.
    pub core: u32,
    /// Logical index of its package (socket), dense from 0.
    pub package: u32,
    /// Its NUMA node, dense from 0; 0 everywhere on machines without NUMA.
    pub numa: u32,
    /// Groups of CPUs sharing a level 1, 2 and 3 cache; dense from 0, each equal to `core` when unknown.
    pub cache: [u32; 3],
}

/// The CPUs a daemon may use on its node (affinity mask and cpuset applied), ordered by package, NUMA node,
/// core, thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The usable CPUs.
    pub cpus: Vec<Cpu>,
    /// The cgroup's CPU quota in thousandths of a CPU; `None` without one.
    pub quota_milli: Option<u32>,
    /// The node's GPUs.
    pub gpus: Vec<Gpu>,
}

/// A device for computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Whose.
    pub maker: GpuMaker,
    /// The NUMA node it is near to, numbered as in [`Cpu::numa`]; `None` when unknown.
    pub numa: Option<u32>,
    /// Parts that can be used on their own (tiles), at least 1.
    pub parts: u32,
}

/// Makers of GPUs: each has a variable of its own that names the devices a process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuMaker {
    /// `CUDA_VISIBLE_DEVICES`.
    Nvidia,
    /// `ROCR_VISIBLE_DEVICES`.
    Amd,
    /// `ZE_AFFINITY_MASK`.
    Intel,
}

impl Topology {
    /// Distinct usable cores.
    #[must_use]
    pub fn cores(&self) -> u32 {
        let mut cores: Vec<u32> = self.cpus.iter().map(|c| c.core).collect();
        cores.sort_unstable();
        cores.dedup();
        u32::try_from(cores.len()).unwrap_or(u32::MAX)
    }

    /// Slots of a node whose host line gives no count: usable cores (`threads`: hardware threads), at most
    /// the CPU quota rounded up, at least 1.
    #[must_use]
    pub fn default_slots(&self, threads: bool) -> u32 {
        let n = if threads { u32::try_from(self.cpus.len()).unwrap_or(u32::MAX) } else { self.cores() };
        n.min(self.quota_milli.map_or(u32::MAX, |q| q.div_ceil(1000))).max(1)
    }

    /// `n` cores of one thread each in one package: for tests and for nodes whose topology is unreadable.
    #[must_use]
    pub fn flat(n: u32) -> Self {
        let cpu = |i| Cpu { os: i, core: i, package: 0, numa: 0, cache: [i, i, 0] };
        Self { cpus: (0..n).map(cpu).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip() {
        for text in ["", "0", "0-3,8,10-11", "63-65", "1023-1025"] {
            assert_eq!(CpuSet::parse_list(text).unwrap().to_string(), text);
        }
        for bad in ["x", "3-1", "-", "0-99999999"] {
            assert!(CpuSet::parse_list(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_quota_limits_the_default_slots() {
        let mut t = Topology::flat(8);
        assert_eq!(t.default_slots(false), 8);
        t.quota_milli = Some(2500);
        assert_eq!(t.default_slots(false), 3);
        assert_eq!(Topology::default().default_slots(true), 1);
    }
}
