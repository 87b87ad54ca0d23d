//! Combining lists: each later one (allocation, default host file, host file, `--host`) filters the former;
//! programs of one job (MPMD) may each have their own `--host`, the pool is then the union.

use super::MAX_SLOTS;
use super::list::{Count, Entry, HostList, ListKind, ParsedHosts, Who, key};
use crate::error::{HostsError, HostsProblem};
use crate::suggest::nearest;
use rmpi_types::spec::{Host, Slots};
use std::collections::{HashMap, HashSet};

/// What a filter takes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    All,
    Count(u32),
}

impl Take {
    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a.saturating_add(b).min(MAX_SLOTS)),
            _ => Self::All,
        }
    }
}

/// What a filter selects of a pool.
#[derive(Default)]
struct Selection {
    /// Hosts of the pool in the filter's order, each once, with what is taken of it.
    hosts: Vec<(usize, Take)>,
    /// Position in `hosts` and count of each mention.
    listed: Vec<(usize, u32)>,
}

/// The pool's hosts by name: with a port, and without (the first of that name).
struct Index {
    exact: HashMap<(String, Option<u16>), usize>,
    name: HashMap<String, usize>,
}

impl Index {
    fn new(pool: &ParsedHosts) -> Self {
        let mut index = Self { exact: HashMap::new(), name: HashMap::new() };
        for (i, host) in pool.hosts.iter().enumerate() {
            index.exact.entry(key(&host.name, host.port)).or_insert(i);
            index.name.entry(host.name.to_ascii_lowercase()).or_insert(i);
        }
        index
    }

    fn find(&self, name: &str, port: Option<u16>) -> Option<usize> {
        let by_name = || self.name.get(&name.to_ascii_lowercase());
        if port.is_some() { self.exact.get(&key(name, port)).or_else(by_name) } else { by_name() }.copied()
    }
}

/// The pool with only what `filter` names: a bare `--host` mention takes one slot, `host:N` at most N, `:*` and
/// `+nK` all the pool gives; a bare line of a host file takes all. `^host` takes a host out (a filter of only
/// such entries keeps the rest). The order is the filter's.
///
/// # Errors
/// A host that is not in the pool, a relative one beyond it, nothing left.
pub fn combine(pool: &ParsedHosts, filter: &HostList) -> Result<ParsedHosts, HostsError> {
    let index = Index::new(pool);
    let mut used = vec![false; pool.hosts.len()];
    let selection = select(pool, &index, filter, &mut used)?;
    let mut out = ParsedHosts {
        source_name: pool.source_name.clone(),
        notes: pool.notes.clone(),
        listed: selection.listed.iter().map(|&(at, _)| at).collect(),
        listed_slots: selection.listed.iter().map(|&(_, n)| n).collect(),
        hosts: Vec::with_capacity(selection.hosts.len()),
    };
    for (at, take) in selection.hosts {
        out.hosts.push(limit(&pool.hosts[at], take, &filter.source_name, &pool.source_name, &mut out.notes));
    }
    Ok(out)
}

/// The pool of a job whose programs have their own `--host` lists (`None`: all hosts), and for each program
/// its hosts as indices into that pool. Without `pool` the lists are the pool: mentions of different programs
/// add up. With one program this is [`combine`] or [`HostList::into_hosts`].
///
/// # Errors
/// Those of [`combine`] and [`HostList::into_hosts`].
#[allow(clippy::type_complexity, reason = "a pair that is taken apart at once")]
pub fn per_context(
    pool: Option<&ParsedHosts>,
    lists: &[Option<HostList>],
) -> Result<(ParsedHosts, Vec<Option<Vec<usize>>>), HostsError> {
    if let [only] = lists {
        let hosts = match (pool, only) {
            (Some(pool), Some(list)) => combine(pool, list)?,
            (None, Some(list)) => list.clone().into_hosts()?,
            (Some(pool), None) => pool.clone(),
            (None, None) => ParsedHosts::default(),
        };
        return Ok((hosts, vec![None]));
    }
    let Some(pool) = pool else { return union(lists) };
    let index = Index::new(pool);
    let mut used = vec![false; pool.hosts.len()];
    let mut takes: Vec<Option<Take>> = vec![None; pool.hosts.len()];
    let mut contexts = Vec::with_capacity(lists.len());
    for list in lists {
        let Some(list) = list else {
            takes.fill(Some(Take::All));
            used.fill(true);
            contexts.push(None);
            continue;
        };
        let selection = select(pool, &index, list, &mut used)?;
        for &(at, take) in &selection.hosts {
            takes[at] = Some(takes[at].map_or(take, |t| t.add(take)));
        }
        contexts.push(Some(selection.hosts.iter().map(|&(at, _)| at).collect()));
    }
    let mut out = pool.clone();
    for (host, take) in out.hosts.iter_mut().zip(&takes) {
        // Hosts nobody names stay in the pool (indices and +nK hold) but no program may use them.
        *host = limit(host, take.unwrap_or(Take::All), "--host", &pool.source_name, &mut out.notes);
    }
    Ok((out, contexts))
}

