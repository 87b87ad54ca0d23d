//! Carrying out what the machine says.

use super::{Starting, Sweeping, Worker};
use crate::prepare::{self, RankEnds};
use crate::spawn::Step;
use crate::{family, stacks, sys, topo};
use bytes::Bytes;
use rmpi_control::{DaemonAction, DaemonEvent};
use rmpi_pmi::api::{Event, Question};
use rmpi_types::{EndpointTable, LaunchFault, NodeLaunch, ProcId, Stage};
use rmpi_wire::msg::Stream;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a sweep goes on before what is left is told to be unkillable.
const SWEEP_LIMIT: Duration = Duration::from_secs(8);
/// How long a failed start may take to clear away.
const UNDO_LIMIT: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn act(&mut self, action: DaemonAction) {
        match action {
            DaemonAction::SendUp(frame) => self.up.push(frame),
            DaemonAction::SendChild { link, .. } | DaemonAction::CloseChild { link } => {
                // No stream of a child is ever fed in here.
                tracing::error!(?link, "order for a child that does not exist");
            }
            DaemonAction::Keep { number, bytes, last } => {
                let temporary = self.temporary().to_owned();
                self.staging.keep(&temporary, number, &bytes, last);
            }
            DaemonAction::Prepare(launch) => self.prepare(*launch),
            DaemonAction::Spawn(table) => self.spawn(&table),
            DaemonAction::WriteStdin { proc, bytes } => self.write_stdin(proc, bytes),
            DaemonAction::CloseStdin { proc } => {
                if let Some(rank) = self.ranks.get_mut(&proc) {
                    rank.stdin = None;
                }
            }
            DaemonAction::Read { proc, stream, bytes } => {
                if let Some(rank) = self.ranks.get(&proc) {
                    rank.credits[if stream == Stream::Stdout { 0 } else { 1 }].add(bytes);
                }
            }
            DaemonAction::Signal { signal, procs } => self.signal(signal, &procs),
            DaemonAction::Resize(window) => {
                for terminal in self.ranks.values().filter_map(|r| r.terminal.as_ref()) {
                    sys::resize(terminal.as_fd(), window);
                }
            }
            DaemonAction::Describe { procs } => self.describe(&procs),
            DaemonAction::KillAll => {
                let now = Instant::now();
                self.sweeping = Some(Sweeping { give_up: now + SWEEP_LIMIT, next: now });
                self.sweep();
            }
            DaemonAction::ReplyRank { proc, reply, payload } => {
                if let Some(requests) = self.ranks.get(&proc).and_then(|r| r.requests.as_ref()) {
                    requests.answer(&reply, &payload);
                }
            }
            DaemonAction::Answered { token, answer, payload } => self.answered(token, answer, payload),
            DaemonAction::Gathered { key, tokens, result } => self.gathered(key, tokens, result),
            DaemonAction::Asked { asker, id, of, domain, wait_ms, payload } => {
                let question = Question { asker: asker.0, id };
                self.tell_server(domain, Event::Asked { question, of, wait_ms, payload });
            }
            DaemonAction::Space(space) => self.serve_space(*space),
            DaemonAction::Notified { domain, scope, by, payload } => {
                self.tell_server(domain, Event::Notified { scope, by, payload });
            }
            DaemonAction::RankEnded { proc, end } => self.tell_servers(Event::Ended { proc, end }),
            DaemonAction::Exit => self.exit = true,
        }
    }

    fn prepare(&mut self, launch: NodeLaunch) {
        let span = tracing::info_span!("job", job = %launch.job);
        let _entered = span.enter();
        let temporary = self.temporary().to_owned();
        let home = Self::home();
        let node = prepare::Node { env: &self.env, home: &home, temporary: &temporary, files: self.files };
        let result = prepare::prepare(launch, &node, &mut self.staging);
        let result = result.map(|(prepared, endpoints, notes)| {
            self.pending.extend(notes.into_iter().map(DaemonEvent::Note));
            self.prepared = Some(prepared);
            endpoints
        });
        self.pending.push_back(DaemonEvent::Prepared(result));
    }

    fn spawn(&mut self, table: &EndpointTable) {
        let Some(prepared) = self.prepared.take() else {
            let fault = LaunchFault::fatal(Stage::Exec, "nothing was prepared");
            self.pending.push_back(DaemonEvent::Spawned(Err(fault)));
            return;
        };
        let launch = prepared.launch();
        let space = super::serve::space(launch, table);
        let window = launch.output_credit;
        self.signal_direct = launch.extras.signal_direct;
        for rank in &launch.ranks {
            let proc = ProcId { rank: rank.rank, ..launch.ns };
            self.programs.insert(proc, launch.apps[rank.app as usize].program.clone());
        }
        if let Err(error) = self.open_door(prepared.launch()) {
            let what = format!("cannot listen for PMIx clients: {error}");
            return self.undo(LaunchFault::fatal(Stage::Wire, what));
        }
        self.serve_space(space);
        let pmi_port = match self.open_port(prepared.launch()) {
            Ok(port) => port,
            Err(error) => {
                let what = format!("cannot listen for PMI clients: {error}");
                return self.undo(LaunchFault::fatal(Stage::Wire, what));
            }
        };
        let port = self.door.as_ref().map(|d| d.port);
        let pmix = self.serving.servers.pmix().zip(port).filter(|_| prepared.launch().mpi.pmi.pmix());
        match prepared.start(table, pmix, self.reset, pmi_port) {
            Ok((batch, ends)) => {
                let procs = ends.iter().map(|e| e.proc).collect();
                let pids = batch.pids().to_vec();
                let report = batch.report_fd().try_clone_to_owned();
                let watch = report.and_then(sys::watch);
                let served = watch.and_then(|watch| {
                    self.starting = Some(Starting { batch, watch, procs });
                    self.adopt_all(ends, &pids, window)
                });
                // While the ranks start: what the kernel does to them comes on top of this.
                self.oom_before = topo::cgroup::oom_kills(Path::new("/"));
                if let Err(error) = served {
                    let what = format!("cannot serve ranks: {error}");
                    self.undo(LaunchFault::fatal(Stage::Exec, what));
                }
            }
            Err(fault) => self.undo(fault),
        }
    }

    fn adopt_all(&mut self, ends: Vec<RankEnds>, pids: &[i32], window: u32) -> std::io::Result<()> {
        ends.into_iter().zip(pids).try_for_each(|(ends, &pid)| self.adopt(ends, pid, window))
    }

    /// Clears a start away that did not work out.
    fn undo(&mut self, fault: LaunchFault) {
        let starting = self.starting.take();
        if self.started {
            // Others run: only what was being started goes.
            for pid in starting.iter().flat_map(|s| s.batch.pids()) {
                sys::send_signal(-pid, nix::libc::SIGKILL);
                if let Some(proc) = self.by_pid.remove(pid) {
                    self.ranks.remove(&proc);
                }
            }
            self.pending.push_back(DaemonEvent::Spawned(Err(fault)));
            return;
        }
        drop(starting);
        family::end_all(UNDO_LIMIT, |_| {});
        self.ranks.clear();
        self.by_pid.clear();
        self.waiting.clear();
        self.pending.push_back(DaemonEvent::Spawned(Err(fault)));
    }

    /// Looks whether all children are through.
    pub(super) fn collect(&mut self) {
        let Some(mut starting) = self.starting.take() else { return };
        let faults = match starting.batch.collect() {
            Ok(None) => {
                self.starting = Some(starting);
                return;
            }
            Ok(Some(faults)) => faults,
            Err(error) => {
                self.undo(LaunchFault::fatal(Stage::Exec, format!("cannot watch ranks start: {error}")));
                return self.drain();
            }
        };
        let pids = starting.batch.pids().to_vec();
        let procs = std::mem::take(&mut starting.procs);
        if let Some(fault) = faults.iter().find(|f| !f.harmless()) {
            let program = procs.get(fault.index).and_then(|p| self.programs.get(p)).cloned();
            self.starting = Some(starting);
            self.undo(prepare::exec_fault(&program.unwrap_or_default(), fault));
        } else {
            for (step, what) in [
                (Step::Affinity, "ranks could not be bound to their CPUs"),
                (Step::Memory, "ranks could not be given their memory policy"),
            ] {
                let count = faults.iter().filter(|f| f.step == step).count();
                if count > 0 {
                    self.pending.push_back(DaemonEvent::Note(format!("{count} {what}")));
                }
            }
            self.started = true;
            let started = procs.into_iter().zip(pids.into_iter().map(i32::unsigned_abs)).collect();
            self.pending.push_back(DaemonEvent::Spawned(Ok(started)));
            self.drain();
            // Ends that were seen before the machine knew of the start.
            self.release(false);
        }
        self.drain();
    }

    /// Tells how much more a rank has read of its standard input.
    pub(super) fn took(&mut self, proc: ProcId) {
        let bytes = self.ranks.get(&proc).and_then(|r| r.intake.as_ref()).map_or(0, |intake| intake.read());
        if bytes > 0 {
            self.feed(DaemonEvent::StdinTaken { proc, bytes });
        }
    }

    fn write_stdin(&mut self, proc: ProcId, bytes: Bytes) {
        if let Some(stdin) = self.ranks.get(&proc).and_then(|r| r.stdin.as_ref()) {
            // A reader that closed its input was reported by the writing task.
            let _ = stdin.send(bytes);
        }
    }

    /// What the ranks' processes are doing.
    fn describe(&mut self, procs: &[ProcId]) {
        let all = family::descendants();
        for proc in procs {
            let Some(rank) = self.ranks.get(proc).filter(|r| r.alive) else { continue };
            let text = stacks::describe(Path::new("/proc"), rank.pid, &all);
            self.pending.push_back(DaemonEvent::Stacks { proc: *proc, text: text.into() });
        }
    }

    /// To the process groups, or the ranks alone; of ranks that have ended meanwhile the number may be another's by now.
    fn signal(&self, signal: i32, procs: &[ProcId]) {
        for rank in procs.iter().filter_map(|p| self.ranks.get(p)).filter(|r| r.alive) {
            sys::send_signal(if self.signal_direct { rank.pid } else { -rank.pid }, signal);
        }
    }
}
