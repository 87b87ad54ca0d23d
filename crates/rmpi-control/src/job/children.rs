//! Spawned ranks that are a matter of their own (`-report-child-jobs-separately`): one that fails ends those it was
//! spawned with, by SIGTERM and after the grace SIGKILL; the user is told once, the job's outcome is not touched.

use super::{JobAction, JobEventOut, JobMachine};
use crate::signals;
use crate::time::{Time, earlier};
use rmpi_types::{NodeIdx, ProcId, RankEnd, RankExit};
use rmpi_wire::Down;

/// A spawned namespace that is being ended, and when it is killed.
#[derive(Debug)]
struct Ending {
    ns: ProcId,
    kill_at: Option<Time>,
}

/// All that were told to end.
#[derive(Debug, Default)]
pub(super) struct Children(Vec<Ending>);

impl Children {
    pub(super) fn next_timer(&self) -> Option<Time> {
        self.0.iter().fold(None, |first, e| earlier(first, e.kill_at))
    }
}

impl JobMachine {
    /// Whether what this process does is no matter of the job's.
    pub(super) fn apart(&self, proc: ProcId) -> bool {
        self.policy.children_apart && proc.ns != self.ranks.ns.ns
    }

    /// A spawned rank has failed.
    pub(super) fn child_failed(
        &mut self,
        now: Time,
        node: NodeIdx,
        exit: &RankExit,
        out: &mut Vec<JobAction>,
    ) {
        let how = match (&exit.abort, exit.end) {
            (Some(abort), _) if !abort.called => abort.message.clone(),
            (Some(_), _) => format!("called abort with code {}", exit.code()),
            (None, RankEnd::Exited(code)) => format!("exited with code {code}"),
            (None, RankEnd::Signaled { signal, .. }) => format!("was ended by signal {signal}"),
        };
        self.end_children(now, node, exit.proc, &how, out);
    }

    /// Ends the namespace of a spawned rank.
    pub(super) fn end_children(
        &mut self,
        now: Time,
        node: NodeIdx,
        proc: ProcId,
        how: &str,
        out: &mut Vec<JobAction>,
    ) {
        if self.children.0.iter().any(|e| e.ns.ns == proc.ns) {
            return;
        }
        let kill_at = Some(now + self.policy.limits.kill_grace);
        self.children.0.push(Ending { ns: proc, kill_at });
        let text = format!(
            "{proc} {how}: those it was spawned with are stopped; the job's exit code is without them"
        );
        Self::event(JobEventOut::Note { node, text }, out);
        // Stopped ones must run to take it.
        for signal in [signals::TERM, signals::CONT] {
            self.tell_all(Down::Signal { signal, of: Some(proc) }, out);
        }
    }

    /// Kills those whose time is over.
    pub(super) fn kill_children(&mut self, now: Time, out: &mut Vec<JobAction>) {
        let due = self.children.0.iter_mut().filter(|e| e.kill_at.is_some_and(|at| now >= at));
        let late: Vec<ProcId> = due.map(|e| (e.kill_at.take(), e.ns).1).collect();
        for ns in late {
            self.tell_all(Down::Signal { signal: signals::KILL, of: Some(ns) }, out);
        }
    }
}
