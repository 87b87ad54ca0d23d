//! The server of PMI-1 and PMI-2, for MPICH and its relatives: this file holds its state and what happens to it;
//! `v1` and `v2` know the two languages, `spawn` their orders for more ranks. It answers from the node's own
//! tables wherever it can; what local ranks put travels with the barrier or fence that they call.
//!
//! Whatever a client sends, the worst it gets is its own stream closed.

mod frame;
mod kvs;
mod mapping;
mod spawn;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use mapping::mapping;

use crate::api::{Action, Conn, Event, Server, Token, Tokens};
use bytes::Bytes;
use frame::{Cutter, Message};
use kvs::Kvs;
use rmpi_types::{Epoch, JobId, Namespace, ProcId, Rank};
use rmpi_wire::service::{Answer, Domain, GatherKey, Group, OnLoss, Request, Space};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Requests and barriers one client may have open: grouped barriers of many threads, not more.
const MAX_OPEN: usize = 4096;
/// Node attributes a namespace may have on a node, and requests that may wait for one.
const MAX_ATTRS: usize = 1 << 16;

/// The name of a namespace's key-value space: unique over the life of the site.
#[must_use]
pub fn kvs_name(job: JobId, ns: Namespace) -> String {
    format!("kvs_{job}_{}", ns.0)
}

/// What a node's server knows of one namespace.
#[derive(Debug)]
struct Local {
    space: Arc<Space>,
    name: String,
    mapping: Option<String>,
    /// The file with the node's topology.
    topology: Bytes,
    kvs: Kvs,
    /// Keys each local rank has put since its last gather of the whole namespace.
    unsent: HashMap<Rank, Vec<Bytes>>,
    /// PMI-2 node attributes, and who waits for one.
    attrs: HashMap<Bytes, Bytes>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    conn: Conn,
    key: Bytes,
    thread: Option<Bytes>,
}

impl Local {
    fn new(space: Arc<Space>, topology: Bytes) -> Self {
        let mut kvs = Kvs::default();
        for (key, value) in &space.preputs {
            kvs.put(key.clone().into(), value.clone().into());
        }
        Self {
            name: kvs_name(space.job, space.id.ns),
            mapping: mapping(&space),
            topology,
            kvs,
            unsent: HashMap::new(),
            attrs: HashMap::new(),
            waiting: Vec::new(),
            space,
        }
    }

    /// A value: one the server itself gives, or one that was put.
    fn value(&self, key: &[u8]) -> Option<Bytes> {
        match key {
            b"PMI_process_mapping" => self.mapping.clone().map(Bytes::from),
            b"universeSize" => Some(self.universe().to_string().into()),
            b"PMI_hwloc_xmlfile" => Some(self.topology.clone()),
            _ => self.kvs.get(key).cloned(),
        }
    }

    /// Slots of the allocation as these protocols write them: -1 without a limit.
    fn universe(&self) -> i64 {
        if self.space.universe == 0 { -1 } else { self.space.universe.into() }
    }

    /// Stores what a rank puts; false when it is refused.
    fn put(&mut self, rank: Rank, key: &[u8], value: &[u8]) -> bool {
        let key = Bytes::copy_from_slice(key);
        let kept = !key.is_empty()
            && !key.starts_with(b"PMI_")
            && self.kvs.put(key.clone(), Bytes::copy_from_slice(value));
        // On the only node everybody reads the same table.
        if kept && self.space.nodes.len() > 1 {
            self.unsent.entry(rank).or_default().push(key);
        }
        kept
    }
}

/// One stream.
#[derive(Debug, Default)]
struct Client {
    cutter: Cutter,
    proc: Option<ProcId>,
    /// Bytes of rubbish after each PMI-2 body (MPICH 3.3 to 4.0 counts the prefix twice).
    tail: usize,
    inited: bool,
    open: usize,
}

/// How an answer is to be worded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dialect {
    V1,
    /// With the client's thread id, to be copied.
    V2(Option<Bytes>),
}

/// What is open for a client.
#[derive(Debug)]
struct Open {
    conn: Conn,
    dialect: Dialect,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A barrier; its tag if it was a grouped one.
    Barrier(Option<Bytes>),
    Publish(Bytes),
    Unpublish(Bytes),
    Lookup,
    Spawn,
}

