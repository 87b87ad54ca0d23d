//! What servers ask of a job, made of bytes, for the machines' scripts.

use crate::Input;
use crate::node::proc;
use rmpi_types::{Namespace, NodeIdx, Rank, RankSet};
pub(crate) use rmpi_wire::service::Request;
use rmpi_wire::service::{Answer, Domain, GatherKey, Group, OnLoss, Scope, Spawn, SpawnApp, Until};

fn domain(input: &mut Input<'_>) -> Domain {
    [Domain::Native, Domain::Pmi, Domain::Pmix][usize::from(input.below(3))]
}

fn scope(input: &mut Input<'_>) -> Scope {
    [Scope::All, Scope::Namespace, Scope::Node][usize::from(input.below(3))]
}

fn name(input: &mut Input<'_>) -> Vec<u8> {
    if input.one_in(4) { input.piece().to_vec() } else { vec![input.below(3)] }
}

/// A gather of a few.
pub(crate) fn gather(input: &mut Input<'_>) -> GatherKey {
    let of = proc(input);
    let some = RankSet::range(u32::from(input.below(3)), u32::from(input.below(8)));
    let group = match input.below(4) {
        0 => Group::ranks(of, some),
        1 => Group::of([(of.ns, of.epoch, None), (Namespace(1), of.epoch, Some(Rank(0)))]),
        _ => None,
    };
    let loss = if input.one_in(3) { OnLoss::Skip } else { OnLoss::Fail };
    let group = group.unwrap_or_else(|| Group::all(of));
    GatherKey { domain: domain(input), name: name(input), group, loss }
}

/// A request.
pub(crate) fn request(input: &mut Input<'_>) -> Request {
    let domain = domain(input);
    match input.below(8) {
        0 => Request::Ask { of: proc(input), domain, wait_ms: input.number32() },
        1 | 2 => {
            let until = [Until::Job, Until::FirstRead, Until::Process, Until::Namespace];
            let until = until[usize::from(input.below(4))];
            Request::Publish { domain, name: name(input), scope: scope(input), until }
        }
        3 => Request::Lookup { domain, name: name(input), wait_ms: input.number32() },
        4 => Request::Unpublish { domain, name: name(input), owner_only: input.one_in(2) },
        5 => {
            let app =
                SpawnApp { program: input.text().into(), ranks: input.number32(), ..SpawnApp::default() };
            Request::Spawn(Box::new(Spawn { apps: vec![app], preputs: Vec::new() }))
        }
        6 => Request::Notify { domain, scope: scope(input) },
        _ => Request::Watch,
    }
}

/// An answer.
pub(crate) fn answer(input: &mut Input<'_>) -> Answer {
    match input.below(7) {
        0 => Answer::Done,
        1 => Answer::Value,
        2 => Answer::Missing,
        3 => Answer::Taken,
        4 => Answer::Lost(proc(input)),
        5 => Answer::Spawned { ns: Namespace(input.number32()), size: input.number32() % 4096 },
        _ => Answer::Refused(input.text()),
    }
}

/// A node's number.
pub(crate) fn node(input: &mut Input<'_>) -> NodeIdx {
    NodeIdx(u32::from(input.below(5)))
}
