//! Questions for data of a process: answered from the node's tables, held until the data is there, or passed to
//! the process's own node (direct modex).

use super::info::{self, Data, Form};
use super::store::transcode;
use super::{Asker, Op, PmixServer};
use crate::api::{Action, Conn, Question};
use crate::pmix::codec::{DataType, Info, Kval, Proc, Text, Value};
use crate::pmix::keys;
use crate::pmix::request::{Get, Request};
use crate::pmix::status;
use bytes::Bytes;
use rmpi_types::{ProcId, Rank};
use rmpi_wire::service::{Answer, Domain, Request as JobRequest};
use std::time::Duration;

/// Questions held on one node, at most.
const MAX_HELD: usize = 1 << 16;

/// Who waits for data.
#[derive(Debug)]
enum For {
    /// A client.
    Client(Asker, Get),
    /// A server elsewhere; the key it needs, if any.
    Node(Question, Option<Text>),
}

/// A question that is held.
#[derive(Debug)]
pub(super) struct Waiting {
    who: For,
    of: ProcId,
    pub(super) until: Option<Duration>,
    /// The data is being fetched from the process's node.
    fetching: bool,
}

impl Waiting {
    /// The client's stream.
    pub(super) fn conn(&self) -> Option<Conn> {
        if let For::Client(asker, _) = &self.who { Some(asker.conn) } else { None }
    }
}

/// A question to another node.
#[derive(Debug)]
pub(super) struct Fetch {
    of: ProcId,
    key: Option<Text>,
}

/// What can be said at once.
enum Now {
    /// These objects: whose data, packed in the client's form.
    Objects(Vec<Bytes>),
    /// A status other than success.
    Status(i32),
    /// The data may still come.
    Later(ProcId),
}

impl PmixServer {
    pub(super) fn get(&mut self, now: Duration, asker: Asker, mut get: Get, out: &mut Vec<Action>) {
        let immediate = Request::directive(&get.infos, keys::IMMEDIATE).is_some_and(|i| i.value.truth());
        let of = match self.look(&asker, &get) {
            Now::Later(_) if immediate => return asker.status(status::NOT_FOUND, out),
            Now::Later(_) if self.gets.len() >= MAX_HELD => {
                return asker.status(status::OUT_OF_RESOURCE, out);
            }
            Now::Later(of) => of,
            told => return tell(&asker, told, out),
        };
        let until = timeout(&get.infos).map(|t| now + t);
        // What comes now is fresh.
        get.infos.retain(|i| i.key != *keys::REFRESH);
        let fetching = !self.jobs.is_local(of, self.setup.node);
        if fetching && !self.fetch(&asker, of, get.key.clone(), until.map(|u| u - now), out) {
            return asker.status(status::OUT_OF_RESOURCE, out);
        }
        self.gets.push(Waiting { who: For::Client(asker, get), of, until, fetching });
    }

    /// Asks a process's node for its data, unless that is on its way for the same key.
    fn fetch(
        &mut self,
        asker: &Asker,
        of: ProcId,
        key: Option<Text>,
        wait: Option<Duration>,
        out: &mut Vec<Action>,
    ) -> bool {
        let same = |g: &&Waiting| match &g.who {
            For::Client(_, get) => g.of == of && g.fetching && g.until.is_none() && get.key == key,
            For::Node(..) => false,
        };
        if wait.is_none() && self.gets.iter().any(|g| same(&g)) {
            return true;
        }
        let payload = key.as_ref().map_or_else(Bytes::new, |k| k.0.clone());
        let Some(token) = self.open(Op::Fetch(Fetch { of, key }), None) else { return false };
        // Our own limit comes first: it tells that time is over from that there is nothing.
        let wait = wait.map(|w| w + Duration::from_secs(1));
        let wait_ms = wait.map_or(u32::MAX, |w| u32::try_from(w.as_millis()).unwrap_or(u32::MAX));
        let request = JobRequest::Ask { of, domain: Domain::Pmix, wait_ms };
        out.push(Action::Request { token, by: asker.proc, request, payload });
        true
    }

