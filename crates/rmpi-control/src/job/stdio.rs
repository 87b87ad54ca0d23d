//! Output towards the sinks with the credits that bound it, and our standard input towards the ranks. Nothing
//! is dropped: a rank may send as much more as the sinks have written.

use super::nodes::index;
use super::{JobAction, JobMachine};
use bytes::Bytes;
use rmpi_types::{NodeIdx, ProcId};
use rmpi_wire::Down;
use rmpi_wire::msg::Stream;

impl JobMachine {
    pub(super) fn output(
        &mut self,
        node: NodeIdx,
        proc: ProcId,
        stream: Stream,
        bytes: Bytes,
        last: bool,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let credit = self.node(node).map_or(0, |n| n.credit);
        let Some(state) = self.ranks.get(proc) else { return Ok(()) };
        let at = index(stream);
        if state.closed[at] {
            return Err(format!("output of {proc} after its end"));
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let unacked = state.unacked[at].saturating_add(length);
        if unacked > credit {
            return Err(format!("more output of {proc} than it had credit for"));
        }
        state.unacked[at] = unacked;
        state.closed[at] = last;
        self.unwritten += u64::from(length);
        out.push(JobAction::Output { proc, stream, bytes, last });
        Ok(())
    }

    /// Output left this process. Credit goes back in portions of a quarter, so that a stream of short lines
    /// does not cost a message each.
    pub(super) fn written(&mut self, proc: ProcId, stream: Stream, bytes: u32, out: &mut Vec<JobAction>) {
        self.unwritten = self.unwritten.saturating_sub(u64::from(bytes));
        let at = index(stream);
        let Some(state) = self.ranks.get(proc) else { return };
        let (node, ended) = (state.node, state.exited || state.closed[at]);
        state.written[at] = state.written[at].saturating_add(bytes).min(state.unacked[at]);
        let written = state.written[at];
        let Some(credit) = self.node(node).map(|n| n.credit) else { return };
        if ended || written < credit / 4 {
            return;
        }
        if let Some(state) = self.ranks.get(proc) {
            state.unacked[at] -= written;
            state.written[at] = 0;
        }
        self.tell(node, Down::Credit { proc, stream, bytes: written }, Bytes::new(), out);
    }

    /// Asks for input if some is wanted.
    pub(super) fn want_input(&mut self, out: &mut Vec<JobAction>) {
        if self.ending.stopping() {
            return;
        }
        out.extend(self.input.wanted().map(|up_to| JobAction::ReadStdin { up_to }));
    }

    pub(super) fn stdin(&mut self, bytes: &Bytes, out: &mut Vec<JobAction>) {
        if bytes.is_empty() {
            return self.stdin_eof(out);
        }
        for (rank, node) in self.input.came(bytes.len()) {
            let proc = self.ranks.proc(rank);
            self.tell(node, Down::Stdin { proc }, bytes.clone(), out);
        }
        self.want_input(out);
    }

    pub(super) fn stdin_eof(&mut self, out: &mut Vec<JobAction>) {
        for (rank, node) in self.input.end() {
            let proc = self.ranks.proc(rank);
            self.tell(node, Down::Stdin { proc }, Bytes::new(), out);
        }
    }

    pub(super) fn stdin_credit(
        &mut self,
        proc: ProcId,
        bytes: u32,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        if bytes == 0 {
            self.input.closed(proc.rank);
        } else {
            let fresh = self.input.taken(proc.rank, bytes);
            let bytes = fresh.ok_or_else(|| format!("{proc} read more input than it was given"))?;
            if bytes > 0 {
                out.push(JobAction::StdinRead { bytes });
            }
        }
        self.want_input(out);
        Ok(())
    }
}
