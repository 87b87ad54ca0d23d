//! Stopping a job and concluding it: the first reason stops it, further signals of the user make it quicker,
//! and whatever daemons do there is an end. The job is over when every started node has ended or was lost and
//! every output byte was accounted for.

use super::{JobAction, JobEventOut, JobMachine, Phase, StopReason};
use crate::signals;
use crate::time::{Time, earlier};
use rmpi_types::outcome::Cause;
use rmpi_types::{JobOutcome, NodeIdx, RankSet};
use rmpi_wire::Down;
use std::time::Duration;
use tracing::info;

/// How long a second signal waits for the daemons' confirmation.
const FORCE: Duration = Duration::from_secs(2);
/// SIGTERM to SIGKILL once a node is lost, whatever the user's grace (`docs/architecture.md`).
const LOST_GRACE: Duration = Duration::from_secs(2);
/// What a stop may take beyond its two graces and the draining; then it is enforced, and once more as long
/// later the nodes that have not ended count as lost.
const SLACK: Duration = Duration::from_secs(10);

/// What of a pod's grace is left for us: to kill, to carry the last output, to say what happened.
const OWN: Duration = Duration::from_secs(5);

/// How long the next rank may take to tell what it is doing.
const STACKS_PAUSE: Duration = Duration::from_secs(1);

/// The state of ending.
#[derive(Debug, Default)]
pub(super) struct Ending {
    why: Option<StopReason>,
    /// A further signal, or the watch over the stop, has killed everything.
    killed: bool,
    /// A further signal has: the outcome does not wait for slow readers any more.
    forced: bool,
    finished: bool,
    /// When the job's time is over.
    pub(super) job_at: Option<Time>,
    force_at: Option<Time>,
    /// The user's last terminating signal.
    signal: Option<i32>,
    watch_at: Option<Time>,
    /// The end of this pod was announced then: until `kill_at` ranks may take their time.
    pod_ends_since: Option<Time>,
    kill_at: Option<Time>,
    /// The time limit was reached, and until then ranks may tell what they are doing.
    looking_until: Option<Time>,
}

impl Ending {
    /// A rank has told what it is doing: others may need as long again.
    pub(super) fn looked(&mut self, now: Time) {
        if let Some(until) = self.looking_until {
            self.job_at = Some(until.min(now + STACKS_PAUSE));
        }
    }

    /// Whether the job is being stopped.
    pub(super) fn stopping(&self) -> bool {
        self.why.is_some()
    }

    pub(super) fn next_timer(&self) -> Option<Time> {
        let job = self.job_at.filter(|_| self.why.is_none());
        earlier(earlier(earlier(job, self.force_at), self.watch_at), self.kill_at)
    }
}

impl JobMachine {
    /// Stops the ranks, for the first reason that comes.
    pub(super) fn begin_stop(&mut self, now: Time, why: StopReason, out: &mut Vec<JobAction>) {
        let lost = matches!(why, StopReason::NodeLost(_));
        if self.phase != Phase::Running || self.ending.stopping() && !lost {
            return;
        }
        let signal = if why == StopReason::Signal(signals::INT) { signals::INT } else { signals::TERM };
        // The silence of a lost node has used up most of the time in which everything must be gone.
        let grace =
            if lost { LOST_GRACE.min(self.policy.limits.kill_grace) } else { self.policy.limits.kill_grace };
        let mut grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        if self.ending.stopping() {
            if self.ending.pod_ends_since.is_some() {
                // Pods of a job end together, and the ranks of the others are still given their time.
                return;
            }
            // A daemon only ever makes the stop that is under way shorter.
            return self.tell_all(Down::Stop { signal, grace_ms, name_absent: false }, out);
        }
        info!(?why, "stopping");
        self.ending.why = Some(why.clone());
        self.ending.watch_at = Some(now + 2 * grace + self.policy.limits.drain + SLACK);
        if let (Some(grace), StopReason::Signal(signals::TERM)) = (self.policy.limits.pod_grace, &why) {
            // How long is known later, and a second SIGTERM would disturb what ranks do at the first: the killing is
            // ours. Should we be killed before, daemons see to it.
            grace_ms = u32::MAX;
            self.ending.pod_ends_since = Some(now);
            self.pod_has(grace);
        }
        // Whoever waits for a rank that never comes will want to know which.
        let name_absent = why == StopReason::Timeout;
        if name_absent {
            self.name_absent(out);
        }
        Self::event(JobEventOut::Stopping { why, force: false }, out);
        self.tell_all(Down::Stop { signal, grace_ms, name_absent }, out);
    }

