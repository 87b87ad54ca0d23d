//! Events: who wants to hear of what, what clients tell each other, and ranks that end in failure. Events are
//! kept for a while: one who registers late hears of them too.

use super::client::Stage;
use super::{Asker, PmixServer};
use crate::api::{Action, Conn};
use crate::pmix::codec::{Codec, DataType, Info, Proc, Reader, Text, Value, Writer};
use crate::pmix::frame::{self, TAG_EVENT};
use crate::pmix::keys;
use crate::pmix::request::Request;
use crate::pmix::status;
use bytes::Bytes;
use rmpi_types::{ProcId, RankEnd};
use rmpi_wire::service::{self, Domain, Request as JobRequest, Scope};
use std::collections::VecDeque;
use std::time::Duration;

/// Events kept for late registrations.
const MAX_KEPT: usize = 256;
/// Codes one client may register, at most.
const MAX_CODES: usize = 4096;
/// Code of the default handler in a registration's end.
const DEFAULT_HANDLER: i32 = i32::MIN;

/// Ranges of an event.
mod range {
    pub(super) const LOCAL: u8 = 2;
    pub(super) const NAMESPACE: u8 = 3;
    pub(super) const PROCESS: u8 = 7;
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Happening {
    number: u64,
    code: i32,
    source: Proc,
    infos: Vec<Info>,
    /// Only for clients of this namespace.
    within: Option<Text>,
}

/// What happened lately.
#[derive(Debug, Default)]
pub(super) struct Events {
    kept: VecDeque<Happening>,
    next: u64,
    /// The launcher was asked to tell of failed ranks.
    watching: bool,
}

impl PmixServer {
    pub(super) fn register(&mut self, asker: Asker, codes: Vec<i32>, out: &mut Vec<Action>) {
        asker.status(status::SUCCESS, out);
        let Some(client) = self.clients.get_mut(&asker.conn) else { return };
        let Stage::Up(up) = &mut client.stage else { return };
        up.all |= codes.is_empty();
        let room = MAX_CODES.saturating_sub(up.codes.len());
        up.codes.extend(codes.into_iter().take(room));
        let failures = [status::ABORTED_BY_SIG, status::TERM_WO_SYNC, status::PROC_ABORTED];
        if failures.iter().any(|c| up.codes.contains(c))
            && !std::mem::replace(&mut self.events.watching, true)
        {
            let token = self.tokens.fresh();
            let (by, request) = (asker.proc, JobRequest::Watch);
            out.push(Action::Request { token, by, request, payload: Bytes::new() });
        }
        let kept: Vec<Happening> = self.events.kept.iter().cloned().collect();
        for event in kept {
            self.deliver(asker.conn, &event, out);
        }
    }

    pub(super) fn deregister(&mut self, conn: Conn, codes: &[i32]) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Stage::Up(up) = &mut client.stage else { return };
        for code in codes {
            up.codes.remove(code);
            up.all &= *code != DEFAULT_HANDLER;
        }
    }

    pub(super) fn notify(
        &mut self,
        asker: Asker,
        code: i32,
        range: u8,
        infos: Vec<Info>,
        out: &mut Vec<Action>,
    ) {
        let scope = match range {
            range::LOCAL => Scope::Node,
            range::NAMESPACE => Scope::Namespace,
            // The client tells itself.
            range::PROCESS => return asker.status(status::SUCCESS, out),
            _ => Scope::All,
        };
        let mut w = Writer::new(Codec::PLAIN);
        w.status(code).one_number(DataType::RANGE, range.into()).counted(&infos);
        let payload = w.finish();
        if payload.len() > service::MAX_VALUE {
            return asker.status(status::OUT_OF_RESOURCE, out);
        }
        asker.status(status::SUCCESS, out);
        let token = self.tokens.fresh();
        let request = JobRequest::Notify { domain: Domain::Pmix, scope };
        out.push(Action::Request { token, by: asker.proc, request, payload });
    }

