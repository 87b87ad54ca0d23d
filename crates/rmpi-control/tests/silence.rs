//! How long a launcher may be silent: as long as the job's pulse says; for as long as it likes once it has stopped
//! itself, but not gone for as long. And what both ends say of it.

use bytes::Bytes;
use rmpi_control::{DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, LinkKind, Time};
use rmpi_control::{HostEntry, JobEvent, JobMachine, JobPolicy, LinkId};
use rmpi_types::NodeIdx;
use rmpi_wire::msg::Pulse;
use rmpi_wire::{Dest, Down, LinkMsg, Message, Origin};

#[test]
fn a_daemon_whose_paused_launcher_vanishes_leaves() {
    let policy = DaemonPolicy { up: LinkKind::Dialled, ..DaemonPolicy::default() };
    let mut machine = DaemonMachine::new(policy, Time::ZERO);
    let mut out = Vec::new();
    let pause = Message::Down(Down::Pause).frame(Origin::Launcher, Dest::Neighbour, Bytes::new());
    let mut pause = pause.unwrap();
    pause.seq = 1;
    machine.on(Time::ZERO, DaemonEvent::FromUp(pause), &mut out);
    let gone = Time::from_millis(60_000);
    assert_eq!(left_at(&mut machine, gone), None, "the silence of a paused launcher means nothing");
    machine.on(gone, DaemonEvent::UpEof, &mut out);
    let left = left_at(&mut machine, Time::from_millis(120_000));
    assert_eq!(left, Some(Time::from_millis(66_000)), "it has the usual time to dial again");
}

#[test]
fn a_daemon_that_hears_nothing_says_so_before_it_leaves() {
    let mut machine = DaemonMachine::new(DaemonPolicy::default(), Time::ZERO);
    let mut words = Vec::new();
    while let Some(at) = machine.next_timer() {
        let mut out = Vec::new();
        machine.on(at, DaemonEvent::Tick, &mut out);
        let sent = out.iter().filter_map(|a| if let DaemonAction::SendUp(f) = a { Some(f) } else { None });
        words.extend(sent.map(|frame| Message::of(frame).unwrap()));
        if out.iter().any(|a| matches!(a, DaemonAction::Exit)) {
            break;
        }
    }
    let why = "rmpirun gave no sign of life for 6.0 s".to_owned();
    assert_eq!(words.last(), Some(&Message::Link(LinkMsg::GivenUp { why })));
}

#[test]
fn the_launcher_names_a_daemons_reason_for_leaving() {
    let hosts = vec![HostEntry { name: "n1".into(), parent: None }];
    let mut machine = JobMachine::new(JobPolicy::default(), hosts, Time::ZERO);
    let (link, node) = (LinkId(0), NodeIdx(0));
    machine.on(Time::ZERO, JobEvent::LinkUp { link, node, kind: LinkKind::Pipe }, &mut Vec::new());
    let left = Message::Link(LinkMsg::GivenUp { why: "rmpirun gave no sign of life for 6.0 s".into() });
    let frame = left.frame(Origin::Node(node), Dest::Neighbour, Bytes::new()).unwrap();
    let mut out = Vec::new();
    machine.on(Time::ZERO, JobEvent::Frame { link, frame }, &mut out);
    let said = format!("{out:?}");
    assert!(said.contains("its daemon gave up: rmpirun gave no sign of life for 6.0 s"), "{said}");
}

#[test]
fn a_daemon_waits_as_long_as_the_jobs_pulse_says() {
    let mut machine = DaemonMachine::new(DaemonPolicy::default(), Time::ZERO);
    let pulse = Pulse { period_ms: 10_000, lost_ms: 60_000 };
    let named = Message::Link(LinkMsg::YouAre { node: NodeIdx(0), pulse });
    let named = named.frame(Origin::Launcher, Dest::Neighbour, Bytes::new()).unwrap();
    machine.on(Time::ZERO, DaemonEvent::FromUp(named), &mut Vec::new());
    assert_eq!(left_at(&mut machine, Time::from_millis(120_000)), Some(Time::from_millis(60_000)));
}

/// Ticks when the machine wants it; when it left, if it did so before `end`.
fn left_at(machine: &mut DaemonMachine, end: Time) -> Option<Time> {
    let mut out = Vec::new();
    while let Some(at) = machine.next_timer().filter(|at| *at < end) {
        machine.on(at, DaemonEvent::Tick, &mut out);
        if out.iter().any(|a| matches!(a, DaemonAction::Exit)) {
            return Some(at);
        }
    }
    None
}
