//! Giving up a context: a rank that cannot go on with the operations of a context tells the others, so that
//! none waits for it. Tags of such a context are used in ascending order (modulo 2^31); operations before the
//! one that failed are not concerned.

use crate::core::Core;
use crate::error::Fault;
use crate::header::{Header, Kind};
use crate::ops::{Op, OpId, State};

/// Whether `tag` is `first` or comes after it, on the circle of 2^31 tags.
fn concerned(tag: i32, first: i32) -> bool {
    (tag.wrapping_sub(first) & i32::MAX) < 1 << 30
}

impl Core {
    /// Why operations of `context` with `tag` (`None`: any) are given up, if they are.
    pub(crate) fn revocation(&self, context: u32, tag: Option<i32>) -> Option<Fault> {
        if self.revoked.is_empty() {
            return None;
        }
        let (first, fault) = self.revoked.get(&context)?;
        tag.is_none_or(|t| concerned(t, *first)).then(|| fault.clone())
    }

    /// Gives up `context` from tag `first` on, blaming `culprit`: fails its operations here and tells `peers`
    /// (ranks of the world). Repeated calls do nothing.
    pub fn revoke(&mut self, context: u32, first: i32, culprit: u32, peers: &[u32]) {
        let (by, size) = (self.config.rank, self.config.size);
        if self.revocation(context, Some(first)).is_some() {
            return;
        }
        self.fail_context(context, first, &Fault::Revoked { by, culprit });
        for &peer in peers.iter().filter(|&&p| p != by && p < size) {
            self.ensure(peer);
            if let Some(conn) = self.conns[peer as usize].as_mut().filter(|c| c.dead.is_none()) {
                let id = u64::from(culprit);
                conn.control(&Header { context, tag: first, id, ..Header::bare(Kind::Revoke) });
                self.heat(peer);
                self.service(peer);
            }
        }
    }

    pub(crate) fn fail_context(&mut self, context: u32, first: i32, fault: &Fault) {
        let waiting = |op: &Op| {
            let idle = matches!(op.state, State::RecvPosted | State::SendWaiting);
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
