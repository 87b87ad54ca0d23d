//! What the process-management servers of a node (PMI-1, PMI-2, PMIx) and native ranks ask of the job, and the
//! model of a namespace they answer their ranks from. One mechanism serves all of them: data, questions and
//! values are opaque bytes here, kept apart by [`Domain`].

use rmpi_types::{Epoch, JobId, Namespace, NodeLaunch, ProcId, Rank, RankSet};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;

/// Bytes of a name or of a gather's name, at most.
pub const MAX_NAME: usize = 1024;
/// Bytes of one request's payload, at most.
pub const MAX_VALUE: usize = crate::rank::MAX_VALUE;
/// Programs in one spawn, at most.
pub const MAX_SPAWN_APPS: usize = 1024;

/// Whose names and data these are: no two protocols see each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Domain {
    /// Native ranks.
    Native,
    /// PMI-1 and PMI-2.
    Pmi,
    /// PMIx.
    Pmix,
}

/// Some or all ranks of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// The namespace.
    pub ns: Namespace,
    /// Its membership generation.
    pub epoch: Epoch,
    /// Which ranks; `None` is all.
    pub ranks: Option<RankSet>,
}

/// Processes that do something together. Parts are ascending by (namespace, epoch), each at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<Part>")]
pub struct Group(Vec<Part>);

impl TryFrom<Vec<Part>> for Group {
    type Error = &'static str;

    /// Refuses what is not ascending or empty: two writings of one group would be two groups.
    fn try_from(parts: Vec<Part>) -> Result<Self, Self::Error> {
        let ascending = parts.windows(2).all(|w| (w[0].ns, w[0].epoch) < (w[1].ns, w[1].epoch));
        let filled =
            !parts.is_empty() && parts.iter().all(|p| p.ranks.as_ref().is_none_or(|r| !r.is_empty()));
        if ascending && filled { Ok(Self(parts)) } else { Err("group not ascending, or empty") }
    }
}

impl Group {
    /// All ranks of the namespace `of` belongs to.
    #[must_use]
    pub fn all(of: ProcId) -> Self {
        Self(vec![Part { ns: of.ns, epoch: of.epoch, ranks: None }])
    }

    /// These ranks of the namespace `of` belongs to; `None` if there is none.
    #[must_use]
    pub fn ranks(of: ProcId, ranks: RankSet) -> Option<Self> {
        let part = Part { ns: of.ns, epoch: of.epoch, ranks: Some(ranks) };
        Self::try_from(vec![part]).ok()
    }

    /// From members in any order; whole namespaces as members without a rank. `None` if there is none.
    #[must_use]
    pub fn of(members: impl IntoIterator<Item = (Namespace, Epoch, Option<Rank>)>) -> Option<Self> {
        let mut parts: std::collections::BTreeMap<(Namespace, Epoch), Option<RankSet>> = Default::default();
        for (ns, epoch, rank) in members {
            match (parts.entry((ns, epoch)).or_insert_with(|| Some(RankSet::default())), rank) {
                (Some(set), Some(rank)) => set.insert(rank),
                (all, None) => *all = None,
                (None, Some(_)) => {}
            }
        }
        let parts: Vec<Part> =
            parts.into_iter().map(|((ns, epoch), ranks)| Part { ns, epoch, ranks }).collect();
        Self::try_from(parts).ok()
    }

    /// The parts, ascending.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a process belongs to it.
    #[must_use]
    pub fn contains(&self, proc: ProcId) -> bool {
        let of = |p: &&Part| p.ns == proc.ns && p.epoch == proc.epoch;
        let part = self.0.iter().find(of);
        part.is_some_and(|p| p.ranks.as_ref().is_none_or(|r| r.contains(proc.rank)))
    }
}

/// What a member that ends before its node has contributed means for a gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OnLoss {
    /// The gather fails for all.
    Fail,
    /// It is left out.
    Skip,
}

/// Names one gather: an all-gather of opaque bytes over a group. Members that use the same key again are in the
/// next round of it; rounds of one key complete in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GatherKey {
    /// Whose.
    pub domain: Domain,
    /// What kind, and a tag if the protocol has one; at most [`MAX_NAME`] bytes.
    pub name: Vec<u8>,
    /// The members.
    pub group: Group,
    /// What a lost member means.
    pub loss: OnLoss,
}

/// Who may see a published name or gets a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Everybody.
    All,
    /// Ranks of the asker's namespace.
    Namespace,
    /// Ranks of the asker's node.
    Node,
}

/// How long a published name lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Until {
    /// Until it is taken back or the job ends.
    Job,
    /// Until the first lookup.
    FirstRead,
    /// Until its publisher ends.
    Process,
    /// Until the publisher's namespace ends.
    Namespace,
}

