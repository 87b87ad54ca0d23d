//! Mapping: which node, and which object there, each rank of a program goes to, in mapping order. Slots,
//! `max_slots` and patterns are enforced here; numbering is [`crate::rank`]'s, CPUs are [`crate::bind`]'s work.

use crate::MAX_RANKS;
use crate::fold_hosts;
use crate::plan_error::PlanError;
use crate::pool::{Pool, PoolNode};
use rmpi_types::JobSpec;
use rmpi_types::spec::{App, MapBy, Object, Placement};

/// A rank's place. `node` is a position in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) node: u32,
    /// Index among the node's objects of the mapping's kind; `None` when mapped to the node as a whole.
    pub(crate) object: Option<u32>,
}

/// What one program leaves for the next.
#[derive(Default)]
pub(crate) struct State {
    /// Node that got the last rank when dealing over nodes.
    last: Option<usize>,
    /// Lines of a sequential map used so far.
    seq: usize,
}

/// The object ranks are dealt over inside a node, if any.
pub(crate) fn mapped_object(placement: &Placement) -> Option<Object> {
    match placement.map_by {
        MapBy::Object(kind) | MapBy::Ppr(_, kind) if kind != Object::Node => Some(kind),
        _ => None,
    }
}

/// Nodes a program may use, in order: its own host list's order if it has one.
pub(crate) fn candidates(spec: &JobSpec, app: &App, pool: &Pool<'_>) -> Result<Vec<usize>, PlanError> {
    let mut nodes: Vec<usize> = (0..pool.nodes.len()).collect();
    if pool.nodes.is_empty() {
        return Err(PlanError::NoHosts { why: "none was reached" });
    }
    if spec.placement.nolocal {
        nodes.retain(|&n| !pool.nodes[n].local);
        if nodes.is_empty() {
            return Err(PlanError::NoHosts { why: "--nolocal leaves out the only one" });
        }
    }
    if let Some(max) = spec.placement.max_nodes {
        nodes.truncate(max as usize);
    }
    if let Some(own) = &app.hosts {
        let mut allowed = vec![false; pool.nodes.len()];
        nodes.iter().for_each(|&n| allowed[n] = true);
        nodes.clear();
        for node in own.iter().filter_map(|&h| pool.of_host.get(h).copied().flatten()) {
            if std::mem::take(&mut allowed[node]) {
                nodes.push(node);
            }
        }
    }
    if nodes.is_empty() {
        return Err(PlanError::NoHosts { why: "the program's own hosts are all left out" });
    }
    Ok(nodes)
}

/// Maps one program; rank files are not handled here.
pub(crate) fn map_app(
    spec: &JobSpec,
    app: &App,
    pool: &mut Pool<'_>,
    state: &mut State,
) -> Result<Vec<Put>, PlanError> {
    if app.np == Some(0) {
        return Err(PlanError::ZeroRanks);
    }
    let nodes = candidates(spec, app, pool)?;
    let p = &spec.placement;
    match &p.map_by {
        MapBy::Seq(list) => by_list(spec, app, pool, state, list),
        MapBy::Ppr(n, kind) => by_pattern(p, app, pool, &nodes, *n, *kind),
        _ => {
            let np = wanted(p, app, pool, &nodes)?;
            let free = free_slots(p, app, pool, &nodes)?;
            let total: u64 = free.iter().map(|&n| u64::from(n)).sum();
            if u64::from(np) > total {
                if let Some(n) = p.per_node.filter(|_| !p.listed_order) {
                    let pattern = format!("-N {n}");
                    return Err(PlanError::PatternTooSmall {
                        asked: np,
                        pattern,
                        places: total,
                        nodes: nodes.len(),
                    });
                }
                if !p.oversubscribe && !p.listed_order {
                    return Err(pool.shortage(p, np, &nodes, app.hosts.as_deref()));
                }
            }
            match p.map_by {
                MapBy::Object(Object::Node) => deal(pool, state, &nodes, free, np),
                MapBy::Object(kind) if p.span => deal_objects(p, pool, &nodes, free, np, kind),
                MapBy::Object(kind) => {
                    let puts = fill(p, pool, &nodes, &free, np)?;
                    Ok(into_objects(p, pool, puts, kind))
                }
                _ => fill(p, pool, &nodes, &free, np),
            }
        }
    }
}

