//! Carrying out what the machine decided, in its order.

use super::Driver;
use crate::event::Event;
use crate::outcome::HostState;
use crate::plan;
use crate::sink::{Chunk, Layout};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use rmpi_control::{JobAction, JobEvent, JobEventOut, PlanFault, StopReason};
use rmpi_types::{NodeIdx, NodeLaunch, NodeReport};
use std::collections::VecDeque;
use std::time::Duration;

/// How long frames may take to be written before this process stops itself.
const PAUSE_FLUSH: Duration = Duration::from_millis(500);
/// Hosts from which on the memory of their launch is worth giving back.
const MANY: usize = 16;

impl Driver {
    /// Carries out all actions, and those that their answers lead to.
    pub(super) async fn act(&mut self) {
        loop {
            let mut actions = VecDeque::from(std::mem::take(&mut self.actions));
            if actions.is_empty() {
                return;
            }
            while let Some(action) = actions.pop_front() {
                self.carry_out(action).await;
            }
        }
    }

    async fn carry_out(&mut self, action: JobAction) {
        match action {
            JobAction::Send { link, frame } => {
                if let Some(link) = self.links.get(&link) {
                    link.send(frame);
                }
            }
            JobAction::Close { link } => drop(self.links.remove(&link)),
            JobAction::Plan(reports) => {
                let planned = self.plan(&reports);
                self.feed(JobEvent::Planned(planned));
            }
            JobAction::PlanSpawn { ns, by, order, nodes } => {
                let none = || Err("the job has no plan".to_owned());
                let plan = self.spawns.as_mut().map_or_else(none, |base| base.plan(ns, by, &order, &nodes));
                self.feed(JobEvent::SpawnPlanned(plan));
            }
            JobAction::Output { proc, stream, bytes, last: _ } => {
                self.sinks.put(Chunk { proc, stream, bytes });
            }
            JobAction::ReadStdin { up_to } => self.stdin.request(up_to),
            JobAction::StdinRead { bytes } => self.stdin.taken(bytes),
            JobAction::Event(event) => self.tell(event),
            JobAction::SuspendSelf => {
                let flush = async {
                    for link in self.links.values() {
                        link.flush().await;
                    }
                };
                let _ = tokio::time::timeout(PAUSE_FLUSH, flush).await;
                match self.config.front {
                    // It passes SIGCONT on when it gets it.
                    Some(front) => drop(kill(Pid::from_raw(front), Signal::SIGSTOP)),
                    None if raise(Signal::SIGSTOP).is_ok() => {
                        self.feed(JobEvent::Signal(rmpi_control::signals::CONT));
                    }
                    None => {}
                }
            }
            JobAction::Done(outcome) => self.done = Some(*outcome),
        }
    }

    fn plan(&mut self, reports: &[(NodeIdx, NodeReport)]) -> Result<Vec<(NodeIdx, NodeLaunch)>, PlanFault> {
        let planned = plan::make(&self.config, &self.targets, reports, &self.reached_at)?;
        let size = planned.size;
        let launches = self.planned(planned);
        let output = &self.config.spec.output;
        if let Some(files) = output.files.as_ref().filter(|_| !output.on_nodes) {
            let places = self.places.clone();
            let layout = Layout::new(&files.layout, size, output.merge_stderr, self.config.restart, places);
            let ranks = self.placement.iter().flat_map(|(_, ranks)| ranks.iter());
            layout
                .create(ranks)
                .and_then(|()| self.sinks.open_files(layout).map_err(|e| e.to_string()))
                .map_err(|message| PlanFault { code: rmpi_types::exit::USAGE, message })?;
        }
        Ok(launches)
    }

    /// Passes an event on to the embedder and keeps what the report needs.
    fn tell(&mut self, event: JobEventOut) {
        let elapsed = self.start.elapsed();
        let out = match event {
            JobEventOut::HostUp { node } => {
                let host = &mut self.hosts[node.0 as usize];
                (host.state, host.elapsed) = (HostState::Ready, elapsed);
                tracing::info!(node = node.0, host = host.name, ms = elapsed.as_millis(), "host up");
                Event::HostUp { node, host: host.name.clone(), elapsed }
            }
            JobEventOut::HostFailed { node, fault } => {
                let host = &mut self.hosts[node.0 as usize];
                (host.state, host.elapsed) = (HostState::Failed(fault.clone()), elapsed);
                tracing::info!(node = node.0, host = host.name, %fault, error = fault.id(), "host failed");
                Event::HostFailed { node, host: host.name.clone(), fault }
            }
            JobEventOut::RankStarted { node, proc, pid } => {
                tracing::debug!(node = node.0, rank = proc.rank.0, pid, "rank started");
                if proc.ns.0 == 0 {
                    self.places.started(proc.rank, pid);
                    self.one_started();
                }
                Event::RankStarted { proc, node, pid }
            }
            JobEventOut::RankExited { node, exit } => {
                tracing::debug!(node = node.0, rank = exit.proc.rank.0, code = exit.code(), "rank exited");
                self.sinks.ended(&exit);
                Event::RankExited(exit)
            }
            JobEventOut::NodeLost { node, what } => {
                tracing::info!(node = node.0, what, "node lost");
                Event::NodeLost { node, what }
            }
            JobEventOut::Stopping { why, force } => {
                let why = self.stopping(&why, force);
                tracing::info!(why, "stopping");
                Event::Stopping { why, force }
            }
            JobEventOut::Stacks { node, proc, text } => {
                let text = String::from_utf8_lossy(&text).into_owned();
                Event::Stacks { proc, host: self.hosts[node.0 as usize].name.clone(), text }
            }
            JobEventOut::Note { node, text } => {
                tracing::debug!(node = node.0, text, "note");
                return self.note(text);
            }
        };
        self.events.send(out);
    }

    /// One rank more runs. With the last one a large launch is over, and with it the need for most of its memory.
    fn one_started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
        if self.starting == 0 && self.links.len() >= MANY {
            crate::heap::trim();
        }
    }

    fn stopping(&self, why: &StopReason, force: bool) -> String {
        let host = |node: NodeIdx| self.hosts.get(node.0 as usize).map_or("?", |h| h.name.as_str());
        let reason = match why {
            StopReason::Failure(proc) => format!("{proc} failed"),
            StopReason::NodeLost(node) => format!("host {} was lost", host(*node)),
            StopReason::Start(node) => format!("ranks could not be started on {}", host(*node)),
            StopReason::Timeout => "the job's time limit was reached".to_owned(),
            StopReason::Signal(signal) => crate::report::signals::name(*signal),
            StopReason::BrokenPipe => "our standard output is closed".to_owned(),
        };
        if force {
            format!("{reason}: killing all ranks now")
        } else {
            format!("{reason}: stopping all ranks")
        }
    }
}
