//! What clients are told of a job: keys of the job, its nodes, its applications and its ranks, with the types
//! that clients insist on.

use super::Setup;
use super::jobs::{Job, Jobs};
use crate::pmix::codec::{Codec, Info, Kval, Proc, Text, Value, Writer};
use crate::pmix::keys;
use bytes::Bytes;
use rmpi_types::Rank;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

/// How the ranks' keys are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As the answer to a client's first question.
    First,
    /// As an answer to a get.
    Get,
}

fn kval(key: &'static str, value: Value) -> Kval {
    Kval { key: Text::fixed(key), value }
}

fn ranks(of: impl Iterator<Item = Rank>) -> Value {
    let mut list = String::new();
    for rank in of {
        let comma = if list.is_empty() { "" } else { "," };
        let _ = write!(list, "{comma}{rank}");
    }
    Value::text(list)
}

fn os(text: &OsStr) -> Text {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    Text(Bytes::copy_from_slice(&bytes[..end]))
}

/// Keys of the job itself, as seen from this node.
pub(super) fn job(job: &Job, jobs: &Jobs, setup: &Setup) -> Vec<Kval> {
    let space = &job.space;
    let count = |n: usize| Value::u32(u32::try_from(n).unwrap_or(u32::MAX));
    let mut hosts = String::new();
    for host in &job.hosts {
        let comma = if hosts.is_empty() { "" } else { "," };
        let _ = write!(hosts, "{comma}{host}");
    }
    let mut out = vec![
        kval(keys::JOB_ID, Value::text(job.name.clone())),
        kval(keys::SESSION_ID, Value::u32(1)),
        kval(keys::JOB_SIZE, Value::u32(space.size)),
        kval(keys::UNIVERSE_SIZE, Value::u32(space.universe.max(space.size))),
        kval(keys::MAX_PROCS, Value::u32(space.size)),
        kval(keys::NUM_APPS, count(space.apps.len())),
        kval(keys::NUM_NODES, count(space.nodes.len())),
        kval(keys::NODE_LIST, Value::text(hosts)),
        kval(keys::TMPDIR, Value::text(setup.folder.as_str())),
        kval(keys::NSDIR, Value::text(setup.job_folder(job))),
        kval(keys::TDIR_RMCLEAN, Value::bool(true)),
    ];
    if space.apps.len() > 1 {
        let list = |of: &dyn Fn(usize) -> u32| {
            let words: Vec<String> = (0..space.apps.len()).map(|i| of(i).to_string()).collect();
            Value::text(words.join(" "))
        };
        let size = |i: usize| u32::try_from(space.apps[i].ranks.len()).unwrap_or(u32::MAX);
        let first = |i: usize| space.apps[i].ranks.iter().next().map_or(0, |r| r.0);
        out.push(kval("OMPI_APP_SIZES", list(&size)));
        out.push(kval("OMPI_FIRST_RANKS", list(&first)));
    }
    if let Some(parent) = space.parent {
        out.push(kval(keys::SPAWNED, Value::bool(true)));
        out.push(kval(keys::PARENT_ID, Value::Proc(jobs.name(parent))));
    }
    if let Some(topology) = setup.topology.xml() {
        out.push(kval(keys::HWLOC_XML2, Value::text(topology)));
    }
    out
}

/// Keys of one of the job's nodes.
pub(super) fn node(job: &Job, at: usize, setup: &Setup) -> Vec<Info> {
    let Some(node) = job.space.nodes.get(at) else { return Vec::new() };
    let here = u32::try_from(node.ranks.len()).unwrap_or(u32::MAX);
    let mut out = vec![
        Info::new(keys::HOSTNAME, Value::text(job.hosts[at].clone())),
        Info::new(keys::NODEID, Value::u32(node.node)),
        Info::new(keys::LOCAL_SIZE, Value::u32(here)),
        Info::new(keys::NODE_SIZE, Value::u32(job.before[at].saturating_add(here))),
        Info::new(keys::LOCAL_PEERS, ranks(node.ranks.iter())),
    ];
    if let Some(first) = node.ranks.iter().next() {
        out.push(Info::new(keys::LOCALLDR, Value::rank(first.0)));
    }
    if setup.oversubscribed && node.node == setup.node {
        out.push(Info::new(keys::OVERSUBSCRIBED, Value::bool(true)));
    }
    out
}

