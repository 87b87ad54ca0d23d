//! The namespaces a node knows, under the names PMIx clients have for them: decimal numbers, a job family in
//! the upper half and the namespace in the lower, as Open MPI 4 wants them; Open MPI 5 takes any name.

use crate::pmix::codec::{Proc, Text};
use rmpi_types::{JobId, Namespace, ProcId, Rank};
use rmpi_wire::service::Space;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The job family of a job: never 0, and never the upper half of a number with a meaning of its own.
fn family(job: JobId) -> u32 {
    let sum = job.0.chunks(2).fold(0u32, |sum, pair| {
        sum.wrapping_mul(31)
            .wrapping_add(u32::from(u16::from_le_bytes([pair[0], *pair.last().unwrap_or(&0)])))
    });
    1 + (sum ^ sum >> 16) % 0x7ffe
}

/// A namespace's name for clients.
#[must_use]
pub(super) fn name_of(job: JobId, ns: Namespace) -> String {
    // Local job number 0 is the server's own.
    (family(job) << 16 | ns.0.wrapping_add(1) & 0xffff).to_string()
}

/// The name that servers go by.
#[must_use]
pub(super) fn server_name(job: JobId) -> String {
    (family(job) << 16).to_string()
}

/// Where a rank is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Its node, as a place in the space's nodes.
    pub(super) node: u32,
    /// Its rank among the namespace's on that node.
    pub(super) local: u32,
    /// Its application.
    pub(super) app: u32,
    /// Its rank in that.
    pub(super) in_app: u32,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) space: Arc<Space>,
    pub(super) name: Text,
    /// Where each rank is.
    pub(super) places: Vec<Place>,
    /// Names of its nodes, all different and without commas.
    pub(super) hosts: Vec<Text>,
    /// Ranks of earlier namespaces on each of its nodes.
    pub(super) before: Vec<u32>,
}

impl Job {
    /// The process of this rank as clients name it.
    pub(super) fn proc(&self, rank: Rank) -> Proc {
        Proc { ns: self.name.clone(), rank: rank.0 }
    }

    /// Where a rank is.
    pub(super) fn place(&self, rank: Rank) -> Option<Place> {
        self.places.get(rank.0 as usize).copied()
    }

    /// The node's place in the space, by the job's node number.
    pub(super) fn here(&self, node: u32) -> Option<usize> {
        self.space.nodes.binary_search_by_key(&node, |n| n.node).ok()
    }
}

/// All namespaces of the job.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<Namespace, Job>,
    /// Names given to nodes, the same in every namespace.
    hosts: HashMap<u32, Text>,
    /// Ranks on each node so far.
    ranks: HashMap<u32, u32>,
}

impl Jobs {
    /// Adds a namespace; false if it is there.
    pub(super) fn add(&mut self, space: Arc<Space>) -> bool {
        if self.jobs.contains_key(&space.id.ns) {
            return false;
        }
        let mut places = vec![Place::default(); space.size as usize];
        for (node, of) in (0u32..).zip(&space.nodes) {
            for (local, rank) in (0u32..).zip(of.ranks.iter()) {
                if let Some(place) = places.get_mut(rank.0 as usize) {
                    (place.node, place.local) = (node, local);
                }
            }
        }
        for (app, of) in (0u32..).zip(&space.apps) {
            for (in_app, rank) in (0u32..).zip(of.ranks.iter()) {
                if let Some(place) = places.get_mut(rank.0 as usize) {
                    (place.app, place.in_app) = (app, in_app);
                }
            }
        }
        let hosts = space.nodes.iter().map(|n| self.host(n.node, &n.host)).collect();
        let before = space.nodes.iter().map(|n| {
            let so_far = self.ranks.entry(n.node).or_default();
            let before = *so_far;
            *so_far += u32::try_from(n.ranks.len()).unwrap_or(u32::MAX - before);
            before
        });
        let before = before.collect();
        let name = name_of(space.job, space.id.ns).into();
        self.jobs.insert(space.id.ns, Job { name, places, hosts, before, space });
        true
    }

    /// The name of a node: its host's, fit for a comma list, with the node's number where the name is taken.
    /// All nodes hear of namespaces in the same order, so that all give the same names.
    fn host(&mut self, node: u32, host: &str) -> Text {
        if let Some(known) = self.hosts.get(&node) {
            return known.clone();
        }
        let clean = |c: char| if c.is_ascii_alphanumeric() || ".-_:".contains(c) { c } else { '-' };
        let host: String = host.chars().map(clean).collect();
        let plain = Text::from(host.as_str());
        // Two containers of one machine may have its name, but share no memory.
        let taken = plain == "" || self.hosts.values().any(|h| *h == plain);
        let name = if taken { format!("{host}.{node}").into() } else { plain };
        self.hosts.insert(node, name);
        self.hosts[&node].clone()
    }

    /// A namespace by number.
    pub(super) fn get(&self, ns: Namespace) -> Option<&Job> {
        self.jobs.get(&ns)
    }

    /// A namespace by name.
    pub(super) fn named(&self, name: &Text) -> Option<&Job> {
        let number: u32 = std::str::from_utf8(&name.0).ok()?.parse().ok()?;
        let job = self.jobs.get(&Namespace((number & 0xffff).checked_sub(1)?))?;
        (job.name == *name).then_some(job)
    }

    /// A process that clients name, not a wildcard.
    pub(super) fn proc(&self, proc: &Proc) -> Option<ProcId> {
        let job = self.named(&proc.ns)?;
        (proc.rank < job.space.size).then(|| job.space.proc(Rank(proc.rank)))
    }

    /// How clients name a process.
    pub(super) fn name(&self, proc: ProcId) -> Proc {
        let ns = self.jobs.get(&proc.ns).map(|j| j.name.clone()).unwrap_or_default();
        Proc { ns, rank: proc.rank.0 }
    }

    /// Whether a process is on this node.
    pub(super) fn is_local(&self, proc: ProcId, node: u32) -> bool {
        let job = self.jobs.get(&proc.ns);
        let place = job.and_then(|j| Some((j, j.place(proc.rank)?)));
        place.is_some_and(|(job, place)| job.space.nodes[place.node as usize].node == node)
    }

    /// All, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }
}
