//! A job without sockets for tests: the servers of some nodes, a stand-in for the control machines between
//! them, and clients that speak the wire's bytes.

use super::{PmixServer, Setup};
use crate::api::{Action, Conn, Event, Gathered, Question, Server, Token};
use crate::pmi::testing::space;
use crate::pmix::codec::{Codec, DataType, Info, Item, Kval, Proc, Reader, Text, Value, Writer};
use crate::pmix::frame::{Decoder, Frame};
use crate::pmix::topology::Drawing;
use bytes::Bytes;
use rmpi_types::{Namespace, ProcId, Rank};
use rmpi_wire::service::{Answer, GatherKey, Group, Request, Space};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) const UID: u32 = 1000;

/// One client's side of a stream.
#[derive(Debug)]
pub(super) struct Client {
    node: usize,
    conn: Conn,
    pub(super) codec: Codec,
    ns: Text,
    decoder: Decoder,
    pub(super) inbox: VecDeque<Frame>,
    next_tag: u32,
    /// The server closed the stream.
    pub(super) closed: bool,
    /// Bytes of the greeting's answer.
    pub(super) welcome: Vec<u8>,
}

type Round = (Vec<(usize, Token, ProcId)>, Vec<Bytes>);

/// The job.
#[derive(Debug)]
pub(super) struct World {
    pub(super) servers: Vec<PmixServer>,
    spaces: Vec<Arc<Space>>,
    pub(super) clients: Vec<Client>,
    pub(super) now: Duration,
    queue: VecDeque<(usize, Event)>,
    gathers: HashMap<GatherKey, Round>,
    serial: u64,
    names: BTreeMap<Vec<u8>, Bytes>,
    lookups: Vec<(usize, Token, Vec<u8>)>,
    questions: HashMap<u64, (usize, Token)>,
    dead: BTreeSet<ProcId>,
    /// What servers asked of the driver, beyond what is carried out here.
    pub(super) log: Vec<Action>,
    next: u64,
}

impl World {
    /// Nodes with these ranks of the first namespace.
    pub(super) fn new(nodes: &[&[u32]]) -> Self {
        let server = |node| {
            PmixServer::new(Setup {
                node,
                uid: UID,
                folder: format!("/tmp/job.{node}"),
                oversubscribed: false,
                topology: Drawing::default(),
            })
        };
        let count = u32::try_from(nodes.len()).unwrap();
        let mut world = Self {
            servers: (0..count).map(server).collect(),
            spaces: Vec::new(),
            clients: Vec::new(),
            now: Duration::ZERO,
            queue: VecDeque::new(),
            gathers: HashMap::new(),
            serial: 0,
            names: BTreeMap::new(),
            lookups: Vec::new(),
            questions: HashMap::new(),
            dead: BTreeSet::new(),
            log: Vec::new(),
            next: 0,
        };
        world.space(space(0, nodes));
        world
    }

    pub(super) fn space(&mut self, space: Space) {
        let space = Arc::new(space);
        self.spaces.push(Arc::clone(&space));
        for node in 0..self.servers.len() {
            self.feed(node, Event::Space(Arc::clone(&space)));
        }
    }

    /// A namespace's name.
    pub(super) fn name(&self, ns: u32) -> Text {
        super::jobs::name_of(self.spaces[0].job, Namespace(ns)).into()
    }

