//! What ranks have put: of ranks on this node, for each audience; of ranks elsewhere, what fences and questions
//! brought. Everything is kept packed, item by item, so that it is packed once and sent many times.

use crate::pmix::codec::{Codec, Kval, Reader, Text, Writer};
use crate::pmix::keys;
use crate::pmix::request::Put;
use bytes::{BufMut, Bytes, BytesMut};
use rmpi_types::{Epoch, Namespace, ProcId, Rank};
use std::collections::{BTreeMap, HashMap};

/// Bytes of keys and values that one node holds, at most.
const MAX_BYTES: usize = 1 << 30;

/// Keys and values of one process for one audience, as items KVAL in [`Codec::PLAIN`].
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    items: BTreeMap<Text, Bytes>,
}

impl Table {
    /// The bytes that came and went.
    fn put(&mut self, key: &Text, item: Bytes) -> (usize, usize) {
        let new = item.len();
        let old = self.items.insert(key.clone(), item);
        (new, old.map_or(0, |o| o.len()))
    }

    /// All items in a row.
    fn packed(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.items.values().map(Bytes::len).sum());
        self.items.values().for_each(|item| out.extend_from_slice(item));
        out.freeze()
    }
}

/// What is known of one local rank.
#[derive(Debug, Default)]
struct Local {
    near: Table,
    far: Table,
}

/// All tables of a node.
#[derive(Debug, Default)]
pub(super) struct Store {
    local: HashMap<ProcId, Local>,
    remote: HashMap<ProcId, Bytes>,
    bytes: usize,
}

/// Why something is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The node holds too much.
    Full,
    /// The type of a value is one that clients of other forms could not read.
    Type,
}

impl Store {
    /// Takes over what a local rank commits.
    pub(super) fn commit(&mut self, proc: ProcId, puts: &[Put]) -> Result<(), Refused> {
        let local = self.local.entry(proc).or_default();
        for put in puts {
            let (near, far) = match put.scope {
                keys::SCOPE_LOCAL => (true, false),
                keys::SCOPE_REMOTE => (false, true),
                keys::SCOPE_GLOBAL => (true, true),
                _ => (false, false),
            };
            for kval in &put.values {
                let mut w = Writer::new(Codec::PLAIN);
                if w.kval(&kval.key, &kval.value).bytes().is_empty() {
                    return Err(Refused::Type);
                }
                let item = w.finish();
                let tables = [(near, &mut local.near), (far, &mut local.far)];
                for (_, table) in tables.into_iter().filter(|(for_it, _)| *for_it) {
                    let (new, old) = table.put(&kval.key, item.clone());
                    self.bytes = (self.bytes + new).saturating_sub(old);
                }
                if self.bytes > MAX_BYTES {
                    return Err(Refused::Full);
                }
            }
        }
        Ok(())
    }

    /// What ranks elsewhere may know of a local rank; `None` before its first commit.
    pub(super) fn far(&self, proc: ProcId) -> Option<Bytes> {
        self.local.get(&proc).map(|l| l.far.packed())
    }

    /// Whether a local rank has put a key for ranks elsewhere; any if there is no key.
    pub(super) fn far_has(&self, proc: ProcId, key: Option<&Text>) -> bool {
        let local = self.local.get(&proc);
        local.is_some_and(|l| key.is_none_or(|k| l.far.items.contains_key(k)))
    }

    /// What is here of a process for readers on this node.
    pub(super) fn near(&self, proc: ProcId, local: bool) -> Option<Bytes> {
        match local {
            true => self.local.get(&proc).map(|l| l.near.packed()),
            false => self.remote.get(&proc).cloned(),
        }
    }

    /// Whether a key of a process is here for readers on this node.
    pub(super) fn near_has(&self, proc: ProcId, local: bool, key: &Text) -> bool {
        match local {
            true => self.local.get(&proc).is_some_and(|l| l.near.items.contains_key(key)),
            false => self.remote.get(&proc).is_some_and(|items| find(items, key).is_some()),
        }
    }

    /// One item of a process for readers on this node.
    pub(super) fn item(&self, proc: ProcId, local: bool, key: &Text) -> Option<Bytes> {
        match local {
            true => self.local.get(&proc)?.near.items.get(key).cloned(),
            false => {
                let mut w = Writer::new(Codec::PLAIN);
                w.items(&[find(self.remote.get(&proc)?, key)?]);
                Some(w.finish())
            }
        }
    }

    /// Takes over all there is of a process elsewhere.
    pub(super) fn learn(&mut self, proc: ProcId, items: Bytes) {
        let new = items.len();
        if self.bytes + new <= MAX_BYTES {
            let old = self.remote.insert(proc, items).map_or(0, |o| o.len());
            self.bytes = (self.bytes + new).saturating_sub(old);
        }
    }
}

/// The value of a key among items.
fn find(items: &Bytes, key: &Text) -> Option<Kval> {
    let mut r = Reader::new(Codec::PLAIN, items.clone());
    while !r.is_empty() {
        let kvals = r.items::<Kval>().ok()?;
        if let Some(found) = kvals.into_iter().find(|k| k.key == *key) {
            return Some(found);
        }
    }
    None
}

/// Items packed in [`Codec::PLAIN`] as a client of another form takes them; what it could not read is left out.
pub(super) fn transcode(items: &Bytes, codec: Codec) -> Bytes {
    if codec == Codec::PLAIN {
        return items.clone();
    }
    let mut r = Reader::new(Codec::PLAIN, items.clone());
    let mut w = Writer::new(codec);
    while !r.is_empty() {
        let Ok(kvals) = r.items::<Kval>() else { break };
        for Kval { key, value } in &kvals {
            w.kval(key, value);
        }
    }
    w.finish()
}

/// What one member brings to a gather, so that what all bring can be told apart: namespace, epoch, rank and
/// length, each a little-endian `u32`, then the data.
pub(super) fn member(proc: ProcId, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + data.len());
    for n in [proc.ns.0, proc.epoch.0, proc.rank.0, u32::try_from(data.len()).unwrap_or(0)] {
        out.put_u32_le(n);
    }
    out.extend_from_slice(data);
    out.freeze()
}

/// The members of a gather with what each brought; ends where it is malformed.
pub(super) fn members(mut data: Bytes) -> impl Iterator<Item = (ProcId, Bytes)> {
    std::iter::from_fn(move || {
        let head = *data.first_chunk::<16>()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = word(12) as usize;
        if data.len() < 16 + length {
            return None;
        }
        let mut whole = data.split_to(16 + length);
        let proc = ProcId { ns: Namespace(word(0)), epoch: Epoch(word(4)), rank: Rank(word(8)) };
        Some((proc, whole.split_off(16)))
    })
}
