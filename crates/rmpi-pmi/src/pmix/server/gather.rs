//! What processes do together: fence, connect, disconnect, and groups. Each is a gather of the job's control
//! machines over the members; what it brings decides what the members are told.

use super::get::timeout;
use super::info::Form;
use super::store::{member, members};
use super::{Asker, Op, PmixServer};
use crate::api::{Action, Gathered, Token};
use crate::pmix::codec::{Codec, DataType, Info, Proc, Reader, Text, Value, Writer};
use crate::pmix::hello::Version;
use crate::pmix::keys;
use crate::pmix::request::{Request, Together};
use crate::pmix::status;
use bytes::Bytes;
use rmpi_types::{Namespace, ProcId, Rank};
use rmpi_wire::service::{Domain, GatherKey, Group, OnLoss};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Above this many ranks a fence moves no data: a reader's node asks the node that has them.
const MAX_COLLECTED: u32 = 1024;
/// Bytes of a group's name, at most.
const MAX_GROUP_NAME: usize = 512;
/// Groups and values of their members that a node remembers, at most.
const MAX_GROUPS: usize = 1 << 16;

/// First version that is told a group's members.
const TOLD_MEMBERS: Version = Version(4, 2, 4);
/// First version that is told what members said.
const TOLD_INFOS: Version = Version(6, 0, 0);

/// A member of this node in a gather.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) asker: Asker,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Fence,
    Connect(BTreeSet<Namespace>),
    Disconnect,
    Construct { id: Text, procs: Vec<Proc>, of: BTreeSet<Namespace> },
    Destruct { id: Text },
}

/// Groups that were made here.
#[derive(Debug, Default)]
pub(super) struct Groups {
    members: HashMap<Text, Vec<Proc>>,
    /// What members said of themselves: by context id, process and key.
    infos: BTreeMap<(u64, ProcId), Vec<Info>>,
}

impl Groups {
    /// What a member told the group with this context id under a key.
    pub(super) fn told(&self, proc: ProcId, context: Option<i64>, key: &Text) -> Option<&Value> {
        let infos = self.infos.get(&(context?.cast_unsigned(), proc))?;
        infos.iter().find(|i| i.key == *key).map(|i| &i.value)
    }
}

impl PmixServer {
    /// The members that a client named, as the control machines know them; none are as good as all of its job.
    fn group_of(&self, asker: &Asker, procs: &[Proc]) -> Option<(Group, BTreeSet<Namespace>)> {
        let mut members = Vec::with_capacity(procs.len());
        if procs.is_empty() {
            members.push((asker.proc.ns, asker.proc.epoch, None));
        }
        for proc in procs {
            let job = self.jobs.named(&proc.ns)?;
            let rank = match proc.rank {
                keys::RANK_WILDCARD => None,
                rank if rank < job.space.size => Some(Rank(rank)),
                _ => return None,
            };
            members.push((job.space.id.ns, job.space.id.epoch, rank));
        }
        let of = members.iter().map(|(ns, ..)| *ns).collect();
        let group = Group::of(members)?;
        // Lists of everybody and wildcards mean the same group.
        let parts = group.parts().iter().map(|part| {
            let all = self.jobs.get(part.ns).map(|j| j.space.size as usize);
            let ranks = part.ranks.clone().filter(|r| Some(r.len()) != all);
            rmpi_wire::service::Part { ranks, ..part.clone() }
        });
        let group = Group::try_from(parts.collect::<Vec<_>>()).ok()?;
        group.contains(asker.proc).then_some((group, of))
    }

    #[allow(clippy::too_many_arguments, reason = "one gather in all its parts")]
    fn join(
        &mut self,
        now: Duration,
        asker: Asker,
        name: Vec<u8>,
        group: Group,
        what: What,
        infos: &[Info],
        data: Bytes,
        out: &mut Vec<Action>,
    ) {
        let until = timeout(infos).map(|t| now + t);
        let by = asker.proc;
        let Some(token) = self.open(Op::Gather(Member { asker, what }), until) else {
            return asker.status(status::OUT_OF_RESOURCE, out);
        };
        // The others would wait for one that died for ever; whether the job survives it is not decided here.
        let key = GatherKey { domain: Domain::Pmix, name, group, loss: OnLoss::Skip };
        out.push(Action::Join { token, by, key, data });
    }