    /// A client somewhere tells of an event.
    pub(super) fn notified(&mut self, scope: Scope, by: ProcId, payload: Bytes, out: &mut Vec<Action>) {
        let mut r = Reader::new(Codec::PLAIN, payload);
        let code = r.status();
        let range = r.small(DataType::RANGE);
        let (Ok(code), Ok(_), Ok(infos)) = (code, range, r.counted::<Info>()) else { return };
        let source = self.jobs.name(by);
        let within = (scope == Scope::Namespace).then(|| source.ns.clone());
        self.happened(code, source, infos, within, out);
    }

    /// A rank ended in failure and the job goes on without it.
    pub(super) fn elsewhere_ended(&mut self, proc: ProcId, end: RankEnd, out: &mut Vec<Action>) {
        let code = match end {
            RankEnd::Signaled { .. } => status::ABORTED_BY_SIG,
            RankEnd::Exited(0) => status::TERM_WO_SYNC,
            RankEnd::Exited(_) => status::PROC_ABORTED,
        };
        let source = self.jobs.name(proc);
        let infos = vec![Info::new(keys::EVENT_AFFECTED_PROC, Value::Proc(source.clone()))];
        self.happened(code, source, infos, None, out);
    }

    fn happened(
        &mut self,
        code: i32,
        source: Proc,
        infos: Vec<Info>,
        within: Option<Text>,
        out: &mut Vec<Action>,
    ) {
        self.events.next += 1;
        let event = Happening { number: self.events.next, code, source, infos, within };
        let conns: Vec<Conn> = self.clients.keys().copied().collect();
        for conn in conns {
            self.deliver(conn, &event, out);
        }
        if self.events.kept.len() >= MAX_KEPT
            && let Some(old) = self.events.kept.pop_front()
        {
            for client in self.clients.values_mut() {
                if let Stage::Up(up) = &mut client.stage {
                    up.told.remove(&old.number);
                }
            }
        }
        self.events.kept.push_back(event);
    }

    /// Tells a client of an event, once, if it wants to know and it is meant.
    fn deliver(&mut self, conn: Conn, event: &Happening, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Stage::Up(up) = &mut client.stage else { return };
        let me = self.jobs.name(up.proc);
        let special =
            Request::directive(&event.infos, keys::EVENT_NON_DEFAULT).is_some_and(|i| i.value.truth());
        let wanted = up.codes.contains(&event.code) || (up.all && !special);
        let meant = event.within.as_ref().is_none_or(|ns| *ns == me.ns)
            && Request::directive(&event.infos, keys::EVENT_CUSTOM_RANGE)
                .is_none_or(|i| named(&i.value, &me));
        if !wanted || !meant || event.source == me || up.finalized || !up.told.insert(event.number) {
            return;
        }
        let mut w = Writer::new(up.codec);
        w.one_number(DataType::COMMAND, 12).status(event.code).one(&event.source).counted(&event.infos);
        out.push(Action::Send { conn, bytes: frame::encode(TAG_EVENT, &w.finish()) });
    }

    /// Clients that promised signs of life and gave none.
    pub(super) fn beats_due(&mut self, now: Duration, out: &mut Vec<Action>) {
        let mut missed = Vec::new();
        for client in self.clients.values_mut() {
            let Stage::Up(up) = &mut client.stage else { continue };
            if let Some(pulse) = up.pulse.filter(|p| p.until <= now) {
                // Told once; a new promise may be made.
                up.pulse = None;
                missed.push((up.proc, pulse.code));
            }
        }
        for (proc, code) in missed {
            let source = self.jobs.name(proc);
            let infos = vec![Info::new(keys::EVENT_AFFECTED_PROC, Value::Proc(source.clone()))];
            self.happened(code, source, infos, None, out);
        }
    }
}

/// Whether a process is among those in a value.
fn named(value: &Value, me: &Proc) -> bool {
    let is = |p: &Proc| p.ns == me.ns && (p.rank == me.rank || p.rank == keys::RANK_WILDCARD);
    match value {
        Value::Proc(proc) => is(proc),
        Value::Array(array) => array.values.iter().any(|v| matches!(v, Value::Proc(p) if is(p))),
        _ => true,
    }
}
