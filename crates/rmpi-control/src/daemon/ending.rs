//! How a daemon's ranks end: by themselves, because the launcher stops them, or because the launcher is lost.
//! However it comes, nothing of the job is left before `Ended` is said or the daemon leaves.

use super::ranks::Due;
use super::stop::{Step, Stop};
use super::{DaemonAction, DaemonMachine, Early, MAX_TEXT, Phase, Sweep};
use crate::link::clip;
use crate::signals;
use crate::time::Time;
use bytes::Bytes;
use rmpi_types::{ProcId, RankExit};
use rmpi_wire::{LinkMsg, Up};
use std::time::Duration;
use tracing::info;

impl DaemonMachine {
    pub(super) fn rank_exited(&mut self, now: Time, exit: RankExit, out: &mut Vec<DaemonAction>) {
        let proc = exit.proc;
        let _rank = tracing::debug_span!("rank", rank = proc.rank.0).entered();
        if self.phase != Phase::Running || !self.ranks.ended(exit, now) {
            return;
        }
        self.gathers_lose(proc, out);
        for (asker, reply, payload) in self.kvs.rank_ended(proc.rank) {
            self.answer(asker, reply, payload, out);
        }
        self.report_rank(proc, out);
        if self.leaving && self.ranks.all_ended() && !self.more_spawning() {
            self.sweep(out);
        }
    }

    /// Tells the launcher what is due for a rank; after the last, sweeps the node.
    pub(super) fn report_rank(&mut self, proc: ProcId, out: &mut Vec<DaemonAction>) {
        match self.ranks.due(proc) {
            None => {}
            Some(Due::Gone(exit)) => self.send_up(Up::Gone { exit: *exit }, Bytes::new(), out),
            Some(Due::Exited(exit)) => {
                self.send_up(Up::Exited { exit: *exit }, Bytes::new(), out);
                if self.ranks.all_reported() {
                    self.all_reported(out);
                }
            }
        }
    }

    /// Every rank was reported: what they left behind goes, unless more are coming.
    pub(super) fn all_reported(&mut self, out: &mut Vec<DaemonAction>) {
        if self.phase == Phase::Running && !self.leaving && !self.more_coming() {
            self.sweep(out);
            self.try_end(out);
        }
    }

    /// With every heartbeat: ranks that have ended while something holds their pipes open.
    pub(super) fn tell_gone(&mut self, out: &mut Vec<DaemonAction>) {
        for due in self.ranks.quiet_gone() {
            if let Due::Gone(exit) = due {
                self.send_up(Up::Gone { exit: *exit }, Bytes::new(), out);
            }
        }
    }

    /// Gives up on pipes that something else than an ended rank holds open and silent.
    pub(super) fn drain_idle(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        for (proc, stream) in self.ranks.idle_streams(now) {
            info!(rank = proc.rank.0, ?stream, "output held open by another process is given up");
            self.output(now, proc, stream, Bytes::new(), true, out);
        }
    }

    pub(super) fn signal(&mut self, signal: i32, procs: Vec<ProcId>, out: &mut Vec<DaemonAction>) {
        if procs.is_empty() {
            return;
        }
        out.push(match signal {
            // Asks what they are doing; it is not for them.
            crate::signals::QUIT => DaemonAction::Describe { procs },
            _ => DaemonAction::Signal { signal, procs },
        });
    }

    /// Begins to stop all ranks; a stop that is under way is only ever made shorter.
    pub(super) fn begin_stop(
        &mut self,
        now: Time,
        signal: i32,
        grace: Duration,
        out: &mut Vec<DaemonAction>,
    ) {
        if self.sweep != Sweep::No {
            return;
        }
        self.stop = Some(Stop::begun(signal, grace, now).sooner(self.stop));
        if self.warned && signal == signals::TERM {
            return self.ranks.mark_stopping();
        }
        self.stop_signal(signal, out);
    }

    /// The host is being shut down: ranks are told, and end as they like. What they do not do in time is done by what
    /// shuts the host down.
    pub(super) fn host_ends(&mut self, out: &mut Vec<DaemonAction>) {
        if self.phase == Phase::Spawning {
            return self.early.push(Early::Signal(signals::TERM, None));
        }
        let running = self.phase == Phase::Running && self.stop.is_none() && self.sweep == Sweep::No;
        if !running || std::mem::replace(&mut self.warned, true) {
            return;
        }
        let procs = self.ranks.running(None);
        self.signal(signals::TERM, procs.clone(), out);
        self.signal(signals::CONT, procs, out);
    }