    pub(super) fn fence(&mut self, now: Duration, asker: Asker, of: &Together, out: &mut Vec<Action>) {
        let Some((group, _)) = self.group_of(&asker, &of.procs) else {
            return asker.status(status::BAD_PARAM, out);
        };
        let collect = Request::directive(&of.infos, keys::COLLECT).is_some_and(|i| i.value.truth());
        let job = self.jobs.get(asker.proc.ns);
        // On the only node everybody reads the same tables.
        let moves = job.is_some_and(|j| j.space.size <= MAX_COLLECTED && j.space.nodes.len() > 1);
        let data = if collect && (moves || group.parts().len() > 1) {
            self.store.far(asker.proc).map(|items| member(asker.proc, &items))
        } else {
            None
        };
        self.join(
            now,
            asker,
            b"fence".to_vec(),
            group,
            What::Fence,
            &of.infos,
            data.unwrap_or_default(),
            out,
        );
    }

    pub(super) fn connect(&mut self, now: Duration, asker: Asker, of: &Together, out: &mut Vec<Action>) {
        let Some((group, spaces)) = self.group_of(&asker, &of.procs) else {
            return asker.status(status::BAD_PARAM, out);
        };
        let what = What::Connect(spaces);
        self.join(now, asker, b"connect".to_vec(), group, what, &of.infos, Bytes::new(), out);
    }

    pub(super) fn disconnect(&mut self, now: Duration, asker: Asker, of: &Together, out: &mut Vec<Action>) {
        let Some((group, _)) = self.group_of(&asker, &of.procs) else {
            return asker.status(status::BAD_PARAM, out);
        };
        self.join(now, asker, b"disconnect".to_vec(), group, What::Disconnect, &of.infos, Bytes::new(), out);
    }

    pub(super) fn construct(
        &mut self,
        now: Duration,
        asker: Asker,
        id: Text,
        of: &Together,
        out: &mut Vec<Action>,
    ) {
        let group = self.group_of(&asker, &of.procs).filter(|_| id.0.len() <= MAX_GROUP_NAME);
        let Some((group, spaces)) = group else { return asker.status(status::BAD_PARAM, out) };
        let procs = self.expand(&group);
        let mut infos = Writer::new(Codec::PLAIN);
        let said = of.infos.iter().filter(|i| i.key == *keys::GROUP_INFO);
        for info in said {
            infos.one(info);
        }
        let data = member(asker.proc, infos.bytes());
        let name = [b"group ", &id.0[..]].concat();
        let what = What::Construct { id, procs, of: spaces };
        self.join(now, asker, name, group, what, &of.infos, data, out);
    }

    pub(super) fn destruct(
        &mut self,
        now: Duration,
        asker: Asker,
        id: &Text,
        procs: Option<Vec<Proc>>,
        infos: &[Info],
        out: &mut Vec<Action>,
    ) {
        let procs = procs.or_else(|| self.groups.members.get(id).cloned());
        let group = procs.and_then(|procs| self.group_of(&asker, &procs));
        let Some((group, _)) = group.filter(|_| id.0.len() <= MAX_GROUP_NAME) else {
            return asker.status(status::NOT_FOUND, out);
        };
        let name = [b"ungroup ", &id.0[..]].concat();
        self.join(now, asker, name, group, What::Destruct { id: id.clone() }, infos, Bytes::new(), out);
    }

    /// Leaving is a matter of the members among themselves: they are told by the client's events.
    pub(super) fn leave_group(&mut self, asker: Asker, id: &Text, out: &mut Vec<Action>) {
        if let Some(members) = self.groups.members.get_mut(id) {
            let name = self.jobs.name(asker.proc);
            members.retain(|m| *m != name);
        }
        asker.status(status::SUCCESS, out);
    }

    /// The members one by one.
    fn expand(&self, group: &Group) -> Vec<Proc> {
        let mut procs = Vec::new();
        for part in group.parts() {
            let Some(job) = self.jobs.get(part.ns) else { continue };
            match &part.ranks {
                Some(ranks) => procs.extend(ranks.iter().map(|r| job.proc(r))),
                None => procs.extend((0..job.space.size).map(|r| job.proc(Rank(r)))),
            }
        }
        procs
    }