    /// The embedder's stop: its grace is the usual one, wherever we run.
    pub(super) fn cancel(&mut self, now: Time, out: &mut Vec<JobAction>) {
        self.policy.limits.pod_grace = None;
        self.user_signal(now, signals::TERM, out);
    }

    /// When ranks are killed that go on after the end of this pod was announced.
    pub(super) fn pod_has(&mut self, grace: Duration) {
        let Some(since) = self.ending.pod_ends_since.filter(|_| !self.ending.killed) else { return };
        let at = since + (grace - OWN.min(grace / 2));
        self.ending.kill_at = Some(at);
        self.ending.watch_at = Some(at + self.policy.limits.drain + SLACK);
    }

    pub(super) fn user_signal(&mut self, now: Time, signal: i32, out: &mut Vec<JobAction>) {
        match signal {
            signals::INT | signals::TERM | signals::HUP => self.terminate(now, signal, out),
            signals::TSTP => {
                self.forward(signal, out);
                self.tell_pause(out);
                out.push(JobAction::SuspendSelf);
            }
            _ => self.forward(signal, out),
        }
    }

    fn forward(&mut self, signal: i32, out: &mut Vec<JobAction>) {
        if self.phase == Phase::Running {
            self.tell_all(Down::Signal { signal, of: None }, out);
        }
    }

    fn tell_pause(&mut self, out: &mut Vec<JobAction>) {
        if let Err(error) = self.send_all(Down::Pause, &bytes::Bytes::new(), true, out) {
            tracing::warn!(error, "message dropped");
        }
    }

    /// Once stops, a second time kills and waits a little, a third time leaves.
    fn terminate(&mut self, now: Time, signal: i32, out: &mut Vec<JobAction>) {
        self.ending.signal = Some(signal);
        if self.phase != Phase::Running {
            self.finish_all(out);
            return self.conclude(Cause::Signal(signal), out);
        }
        let again = match self.ending.why.clone() {
            None => {
                if self.running_left == 0 {
                    // Only output is left that nobody reads.
                    self.ending.forced = true;
                    self.ending.why = Some(StopReason::Signal(signal));
                } else {
                    self.begin_stop(now, StopReason::Signal(signal), out);
                }
                return;
            }
            Some(StopReason::Signal(first)) => signal == first || signal == signals::INT,
            // Pods of a job end together: that of a worker first has failed its ranks.
            Some(_) if self.policy.limits.pod_grace.is_some() => signal == signals::INT,
            Some(_) => true,
        };
        if !again {
            return;
        }
        if self.ending.forced {
            return self.over(out);
        }
        self.ending.forced = true;
        self.ending.force_at = Some(now + FORCE);
        let why = self.ending.why.clone().unwrap_or(StopReason::Signal(signal));
        Self::event(JobEventOut::Stopping { why, force: true }, out);
        self.kill_all(out);
    }

    fn kill_all(&mut self, out: &mut Vec<JobAction>) {
        (self.ending.killed, self.ending.kill_at) = (true, None);
        self.tell_all(Down::Kill, out);
    }

    pub(super) fn broken_pipe(&mut self, now: Time, out: &mut Vec<JobAction>) {
        if self.policy.ignore_broken_pipe {
            return;
        }
        if self.phase != Phase::Running {
            self.finish_all(out);
            return self.conclude(Cause::BrokenPipe, out);
        }
        if self.running_left == 0 && !self.ending.stopping() {
            self.ending.why = Some(StopReason::BrokenPipe);
        }
        self.begin_stop(now, StopReason::BrokenPipe, out);
    }

    pub(super) fn ending_steps(&mut self, now: Time, out: &mut Vec<JobAction>) {
        if self.phase != Phase::Running {
            return;
        }
        if !self.ending.stopping() && self.ending.job_at.is_some_and(|at| now >= at) {
            let look = self.policy.stacks_on_timeout.filter(|_| self.ending.looking_until.is_none());
            if let Some(limit) = look {
                self.ending.looking_until = Some(now + limit);
                self.ending.job_at = Some(now + STACKS_PAUSE.min(limit));
                self.forward(signals::QUIT, out);
            } else {
                self.begin_stop(now, StopReason::Timeout, out);
            }
        }
        if self.ending.force_at.is_some_and(|at| now >= at) {
            return self.over(out);
        }
        if self.ending.kill_at.is_some_and(|at| now >= at) {
            self.ending.kill_at = None;
            self.kill_all(out);
        }
        if self.ending.watch_at.is_some_and(|at| now >= at) {
            self.ending.watch_at = Some(now + SLACK);
            // A slow reader of our output may take its time: it holds ranks' ends back, and rightly so.
            if self.unwritten > 0 {
                return;
            }
            if self.ending.killed { self.give_up_nodes(now, out) } else { self.kill_all(out) }
        }
    }

