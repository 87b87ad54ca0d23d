//! The part of process-management servers in a simulation: what a rank asked for as a server's client is given
//! back to it, and questions of other nodes are answered.

use crate::node::{SimRank, value};
use crate::world::{Event, Sim};
use rmpi_control::{DaemonAction, DaemonEvent};
use rmpi_types::{Namespace, NodeIdx, ProcId, Rank};
use rmpi_wire::service::Answer;

impl Sim {
    /// Carries out what a machine has for servers.
    pub(crate) fn served(&mut self, node: NodeIdx, action: DaemonAction) {
        match action {
            DaemonAction::Answered { token, answer, payload } => {
                self.client(node, token, |rank, id| rank.served(id, &answer, &payload));
            }
            DaemonAction::Gathered { tokens, result, .. } => {
                for token in tokens {
                    self.client(node, token, |rank, id| rank.gathered(id, &result));
                }
            }
            DaemonAction::Asked { asker, id, of, .. } => {
                let payload = value(of.rank.0, "?");
                self.soon(node, DaemonEvent::Answer { asker, id, answer: Answer::Value, payload });
            }
            _ => {}
        }
    }

    fn client(&mut self, node: NodeIdx, token: u64, what: impl FnOnce(&mut SimRank, u64)) {
        let part =
            |from: u32, bits: u32| u32::try_from(token >> from & ((1 << bits) - 1)).unwrap_or(u32::MAX);
        let (ns, rank, id) = (Namespace(part(56, 8)), Rank(part(32, 24)), token & u64::from(u32::MAX));
        let proc = ProcId { ns, rank, ..ProcId::default() };
        let Some(rank) = self.nodes[node.0 as usize].rank(proc) else { return };
        what(rank, id);
        let wrong = rank.wrong.take();
        self.wrong.extend(wrong);
        self.queue.push(self.now, Event::Rank(node, proc, 0));
    }
}
