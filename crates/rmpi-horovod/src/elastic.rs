//! Who is in an elastic job: the one authority for its generations. Hosts come from discovery, members report that
//! they are ready for another generation or have ended; out come members to start, answers, notices and the end.
//!
//! Rules, after Horovod's driver unless said: a generation is over when each of its members has reported. A success
//! ends the job. A failure costs the member's host. Hosts that were there keep their order and come first, so that
//! the oldest state has rank 0. Two things are better than the reference: members that are ready wait for their
//! answer until every newcomer has begun to join, and a newcomer that dies before that is replaced without anyone
//! noticing.

use crate::Member;
use crate::assign::{NOT_IN_IT, Slot, assign, scopes};
use crate::notice::Change;
use crate::pickle::Registration;
use crate::store::Waiter;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// A notice that no generation has followed is sent again after this long.
const REPEAT: Duration = Duration::from_secs(5);

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Slots needed before the first start.
    pub np: u32,
    /// Slots needed to go on after a change.
    pub min_np: u32,
    /// Most ranks.
    pub max_np: Option<u32>,
    /// Longest wait for enough slots, each time.
    pub timeout: Duration,
    /// More resets than this end the job.
    pub reset_limit: Option<u32>,
    /// Pause after which a host that failed may return: from and to. `None`: never.
    pub cooldown: Option<(Duration, Duration)>,
}

/// A process of a member, as the machine numbers them: a member's name may have several in a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The discovery script has printed these hosts.
    Discovered(Vec<(String, u32)>),
    /// A member asks for its rank in the next generation.
    Asked(Member, Waiter),
    /// Who asked has hung up.
    HungUp(Waiter),
    /// This rank of the present generation has put something into the scope in which the world is built.
    Joining(u32),
    /// A member can be told of changes.
    Registered(Member, Registration),
    /// A notice reached its worker, or did not.
    Notified(bool),
    /// A process has ended; a host that was lost ends its processes.
    Ended(Process, i32),
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a new store for these scopes; whoever waits for a value is to be told that it is missing.
    Reset(Vec<(String, usize)>),
    /// Start a process for a place. It need not ask: its environment says all.
    Start(Process, Slot),
    /// End this process: its host is out, or its generation never came about.
    Kill(Process),
    /// Answer a member that asked.
    Answer(Waiter, String),
    /// Tell the worker of rank 0 that hosts have changed; tell [`Event::Notified`].
    Notify(Registration, i32, Change),
    /// A line for the user.
    Note(String),
    /// The job is over; everything that still runs is to be ended.
    Done(End),
}

