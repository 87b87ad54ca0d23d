//! Binding: the CPUs of each rank of one node. Defaults never fail and never overlap; what was asked for
//! explicitly either holds or is an error.

use crate::layout::{Group, Layout};
use crate::share::shares;
use rmpi_types::CpuSet;
use rmpi_types::cpus::Gpu;
use rmpi_types::launch::GpusPerRank;
use rmpi_types::spec::{BindTo, CpuList, Object, Placement, RankfileCpus};

/// Why the ranks of a node cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BindError {
    /// More ranks than CPUs.
    Overload {
        /// The object that is too small; `None` for the node.
        within: Option<(Object, u32)>,
        ranks: u32,
        unit: &'static str,
        units: u32,
        asked: String,
        object: &'static str,
    },
    /// No CPU at all.
    NoCpus,
}

/// The word of an object in options.
pub(crate) fn object_name(kind: Object) -> &'static str {
    match kind {
        Object::Hwthread => "hwthread",
        Object::Core => "core",
        Object::L1 => "l1cache",
        Object::L2 => "l2cache",
        Object::L3 => "l3cache",
        Object::Numa => "numa",
        Object::Package => "package",
        Object::Node => "node",
    }
}

/// An object ranks were mapped to (`None`: the node), its CPUs, and its local ranks.
type Mapped = (Option<(Object, u32)>, Group, Vec<usize>);

/// What is common to the ranks of a node.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) placement: &'a Placement,
    /// The node's own policy or the job's.
    pub(crate) bind_to: &'a BindTo,
    /// The kind of object ranks were mapped to.
    pub(crate) mapped: Option<Object>,
    /// Ranks of the job (Open MPI's default depends on it).
    pub(crate) ranks: u32,
    pub(crate) layout: &'a Layout<'a>,
    /// The node's GPUs.
    pub(crate) gpus: &'a [Gpu],
    /// GPUs each rank uses.
    pub(crate) gpus_per_rank: Option<GpusPerRank>,
    /// Those are parts of GPUs.
    pub(crate) gpu_parts: bool,
}

