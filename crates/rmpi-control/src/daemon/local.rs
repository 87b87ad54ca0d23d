//! What this node's driver and ranks say: preparation and spawning, output and input, requests, fences.

use super::gather::Owner;
use super::kvs::Asker;
use super::{DaemonAction, DaemonMachine, Early, MAX_TEXT, Member, Phase};
use crate::link::clip;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::outcome::Abort;
use rmpi_types::{LaunchFault, ProcId, Rank};
use rmpi_wire::Up;
use rmpi_wire::frame::MAX_PAYLOAD;
use rmpi_wire::msg::Stream;
use rmpi_wire::rank::{MAX_KEY, MAX_VALUE, RankReply, RankRequest, Reply};
use rmpi_wire::service::{Domain, GatherKey, Group, OnLoss, Request};
use std::time::Duration;
use tracing::{debug, info};

impl DaemonMachine {
    pub(super) fn prepared(
        &mut self,
        result: Result<NodeEndpoints, LaunchFault>,
        out: &mut Vec<DaemonAction>,
    ) {
        if self.phase != Phase::Preparing {
            return self.more_prepared(result, out);
        }
        match result {
            Ok(endpoints) => {
                self.phase = Phase::Prepared;
                self.send_up(Up::Prepared(endpoints), Bytes::new(), out);
            }
            Err(fault) => {
                self.phase = Phase::Ended;
                self.send_up(Up::Failed(fault), Bytes::new(), out);
            }
        }
    }

    pub(super) fn spawned(
        &mut self,
        now: Time,
        result: Result<Vec<(ProcId, u32)>, LaunchFault>,
        out: &mut Vec<DaemonAction>,
    ) {
        if self.phase != Phase::Spawning {
            return self.more_spawned(now, result, out);
        }
        let pids = match result {
            Ok(pids) => pids,
            Err(fault) => {
                self.phase = Phase::Ended;
                self.send_up(Up::Failed(fault), Bytes::new(), out);
                if self.leaving {
                    self.leave(out);
                }
                return;
            }
        };
        info!(ranks = pids.len(), "ranks started");
        self.phase = Phase::Running;
        self.send_up(Up::Started(pids), Bytes::new(), out);
        for slot in self.ranks.iter_mut() {
            let proc = slot.proc;
            for stream in [Stream::Stdout, Stream::Stderr] {
                let bytes = slot.output(stream).credit;
                out.push(DaemonAction::Read { proc, stream, bytes });
            }
        }
        // Before any signal: who ended by then was not ended by it.
        for event in std::mem::take(&mut self.held) {
            self.take(now, event, out);
        }
        self.catch_up(now, out);
    }

    /// Does what came while ranks were being started.
    pub(super) fn catch_up(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        for early in std::mem::take(&mut self.early) {
            match early {
                Early::Signal(signal, of) => {
                    let procs = self.ranks.running(of);
                    self.signal(signal, procs, out);
                }
                Early::Stop(signal, grace) => self.begin_stop(now, signal, grace, out),
                Early::Kill => self.kill(out),
            }
        }
        if self.leaving {
            self.clean_up(now, out);
        }
    }

    pub(super) fn output(
        &mut self,
        now: Time,
        proc: ProcId,
        stream: Stream,
        mut bytes: Bytes,
        last: bool,
        out: &mut Vec<DaemonAction>,
    ) {
        let leaving = self.leaving;
        let Some(slot) = self.ranks.get(proc) else { return };
        let output = slot.output(stream);
        if output.done {
            return;
        }
        output.touched = now;
        output.done = last;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if leaving {
            // Nobody will read it; the rank may go on to its end.
            out.push(DaemonAction::Read { proc, stream, bytes: length });
        } else {
            output.credit = output.credit.saturating_sub(length);
            while bytes.len() > MAX_PAYLOAD {
                // Frames are cut between lines where a line ends at all: tags go before whole lines.
                let newline = bytes[..MAX_PAYLOAD].iter().rposition(|&b| b == b'\n');
                let piece = bytes.split_to(newline.map_or(MAX_PAYLOAD, |i| i + 1));
                self.send_up(Up::Output { proc, stream, last: false }, piece, out);
            }
            if last || !bytes.is_empty() {
                self.send_up(Up::Output { proc, stream, last }, bytes, out);
            }
        }
        if last {
            self.report_rank(proc, out);
        }
    }

    pub(super) fn stdin_taken(&mut self, proc: ProcId, bytes: u32, out: &mut Vec<DaemonAction>) {
        if bytes > 0 && self.ranks.get(proc).is_some_and(|s| s.reads_stdin) {
            self.send_up(Up::StdinCredit { proc, bytes }, Bytes::new(), out);
        }
    }

    pub(super) fn stdin_closed(&mut self, proc: ProcId, out: &mut Vec<DaemonAction>) {
        let Some(slot) = self.ranks.get(proc).filter(|s| s.reads_stdin) else { return };
        slot.reads_stdin = false;
        self.send_up(Up::StdinCredit { proc, bytes: 0 }, Bytes::new(), out);
    }

    pub(super) fn stacks(&mut self, proc: ProcId, mut text: Bytes, out: &mut Vec<DaemonAction>) {
        if self.runs(proc) {
            text.truncate(MAX_PAYLOAD);
            self.send_up(Up::Stacks { proc }, text, out);
        }
    }