/// What a server asks of the job. Each but [`Request::Notify`] and [`Request::Watch`] gets one [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Payload: a question for the server on the node of a process. Answer: as that server gives, or `Lost`.
    Ask {
        /// The process.
        of: ProcId,
        /// Which server.
        domain: Domain,
        /// Milliseconds that server may wait until it can answer.
        wait_ms: u32,
    },
    /// Payload: the value. Answer: `Done` or `Taken`.
    Publish {
        /// Whose names.
        domain: Domain,
        /// The name, at most [`MAX_NAME`] bytes.
        name: Vec<u8>,
        /// Who may see it.
        scope: Scope,
        /// How long.
        until: Until,
    },
    /// Answer: `Value` with the payload, or `Missing` after the wait.
    Lookup {
        /// Whose names.
        domain: Domain,
        /// The name.
        name: Vec<u8>,
        /// Milliseconds to wait for it; `u32::MAX` for as long as it takes.
        wait_ms: u32,
    },
    /// Answer: `Done` or `Missing`.
    Unpublish {
        /// Whose names.
        domain: Domain,
        /// The name.
        name: Vec<u8>,
        /// Only the publisher may.
        owner_only: bool,
    },
    /// Start more ranks. Answer: `Spawned` when they run, or `Refused`.
    Spawn(Box<Spawn>),
    /// Payload: for the servers of this domain on all nodes in scope. No answer.
    Notify {
        /// Which servers.
        domain: Domain,
        /// Which nodes.
        scope: Scope,
    },
    /// From now on tell this node of every rank anywhere that ends in failure. No answer.
    Watch,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// Payload: the value.
    Value,
    /// There is none, or not in time.
    Missing,
    /// The name is in use.
    Taken,
    /// This process, on which it depends, is gone.
    Lost(ProcId),
    /// The new ranks run.
    Spawned {
        /// Their namespace; epoch 0.
        ns: Namespace,
        /// How many.
        size: u32,
    },
    /// It cannot be done; the text says why.
    Refused(String),
}

/// One program of a spawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnApp {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Ranks.
    pub ranks: u32,
    /// Working directory; `None` is the parent's.
    pub wdir: Option<OsString>,
    /// A directory to look for the program in first.
    pub path: Option<OsString>,
    /// Only these of the job's hosts, `name` or `name:count`; empty for all.
    pub hosts: Vec<String>,
    /// Variables to set (`None` unsets) beyond those of the job's first program.
    pub env: Vec<(OsString, Option<OsString>)>,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// More ranks, as a new namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Programs in order of their ranks.
    pub apps: Vec<SpawnApp>,
    /// Keys and values the new namespace's PMI space begins with.
    pub preputs: Vec<Pair>,
}

/// One node of a [`Space`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceNode {
    /// Index of the node among the job's, the same in every namespace.
    pub node: u32,
    /// Its host name as the user wrote it.
    pub host: String,
    /// Its ranks of this namespace.
    pub ranks: RankSet,
}

/// One program of a [`Space`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceApp {
    /// Its ranks.
    pub ranks: RankSet,
    /// The program as the user wrote it.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub wdir: OsString,
}

/// What servers know of a namespace: who is where, and what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The job.
    pub job: JobId,
    /// Namespace and epoch; the rank is 0 and not used.
    pub id: ProcId,
    /// Ranks.
    pub size: u32,
    /// Slots of the allocation.
    pub universe: u32,
    /// Who spawned it.
    pub parent: Option<ProcId>,
    /// Nodes that have ranks of it, ascending by index.
    pub nodes: Vec<SpaceNode>,
    /// Programs.
    pub apps: Vec<SpaceApp>,
    /// What its PMI key-value space begins with.
    pub preputs: Vec<Pair>,
}

impl Space {
    /// Of a namespace whose nodes are told this; with their hosts and ranks, in the namespace's order.
    #[must_use]
    pub fn of(launch: &NodeLaunch, nodes: impl IntoIterator<Item = (String, RankSet)>) -> Self {
        let number = |at: u32| launch.mpi.nodes.get(at as usize).copied().unwrap_or(at);
        let node = |(at, (host, ranks))| SpaceNode { node: number(at), host, ranks };
        let nodes = (0u32..).zip(nodes).map(node).collect();
        let all = || RankSet::range(0, launch.size.saturating_sub(1));
        let apps = launch.apps.iter().enumerate().map(|(i, app)| SpaceApp {
            ranks: launch.mpi.apps.get(i).cloned().unwrap_or_else(all),
            program: app.program.clone(),
            args: app.args.clone(),
            wdir: app.wdir.clone(),
        });
        Self {
            job: launch.job,
            id: launch.ns,
            size: launch.size,
            universe: launch.universe,
            parent: launch.mpi.parent,
            nodes,
            apps: apps.collect(),
            preputs: launch.mpi.preputs.clone(),
        }
    }

    /// A rank of it as a process.
    #[must_use]
    pub fn proc(&self, rank: Rank) -> ProcId {
        ProcId { rank, ..self.id }
    }

    /// The node a rank is on, as a place in [`Space::nodes`]. Linear in the nodes.
    #[must_use]
    pub fn place_of(&self, rank: Rank) -> Option<usize> {
        self.nodes.iter().position(|n| n.ranks.contains(rank))
    }

    /// The program a rank runs, as a place in [`Space::apps`].
    #[must_use]
    pub fn app_of(&self, rank: Rank) -> Option<usize> {
        self.apps.iter().position(|a| a.ranks.contains(rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_one_way() {
        let (ns, epoch) = (Namespace(1), Epoch(0));
        let a =
            Group::of([(ns, epoch, Some(Rank(3))), (Namespace(0), epoch, None), (ns, epoch, Some(Rank(1)))]);
        let b = Group::of([
            (Namespace(0), epoch, Some(Rank(7))),
            (ns, epoch, Some(Rank(1))),
            (Namespace(0), epoch, None),
            (ns, epoch, Some(Rank(3))),
        ]);
        assert_eq!(a, b);
        let group = a.unwrap();
        assert!(group.contains(ProcId::first(99)));
        assert!(group.contains(ProcId { ns, epoch, rank: Rank(3) }));
        assert!(!group.contains(ProcId { ns, epoch, rank: Rank(2) }));
        assert_eq!(Group::of([]), None);
        assert_eq!(Group::ranks(ProcId::first(0), RankSet::default()), None);
        let twice = vec![group.parts()[0].clone(), group.parts()[0].clone()];
        assert!(Group::try_from(twice).is_err());
    }
}
