//! Matching by (context, source, tag) with wildcards, in MPI's order. Pure: ids in, ids out.
//!
//! Posted receives are kept in a queue per (context, source) and one per context for any-source, ordered
//! against each other by a running number; unexpected messages in a queue per (context, source) with an index
//! by age per context. An exact match is O(1) when tags are used in order.

use crate::ops::OpId;
use rmpi_shm::Offer;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A multiplying hasher for the small integer keys here, which only members of the job choose.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u32(u32::from(b)));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// What is known of a message that nobody has received yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender, a rank of the world.
    pub source: u32,
    /// Its tag.
    pub tag: i32,
    /// Its check word.
    pub check: u16,
    /// Its bytes.
    pub length: u64,
}

/// Where an unexpected message's bytes are.
pub(crate) enum Body {
    /// Here, `got` of them so far; a receive may have claimed it before all came.
    Eager { bytes: Vec<u8>, got: usize, claimed: Option<OpId> },
    /// With the sender, whose operation this is; and where, if it may be copied from there.
    Rts { sender: u64, offer: Option<Offer> },
    /// In this process: a send to itself.
    Local(OpId),
}

pub(crate) struct Unexpected {
    pub(crate) context: u32,
    pub(crate) envelope: Envelope,
    pub(crate) body: Body,
}

#[derive(Clone, Copy)]
struct Posted {
    number: u64,
    op: OpId,
    tag: Option<i32>,
}

type PostedAny = (Posted, Option<Arc<[u32]>>);

/// Names an unexpected message: its age.
pub(crate) type Age = u64;

/// Receives posted to one source each. Messages in a row mostly have one source, so its queue is found without a
/// look into the table.
#[derive(Default)]
struct Exact {
    places: Map<(u32, u32), usize>,
    queues: Vec<VecDeque<Posted>>,
    /// The source asked for last, and its queue.
    last: Option<((u32, u32), usize)>,
}

impl Exact {
    /// The queue of a context and source, if there ever was one.
    #[inline]
    fn get(&mut self, key: (u32, u32)) -> Option<&mut VecDeque<Posted>> {
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => {
                let at = *self.places.get(&key)?;
                self.last = Some((key, at));
                at
            }
        };
        self.queues.get_mut(at)
    }

    /// The same; made if there was none.
    #[inline]
    fn queue(&mut self, key: (u32, u32)) -> &mut VecDeque<Posted> {
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => self.find_or_make(key),
        };
        &mut self.queues[at]
    }

    fn find_or_make(&mut self, key: (u32, u32)) -> usize {
        let queues = &mut self.queues;
        let at = *self.places.entry(key).or_insert_with(|| {
            queues.push(VecDeque::new());
            queues.len() - 1
        });
        self.last = Some((key, at));
        at
    }
}

#[derive(Default)]
pub(crate) struct Matcher {
    clock: u64,
    exact: Exact,
    any: Map<u32, VecDeque<PostedAny>>,
    by_source: Map<(u32, u32), VecDeque<(Age, i32)>>,
    by_age: Map<u32, BTreeMap<Age, (u32, i32)>>,
    messages: HashMap<Age, Unexpected>,
    /// Receives in `exact` and `any`, and in `any` alone.
    posted: usize,
    posted_any: usize,
}

fn member(group: Option<&Arc<[u32]>>, source: u32) -> bool {
    group.is_none_or(|g| g.contains(&source))
}