/// How many ranks a program has.
fn wanted(p: &Placement, app: &App, pool: &Pool<'_>, nodes: &[usize]) -> Result<u32, PlanError> {
    let asked: u64 = match (app.np, p.per_node) {
        (Some(np), _) => u64::from(np),
        (None, Some(n)) => u64::from(n) * nodes.len() as u64,
        // As in Open MPI, with oversubscription a second program fills all slots again.
        (None, None) if p.oversubscribe => nodes.iter().map(|&n| u64::from(pool.nodes[n].slots)).sum(),
        (None, None) => nodes.iter().map(|&n| u64::from(pool.nodes[n].free(p.pe))).sum(),
    };
    check_count(asked.max(1))
}

fn check_count(asked: u64) -> Result<u32, PlanError> {
    let n = u32::try_from(asked).ok().filter(|&n| n <= MAX_RANKS);
    n.ok_or(PlanError::TooManyRanks { asked, limit: MAX_RANKS })
}

/// Free slots of each node, or what `-N` says.
fn free_slots(p: &Placement, app: &App, pool: &Pool<'_>, nodes: &[usize]) -> Result<Vec<u32>, PlanError> {
    let free = |n: &usize| pool.nodes[*n].free(p.pe);
    let Some(per_node) = p.per_node else { return Ok(nodes.iter().map(free).collect()) };
    if (p.span || p.map_by == MapBy::Object(Object::Node)) && !p.oversubscribe && !p.listed_order {
        // Dealt, not node by node: a node with fewer slots just drops out of the round earlier.
        return Ok(nodes.iter().map(|n| free(n).min(per_node)).collect());
    }
    // Only nodes that get ranks need the slots.
    let mut left = app.np.map_or(u64::MAX, u64::from);
    let mut needs = Vec::new();
    for &n in nodes {
        let ranks = u64::from(per_node).min(left);
        left -= ranks;
        needs.push((n, u32::try_from(ranks).unwrap_or(per_node)));
    }
    check_pattern(p, pool, &needs, &format!("-N {per_node}"))?;
    Ok(vec![per_node; nodes.len()])
}

/// Whether the nodes have the slots that a pattern needs of them.
fn check_pattern(
    p: &Placement,
    pool: &Pool<'_>,
    needs: &[(usize, u32)],
    pattern: &str,
) -> Result<(), PlanError> {
    if p.oversubscribe || p.listed_order {
        return Ok(());
    }
    let free = |n: usize| pool.nodes[n].free(None);
    let Some(&(bad, ranks)) = needs.iter().find(|&&(n, want)| want > free(n)) else { return Ok(()) };
    let slots = free(bad);
    let same = needs.iter().filter(|&&(n, want)| want == ranks && free(n) == slots);
    let names: Vec<&str> = same.map(|&(n, _)| pool.nodes[n].name).collect();
    Err(PlanError::PatternOverSlots { hosts: fold_hosts(&names), pattern: pattern.to_owned(), ranks, slots })
}

/// The error for ranks left over where every node is at its `max_slots`.
fn all_full(pool: &Pool<'_>, nodes: &[usize]) -> PlanError {
    let full: Vec<&PoolNode<'_>> = nodes.iter().map(|&n| &pool.nodes[n]).filter(|n| !n.open()).collect();
    let names: Vec<&str> = full.iter().map(|n| n.name).collect();
    PlanError::MaxSlots { hosts: fold_hosts(&names), max: full.first().and_then(|n| n.max).unwrap_or(0) }
}

/// Fills each node's slots in order. Ranks beyond them are dealt evenly, or with `listed_order` go round the list
/// of slots again.
fn fill(
    p: &Placement,
    pool: &mut Pool<'_>,
    nodes: &[usize],
    free: &[u32],
    np: u32,
) -> Result<Vec<Put>, PlanError> {
    let mut counts = vec![0u32; nodes.len()];
    let mut left = np;
    let mut puts = Vec::with_capacity(np as usize);
    let put = |n: usize| Put { node: u32::try_from(n).unwrap_or(u32::MAX), object: None };
    let wrap = p.listed_order && free.iter().any(|&f| f > 0);
    let mut active: Vec<usize> = (0..nodes.len()).collect();
    let mut first = true;
    while left > 0 && !active.is_empty() {
        active.retain(|&i| {
            let node = &mut pool.nodes[nodes[i]];
            let room = node.max.unwrap_or(u32::MAX).saturating_sub(node.used);
            let want = if first || wrap { free[i] } else { 1 };
            let n = want.min(left).min(room);
            node.used += n;
            left -= n;
            counts[i] += n;
            if p.listed_order {
                puts.extend(std::iter::repeat_n(put(nodes[i]), n as usize));
            }
            // Without the second test a node that never takes any would turn the loop for ever.
            room > n && (first || want > 0)
        });
        first = false;
    }
    if left > 0 {
        return Err(all_full(pool, nodes));
    }
    if !p.listed_order {
        let each = nodes.iter().zip(&counts);
        puts.extend(each.flat_map(|(&n, &c)| std::iter::repeat_n(put(n), c as usize)));
    }
    Ok(puts)
}

