//! The launcher's links: which node is behind which, who is silent, what a loss means. A daemon that breaks
//! the protocol is lost, with a text; one that speaks after it was lost is not heard.

use super::nodes::{LinkEntry, NodePhase, signed};
use super::{JobAction, JobEventOut, JobMachine, Phase, just};
use crate::link::{Incoming, Link, LinkId, LinkKind, clip, deserted, silence};
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::{LaunchFault, NodeIdx, ProcId, Rank, RankSet, Stage};
use rmpi_wire::frame::{Kind, UNNAMED};
use rmpi_wire::msg::Pulse;
use rmpi_wire::service::Answer;
use rmpi_wire::{Dest, Down, Frame, LinkMsg, Message, Origin};
use tracing::info;

/// Bytes of a text about a loss, at most.
const MAX_TEXT: usize = 2000;

impl JobMachine {
    /// What daemons are told to beat like: both ends of a link must agree on what silence means.
    fn pulse(&self) -> Pulse {
        let ms = |d: std::time::Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        Pulse { period_ms: ms(self.policy.limits.heartbeat), lost_ms: ms(self.policy.limits.lost) }
    }

    pub(super) fn link_up(
        &mut self,
        now: Time,
        id: LinkId,
        node: NodeIdx,
        kind: LinkKind,
        out: &mut Vec<JobAction>,
    ) {
        let pulse = self.pulse();
        if let Some(entry) = self.links.get_mut(&id) {
            if entry.node == node {
                // Its name may have been lost with the stream: link-local words are not kept.
                let named = entry.link.local(LinkMsg::YouAre { node, pulse });
                let again = entry.link.resumed(now).into_iter().flat_map(|resume| [named.clone(), resume]);
                out.extend(again.map(|frame| JobAction::Send { link: id, frame }));
            }
            return;
        }
        let expected = self.node(node).is_some_and(|n| n.phase == NodePhase::Reaching && n.parent.is_none());
        let link = Link::new(kind, Origin::Launcher, now);
        if !expected {
            return give_up(id, &link, "a host that was not waited for", out);
        }
        let nodes = self.subtree(node);
        for below in nodes.iter() {
            if let Some(n) = self.node(NodeIdx(below.0)) {
                n.link = Some(id);
            }
        }
        if let Some(n) = self.node(node) {
            n.phase = NodePhase::Linked;
        }
        out.push(JobAction::Send { link: id, frame: link.local(LinkMsg::YouAre { node, pulse }) });
        self.next_silence = self.next_silence.min(now + self.policy.limits.lost);
        self.links.insert(id, LinkEntry { link, node, nodes, used: RankSet::default() });
    }

    /// A node and all below it. Linear in the number of hosts only for nodes that relay at all.
    pub(super) fn subtree(&self, root: NodeIdx) -> RankSet {
        let mut set = just(root);
        if !self.has_tree() {
            return set;
        }
        for (i, node) in (0u32..).zip(&self.nodes).skip(root.0 as usize + 1) {
            if node.parent.is_some_and(|p| set.contains(Rank(p.0))) {
                set.insert(Rank(i));
            }
        }
        set
    }

    pub(super) fn has_tree(&self) -> bool {
        // A tree's last host always has a parent, as parents come first.
        self.nodes.last().is_some_and(|n| n.parent.is_some())
    }

    pub(super) fn link_eof(&mut self, now: Time, id: LinkId, what: &str, out: &mut Vec<JobAction>) {
        if let Some(entry) = self.links.get_mut(&id)
            && entry.link.eof()
        {
            self.lose_link(now, id, what, out);
        }
    }

