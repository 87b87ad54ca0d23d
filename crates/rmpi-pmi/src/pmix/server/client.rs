//! One stream of a client: from the dial-in through the greeting to requests, and its end.

use super::{Asker, PmixServer};
use crate::api::{Action, Conn};
use crate::pmix::codec::{Codec, Proc};
use crate::pmix::frame::{Decoder, TAG_HEARTBEAT};
use crate::pmix::hello::{self, Hello, Version};
use crate::pmix::request::Request;
use crate::pmix::status;
use rmpi_types::ProcId;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long somebody who dialled in may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);
/// Streams of which nobody knows yet who is on the other end, at most.
const MAX_STRANGERS: usize = 4096;
/// Streams of one rank, at most.
const MAX_OF_RANK: usize = 64;

/// One stream.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stage: Stage,
}

/// How far a stream has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// It must still say who it is, by this time.
    Greeting { bytes: Vec<u8>, uid: u32, until: Duration },
    /// Let in.
    Up(Box<Up>),
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) proc: ProcId,
    pub(super) codec: Codec,
    pub(super) version: Version,
    decoder: Decoder,
    /// Event codes it wants to hear of.
    pub(super) codes: BTreeSet<i32>,
    /// It wants to hear of all.
    pub(super) all: bool,
    /// Events it was told of, among those that are kept.
    pub(super) told: BTreeSet<u64>,
    pub(super) finalized: bool,
    /// It has promised to give signs of life.
    pub(super) pulse: Option<Pulse>,
}

/// A promise of heartbeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// How often.
    pub(super) every: Duration,
    /// How many may be missing.
    pub(super) missing: u32,
    /// The event that tells of it.
    pub(super) code: i32,
    /// When it is over.
    pub(super) until: Duration,
}

impl Client {
    /// When something is due without the client.
    pub(super) fn due(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Greeting { until, .. } => Some(*until),
            Stage::Up(up) => up.pulse.map(|p| p.until),
        }
    }
}

impl PmixServer {
    pub(super) fn accepted(&mut self, now: Duration, conn: Conn, uid: Option<u32>, out: &mut Vec<Action>) {
        let mut refuse = |why: String| out.push(Action::Close { conn, why: Some(why) });
        let greeting = |c: &&Client| matches!(c.stage, Stage::Greeting { .. });
        let strangers = self.clients.values().filter(greeting).count();
        match uid {
            None => refuse("the kernel does not say who dialled in".into()),
            Some(uid) if uid != self.setup.uid => refuse(format!("user {uid} dialled in")),
            Some(_) if strangers >= MAX_STRANGERS => refuse("too many dialled in and said nothing".into()),
            Some(uid) => {
                let stage = Stage::Greeting { bytes: Vec::new(), uid, until: now + GREETING };
                self.clients.insert(conn, Client { stage });
            }
        }
    }

    pub(super) fn heard(&mut self, now: Duration, conn: Conn, bytes: &[u8], out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match &mut client.stage {
            Stage::Greeting { bytes: said, .. } => {
                said.extend_from_slice(bytes);
                self.greeted(conn, out);
            }
            Stage::Up(up) => {
                up.decoder.push(bytes);
                self.requests(now, conn, out);
            }
        }
    }

    fn greeted(&mut self, conn: Conn, out: &mut Vec<Action>) {
        let Some(Client { stage: Stage::Greeting { bytes, uid, .. } }) = self.clients.get(&conn) else {
            return;
        };
        let length = match hello::length(bytes) {
            Ok(Some(length)) if bytes.len() >= length => length,
            Ok(_) => return,
            Err(error) => return self.turn_away(conn, None, error.to_string(), out),
        };
        let hello = match Hello::parse(&bytes[..length]) {
            Ok(hello) => hello,
            Err(error) => return self.turn_away(conn, Some(status::NOT_SUPPORTED), error.to_string(), out),
        };
        if bytes.len() > length {
            return self.turn_away(conn, None, "spoke before it was answered".into(), out);
        }
        if !hello.vouched(*uid) {
            // Not a word to one who is not who it says.
            let why = format!("credential for {:?} is not that of user {uid}", hello.security);
            return self.turn_away(conn, None, why, out);
        }
        let name = Proc { ns: hello.ns.clone(), rank: hello.rank };
        let proc = self.jobs.proc(&name).filter(|p| self.jobs.is_local(*p, self.setup.node));
        let Some(proc) = proc else {
            let why = format!("rank {} of namespace {:?} is not on this node", hello.rank, hello.ns);
            return self.turn_away(conn, Some(status::NOT_FOUND), why, out);
        };
        self.let_in(conn, proc, &hello, out);
    }

