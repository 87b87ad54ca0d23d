//! The plan itself: mapping, ranking and binding put together, checked and numbered.

use crate::MAX_RANKS;
use crate::bind::{BindError, Binding, object_name, rankfile_cpus};
use crate::fold_hosts;
use crate::map::{Put, State, candidates, map_app, mapped_object};
use crate::plan_error::PlanError;
use crate::pool::{NodeFacts, Pool, this_machine};
use crate::rank::rank;
use rmpi_types::spec::{BindTo, JobSpec, MapBy, RankfileEntry};
use rmpi_types::{CpuSet, NodeIdx, Rank, RankSet};

/// Where everything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All ranks, ascending.
    pub ranks: Vec<PlacedRank>,
    /// One entry for each of the caller's nodes, in the caller's order.
    pub nodes: Vec<PlannedNode>,
    /// Slots of the whole allocation, at least the number of ranks (MPI's universe size).
    pub universe: u32,
    /// Whether binding was asked for: failing to bind is then an error, otherwise nobody is told.
    pub bind_explicit: bool,
}

/// One rank's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRank {
    /// The rank.
    pub rank: Rank,
    /// Index into [`JobSpec::apps`].
    pub app: u32,
    /// Index into the caller's nodes.
    pub node: NodeIdx,
    /// Rank among those of its node, dense from 0.
    pub local_rank: u32,
    /// CPUs to bind to; `None` leaves it unbound.
    pub cpus: Option<CpuSet>,
}

/// One node of the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannedNode {
    /// Its slots.
    pub slots: u32,
    /// Ranks on it; 0 for nodes the job does not need.
    pub ranks: u32,
    /// More ranks than CPUs it can run at once (usable cores, CPU quota): waiting ranks must yield.
    pub oversubscribed: bool,
}

/// Places a job on the nodes that were reached.
///
/// Hosts of the spec that no node stands for are not used, but count as slots of the allocation; reaching what
/// [`crate::hosts_needed`] names is enough unless two of those names turn out to be one node and the mapping is by
/// `ppr` or `-N`.
///
/// # Errors
/// See [`PlanError`]; nothing is partly placed.
pub fn place(spec: &JobSpec, nodes: &[NodeFacts]) -> Result<Plan, PlanError> {
    let implicit = [this_machine()];
    let hosts = if spec.hosts.is_empty() { &implicit[..] } else { &spec.hosts[..] };
    let mut pool = Pool::new(spec, hosts, nodes);
    check_cpus(spec, &pool, nodes)?;
    let (places, lines) = match &spec.placement.map_by {
        MapBy::Rankfile(lines) => (by_rankfile(spec, &mut pool, lines)?, Some(lines.as_slice())),
        _ => (by_policy(spec, &mut pool)?, None),
    };
    let mut plan = number(&pool, &places, nodes.len());
    let total = u32::try_from(plan.ranks.len()).unwrap_or(u32::MAX);
    plan.universe = u32::try_from(pool.universe()).unwrap_or(u32::MAX).max(total);
    plan.bind_explicit = spec.placement.pe.is_some()
        || matches!(spec.placement.bind_to, BindTo::Object(_) | BindTo::List(_))
        || lines.is_some_and(|l| l.iter().any(|e| e.cpus.is_some()));
    bind_all(spec, &pool, &places, &mut plan)?;
    if let Some(lines) = lines {
        bind_lines(spec, &pool, &places, lines, &mut plan)?;
    }
    Ok(plan)
}

/// `--cpu-set` must leave every node something.
fn check_cpus(spec: &JobSpec, pool: &Pool<'_>, nodes: &[NodeFacts]) -> Result<(), PlanError> {
    let Some(only) = &spec.placement.cpu_set else { return Ok(()) };
    let empty = pool.nodes.iter().find(|n| n.layout.cpus().is_empty());
    let Some(node) = empty else { return Ok(()) };
    let cpus = &nodes[node.index].topology.cpus;
    let usable: RankSet =
        cpus.iter().map(|c| Rank(if spec.placement.use_hwthreads { c.os } else { c.core })).collect();
    let why = format!(" of --cpu-set {only}; usable there: {usable}");
    Err(PlanError::NoCpus { host: node.name.to_owned(), why })
}

/// Places in rank order, each with its program.
fn by_policy(spec: &JobSpec, pool: &mut Pool<'_>) -> Result<Vec<(u32, Put)>, PlanError> {
    let mut state = State::default();
    let mut places = Vec::new();
    for (app, index) in spec.apps.iter().zip(0u32..) {
        let puts = map_app(spec, app, pool, &mut state)?;
        places.extend(rank(&spec.placement, pool, puts).into_iter().map(|put| (index, put)));
        let asked = places.len() as u64;
        if asked > u64::from(MAX_RANKS) {
            return Err(PlanError::TooManyRanks { asked, limit: MAX_RANKS });
        }
    }
    Ok(places)
}

