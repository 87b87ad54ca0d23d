//! The CPUs of one node as the planner sees them: what is usable after `--cpu-set`, grouped into objects.
//! Positions are indices into the node's CPU list, in package, NUMA node, core, thread order.

use rmpi_types::cpus::{Cpu, CpuSet, Topology};
use rmpi_types::spec::Object;
use std::borrow::Cow;

/// CPUs numbered from here on are left out: no kernel has them, and a set that holds one is as long as its number.
/// Topologies come from other machines.
const MAX_CPU: u32 = 65_536;

/// CPU positions of one object, ascending.
pub(crate) type Group = Vec<u32>;

/// Usable CPUs of a node.
#[derive(Clone, Debug)]
pub(crate) struct Layout<'a> {
    cpus: Cow<'a, [Cpu]>,
    threads: bool,
    quota: u32,
}

fn order(cpu: &Cpu) -> (u32, u32, u32, u32) {
    (cpu.package, cpu.numa, cpu.core, cpu.os)
}

/// The id that CPUs of one object share.
fn id(cpu: &Cpu, kind: Object) -> u64 {
    let n = match kind {
        Object::Hwthread => cpu.os,
        Object::Core => cpu.core,
        Object::L1 => cpu.cache[0],
        Object::L2 => cpu.cache[1],
        Object::L3 => cpu.cache[2],
        // A machine without NUMA has node 0 on all its packages.
        Object::Numa => return u64::from(cpu.package) << 32 | u64::from(cpu.numa),
        Object::Package => cpu.package,
        Object::Node => 0,
    };
    u64::from(n)
}

impl<'a> Layout<'a> {
    /// `threads`: hardware threads count as CPUs of their own; `only`: logical cores (with `threads`, operating
    /// system CPU numbers) of `--cpu-set`.
    pub(crate) fn new(topology: &'a Topology, only: Option<&CpuSet>, threads: bool) -> Self {
        let mut cpus = Cow::Borrowed(topology.cpus.as_slice());
        if cpus.iter().any(|c| c.os >= MAX_CPU) {
            cpus.to_mut().retain(|c| c.os < MAX_CPU);
        }
        if let Some(only) = only {
            cpus.to_mut().retain(|c| only.contains(if threads { c.os } else { c.core }));
        }
        // Threads of a core keep the reporter's order: only the objects must be together.
        if !cpus.is_sorted_by_key(|c| (c.package, c.numa, c.core)) {
            cpus.to_mut().sort_by_key(order);
        }
        let quota = topology.quota_milli.map_or(u32::MAX, |q| q.div_ceil(1000).max(1));
        Self { cpus, threads, quota }
    }

    /// The CPUs.
    pub(crate) fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// What one processing element is called.
    pub(crate) fn unit_name(&self) -> &'static str {
        if self.threads { "hwthread" } else { "core" }
    }

    /// Processing elements: cores, or hardware threads.
    pub(crate) fn units(&self) -> Vec<Group> {
        self.objects(if self.threads { Object::Hwthread } else { Object::Core })
    }

    /// How many processing elements.
    pub(crate) fn unit_count(&self) -> u32 {
        if self.threads {
            return u32::try_from(self.cpus.len()).unwrap_or(u32::MAX);
        }
        let changes = self.cpus.windows(2).filter(|w| (w[0].package, w[0].core) != (w[1].package, w[1].core));
        u32::try_from(changes.count() + usize::from(!self.cpus.is_empty())).unwrap_or(u32::MAX)
    }

    /// Ranks that can run at once: processing elements within the CPU quota.
    pub(crate) fn parallel(&self) -> u32 {
        self.unit_count().min(self.quota)
    }

    /// How many processing elements a group of CPUs holds.
    pub(crate) fn units_in(&self, group: &[u32]) -> u32 {
        let key = |&p: &u32| self.cpus.get(p as usize).map(|c| (c.package, c.core));
        let n = if self.threads {
            group.len()
        } else {
            group.windows(2).filter(|w| key(&w[0]) != key(&w[1])).count() + usize::from(!group.is_empty())
        };
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    /// The objects of a kind, each with its CPU positions, in order of the first.
    pub(crate) fn objects(&self, kind: Object) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut at: std::collections::HashMap<u64, usize> = std::collections::HashMap::new();
        let mut last: Option<(u64, usize)> = None;
        for (cpu, position) in self.cpus.iter().zip(0u32..) {
            let id = id(cpu, kind);
            // Objects are nearly always contiguous: the map is asked only when the id changes.
            let i = match last {
                Some((l, i)) if l == id => i,
                _ => *at.entry(id).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                }),
            };
            last = Some((id, i));
            groups[i].push(position);
        }
        groups
    }

    /// Index of the object of a kind that each CPU position belongs to, numbered as [`Self::objects`] does.
    pub(crate) fn object_of(&self, kind: Object) -> Vec<u32> {
        let mut of = vec![0; self.cpus.len()];
        for (group, i) in self.objects(kind).iter().zip(0u32..) {
            group.iter().for_each(|&p| of[p as usize] = i);
        }
        of
    }

    /// The operating system's numbers of CPU positions.
    pub(crate) fn set(&self, positions: impl IntoIterator<Item = u32>) -> CpuSet {
        positions.into_iter().filter_map(|p| self.cpus.get(p as usize)).map(|c| c.os).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_no_kernel_has_are_left_out() {
        let mut topology = Topology::flat(3);
        topology.cpus[1].os = u32::MAX;
        let layout = Layout::new(&topology, None, true);
        assert_eq!(layout.unit_count(), 2);
        assert_eq!(layout.set(0..3).to_string(), "0,2");
    }
}
