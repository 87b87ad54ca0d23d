//! Published names at the launcher: one store for the job, and who waits for a name. Pure bookkeeping; where a
//! process runs the caller says.

use crate::time::{Time, earlier};
use bytes::Bytes;
use rmpi_types::{NodeIdx, ProcId};
use rmpi_wire::service::{Domain, MAX_NAME, Scope, Until};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names that may be published.
const MAX_NAMES: usize = 1 << 20;
/// Bytes of all values, at most.
const MAX_BYTES: usize = 1 << 30;
/// Lookups that may wait.
const MAX_WAITING: usize = 1 << 20;

/// A process and where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) proc: ProcId,
    pub(super) node: NodeIdx,
}

/// A name of one domain.
type Name = (Domain, Vec<u8>);

#[derive(Debug)]
struct Published {
    value: Bytes,
    owner: Who,
    scope: Scope,
    until: Until,
}

impl Published {
    fn seen_by(&self, who: Who) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Namespace => self.owner.proc.ns == who.proc.ns,
            Scope::Node => self.owner.node == who.node,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    who: Who,
    id: u64,
    name: Name,
    /// `None` waits for as long as it takes.
    until: Option<Time>,
}

/// An answer for a lookup that waited: where to, its number, the value if there is one.
pub(super) type Found = (NodeIdx, u64, Option<Bytes>);

/// The store.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeMap<Name, Published>,
    waiting: Vec<Waiting>,
    bytes: usize,
    next: Option<Time>,
}