/// Places a rank file names; slots do not matter, `max_slots` do.
fn by_rankfile(
    spec: &JobSpec,
    pool: &mut Pool<'_>,
    lines: &[RankfileEntry],
) -> Result<Vec<(u32, Put)>, PlanError> {
    let counts: Vec<u64> = match spec.apps.as_slice() {
        [only] => vec![only.np.map_or(lines.len() as u64, u64::from)],
        several => several
            .iter()
            .map(|a| a.np.map(u64::from))
            .collect::<Option<_>>()
            .ok_or(PlanError::RankfilePrograms)?,
    };
    let asked: u64 = counts.iter().sum();
    if counts.contains(&0) {
        return Err(PlanError::ZeroRanks);
    }
    let dense = lines.iter().zip(0u32..).all(|(e, i)| e.rank.0 == i);
    if asked != lines.len() as u64 || !dense {
        return Err(PlanError::RankfileCount { asked, lines: lines.len() });
    }
    let apps = counts.iter().zip(0u32..).flat_map(|(&n, app)| (0..n).map(move |_| app));
    let mut places = Vec::with_capacity(lines.len());
    for (line, app) in lines.iter().zip(apps) {
        let Some(at) = pool.of_host.get(line.host).copied().flatten() else {
            let all = candidates(spec, &rmpi_types::spec::App::default(), pool)?;
            let asked = u32::try_from(asked).unwrap_or(u32::MAX);
            return Err(pool.shortage(&spec.placement, asked, &all, None));
        };
        let node = &mut pool.nodes[at];
        if !node.open() {
            return Err(PlanError::MaxSlots { hosts: node.name.to_owned(), max: node.max.unwrap_or(0) });
        }
        node.used += 1;
        places.push((app, Put { node: u32::try_from(at).unwrap_or(u32::MAX), object: None }));
    }
    Ok(places)
}

/// Numbers the places.
fn number(pool: &Pool<'_>, places: &[(u32, Put)], nodes: usize) -> Plan {
    let mut plan = Plan { nodes: vec![PlannedNode::default(); nodes], ..Plan::default() };
    for node in &pool.nodes {
        plan.nodes[node.index].slots = node.slots;
    }
    plan.ranks.reserve(places.len());
    for (&(app, put), rank) in places.iter().zip(0u32..) {
        let index = pool.nodes[put.node as usize].index;
        let node = &mut plan.nodes[index];
        let local_rank = node.ranks;
        node.ranks += 1;
        let node = NodeIdx(u32::try_from(index).unwrap_or(u32::MAX));
        plan.ranks.push(PlacedRank { rank: Rank(rank), app, node, local_rank, cpus: None });
    }
    for node in &pool.nodes {
        let planned = &mut plan.nodes[node.index];
        planned.oversubscribed = planned.ranks > node.layout.parallel();
    }
    plan
}

/// Binds the ranks of every node; equal failures of several nodes are one error.
fn bind_all(
    spec: &JobSpec,
    pool: &Pool<'_>,
    places: &[(u32, Put)],
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let mut local: Vec<Vec<(usize, Option<u32>)>> = vec![Vec::new(); pool.nodes.len()];
    for (i, (_, put)) in places.iter().enumerate() {
        local[put.node as usize].push((i, put.object));
    }
    let total = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let mut failed: Vec<(&str, BindError)> = Vec::new();
    for (node, local) in pool.nodes.iter().zip(&local).filter(|(_, l)| !l.is_empty()) {
        let binding = Binding {
            placement: &spec.placement,
            bind_to: node.bind_to.unwrap_or(&spec.placement.bind_to),
            mapped: mapped_object(&spec.placement),
            ranks: total,
            layout: &node.layout,
            gpus: node.gpus,
            gpus_per_rank: spec.gpus_per_rank,
            gpu_parts: spec.gpu_parts,
        };
        let objects: Vec<Option<u32>> = local.iter().map(|&(_, object)| object).collect();
        match binding.bind(&objects) {
            Ok(sets) => local.iter().zip(sets).for_each(|(&(i, _), cpus)| plan.ranks[i].cpus = cpus),
            // A rank file's own CPUs come later and replace what could not be had here.
            Err(_) if matches!(spec.placement.map_by, MapBy::Rankfile(ref l) if l.iter().all(|e| e.cpus.is_some())) =>
                {}
            Err(e) => failed.push((node.name, e)),
        }
    }
    let Some((host, first)) = failed.first() else { return Ok(()) };
    let same: Vec<&str> = failed.iter().filter(|(_, e)| e == first).map(|&(name, _)| name).collect();
    Err(match first.clone() {
        BindError::NoCpus => {
            PlanError::NoCpus { host: (*host).to_owned(), why: " is known there to bind to".to_owned() }
        }
        BindError::Overload { within, ranks, unit, units, asked, object } => {
            let within = within.map(|(kind, i)| format!(" {} {i}", object_name(kind))).unwrap_or_default();
            PlanError::Overload {
                place: format!("{}{within}", fold_hosts(&same)),
                ranks,
                unit,
                units,
                asked,
                object,
            }
        }
    })
}

/// Gives ranks the CPUs their rank-file lines name.
fn bind_lines(
    spec: &JobSpec,
    pool: &Pool<'_>,
    places: &[(u32, Put)],
    lines: &[RankfileEntry],
    plan: &mut Plan,
) -> Result<(), PlanError> {
    for ((line, placed), (_, put)) in lines.iter().zip(&mut plan.ranks).zip(places) {
        let Some(wanted) = &line.cpus else { continue };
        let node = &pool.nodes[put.node as usize];
        let cpus = rankfile_cpus(&node.layout, spec.placement.use_hwthreads, wanted).map_err(|what| {
            let usable: RankSet = node.layout.cpus().iter().map(|c| Rank(c.core)).collect();
            PlanError::RankfileCpus {
                origin: line.origin.clone(),
                host: node.name.to_owned(),
                what,
                usable: usable.to_string(),
            }
        })?;
        placed.cpus = Some(cpus);
    }
    Ok(())
}
