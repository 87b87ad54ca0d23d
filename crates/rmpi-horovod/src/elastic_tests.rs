//! Courses of elastic jobs, as they were seen with real Horovod, and a model that throws everything at the machine.

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn policy(np: u32, min: u32, max: u32) -> Policy {
    Policy { np, min_np: min, max_np: Some(max), timeout: s(600), reset_limit: None, cooldown: None }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hosts(list: &[(&str, u32)]) -> Event {
    Event::Discovered(list.iter().map(|(h, n)| ((*h).to_owned(), *n)).collect())
}

fn member(host: &str, local: u32) -> Member {
    Member { host: host.into(), local }
}

fn service() -> Registration {
    Registration { addresses: vec![(Ipv4Addr::LOCALHOST, 7)], key: vec![1; 32] }
}

struct Job {
    machine: Elastic,
    started: Vec<(Process, Slot)>,
}

impl Job {
    fn new(policy: Policy) -> Self {
        Self { machine: Elastic::new(policy, 1000, 7), started: Vec::new() }
    }

    fn on(&mut self, at: u64, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.on(s(at), event, &mut out);
        for action in &out {
            if let Action::Start(process, slot) = action {
                self.started.push((*process, slot.clone()));
            }
        }
        out
    }

    /// All that were started join.
    fn join(&mut self, at: u64) -> Vec<Action> {
        let ranks: Vec<u32> =
            self.machine.places.values().filter(|p| p.newcomer).map(|p| p.slot.rank).collect();
        ranks.into_iter().flat_map(|r| self.on(at, Event::Joining(r))).collect()
    }

    fn process(&self, host: &str, local: u32) -> Process {
        self.started.iter().rev().find(|(_, s)| s.member == member(host, local)).unwrap().0
    }
}

fn starts(actions: &[Action]) -> Vec<(String, u32)> {
    let start = |a: &Action| match a {
        Action::Start(_, slot) => Some((slot.member.to_string(), slot.rank)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

#[test]
fn nothing_starts_before_there_are_enough_slots() {
    let mut job = Job::new(policy(2, 2, 2));
    assert!(job.on(0, hosts(&[])).is_empty());
    assert!(job.on(1, hosts(&[("a", 1)])).is_empty());
    let out = job.on(2, hosts(&[("a", 1), ("b", 4)]));
    assert_eq!(starts(&out), [("a:0".into(), 0), ("b:0".into(), 1)]);
    assert!(matches!(&out[0], Action::Reset(sizes) if sizes.contains(&("global".into(), 2))));
}

#[test]
fn too_few_slots_for_too_long_end_the_job() {
    let mut job = Job::new(policy(2, 2, 2));
    job.on(0, hosts(&[("a", 1)]));
    assert_eq!(job.machine.next_timer(), Some(s(600)));
    assert!(job.on(599, Event::Tick).is_empty());
    let out = job.on(600, Event::Tick);
    assert!(
        matches!(&out[..], [Action::Done(End::Hosts(what))] if what.starts_with("1 of 2 slots after 600 s")),
        "{out:?}"
    );
    assert!(job.on(601, hosts(&[("a", 2)])).is_empty());
}

/// Grown from one to two by discovery: the survivor is answered when the newcomer joins, not before.
#[test]
fn a_job_grows_and_survivors_wait_for_newcomers() {
    let mut job = Job::new(policy(1, 1, 2));
    job.on(0, hosts(&[("a", 1)]));
    assert!(job.join(1).is_empty());
    job.on(2, Event::Registered(member("a", 0), service()));
    let out = job.on(3, hosts(&[("a", 1), ("b", 1)]));
    assert_eq!(out, [Action::Notify(service(), 1003, Change::Added)]);
    // It is lost while the worker resets, and sent again with a later time.
    assert!(job.on(4, Event::Notified(true)).is_empty());
    assert!(job.on(7, Event::Tick).is_empty());
    assert_eq!(job.on(8, Event::Tick), [Action::Notify(service(), 1008, Change::Added)]);
    let out = job.on(9, Event::Asked(member("a", 0), Waiter(1)));
    assert_eq!(starts(&out), [("b:0".into(), 1)]);
    assert!(!out.iter().any(|a| matches!(a, Action::Answer(..))), "held: {out:?}");
    assert_eq!(job.on(20, Event::Joining(1)), [Action::Answer(Waiter(1), "0,2,0,1,0,2".into())]);
    assert!(job.on(21, Event::Tick).is_empty(), "the change is covered");
}

#[test]
fn a_dead_rank_costs_its_host_and_the_rest_goes_on() {
    let mut job = Job::new(policy(2, 1, 2));
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    job.join(1);
    assert!(job.on(2, Event::Asked(member("a", 0), Waiter(1))).is_empty());
    let out = job.on(3, Event::Ended(job.process("b", 0), 137));
    assert!(
        matches!(&out[0], Action::Note(t) if t == "host b failed (exit code 137) and is left out for good"),
        "{out:?}"
    );
    assert!(out.contains(&Action::Answer(Waiter(1), "0,1,0,1,0,1".into())), "{out:?}");
    // It is not asked to come back.
    assert!(job.on(4, hosts(&[("a", 1), ("b", 1)])).is_empty());
    assert_eq!(job.on(5, Event::Ended(job.process("a", 0), 0)), [Action::Done(End::Over(0))]);
}

/// Three ranks on two hosts; one host dies and another comes at the same moment.
#[test]
fn a_dead_host_is_replaced() {
    let mut job = Job::new(policy(3, 3, 3));
    job.on(0, hosts(&[("a", 2), ("b", 1)]));
    job.join(1);
    job.on(2, Event::Ended(job.process("b", 0), 1));
    job.on(2, hosts(&[("a", 2), ("c", 1)]));
    job.on(3, Event::Asked(member("a", 0), Waiter(1)));
    let out = job.on(3, Event::Asked(member("a", 1), Waiter(2)));
    assert_eq!(starts(&out), [("c:0".into(), 2)]);
    let out = job.join(4);
    assert_eq!(out.len(), 2);
    assert!(out.contains(&Action::Answer(Waiter(2), "1,3,1,2,0,1".into())), "{out:?}");
}

#[test]
fn a_host_that_leaves_discovery_is_told_it_is_out() {
    let mut job = Job::new(policy(2, 1, 2));
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    job.join(1);
    job.on(1, Event::Registered(member("a", 0), service()));
    let out = job.on(2, hosts(&[("a", 1)]));
    assert_eq!(out, [Action::Notify(service(), 1002, Change::Removed)]);
    job.on(3, Event::Asked(member("b", 0), Waiter(2)));
    let out = job.on(3, Event::Asked(member("a", 0), Waiter(1)));
    assert!(out.contains(&Action::Answer(Waiter(2), NOT_IN_IT.into())), "{out:?}");
    assert!(out.contains(&Action::Answer(Waiter(1), "0,1,0,1,0,1".into())), "{out:?}");
    assert!(job.on(4, Event::Ended(job.process("b", 0), 1)).is_empty(), "its end means nothing any more");
}

#[test]
fn a_newcomer_that_dies_early_is_replaced_unnoticed() {
    let mut job = Job::new(policy(1, 1, 3));
    job.on(0, hosts(&[("a", 1)]));
    job.join(1);
    job.on(2, hosts(&[("a", 1), ("b", 1), ("c", 1)]));
    let out = job.on(3, Event::Asked(member("a", 0), Waiter(1)));
    assert_eq!(starts(&out).len(), 2);
    let out = job.on(4, Event::Ended(job.process("b", 0), 1));
    assert!(out.contains(&Action::Kill(Process(3))), "{out:?}");
    assert_eq!(starts(&out), [("c:0".into(), 1)]);
    assert_eq!(job.join(5), [Action::Answer(Waiter(1), "0,2,0,1,0,2".into())]);
}

#[test]
fn a_program_that_fails_at_once_ends_the_job() {
    let mut job = Job::new(policy(2, 2, 2));
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    let out = job.on(1, Event::Ended(job.process("b", 0), 3));
    assert!(matches!(out.last(), Some(Action::Done(End::Failed(3, _)))), "{out:?}");
    assert!(out.contains(&Action::Kill(job.process("a", 0))), "{out:?}");
    let mut job = Job::new(policy(2, 2, 2));
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    job.on(1, Event::Ended(job.process("b", 0), 0));
    assert_eq!(job.on(1, Event::Ended(job.process("a", 0), 0)), [Action::Done(End::Over(0))]);
}

#[test]
fn resets_have_a_limit_and_failed_hosts_may_return() {
    let limited = Policy { reset_limit: Some(0), ..policy(2, 1, 2) };
    let mut job = Job::new(limited);
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    job.join(1);
    job.on(2, Event::Asked(member("a", 0), Waiter(1)));
    let out = job.on(3, Event::Ended(job.process("b", 0), 1));
    assert!(matches!(out.last(), Some(Action::Done(End::Failed(1, t))) if t.contains("resets")), "{out:?}");

    let cool = Policy { cooldown: Some((s(10), s(15))), ..policy(2, 1, 2) };
    let mut job = Job::new(cool);
    job.on(0, hosts(&[("a", 1), ("b", 1)]));
    job.join(1);
    job.on(2, Event::Asked(member("a", 0), Waiter(1)));
    job.on(2, Event::Registered(member("a", 0), service()));
    job.on(3, Event::Ended(job.process("b", 0), 1));
    let due = job.machine.next_timer().unwrap();
    assert!((s(13)..=s(18)).contains(&due), "{due:?}");
    assert!(job.on(12, hosts(&[("a", 1), ("b", 1)])).is_empty());
    job.on(19, Event::Tick);
    let out = job.on(20, hosts(&[("a", 1), ("b", 1)]));
    assert!(matches!(&out[..], [Action::Notify(_, _, Change::Added)]), "{out:?}");
}

#[test]
fn an_empty_list_means_no_hosts_at_the_moment() {
    let mut job = Job::new(policy(1, 1, 2));
    job.on(0, hosts(&[("a", 1)]));
    job.join(1);
    assert!(job.on(2, hosts(&[])).is_empty(), "the job goes on: too few slots for anything else");
    assert_eq!(job.on(3, Event::Ended(job.process("a", 0), 0)), [Action::Done(End::Over(0))]);
}

#[derive(Clone, Debug)]
enum Step {
    Hosts(Vec<u32>),
    Ask(usize),
    End(usize, bool),
    Join,
    Register(usize),
    Wait(u64),
    HangUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(0u32..3, 4).prop_map(Step::Hosts),
        (0usize..8).prop_map(Step::Ask),
        (0usize..8, proptest::bool::weighted(0.2)).prop_map(|(i, ok)| Step::End(i, ok)),
        Just(Step::Join),
        (0usize..8).prop_map(Step::Register),
        (0u64..700).prop_map(Step::Wait),
        Just(Step::HangUp),
    ]
}

/// What the world knows: which processes live, who waits.
#[derive(Default)]
struct World {
    alive: BTreeMap<Process, Member>,
    waiting: HashSet<u64>,
    done: bool,
}

impl World {
    fn check(&mut self, machine: &Elastic, actions: &[Action]) {
        for action in actions {
            assert!(!self.done, "{action:?} after the end");
            match action {
                Action::Start(process, slot) => {
                    assert!(!self.alive.contains_key(process), "{process:?} twice");
                    let black = machine.blacklist.get(&slot.member.host);
                    assert!(
                        black.is_none_or(|b| b.until == Some(Duration::ZERO)),
                        "{slot:?} on a failed host"
                    );
                    self.alive.insert(*process, slot.member.clone());
                }
                Action::Kill(process) => drop(self.alive.remove(process)),
                Action::Answer(waiter, _) => {
                    assert!(self.waiting.remove(&waiter.0), "{waiter:?} answered twice, or never asked");
                }
                Action::Done(..) => self.done = true,
                Action::Reset(_) | Action::Notify(..) | Action::Note(_) => {}
            }
        }
        if self.done {
            assert!(self.waiting.is_empty(), "{:?} wait for ever", self.waiting);
            return;
        }
        let mut ranks: Vec<u32> = machine.places.values().map(|p| p.slot.rank).collect();
        ranks.sort_unstable();
        let whole = matches!(machine.phase, Phase::Running | Phase::Joining);
        if whole {
            let size = u32::try_from(ranks.len()).unwrap();
            assert_eq!(ranks, (0..size).collect::<Vec<_>>());
            assert!(machine.places.values().all(|p| p.slot.size == size));
            assert!(size >= machine.policy.min_np && size <= machine.policy.max_np.unwrap());
        }
        assert!(machine.next_timer().is_some() || whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_the_world_stays_whole(
        steps in proptest::collection::vec(step(), 1..80),
        np in 1u32..4, cool in any::<bool>(),
    ) {
        let cooldown = cool.then(|| (s(5), s(20)));
        let mut machine = Elastic::new(Policy { cooldown, ..policy(np, 1, 5) }, 0, 3);
        let mut world = World::default();
        let (mut now, mut waiter) = (Duration::ZERO, 0);
        for step in steps {
            let events: Vec<Event> = match step {
                Step::Hosts(slots) => {
                    let names = ["a", "b", "c", "d"];
                    let list = names.iter().zip(slots).filter(|(_, n)| *n > 0);
                    vec![Event::Discovered(list.map(|(h, n)| ((*h).to_owned(), n)).collect())]
                }
                Step::Ask(i) => match world.alive.values().nth(i).filter(|_| !world.done) {
                    Some(member) => {
                        waiter += 1;
                        world.waiting.insert(waiter);
                        vec![Event::Asked(member.clone(), Waiter(waiter))]
                    }
                    None => vec![],
                },
                Step::End(i, ok) => match world.alive.keys().nth(i).copied() {
                    Some(process) => {
                        world.alive.remove(&process);
                        vec![Event::Ended(process, if ok { 0 } else { 9 })]
                    }
                    None => vec![],
                },
                Step::Join => (0..5).map(Event::Joining).collect(),
                Step::Register(i) => {
                    let member = world.alive.values().nth(i).cloned();
                    member.map(|m| Event::Registered(m, service())).into_iter().collect()
                }
                Step::Wait(by) => {
                    now += Duration::from_millis(by * 10);
                    vec![Event::Tick]
                }
                Step::HangUp => match world.waiting.iter().next().copied() {
                    Some(waiter) => {
                        world.waiting.remove(&waiter);
                        vec![Event::HungUp(Waiter(waiter))]
                    }
                    None => vec![],
                },
            };
            for event in events {
                let mut out = Vec::new();
                machine.on(now, event, &mut out);
                world.check(&machine, &out);
            }
        }
    }
}
