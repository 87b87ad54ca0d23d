//! What happens in a job as JSON lines (`--events`, schema in `docs/events.md`) and as a Chrome trace
//! (`--timeline`). Pure rendering: the caller gives the time and writes the text.

use crate::json::{Object, list};
use crate::outcome::{HostResult, HostState, Outcome};
use crate::report;
use crate::{Event, PlanView};
use rmpi_types::outcome::{Cause, RankEnd, RankExit};
use rmpi_types::{Rank, RankSet};
use std::collections::HashMap;
use std::time::Duration;

/// Version of the schema; raised when a field changes its meaning or goes away.
const VERSION: u32 = 1;

fn line(t: f64, event: &str) -> Object {
    Object::new().raw("v", VERSION).raw("t", format_args!("{t:.6}")).text("event", event)
}

/// The first line.
#[must_use]
pub fn job_start(t: f64, program: &str, restart: u32) -> String {
    line(t, "job_start").text("program", program).raw("restart", restart).end()
}

/// The job is started again.
#[must_use]
pub fn restart(t: f64, n: u32, of: u32) -> String {
    line(t, "restart").raw("n", n).raw("of", of).end()
}

/// The end of a job, as far as it is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Exit code.
    pub code: u8,
    /// One of the words of `docs/events.md`.
    pub cause: &'static str,
    /// What is said about it, lines; empty after success.
    pub message: String,
    /// The stable name of the error, if it was one (`docs/exit-codes.md`).
    pub id: Option<&'static str>,
    /// The rank that is the cause, if one is.
    pub rank: Option<Rank>,
    /// What became of each host.
    pub hosts: Vec<HostResult>,
}

impl From<&Outcome> for End {
    fn from(outcome: &Outcome) -> Self {
        let rank = match outcome.cause() {
            Cause::Rank(exit) => Some(exit.proc.rank),
            _ => None,
        };
        Self {
            code: outcome.code(),
            cause: word(outcome.cause()),
            message: report::render(outcome, false).trim_end().to_owned(),
            id: outcome.cause().id(),
            rank,
            hosts: outcome.hosts.clone(),
        }
    }
}

/// The last line: why and with which exit code.
#[must_use]
pub fn job_end(t: f64, end: &End) -> String {
    summary(line(t, "job_end"), end).end()
}

/// The outcome alone (`--summary`).
#[must_use]
pub fn outcome(t: f64, result: &End) -> String {
    let host = |h: &HostResult| {
        let (state, why) = match &h.state {
            HostState::Ready => ("ready", None),
            HostState::Unused => ("unused", None),
            HostState::Failed(fault) => ("failed", Some(fault.to_string())),
        };
        let object = Object::new().text("host", &h.name).text("state", state).raw("tries", h.tries);
        let object = object.raw("seconds", format_args!("{:.6}", h.elapsed.as_secs_f64()));
        match why {
            Some(why) => object.text("fault", &why).end(),
            None => object.end(),
        }
    };
    let object = Object::new().raw("v", VERSION).raw("t", format_args!("{t:.6}"));
    summary(object, result).raw("hosts", list(result.hosts.iter().map(host))).end()
}

/// The word for a cause.
pub(crate) fn word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Success => "success",
        Cause::Rank(_) => "rank",
        Cause::Launch(_) => "launch",
        Cause::Plan { .. } => "plan",
        Cause::NodeLost { .. } => "node_lost",
        Cause::Timeout { .. } => "timeout",
        Cause::Signal(_) => "signal",
        Cause::BrokenPipe => "broken_pipe",
        Cause::Internal(_) => "internal",
    }
}

fn summary(object: Object, end: &End) -> Object {
    let object = object.raw("code", end.code).text("cause", end.cause).text("message", &end.message);
    let object = match end.id {
        Some(id) => object.text("id", id),
        None => object,
    };
    match end.rank {
        Some(rank) => object.raw("rank", rank),
        None => object,
    }
}

fn end_of(object: Object, exit: &RankExit) -> Object {
    let object = match exit.end {
        RankEnd::Exited(code) => object.raw("code", code),
        RankEnd::Signaled { signal, core } => object.raw("signal", signal).raw("core", core),
    };
    object.raw("stopped", exit.stopped).raw("oom", exit.oom)
}

