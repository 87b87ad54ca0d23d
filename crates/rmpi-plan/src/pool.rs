//! The nodes ranks can be mapped to, with slots: hosts of one node merged, counts that were not given filled
//! in from its topology. Also what is said when the slots do not suffice.

use crate::fold_hosts;
use crate::layout::Layout;
use crate::plan_error::{PlanError, fold_counts};
use rmpi_types::Topology;
use rmpi_types::cpus::Gpu;
use rmpi_types::spec::{BindTo, Host, JobSpec, Placement, Slots};
use std::collections::HashSet;

/// What is known of one node that was reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its hosts: indices into [`JobSpec::hosts`] (several names of one node are merged by the caller, who
    /// knows the node ids; their slots add up). Ignored when the job names no hosts.
    pub hosts: Vec<usize>,
    /// Whether it is the launcher's own node (`--nolocal`).
    pub local: bool,
    /// Its usable CPUs.
    pub topology: Topology,
}

/// A node ranks can be mapped to.
pub(crate) struct PoolNode<'a> {
    /// Index into the caller's facts.
    pub(crate) index: usize,
    pub(crate) name: &'a str,
    pub(crate) slots: u32,
    pub(crate) max: Option<u32>,
    pub(crate) local: bool,
    pub(crate) bind_to: Option<&'a BindTo>,
    pub(crate) layout: Layout<'a>,
    pub(crate) gpus: &'a [Gpu],
    /// Ranks mapped so far.
    pub(crate) used: u32,
    /// Ranks per mapped object so far.
    pub(crate) object_used: Vec<u32>,
}

impl PoolNode<'_> {
    /// Slots not used yet; with `pe` CPUs a rank, no more than its CPUs allow.
    pub(crate) fn free(&self, pe: Option<u32>) -> u32 {
        let slots = match pe {
            Some(pe) if pe > 1 => self.slots.min((self.layout.unit_count() / pe).max(1)),
            _ => self.slots,
        };
        slots.min(self.max.unwrap_or(u32::MAX)).saturating_sub(self.used)
    }

    /// Whether `max_slots` allows one rank more.
    pub(crate) fn open(&self) -> bool {
        self.max.is_none_or(|m| self.used < m)
    }
}

/// All nodes that were reached, ordered by their first host.
pub(crate) struct Pool<'a> {
    pub(crate) nodes: Vec<PoolNode<'a>>,
    /// For each host, its position in `nodes`; `None` when it was not reached.
    pub(crate) of_host: Vec<Option<usize>>,
    hosts: &'a [Host],
}

/// The host of a job that names none.
pub(crate) fn this_machine() -> Host {
    Host { name: "localhost".to_owned(), ..Host::default() }
}

impl<'a> Pool<'a> {
    /// `hosts`: those of the job, or this machine alone.
    pub(crate) fn new(spec: &'a JobSpec, hosts: &'a [Host], facts: &'a [NodeFacts]) -> Self {
        let implicit = spec.hosts.is_empty();
        let own = |f: &NodeFacts| -> Vec<usize> {
            let mut own = if implicit { vec![0] } else { f.hosts.clone() };
            own.retain(|&h| h < hosts.len());
            own.sort_unstable();
            own.dedup();
            own
        };
        let mut order: Vec<(Vec<usize>, usize)> =
            facts.iter().enumerate().map(|(i, f)| (own(f), i)).filter(|(own, _)| !own.is_empty()).collect();
        order.sort();
        let mut of_host = vec![None; hosts.len()];
        let mut nodes = Vec::with_capacity(order.len());
        for (own, index) in order {
            // A host belongs to one node; the first that claims it has it.
            let own: Vec<usize> = own.into_iter().filter(|&h| of_host[h].is_none()).collect();
            let Some(&first) = own.first() else { continue };
            own.iter().for_each(|&h| of_host[h] = Some(nodes.len()));
            let fact = &facts[index];
            let layout =
                Layout::new(&fact.topology, spec.placement.cpu_set.as_ref(), spec.placement.use_hwthreads);
            let max =
                own.iter().map(|&h| hosts[h].max_slots).try_fold(0u32, |sum, m| Some(sum.saturating_add(m?)));
            nodes.push(PoolNode {
                index,
                name: &hosts[first].name,
                slots: merged_slots(&own, hosts, auto_slots(spec, fact, &layout)),
                max,
                local: fact.local,
                bind_to: own.iter().find_map(|&h| hosts[h].bind_to.as_ref()),
                layout,
                gpus: &fact.topology.gpus,
                used: 0,
                object_used: Vec::new(),
            });
        }
        Self { nodes, of_host, hosts }
    }

    /// Slots of the whole allocation; a host that was not reached and gives no count is one.
    pub(crate) fn universe(&self) -> u64 {
        let reached: u64 = self.nodes.iter().map(|n| u64::from(n.slots)).sum();
        let rest = self.of_host.iter().zip(self.hosts).filter(|(at, _)| at.is_none());
        reached + rest.map(|(_, h)| u64::from(lower_bound(h))).sum::<u64>()
    }