/// The union of lists without a pool.
#[allow(clippy::type_complexity, reason = "the result of per_context")]
fn union(lists: &[Option<HostList>]) -> Result<(ParsedHosts, Vec<Option<Vec<usize>>>), HostsError> {
    let Some(first) = lists.iter().flatten().next() else {
        return Ok((ParsedHosts::default(), vec![None; lists.len()]));
    };
    let mut all = HostList::new(&first.source_name, first.kind, first.dialect);
    for list in lists.iter().flatten() {
        // What a list takes out again is no part of the union.
        let out: HashSet<&Who> = list.entries.iter().filter(|e| e.exclude).map(|e| &e.who).collect();
        all.entries.extend(list.entries.iter().filter(|e| !out.contains(&e.who)).cloned());
    }
    let pool = all.into_hosts()?;
    let index = Index::new(&pool);
    let mut contexts = Vec::with_capacity(lists.len());
    for list in lists {
        let Some(list) = list else {
            contexts.push(None);
            continue;
        };
        let own = list.clone().into_hosts()?;
        contexts.push(Some(own.hosts.iter().filter_map(|h| index.find(&h.name, h.port)).collect()));
    }
    Ok((pool, contexts))
}

/// Finds the filter's mentions in the pool; marks what is used.
fn select(
    pool: &ParsedHosts,
    index: &Index,
    filter: &HostList,
    used: &mut [bool],
) -> Result<Selection, HostsError> {
    let mut excluded = vec![false; pool.hosts.len()];
    for entry in filter.entries.iter().filter(|e| e.exclude) {
        for at in resolve(pool, index, filter, entry, used)? {
            excluded[at] = true;
        }
    }
    let mut out = Selection::default();
    let mut position: HashMap<usize, usize> = HashMap::new();
    let mut take = |at: usize, take: Take, used: &mut [bool]| {
        if excluded[at] {
            return;
        }
        used[at] = true;
        let p = *position.entry(at).or_insert_with(|| {
            out.hosts.push((at, Take::Count(0)));
            out.hosts.len() - 1
        });
        out.hosts[p].1 = out.hosts[p].1.add(take);
        out.listed.push((p, if let Take::Count(n) = take { n } else { 1 }));
    };
    if filter.entries.iter().all(|e| e.exclude) {
        (0..pool.hosts.len()).for_each(|at| take(at, Take::All, used));
    }
    for entry in filter.entries.iter().filter(|e| !e.exclude) {
        let amount = match (entry.count, filter.kind) {
            (Count::Given(n), _) => Take::Count(n),
            (Count::Bare, ListKind::Option) => Take::Count(1),
            (Count::Bare, ListKind::File) | (Count::All, _) => Take::All,
        };
        for at in resolve(pool, index, filter, entry, used)? {
            take(at, amount, used);
        }
    }
    if out.hosts.is_empty() {
        return Err(HostsError::whole(&filter.source_name, HostsProblem::AllExcluded));
    }
    Ok(out)
}

/// The hosts of the pool one mention means.
fn resolve(
    pool: &ParsedHosts,
    index: &Index,
    filter: &HostList,
    entry: &Entry,
    used: &[bool],
) -> Result<Vec<usize>, HostsError> {
    let have = pool.hosts.len();
    let pool_name = || pool.source_name.clone();
    let token = || entry.who.to_string();
    match &entry.who {
        Who::Name(name) => index.find(name, entry.port).map(|at| vec![at]).ok_or_else(|| {
            let hint = nearest(name, pool.hosts.iter().map(|h| h.name.as_str())).map(str::to_owned);
            filter.error(entry, HostsProblem::Unknown { host: name.clone(), pool: pool_name(), hint })
        }),
        Who::Relative(k) if (*k as usize) < have => Ok(vec![*k as usize]),
        Who::Relative(_) => {
            Err(filter.error(entry, HostsProblem::RelativeRange { token: token(), pool: pool_name(), have }))
        }
        Who::Empty(n) => {
            let free: Vec<usize> = (0..have).filter(|&i| !used[i]).collect();
            let want = n.map_or(free.len().max(1), |n| n as usize);
            if free.len() < want {
                let problem =
                    HostsProblem::NotEnoughEmpty { token: token(), pool: pool_name(), have: free.len() };
                return Err(filter.error(entry, problem));
            }
            Ok(free[..want].to_vec())
        }
    }
}

/// A host of the pool with no more than what is taken of it.
fn limit(host: &Host, take: Take, filter: &str, pool: &str, notes: &mut Vec<String>) -> Host {
    let slots = match (take, host.slots) {
        (Take::All, slots) => slots,
        (Take::Count(n), Slots::Auto) => Slots::Count(n),
        (Take::Count(n), Slots::Count(have)) => {
            if n > have {
                let name = &host.name;
                notes.push(format!("{filter}: {name}:{n} is more than {pool} gives it; {have} used"));
            }
            Slots::Count(n.min(have))
        }
    };
    let origin = if take == Take::All { host.origin.clone() } else { filter.to_owned() };
    Host { slots, origin, ..host.clone() }
}