    /// A signal that is to end ranks: stopped ones must run to take it.
    fn stop_signal(&mut self, signal: i32, out: &mut Vec<DaemonAction>) {
        self.ranks.mark_stopping();
        let procs = self.ranks.running(None);
        self.signal(signal, procs.clone(), out);
        self.signal(signals::CONT, procs, out);
    }

    pub(super) fn kill(&mut self, out: &mut Vec<DaemonAction>) {
        self.ranks.mark_stopping();
        self.stop = None;
        self.sweep(out);
    }

    /// Kills whatever is left; asked for once, as the driver repeats it until nothing is.
    fn sweep(&mut self, out: &mut Vec<DaemonAction>) {
        if self.sweep == Sweep::No {
            self.sweep = Sweep::Asked;
            self.stop = None;
            out.push(DaemonAction::KillAll);
        }
    }

    pub(super) fn empty(&mut self, out: &mut Vec<DaemonAction>) {
        if self.sweep == Sweep::Asked {
            self.sweep = Sweep::Empty;
            if self.leaving { self.leave(out) } else { self.try_end(out) }
        }
    }

    fn try_end(&mut self, out: &mut Vec<DaemonAction>) {
        let over = self.sweep == Sweep::Empty && self.ranks.all_reported() && !self.more_coming();
        if self.phase == Phase::Running && over {
            self.phase = Phase::Ended;
            self.send_up(Up::Ended, Bytes::new(), out);
        }
    }

    pub(super) fn ending_steps(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        match self.stop.as_mut().and_then(|s| s.step(now)) {
            None => {}
            Some(Step::Term) => self.stop_signal(signals::TERM, out),
            Some(Step::Kill) => self.kill(out),
        }
    }

    /// The launcher has nothing more to say.
    pub(super) fn finish(&mut self, out: &mut Vec<DaemonAction>) {
        self.leaving = true;
        match self.phase {
            Phase::Idle | Phase::Preparing | Phase::Prepared | Phase::Ended => self.leave(out),
            // The answer to the spawning decides, see `more_spawned`.
            Phase::Running if self.more_spawning() => {}
            Phase::Running if self.sweep == Sweep::Empty => self.leave(out),
            Phase::Running => self.kill(out),
            // The answer to the spawning decides, see `spawned`.
            Phase::Spawning | Phase::Gone => {}
        }
    }

    /// The launcher is lost, though its stream is not: it is told why, should it live after all.
    pub(super) fn desert(&mut self, now: Time, why: String, out: &mut Vec<DaemonAction>) {
        let why = clip(why, MAX_TEXT);
        if !self.leaving && self.up.open() {
            out.push(DaemonAction::SendUp(self.up.local(LinkMsg::GivenUp { why: why.clone() })));
        }
        self.lose_up(now, &why, out);
    }

    /// The launcher is lost: nobody reads output, nobody answers. Children are cut off at once, so that they
    /// clean up at the same time and not after us.
    pub(super) fn lose_up(&mut self, now: Time, what: &str, out: &mut Vec<DaemonAction>) {
        if self.leaving {
            return;
        }
        info!(what, "launcher lost");
        self.leaving = true;
        for (link, child) in std::mem::take(&mut self.relay).children {
            Self::give_up(link, &child.link, what, out);
        }
        match self.phase {
            Phase::Idle | Phase::Preparing | Phase::Prepared | Phase::Ended => self.leave(out),
            Phase::Running if self.more_spawning() => {}
            Phase::Running => self.clean_up(now, out),
            Phase::Spawning | Phase::Gone => {}
        }
    }

    /// Ends all ranks without a launcher: SIGTERM, a short grace, SIGKILL.
    pub(super) fn clean_up(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        if self.sweep == Sweep::Empty {
            return self.leave(out);
        }
        if self.sweep == Sweep::Asked {
            return;
        }
        if self.ranks.all_ended() {
            return self.sweep(out);
        }
        let grace = self.policy.lost_grace;
        self.begin_stop(now, signals::TERM, grace, out);
        // What was blocked on output nobody reads goes on to its end.
        for slot in self.ranks.iter_mut() {
            let proc = slot.proc;
            for stream in [rmpi_wire::msg::Stream::Stdout, rmpi_wire::msg::Stream::Stderr] {
                let output = slot.output(stream);
                if !output.done && output.credit == 0 {
                    out.push(DaemonAction::Read { proc, stream, bytes: super::ranks::MIN_OUTPUT_CREDIT });
                }
            }
        }
    }
}
