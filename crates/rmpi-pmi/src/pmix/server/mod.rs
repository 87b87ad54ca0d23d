//! The PMIx server of one node. This file holds its state, its clients and what happens to it; `get`, `gather`,
//! `names`, `spawn`, `events` and `small` answer the requests, from the tables in `jobs`, `info` and `store`.
//!
//! Whatever a client sends, the worst it gets is its own stream closed. Every request but the end of a
//! registration gets exactly one answer with its tag, unless its stream ends before.

mod client;
mod environment;
mod events;
mod gather;
mod get;
mod info;
mod jobs;
mod names;
mod small;
mod spawn;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use super::codec::{Codec, Writer};
use super::frame;
use super::hello::Version;
use super::request::Request;
use super::status;
use super::topology::Drawing;
use crate::api::{Action, Conn, Event, Server, Token, Tokens};
use bytes::Bytes;
use client::{Client, Stage};
use events::Events;
use get::Waiting;
use jobs::{Job, Jobs};
use names::Names;
use rmpi_types::{Namespace, ProcId, Rank};
use rmpi_wire::service::{Answer, Domain, Space};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// Operations that wait on one node, at most.
const MAX_OPS: usize = 1 << 18;

/// What a server is told when it is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node among the job's.
    pub node: u32,
    /// The user all clients must be.
    pub uid: u32,
    /// The folder of this job on this node; made when the first client comes.
    pub folder: String,
    /// More ranks than CPUs on this node.
    pub oversubscribed: bool,
    /// The node's CPUs.
    pub topology: Drawing,
}

impl Setup {
    fn job_folder(&self, job: &Job) -> String {
        format!("{}/{}", self.folder, job.space.id.ns.0)
    }

    fn rank_folder(&self, job: &Job, rank: Rank) -> String {
        format!("{}/{}/{rank}", self.folder, job.space.id.ns.0)
    }
}

/// Who asked, in which words, and what the answer's tag is.
#[derive(Clone, Copy, Debug)]
struct Asker {
    conn: Conn,
    proc: ProcId,
    codec: Codec,
    version: Version,
    tag: u32,
}

impl Asker {
    fn writer(&self) -> Writer {
        Writer::new(self.codec)
    }

    /// Sends an answer.
    fn answer(&self, w: Writer, out: &mut Vec<Action>) {
        let bytes = frame::encode(self.tag, &w.finish());
        out.push(Action::Send { conn: self.conn, bytes });
    }

    /// Sends an answer that is a status alone.
    fn status(&self, status: i32, out: &mut Vec<Action>) {
        let mut w = self.writer();
        w.status(status);
        self.answer(w, out);
    }
}

/// What a token stands for.
#[derive(Debug)]
enum Op {
    /// A member waits for the others.
    Gather(gather::Member),
    /// One name of a publish, lookup or unpublish.
    Name { batch: u64, at: usize },
    /// More ranks are being started.
    Spawn(Asker),
    /// The data of a rank elsewhere is being fetched.
    Fetch(get::Fetch),
}

/// A rank of this node.
#[derive(Debug, Default)]
struct Local {
    /// Its streams; a child of a rank may have one of its own.
    conns: BTreeSet<Conn>,
    finalized: bool,
    ended: bool,
    /// What to remove when it ends, and whether with all that is in it.
    remove: Vec<(String, bool)>,
}

/// The server.
#[derive(Debug)]
pub struct PmixServer {
    setup: Setup,
    tokens: Tokens,
    jobs: Jobs,
    store: Store,
    clients: BTreeMap<Conn, Client>,
    next_index: u32,
    ranks: HashMap<ProcId, Local>,
    ops: HashMap<Token, Op>,
    deadlines: BTreeSet<(Duration, Token)>,
    gets: Vec<Waiting>,
    names: Names,
    groups: gather::Groups,
    events: Events,
    /// What a job is told about a job, packed: long, and the same for all clients of one form.
    packed: HashMap<(Namespace, Codec, info::Form), Bytes>,
}