/// The server of one node.
#[derive(Debug)]
pub struct PmiServer {
    spaces: BTreeMap<(Namespace, Epoch), Local>,
    clients: HashMap<Conn, Client>,
    open: HashMap<Token, Open>,
    tokens: Tokens,
    /// Who may dial in with which `PMI_ID`.
    ids: HashMap<u32, ProcId>,
    /// What namespaces that come from now on say of the file with the node's topology.
    topology: Bytes,
}

impl Default for PmiServer {
    fn default() -> Self {
        Self {
            spaces: BTreeMap::new(),
            clients: HashMap::new(),
            open: HashMap::new(),
            tokens: Tokens::new(Domain::Pmi),
            ids: HashMap::new(),
            // What MPICH takes for an answer that there is none.
            topology: Bytes::from_static(b"unavailable"),
        }
    }
}

impl Server for PmiServer {
    fn on(&mut self, _now: Duration, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Space(space) => {
                let at = (space.id.ns, space.id.epoch);
                self.spaces.entry(at).or_insert_with(|| Local::new(space, self.topology.clone()));
            }
            Event::Opened { conn, proc } => {
                self.clients.insert(conn, Client { proc: Some(proc), ..Client::default() });
            }
            Event::Accepted { conn, .. } => drop(self.clients.insert(conn, Client::default())),
            Event::Bytes { conn, bytes } => self.bytes(conn, &bytes, out),
            Event::Eof { conn } => self.forget(conn),
            Event::Gathered { key, tokens, result } => self.gathered(&key, tokens, result, out),
            Event::Answered { token, answer, payload } => {
                if let Some(open) = self.take(token) {
                    self.answered(&open, answer, &payload, out);
                }
            }
            Event::RankEnded { proc, .. } => {
                if let Some(local) = self.spaces.get_mut(&(proc.ns, proc.epoch)) {
                    local.unsent.remove(&proc.rank);
                }
            }
            // Nobody asks this server about its ranks or sends it notes, and it does not watch.
            Event::Asked { .. } | Event::Notified { .. } | Event::Ended { .. } | Event::Tick => {}
        }
    }

    fn next_timer(&self) -> Option<Duration> {
        None
    }
}

impl PmiServer {
    /// From now on a stream that dials in may say it is this process by this number.
    pub fn expect(&mut self, id: u32, proc: ProcId) {
        self.ids.insert(id, proc);
    }