impl Names {
    /// Publishes. `Err(None)` when the name is taken, else why it cannot be; the answers for those who waited.
    pub(super) fn publish(
        &mut self,
        name: Name,
        value: Bytes,
        owner: Who,
        scope: Scope,
        until: Until,
    ) -> Result<Vec<Found>, Option<&'static str>> {
        if self.names.contains_key(&name) {
            return Err(None);
        }
        let full = self.names.len() >= MAX_NAMES || self.bytes + value.len() > MAX_BYTES;
        if full || name.1.len() > MAX_NAME {
            return Err(Some("too many or too long names"));
        }
        self.bytes += value.len();
        self.names.insert(name.clone(), Published { value, owner, scope, until });
        let mut answers = Vec::new();
        let asked = self.waiting.extract_if(.., |w| w.name == name).collect::<Vec<_>>();
        for waiting in asked {
            match self.find(&waiting.name, waiting.who) {
                Some(value) => answers.push((waiting.who.node, waiting.id, Some(value))),
                None => self.waiting.push(waiting),
            }
        }
        Ok(answers)
    }

    /// The value of a name, for whom may see it.
    pub(super) fn find(&mut self, name: &Name, who: Who) -> Option<Bytes> {
        let found = self.names.get(name).filter(|p| p.seen_by(who))?;
        let value = found.value.clone();
        if found.until == Until::FirstRead {
            self.remove(name);
        }
        Some(value)
    }

    /// Waits for a name; false when too many wait.
    pub(super) fn wait(&mut self, now: Time, who: Who, id: u64, name: Name, wait_ms: u32) -> bool {
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        let until = (wait_ms != u32::MAX).then(|| now + Duration::from_millis(wait_ms.into()));
        self.next = earlier(self.next, until);
        self.waiting.push(Waiting { who, id, name, until });
        true
    }

    /// Takes a name back; false when there is none, or it is another's.
    pub(super) fn unpublish(&mut self, name: &Name, by: ProcId, owner_only: bool) -> bool {
        let may = self.names.get(name).is_some_and(|p| !owner_only || p.owner.proc == by);
        may && self.remove(name)
    }

    fn remove(&mut self, name: &Name) -> bool {
        let Some(old) = self.names.remove(name) else { return false };
        self.bytes = self.bytes.saturating_sub(old.value.len());
        true
    }

    /// A process ended; `last` if it was the last of its namespace.
    pub(super) fn ended(&mut self, proc: ProcId, last: bool) {
        if self.names.is_empty() && self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|w| w.who.proc != proc);
        let over = |p: &Published| match p.until {
            Until::Process => p.owner.proc == proc,
            Until::Namespace => last && p.owner.proc.ns == proc.ns,
            Until::Job | Until::FirstRead => false,
        };
        let gone: Vec<Name> = self.names.iter().filter(|(_, p)| over(p)).map(|(n, _)| n.clone()).collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Time) -> Vec<Found> {
        if self.next.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let over = self.waiting.extract_if(.., |w| w.until.is_some_and(|at| now >= at));
        let answers = over.map(|w| (w.who.node, w.id, None)).collect();
        self.next = self.waiting.iter().filter_map(|w| w.until).min();
        answers
    }

    /// When the next wait may be over.
    pub(super) fn next_timer(&self) -> Option<Time> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::Namespace;

    fn who(rank: u32) -> Who {
        Who { proc: ProcId::first(rank), node: NodeIdx(rank) }
    }

    fn name(text: &str) -> Name {
        (Domain::Pmi, text.as_bytes().to_vec())
    }

    fn publish(
        names: &mut Names,
        text: &str,
        scope: Scope,
        until: Until,
    ) -> Result<Vec<Found>, Option<&'static str>> {
        names.publish(name(text), Bytes::from_static(b"port"), who(1), scope, until)
    }

    #[test]
    fn names_are_unique_and_taken_back_once() {
        let mut names = Names::default();
        assert_eq!(publish(&mut names, "s", Scope::All, Until::Job), Ok(vec![]));
        assert_eq!(publish(&mut names, "s", Scope::All, Until::Job), Err(None));
        assert_eq!(names.find(&name("s"), who(0)), Some(Bytes::from_static(b"port")));
        assert_eq!(names.find(&(Domain::Pmix, b"s".to_vec()), who(0)), None);
        assert!(!names.unpublish(&name("s"), ProcId::first(0), true));
        assert!(names.unpublish(&name("s"), ProcId::first(0), false));
        assert!(!names.unpublish(&name("s"), ProcId::first(1), false));
        assert_eq!(names.bytes, 0);
    }

    #[test]
    fn a_lookup_waits_until_the_name_is_there_or_its_time_is_over() {
        let mut names = Names::default();
        assert!(names.wait(Time::ZERO, who(3), 7, name("s"), 100));
        assert!(names.wait(Time::ZERO, who(4), 8, name("s"), u32::MAX));
        assert_eq!(names.next_timer(), Some(Time::from_millis(100)));
        assert_eq!(names.expired(Time::from_millis(100)), [(NodeIdx(3), 7, None)]);
        assert_eq!(names.next_timer(), None);
        let found = publish(&mut names, "s", Scope::All, Until::FirstRead).unwrap();
        assert_eq!(found, [(NodeIdx(4), 8, Some(Bytes::from_static(b"port")))]);
        assert_eq!(names.find(&name("s"), who(0)), None, "read once");
    }

    #[test]
    fn scopes_and_lifetimes() {
        let mut names = Names::default();
        publish(&mut names, "node", Scope::Node, Until::Process).unwrap();
        publish(&mut names, "ns", Scope::Namespace, Until::Namespace).unwrap();
        let spawned = Who { proc: ProcId { ns: Namespace(1), ..ProcId::first(0) }, node: NodeIdx(1) };
        assert!(names.find(&name("node"), spawned).is_some() && names.find(&name("node"), who(0)).is_none());
        assert!(names.find(&name("ns"), spawned).is_none() && names.find(&name("ns"), who(0)).is_some());
        names.ended(ProcId::first(1), false);
        assert!(names.find(&name("node"), who(1)).is_none() && names.find(&name("ns"), who(1)).is_some());
        names.ended(ProcId::first(2), true);
        assert!(names.find(&name("ns"), who(1)).is_none());
    }
}