    pub(super) fn rank_gone(&mut self, proc: ProcId) {
        // The end of a rank counts, not that of its socket: it may have closed it, having no more to ask.
        debug!(rank = proc.rank.0, "request socket closed");
    }

    pub(super) fn request(
        &mut self,
        now: Time,
        proc: ProcId,
        id: u64,
        request: RankRequest,
        payload: &Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        let Some(slot) = self.ranks.get(proc) else { return };
        match request {
            RankRequest::Hello => {
                slot.hello = true;
                slot.finalized = false;
                self.reply(proc, id, RankReply::Done, Bytes::new(), out);
            }
            RankRequest::Finalize => {
                slot.finalized = true;
                self.reply(proc, id, RankReply::Done, Bytes::new(), out);
            }
            RankRequest::Put { key } => self.put(proc, id, &key, payload, out),
            RankRequest::Get { rank, key, wait_ms } => self.get(now, proc, id, rank, key, wait_ms, out),
            RankRequest::Fence => self.fence(proc, id, out),
            RankRequest::Abort { code, message } => self.abort(proc, Abort::called(code, message), out),
        }
    }

    /// What a server says of a rank.
    pub(super) fn member(&mut self, proc: ProcId, what: Member, out: &mut Vec<DaemonAction>) {
        let Some(slot) = self.ranks.get(proc) else { return };
        match what {
            Member::Hello => (slot.hello, slot.finalized) = (true, false),
            Member::Finalized => slot.finalized = true,
            Member::Abort { code, message } => self.abort(proc, Abort::called(code, message), out),
            Member::Broken(message) => {
                let code = i32::from(rmpi_types::exit::INTERNAL);
                self.abort(proc, Abort { code, message, called: false }, out);
            }
        }
    }

    fn abort(&mut self, proc: ProcId, mut abort: Abort, out: &mut Vec<DaemonAction>) {
        abort.message = clip(abort.message, MAX_TEXT);
        if let Some(slot) = self.ranks.get(proc).filter(|s| s.alive() && s.abort.is_none()) {
            let (code, message) = (abort.code, abort.message.clone());
            slot.abort = Some(abort);
            self.send_up(Up::Abort { proc, code, message }, Bytes::new(), out);
        }
    }

    fn put(&mut self, proc: ProcId, id: u64, key: &str, value: &Bytes, out: &mut Vec<DaemonAction>) {
        let stored = if key.len() > MAX_KEY {
            Err(format!("key of {} bytes, at most {MAX_KEY} are allowed", key.len()))
        } else if value.len() > MAX_VALUE {
            Err(format!("value of {} bytes, at most {MAX_VALUE} are allowed", value.len()))
        } else {
            self.kvs.put(proc.rank, key, value)
        };
        match stored {
            Ok(answers) => {
                self.reply(proc, id, RankReply::Done, Bytes::new(), out);
                for (asker, reply, payload) in answers {
                    self.answer(asker, reply, payload, out);
                }
            }
            Err(why) => self.reply(proc, id, RankReply::Refused(why), Bytes::new(), out),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a request's fields and where to answer")]
    fn get(
        &mut self,
        now: Time,
        proc: ProcId,
        id: u64,
        rank: Rank,
        key: String,
        wait_ms: u32,
        out: &mut Vec<DaemonAction>,
    ) {
        let mut refuse = |why: String| {
            let reply = Reply { id, reply: RankReply::Refused(why) };
            out.push(DaemonAction::ReplyRank { proc, reply, payload: Bytes::new() });
        };
        if rank.0 >= self.ranks.size {
            return refuse(format!("no rank {rank} among {}", self.ranks.size));
        }
        if key.len() > MAX_KEY {
            return refuse(format!("key of {} bytes, at most {MAX_KEY} are allowed", key.len()));
        }
        let asker = Asker::Local(proc, id);
        if self.ranks.rank(rank).is_some() {
            return self.fetch(now, asker, rank, key, wait_ms, out);
        }
        if let Some(value) = self.kvs.get(rank, &key) {
            return self.reply(proc, id, RankReply::Value, value, out);
        }
        // The owner's node answers in time; this deadline is for when nothing answers.
        let deadline = now + Duration::from_millis(u64::from(wait_ms)) + 2 * self.policy.lost;
        if !self.kvs.wait(asker, rank, key.clone(), deadline) {
            return refuse("too many requests wait".into());
        }
        let request = Request::Ask { of: ProcId { rank, ..proc }, domain: Domain::Native, wait_ms };
        self.ask_up(Owner::Native(proc, id), proc, request, key.into(), out);
    }

    fn fence(&mut self, proc: ProcId, id: u64, out: &mut Vec<DaemonAction>) {
        let key = GatherKey {
            domain: Domain::Native,
            name: Vec::new(),
            group: Group::all(proc),
            loss: OnLoss::Fail,
        };
        let data = self.kvs.take_fresh();
        self.join(Owner::Native(proc, id), proc, key, &data, out);
    }

    /// Answers a rank of this node, if it is still there.
    pub(super) fn reply(
        &mut self,
        proc: ProcId,
        id: u64,
        reply: RankReply,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        if self.runs(proc) {
            out.push(DaemonAction::ReplyRank { proc, reply: Reply { id, reply }, payload });
        }
    }
}