    fn bytes(&mut self, conn: Conn, bytes: &[u8], out: &mut Vec<Action>) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.cutter.push(bytes);
        }
        while let Some(client) = self.clients.get_mut(&conn) {
            let handled = match client.cutter.next() {
                Ok(None) => return,
                Ok(Some(Message::Line(line))) => self.line(conn, &line, out),
                Ok(Some(Message::Spawn(text))) => self.spawn_v1(conn, &text, out),
                Ok(Some(Message::Body(body))) => self.body(conn, body, out),
                Err(bad) => Err(bad.to_string()),
            };
            if let Err(why) = handled {
                self.close(conn, why, out);
            }
        }
    }

    fn close(&mut self, conn: Conn, why: String, out: &mut Vec<Action>) {
        let who = self.clients.get(&conn).and_then(|c| c.proc);
        let why = who.map_or_else(|| why.clone(), |proc| format!("{proc}: {why}"));
        self.forget(conn);
        out.push(Action::Close { conn, why: Some(why) });
    }

    fn forget(&mut self, conn: Conn) {
        self.clients.remove(&conn);
        for local in self.spaces.values_mut() {
            local.waiting.retain(|w| w.conn != conn);
        }
    }

    /// Clients may read the node's topology from this file, in hwloc's XML, instead of finding it out.
    pub(crate) fn topology(&mut self, path: &str) {
        self.topology = Bytes::copy_from_slice(path.as_bytes());
    }

    /// The process behind a stream.
    pub(crate) fn proc(&self, conn: Conn) -> Result<ProcId, String> {
        self.clients
            .get(&conn)
            .and_then(|c| c.proc)
            .ok_or_else(|| "a request before it said who it is".into())
    }

    /// Takes a dialled-in stream for the process it says it is: by its `PMI_ID`, once at a time.
    fn attach(&mut self, conn: Conn, id: Option<u32>) -> Result<ProcId, String> {
        let proc = id.and_then(|id| self.ids.get(&id)).copied();
        let proc = proc.ok_or_else(|| format!("a stranger: no process has PMI_ID {id:?}"))?;
        if self.clients.iter().any(|(c, client)| *c != conn && client.proc == Some(proc)) {
            return Err(format!("{proc} is connected already"));
        }
        if let Some(client) = self.clients.get_mut(&conn) {
            client.proc = Some(proc);
        }
        Ok(proc)
    }

    /// The namespace of a process. The driver tells of it before its ranks run.
    fn local(&mut self, proc: ProcId) -> Result<&mut Local, String> {
        self.spaces.get_mut(&(proc.ns, proc.epoch)).ok_or_else(|| "a process of no known namespace".into())
    }

    /// The namespace a client names: its own without a name.
    fn named(&mut self, proc: ProcId, name: &[u8]) -> Option<&Local> {
        match name {
            b"" => self.spaces.get(&(proc.ns, proc.epoch)),
            _ => self.spaces.values().find(|l| l.name.as_bytes() == name),
        }
    }

    fn begin(&mut self, proc: ProcId, conn: Conn, out: &mut Vec<Action>) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.inited = true;
        }
        out.push(Action::Hello { proc });
    }

    /// A rank joins a barrier or fence with what it has put.
    fn join(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        name: Vec<u8>,
        group: Group,
        tag: Option<Bytes>,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let proc = self.proc(conn)?;
        let local = self.local(proc)?;
        let all = group == Group::all(proc);
        let data = match (local.unsent.get(&proc.rank), all) {
            (Some(keys), _) => local.kvs.contribution(keys, all),
            (None, _) => Bytes::new(),
        };
        if all {
            local.unsent.remove(&proc.rank);
        }
        let key = GatherKey { domain: Domain::Pmi, name, group, loss: OnLoss::Fail };
        let token = self.opened(conn, dialect, What::Barrier(tag))?;
        out.push(Action::Join { token, by: proc, key, data });
        Ok(())
    }

    fn ask(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        what: What,
        request: Request,
        payload: Bytes,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let by = self.proc(conn)?;
        let token = self.opened(conn, dialect, what)?;
        out.push(Action::Request { token, by, request, payload });
        Ok(())
    }

    fn opened(&mut self, conn: Conn, dialect: Dialect, what: What) -> Result<Token, String> {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.open += 1;
            if client.open > MAX_OPEN {
                return Err(format!("more than {MAX_OPEN} requests are open"));
            }
        }
        let token = self.tokens.fresh();
        self.open.insert(token, Open { conn, dialect, what });
        Ok(token)
    }

    fn take(&mut self, token: Token) -> Option<Open> {
        let open = self.open.remove(&token)?;
        if let Some(client) = self.clients.get_mut(&open.conn) {
            client.open = client.open.saturating_sub(1);
        }
        Some(open)
    }

    fn gathered(
        &mut self,
        key: &GatherKey,
        tokens: Vec<Token>,
        result: Result<crate::api::Gathered, ProcId>,
        out: &mut Vec<Action>,
    ) {
        let part = key.group.parts().first().map(|p| (p.ns, p.epoch));
        let lost = result.as_ref().err().copied();
        if let (Ok(gathered), Some(at)) = (result, part)
            && let Some(local) = self.spaces.get_mut(&at)
            && !local.kvs.merge(gathered.data)
        {
            out.push(Action::Note("a PMI barrier brought more data than a node can hold".into()));
        }
        for token in tokens {
            let Some(Open { conn, dialect, what: What::Barrier(tag) }) = self.take(token) else { continue };
            if !self.clients.contains_key(&conn) {
                continue;
            }
            match dialect {
                Dialect::V1 => v1::barrier_out(conn, tag.as_deref(), lost, out),
                Dialect::V2(thread) => v2::fence_done(conn, thread.as_deref(), lost, out),
            }
        }
    }

    fn answered(&mut self, open: &Open, answer: Answer, payload: &Bytes, out: &mut Vec<Action>) {
        if !self.clients.contains_key(&open.conn) {
            return;
        }
        let spawned = match answer {
            Answer::Spawned { ns, size } => {
                let job = self.spaces.values().next().map_or(JobId::default(), |l| l.space.job);
                Some((kvs_name(job, ns), size))
            }
            _ => None,
        };
        match &open.dialect {
            Dialect::V1 => v1::answer(open, &answer, payload, spawned, out),
            Dialect::V2(thread) => v2::answer(open, thread.as_deref(), &answer, payload, spawned, out),
        }
    }
}

/// Appends parts to a message.
fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Sends bytes.
fn send(conn: Conn, bytes: Vec<u8>, out: &mut Vec<Action>) {
    out.push(Action::Send { conn, bytes: bytes.into() });
}
