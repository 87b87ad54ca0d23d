//! Requests with little behind them: queries, logs, job control, monitoring, credentials, who is where.

use super::client::{Pulse, Stage};
use super::{Asker, PmixServer};
use crate::api::Action;
use crate::pmix::codec::{Info, Proc, Query, Text, Value};
use crate::pmix::keys;
use crate::pmix::request::Request;
use crate::pmix::status;
use bytes::Bytes;
use rmpi_types::Rank;
use std::time::Duration;

/// Paths one rank may register for removal, at most.
const MAX_REMOVE: usize = 1024;
/// Bytes of a logged text, at most.
const MAX_LOG: usize = 64 << 10;

/// An answer of a status and no results.
fn results(asker: Asker, status: i32, out: &mut Vec<Action>) {
    let mut w = asker.writer();
    w.status(status).size(0);
    asker.answer(w, out);
}

/// For requests that have results and are not served.
pub(super) fn unsupported_with_results(asker: Asker, out: &mut Vec<Action>) {
    results(asker, status::NOT_SUPPORTED, out);
}

impl PmixServer {
    pub(super) fn query(&mut self, asker: Asker, queries: &[Query], out: &mut Vec<Action>) {
        let mut found = Vec::new();
        let mut asked = 0;
        for key in queries.iter().flat_map(|q| &q.keys) {
            asked += 1;
            let value = match &*key.lossy() {
                keys::QUERY_NUM_PSETS => Value::size(0),
                keys::QUERY_PSET_NAMES => Value::text(""),
                keys::QUERY_NAMESPACES => {
                    let names: Vec<String> = self.jobs.iter().map(|j| j.name.to_string()).collect();
                    Value::text(names.join(","))
                }
                keys::UNIVERSE_SIZE | keys::JOB_SIZE | keys::NUM_NODES | keys::NODE_LIST => {
                    let job = self.jobs.get(asker.proc.ns);
                    let kvals = job.map(|j| super::info::job(j, &self.jobs, &self.setup));
                    let kval = kvals.and_then(|k| k.into_iter().find(|k| k.key == *key));
                    match kval {
                        Some(kval) => kval.value,
                        None => continue,
                    }
                }
                _ => continue,
            };
            found.push(Info { key: key.clone(), flags: 0, value });
        }
        let mut w = asker.writer();
        w.status(match found.len() {
            0 => status::NOT_FOUND,
            n if n < asked => status::PARTIAL_SUCCESS,
            _ => status::SUCCESS,
        });
        w.counted(&found);
        asker.answer(w, out);
    }

    pub(super) fn log(&mut self, asker: Asker, data: &[Info], out: &mut Vec<Action>) {
        let mut taken = 0;
        for info in data {
            let text = match (&*info.key.lossy(), &info.value) {
                (keys::LOG_STDERR | keys::LOG_STDOUT, value) => value.as_text().map(|t| t.0.clone()),
                (keys::LOG_MSG, Value::Blob(_, bytes)) => Some(message(bytes)),
                _ => None,
            };
            let Some(mut text) = text else { continue };
            taken += 1;
            text.truncate(MAX_LOG);
            if !text.is_empty() {
                out.push(Action::Output { by: asker.proc, bytes: text });
            }
        }
        asker.status(if taken > 0 || data.is_empty() { status::SUCCESS } else { status::NOT_SUPPORTED }, out);
    }

    /// What is to be removed when a rank ends; ending others is the launcher's affair.
    pub(super) fn job_control(
        &mut self,
        asker: Asker,
        procs: &[Proc],
        infos: &[Info],
        out: &mut Vec<Action>,
    ) {
        let recursive = Request::directive(infos, keys::CLEANUP_RECURSIVE).is_some_and(|i| i.value.truth());
        let me = self.jobs.name(asker.proc);
        let (mut known, mut whole_job) = (false, false);
        for info in infos {
            match &*info.key.lossy() {
                keys::REGISTER_CLEANUP | keys::REGISTER_CLEANUP_DIR => {
                    known = true;
                    let paths = info.value.as_text().map(|t| t.lossy().into_owned()).unwrap_or_default();
                    let rank = self.ranks.entry(asker.proc).or_default();
                    let room = MAX_REMOVE.saturating_sub(rank.remove.len());
                    let paths = paths.split(',').filter(|p| p.starts_with('/')).take(room);
                    rank.remove.extend(paths.map(|p| (p.to_owned(), recursive)));
                }
                keys::JOB_CTRL_KILL | keys::JOB_CTRL_TERMINATE if info.value.truth() => {
                    let of_job = |p: &Proc| p.ns == me.ns && p.rank == keys::RANK_WILDCARD;
                    whole_job |= procs.is_empty() || procs.iter().any(of_job);
                }
                _ => {}
            }
        }
        let known = known || whole_job;
        results(asker, if known { status::SUCCESS } else { status::NOT_SUPPORTED }, out);
        if whole_job {
            let message = "asked for the end of its job".into();
            out.push(Action::Abort { by: asker.proc, code: 1, message });
        }
    }