impl Matcher {
    /// Whether nothing is posted and nothing unexpected is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.posted == 0 && self.messages.is_empty()
    }

    /// Posts a receive that nothing unexpected matches.
    pub(crate) fn post(
        &mut self,
        op: OpId,
        context: u32,
        source: Option<u32>,
        group: Option<Arc<[u32]>>,
        tag: Option<i32>,
    ) {
        self.clock += 1;
        self.posted += 1;
        let posted = Posted { number: self.clock, op, tag };
        match source {
            Some(s) => self.exact.queue((context, s)).push_back(posted),
            None => {
                self.posted_any += 1;
                self.any.entry(context).or_default().push_back((posted, group));
            }
        }
    }

    /// Posts receives alike from one source, that nothing unexpected matches.
    pub(crate) fn post_all(&mut self, ops: &[OpId], context: u32, source: u32, tag: Option<i32>) {
        let queue = self.exact.queue((context, source));
        queue.reserve(ops.len());
        for &op in ops {
            self.clock += 1;
            queue.push_back(Posted { number: self.clock, op, tag });
        }
        self.posted += ops.len();
    }

    /// Takes the posted receive that a message from `source` with `tag` matches.
    #[inline]
    pub(crate) fn arrive(&mut self, context: u32, source: u32, tag: i32) -> Option<OpId> {
        if self.posted == 0 {
            return None;
        }
        // The usual case: nobody receives from any source, and the oldest receive is the one.
        if self.posted_any == 0 {
            let queue = self.exact.get((context, source))?;
            let front = queue.front()?;
            if front.tag.is_none_or(|t| t == tag) {
                let op = front.op;
                queue.pop_front();
                self.posted -= 1;
                return Some(op);
            }
        }
        self.search(context, source, tag)
    }

    /// Offers a message to the receive that has waited longest, if it is the one and posted to this source; whether
    /// it was taken. `false` says nothing about other receives.
    #[inline]
    pub(crate) fn arrive_if(
        &mut self,
        context: u32,
        source: u32,
        tag: i32,
        takes: impl FnOnce(OpId) -> bool,
    ) -> bool {
        if self.posted == 0 || self.posted_any > 0 {
            return false;
        }
        let Some(queue) = self.exact.get((context, source)) else { return false };
        let taken = queue.front().is_some_and(|p| p.tag.is_none_or(|t| t == tag) && takes(p.op));
        if taken {
            queue.pop_front();
            self.posted -= 1;
        }
        taken
    }

    #[inline(never)]
    fn search(&mut self, context: u32, source: u32, tag: i32) -> Option<OpId> {
        let fits = |p: &Posted| p.tag.is_none_or(|t| t == tag);
        let exact = self.exact.get((context, source));
        let at_exact = exact.as_ref().and_then(|q| {
            let i = q.iter().position(fits)?;
            Some((i, q[i].number))
        });
        let any = if self.posted_any == 0 { None } else { self.any.get_mut(&context) };
        let at_any = any.as_ref().and_then(|q| {
            let i = q.iter().position(|(p, g)| fits(p) && member(g.as_ref(), source))?;
            Some((i, q[i].0.number))
        });
        let found = match (at_exact, at_any) {
            (Some((0, n)), other) if other.is_none_or(|(_, m)| n < m) => exact?.pop_front().map(|p| p.op),
            (Some((i, n)), other) if other.is_none_or(|(_, m)| n < m) => exact?.remove(i).map(|p| p.op),
            (_, Some((i, _))) => {
                self.posted_any -= 1;
                any?.remove(i).map(|(p, _)| p.op)
            }
            _ => None,
        };
        self.posted -= usize::from(found.is_some());
        found
    }

    /// Takes a posted receive out again; whether it was there.
    pub(crate) fn withdraw(&mut self, op: OpId, context: u32, source: Option<u32>) -> bool {
        let found = match source {
            Some(s) => self.exact.get((context, s)).and_then(|q| {
                let i = q.iter().position(|p| p.op == op)?;
                q.remove(i).map(drop)
            }),
            None => self.any.get_mut(&context).and_then(|q| {
                let i = q.iter().position(|(p, _)| p.op == op)?;
                q.remove(i).map(drop)
            }),
        };
        self.posted -= usize::from(found.is_some());
        self.posted_any -= usize::from(found.is_some() && source.is_none());
        found.is_some()
    }

    /// Files a message that matched nothing.
    pub(crate) fn store(&mut self, message: Unexpected) -> Age {
        self.clock += 1;
        let (age, context, e) = (self.clock, message.context, message.envelope);
        self.by_source.entry((context, e.source)).or_default().push_back((age, e.tag));
        self.by_age.entry(context).or_default().insert(age, (e.source, e.tag));
        self.messages.insert(age, message);
        age
    }

    /// The oldest unexpected message that a receive would match.
    pub(crate) fn find(
        &self,
        context: u32,
        source: Option<u32>,
        group: Option<&Arc<[u32]>>,
        tag: Option<i32>,
    ) -> Option<Age> {
        if self.messages.is_empty() {
            return None;
        }
        let fits = |t: i32| tag.is_none_or(|want| want == t);
        match source {
            Some(s) => self.by_source.get(&(context, s))?.iter().find(|(_, t)| fits(*t)).map(|(age, _)| *age),
            None => self
                .by_age
                .get(&context)?
                .iter()
                .find(|(_, (s, t))| fits(*t) && member(group, *s))
                .map(|(age, _)| *age),
        }
    }

    /// Makes a message unmatchable; it stays in the table until [`Matcher::forget`].
    pub(crate) fn unfile(&mut self, age: Age) {
        let Some(m) = self.messages.get(&age) else { return };
        let (context, source) = (m.context, m.envelope.source);
        if let Some(q) = self.by_source.get_mut(&(context, source))
            && let Some(i) = q.iter().position(|(a, _)| *a == age)
        {
            q.remove(i);
        }
        if let Some(index) = self.by_age.get_mut(&context) {
            index.remove(&age);
        }
    }

    pub(crate) fn get(&self, age: Age) -> Option<&Unexpected> {
        self.messages.get(&age)
    }

    pub(crate) fn get_mut(&mut self, age: Age) -> Option<&mut Unexpected> {
        self.messages.get_mut(&age)
    }

    /// Takes a message out altogether.
    pub(crate) fn forget(&mut self, age: Age) -> Option<Unexpected> {
        self.unfile(age);
        self.messages.remove(&age)
    }

    /// Ages of the messages that `which` holds for.
    pub(crate) fn select(&self, which: impl Fn(&Unexpected) -> bool) -> Vec<Age> {
        self.messages.iter().filter(|(_, m)| which(m)).map(|(age, _)| *age).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(source: u32, tag: i32, id: u64) -> Unexpected {
        let envelope = Envelope { source, tag, check: 0, length: id };
        Unexpected { context: 0, envelope, body: Body::Rts { sender: id, offer: None } }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Post(Option<u32>, Option<i32>),
        Arrive(u32, i32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let post = (proptest::option::of(0u32..3), proptest::option::of(0i32..3));
        let one = prop_oneof![
            post.prop_map(|(s, t)| Step::Post(s, t)),
            (0u32..3, 0i32..3).prop_map(|(s, t)| Step::Arrive(s, t)),
        ];
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        /// The queues do what one list of each kind, searched from the front, does.
        #[test]
        fn agrees_with_two_plain_lists(steps in steps()) {
            let mut m = Matcher::default();
            let mut posted: Vec<(u64, Option<u32>, Option<i32>)> = Vec::new();
            let mut unexpected: Vec<(u64, u32, i32)> = Vec::new();
            for (id, step) in (0u64..).zip(steps) {
                match step {
                    Step::Post(s, t) => {
                        let want = unexpected.iter().position(|&(_, us, ut)| {
                            s.is_none_or(|s| s == us) && t.is_none_or(|t| t == ut)
                        }).map(|i| unexpected.remove(i).0);
                        let got = m.find(0, s, None, t).map(|age| m.forget(age).unwrap().envelope.length);
                        prop_assert_eq!(got, want);
                        if got.is_none() {
                            posted.push((id, s, t));
                            m.post(OpId::from_raw(id), 0, s, None, t);
                        }
                    }
                    Step::Arrive(s, t) => {
                        let want = posted.iter().position(|&(_, ps, pt)| {
                            ps.is_none_or(|p| p == s) && pt.is_none_or(|p| p == t)
                        }).map(|i| posted.remove(i).0);
                        let mut taken = None;
                        let at_once = m.arrive_if(0, s, t, |op| {
                            taken = Some(op).filter(|_| s + 1 != t.unsigned_abs());
                            taken.is_some()
                        });
                        let got = if at_once { taken } else { m.arrive(0, s, t) }.map(OpId::raw);
                        prop_assert_eq!(got, want);
                        if got.is_none() {
                            unexpected.push((id, s, t));
                            m.store(message(s, t, id));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn groups_and_withdrawal() {
        let mut m = Matcher::default();
        let op = OpId::from_raw(1);
        m.post(op, 0, None, Some(Arc::from([2, 3])), None);
        assert_eq!(m.arrive(0, 1, 0), None, "rank 1 is not of the group");
        assert_eq!(m.arrive(1, 2, 0), None, "another context");
        assert!(m.withdraw(op, 0, None));
        assert!(!m.withdraw(op, 0, None));
        assert_eq!(m.arrive(0, 2, 0), None);
    }
}