    pub(super) fn frame(&mut self, now: Time, id: LinkId, frame: Frame, out: &mut Vec<JobAction>) {
        let Some(entry) = self.links.get_mut(&id) else { return };
        let mut answers = Vec::new();
        let received = entry.link.receive(now, &frame, &mut answers);
        out.extend(answers.into_iter().map(|frame| JobAction::Send { link: id, frame }));
        let handled = match received {
            Err(what) => Err(what),
            Ok(Incoming::Handled | Incoming::Local(LinkMsg::Heartbeat { .. } | LinkMsg::Resume { .. })) => {
                Ok(())
            }
            Ok(Incoming::Local(LinkMsg::GivenUp { why })) => {
                self.lose_link(now, id, &deserted(&why), out);
                Ok(())
            }
            Ok(Incoming::Local(LinkMsg::YouAre { .. })) => Err("commands the launcher".into()),
            Ok(Incoming::Numbered) => self.numbered(now, id, frame, out),
        };
        if let Err(what) = handled {
            self.lose_link(now, id, &format!("protocol violation: {what}"), out);
        }
    }

    /// A daemon's message. An error is the fault of the link's owner; that of a node below it is dealt with
    /// here.
    fn numbered(
        &mut self,
        now: Time,
        id: LinkId,
        frame: Frame,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let Some(entry) = self.links.get(&id) else { return Ok(()) };
        let node = match frame.origin {
            Origin::Node(UNNAMED) => entry.node,
            Origin::Node(node) => node,
            Origin::Launcher => return Err("speaks as the launcher".into()),
        };
        if !entry.nodes.contains(Rank(node.0)) {
            return Err(format!("speaks as node {node}, which is elsewhere"));
        }
        if frame.kind != Kind::Up || frame.dest != Dest::Launcher {
            return Err("message that is not for the launcher".into());
        }
        if self.node(node).is_none_or(|n| n.is_out()) {
            return Ok(());
        }
        let handled = match Message::of(&frame) {
            Ok(Message::Up(msg)) => self.up(now, node, msg, frame.payload, out),
            Ok(Message::Down(_) | Message::Link(_)) => Err("message of another kind than its frame".into()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(what) = handled {
            let what = format!("protocol violation: {what}");
            match self.links.get(&id) {
                Some(entry) if entry.node == node => self.lose_link(now, id, &what, out),
                // It is alive below a relay: it must be told to end what runs there.
                Some(_) => {
                    self.tell(node, Down::Finish, Bytes::new(), out);
                    self.lose_subtree(now, node, &what, out);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Heartbeats to all links, and who has been silent too long.
    pub(super) fn watch_links(&mut self, now: Time, out: &mut Vec<JobAction>) {
        let (period, limit) = (self.policy.limits.heartbeat, self.policy.limits.lost);
        if now < self.next_beat && now < self.next_silence {
            return;
        }
        // A tick that comes this late means that we were asleep (stopped by the user, suspended machine):
        // what was sent to us meanwhile has not been read yet, so nobody may be called silent.
        if now >= self.next_beat + 2 * period {
            self.links.values_mut().for_each(|e| e.link.forgive(now));
        }
        let silent: Vec<LinkId> =
            self.links.iter().filter_map(|(id, e)| e.link.silent(now, limit).then_some(*id)).collect();
        for id in silent {
            self.lose_link(now, id, &silence(limit), out);
        }
        if now >= self.next_beat {
            self.next_beat = now + period;
            for (link, entry) in self.links.iter_mut().filter(|(_, e)| e.link.open()) {
                out.push(JobAction::Send { link: *link, frame: entry.link.heartbeat() });
            }
        }
        let first = self.links.values().map(|e| e.link.heard() + limit).min();
        self.next_silence = first.unwrap_or(now + limit);
    }

    /// A link and everything behind it is lost.
    fn lose_link(&mut self, now: Time, id: LinkId, what: &str, out: &mut Vec<JobAction>) {
        let Some(entry) = self.links.remove(&id) else { return };
        let what = clip(what.to_owned(), MAX_TEXT);
        give_up(id, &entry.link, &what, out);
        let heard = entry.link.heard();
        self.lose_node(now, heard, entry.node, &what, out);
        let below = format!("reached through {}, which was lost: {what}", self.name(entry.node));
        for node in entry.nodes.iter().filter(|n| n.0 != entry.node.0) {
            self.lose_node(now, heard, NodeIdx(node.0), &below, out);
        }
    }

    /// A relay says that a node below it is lost.
    pub(super) fn below_lost(
        &mut self,
        now: Time,
        relay: NodeIdx,
        node: NodeIdx,
        what: String,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        if node == relay || !self.subtree(relay).contains(Rank(node.0)) {
            return Err(format!("lost node {node}, which is not below it"));
        }
        self.lose_subtree(now, node, &clip(what, MAX_TEXT), out);
        Ok(())
    }

    /// A node behind another one's link is lost, with all below it.
    fn lose_subtree(&mut self, now: Time, node: NodeIdx, what: &str, out: &mut Vec<JobAction>) {
        self.lose_node(now, now, node, what, out);
        let below = format!("reached through {}, which was lost: {what}", self.name(node));
        for lower in self.subtree(node).iter().filter(|n| n.0 != node.0) {
            self.lose_node(now, now, NodeIdx(lower.0), &below, out);
        }
    }

    /// What the loss of one node means, by what it was doing. `heard` is its last sign of life.
    pub(super) fn lose_node(
        &mut self,
        now: Time,
        heard: Time,
        node: NodeIdx,
        what: &str,
        out: &mut Vec<JobAction>,
    ) {
        if self.phase == Phase::Done {
            return;
        }
        let Some(entry) = self.node(node) else { return };
        match &entry.phase {
            NodePhase::Reaching | NodePhase::Linked | NodePhase::Reported => {
                self.host_failed(now, node, LaunchFault::passing(Stage::Daemon, what), out);
            }
            NodePhase::Preparing | NodePhase::Prepared(_) => {
                self.host_failed(now, node, LaunchFault::passing(Stage::Wire, what), out);
            }
            NodePhase::Starting | NodePhase::Running => {
                entry.phase = NodePhase::Lost;
                let ranks = entry.ranks.clone();
                self.running_left -= 1;
                info!(node = node.0, what, "node lost");
                Self::event(JobEventOut::NodeLost { node, what: what.to_owned() }, out);
                self.lose_ranks(now, heard, node, what, &ranks, out);
                self.spawn_failed(node, what, out);
            }
            NodePhase::Unused | NodePhase::Ended | NodePhase::Failed(_) | NodePhase::Lost => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one loss, told once")]
    fn lose_ranks(
        &mut self,
        now: Time,
        heard: Time,
        node: NodeIdx,
        what: &str,
        ranks: &RankSet,
        out: &mut Vec<JobAction>,
    ) {
        let running = |r: &Rank| self.ranks.ranks.get(r.0 as usize).is_some_and(|s| !s.exited);
        let unreported: RankSet = ranks.iter().filter(running).collect();
        let on_it = |of: &ProcId| self.ranks.state(*of).is_some_and(|s| s.node == node);
        let wanting: Vec<_> = self.asks.iter().filter(|(_, of)| on_it(of)).map(|(&a, &of)| (a, of)).collect();
        for ((asker, id), of) in wanting {
            self.asks.remove(&(asker, id));
            self.tell(asker, Down::Answer { id, answer: Answer::Lost(of) }, Bytes::new(), out);
        }
        for rank in ranks.iter() {
            self.input_lost(rank, out);
        }
        if unreported.is_empty() {
            return;
        }
        for rank in unreported.iter() {
            let proc = self.ranks.proc(rank);
            self.ranks.gone(proc);
            self.service_loses(proc, node, out);
        }
        let at = signed(self.wall_us(heard));
        self.failures.lost(at, node, what.to_owned(), unreported);
        self.node_failed(now, node, out);
    }
}

/// Tells a daemon that it is not to dial again, and why, and closes its stream.
fn give_up(id: LinkId, link: &Link, why: &str, out: &mut Vec<JobAction>) {
    if link.open() {
        let why = clip(why.to_owned(), MAX_TEXT);
        out.push(JobAction::Send { link: id, frame: link.local(LinkMsg::GivenUp { why }) });
    }
    out.push(JobAction::Close { link: id });
}