impl Binding<'_> {
    /// CPUs of each local rank; `local` has the object each was mapped to.
    pub(crate) fn bind(&self, local: &[Option<u32>]) -> Result<Vec<Option<CpuSet>>, BindError> {
        let Some(kind) = self.placement.bind_order else { return self.by_policy(local) };
        // Hydra's order: the ranks of a node take its objects in turn, wherever they were mapped.
        let objects = self.layout.objects(kind).len().max(1);
        let dealt: Vec<Option<u32>> = (0..local.len()).map(|i| u32::try_from(i % objects).ok()).collect();
        Self { mapped: Some(kind), ..*self }.by_policy(&dealt)
    }

    fn by_policy(&self, local: &[Option<u32>]) -> Result<Vec<Option<CpuSet>>, BindError> {
        let crowded = local.len() > self.layout.parallel() as usize;
        let kind = match (self.bind_to, self.placement.pe) {
            (BindTo::None, _) => return Ok(vec![None; local.len()]),
            (_, Some(pe)) if pe > 0 => return self.elements(local, pe),
            (BindTo::Share, _) => return Ok(self.share(local)),
            (BindTo::List(list), _) => return self.listed(local.len(), list),
            (BindTo::Gpu, _) => return Ok(self.near_gpus(local.len())),
            (BindTo::OpenMpi, _) if crowded => return Ok(vec![None; local.len()]),
            (BindTo::OpenMpi, _) if self.ranks <= 2 => Object::Core,
            (BindTo::OpenMpi, _) => Object::Package,
            (BindTo::Object(kind), _) => *kind,
        };
        match self.placement.bind_count {
            Some(n) if n > 1 => self.windows(local, kind, n as usize),
            _ => self.objects(local, kind),
        }
    }

    /// Each rank of a mapped object to the next `n` objects of a kind inside it, round again at the end.
    fn windows(
        &self,
        local: &[Option<u32>],
        kind: Object,
        n: usize,
    ) -> Result<Vec<Option<CpuSet>>, BindError> {
        let mut out = vec![None; local.len()];
        let objects = self.layout.objects(kind);
        let of = self.layout.object_of(kind);
        for (_, cpus, ranks) in self.grouped(local) {
            let mut targets: Vec<usize> = cpus.iter().map(|&p| of[p as usize] as usize).collect();
            targets.sort_unstable();
            targets.dedup();
            if targets.is_empty() {
                return Err(BindError::NoCpus);
            }
            for (rank, i) in ranks.into_iter().zip(0usize..) {
                let mine = (0..n.min(targets.len())).map(|k| targets[(i * n + k) % targets.len()]);
                out[rank] = Some(self.layout.set(mine.flat_map(|o| objects[o].iter().copied())));
            }
        }
        Ok(out)
    }

    /// CPUs named one by one: local rank I has entry I, or all have all.
    fn listed(&self, ranks: usize, list: &CpuList) -> Result<Vec<Option<CpuSet>>, BindError> {
        let cpus = self.layout.cpus();
        let threads = list.os || self.placement.use_hwthreads;
        let usable = |entry: &CpuSet| -> CpuSet {
            let named = cpus.iter().filter(|c| entry.contains(if threads { c.os } else { c.core }));
            named.map(|c| c.os).collect()
        };
        let sets: Vec<CpuSet> = list.entries.iter().map(usable).collect();
        if sets.is_empty() || sets.iter().any(CpuSet::is_empty) {
            return Err(BindError::NoCpus);
        }
        if ranks > sets.len() && !self.placement.overload {
            let asked = "a list of CPUs".to_owned();
            return Err(self.overload(None, ranks, sets.len(), asked, Object::Core));
        }
        let all: CpuSet = sets.iter().flat_map(CpuSet::iter).collect();
        let one = |i: usize| if list.ordered { sets[i % sets.len()].clone() } else { all.clone() };
        Ok((0..ranks).map(|i| Some(one(i))).collect())
    }

    /// CPUs of the NUMA node each rank's first GPU is near to; unbound where that is not known.
    fn near_gpus(&self, ranks: usize) -> Vec<Option<CpuSet>> {
        let parts = |g: &&Gpu| if self.gpu_parts { g.parts.max(1) as usize } else { 1 };
        let shares: Vec<&Gpu> = self.gpus.iter().flat_map(|g| std::iter::repeat_n(g, parts(&g))).collect();
        let each = match self.gpus_per_rank {
            Some(GpusPerRank::Count(n)) => n as usize,
            Some(GpusPerRank::Auto) => (shares.len() / ranks.max(1)).max(1),
            None => 1,
        };
        let near = |i: usize| {
            let gpu = shares.get(i * each % shares.len().max(1))?;
            let here = self.layout.cpus().iter().filter(|c| Some(c.numa) == gpu.numa);
            Some(here.map(|c| c.os).collect::<CpuSet>()).filter(|s| !s.is_empty())
        };
        (0..ranks).map(near).collect()
    }

    /// Ranks by the object they were mapped to, and that object's CPUs.
    fn grouped(&self, local: &[Option<u32>]) -> Vec<Mapped> {
        let all: Group = (0u32..).take(self.layout.cpus().len()).collect();
        let Some(kind) = self.mapped else { return vec![(None, all, (0..local.len()).collect())] };
        let objects = self.layout.objects(kind);
        let mut groups: Vec<Mapped> =
            objects.into_iter().zip(0u32..).map(|(cpus, o)| (Some((kind, o)), cpus, Vec::new())).collect();
        if groups.is_empty() {
            return vec![(None, all, (0..local.len()).collect())];
        }
        for (rank, object) in local.iter().enumerate() {
            let at = object.map_or(0, |o| o as usize) % groups.len();
            groups[at].2.push(rank);
        }
        groups.retain(|(_, _, ranks)| !ranks.is_empty());
        groups
    }

    /// Equal shares of each mapped object; unbound where ranks outnumber CPUs.
    fn share(&self, local: &[Option<u32>]) -> Vec<Option<CpuSet>> {
        let mut out = vec![None; local.len()];
        let units = self.layout.units();
        let mut unit_of = vec![0usize; self.layout.cpus().len()];
        for (i, unit) in units.iter().enumerate() {
            unit.iter().for_each(|&p| unit_of[p as usize] = i);
        }
        for (_, cpus, ranks) in self.grouped(local) {
            let mut mine: Vec<usize> = cpus.iter().map(|&p| unit_of[p as usize]).collect();
            mine.sort_unstable();
            mine.dedup();
            // Objects below a core (hardware threads) may share one: then their own CPUs are dealt.
            let inside: Vec<&[u32]> = if mine.iter().map(|&u| units[u].len()).sum::<usize>() == cpus.len() {
                mine.into_iter().map(|u| units[u].as_slice()).collect()
            } else {
                cpus.chunks(1).collect()
            };
            let domain =
                |g: &&[u32]| self.layout.cpus().get(g[0] as usize).map_or((0, 0), |c| (c.package, c.numa));
            let domains: Vec<(u32, u32)> = inside.iter().map(domain).collect();
            let Some(cuts) = shares(&domains, ranks.len()) else { continue };
            for (rank, cut) in ranks.into_iter().zip(cuts) {
                out[rank] = Some(self.layout.set(inside[cut].iter().copied().flatten().copied()));
            }
        }
        out
    }

    /// `PE=n`: the next n free processing elements of the mapped object.
    fn elements(&self, local: &[Option<u32>], pe: u32) -> Result<Vec<Option<CpuSet>>, BindError> {
        let mut out = vec![None; local.len()];
        let units = self.layout.units();
        let mut unit_of = vec![0usize; self.layout.cpus().len()];
        for (i, unit) in units.iter().enumerate() {
            unit.iter().for_each(|&p| unit_of[p as usize] = i);
        }
        let mut used = vec![0u32; units.len()];
        for (within, cpus, ranks) in self.grouped(local) {
            if cpus.is_empty() {
                return Err(BindError::NoCpus);
            }
            let mut mine: Vec<usize> = cpus.iter().map(|&p| unit_of[p as usize]).collect();
            mine.sort_unstable();
            mine.dedup();
            let n = pe as usize;
            let fits = mine.iter().filter(|&&u| used[u] == 0).count() >= n.saturating_mul(ranks.len());
            if !fits && !self.placement.overload {
                return Err(self.overload(within, ranks.len(), mine.len(), format!("PE={pe}"), Object::Core));
            }
            for (rank, i) in ranks.into_iter().zip(0usize..) {
                // Wraps round the object when overloading is allowed.
                let free: Vec<usize> = mine.iter().copied().filter(|&u| used[u] == 0).take(n).collect();
                let chosen = if free.len() == n {
                    free
                } else {
                    (0..n.min(mine.len())).map(|k| mine[(i * n + k) % mine.len()]).collect()
                };
                chosen.iter().for_each(|&u| used[u] += 1);
                out[rank] = Some(self.layout.set(chosen.iter().flat_map(|&u| units[u].iter().copied())));
            }
        }
        Ok(out)
    }

    /// Each rank to an object of `kind`: the one its mapped object lies in, or the least used one inside it.
    fn objects(&self, local: &[Option<u32>], kind: Object) -> Result<Vec<Option<CpuSet>>, BindError> {
        let mut out = vec![None; local.len()];
        let objects = self.layout.objects(kind);
        let of = self.layout.object_of(kind);
        let capacity = |o: usize| match kind {
            Object::Node => u32::MAX,
            Object::Hwthread => 1,
            _ => self.layout.units_in(&objects[o]),
        };
        let room: Vec<u32> = (0..objects.len()).map(capacity).collect();
        let mut used = vec![0u32; objects.len()];
        for (within, cpus, ranks) in self.grouped(local) {
            let mut targets: Vec<usize> = cpus.iter().map(|&p| of[p as usize] as usize).collect();
            targets.sort_unstable();
            targets.dedup();
            let count = ranks.len();
            for rank in ranks {
                let best = targets.iter().copied().min_by_key(|&o| (used[o] >= room[o], used[o], o));
                let best = best.ok_or(BindError::NoCpus)?;
                if used[best] >= room[best] && !self.placement.overload {
                    let units = targets.iter().map(|&o| room[o] as usize).sum();
                    let asked = format!("--bind-to {}", object_name(kind));
                    // A target wider than the mapped object is shared with ranks mapped beside it.
                    let shared = targets.len() == 1 && objects[best].len() > cpus.len();
                    let (within, count) = if shared {
                        (Some((kind, of[cpus[0] as usize])), used[best] as usize + 1)
                    } else {
                        (within, count)
                    };
                    return Err(self.overload(within, count, units, asked, kind));
                }
                used[best] += 1;
                out[rank] = Some(self.layout.set(objects[best].iter().copied()));
            }
        }
        Ok(out)
    }

    fn overload(
        &self,
        within: Option<(Object, u32)>,
        ranks: usize,
        units: usize,
        asked: String,
        kind: Object,
    ) -> BindError {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let unit = if kind == Object::Hwthread { "hwthread" } else { self.layout.unit_name() };
        BindError::Overload {
            within,
            ranks: small(ranks),
            unit,
            units: small(units),
            asked,
            object: object_name(kind),
        }
    }
}

