//! Barrier: no rank leaves before all have entered.

use crate::{Builder, Schedule, StepId, Team};

/// Dissemination: in round k each rank signals the one 2^k after it, once it has heard in all rounds before.
/// lg p rounds.
#[must_use]
pub fn barrier(team: Team) -> Schedule {
    let mut b = Builder::new(team, 1);
    let mut heard: Vec<StepId> = Vec::new();
    let mut distance = 1;
    while distance < team.size {
        let sent = b.signal(team.after(distance));
        heard.iter().for_each(|&h| b.order(h, sent));
        heard.push(b.await_signal(team.before(distance)));
        distance = distance.saturating_mul(2);
    }
    b.finish()
}
