//! How near the machine's cores are just now: a cache line sent to and fro between two threads.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 40_000;
const WARM: u32 = 4_000;
/// One way below this: the cores share a cache (about 0.05 us measured); above, they do not (about 0.25 us).
const NEAR: Duration = Duration::from_nanos(130);

/// A line of its own.
#[repr(align(128))]
struct Line(AtomicU32);

fn wait_for(line: &Line, value: u32) {
    // A single core must let the other thread run.
    let mut spins = 0u32;
    while line.0.load(Ordering::Acquire) != value {
        spins += 1;
        if spins.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        }
        spin_loop();
    }
}

/// Time of a line one way.
fn one_way() -> Duration {
    let (there, back) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    std::thread::scope(|s| {
        s.spawn(|| {
            for i in 1..=ROUNDS {
                wait_for(&there, i);
                back.0.store(i, Ordering::Release);
            }
        });
        let mut start = Instant::now();
        for i in 1..=ROUNDS {
            if i == WARM {
                start = Instant::now();
            }
            there.0.store(i, Ordering::Release);
            wait_for(&back, i);
        }
        start.elapsed() / (ROUNDS - WARM) / 2
    })
}

/// `near` or `far`.
pub(super) fn state() -> &'static str {
    if one_way() < NEAR { "near" } else { "far" }
}