/// The CPUs a rank-file line names on a node.
///
/// # Errors
/// What the node does not have, in words.
pub(crate) fn rankfile_cpus(
    layout: &Layout<'_>,
    threads: bool,
    wanted: &RankfileCpus,
) -> Result<CpuSet, String> {
    let cpus = layout.cpus();
    let positions = |test: &dyn Fn(usize) -> bool| {
        (0u32..).take(cpus.len()).filter(|&p| test(p as usize)).collect::<Vec<u32>>()
    };
    let mut chosen = Vec::new();
    match wanted {
        RankfileCpus::Cores(set) => {
            let number = |p: usize| if threads { cpus[p].os } else { cpus[p].core };
            let have: std::collections::HashSet<u32> = (0..cpus.len()).map(number).collect();
            if let Some(missing) = set.iter().find(|r| !have.contains(&r.0)) {
                return Err(format!("{} {missing}", layout.unit_name()));
            }
            chosen.extend(positions(&|p| set.contains(rmpi_types::Rank(number(p)))));
        }
        RankfileCpus::Os(set) => {
            if let Some(missing) = set.iter().find(|&os| !cpus.iter().any(|c| c.os == os)) {
                return Err(format!("CPU {missing}"));
            }
            chosen.extend(positions(&|p| set.contains(cpus[p].os)));
        }
        RankfileCpus::Package(package, set) => {
            let mut cores: Vec<u32> = cpus.iter().filter(|c| c.package == *package).map(|c| c.core).collect();
            cores.dedup();
            if cores.is_empty() {
                return Err(format!("package {package}"));
            }
            let named: Vec<u32> = if set.is_empty() {
                cores
            } else {
                let core = |r: rmpi_types::Rank| {
                    cores.get(r.0 as usize).copied().ok_or(format!("core {package}:{r}"))
                };
                set.iter().map(core).collect::<Result<_, _>>()?
            };
            let named: std::collections::HashSet<u32> = named.into_iter().collect();
            chosen.extend(positions(&|p| cpus[p].package == *package && named.contains(&cpus[p].core)));
        }
    }
    Ok(layout.set(chosen))
}
