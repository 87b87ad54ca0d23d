//! What the launcher says to a daemon. A message that does not fit the daemon's state is a violation of the
//! protocol; one that is merely late (for a rank that has ended meanwhile) is dropped.

use super::kvs::Asker;
use super::ranks::Ranks;
use super::{DaemonAction, DaemonMachine, Early, Phase};
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::{NodeLaunch, ProcId, Rank};
use rmpi_wire::msg::{Stream, Up};
use rmpi_wire::rank::RankReply;
use rmpi_wire::service::Answer;
use rmpi_wire::{Down, msg};
use std::time::Duration;

/// Signals remembered while ranks are being spawned, at most.
const MAX_EARLY: usize = 64;

impl DaemonMachine {
    pub(super) fn down(
        &mut self,
        now: Time,
        msg: msg::Down,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) -> Result<(), String> {
        match msg {
            Down::Prepare(launch) => return self.prepare(now, launch, out),
            Down::File { number, last } => {
                if self.phase != Phase::Idle {
                    return Err("a file after the order it is for".into());
                }
                out.push(DaemonAction::Keep { number, bytes: payload, last });
            }
            Down::Start(table) => {
                if self.more_coming() {
                    return self.start_more(table, out);
                }
                if self.phase != Phase::Prepared {
                    return Err("start of what is not prepared".into());
                }
                self.phase = Phase::Spawning;
                out.push(DaemonAction::Spawn(table));
            }
            Down::Stdin { proc } => self.stdin(proc, payload, out),
            Down::Credit { proc, stream, bytes } => self.credit(now, proc, stream, bytes, out),
            Down::Signal { signal, of } => match self.phase {
                Phase::Running if self.more_spawning() => self.early(Early::Signal(signal, of)),
                Phase::Running => {
                    let procs = self.ranks.running(of);
                    self.signal(signal, procs, out);
                }
                Phase::Spawning => self.early(Early::Signal(signal, of)),
                Phase::Idle | Phase::Preparing | Phase::Prepared | Phase::Ended | Phase::Gone => {}
            },
            Down::Stop { signal, grace_ms, name_absent } => {
                if name_absent {
                    self.name_absent(out);
                }
                let grace = Duration::from_millis(u64::from(grace_ms));
                match self.phase {
                    Phase::Running if self.more_spawning() => self.early(Early::Stop(signal, grace)),
                    Phase::Running => self.begin_stop(now, signal, grace, out),
                    Phase::Spawning => self.early(Early::Stop(signal, grace)),
                    Phase::Idle | Phase::Preparing | Phase::Prepared | Phase::Ended | Phase::Gone => {}
                }
            }
            Down::Kill => match self.phase {
                Phase::Running if self.more_spawning() => self.early(Early::Kill),
                Phase::Running => self.kill(out),
                Phase::Spawning => self.early(Early::Kill),
                Phase::Idle | Phase::Preparing | Phase::Prepared | Phase::Ended | Phase::Gone => {}
            },
            Down::Answer { id, answer } => self.answered(id, answer, payload, out),
            Down::Gathered { key, serial, last } => {
                return self.gathered(&key, serial, &payload, last, out);
            }
            Down::GatherLost { key, lost } => {
                let owners = self.gathers.lost(&key);
                self.gather_failed(key, owners, lost, out);
            }
            Down::Asked { asker, id, of, domain, wait_ms } => {
                self.asked(now, asker, id, of, domain, wait_ms, payload, out);
            }
            Down::Space(space) => out.push(DaemonAction::Space(space)),
            Down::Notified { domain, scope, by } => {
                out.push(DaemonAction::Notified { domain, scope, by, payload });
            }
            Down::RankEnded { proc, end } => out.push(DaemonAction::RankEnded { proc, end }),
            Down::Resize(window) => out.push(DaemonAction::Resize(window)),
            Down::Pause => self.paused = true,
            Down::Finish => self.finish(out),
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        now: Time,
        launch: Box<NodeLaunch>,
        out: &mut Vec<DaemonAction>,
    ) -> Result<(), String> {
        let ascending = launch.ranks.windows(2).all(|w| w[0].rank < w[1].rank);
        let last = launch.ranks.last().map(|r| r.rank.0);
        if !ascending || last.is_none_or(|rank| rank >= launch.size) {
            return Err("prepare of no ranks, or not ascending, or above the size".into());
        }
        match self.phase {
            Phase::Idle => {}
            Phase::Running | Phase::Ended if !self.ranks.knows(launch.ns) => {
                self.prepare_more(now, launch, out);
                return Ok(());
            }
            _ => return Err("a second prepare".into()),
        }
        self.ranks = Ranks::new(&launch, now);
        self.phase = Phase::Preparing;
        out.push(DaemonAction::Prepare(launch));
        Ok(())
    }

    fn early(&mut self, what: Early) {
        if self.early.len() < MAX_EARLY {
            self.early.push(what);
        } else if let Early::Kill | Early::Stop(..) = what {
            // Ends matter more than signals before them.
            self.early[MAX_EARLY - 1] = what;
        }
    }

    fn stdin(&mut self, proc: ProcId, bytes: Bytes, out: &mut Vec<DaemonAction>) {
        if !self.runs(proc) || self.ranks.get(proc).is_none_or(|s| !s.reads_stdin) {
            return;
        }
        out.push(if bytes.is_empty() {
            DaemonAction::CloseStdin { proc }
        } else {
            DaemonAction::WriteStdin { proc, bytes }
        });
    }

    fn credit(&mut self, now: Time, proc: ProcId, stream: Stream, bytes: u32, out: &mut Vec<DaemonAction>) {
        let Some(slot) = self.ranks.get(proc) else { return };
        let output = slot.output(stream);
        if output.done {
            return;
        }
        output.credit = output.credit.saturating_add(bytes);
        output.touched = now;
        out.push(DaemonAction::Read { proc, stream, bytes });
    }

    pub(super) fn fetch(
        &mut self,
        now: Time,
        asker: Asker,
        rank: Rank,
        key: String,
        wait_ms: u32,
        out: &mut Vec<DaemonAction>,
    ) {
        if let Some(value) = self.kvs.get(rank, &key) {
            return self.answer(asker, RankReply::Value, value, out);
        }
        let reply = match self.ranks.rank(rank) {
            None => RankReply::Refused(format!("rank {rank} is not on this node")),
            Some(slot) if !slot.alive() => RankReply::Lost(rank),
            Some(_) if wait_ms == 0 => RankReply::Missing,
            Some(_) => {
                let deadline = now + Duration::from_millis(u64::from(wait_ms));
                if self.kvs.wait(asker, rank, key, deadline) {
                    return;
                }
                RankReply::Refused("too many requests wait".into())
            }
        };
        self.answer(asker, reply, Bytes::new(), out);
    }

    /// Answers a rank here or elsewhere.
    pub(super) fn answer(
        &mut self,
        asker: Asker,
        reply: RankReply,
        payload: Bytes,
        out: &mut Vec<DaemonAction>,
    ) {
        match asker {
            Asker::Local(proc, id) => self.reply(proc, id, reply, payload, out),
            Asker::Remote(asker, id) => {
                let answer = match reply {
                    RankReply::Done => Answer::Done,
                    RankReply::Value => Answer::Value,
                    RankReply::Missing => Answer::Missing,
                    RankReply::Lost(rank) => Answer::Lost(self.ranks.proc(rank)),
                    RankReply::Refused(why) => Answer::Refused(why),
                };
                self.send_up(Up::Answer { asker, id, answer }, payload, out);
            }
        }
    }
}
