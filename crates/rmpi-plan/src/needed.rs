//! Which hosts must be reached before a job can be placed, so that two ranks on a list of a thousand hosts
//! start two daemons. Agrees with [`crate::place`]: given these nodes it places the job as it would given all.

use crate::plan_error::PlanError;
use crate::pool::{lower_bound, not_enough_slots, this_machine};
use rmpi_types::spec::{App, Host, JobSpec, MapBy, Object, Placement, Slots};

/// Indices into [`JobSpec::hosts`], ascending, of the hosts that must be reached. `local` are the hosts known to be this
/// machine (for `--nolocal`). A job without hosts needs `[0]`, this machine.
///
/// # Errors
/// What is wrong whatever the hosts turn out to be: no ranks, or fewer slots than ranks with every count given.
pub fn hosts_needed(spec: &JobSpec, local: &[usize]) -> Result<Vec<usize>, PlanError> {
    if spec.apps.iter().any(|a| a.np == Some(0)) {
        return Err(PlanError::ZeroRanks);
    }
    if spec.hosts.is_empty() {
        return Ok(vec![0]);
    }
    let total = spec.apps.iter().try_fold(0u64, |sum, a| Some(sum + u64::from(a.np?)));
    let mut needed = vec![false; spec.hosts.len()];
    let p = &spec.placement;
    if let MapBy::Rankfile(lines) = &p.map_by {
        for line in lines {
            needed.get_mut(line.host).into_iter().for_each(|n| *n = true);
        }
        return Ok(indices(&needed));
    }
    let mixed = spec.apps.len() > 1 && spec.apps.iter().any(|a| a.hosts != spec.apps[0].hosts);
    for app in &spec.apps {
        let usable = usable_hosts(spec, app, local);
        if let MapBy::Seq(list) = &p.map_by {
            let mut allowed = vec![false; spec.hosts.len()];
            usable.iter().for_each(|&h| allowed[h] = true);
            let lines = list.iter().copied().filter(|&h| allowed.get(h) == Some(&true));
            lines.take(total.map_or(usize::MAX, to_usize)).for_each(|h| needed[h] = true);
            continue;
        }
        check_slots(spec, app, &usable)?;
        // Some may turn out unusable: then all the others are to be had.
        let sure = spec.reach.min_hosts.is_none();
        let first = total.filter(|_| sure && (!mixed || p.map_by != MapBy::Object(Object::Node)));
        let prefix = first.map_or(usable.len(), |np| prefix(spec, &usable, np));
        usable[..prefix].iter().for_each(|&h| needed[h] = true);
    }
    Ok(indices(&needed))
}

fn indices(needed: &[bool]) -> Vec<usize> {
    (0..needed.len()).filter(|&h| needed[h]).collect()
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Hosts a program may use, in order.
fn usable_hosts(spec: &JobSpec, app: &App, local: &[usize]) -> Vec<usize> {
    let mut may: Vec<bool> = vec![true; spec.hosts.len()];
    if spec.placement.nolocal {
        for &h in local {
            may.get_mut(h).into_iter().for_each(|m| *m = false);
        }
    }
    let all: Vec<usize> = (0..spec.hosts.len()).filter(|&h| may[h]).collect();
    // Two names of one node would count once against --max-nodes: only the caller, having reached them, can tell.
    let all = &all[..spec.placement.max_nodes.map_or(all.len(), |m| all.len().min(m as usize))];
    match &app.hosts {
        None => all.to_vec(),
        Some(own) => {
            may.fill(false);
            all.iter().for_each(|&h| may[h] = true);
            own.iter().copied().filter(|&h| may.get_mut(h).is_some_and(std::mem::take)).collect()
        }
    }
}

/// How many of the usable hosts, from the first, surely have room for `np` ranks.
fn prefix(spec: &JobSpec, usable: &[usize], np: u64) -> usize {
    let p = &spec.placement;
    let places = |h: &Host| -> u64 {
        let per_node = u64::from(p.per_node.unwrap_or(u32::MAX).min(h.max_slots.unwrap_or(u32::MAX)));
        match p.map_by {
            MapBy::Ppr(n, _) => u64::from(n).min(per_node),
            _ if p.per_node.is_some() => per_node,
            // One round of dealing gives each host with a slot one rank.
            MapBy::Object(Object::Node) => u64::from(lower_bound(h).min(1)),
            _ => u64::from(lower_bound(h)),
        }
    };
    // Dealing over all objects, or CPUs per rank, depends on the topology of every host.
    if p.span
        || p.pe.is_some_and(|pe| pe > 1)
        || p.slots_by_gpu
        || (p.per_node.is_some() && p.map_by == MapBy::Object(Object::Node))
    {
        return usable.len();
    }
    let mut room = 0u64;
    for (&h, i) in usable.iter().zip(1usize..) {
        room = room.saturating_add(places(&spec.hosts[h]));
        if room >= np {
            return i;
        }
    }
    usable.len()
}

/// A pattern a node that gives too few places on all hosts gives too few whatever they report.
fn check_pattern(p: &Placement, app: &App, hosts: usize) -> Result<(), PlanError> {
    let (each, pattern) = match (&p.map_by, p.per_node) {
        (MapBy::Ppr(n, Object::Node), _) => (*n, format!("ppr:{n}:node")),
        (_, Some(n)) if !p.listed_order => (n, format!("-N {n}")),
        _ => return Ok(()),
    };
    let places = u64::from(each) * hosts as u64;
    match app.np {
        Some(asked) if u64::from(asked) > places && hosts > 0 => {
            Err(PlanError::PatternTooSmall { asked, pattern, places, nodes: hosts })
        }
        _ => Ok(()),
    }
}

/// Too few slots is known before anything is reached when every host gives its count.
fn check_slots(spec: &JobSpec, app: &App, usable: &[usize]) -> Result<(), PlanError> {
    let p = &spec.placement;
    check_pattern(p, app, usable.len())?;
    let pattern = matches!(p.map_by, MapBy::Ppr(..)) || p.per_node.is_some();
    let (Some(np), false) = (app.np, p.oversubscribe || p.listed_order || pattern) else { return Ok(()) };
    let hosts: Vec<&Host> = usable.iter().map(|&h| &spec.hosts[h]).collect();
    if hosts.iter().any(|h| h.slots == Slots::Auto) {
        return Ok(());
    }
    let implicit = this_machine();
    let hosts = if hosts.is_empty() { vec![&implicit] } else { hosts };
    let slots: Vec<(&str, u32)> = hosts.iter().map(|h| (h.name.as_str(), lower_bound(h))).collect();
    let given: u64 = slots.iter().map(|&(_, n)| u64::from(n)).sum();
    if u64::from(np) > given && !usable.is_empty() {
        return Err(not_enough_slots(np, &slots, &hosts));
    }
    Ok(())
}