    pub(super) fn gathered(
        &mut self,
        key: &GatherKey,
        tokens: Vec<Token>,
        result: Result<Gathered, ProcId>,
        out: &mut Vec<Action>,
    ) {
        let gathered = match result {
            Ok(gathered) => gathered,
            Err(lost) => {
                tracing::info!(rank = lost.rank.0, "gather failed");
                for token in tokens {
                    if let Some(Op::Gather(member)) = self.close(token) {
                        member.asker.status(status::LOST_CONNECTION, out);
                    }
                }
                return;
            }
        };
        let mut learned = Vec::new();
        if key.name == b"fence" {
            for (proc, items) in members(gathered.data.clone()) {
                if !self.jobs.is_local(proc, self.setup.node) {
                    self.store.learn(proc, items);
                    learned.push(proc);
                }
            }
        }
        // Context ids of clients begin at 1.
        let context = gathered.serial.wrapping_add(1);
        let said =
            if key.name.starts_with(b"group ") { self.hear(context, &gathered.data) } else { Vec::new() };
        for token in tokens {
            let Some(Op::Gather(Member { asker, what })) = self.close(token) else { continue };
            if !self.clients.contains_key(&asker.conn) {
                continue;
            }
            match what {
                What::Fence | What::Disconnect => asker.status(status::SUCCESS, out),
                What::Connect(of) => {
                    let mut w = asker.writer();
                    w.status(status::SUCCESS);
                    self.pack_jobs(&asker, &of, &mut w);
                    asker.answer(w, out);
                }
                What::Destruct { id } => {
                    self.groups.members.remove(&id);
                    asker.status(status::SUCCESS, out);
                }
                What::Construct { id, procs, of } => {
                    self.constructed(asker, id, procs, &of, context, &said, out)
                }
            }
        }
        for proc in learned {
            self.retry(proc, out);
        }
    }

    /// Job information of the namespaces that a client is not of.
    fn pack_jobs(&mut self, asker: &Asker, of: &BTreeSet<Namespace>, w: &mut Writer) {
        for ns in of.iter().filter(|ns| **ns != asker.proc.ns) {
            let everything = self.about(*ns, asker.codec, Form::First);
            let Some(job) = self.jobs.get(*ns) else { continue };
            let mut inner = w.inner();
            inner.text(Some(&job.name)).append(&everything);
            w.blob(inner.bytes());
        }
    }

    /// Takes in what the members of a new group say; all of it, for those that are told all.
    fn hear(&mut self, context: u64, data: &Bytes) -> Vec<Info> {
        let mut said = Vec::new();
        for (proc, packed) in members(data.clone()) {
            let mut r = Reader::new(Codec::PLAIN, packed);
            while let (false, Ok(infos)) = (r.is_empty(), r.items::<Info>()) {
                let values = infos.iter().flat_map(|i| i.value.as_infos().cloned());
                let of_proc = self.groups.infos.entry((context, proc)).or_default();
                of_proc.extend(values);
                said.extend(infos);
            }
        }
        while self.groups.infos.len() > MAX_GROUPS {
            self.groups.infos.pop_first();
        }
        said
    }

    #[allow(clippy::too_many_arguments, reason = "one answer in all its parts")]
    fn constructed(
        &mut self,
        asker: Asker,
        id: Text,
        procs: Vec<Proc>,
        of: &BTreeSet<Namespace>,
        context: u64,
        said: &[Info],
        out: &mut Vec<Action>,
    ) {
        let mut w = asker.writer();
        w.status(status::SUCCESS);
        if asker.version >= TOLD_MEMBERS {
            w.counted(&procs);
        }
        if asker.version >= TOLD_INFOS {
            w.one_number(DataType::BOOL, 1).size(context).size(said.len() as u64);
            for info in said {
                w.one(info);
            }
        } else {
            w.size(context);
            if asker.version >= TOLD_MEMBERS {
                self.pack_jobs(&asker, of, &mut w);
            }
        }
        if self.groups.members.len() < MAX_GROUPS {
            self.groups.members.insert(id, procs);
        }
        asker.answer(w, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_members_bring_is_told_apart() {
        let (a, b) = (ProcId::first(3), ProcId { ns: Namespace(1), ..ProcId::first(0) });
        let data = [member(a, b"one"), member(b, b"")].concat();
        let got: Vec<_> = members(data.clone().into()).collect();
        assert_eq!(got, [(a, Bytes::from_static(b"one")), (b, Bytes::new())]);
        assert_eq!(members(Bytes::from(data).slice(..20)).count(), 1, "cut short");
        assert_eq!(members(Bytes::from_static(&[255; 40])).count(), 0);
    }
}