impl PmixServer {
    /// A server that knows no namespace yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            tokens: Tokens::new(Domain::Pmix),
            jobs: Jobs::default(),
            store: Store::default(),
            clients: BTreeMap::new(),
            next_index: 0,
            ranks: HashMap::new(),
            ops: HashMap::new(),
            deadlines: BTreeSet::new(),
            gets: Vec::new(),
            names: Names::default(),
            groups: gather::Groups::default(),
            events: Events::default(),
            packed: HashMap::new(),
        }
    }

    fn space(&mut self, space: Arc<Space>) {
        if self.jobs.add(space) {
            // A parent's node sizes may have changed with it.
            self.packed.clear();
        }
    }

    /// Everything about a namespace.
    fn about(&mut self, ns: Namespace, codec: Codec, form: info::Form) -> Bytes {
        let Some(job) = self.jobs.get(ns) else { return Bytes::new() };
        let make = || info::everything(job, &self.jobs, &self.setup, codec, form);
        self.packed.entry((ns, codec, form)).or_insert_with(make).clone()
    }

    /// Remembers an operation; its answer comes with the token.
    fn open(&mut self, op: Op, until: Option<Duration>) -> Option<Token> {
        if self.ops.len() >= MAX_OPS {
            return None;
        }
        let token = self.tokens.fresh();
        self.ops.insert(token, op);
        self.deadlines.extend(until.map(|t| (t, token)));
        Some(token)
    }

    fn close(&mut self, token: Token) -> Option<Op> {
        self.ops.remove(&token)
    }

    fn request(&mut self, now: Duration, asker: Asker, request: Request, out: &mut Vec<Action>) {
        match request {
            Request::JobInfo => self.job_info(asker, out),
            Request::Abort { code, message, procs } => self.abort(asker, code, message, &procs, out),
            Request::Commit(puts) => self.commit(asker, &puts, out),
            Request::Fence(together) => self.fence(now, asker, &together, out),
            Request::Get(get) => self.get(now, asker, get, out),
            Request::Finalize => self.finalize(asker, out),
            Request::Publish(infos) => self.publish(asker, &infos, out),
            Request::Lookup { keys, infos } => self.lookup(asker, keys, &infos, out),
            Request::Unpublish { keys } => self.unpublish(asker, keys, out),
            Request::Spawn { infos, apps } => self.spawn(asker, &infos, apps, out),
            Request::Connect(together) => self.connect(now, asker, &together, out),
            Request::Disconnect(together) => self.disconnect(now, asker, &together, out),
            Request::Notify { code, range, infos } => self.notify(asker, code, range, infos, out),
            Request::RegisterEvents(codes) => self.register(asker, codes, out),
            Request::DeregisterEvents(codes) => self.deregister(asker.conn, &codes),
            Request::Query(queries) => self.query(asker, &queries, out),
            Request::Log { data, .. } => self.log(asker, &data, out),
            Request::JobControl { procs, infos } => self.job_control(asker, &procs, &infos, out),
            Request::Monitor { monitor, code, infos } => {
                self.monitor(now, asker, code, &monitor, &infos, out);
            }
            Request::Allocate => small::unsupported_with_results(asker, out),
            Request::GetCredential => self.get_credential(asker, out),
            Request::ValidateCredential(credential) => self.validate(asker, &credential, out),
            Request::GroupConstruct { id, of } => self.construct(now, asker, id, &of, out),
            Request::GroupDestruct { id, procs, infos } => {
                self.destruct(now, asker, &id, procs, &infos, out);
            }
            Request::GroupLeave { id } => self.leave_group(asker, &id, out),
            Request::ResolvePeers { node, ns } => self.resolve_peers(asker, node, ns, out),
            Request::ResolveNodes { ns } => self.resolve_nodes(asker, ns, out),
            Request::Unknown(command) => {
                tracing::debug!(command, "command that is not served");
                asker.status(status::NOT_SUPPORTED, out);
            }
        }
    }

    fn job_info(&mut self, asker: Asker, out: &mut Vec<Action>) {
        let everything = self.about(asker.proc.ns, asker.codec, info::Form::First);
        let name = self.jobs.name(asker.proc).ns;
        let mut w = asker.writer();
        w.text(Some(&name)).append(&everything);
        asker.answer(w, out);
    }

    fn commit(&mut self, asker: Asker, puts: &[super::request::Put], out: &mut Vec<Action>) {
        let status = match self.store.commit(asker.proc, puts) {
            Ok(()) => status::SUCCESS,
            Err(store::Refused::Full) => status::OUT_OF_RESOURCE,
            Err(store::Refused::Type) => status::NOT_SUPPORTED,
        };
        asker.status(status, out);
        self.retry(asker.proc, out);
    }

    fn abort(
        &mut self,
        asker: Asker,
        code: i32,
        message: Option<super::codec::Text>,
        procs: &[super::codec::Proc],
        out: &mut Vec<Action>,
    ) {
        // Whoever is named, the job ends: that is what the standard's MPI_Abort may do and users expect.
        tracing::info!(rank = asker.proc.rank.0, code, targets = procs.len(), "abort");
        asker.status(status::SUCCESS, out);
        let message = message.map(|m| m.lossy().into_owned()).unwrap_or_default();
        out.push(Action::Abort { by: asker.proc, code, message });
    }

    fn finalize(&mut self, asker: Asker, out: &mut Vec<Action>) {
        asker.status(status::SUCCESS, out);
        if let Some(Client { stage: Stage::Up(up), .. }) = self.clients.get_mut(&asker.conn) {
            up.finalized = true;
        }
        let rank = self.ranks.entry(asker.proc).or_default();
        if !std::mem::replace(&mut rank.finalized, true) {
            out.push(Action::Finalized { proc: asker.proc });
            self.retry(asker.proc, out);
        }
    }

    fn rank_ended(&mut self, proc: ProcId, out: &mut Vec<Action>) {
        let rank = self.ranks.entry(proc).or_default();
        rank.ended = true;
        for (path, recursive) in std::mem::take(&mut rank.remove) {
            out.push(Action::Remove { path: path.into(), recursive });
        }
        self.retry(proc, out);
    }

    fn answered(&mut self, token: Token, answer: Answer, payload: Bytes, out: &mut Vec<Action>) {
        match self.close(token) {
            None => {}
            Some(Op::Name { batch, at }) => self.named(batch, at, answer, payload, out),
            Some(Op::Spawn(asker)) => self.spawned(asker, answer, out),
            Some(Op::Fetch(fetch)) => self.fetched(fetch, &answer, payload, out),
            Some(Op::Gather(_)) => tracing::warn!("a gather was answered as a request"),
        }
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some(&(due, token)) = self.deadlines.first()
            && due <= now
        {
            self.deadlines.pop_first();
            if let Some(Op::Gather(member)) = self.close(token) {
                member.asker.status(status::TIMEOUT, out);
            }
        }
        self.expire_gets(now, out);
        self.greetings_due(now, out);
        self.beats_due(now, out);
    }
}

