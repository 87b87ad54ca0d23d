//! A launcher that has stopped itself may be silent for as long as it likes, but not gone for as long.

use bytes::Bytes;
use rmpi_control::{DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, LinkKind, Time};
use rmpi_wire::{Dest, Down, Message, Origin};

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