    /// A promise of heartbeats; files and other things are not watched.
    pub(super) fn monitor(
        &mut self,
        now: Duration,
        asker: Asker,
        code: i32,
        monitor: &Info,
        infos: &[Info],
        out: &mut Vec<Action>,
    ) {
        if monitor.key != *keys::MONITOR_HEARTBEAT {
            return unsupported_with_results(asker, out);
        }
        let number = |key| {
            let n = Request::directive(infos, key).and_then(|i| i.value.number());
            n.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0)
        };
        let pulse = number(keys::MONITOR_HEARTBEAT_TIME).map(|seconds| {
            let every = Duration::from_secs(seconds.into());
            let missing = number(keys::MONITOR_HEARTBEAT_DROPS).unwrap_or(1).min(1000);
            Pulse { every, missing, code, until: now + every * missing }
        });
        if let Some(client) = self.clients.get_mut(&asker.conn)
            && let Stage::Up(up) = &mut client.stage
        {
            up.pulse = pulse;
        }
        results(asker, status::SUCCESS, out);
    }

    /// The job's name and the rank; whoever can show it has it from a process of this job.
    pub(super) fn get_credential(&mut self, asker: Asker, out: &mut Vec<Action>) {
        let me = self.jobs.name(asker.proc);
        let mut w = asker.writer();
        w.status(status::SUCCESS).blob(format!("{}.{}", me.ns, me.rank).as_bytes()).size(0);
        asker.answer(w, out);
    }

    pub(super) fn validate(&mut self, asker: Asker, credential: &Bytes, out: &mut Vec<Action>) {
        let text = String::from_utf8_lossy(credential).into_owned();
        let proc = text.rsplit_once('.').and_then(|(ns, rank)| {
            let proc = Proc { ns: ns.into(), rank: rank.parse().ok()? };
            self.jobs.proc(&proc)
        });
        results(asker, if proc.is_some() { status::SUCCESS } else { status::INVALID_CRED }, out);
    }

    pub(super) fn resolve_peers(
        &mut self,
        asker: Asker,
        node: Option<Text>,
        ns: Option<Text>,
        out: &mut Vec<Action>,
    ) {
        let mut procs = Vec::new();
        for job in self.jobs.iter().filter(|j| ns.as_ref().is_none_or(|n| *n == "" || j.name == *n)) {
            let at = match node.as_ref().filter(|n| **n != "") {
                Some(name) => job.hosts.iter().position(|h| h == name),
                None => job.here(self.setup.node),
            };
            let ranks = at.map(|at| job.space.nodes[at].ranks.iter());
            procs.extend(ranks.into_iter().flatten().map(|r: Rank| job.proc(r)));
        }
        let mut w = asker.writer();
        w.status(if procs.is_empty() { status::NOT_FOUND } else { status::SUCCESS }).counted(&procs);
        asker.answer(w, out);
    }

    pub(super) fn resolve_nodes(&mut self, asker: Asker, ns: Option<Text>, out: &mut Vec<Action>) {
        let mut hosts: Vec<String> = Vec::new();
        for job in self.jobs.iter().filter(|j| ns.as_ref().is_none_or(|n| *n == "" || j.name == *n)) {
            for host in &job.hosts {
                let host = host.to_string();
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
        }
        let mut w = asker.writer();
        let status = if hosts.is_empty() { status::NOT_FOUND } else { status::SUCCESS };
        w.status(status).text(Some(&hosts.join(",").into()));
        asker.answer(w, out);
    }
}

/// A text in Open MPI 4's own packing, and where it ends: a count, a length that counts its NUL, the bytes.
fn packed_text(bytes: &Bytes, at: usize) -> Option<(Bytes, usize)> {
    let head = bytes.get(at..at.checked_add(8)?)?;
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let end = (at + 8).checked_add(length)?;
    let one = head[..4] == [0, 0, 0, 1] && length > 0 && end <= bytes.len();
    one.then(|| (bytes.slice(at + 8..end - 1), end))
}

/// The text of a message as Open MPI 4 packs it: file, topic, a flag with or without a count, text. What is not
/// one is shown as it is.
fn message(bytes: &Bytes) -> Bytes {
    let unpacked =
        packed_text(bytes, 0).and_then(|(_file, at)| packed_text(bytes, at)).and_then(|(_topic, at)| {
            let flagged = [5, 1].into_iter().find_map(|flag| packed_text(bytes, at + flag));
            flagged.map(|(text, _)| text)
        });
    unpacked.unwrap_or_else(|| bytes.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_mpis_help_texts_are_unpacked() {
        let string = |s: &str| {
            let length = u32::try_from(s.len() + 1).unwrap();
            [&[0, 0, 0, 1][..], &length.to_be_bytes(), s.as_bytes(), &[0]].concat()
        };
        for flag in [&[0, 0, 0, 1, 1][..], &[1]] {
            let packed =
                [&string("help.txt")[..], &string("topic"), flag, &string("Mind the gap\n")].concat();
            assert_eq!(message(&packed.into()), "Mind the gap\n");
        }
        for other in [&b"plain"[..], b"", &[0, 0, 0, 1, 255, 255, 255, 255], &[0, 0, 0, 1, 0, 0, 0, 0]] {
            let other = Bytes::copy_from_slice(other);
            assert_eq!(message(&other), other);
        }
    }
}