    /// The error for `asked` ranks on `candidates`, of which only some hosts may have been reached.
    pub(crate) fn shortage(
        &self,
        p: &Placement,
        asked: u32,
        candidates: &[usize],
        allowed: Option<&[usize]>,
    ) -> PlanError {
        let reached: Vec<(&str, u32)> = candidates
            .iter()
            .map(|&c| (self.nodes[c].name, self.nodes[c].slots - self.nodes[c].used.min(self.nodes[c].slots)))
            .collect();
        let allowed: Option<HashSet<usize>> = allowed.map(|a| a.iter().copied().collect());
        let may = |h: &usize| allowed.as_ref().is_none_or(|a| a.contains(h));
        let rest: Vec<&Host> = (0..self.hosts.len())
            .filter(|&h| self.of_host[h].is_none())
            // With these some hosts are left out on purpose, and which is not known here.
            .filter(|_| !p.nolocal && p.max_nodes.is_none())
            .filter(may)
            .map(|h| &self.hosts[h])
            .collect();
        let given: u64 = reached.iter().map(|&(_, n)| u64::from(n)).sum();
        let each = p.pe.unwrap_or(1).max(1);
        let room: u64 = candidates.iter().map(|&c| u64::from(self.nodes[c].free(p.pe))).sum();
        let beyond: u64 = rest.iter().map(|h| u64::from(lower_bound(h) / each)).sum();
        if room + beyond >= u64::from(asked) {
            let names: Vec<&str> = rest.iter().map(|h| h.name.as_str()).collect();
            return PlanError::NotReached {
                asked,
                given,
                hosts: fold_counts(reached),
                unreached: fold_hosts(&names),
            };
        }
        let all = reached.into_iter().chain(rest.iter().map(|h| (h.name.as_str(), lower_bound(h))));
        let hosts: Vec<&Host> =
            self.hosts.iter().zip(0..).filter(|(_, h)| may(h)).map(|(host, _)| host).collect();
        let mut error = not_enough_slots(asked, &all.collect::<Vec<_>>(), &hosts);
        if let PlanError::NotEnoughSlots { fix, given, .. } = &mut error {
            if each > 1 {
                *fix = format!("Each rank takes {each} (PE={each}): give more slots, or lower -np or PE.");
            } else if *given == 0 && candidates.iter().any(|&c| self.nodes[c].used > 0) {
                *fix = "The programs before it take all slots: give each its -np.".to_owned();
            }
        }
        error
    }
}

/// The text for too few slots: who has how many, and how to get more where these came from.
pub(crate) fn not_enough_slots(asked: u32, slots: &[(&str, u32)], hosts: &[&Host]) -> PlanError {
    let given: u64 = slots.iter().map(|&(_, n)| u64::from(n)).sum();
    let option = hosts.first().map(|h| h.origin.as_str()).filter(|o| o.starts_with('-'));
    let file = hosts.first().and_then(|h| h.origin.rsplit_once(':')).map(|(file, _)| file);
    let fix = match (option, file) {
        (Some(option), _) if slots.len() <= 4 && hosts.iter().all(|h| h.origin == option) => {
            format!("Write {option} {}, or add --oversubscribe.", enough(asked, slots))
        }
        (Some(option), _) => format!("Give more slots ({option} NAME:COUNT), or add --oversubscribe."),
        (None, Some(file)) => format!("Give more slots in {file} (slots=N), or add --oversubscribe."),
        (None, None) => "Lower -np, or add --oversubscribe.".to_owned(),
    };
    PlanError::NotEnoughSlots { asked, given, hosts: fold_counts(slots.iter().copied()), fix }
}

/// A host list with room for `asked`, the missing slots dealt in order.
fn enough(asked: u32, slots: &[(&str, u32)]) -> String {
    let given: u64 = slots.iter().map(|&(_, n)| u64::from(n)).sum();
    let missing = u64::from(asked).saturating_sub(given);
    let n = slots.len() as u64;
    let more = |i: u64| missing / n + u64::from(i < missing % n);
    let bracket = |name: &str| if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let words: Vec<String> = slots
        .iter()
        .zip(0u64..)
        .map(|(&(h, s), i)| format!("{}:{}", bracket(h), u64::from(s) + more(i)))
        .collect();
    words.join(",")
}

/// Slots that a host has at the least.
pub(crate) fn lower_bound(host: &Host) -> u32 {
    let n = match host.slots {
        Slots::Auto => 1,
        Slots::Count(n) => n,
    };
    n.min(host.max_slots.unwrap_or(u32::MAX))
}

/// Slots of a node whose hosts give no count: its CPUs, or its GPUs.
fn auto_slots(spec: &JobSpec, fact: &NodeFacts, layout: &Layout<'_>) -> u32 {
    if spec.placement.slots_by_gpu {
        return u32::try_from(fact.topology.gpus.len()).unwrap_or(u32::MAX);
    }
    layout.parallel().max(1)
}

/// Counts of all names add up; names without a count share the node's CPUs (`all`) once.
fn merged_slots(own: &[usize], hosts: &[Host], all: u32) -> u32 {
    let mut total = 0u32;
    let mut auto = false;
    for &h in own {
        match hosts[h].slots {
            Slots::Count(n) => total = total.saturating_add(n),
            Slots::Auto if auto => {}
            Slots::Auto => {
                auto = true;
                total = total.saturating_add(all);
            }
        }
    }
    total
}