    fn look(&mut self, asker: &Asker, get: &Get) -> Now {
        let Some(ns) = self.jobs.named(&get.ns).map(|j| j.space.id) else {
            return Now::Status(status::NOT_FOUND);
        };
        match get.rank {
            keys::RANK_WILDCARD => self.job_key(asker, get, ns),
            keys::RANK_UNDEF if get.key.as_ref().is_none_or(|k| k.starts_with(keys::RESERVED)) => {
                self.place_key(asker, get, ns)
            }
            keys::RANK_UNDEF => self.anybody(asker, get, ns),
            rank => match self.jobs.proc(&Proc { ns: get.ns.clone(), rank }) {
                Some(proc) => self.of_rank(asker, get, proc),
                None => Now::Status(status::NOT_FOUND),
            },
        }
    }

    /// A key of a job, or all there is to know of it.
    fn job_key(&mut self, asker: &Asker, get: &Get, ns: ProcId) -> Now {
        let of = Proc { ns: get.ns.clone(), rank: keys::RANK_WILDCARD };
        let Some(key) = &get.key else {
            let everything = self.about(ns.ns, asker.codec, Form::Get);
            return Now::Objects(vec![info::object(asker.codec, &of, &Data::Packed(&everything))]);
        };
        let Some(job) = self.jobs.get(ns.ns) else { return Now::Status(status::NOT_FOUND) };
        let found = info::job(job, &self.jobs, &self.setup).into_iter().find(|k| k.key == *key);
        match found {
            Some(kval) => Now::Objects(vec![info::object(asker.codec, &of, &Data::Kvals(&[kval]))]),
            None => Now::Status(status::NOT_FOUND),
        }
    }

    /// A key of a node or an application, as qualifiers say; without them of the job or of this node.
    fn place_key(&self, asker: &Asker, get: &Get, ns: ProcId) -> Now {
        let missing = Now::Status(status::NOT_FOUND);
        let (Some(key), Some(job)) = (&get.key, self.jobs.get(ns.ns)) else { return missing };
        let directive = |name| Request::directive(&get.infos, name).map(|i| &i.value);
        let app = directive(keys::APPNUM).and_then(Value::number);
        let infos = if app.is_some() || directive(keys::APP_INFO).is_some_and(Value::truth) {
            let mine = || job.place(asker.proc.rank).filter(|_| asker.proc.ns == ns.ns).map(|p| p.app.into());
            let at = app.or_else(mine).unwrap_or(0);
            info::app(job, usize::try_from(at).unwrap_or(usize::MAX))
        } else {
            let named = directive(keys::HOSTNAME).and_then(Value::as_text);
            let number = directive(keys::NODEID).and_then(Value::number);
            let at = match (number, named) {
                (Some(n), _) => job.space.nodes.iter().position(|node| i64::from(node.node) == n),
                (None, Some(name)) => job.hosts.iter().position(|host| host == name),
                (None, None) => job.here(self.setup.node),
            };
            at.map(|at| info::node(job, at, &self.setup)).unwrap_or_default()
        };
        let of_place = infos.into_iter().find(|i| i.key == *key).map(|i| Kval { key: i.key, value: i.value });
        let of_job = || info::job(job, &self.jobs, &self.setup).into_iter().find(|k| k.key == *key);
        let Some(kval) = of_place.or_else(of_job) else { return missing };
        let of = Proc { ns: get.ns.clone(), rank: keys::RANK_UNDEF };
        Now::Objects(vec![info::object(asker.codec, &of, &Data::Kvals(&[kval]))])
    }