/// Keys of one of the job's applications.
pub(super) fn app(job: &Job, at: usize) -> Vec<Info> {
    let Some(app) = job.space.apps.get(at) else { return Vec::new() };
    let mut argv = os(&app.program).0.to_vec();
    for arg in &app.args {
        argv.push(b' ');
        argv.extend_from_slice(&os(arg).0);
    }
    let size = u32::try_from(app.ranks.len()).unwrap_or(u32::MAX);
    let first = app.ranks.iter().next().map_or(0, |r| r.0);
    vec![
        Info::new(keys::APPNUM, Value::u32(u32::try_from(at).unwrap_or(u32::MAX))),
        Info::new(keys::APP_SIZE, Value::u32(size)),
        Info::new(keys::APPLDR, Value::rank(first)),
        Info::new(keys::WDIR, Value::text(os(&app.wdir))),
        Info::new(keys::APP_ARGV, Value::text(Text(argv.into()))),
    ]
}

/// Keys of one rank. A client asks the server when it wants one that is not among what it was sent.
pub(super) fn rank(job: &Job, rank: Rank, setup: &Setup) -> Vec<Info> {
    let Some(place) = job.place(rank) else { return Vec::new() };
    let at = place.node as usize;
    let node = job.space.nodes[at].node;
    let mut out = vec![
        Info::new(keys::HOSTNAME, Value::text(job.hosts[at].clone())),
        Info::new(keys::NODEID, Value::u32(node)),
        Info::new(keys::LOCAL_RANK, Value::u16(place.local)),
        Info::new(keys::NODE_RANK, Value::u16(place.local.saturating_add(job.before[at]))),
        Info::new(keys::APPNUM, Value::u32(place.app)),
        Info::new(keys::APP_RANK, Value::rank(place.in_app)),
        Info::new(keys::GLOBAL_RANK, Value::rank(rank.0)),
        Info::new(keys::REINCARNATION, Value::u32(0)),
    ];
    if node == setup.node {
        out.push(Info::new(keys::PROCDIR, Value::text(setup.rank_folder(job, rank))));
    }
    out
}

/// Items KVAL with all there is to know of a job. Long: one entry a rank.
pub(super) fn everything(job_of: &Job, jobs: &Jobs, setup: &Setup, codec: Codec, form: Form) -> Bytes {
    let mut w = Writer::new(codec);
    for Kval { key, value } in job(job_of, jobs, setup) {
        w.kval(&key, &value);
    }
    let node_key = Text::fixed(keys::NODE_INFO_ARRAY);
    for at in 0..job_of.space.nodes.len() {
        w.kval(&node_key, &Value::infos(node(job_of, at, setup)));
    }
    let app_key = Text::fixed(keys::APP_INFO_ARRAY);
    for at in 0..job_of.space.apps.len() {
        w.kval(&app_key, &Value::infos(app(job_of, at)));
    }
    let (blob_key, data_key) = (Text::fixed(keys::PROC_BLOB), Text::fixed(keys::PROC_DATA));
    for r in (0..job_of.space.size).map(Rank) {
        let infos = rank(job_of, r, setup);
        match form {
            Form::First => {
                let mut inner = w.inner();
                inner.rank(r.0);
                for info in &infos {
                    inner.kval(&info.key, &info.value);
                }
                w.kval(&blob_key, &Value::blob(inner.finish()));
            }
            Form::Get => {
                let mut all = vec![Info::new(keys::RANK, Value::rank(r.0))];
                all.extend(infos);
                w.kval(&data_key, &Value::infos(all));
            }
        }
    }
    w.finish()
}

/// The payload of an object in a get's answer: whose data it is, and the data.
pub(super) fn object(codec: Codec, of: &Proc, data: &Data<'_>) -> Bytes {
    let mut w = Writer::new(codec);
    w.one(of);
    match data {
        Data::Packed(items) => {
            w.append(items);
        }
        Data::Kvals(kvals) => {
            for Kval { key, value } in *kvals {
                w.kval(key, value);
            }
        }
    }
    w.finish()
}

/// Data in an answer.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// Items in the client's form.
    Packed(&'a [u8]),
    /// To be packed.
    Kvals(&'a [Kval]),
}