/// Deals one rank a node and round, first while slots are free, then (oversubscribed) while `max_slots` allows.
fn deal(
    pool: &mut Pool<'_>,
    state: &mut State,
    nodes: &[usize],
    mut free: Vec<u32>,
    np: u32,
) -> Result<Vec<Put>, PlanError> {
    let mut puts = Vec::with_capacity(np as usize);
    let start = state.last.and_then(|last| nodes.iter().position(|&n| n == last)).map_or(0, |i| i + 1);
    let all: Vec<usize> = (0..nodes.len()).map(|i| (start + i) % nodes.len()).collect();
    for beyond in [false, true] {
        let mut active = all.clone();
        while puts.len() < np as usize && !active.is_empty() {
            active.retain(|&i| {
                let node = &mut pool.nodes[nodes[i]];
                if puts.len() == np as usize || !node.open() || (!beyond && free[i] == 0) {
                    return false;
                }
                free[i] = free[i].saturating_sub(1);
                node.used += 1;
                state.last = Some(nodes[i]);
                puts.push(Put { node: u32::try_from(nodes[i]).unwrap_or(u32::MAX), object: None });
                true
            });
        }
    }
    if puts.len() < np as usize { Err(all_full(pool, nodes)) } else { Ok(puts) }
}

/// Ranks each object can take before it has more than CPUs.
fn object_room(p: &Placement, node: &PoolNode<'_>, kind: Object) -> Vec<u32> {
    let pe = p.pe.unwrap_or(1).max(1);
    let rooms =
        node.layout.objects(kind).iter().map(|g| (node.layout.units_in(g) / pe).max(1)).collect::<Vec<_>>();
    // Nothing known of the node: it is one object.
    if rooms.is_empty() { vec![u32::MAX] } else { rooms }
}

/// Deals the ranks of each node over its objects, full ones last.
fn into_objects(p: &Placement, pool: &mut Pool<'_>, mut puts: Vec<Put>, kind: Object) -> Vec<Put> {
    let mut order: Vec<usize> = (0..puts.len()).collect();
    order.sort_by_key(|&i| puts[i].node);
    let node_of: Vec<u32> = puts.iter().map(|put| put.node).collect();
    for same in order.chunk_by(|&a, &b| node_of[a] == node_of[b]) {
        let Some(node) = same.first().and_then(|&i| pool.nodes.get_mut(puts[i].node as usize)) else {
            continue;
        };
        let room = object_room(p, node, kind);
        node.object_used.resize(room.len(), 0);
        let used = &mut node.object_used;
        let chosen: Vec<u32> = (0..same.len()).map(|_| least_used(used, &room)).collect();
        for (&i, object) in same.iter().zip(chosen) {
            puts[i].object = Some(object);
        }
    }
    puts
}

/// The object with the fewest ranks, those with room first; it gets one more.
fn least_used(used: &mut [u32], room: &[u32]) -> u32 {
    let best = (0..used.len()).min_by_key(|&o| (used[o] >= room[o], used[o]));
    let best = best.unwrap_or(0);
    used[best] += 1;
    u32::try_from(best).unwrap_or(u32::MAX)
}

/// `SPAN`: deals over the objects of all nodes as if they were one.
fn deal_objects(
    p: &Placement,
    pool: &mut Pool<'_>,
    nodes: &[usize],
    mut free: Vec<u32>,
    np: u32,
    kind: Object,
) -> Result<Vec<Put>, PlanError> {
    let mut places: Vec<(usize, u32, u32)> = Vec::new();
    for (i, &n) in nodes.iter().enumerate() {
        places.extend(
            object_room(p, &pool.nodes[n], kind).into_iter().zip(0u32..).map(|(room, o)| (i, o, room)),
        );
    }
    let mut puts = Vec::with_capacity(np as usize);
    // Slots may outnumber CPUs: once all objects are full, the slots left are used, then (oversubscribed) any.
    for (by_room, by_slots) in [(true, true), (false, true), (false, false)] {
        let mut active = places.clone();
        while puts.len() < np as usize && !active.is_empty() {
            active.retain_mut(|(i, object, room)| {
                let node = &mut pool.nodes[nodes[*i]];
                let full = (by_slots && free[*i] == 0) || (by_room && *room == 0);
                if puts.len() == np as usize || !node.open() || full {
                    return false;
                }
                free[*i] = free[*i].saturating_sub(1);
                *room = room.saturating_sub(1);
                node.used += 1;
                puts.push(Put { node: u32::try_from(nodes[*i]).unwrap_or(u32::MAX), object: Some(*object) });
                true
            });
        }
    }
    if puts.len() < np as usize { Err(all_full(pool, nodes)) } else { Ok(puts) }
}

