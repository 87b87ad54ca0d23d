//! Giving up a context: a rank that cannot go on with the operations of a context tells the others, so that
//! none waits for it. Tags of such a context are used in ascending order (modulo 2^31); operations before the
//! one that failed are not concerned.

use crate::conn::Conn;
use crate::core::Core;
use crate::error::Fault;
use crate::header::{Header, Kind};
use crate::ops::{Op, OpId, State};
use std::sync::Arc;

/// Whether `tag` is `first` or comes after it, on the circle of 2^31 tags.
fn concerned(tag: i32, first: i32) -> bool {
    (tag.wrapping_sub(first) & i32::MAX) < 1 << 30
}

/// Groups up to this size are told over new links, too.
const SMALL_GROUP: usize = 64;

fn tell(conn: &mut Conn, context: u32, first: i32, culprit: u32) {
    let id = u64::from(culprit);
    conn.control(&Header { context, tag: first, id, ..Header::bare(Kind::Revoke) });
}

impl Core {
    /// Why operations of `context` with `tag` (`None`: any) are given up, if they are.
    #[must_use]
    pub fn revocation(&self, context: u32, tag: Option<i32>) -> Option<Fault> {
        if self.revoked.is_empty() {
            return None;
        }
        let (first, fault) = self.revoked.get(&context)?;
        tag.is_none_or(|t| concerned(t, *first)).then(|| fault.clone())
    }

    /// Gives up `context` from tag `first` on, blaming `culprit`: fails its operations here and tells the other
    /// members of `group` (ranks of the world). Who hears of it from another and calls this passes the news
    /// on, so that nobody sees a peer leave before it knows why. In a large group only those with a link are
    /// told at once, the others when a link comes up.
    pub fn revoke(&mut self, context: u32, first: i32, culprit: u32, group: &Arc<[u32]>) {
        let (by, size) = (self.config.rank, self.config.size);
        if self.announced.contains_key(&context) {
            return;
        }
        self.announced.insert(context, (first, culprit, group.clone()));
        if self.revocation(context, Some(first)).is_none() {
            self.fail_context(context, first, &Fault::Revoked { by, culprit });
        }
        for &peer in group.iter().filter(|&&p| p != by && p < size) {
            if group.len() <= SMALL_GROUP {
                self.ensure(peer);
            }
            let live = |c: &&mut Box<Conn>| c.dead.is_none() && (c.is_up() || c.dial.is_some());
            if let Some(conn) = self.conns[peer as usize].as_mut().filter(live) {
                tell(conn, context, first, culprit);
                self.heat(peer);
                self.service(peer);
            }
        }
    }

    /// Tells a peer whose link has just come up what this rank has given up.
    pub(crate) fn tell_revocations(&self, conn: &mut Conn) {
        for (&context, (first, culprit, group)) in &self.announced {
            if group.contains(&conn.peer) {
                tell(conn, context, *first, *culprit);
            }
        }
    }

    pub(crate) fn fail_context(&mut self, context: u32, first: i32, fault: &Fault) {
        let waiting = |op: &Op| {
            let idle = matches!(op.state, State::RecvPosted | State::SendWaiting { .. });
            let granted = matches!(op.state, State::RecvData { eager: false, .. });
            op.context == context && concerned(op.tag, first) && (idle || granted)
        };
        let ids: Vec<OpId> = self.ops.iter().filter(|(_, op)| waiting(op)).map(|(id, _)| id).collect();
        for id in ids {
            let source = self.ops.get(id).and_then(|o| o.peer);
            self.matcher.withdraw(id, context, source);
            self.complete(id, Err(fault.clone()));
        }
        let earlier = self.revoked.get(&context).is_none_or(|(f, _)| concerned(*f, first));
        if earlier {
            self.revoked.insert(context, (first, fault.clone()));
        }
        self.completions += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::concerned;

    #[test]
    fn tags_are_ordered_on_a_circle() {
        for (tag, first, want) in
            [(5, 5, true), (6, 5, true), (4, 5, false), (0, i32::MAX, true), (i32::MAX, 0, false)]
        {
            assert_eq!(concerned(tag, first), want, "{tag} {first}");
        }
    }
}
