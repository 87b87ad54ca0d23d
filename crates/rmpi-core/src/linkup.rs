//! Getting links and losing them: dialling on first use, arrivals, the tie break when two ranks dial each
//! other, and what a lost peer means for everything that waits for it.

use crate::conn::Conn;
use crate::core::{Core, Endpoint, unregister};
use crate::error::Fault;
use crate::local::Local;
use crate::matching::Body;
use crate::ops::{OpId, State};
use crate::transmit::Cause;
use rmpi_net::{Arrival, Dial, DialStep, Link};
use rmpi_shm::Peer;
use std::time::{Duration, Instant};

/// After "we share another connection": time for that one to come up before dialling again.
const REDIAL: Duration = Duration::from_secs(1);
/// Ignored retransmissions for this long mean that the host is gone.
const SILENCE: Duration = Duration::from_secs(6);
/// Time between looks at silent hosts and unwatched peers.
const TICK: Duration = Duration::from_secs(1);

impl Core {
    /// Makes sure that there is a link to `peer`, or an effort to get one.
    pub(crate) fn ensure(&mut self, peer: u32) {
        if self.conns[peer as usize].is_some() {
            return;
        }
        let Endpoint { addresses, host } = self.directory.endpoint(peer);
        let mut conn = Conn::new(peer, host.into());
        if let (Some(local), Some(rail)) = (self.local_rank_of(peer), self.rail.as_mut()) {
            conn.local = Some(Box::new(Local::new(Peer::new(&rail.segment, local))));
            rail.peers.push(peer);
            self.tell_revocations(&mut conn);
            self.conns[peer as usize] = Some(Box::new(conn));
            return;
        }
        conn.dial = Some(self.dial(peer, addresses, Instant::now()));
        self.conns[peer as usize] = Some(Box::new(conn));
        self.dialling.push(peer);
        self.poll_dial(peer, Instant::now());
    }

    /// Takes up with ranks of the node that have sent something for the first time.
    pub(crate) fn meet(&mut self, locals: &[u32]) {
        for &local in locals {
            let world = self.rail.as_ref().and_then(|r| r.segment.world_rank(local));
            let Some(peer) = world.filter(|&w| w < self.config.size && w != self.config.rank) else {
                continue;
            };
            self.ensure(peer);
        }
    }

    /// Moves handshakes on, both ways; whether a link came up or an effort ended.
    pub(crate) fn link_up(&mut self) -> bool {
        if self.acceptor.is_none() && self.dialling.is_empty() {
            return false;
        }
        let now = Instant::now();
        let arrivals = self.acceptor.as_mut().map(|a| a.poll(now)).unwrap_or_default();
        let mut busy = !arrivals.is_empty();
        arrivals.into_iter().for_each(|a| self.arrived(a));
        for peer in self.dialling.clone() {
            busy |= self.poll_dial(peer, now);
        }
        busy
    }

    fn poll_dial(&mut self, peer: u32, now: Instant) -> bool {
        let Some(conn) = &self.conns[peer as usize] else { return false };
        if !conn.lanes.dials.is_empty() {
            return self.poll_lanes(peer, now);
        }
        let again = conn.redial_at.is_some_and(|at| now >= at);
        let fresh = again.then(|| self.dial(peer, self.directory.endpoint(peer).addresses, now));
        let Some(conn) = self.conns[peer as usize].as_mut() else { return false };
        if fresh.is_some() {
            (conn.redial_at, conn.dial) = (None, fresh);
        }
        let Some(dial) = conn.dial.as_mut() else { return false };
        match dial.poll(now) {
            DialStep::Pending => false,
            DialStep::Up(link) => {
                self.up(peer, link);
                self.widen(peer);
                true
            }
            DialStep::Duplicate => {
                conn.dial = None;
                conn.redial_at = Some(now + REDIAL);
                false
            }
            DialStep::Failed(e) => {
                self.lose(peer, &e.to_string().into());
                true
            }
        }
    }

