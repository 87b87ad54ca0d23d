//! A node without an operating system: carries out what its daemon's machine asks for, and plays the ranks.

use crate::config::{Act, LOST_CODE};
use bytes::Bytes;
use rmpi_control::{DaemonEvent, DaemonMachine, Time};
use rmpi_types::{ProcId, Rank, RankEnd, RankExit, RankSet};
use rmpi_wire::msg::Stream;
use rmpi_wire::rank::{RankReply, RankRequest};
use rmpi_wire::service::{Answer, Domain, GatherKey, Group, OnLoss, Request, Scope, Spawn, SpawnApp, Until};
use std::time::Duration;

/// Bytes a pipe holds.
const PIPE: u64 = 64 << 10;
/// How long a rank waits for a key.
const GET_MS: u32 = 60_000;

/// The k-th byte of a rank's output: any loss, repeat or swap shows.
pub(crate) fn byte(rank: u32, k: u64) -> u8 {
    let mixed = (k ^ (u64::from(rank) << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// What a rank puts under a key.
pub(crate) fn value(rank: u32, key: &str) -> Bytes {
    format!("{key} of {rank}").into()
}

/// What a rank does next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(u64),
    Dead,
}

/// A simulated rank.
#[derive(Debug)]
pub(crate) struct SimRank {
    pub(crate) proc: ProcId,
    /// Ranks in its namespace.
    size: u32,
    acts: Vec<Act>,
    at: usize,
    state: State,
    requests: u64,
    /// Bytes written to its standard output, and those of them that the driver has read.
    pub(crate) printed: u64,
    pub(crate) read: u64,
    credit: u64,
    closed: bool,
    ignores_term: bool,
    /// Input it was given and took, and whether the end came.
    given: u64,
    pub(crate) taken: u64,
    eof: bool,
    /// A reply that was not what it should be.
    pub(crate) wrong: Option<String>,
}

/// What a step of a rank leads to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The daemon's driver sees this.
    Event(DaemonEvent),
    /// The sleep of this number ends later.
    After(Duration, u64),
}

impl SimRank {
    pub(crate) fn new(proc: ProcId, size: u32, acts: Vec<Act>) -> Self {
        Self {
            proc,
            size,
            acts,
            at: 0,
            state: State::Ready,
            requests: 0,
            printed: 0,
            read: 0,
            credit: 0,
            closed: false,
            ignores_term: false,
            given: 0,
            taken: 0,
            eof: false,
            wrong: None,
        }
    }

    pub(crate) fn alive(&self) -> bool {
        self.state != State::Dead
    }

    /// Runs until it must wait.
    pub(crate) fn run(&mut self, wall_us: u64, out: &mut Vec<Step>) {
        while self.state == State::Ready {
            let act = self.acts.get(self.at).cloned().unwrap_or(Act::Exit(0));
            match act {
                Act::Print(bytes) => {
                    if self.printed - self.read >= PIPE {
                        return;
                    }
                    self.printed += u64::from(bytes);
                    self.pump(out);
                }
                Act::Sleep(time) => {
                    self.at += 1;
                    self.requests += 1;
                    self.state = State::Waiting(self.requests);
                    return out.push(Step::After(time, self.requests));
                }
                Act::Hello => self.ask(RankRequest::Hello, Bytes::new(), out),
                Act::Finalize => self.ask(RankRequest::Finalize, Bytes::new(), out),
                Act::Put(key) => {
                    let payload = value(self.proc.rank.0, key);
                    self.ask(RankRequest::Put { key: key.into() }, payload, out);
                }
                Act::Get(rank, key) => {
                    let request = RankRequest::Get { rank, key: key.into(), wait_ms: GET_MS };
                    self.ask(request, Bytes::new(), out);
                }
                Act::Fence => self.ask(RankRequest::Fence, Bytes::new(), out),
                Act::Gather => {
                    let data = Bytes::copy_from_slice(&self.proc.rank.0.to_le_bytes());
                    let (token, by, key) = (self.token(), self.proc, gather_key(self.proc, self.size));
                    out.push(Step::Event(DaemonEvent::Join { token, by, key, data }));
                }
                Act::Publish(name) => {
                    let (scope, until) = (Scope::All, Until::Job);
                    let (domain, name) = (Domain::Pmi, name.as_bytes().to_vec());
                    let payload = Bytes::copy_from_slice(&name);
                    self.request(Request::Publish { domain, name, scope, until }, payload, out);
                }
                Act::Lookup(name) => {
                    let (domain, name) = (Domain::Pmi, name.as_bytes().to_vec());
                    self.request(Request::Lookup { domain, name, wait_ms: GET_MS }, Bytes::new(), out);
                }
                Act::Ask(rank) => {
                    let of = ProcId { rank, ..self.proc };
                    let ask = Request::Ask { of, domain: Domain::Pmix, wait_ms: GET_MS };
                    self.request(ask, Bytes::from_static(b"?"), out);
                }
                Act::Spawn(ranks) => {
                    let app = SpawnApp { program: "child".into(), ranks, ..SpawnApp::default() };
                    let order = Spawn { apps: vec![app], preputs: Vec::new() };
                    self.request(Request::Spawn(Box::new(order)), Bytes::new(), out);
                }
                Act::Abort(code) => {
                    self.ask(RankRequest::Abort { code, message: "on purpose".into() }, Bytes::new(), out);
                }
                Act::ReadStdin => {
                    let bytes = u32::try_from(self.given - self.taken).unwrap_or(u32::MAX);
                    self.taken += u64::from(bytes);
                    if bytes > 0 {
                        out.push(Step::Event(DaemonEvent::StdinTaken { proc: self.proc, bytes }));
                    }
                    if !self.eof {
                        return;
                    }
                }
                Act::Exit(code) => return self.die(RankEnd::Exited(code), wall_us, out),
                Act::Crash(signal) => {
                    return self.die(RankEnd::Signaled { signal, core: false }, wall_us, out);
                }
                Act::Hang => self.state = State::Waiting(u64::MAX),
                Act::IgnoreTerm => self.ignores_term = true,
            }
            self.at += 1;
        }
    }

    fn ask(&mut self, request: RankRequest, payload: Bytes, out: &mut Vec<Step>) {
        self.requests += 1;
        self.state = State::Waiting(self.requests);
        let (proc, id) = (self.proc, self.requests);
        out.push(Step::Event(DaemonEvent::RankRequest { proc, id, request, payload }));
    }

    /// A server's token for the next request: whose it is, and the request.
    fn token(&mut self) -> u64 {
        self.requests += 1;
        self.state = State::Waiting(self.requests);
        u64::from(self.proc.ns.0) << 56 | u64::from(self.proc.rank.0) << 32 | self.requests
    }

    fn request(&mut self, request: Request, payload: Bytes, out: &mut Vec<Step>) {
        let (token, by) = (self.token(), self.proc);
        out.push(Step::Event(DaemonEvent::Request { token, by, request, payload }));
    }

    /// A gather ended.
    pub(crate) fn gathered(&mut self, id: u64, result: &Result<(Bytes, u64), ProcId>) {
        let reply = match result {
            Ok((data, _)) => {
                let mut ranks: Vec<u32> =
                    data.chunks(4).map(|c| c.try_into().map_or(u32::MAX, u32::from_le_bytes)).collect();
                ranks.sort_unstable();
                let wanted = third(self.proc.rank, self.size);
                if ranks.into_iter().map(Rank).ne(wanted.iter()) {
                    self.wrong = Some(format!("{}: a gather brought other ranks", self.proc));
                }
                RankReply::Done
            }
            Err(lost) => RankReply::Lost(lost.rank),
        };
        self.answer(id, &reply, &Bytes::new());
    }

    /// The job answered a server's request.
    pub(crate) fn served(&mut self, id: u64, answer: &Answer, payload: &Bytes) {
        let asked = self.at.checked_sub(1).and_then(|i| self.acts.get(i)).cloned();
        let reply = match (asked, answer) {
            (Some(Act::Lookup(name)), Answer::Value) if payload == name.as_bytes() => RankReply::Done,
            (Some(Act::Ask(rank)), Answer::Value) if *payload == value(rank.0, "?") => RankReply::Done,
            (Some(Act::Publish(_)), Answer::Done) => RankReply::Done,
            (Some(Act::Spawn(n)), Answer::Spawned { size, .. }) if n == *size => RankReply::Done,
            (Some(Act::Spawn(_)), Answer::Refused(_)) => RankReply::Lost(self.proc.rank),
            (_, Answer::Lost(lost)) => RankReply::Lost(lost.rank),
            (_, other) => RankReply::Refused(format!("{other:?}")),
        };
        self.answer(id, &reply, &Bytes::new());
    }

    /// A sleep is over.
    pub(crate) fn wake(&mut self, sleep: u64) {
        if self.state == State::Waiting(sleep) {
            self.state = State::Ready;
        }
    }

    /// An answer came.
    pub(crate) fn answer(&mut self, id: u64, reply: &RankReply, payload: &Bytes) {
        if !self.alive() {
            return;
        }
        if self.state != State::Waiting(id) {
            self.wrong = Some(format!("{}: answer {id} {reply:?} that it does not wait for", self.proc));
            return;
        }
        self.state = State::Ready;
        let asked = self.at.checked_sub(1).and_then(|i| self.acts.get(i));
        match (asked, reply) {
            (_, RankReply::Lost(_)) => self.acts[self.at - 1..].fill(Act::Exit(LOST_CODE)),
            (Some(Act::Get(rank, key)), RankReply::Value) if *payload == value(rank.0, key) => {}
            (Some(Act::Get(..)) | None, RankReply::Done) => self.wrong = Some(format!("{}: done", self.proc)),
            (Some(_), RankReply::Done) => {}
            (asked, reply) => self.wrong = Some(format!("{}: {asked:?} answered {reply:?}", self.proc)),
        }
        if matches!(reply, RankReply::Lost(_)) && self.at >= self.acts.len() {
            self.acts.push(Act::Exit(LOST_CODE));
        }
    }

    pub(crate) fn credit(&mut self, stream: Stream, bytes: u32, out: &mut Vec<Step>) {
        if stream == Stream::Stdout {
            self.credit += u64::from(bytes);
            self.pump(out);
        }
    }

    /// The driver reads its pipe as far as it may.
    fn pump(&mut self, out: &mut Vec<Step>) {
        while self.read < self.printed && self.credit > 0 {
            let n = (self.printed - self.read).min(self.credit).min(PIPE);
            let bytes: Vec<u8> = (self.read..self.read + n).map(|k| byte(self.proc.rank.0, k)).collect();
            self.read += n;
            self.credit -= n;
            out.push(Step::Event(self.piece(Stream::Stdout, bytes.into(), false)));
        }
        if !self.alive() && self.read == self.printed && !self.closed {
            self.closed = true;
            out.push(Step::Event(self.piece(Stream::Stdout, Bytes::new(), true)));
        }
    }

    fn piece(&self, stream: Stream, bytes: Bytes, last: bool) -> DaemonEvent {
        DaemonEvent::Output { proc: self.proc, stream, bytes, last }
    }

    pub(crate) fn input(&mut self, bytes: usize) {
        self.given += bytes as u64;
    }

    pub(crate) fn input_end(&mut self) {
        self.eof = true;
    }

    pub(crate) fn signal(&mut self, signal: i32, wall_us: u64, out: &mut Vec<Step>) {
        let fatal = matches!(signal, 1 | 2 | 15) && !self.ignores_term;
        if self.alive() && (fatal || signal == 9) {
            self.die(RankEnd::Signaled { signal, core: false }, wall_us, out);
        }
    }

    fn die(&mut self, end: RankEnd, wall_us: u64, out: &mut Vec<Step>) {
        self.state = State::Dead;
        out.push(Step::Event(self.piece(Stream::Stderr, Bytes::new(), true)));
        out.push(Step::Event(DaemonEvent::RankExited(RankExit {
            proc: self.proc,
            pid: self.proc.rank.0 + 1000,
            end,
            abort: None,
            stopped: false,
            oom: false,
            last_stderr: Vec::new(),
            wall_us,
        })));
        self.pump(out);
    }
}

/// The ranks of a rank's third of the job.
fn third(rank: Rank, size: u32) -> RankSet {
    let part = |r: u32| u64::from(r) * 3 / u64::from(size.max(1));
    let first = (0..size).position(|r| part(r) == part(rank.0)).unwrap_or(0);
    let last = (0..size).rposition(|r| part(r) == part(rank.0)).unwrap_or(0);
    RankSet::range(u32::try_from(first).unwrap_or(0), u32::try_from(last).unwrap_or(0))
}

/// The gather of a rank's third.
fn gather_key(proc: ProcId, size: u32) -> GatherKey {
    let group = Group::ranks(proc, third(proc.rank, size)).unwrap_or_else(|| Group::all(proc));
    GatherKey { domain: Domain::Pmi, name: b"third".to_vec(), group, loss: OnLoss::Fail }
}

/// A simulated node.
#[derive(Debug)]
pub(crate) struct SimNode {
    /// `None` once the daemon has left or died.
    pub(crate) machine: Option<DaemonMachine>,
    pub(crate) ranks: Vec<SimRank>,
    /// Ranks that are not started yet.
    pub(crate) prepared: Vec<SimRank>,
    /// Its wall clock at the start of the simulation.
    pub(crate) wall_at_zero_us: u64,
    /// Killed or powered off: no check of what became of it.
    pub(crate) dead: bool,
    /// Its daemon left in good order.
    pub(crate) left_at: Option<Time>,
    pub(crate) timer_at: Option<Time>,
    pub(crate) cannot_prepare: bool,
}

impl SimNode {
    pub(crate) fn wall_us(&self, now: Time) -> u64 {
        self.wall_at_zero_us + now.as_micros()
    }

    pub(crate) fn rank(&mut self, proc: ProcId) -> Option<&mut SimRank> {
        self.ranks.iter_mut().find(|r| r.proc == proc)
    }
}