    /// A key whoever has put it.
    fn anybody(&self, asker: &Asker, get: &Get, ns: ProcId) -> Now {
        let (Some(key), Some(job)) = (&get.key, self.jobs.get(ns.ns)) else {
            return Now::Status(status::NOT_FOUND);
        };
        for rank in (0..job.space.size).map(Rank) {
            let proc = job.space.proc(rank);
            if let Some(item) = self.store.item(proc, self.jobs.is_local(proc, self.setup.node), key) {
                let item = transcode(&item, asker.codec);
                let of = job.proc(rank);
                return Now::Objects(vec![info::object(asker.codec, &of, &Data::Packed(&item))]);
            }
        }
        Now::Status(status::NOT_FOUND)
    }

    fn of_rank(&mut self, asker: &Asker, get: &Get, proc: ProcId) -> Now {
        let missing = Now::Status(status::NOT_FOUND);
        let Some(job) = self.jobs.get(proc.ns) else { return missing };
        let of = job.proc(proc.rank);
        if let Some(context) = Request::directive(&get.infos, keys::GROUP_CONTEXT_ID) {
            let Some(key) = &get.key else { return missing };
            let Some(value) = self.groups.told(proc, context.value.number(), key) else { return missing };
            let own = Info { key: key.clone(), flags: 0, value: value.clone() };
            let qualified = Kval {
                key: Text::fixed(keys::QUALIFIED_VALUE),
                value: Value::infos(vec![own, context.clone()]),
            };
            return Now::Objects(vec![info::object(asker.codec, &of, &Data::Kvals(&[qualified]))]);
        }
        let local = self.jobs.is_local(proc, self.setup.node);
        if let Some(key) = get.key.as_ref().filter(|k| k.starts_with(keys::RESERVED)) {
            let of_rank = info::rank(job, proc.rank, &self.setup).into_iter().find(|i| i.key == *key);
            if let Some(info) = of_rank {
                let kval = Kval { key: info.key, value: info.value };
                return Now::Objects(vec![info::object(asker.codec, &of, &Data::Kvals(&[kval]))]);
            }
            let Some(item) = self.store.item(proc, local, key) else { return missing };
            let item = transcode(&item, asker.codec);
            return Now::Objects(vec![info::object(asker.codec, &of, &Data::Packed(&item))]);
        }
        let fresh = Request::directive(&get.infos, keys::REFRESH).is_some_and(|i| i.value.truth());
        let there = get.key.as_ref().is_none_or(|k| self.store.near_has(proc, local, k));
        let data = if there && (local || !fresh) { self.store.near(proc, local) } else { None };
        let Some(data) = data else {
            let over = local && self.ranks.get(&proc).is_some_and(|r| r.finalized || r.ended);
            return if over { missing } else { Now::Later(proc) };
        };
        let data = transcode(&data, asker.codec);
        let mut objects = Vec::new();
        if proc.ns != asker.proc.ns {
            let everything = self.about(proc.ns, asker.codec, Form::Get);
            let job = Proc { ns: of.ns.clone(), rank: keys::RANK_WILDCARD };
            objects.push(info::object(asker.codec, &job, &Data::Packed(&everything)));
        }
        objects.push(info::object(asker.codec, &of, &Data::Packed(&data)));
        Now::Objects(objects)
    }

    /// Something has changed for a process: those who wait for its data look again.
    pub(super) fn retry(&mut self, proc: ProcId, out: &mut Vec<Action>) {
        if !self.gets.iter().any(|g| g.of == proc) {
            return;
        }
        let (mine, others) = std::mem::take(&mut self.gets).into_iter().partition(|g| g.of == proc);
        self.gets = others;
        for waiting in mine {
            self.look_again(waiting, out);
        }
    }

    fn look_again(&mut self, waiting: Waiting, out: &mut Vec<Action>) {
        match &waiting.who {
            For::Client(asker, get) => match self.look(asker, get) {
                Now::Later(_) => self.gets.push(waiting),
                told => tell(asker, told, out),
            },
            For::Node(question, key) => match self.far_answer(waiting.of, key.as_ref()) {
                Some((answer, payload)) => out.push(Action::Answer { question: *question, answer, payload }),
                None => self.gets.push(waiting),
            },
        }
    }