/// The name of a pattern in messages.
fn pattern_name(n: u32, kind: Object) -> String {
    format!("ppr:{n}:{}", crate::bind::object_name(kind))
}

/// `ppr:N:object`: N ranks on each object, node by node.
fn by_pattern(
    p: &Placement,
    app: &App,
    pool: &mut Pool<'_>,
    nodes: &[usize],
    n: u32,
    kind: Object,
) -> Result<Vec<Put>, PlanError> {
    let mut left = app.np.unwrap_or(u32::MAX);
    let mut needs = Vec::with_capacity(nodes.len());
    let mut places = 0u64;
    let mut objects = Vec::with_capacity(nodes.len());
    for &i in nodes {
        let here = if kind == Object::Node { 1 } else { pool.nodes[i].layout.objects(kind).len().max(1) };
        let here_u32 = u32::try_from(here).unwrap_or(u32::MAX);
        let all = here_u32.saturating_mul(n).min(p.per_node.unwrap_or(u32::MAX));
        places += u64::from(all);
        let want = all.min(left);
        left -= want;
        needs.push((i, want));
        objects.push(here_u32);
    }
    if let Some(asked) = app.np.filter(|_| left > 0) {
        let pattern = pattern_name(n, kind);
        return Err(PlanError::PatternTooSmall { asked, pattern, places, nodes: nodes.len() });
    }
    check_count(app.np.map_or(places, u64::from))?;
    check_pattern(p, pool, &needs, &pattern_name(n, kind))?;
    let mut puts = Vec::new();
    for (&(i, want), here) in needs.iter().zip(objects) {
        let node = &mut pool.nodes[i];
        node.used = node.used.saturating_add(want);
        if node.max.is_some_and(|m| node.used > m) {
            let max = node.max.unwrap_or(0);
            return Err(PlanError::MaxSlots { hosts: node.name.to_owned(), max });
        }
        let object = |o| (kind != Object::Node).then_some(o);
        let each = (0..here).flat_map(|o| std::iter::repeat_n(o, n as usize)).take(want as usize);
        puts.extend(each.map(|o| Put { node: u32::try_from(i).unwrap_or(u32::MAX), object: object(o) }));
    }
    if puts.is_empty() { Err(PlanError::ZeroRanks) } else { Ok(puts) }
}

/// One rank a line of the host list, slots ignored; with `listed_order` the list is gone round again.
fn by_list(
    spec: &JobSpec,
    app: &App,
    pool: &mut Pool<'_>,
    state: &mut State,
    list: &[usize],
) -> Result<Vec<Put>, PlanError> {
    let wrap = spec.placement.listed_order;
    let mut allowed = vec![false; pool.nodes.len()];
    candidates(spec, app, pool)?.into_iter().for_each(|n| allowed[n] = true);
    let own = |h: usize| app.hosts.as_ref().is_none_or(|own| own.contains(&h));
    let at = |h: usize| match pool.of_host.get(h).copied().flatten() {
        Some(node) if allowed[node] => Some(Ok(node)),
        // Left out on purpose, or not reached: the second is an error once the line is needed.
        Some(_) => None,
        None if spec.placement.nolocal || spec.placement.max_nodes.is_some() => None,
        None => own(h).then_some(Err(h)),
    };
    let lines: Vec<Result<usize, usize>> = list.iter().filter_map(|&h| at(h)).collect();
    let rest = if wrap { lines.len() } else { lines.len().saturating_sub(state.seq) };
    let asked = check_count(app.np.map_or(rest as u64, u64::from).max(1))?;
    if asked as usize > rest && !(wrap && rest > 0) {
        return Err(PlanError::SeqTooShort { asked, lines: rest });
    }
    let mut puts = Vec::with_capacity(asked as usize);
    for line in lines.iter().cycle().skip(state.seq % lines.len().max(1)).take(asked as usize) {
        let Ok(n) = *line else {
            let nodes: Vec<usize> = (0..pool.nodes.len()).collect();
            return Err(pool.shortage(&spec.placement, asked, &nodes, app.hosts.as_deref()));
        };
        let node = &mut pool.nodes[n];
        if !node.open() {
            return Err(PlanError::MaxSlots { hosts: node.name.to_owned(), max: node.max.unwrap_or(0) });
        }
        node.used += 1;
        puts.push(Put { node: u32::try_from(n).unwrap_or(u32::MAX), object: None });
    }
    state.seq += asked as usize;
    Ok(puts)
}
