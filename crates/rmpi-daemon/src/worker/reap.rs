//! The ends of processes: of ranks, of what they left behind, of everything when the machine says so.

use super::{Waiting, Worker};
use crate::sys::{self, Reap, Reaped};
use crate::{family, node, topo};
use nix::libc;
use rmpi_control::DaemonEvent;
use rmpi_types::{RankEnd, RankExit};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the report of an end waits for the rest of the rank's stderr and of its requests, which a child
/// of the rank may hold open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Between two looks for what a sweep has left.
const SWEEP_STEP: Duration = Duration::from_millis(2);

impl Worker {
    /// Takes in all ended children. Whether there are none left.
    pub(super) fn reap(&mut self) -> bool {
        let empty = loop {
            match sys::reap_any() {
                Reap::One(one) => self.ended(one),
                Reap::Running => break false,
                Reap::NoChild => break true,
            }
        };
        self.release(false);
        if empty {
            self.nothing_left();
        }
        self.drain();
        empty
    }

    fn ended(&mut self, one: Reaped) {
        let Some(proc) = self.by_pid.remove(&one.pid) else { return };
        let Some(rank) = self.ranks.get_mut(&proc) else { return };
        rank.alive = false;
        if let Some((segment, local)) = rank.gone.take() {
            // For those that share memory with it. Should it fail, they still have the launcher's own reaction.
            let _ = rmpi_shm::mark_gone(&segment, local);
        }
        rank.stdin = None;
        if let Some(intake) = rank.intake.take() {
            self.pending.push_back(DaemonEvent::StdinTaken { proc, bytes: intake.read() });
        }
        let killed = matches!(one.end, RankEnd::Signaled { signal: libc::SIGKILL, .. });
        let oom = killed && topo::cgroup::oom_kills(Path::new("/")) > self.oom_before;
        let exit = RankExit {
            proc,
            pid: one.pid.unsigned_abs(),
            end: one.end,
            abort: None,
            stopped: false,
            oom,
            last_stderr: Vec::new(),
            wall_us: node::wall_us(),
        };
        self.waiting.push(Waiting { exit, until: Instant::now() + LAST_WORDS });
    }

    /// Tells the machine of ends whose last words are there or need not be waited for (`all`: whatever).
    /// None before it knows of the start.
    pub(super) fn release(&mut self, all: bool) {
        if self.starting.is_some() {
            return;
        }
        let now = Instant::now();
        let mut ended = Vec::new();
        for Waiting { mut exit, until } in std::mem::take(&mut self.waiting) {
            let Some(rank) = self.ranks.get_mut(&exit.proc) else { continue };
            let speaks = self.ported.as_ref().is_some_and(|p| p.hears(exit.proc));
            if all || (rank.stderr_done && rank.requests_done && !speaks) || until <= now {
                rank.requests = None;
                exit.last_stderr = rank.tail.borrow().lines();
                ended.push((exit.proc, exit.end));
                self.pending.push_back(DaemonEvent::RankExited(exit));
            } else {
                self.waiting.push(Waiting { exit, until });
            }
        }
        for (proc, end) in ended {
            self.tell_servers(rmpi_pmi::api::Event::RankEnded { proc, end });
        }
    }

    /// One pass of killing everything. Events that follow are left in `pending`.
    pub(super) fn sweep(&mut self) {
        loop {
            match sys::reap_any() {
                Reap::One(one) => self.ended(one),
                Reap::NoChild => return self.nothing_left(),
                Reap::Running => break,
            }
        }
        let left = family::kill_all();
        let now = Instant::now();
        let Some(sweeping) = &mut self.sweeping else { return };
        sweeping.next = now + SWEEP_STEP;
        if now >= sweeping.give_up {
            let names: Vec<String> = left.iter().map(|p| format!("{} ({})", p.pid, p.name)).collect();
            let note = format!("processes that could not be ended: {}", names.join(", "));
            self.pending.push_back(DaemonEvent::Note(note));
            self.nothing_left();
        }
    }

    /// There is no descendant any more: the answer to a sweep.
    fn nothing_left(&mut self) {
        if self.sweeping.take().is_some() {
            self.release(true);
            self.pending.push_back(DaemonEvent::Empty);
        }
    }
}