    /// What a server elsewhere is told of a rank of this node; `None` while that may still change.
    fn far_answer(&self, of: ProcId, key: Option<&Text>) -> Option<(Answer, Bytes)> {
        if self.store.far_has(of, key) {
            return Some((Answer::Value, self.store.far(of)?));
        }
        let over = self.ranks.get(&of).is_some_and(|r| r.finalized || r.ended);
        over.then(|| (Answer::Missing, Bytes::new()))
    }

    /// A server elsewhere asks for the data of a rank of this node.
    pub(super) fn asked(
        &mut self,
        now: Duration,
        question: Question,
        of: ProcId,
        wait_ms: u32,
        payload: Bytes,
        out: &mut Vec<Action>,
    ) {
        let key = (!payload.is_empty()).then_some(Text(payload));
        let mut answer = |answer, payload| out.push(Action::Answer { question, answer, payload });
        if let Some((told, payload)) = self.far_answer(of, key.as_ref()) {
            return answer(told, payload);
        }
        if wait_ms == 0 || self.gets.len() >= MAX_HELD || !self.jobs.is_local(of, self.setup.node) {
            return answer(Answer::Missing, Bytes::new());
        }
        let until = (wait_ms != u32::MAX).then(|| now + Duration::from_millis(wait_ms.into()));
        self.gets.push(Waiting { who: For::Node(question, key), of, until, fetching: false });
    }

    /// The answer of another node.
    pub(super) fn fetched(&mut self, fetch: Fetch, answer: &Answer, payload: Bytes, out: &mut Vec<Action>) {
        if *answer == Answer::Value {
            self.store.learn(fetch.of, payload);
            return self.retry(fetch.of, out);
        }
        let mine = |g: &Waiting| match &g.who {
            For::Client(_, get) => g.of == fetch.of && g.fetching && get.key == fetch.key,
            For::Node(..) => false,
        };
        let (over, others) = std::mem::take(&mut self.gets).into_iter().partition(mine);
        self.gets = others;
        for waiting in over {
            if let For::Client(asker, _) = waiting.who {
                asker.status(status::NOT_FOUND, out);
            }
        }
    }

    pub(super) fn expire_gets(&mut self, now: Duration, out: &mut Vec<Action>) {
        let over = |g: &Waiting| g.until.is_some_and(|t| t <= now);
        if !self.gets.iter().any(over) {
            return;
        }
        let (over, others) = std::mem::take(&mut self.gets).into_iter().partition(over);
        self.gets = others;
        for waiting in over {
            match waiting.who {
                For::Client(asker, _) => asker.status(status::TIMEOUT, out),
                For::Node(question, _) => {
                    out.push(Action::Answer { question, answer: Answer::Missing, payload: Bytes::new() });
                }
            }
        }
    }
}

fn tell(asker: &Asker, told: Now, out: &mut Vec<Action>) {
    match told {
        Now::Objects(objects) => {
            let mut w = asker.writer();
            w.status(status::SUCCESS);
            for object in &objects {
                w.blob(object);
            }
            asker.answer(w, out);
        }
        Now::Status(status) => asker.status(status, out),
        Now::Later(_) => asker.status(status::NOT_FOUND, out),
    }
}

/// The time limit among directives; 0 is none.
pub(super) fn timeout(infos: &[Info]) -> Option<Duration> {
    let value = &Request::directive(infos, keys::TIMEOUT)?.value;
    let seconds = match value {
        Value::Number(DataType::INT | DataType::UINT32 | DataType::INT32 | DataType::UINT, n) => *n,
        _ => return None,
    };
    (1..=u64::from(u32::MAX)).contains(&seconds).then(|| Duration::from_secs(seconds))
}