impl Server for PmixServer {
    fn on(&mut self, now: Duration, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Space(space) => self.space(space),
            // Only sockets that anybody on the machine can dial speak PMIx.
            Event::Opened { conn, .. } => out.push(Action::Close { conn, why: None }),
            Event::Accepted { conn, uid } => self.accepted(now, conn, uid, out),
            Event::Bytes { conn, bytes } => self.heard(now, conn, &bytes, out),
            Event::Eof { conn } => self.gone(conn),
            Event::RankEnded { proc, .. } => self.rank_ended(proc, out),
            Event::Answered { token, answer, payload } => self.answered(token, answer, payload, out),
            Event::Gathered { key, tokens, result } => self.gathered(&key, tokens, result, out),
            Event::Asked { question, of, wait_ms, payload } => {
                self.asked(now, question, of, wait_ms, payload, out);
            }
            Event::Notified { scope, by, payload } => self.notified(scope, by, payload, out),
            Event::Ended { proc, end } => self.elsewhere_ended(proc, end, out),
            Event::Tick => self.tick(now, out),
        }
    }

    fn next_timer(&self) -> Option<Duration> {
        let gather = self.deadlines.first().map(|(due, _)| *due);
        let gets = self.gets.iter().filter_map(|g| g.until).min();
        let clients = self.clients.values().filter_map(Client::due).min();
        [gather, gets, clients].into_iter().flatten().min()
    }
}