    fn let_in(&mut self, conn: Conn, proc: ProcId, hello: &Hello, out: &mut Vec<Action>) {
        let rank = self.ranks.entry(proc).or_default();
        if rank.ended || rank.conns.len() >= MAX_OF_RANK {
            return self.turn_away(conn, Some(status::OUT_OF_RESOURCE), format!("{proc} once more"), out);
        }
        rank.conns.insert(conn);
        let first = rank.conns.len() == 1;
        rank.finalized &= !first;
        if first && let Some(job) = self.jobs.get(proc.ns) {
            out.push(Action::Folder { path: self.setup.rank_folder(job, proc.rank).into() });
            out.push(Action::Hello { proc });
        }
        let version = hello.version;
        tracing::debug!(rank = proc.rank.0, %version, form = ?hello.codec, "client");
        let up = Up {
            proc,
            codec: hello.codec,
            version,
            decoder: Decoder::default(),
            codes: BTreeSet::new(),
            all: false,
            told: BTreeSet::new(),
            finalized: false,
            pulse: None,
        };
        self.clients.insert(conn, Client { stage: Stage::Up(Box::new(up)) });
        out.push(Action::Send { conn, bytes: hello::welcome(self.next_index) });
        self.next_index = self.next_index.wrapping_add(1) & 0x7fff_ffff;
    }

    /// Ends a stream that broke the rules, with a word where one is deserved.
    fn turn_away(&mut self, conn: Conn, word: Option<i32>, why: String, out: &mut Vec<Action>) {
        out.extend(word.map(|status| Action::Send { conn, bytes: hello::refusal(status) }));
        out.push(Action::Close { conn, why: Some(why) });
        self.gone(conn);
    }

    fn requests(&mut self, now: Duration, conn: Conn, out: &mut Vec<Action>) {
        loop {
            // A request may have closed the stream.
            let Some(Client { stage: Stage::Up(up) }) = self.clients.get_mut(&conn) else { return };
            let frame = match up.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.turn_away(conn, None, error.to_string(), out),
            };
            if let Some(pulse) = &mut up.pulse {
                pulse.until = now + pulse.every * pulse.missing.max(1);
            }
            if frame.tag == TAG_HEARTBEAT {
                continue;
            }
            let asker = Asker { conn, proc: up.proc, codec: up.codec, version: up.version, tag: frame.tag };
            match Request::unpack(frame.payload, up.codec, up.version) {
                Ok(request) => self.request(now, asker, request, out),
                Err(error) => {
                    // What the client waits for we cannot know: the stream is of no more use.
                    return self.turn_away(conn, None, format!("{}: {error}", asker.proc), out);
                }
            }
        }
    }

    /// A stream is over. What it waited for goes on without it: others may count on its part.
    pub(super) fn gone(&mut self, conn: Conn) {
        let Some(client) = self.clients.remove(&conn) else { return };
        let Stage::Up(up) = client.stage else { return };
        if let Some(rank) = self.ranks.get_mut(&up.proc) {
            rank.conns.remove(&conn);
        }
        self.gets.retain(|g| g.conn() != Some(conn));
        if !up.finalized {
            tracing::debug!(rank = up.proc.rank.0, "client left without finalizing");
        }
    }

    pub(super) fn greetings_due(&mut self, now: Duration, out: &mut Vec<Action>) {
        let late = |c: &Client| matches!(c.stage, Stage::Greeting { until, .. } if until <= now);
        let late: Vec<Conn> = self.clients.iter().filter(|(_, c)| late(c)).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.turn_away(conn, None, "dialled in and did not say who it is".into(), out);
        }
    }
}