/// How a job is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A process ended with 0 and all others have ended or reported: the exit code, any failing one's.
    Over(i32),
    /// Processes failed in a way that the job cannot go on after: the exit code and what happened.
    Failed(i32, String),
    /// Too few hosts came.
    Hosts(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Report {
    Ready(Waiter),
    Success,
    Failure(i32),
}

#[derive(Clone, Debug)]
struct Place {
    slot: Slot,
    process: Process,
    report: Option<Report>,
    /// Whether it was started for this generation and has not begun to join.
    newcomer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Too few slots; since when.
    Waiting(Duration),
    /// Answers are held until newcomers join.
    Joining,
    /// Training.
    Running,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Black {
    times: u32,
    until: Option<Duration>,
}

/// The machine.
#[derive(Debug)]
pub struct Elastic {
    policy: Policy,
    unix_at_zero: i64,
    phase: Phase,
    generation: u32,
    /// Whether a generation has ever come about: before that there is no state to lose.
    established: bool,
    resets: u32,
    /// As discovered last, in the order of lines; new hosts at the end of those known before.
    available: Vec<(String, u32)>,
    discovered: bool,
    blacklist: HashMap<String, Black>,
    /// Hosts of the present assignment, in order.
    order: Vec<String>,
    places: BTreeMap<Member, Place>,
    last_process: u64,
    services: HashMap<Member, Registration>,
    /// A change that no generation has covered yet.
    pending: Option<Change>,
    notify_at: Option<Duration>,
    last_time: i32,
    /// For pauses: any number will do, the driver's is from the system.
    random: u64,
}

impl Elastic {
    /// A job that has not begun. `unix_at_zero` is the wall clock (seconds since 1970) at time zero, `random` any
    /// number.
    #[must_use]
    pub fn new(policy: Policy, unix_at_zero: i64, random: u64) -> Self {
        Self {
            policy,
            unix_at_zero,
            phase: Phase::Waiting(Duration::ZERO),
            generation: 0,
            established: false,
            resets: 0,
            available: Vec::new(),
            discovered: false,
            blacklist: HashMap::new(),
            order: Vec::new(),
            places: BTreeMap::new(),
            last_process: 0,
            services: HashMap::new(),
            pending: None,
            notify_at: None,
            last_time: 0,
            random: random | 1,
        }
    }

    /// Which generation this is; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The processes of this generation and their places.
    pub fn places(&self) -> impl Iterator<Item = (Process, &Slot)> {
        self.places.values().map(|p| (p.process, &p.slot))
    }

    /// Takes one event; appends what is to be done.
    pub fn on(&mut self, now: Duration, event: Event, out: &mut Vec<Action>) {
        if self.phase == Phase::Done {
            return;
        }
        match event {
            Event::Discovered(hosts) => self.discovered(now, hosts),
            Event::Asked(member, waiter) => self.asked(&member, waiter, out),
            Event::HungUp(waiter) => {
                let ready = Some(Report::Ready(waiter));
                self.places.values_mut().filter(|p| p.report == ready).for_each(|p| p.report = None);
            }
            Event::Joining(rank) => {
                let place = self.places.values_mut().find(|p| p.slot.rank == rank);
                place.into_iter().for_each(|p| p.newcomer = false);
            }
            Event::Registered(member, service) => {
                if self.places.contains_key(&member) {
                    self.services.insert(member, service);
                }
            }
            Event::Notified(true) => {}
            Event::Notified(false) => self.notify_at = self.notify_at.map(|at| at.min(now + REPEAT / 5)),
            Event::Ended(process, code) => self.ended(now, process, code, out),
            Event::Tick => {}
        }
        self.go_on(now, out);
    }

    /// When the next [`Event::Tick`] is due, if nothing happens before.
    #[must_use]
    pub fn next_timer(&self) -> Option<Duration> {
        let wait = match self.phase {
            Phase::Waiting(since) => Some(since + self.policy.timeout),
            Phase::Joining | Phase::Running => self.notify_at,
            Phase::Done => return None,
        };
        let returns = self.blacklist.values().filter_map(|b| b.until).filter(|u| *u != Duration::ZERO).min();
        wait.into_iter().chain(returns).min()
    }

    fn discovered(&mut self, now: Duration, hosts: Vec<(String, u32)>) {
        self.discovered = true;
        // Known hosts keep their order, new ones follow in that of their lines.
        let mut next: Vec<(String, u32)> = Vec::with_capacity(hosts.len());
        for (host, _) in &self.available {
            next.extend(hosts.iter().find(|(h, _)| h == host).cloned());
        }
        next.extend(hosts.into_iter().filter(|(h, _)| !self.available.iter().any(|(a, _)| a == h)));
        self.available = next;
        self.note_change(now);
    }

    /// Remembers what a changed host list would change.
    fn note_change(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Running | Phase::Joining) {
            return;
        }
        let next = self.next_assignment();
        if next.len() < self.policy.min_np as usize {
            return;
        }
        let members: HashSet<&Member> = next.iter().map(|s| &s.member).collect();
        let added = members.iter().any(|m| !self.places.contains_key(*m));
        let removed = self.places.keys().any(|m| !members.contains(m));
        let change = match (added, removed) {
            (false, false) => {
                (self.pending, self.notify_at) = (None, None);
                return;
            }
            (true, false) => Change::Added,
            (false, true) => Change::Removed,
            (true, true) => Change::Mixed,
        };
        let news = self.pending != Some(change);
        self.pending = Some(self.pending.map_or(change, |old| old.and(change)));
        if news || self.notify_at.is_none() {
            self.notify_at = Some(now);
        }
    }

    /// Hosts that may be used: those of the present assignment first, in its order.
    fn usable(&self) -> Vec<(String, u32)> {
        let free = |(host, _): &&(String, u32)| {
            self.blacklist.get(host).is_none_or(|b| b.until == Some(Duration::ZERO))
        };
        let mut list: Vec<(String, u32)> = Vec::new();
        for host in &self.order {
            list.extend(self.available.iter().filter(free).find(|(h, _)| h == host).cloned());
        }
        let known = |h: &String| self.order.contains(h);
        list.extend(self.available.iter().filter(free).filter(|(h, _)| !known(h)).cloned());
        list
    }

    fn next_assignment(&self) -> Vec<Slot> {
        assign(&self.usable(), self.policy.max_np.unwrap_or(u32::MAX))
    }

    fn asked(&mut self, member: &Member, waiter: Waiter, out: &mut Vec<Action>) {
        match self.places.get_mut(member) {
            Some(place) => match place.report {
                None => place.report = Some(Report::Ready(waiter)),
                // The same process asks again: its first connection was lost.
                Some(Report::Ready(old)) if old != waiter => {
                    place.report = Some(Report::Ready(waiter));
                    out.push(Action::Answer(old, NOT_IN_IT.to_owned()));
                }
                Some(Report::Ready(_) | Report::Success | Report::Failure(_)) => {
                    out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
                }
            },
            None => out.push(Action::Answer(waiter, NOT_IN_IT.to_owned())),
        }
    }

    fn ended(&mut self, now: Duration, process: Process, code: i32, out: &mut Vec<Action>) {
        let Some((member, place)) = self.places.iter_mut().find(|(_, p)| p.process == process) else {
            return;
        };
        let member = member.clone();
        if matches!(place.report, Some(Report::Success | Report::Failure(_))) {
            return;
        }
        if let Some(Report::Ready(waiter)) = place.report {
            // Nobody reads it any more.
            out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
        }
        let early = place.newcomer && code != 0;
        place.report = Some(if code == 0 { Report::Success } else { Report::Failure(code) });
        place.newcomer = false;
        self.services.remove(&member);
        if early && self.phase == Phase::Joining {
            self.never_came(now, &member, code, out);
        }
    }

    /// A newcomer has died before it joined: the generation is given up before anyone else was told of it. Other
    /// newcomers have nothing to lose and are started again; members that wait go on waiting. A job that never
    /// began ends when the other hosts cannot hold it: a program that fails at once does so everywhere.
    fn never_came(&mut self, now: Duration, member: &Member, code: i32, out: &mut Vec<Action>) {
        self.blacken(now, &member.host, code, out);
        let waits = |p: &Place| matches!(p.report, Some(Report::Ready(_)));
        let fresh: Vec<Member> = self
            .places
            .iter()
            .filter(|(m, p)| m.host == member.host || !waits(p))
            .map(|(m, _)| m.clone())
            .collect();
        for gone in fresh {
            let Some(place) = self.places.remove(&gone) else { continue };
            match place.report {
                None => out.push(Action::Kill(place.process)),
                Some(Report::Ready(waiter)) => {
                    out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
                    out.push(Action::Kill(place.process));
                }
                Some(Report::Success | Report::Failure(_)) => {}
            }
        }
        self.phase = Phase::Waiting(now);
        if !self.established && self.next_assignment().len() < self.policy.np as usize {
            self.done(End::Failed(code, format!("{member} failed before the job began")), out);
        }
    }

    /// A host has failed: it is out, for a while or for good.
    fn blacken(&mut self, now: Duration, host: &str, code: i32, out: &mut Vec<Action>) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        #[expect(clippy::cast_precision_loss, reason = "a fraction for a pause")]
        let fraction = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        let entry = self.blacklist.entry(host.to_owned()).or_insert(Black { times: 0, until: None });
        if entry.until.is_some_and(|until| until == Duration::ZERO) || entry.times == 0 {
            let pause = self.policy.cooldown.map(|(low, high)| {
                let grown = low.saturating_mul(1 << entry.times.min(20)) + low.mul_f64(fraction);
                grown.clamp(low, high.max(low))
            });
            entry.times += 1;
            entry.until = pause.map(|p| now + p);
            let back =
                pause.map_or_else(|| "for good".to_owned(), |p| format!("for {:.0} s", p.as_secs_f64()));
            out.push(Action::Note(format!("host {host} failed (exit code {code}) and is left out {back}")));
        }
    }

    /// Looks whether the next step can be made.
    fn go_on(&mut self, now: Duration, out: &mut Vec<Action>) {
        for (_, black) in self.blacklist.iter_mut() {
            if black.until.is_some_and(|until| until != Duration::ZERO && until <= now) {
                black.until = Some(Duration::ZERO);
            }
        }
        if self.phase == Phase::Joining && self.places.values().all(|p| !p.newcomer) {
            self.release(out);
        }
        let reported = !self.places.is_empty() && self.places.values().all(|p| p.report.is_some());
        if self.phase == Phase::Running && reported {
            self.over(now, out);
        }
        if let Phase::Waiting(since) = self.phase {
            self.try_assign(now, since, out);
        }
        if matches!(self.phase, Phase::Running) {
            self.notify(now, out);
        }
    }

    /// All newcomers have begun to join: those that wait are told who they are.
    fn release(&mut self, out: &mut Vec<Action>) {
        for place in self.places.values_mut() {
            if let Some(Report::Ready(waiter)) = place.report {
                out.push(Action::Answer(waiter, place.slot.answer()));
                place.report = None;
            }
        }
        self.established = true;
        self.phase = Phase::Running;
    }

    /// Every member of the generation has reported.
    fn over(&mut self, now: Duration, out: &mut Vec<Action>) {
        let codes = self.places.values().filter_map(|p| match p.report {
            Some(Report::Failure(code)) => Some(code),
            _ => None,
        });
        let worst = codes.clone().max_by_key(|c| *c != 0).unwrap_or(0);
        let failed = codes.count();
        if self.places.values().any(|p| p.report == Some(Report::Success)) {
            return self.done(End::Over(worst), out);
        }
        if failed == self.places.len() {
            return self.done(End::Failed(worst, "all ranks have failed".to_owned()), out);
        }
        let bad: Vec<(String, i32)> = self
            .places
            .iter()
            .filter_map(|(m, p)| {
                if let Some(Report::Failure(c)) = p.report { Some((m.host.clone(), c)) } else { None }
            })
            .collect();
        for (host, code) in &bad {
            self.blacken(now, host, *code, out);
        }
        // Members on a host that failed are ended whatever they reported.
        let out_of_it: Vec<Member> =
            self.places.keys().filter(|m| bad.iter().any(|(h, _)| *h == m.host)).cloned().collect();
        for member in out_of_it {
            if let Some(place) = self.places.remove(&member)
                && let Some(Report::Ready(waiter)) = place.report
            {
                out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
                out.push(Action::Kill(place.process));
            }
        }
        if self.policy.reset_limit.is_some_and(|limit| self.resets >= limit) {
            let limit = self.policy.reset_limit.unwrap_or_default();
            let what = format!("the number of resets has exceeded its limit of {limit}");
            return self.done(End::Failed(1, what), out);
        }
        self.resets += 1;
        self.phase = Phase::Waiting(now);
    }

    fn try_assign(&mut self, now: Duration, since: Duration, out: &mut Vec<Action>) {
        let first = !self.established;
        let need = if first { self.policy.np } else { self.policy.min_np };
        let slots = self.next_assignment();
        let enough = self.discovered && !slots.is_empty() && slots.len() >= need as usize;
        if !enough {
            if now >= since + self.policy.timeout {
                let have = slots.len();
                let what = format!(
                    "{have} of {need} slots after {:.0} s: no more hosts have come (--elastic-timeout)",
                    self.policy.timeout.as_secs_f64()
                );
                self.done(End::Hosts(what), out);
            } else if slots.is_empty() && !self.blacklist.is_empty() && self.policy.cooldown.is_none() {
                self.done(End::Failed(1, "all hosts have failed".to_owned()), out);
            }
            return;
        }
        let stays = slots.iter().any(|s| self.places.contains_key(&s.member));
        if !first && !stays {
            return self.done(End::Hosts("no host of the last generation is left".to_owned()), out);
        }
        self.begin(&slots, out);
    }

    fn begin(&mut self, slots: &[Slot], out: &mut Vec<Action>) {
        self.generation += 1;
        (self.pending, self.notify_at) = (None, None);
        out.push(Action::Reset(scopes(slots)));
        let mut old = std::mem::take(&mut self.places);
        let mut started = 0;
        for slot in slots {
            let place = match old.remove(&slot.member) {
                Some(place) => Place { slot: slot.clone(), newcomer: false, ..place },
                None => {
                    self.last_process += 1;
                    let process = Process(self.last_process);
                    out.push(Action::Start(process, slot.clone()));
                    started += 1;
                    self.services.remove(&slot.member);
                    Place { slot: slot.clone(), process, report: None, newcomer: true }
                }
            };
            self.places.insert(slot.member.clone(), place);
        }
        for (member, place) in old {
            self.services.remove(&member);
            if let Some(Report::Ready(waiter)) = place.report {
                out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
            }
        }
        self.order.clear();
        for slot in slots {
            if self.order.last() != Some(&slot.member.host) {
                self.order.push(slot.member.host.clone());
            }
        }
        if self.generation > 1 {
            out.push(Action::Note(format!(
                "generation {}: {} ranks, {started} of them new",
                self.generation,
                slots.len()
            )));
        }
        self.phase = Phase::Joining;
        if started == 0 {
            self.release(out);
        }
    }

    /// Tells rank 0 of a change, again and again until a generation covers it: workers that are resetting lose it.
    fn notify(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (Some(change), Some(at)) = (self.pending, self.notify_at) else { return };
        if now < at || self.places.values().any(|p| p.report.is_some()) {
            // Someone is resetting already, or has ended: a generation will come of itself.
            return;
        }
        let first = self.places.values().find(|p| p.slot.rank == 0).map(|p| p.slot.member.clone());
        let Some(service) = first.and_then(|m| self.services.get(&m)) else { return };
        let unix = self.unix_at_zero.saturating_add(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.last_time = i32::try_from(unix).unwrap_or(i32::MAX).max(self.last_time.saturating_add(1));
        self.notify_at = Some(now + REPEAT);
        out.push(Action::Notify(service.clone(), self.last_time, change));
    }

    fn done(&mut self, end: End, out: &mut Vec<Action>) {
        self.phase = Phase::Done;
        for place in self.places.values() {
            if let Some(Report::Ready(waiter)) = place.report {
                out.push(Action::Answer(waiter, NOT_IN_IT.to_owned()));
            }
        }
        out.push(Action::Done(end));
    }
}

#[cfg(test)]
#[path = "elastic_tests.rs"]
mod tests;
