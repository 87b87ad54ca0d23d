//! All-to-all: block r of [`Buffer::Input`] goes to rank r, block s of [`Buffer::Output`] comes from rank s.

use crate::{Blocks, Buffer, Builder, PlanError, Schedule, StepId, Team};

/// Exchanges on their way at once. More would help little and fill the memory of slow receivers.
const WINDOW: usize = 16;

/// Pairwise exchange with blocks of any sizes: in step k with the ranks k after and k before this one. What
/// rank r sends to s must be as long as what s receives from r. (p−1) α, `WINDOW` steps at once.
///
/// # Errors
/// When there is not one block for each rank in both.
pub fn alltoall(team: Team, input: &Blocks, output: &Blocks) -> Result<Schedule, PlanError> {
    input.check(team)?;
    output.check(team)?;
    let mut b = Builder::new(team, input.elem());
    let mut steps: Vec<[Option<StepId>; 2]> = Vec::new();
    for k in 1..team.size {
        let recv = b.recv(team.before(k), output.of(Buffer::Output, team.before(k)));
        let send = b.send(team.after(k), input.of(Buffer::Input, team.after(k)));
        let earlier = steps.len().checked_sub(WINDOW).map_or([None; 2], |i| steps[i]);
        for before in earlier.into_iter().flatten() {
            [recv, send].into_iter().flatten().for_each(|later| b.order(before, later));
        }
        steps.push([recv, send]);
    }
    let (from, to) = (input.of(Buffer::Input, team.rank), output.of(Buffer::Output, team.rank));
    b.copy(to.fit(from)?, from);
    Ok(b.finish())
}