    /// Of two crossing connections the one dialled by the lower rank stays.
    fn arrived(&mut self, arrival: Arrival) {
        let (from, me) = (arrival.from, self.config.rank);
        if from >= self.config.size || from == me {
            return;
        }
        if arrival.number > 0 {
            self.lane_arrived(arrival);
            return;
        }
        let local = self.local_rank_of(from).is_some();
        let taken = match &mut self.conns[from as usize] {
            // A rank of this node has no business there.
            None => !local,
            Some(c) if c.is_up() || c.dead.is_some() => false,
            Some(c) => me > from || c.dial.as_mut().is_none_or(Dial::give_way),
        };
        if !taken {
            arrival.refuse();
            return;
        }
        if let Ok(link) = arrival.take() {
            if self.conns[from as usize].is_none() {
                let host = self.directory.endpoint(from).host;
                self.conns[from as usize] = Some(Box::new(Conn::new(from, host.into())));
            }
            self.up(from, link);
        }
    }

    fn up(&mut self, peer: u32, link: Box<dyn Link>) {
        self.dialling.retain(|&p| p != peer);
        if let Some(mut conn) = self.conns[peer as usize].take() {
            (conn.link, conn.dial, conn.redial_at) = (Some(link), None, None);
            self.tell_revocations(&mut conn);
            self.conns[peer as usize] = Some(conn);
        }
        self.heat(peer);
        self.service(peer);
    }

    /// Ends the relation with a peer: everything that waits for it fails with an error naming it.
    pub(crate) fn lose(&mut self, peer: u32, cause: &Cause) {
        let Some(conn) = self.conns[peer as usize].as_mut() else { return };
        if conn.dead.is_some() {
            return;
        }
        if conn.registered && !conn.hot {
            self.cold -= 1;
        }
        unregister(&self.epoll, conn);
        if let (Some(mut local), Some(rail)) = (conn.local.take(), self.rail.as_mut()) {
            local.peer.abandon(&mut rail.pool);
            rail.peers.retain(|&p| p != peer);
        }
        let fault = Fault::PeerLost { rank: peer, host: conn.host.clone(), cause: cause.clone() };
        let finished = conn.bye;
        (conn.link, conn.dial, conn.redial_at, conn.hot) = (None, None, None, false);
        conn.lanes = crate::lanes::Lanes::default();
        conn.dead = Some(fault.clone());
        conn.tx = crate::conn::Tx::default();
        conn.rx = crate::conn::Rx::default();
        self.hot.retain(|&p| p != peer);
        self.dialling.retain(|&p| p != peer);
        // What came whole can still be received; the rest cannot.
        let broken = self.matcher.select(|m| {
            m.envelope.source == peer
                && match &m.body {
                    Body::Eager { bytes, got, .. } => *got < bytes.len(),
                    Body::Rts { .. } => true,
                    Body::Local(_) => false,
                }
        });
        broken.into_iter().for_each(|age| drop(self.matcher.forget(age)));
        let concerns = |op: &crate::ops::Op| match (&op.state, op.peer) {
            (State::Done | State::Running, _) => false,
            (_, Some(p)) => p == peer,
            // A receive from anybody hears of a death once; posted again it waits for the others.
            (_, None) => !finished && op.group.as_ref().is_none_or(|g| g.contains(&peer)),
        };
        let ids: Vec<OpId> = self.ops.iter().filter(|(_, op)| concerns(op)).map(|(id, _)| id).collect();
        for id in ids {
            if let Some(op) = self.ops.get(id)
                && matches!(op.state, State::RecvPosted)
            {
                let (context, source) = (op.context, op.peer);
                self.matcher.withdraw(id, context, source);
            }
            self.complete(id, Err(fault.clone()));
        }
        self.completions += 1;
    }

    /// What is done about once a second while waiting: ask the kernel about silent hosts, and connect to peers
    /// that a receive waits for, so that their death shows.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        if now - self.ticked < TICK {
            return;
        }
        self.ticked = now;
        self.bury(true);
        let silent = |c: &Conn| c.links().filter_map(|l| l.silence()).max().filter(|s| *s >= SILENCE);
        let lost: Vec<(u32, Duration)> =
            self.conns.iter().flatten().filter_map(|c| silent(c).map(|s| (c.peer, s))).collect();
        for (peer, silence) in lost {
            self.lose(peer, &format!("its host has not answered for {} s", silence.as_secs()).into());
        }
        let waits = |op: &crate::ops::Op| matches!(op.state, State::RecvPosted).then_some(op.peer).flatten();
        let awaited: Vec<u32> = self.ops.iter().filter_map(|(_, op)| waits(op)).collect();
        for peer in awaited {
            if peer != self.config.rank {
                self.ensure(peer);
            }
        }
    }
}
