//! Published names: one store for all jobs, at the launcher. A request of several names is several questions
//! there and one answer here.

use super::get::timeout;
use super::{Asker, Op, PmixServer};
use crate::api::Action;
use crate::pmix::codec::{Codec, Info, Pdata, Reader, Text, Writer};
use crate::pmix::keys;
use crate::pmix::request::Request;
use crate::pmix::status;
use bytes::Bytes;
use rmpi_wire::service::{self, Answer, Domain, Request as JobRequest, Scope, Until};
use std::collections::HashMap;
use std::time::Duration;

/// Names in one request, at most.
const MAX_NAMES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Publish,
    Lookup { waits: bool },
    Unpublish,
}

/// A request whose names are being worked on.
#[derive(Debug)]
struct Batch {
    asker: Asker,
    kind: Kind,
    left: usize,
    status: i32,
    found: Vec<Option<Pdata>>,
}

/// All such requests.
#[derive(Debug, Default)]
pub(super) struct Names {
    open: HashMap<u64, Batch>,
    next: u64,
}

impl PmixServer {
    pub(super) fn publish(&mut self, asker: Asker, infos: &[Info], out: &mut Vec<Action>) {
        let number = |key| Request::directive(infos, key).and_then(|i| i.value.number());
        let scope = match number(keys::RANGE) {
            Some(2) => Scope::Node,
            Some(3) => Scope::Namespace,
            _ => Scope::All,
        };
        let until = match number(keys::PERSISTENCE) {
            Some(0 | 4) => Until::Job,
            Some(1) => Until::FirstRead,
            Some(2) => Until::Process,
            _ => Until::Namespace,
        };
        let proc = self.jobs.name(asker.proc);
        let data = infos.iter().filter(|i| !i.key.starts_with("pmix."));
        let requests = data.map(|info| {
            let name = info.key.0.to_vec();
            let mut w = Writer::new(Codec::PLAIN);
            w.one(&Pdata { proc: proc.clone(), key: info.key.clone(), value: info.value.clone() });
            (JobRequest::Publish { domain: Domain::Pmix, name, scope, until }, w.finish())
        });
        let requests = requests.collect();
        self.batch(asker, Kind::Publish, requests, out);
    }

    pub(super) fn lookup(&mut self, asker: Asker, keys: Vec<Text>, infos: &[Info], out: &mut Vec<Action>) {
        let waits = Request::directive(infos, keys::WAIT).is_some();
        let wait_ms = match (waits, timeout(infos)) {
            (false, _) => 0,
            (true, None) => u32::MAX,
            (true, Some(limit)) => millis(limit),
        };
        let request = |key: Text| {
            let request = JobRequest::Lookup { domain: Domain::Pmix, name: key.0.to_vec(), wait_ms };
            (request, Bytes::new())
        };
        let requests = keys.into_iter().map(request).collect();
        self.batch(asker, Kind::Lookup { waits }, requests, out);
    }

    pub(super) fn unpublish(&mut self, asker: Asker, keys: Vec<Text>, out: &mut Vec<Action>) {
        let request = |key: Text| {
            let name = key.0.to_vec();
            (JobRequest::Unpublish { domain: Domain::Pmix, name, owner_only: false }, Bytes::new())
        };
        let requests = keys.into_iter().map(request).collect();
        self.batch(asker, Kind::Unpublish, requests, out);
    }

    fn batch(&mut self, asker: Asker, kind: Kind, requests: Vec<(JobRequest, Bytes)>, out: &mut Vec<Action>) {
        if requests.is_empty() {
            let status =
                if matches!(kind, Kind::Lookup { .. }) { status::BAD_PARAM } else { status::SUCCESS };
            return asker.status(status, out);
        }
        let too_long = |(request, payload): &(JobRequest, Bytes)| {
            let name = match request {
                JobRequest::Publish { name, .. }
                | JobRequest::Lookup { name, .. }
                | JobRequest::Unpublish { name, .. } => name.len(),
                _ => 0,
            };
            name > service::MAX_NAME || payload.len() > service::MAX_VALUE
        };
        if requests.len() > MAX_NAMES || requests.iter().any(too_long) {
            return asker.status(status::OUT_OF_RESOURCE, out);
        }
        let count = requests.len();
        self.names.next += 1;
        let batch = self.names.next;
        let mut sent = Vec::with_capacity(count);
        for (at, (request, payload)) in requests.into_iter().enumerate() {
            let Some(token) = self.open(Op::Name { batch, at }, None) else {
                for token in sent {
                    self.close(token);
                }
                return asker.status(status::OUT_OF_RESOURCE, out);
            };
            sent.push(token);
            out.push(Action::Request { token, by: asker.proc, request, payload });
        }
        let open = Batch { asker, kind, left: count, status: status::SUCCESS, found: vec![None; count] };
        self.names.open.insert(batch, open);
    }

    /// The answer for one name.
    pub(super) fn named(
        &mut self,
        batch: u64,
        at: usize,
        answer: Answer,
        payload: Bytes,
        out: &mut Vec<Action>,
    ) {
        let Some(open) = self.names.open.get_mut(&batch) else { return };
        open.left -= 1;
        match answer {
            Answer::Done | Answer::Missing | Answer::Spawned { .. } => {}
            Answer::Value => {
                let pdata = Reader::new(Codec::PLAIN, payload).one::<Pdata>().ok();
                if let Some(place) = open.found.get_mut(at) {
                    *place = pdata;
                }
            }
            Answer::Taken => open.status = status::EXISTS,
            Answer::Lost(_) => open.status = status::UNREACH,
            Answer::Refused(why) => {
                tracing::debug!(why, "name refused");
                open.status = status::BAD_PARAM;
            }
        }
        if open.left > 0 {
            return;
        }
        let Some(open) = self.names.open.remove(&batch) else { return };
        let Kind::Lookup { waits } = open.kind else { return open.asker.status(open.status, out) };
        let asked = open.found.len();
        let found: Vec<Pdata> = open.found.into_iter().flatten().collect();
        let missing = if waits { status::TIMEOUT } else { status::NOT_FOUND };
        if found.is_empty() {
            let status = if open.status == status::SUCCESS { missing } else { open.status };
            return open.asker.status(status, out);
        }
        let mut w = open.asker.writer();
        w.status(if found.len() == asked { status::SUCCESS } else { status::PARTIAL_SUCCESS });
        w.counted(&found);
        open.asker.answer(w, out);
    }
}

fn millis(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}
