//! Ending in good order: everything submitted is handed over and acknowledged before a link closes.

use crate::core::Core;
use crate::engine::Engine;
use crate::header::{Header, Kind};
use crate::ops::{Op, State};
use std::time::{Duration, Instant};

/// How long a look at acknowledgements, which no event announces, may be put off.
const LOOK: Duration = Duration::from_millis(1);

impl Engine {
    /// Sends what is queued, says goodbye to every peer, waits until their hosts have all of it, and closes
    /// the links. Whether all of that was possible within `limit`; lost peers do not count.
    pub fn finish(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let flushed = self.block_until(deadline, |core| core.queues_empty().then_some(())).is_some();
        self.with(|core| {
            for conn in core.conns.iter_mut().flatten().filter(|c| c.is_up()) {
                conn.control(&Header::bare(Kind::Bye));
            }
            core.heat_all();
        });
        let said = self.block_until(deadline, |core| core.queues_empty().then_some(())).is_some();
        self.with(|core| {
            core.conns.iter_mut().flatten().filter_map(|c| c.link.as_mut()).for_each(|l| l.finish());
        });
        let done = loop {
            let pending = self.with(|core| {
                core.progress_all();
                // Further connections close after the first one's goodbye has arrived, so that it is heard first.
                core.conns.iter().flatten().flat_map(|c| c.links()).any(|l| l.unacknowledged() > 0)
            });
            if !pending {
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
            self.park_for(LOOK);
        };
        self.with(|core| {
            let peers: Vec<u32> = core.conns.iter().flatten().map(|c| c.peer).collect();
            peers.into_iter().for_each(|p| core.lose(p, &"this rank has finished".into()));
            core.rail.iter().for_each(|r| r.bells.finish());
        });
        flushed && said && done
    }
}

impl Core {
    /// Whether nothing is left to send, announced messages included.
    fn queues_empty(&self) -> bool {
        let sending = |op: &Op| {
            matches!(op.state, State::SendQueued | State::SendWaiting { .. } | State::SendStreaming { .. })
                && op.peer != Some(self.config.rank)
        };
        if self.ops.iter().any(|(_, op)| sending(op)) {
            return false;
        }
        self.conns.iter().flatten().all(|c| c.nothing_queued() || c.dead.is_some())
    }

    fn heat_all(&mut self) {
        let peers: Vec<u32> = self.conns.iter().flatten().map(|c| c.peer).collect();
        peers.into_iter().for_each(|p| self.heat(p));
    }
}