    /// Daemons that live but do not end: their nodes are as good as lost.
    fn give_up_nodes(&mut self, now: Time, out: &mut Vec<JobAction>) {
        let left: Vec<usize> = (0..self.nodes.len()).filter(|&i| self.nodes[i].in_job()).collect();
        for node in left.into_iter().filter_map(|i| u32::try_from(i).ok()).map(NodeIdx) {
            self.tell(node, Down::Finish, bytes::Bytes::new(), out);
            self.lose_node(now, now, node, "its daemon did not end the ranks it was told to stop", out);
        }
    }

    /// Looked at after every event.
    pub(super) fn check_end(&mut self, _now: Time, out: &mut Vec<JobAction>) {
        if self.phase != Phase::Running || self.running_left > 0 {
            return;
        }
        if !self.ending.finished {
            self.ending.finished = true;
            self.ending.watch_at = None;
            self.finish_all(out);
        }
        if self.unwritten == 0 || self.ending.forced {
            self.over(out);
        }
    }

    /// Concludes, with everything that is known.
    fn over(&mut self, out: &mut Vec<JobAction>) {
        if !self.ending.finished {
            self.finish_all(out);
        }
        let left = self.nodes.iter().filter(|n| n.in_job());
        let silent = left.flat_map(|n| n.ranks.iter());
        let unheard: RankSet =
            silent.filter(|r| self.ranks.ranks.get(r.0 as usize).is_some_and(|s| !s.exited)).collect();
        let outcome = self.outcome(&unheard);
        self.done(outcome, out);
    }

    fn outcome(&mut self, unheard: &RankSet) -> JobOutcome {
        let offsets: Vec<i64> = self.nodes.iter().map(|n| n.offset_us.unwrap_or(0)).collect();
        let first = self.failures.first(|n| offsets.get(n.0 as usize).copied().unwrap_or(0));
        let start_us = super::nodes::signed(self.wall_us(self.started_at));
        let after = |at: i64| u64::try_from(at.saturating_sub(start_us)).unwrap_or(0);
        let failed_after_us = first.as_ref().map(|f| after(f.at_us));
        let (failing, signal) = (self.ending.stopping(), self.ending.signal);
        let forced_cause = match self.ending.why.take() {
            Some(StopReason::Signal(signal)) => Some(Cause::Signal(signal)),
            Some(StopReason::Timeout) => Some(Cause::Timeout { limit_ms: self.job_limit_ms() }),
            Some(StopReason::BrokenPipe) => Some(Cause::BrokenPipe),
            Some(StopReason::Start(_)) => Some(Cause::Launch(std::mem::take(&mut self.failures.start))),
            Some(StopReason::Failure(_) | StopReason::NodeLost(_)) | None => None,
        };
        let (cause, also) = match (forced_cause, first) {
            // Stopped for a failure whose report was not waited for: a further signal was quicker.
            (None, None) if failing => (Cause::Signal(signal.unwrap_or(signals::TERM)), Vec::new()),
            (None, None) => (Cause::Success, Vec::new()),
            (None, Some(first)) => (first.cause, first.also),
            (Some(cause), None) => (cause, Vec::new()),
            (Some(cause), Some(first)) => {
                let mut also = first.also;
                if let Cause::Rank(exit) = first.cause {
                    also.insert(0, exit);
                }
                (cause, also)
            }
        };
        let mut unknown = self.failures.unknown();
        unknown.extend(unheard.iter());
        unknown.sort_unstable();
        JobOutcome { cause, also, failed_after_us, stopped: self.failures.stopped(), unknown }
    }

    fn job_limit_ms(&self) -> u64 {
        self.policy.limits.job.map_or(0, |l| u64::try_from(l.as_millis()).unwrap_or(u64::MAX))
    }
}