/// The line of an event; `None` for those that have none. `host` gives the name of a node.
#[must_use]
pub fn event(t: f64, event: &Event, host: impl Fn(u32) -> String) -> Option<String> {
    Some(match event {
        Event::HostUp { node, host, elapsed } => {
            let object = line(t, "host_up").raw("node", node.0).text("host", host);
            object.raw("seconds", format_args!("{:.6}", elapsed.as_secs_f64())).end()
        }
        Event::HostFailed { node, host, fault } => line(t, "host_failed")
            .raw("node", node.0)
            .text("host", host)
            .text("fault", &fault.to_string())
            .text("id", fault.id())
            .end(),
        Event::Waiting { hosts, of } => {
            let host = |(host, fault): &(String, Option<rmpi_types::LaunchFault>)| {
                let fault = fault.as_ref().map_or_else(String::new, ToString::to_string);
                Object::new().text("host", host).text("fault", &fault).end()
            };
            line(t, "waiting").raw("of", of).raw("hosts", list(hosts.iter().map(host))).end()
        }
        Event::Planned(plan) => planned(line(t, "planned"), plan),
        Event::Generation { n, new, hosts } => {
            let host = |(host, ranks): &(String, RankSet)| {
                Object::new().text("host", host).text("ranks", &ranks.to_string()).end()
            };
            let object = line(t, "generation").raw("n", n).raw("new", new);
            object.raw("nodes", list(hosts.iter().map(host))).end()
        }
        Event::RankStarted { proc, node, pid } => {
            let object = line(t, "rank_start").raw("rank", proc.rank).raw("node", node.0);
            object.text("host", &host(node.0)).raw("pid", pid).end()
        }
        Event::RankExited(exit) => {
            let object = line(t, "rank_exit").raw("rank", exit.proc.rank).raw("pid", exit.pid);
            end_of(object, exit).raw("wall", format_args!("{:.6}", seconds(exit.wall_us))).end()
        }
        Event::NodeLost { node, what } => {
            line(t, "node_lost").raw("node", node.0).text("host", &host(node.0)).text("what", what).end()
        }
        Event::Stopping { why, force } => line(t, "stopping").text("why", why).raw("force", force).end(),
        Event::Note(text) => line(t, "note").text("text", text).end(),
        Event::Stacks { proc, host, text } => {
            line(t, "stacks").raw("rank", proc.rank).text("host", host).text("text", text).end()
        }
        Event::Output { .. } => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit 53 bits until 2255")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn planned(object: Object, plan: &PlanView) -> String {
    let nodes = plan.nodes.iter().filter(|n| !n.ranks.is_empty()).map(|n| {
        let ranks: RankSet = n.ranks.iter().map(|(r, _)| *r).collect();
        Object::new().text("host", &n.host).raw("slots", n.slots).text("ranks", &ranks.to_string()).end()
    });
    object.raw("nodes", list(nodes)).end()
}

/// A trace of a job for Perfetto and `chrome://tracing`: spans of reaching hosts, of starting ranks, of each rank,
/// of stopping. Times are since the launcher began.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    spans: Vec<String>,
    hosts: HashMap<u32, String>,
    /// By rank and pid: in elastic jobs a process may have become another rank.
    began: HashMap<(u32, u32), (u32, Duration)>,
    placed: Option<Duration>,
    stopping: Option<Duration>,
    offset: Duration,
}

/// The process of a trace that stands for the launcher; nodes follow it.
const LAUNCHER: u32 = 0;

impl Timeline {
    fn span(&mut self, name: &str, (process, thread): (u32, u32), from: Duration, to: Duration) {
        let object = Object::new().text("name", name).text("ph", "X").text("cat", "rmpirun");
        let object = object.raw("pid", process).raw("tid", thread).raw("ts", from.as_micros());
        self.spans.push(object.raw("dur", to.saturating_sub(from).as_micros()).end());
    }

    fn named(&mut self, what: &str, (process, thread): (u32, u32), name: &str) {
        let args = Object::new().text("name", name).end();
        let object = Object::new().text("name", what).text("ph", "M").raw("pid", process).raw("tid", thread);
        self.spans.push(object.raw("args", args).end());
    }

    /// A start of the job at `now`.
    pub fn start(&mut self, now: Duration) {
        self.offset = now;
        (self.placed, self.stopping) = (None, None);
        self.named("process_name", (LAUNCHER, 0), "rmpirun");
    }

    /// What happened at `now`.
    pub fn on(&mut self, now: Duration, event: &Event) {
        match event {
            Event::HostUp { node, host, .. } => {
                self.hosts.insert(node.0, host.clone());
                self.span(&format!("reach {host}"), (LAUNCHER, node.0 + 1), self.offset, now);
                self.named("thread_name", (LAUNCHER, node.0 + 1), host);
                self.named("process_name", (node.0 + 1, 0), host);
            }
            Event::HostFailed { node, host, fault } => {
                let name = format!("reach {host}: {fault}");
                self.span(&name, (LAUNCHER, node.0 + 1), self.offset, now);
            }
            Event::Planned(_) => {
                self.span("reach all hosts", (LAUNCHER, 0), self.offset, now);
                self.placed = Some(now);
            }
            Event::RankStarted { proc, node, pid } => {
                if let Some(placed) = self.placed.take() {
                    self.span("prepare and start", (LAUNCHER, 0), placed, now);
                }
                self.began.insert((proc.rank.0, *pid), (node.0 + 1, now));
                self.named("thread_name", (node.0 + 1, proc.rank.0 + 1), &format!("rank {}", proc.rank));
            }
            Event::RankExited(exit) => {
                let mut key = (exit.proc.rank.0, exit.pid);
                if !self.began.contains_key(&key) {
                    key = self.began.keys().find(|k| k.1 == exit.pid).copied().unwrap_or(key);
                }
                if let Some((process, from)) = self.began.remove(&key) {
                    let name = match exit.end {
                        RankEnd::Exited(code) => format!("rank {}: exit {code}", exit.proc.rank),
                        RankEnd::Signaled { signal, .. } => {
                            format!("rank {}: signal {signal}", exit.proc.rank)
                        }
                    };
                    self.span(&name, (process, key.0 + 1), from, now);
                }
            }
            Event::Stopping { .. } => drop(self.stopping.get_or_insert(now)),
            _ => {}
        }
    }

    /// The job ended at `now`; ranks whose end nobody saw end here.
    pub fn end(&mut self, now: Duration) {
        if let Some(from) = self.stopping.take() {
            self.span("stop", (LAUNCHER, 0), from, now);
        }
        for ((rank, _), (process, from)) in std::mem::take(&mut self.began) {
            self.span(&format!("rank {rank}"), (process, rank + 1), from, now);
        }
        self.span("job", (LAUNCHER, 0), self.offset, now);
    }

    /// The whole trace.
    #[must_use]
    pub fn render(&self) -> String {
        format!("{{\"traceEvents\":[\n{}\n]}}\n", self.spans.join(",\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::{NodeIdx, ProcId};

    fn host_up() -> Event {
        Event::HostUp { node: NodeIdx(0), host: "n\"1".into(), elapsed: Duration::from_millis(250) }
    }

    #[test]
    fn lines_have_version_time_and_name() {
        let text = event(1.5, &host_up(), |_| String::new()).unwrap();
        assert_eq!(
            text,
            "{\"v\":1,\"t\":1.500000,\"event\":\"host_up\",\"node\":0,\"host\":\"n\\\"1\",\"seconds\":0.250000}"
        );
        let started = Event::RankStarted { proc: ProcId::first(3), node: NodeIdx(1), pid: 9 };
        let text = event(0.0, &started, |n| format!("h{n}")).unwrap();
        assert!(text.ends_with("\"rank\":3,\"node\":1,\"host\":\"h1\",\"pid\":9}"), "{text}");
    }

    #[test]
    fn traces_have_spans_of_ranks() {
        let mut trace = Timeline::default();
        trace.start(Duration::ZERO);
        trace.on(Duration::from_millis(1), &host_up());
        trace.on(Duration::from_millis(2), &Event::Planned(Box::default()));
        let started = Event::RankStarted { proc: ProcId::first(0), node: NodeIdx(0), pid: 9 };
        trace.on(Duration::from_millis(3), &started);
        trace.end(Duration::from_millis(10));
        let text = trace.render();
        assert!(text.contains("\"name\":\"rank 0\",\"ph\":\"X\"") && text.contains("\"dur\":7000"), "{text}");
        assert!(text.contains("prepare and start"), "{text}");
    }
}