    pub(super) fn feed(&mut self, node: usize, event: Event) {
        self.queue.push_back((node, event));
        while let Some((node, event)) = self.queue.pop_front() {
            let mut out = Vec::new();
            self.servers[node].on(self.now, event, &mut out);
            for action in out {
                self.act(node, action);
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.servers.len() {
            self.feed(node, Event::Tick);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Send { conn, bytes } => {
                let client = self.clients.iter_mut().find(|c| c.conn == conn).unwrap();
                if client.welcome.len() < 8 {
                    client.welcome.extend_from_slice(&bytes);
                } else {
                    client.decoder.push(&bytes);
                    while let Some(frame) = client.decoder.next_frame().unwrap() {
                        client.inbox.push_back(frame);
                    }
                }
            }
            Action::Close { conn, .. } => {
                self.clients.iter_mut().filter(|c| c.conn == conn).for_each(|c| c.closed = true);
                self.log.push(action);
            }
            Action::Join { token, by, key, data } => {
                let round = self.gathers.entry(key.clone()).or_default();
                round.0.push((node, token, by));
                round.1.push(data);
                self.complete(&key);
            }
            Action::Request { token, by, request, payload } => {
                self.asked(node, token, by, request, payload);
            }
            Action::Answer { question, answer, payload } => {
                let (node, token) = self.questions.remove(&question.id).unwrap();
                self.queue.push_back((node, Event::Answered { token, answer, payload }));
            }
            Action::Hello { .. }
            | Action::Finalized { .. }
            | Action::Abort { .. }
            | Action::Folder { .. }
            | Action::Remove { .. }
            | Action::Output { .. }
            | Action::Note(_) => self.log.push(action),
        }
    }

    fn asked(&mut self, node: usize, token: Token, by: ProcId, request: Request, payload: Bytes) {
        let mut answer = Answer::Done;
        let mut back = Bytes::new();
        match request {
            Request::Ask { of, wait_ms, .. } => {
                self.next += 1;
                self.questions.insert(self.next, (node, token));
                let owner = self.node_of(of);
                let question = Question { asker: u32::try_from(node).unwrap(), id: self.next };
                self.queue.push_back((owner, Event::Asked { question, of, wait_ms, payload }));
                return;
            }
            Request::Publish { name, .. } => {
                if self.names.insert(name, payload).is_some() {
                    answer = Answer::Taken;
                }
                let waiting = std::mem::take(&mut self.lookups);
                for (node, token, name) in waiting {
                    self.look_up(node, token, name, u32::MAX);
                }
            }
            Request::Lookup { name, wait_ms, .. } => return self.look_up(node, token, name, wait_ms),
            Request::Unpublish { name, .. } => {
                if self.names.remove(&name).is_none() {
                    answer = Answer::Missing;
                }
            }
            Request::Notify { scope, .. } => {
                for node in 0..self.servers.len() {
                    let payload = payload.clone();
                    self.queue.push_back((node, Event::Notified { scope, by, payload }));
                }
                return;
            }
            Request::Watch => return,
            Request::Spawn(spawn) if spawn.apps[0].program == "nosuch" => {
                answer = Answer::Refused("nosuch: not found in PATH".into());
            }
            Request::Spawn(spawn) => {
                let ns = u32::try_from(self.spaces.len()).unwrap();
                let ranks: Vec<u32> = (0..spawn.apps[0].ranks).collect();
                let mut new = space(ns, &[&ranks]);
                new.parent = Some(by);
                let size = new.size;
                let new = Arc::new(new);
                self.spaces.push(Arc::clone(&new));
                for node in 0..self.servers.len() {
                    self.queue.push_back((node, Event::Space(Arc::clone(&new))));
                }
                answer = Answer::Spawned { ns: Namespace(ns), size };
                back = Bytes::new();
            }
        }
        self.queue.push_back((node, Event::Answered { token, answer, payload: back }));
    }

    fn look_up(&mut self, node: usize, token: Token, name: Vec<u8>, wait_ms: u32) {
        let (answer, payload) = match self.names.get(&name) {
            Some(value) => (Answer::Value, value.clone()),
            None if wait_ms > 0 => return self.lookups.push((node, token, name)),
            None => (Answer::Missing, Bytes::new()),
        };
        self.queue.push_back((node, Event::Answered { token, answer, payload }));
    }

    fn node_of(&self, proc: ProcId) -> usize {
        let space = self.spaces.iter().find(|s| s.id.ns == proc.ns).unwrap();
        space.nodes[space.place_of(proc.rank).unwrap()].node as usize
    }

    fn members(&self, group: &Group) -> BTreeSet<ProcId> {
        let mut all = BTreeSet::new();
        for part in group.parts() {
            let space = self.spaces.iter().find(|s| s.id.ns == part.ns).unwrap();
            let ranks =
                (0..space.size).map(Rank).filter(|r| part.ranks.as_ref().is_none_or(|s| s.contains(*r)));
            all.extend(ranks.map(|r| space.proc(r)));
        }
        all
    }

    fn complete(&mut self, key: &GatherKey) {
        let Some((joined, data)) = self.gathers.get(key) else { return };
        let came: BTreeSet<ProcId> = joined.iter().map(|(_, _, p)| *p).collect();
        if self.members(&key.group).iter().any(|p| !came.contains(p) && !self.dead.contains(p)) {
            return;
        }
        let data: Bytes = data.concat().into();
        let (joined, _) = self.gathers.remove(key).unwrap();
        self.serial += 1;
        for node in 0..self.servers.len() {
            let tokens: Vec<Token> = joined.iter().filter(|(n, ..)| *n == node).map(|(_, t, _)| *t).collect();
            if !tokens.is_empty() {
                let result = Ok(Gathered { data: data.clone(), serial: self.serial });
                self.queue.push_back((node, Event::Gathered { key: key.clone(), tokens, result }));
            }
        }
    }

    /// A rank ends.
    pub(super) fn die(&mut self, proc: ProcId, end: rmpi_types::RankEnd) {
        self.dead.insert(proc);
        let node = self.node_of(proc);
        self.feed(node, Event::RankEnded { proc, end });
        for node in 0..self.servers.len() {
            self.feed(node, Event::Ended { proc, end });
        }
        let keys: Vec<GatherKey> = self.gathers.keys().cloned().collect();
        keys.iter().for_each(|key| self.complete(key));
        self.pass(Duration::ZERO);
    }

    /// Dials in without a word.
    pub(super) fn dial(&mut self, node: usize, uid: Option<u32>) -> usize {
        self.next += 1;
        let conn = Conn(self.next);
        self.clients.push(Client {
            node,
            conn,
            codec: Codec::PLAIN,
            ns: self.name(0),
            decoder: Decoder::default(),
            inbox: VecDeque::new(),
            next_tag: 100,
            closed: false,
            welcome: Vec::new(),
        });
        self.feed(node, Event::Accepted { conn, uid });
        self.clients.len() - 1
    }

    pub(super) fn say(&mut self, client: usize, bytes: &[u8]) {
        let (node, conn) = (self.clients[client].node, self.clients[client].conn);
        self.feed(node, Event::Bytes { conn, bytes: Bytes::copy_from_slice(bytes) });
    }

    /// A client of a rank, greeted and let in.
    pub(super) fn client(&mut self, ns: u32, rank: u32) -> usize {
        self.client_of(ns, rank, "5.0.11", "v3")
    }

    /// The same with this library version and packing module.
    pub(super) fn client_of(&mut self, ns: u32, rank: u32, version: &str, module: &str) -> usize {
        let proc = ProcId { ns: Namespace(ns), ..ProcId::first(rank) };
        let client = self.dial(self.node_of(proc), Some(UID));
        let name = self.name(ns);
        self.say(client, &greeting(&name.to_string(), rank, version, module, UID));
        let c = &mut self.clients[client];
        assert_eq!((c.closed, c.welcome.len()), (false, 8), "{c:?}");
        c.codec = Codec::of_module(module, false).unwrap();
        c.ns = name;
        client
    }

    /// Sends a request; its tag.
    pub(super) fn ask(
        &mut self,
        client: usize,
        command: u64,
        fill: impl FnOnce(&mut Writer) -> &mut Writer,
    ) -> u32 {
        let c = &mut self.clients[client];
        c.next_tag += 1;
        let tag = c.next_tag;
        let mut w = Writer::new(c.codec);
        w.one_number(DataType::COMMAND, command);
        fill(&mut w);
        let frame = crate::pmix::frame::encode(tag, w.bytes());
        // Cut in two, as streams are.
        let at = frame.len() / 2;
        self.say(client, &frame[..at]);
        self.say(client, &frame[at..]);
        tag
    }

    /// The answer with this tag, if it is there.
    pub(super) fn answer(&mut self, client: usize, tag: u32) -> Option<Reader> {
        let c = &mut self.clients[client];
        let at = c.inbox.iter().position(|f| f.tag == tag)?;
        let frame = c.inbox.remove(at)?;
        assert!(!frame.payload.is_empty(), "an empty answer means a lost connection to clients");
        Some(Reader::new(c.codec, frame.payload))
    }

    /// Asks and reads the answer's status.
    pub(super) fn done(
        &mut self,
        client: usize,
        command: u64,
        fill: impl FnOnce(&mut Writer) -> &mut Writer,
    ) -> i32 {
        let tag = self.ask(client, command, fill);
        self.answer(client, tag).expect("an answer").status().unwrap()
    }

    /// Commits values for one audience.
    pub(super) fn commit(&mut self, client: usize, scope: u64, values: &[(&str, Value)]) -> i32 {
        let mut inner = Writer::new(self.clients[client].codec);
        for (key, value) in values {
            inner.items(&[Kval { key: (*key).into(), value: value.clone() }]);
        }
        self.done(client, 2, |w| w.one_number(DataType::SCOPE, scope).buffer(inner.bytes()))
    }

    /// Calls a fence of the whole namespace.
    pub(super) fn fence(&mut self, client: usize, collect: bool) -> u32 {
        let infos = [Info::new("pmix.collect", Value::bool(collect))];
        let procs = [Proc { ns: self.clients[client].ns.clone(), rank: 0xffff_fffe }];
        self.ask(client, 3, |w| w.counted(&procs).counted(&infos))
    }

    /// Asks for a key.
    pub(super) fn get(&mut self, client: usize, ns: u32, rank: u32, key: &str, infos: &[Info]) -> u32 {
        let name = self.name(ns);
        self.ask(client, 4, |w| w.text(Some(&name)).rank(rank).counted(infos).text(Some(&key.into())))
    }

    /// The status of a get's answer and all values in its objects.
    pub(super) fn got(&mut self, client: usize, tag: u32) -> Option<(i32, Vec<Kval>)> {
        let codec = self.clients[client].codec;
        let mut r = self.answer(client, tag)?;
        let status = r.status().unwrap();
        let mut values = Vec::new();
        while !r.is_empty() {
            let mut object = Reader::new(codec, r.blob().unwrap());
            object.one::<Proc>().unwrap();
            values.extend(all(&mut object));
        }
        Some((status, values))
    }
}

/// All items of one type that are left.
pub(super) fn all<T: Item>(r: &mut Reader) -> Vec<T> {
    let mut values = Vec::new();
    while !r.is_empty() {
        values.extend(r.items::<T>().unwrap());
    }
    values
}

/// A client's first words.
pub(super) fn greeting(ns: &str, rank: u32, version: &str, module: &str, uid: u32) -> Vec<u8> {
    let mut body = b"native\0\0\0\0\x08".to_vec();
    body.extend_from_slice(&uid.to_ne_bytes());
    body.extend_from_slice(&uid.to_ne_bytes());
    body.push(0);
    body.extend_from_slice(format!("{ns}\0").as_bytes());
    body.extend_from_slice(&rank.to_be_bytes());
    body.extend_from_slice(format!("{version}\0{module}\0\x01hash\0").as_bytes());
    let mut bytes = vec![0xff; 8];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&body);
    bytes
}
