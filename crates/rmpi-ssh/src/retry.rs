//! When to try a host again: a pure schedule. Waiting and counting belong to the launcher.

use std::time::Duration;

/// Longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(4);

/// The pause before attempt `attempt` (the first is 0 and waits for nothing): 1, 2, 4, 4, ... seconds.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(2)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let secs: Vec<u64> = (0..6).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(secs, [0, 1, 2, 4, 4, 4]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
