//! Prefix reductions: rank r's [`Buffer::Output`] gets the combination of [`Buffer::Input`] of the ranks up
//! to r ([`scan`]) or before r ([`exscan`]; rank 0's output is left as it is). In rank order always.

use super::Scan;
use crate::{Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Inclusive scan of `elems`.
///
/// # Errors
/// When the data cannot fit in memory.
pub fn scan(team: Team, elems: Elems, algorithm: Scan) -> Result<Schedule, PlanError> {
    let mut b = Builder::new(team, elems.size);
    let (input, output) = buffers(elems)?;
    match algorithm {
        Scan::Linear => {
            if team.rank == 0 {
                b.copy(output, input);
            } else {
                b.recv(team.rank - 1, output);
                b.reduce(output, input);
            }
            if team.rank + 1 < team.size {
                b.send(team.rank + 1, output);
            }
        }
        Scan::RecursiveDoubling => {
            b.copy(output, input);
            let sum = doubling(&mut b, team, 0, output);
            b.copy(output, sum);
        }
    }
    Ok(b.finish())
}

/// Exclusive scan of `elems`.
///
/// # Errors
/// When the data cannot fit in memory.
pub fn exscan(team: Team, elems: Elems, algorithm: Scan) -> Result<Schedule, PlanError> {
    let mut b = Builder::new(team, elems.size);
    let (input, output) = buffers(elems)?;
    let follows = team.rank + 1 < team.size;
    match algorithm {
        Scan::Linear => {
            if team.rank > 0 {
                b.recv(team.rank - 1, output);
            }
            if follows {
                let mut sum = input;
                if team.rank > 0 {
                    sum = b.scratch(input.len);
                    b.copy(sum, output);
                    b.reduce(sum, input);
                }
                b.send(team.rank + 1, sum);
            }
        }
        Scan::RecursiveDoubling => {
            if follows {
                b.send(team.rank + 1, input);
            }
            if team.rank > 0 {
                b.recv(team.rank - 1, output);
                let sum = doubling(&mut b, team, 1, output);
                b.copy(output, sum);
            }
        }
    }
    Ok(b.finish())
}

fn buffers(elems: Elems) -> Result<(Region, Region), PlanError> {
    let n = elems.bytes()?;
    Ok((Region::new(Buffer::Input, 0, n), Region::new(Buffer::Output, 0, n)))
}

/// Inclusive scan of what the ranks from `first` on have in `sum`; returns where the result is. After the
/// round of distance d a rank holds the combination of itself and the 2d − 1 ranks before it.
fn doubling(b: &mut Builder, team: Team, first: u32, mut sum: Region) -> Region {
    let mut spare = b.scratch(sum.len);
    let mut distance = 1;
    while distance < team.size - first {
        if team.rank + distance < team.size {
            b.send(team.rank + distance, sum);
        }
        if team.rank >= first + distance {
            b.recv(team.rank - distance, spare);
            b.reduce(spare, sum);
            std::mem::swap(&mut sum, &mut spare);
        }
        distance *= 2;
    }
    sum
}
