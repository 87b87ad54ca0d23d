//! Ranking: in which order mapped places get their numbers. Every policy is a way to group places and then
//! either empty the groups one after another or take one of each in turn.

use crate::map::{Put, mapped_object};
use crate::pool::Pool;
use rmpi_types::spec::{Object, Placement, RankBy};
use std::collections::HashMap;

/// Puts places into rank order.
pub(crate) fn rank(p: &Placement, pool: &Pool<'_>, mut puts: Vec<Put>) -> Vec<Put> {
    let Some(rank_by) = p.rank_by else { return puts };
    puts.sort_by_key(|put| (put.node, put.object));
    match rank_by {
        RankBy::Slot | RankBy::Fill => puts,
        RankBy::Node | RankBy::Object(Object::Node) => in_turn(puts.chunk_by(|a, b| a.node == b.node)),
        RankBy::Span => in_turn(puts.chunk_by(|a, b| (a.node, a.object) == (b.node, b.object))),
        RankBy::Object(kind) => by_object(p, pool, &puts, kind),
    }
}

/// One of each group in turn until all are empty.
fn in_turn<'p>(groups: impl Iterator<Item = &'p [Put]>) -> Vec<Put> {
    let mut active: Vec<std::slice::Iter<'p, Put>> = groups.map(<[Put]>::iter).collect();
    let mut out = Vec::with_capacity(active.iter().map(ExactSizeIterator::len).sum());
    while !active.is_empty() {
        active.retain_mut(|group| {
            out.extend(group.next());
            group.len() > 0
        });
    }
    out
}

/// Round-robin over the objects of a kind: node by node, or with `SPAN` over those of all nodes.
fn by_object(p: &Placement, pool: &Pool<'_>, sorted: &[Put], kind: Object) -> Vec<Put> {
    let mut out = Vec::with_capacity(sorted.len());
    let mut span: Vec<Vec<Put>> = Vec::new();
    for puts in sorted.chunk_by(|a, b| a.node == b.node) {
        let mut groups: HashMap<u32, Vec<Put>> = HashMap::new();
        for (put, object) in puts.iter().zip(objects(p, pool, puts, kind)) {
            groups.entry(object).or_default().push(*put);
        }
        let mut groups: Vec<(u32, Vec<Put>)> = groups.into_iter().collect();
        groups.sort_by_key(|&(object, _)| object);
        if p.span {
            span.extend(groups.into_iter().map(|(_, puts)| puts));
        } else {
            out.extend(in_turn(groups.iter().map(|(_, puts)| puts.as_slice())));
        }
    }
    out.extend(in_turn(span.iter().map(Vec::as_slice)));
    out
}

/// The object of a kind that each of one node's places lies in: that of the first CPU of the object it was
/// mapped to; places mapped to the node as a whole take its processing elements in order.
fn objects(p: &Placement, pool: &Pool<'_>, puts: &[Put], kind: Object) -> Vec<u32> {
    let Some(node) = puts.first().and_then(|put| pool.nodes.get(put.node as usize)) else {
        return Vec::new();
    };
    let layout = &node.layout;
    let of = layout.object_of(kind);
    let firsts: Vec<u32> = match mapped_object(p) {
        Some(mapped) => layout.objects(mapped),
        None => layout.units(),
    }
    .iter()
    .filter_map(|group| group.first().copied())
    .collect();
    let place = |(put, i): (&Put, usize)| {
        let at = put.object.map_or(i, |o| o as usize);
        let first = firsts.get(at % firsts.len().max(1));
        first.and_then(|&position| of.get(position as usize)).copied().unwrap_or(0)
    };
    puts.iter().zip(0usize..).map(place).collect()
}
