//! The steps of ending ranks: a signal, SIGTERM after a grace if it was another, SIGKILL after a grace. Says
//! what is due when; the machine does it.

use crate::signals;
use crate::time::Time;
use std::time::Duration;

/// What is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// SIGTERM.
    Term,
    /// SIGKILL to everything.
    Kill,
}

/// A stop that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    step: Step,
    at: Time,
    grace: Duration,
}

impl Stop {
    /// After `signal` was sent at `now`.
    pub(super) fn begun(signal: i32, grace: Duration, now: Time) -> Self {
        let step = if signal == signals::TERM { Step::Kill } else { Step::Term };
        Self { step, at: now + grace, grace }
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Time {
        self.at
    }

    /// Takes the step that is due, if one is; what comes after it is set up.
    pub(super) fn step(&mut self, now: Time) -> Option<Step> {
        if now < self.at {
            return None;
        }
        let step = self.step;
        self.step = Step::Kill;
        self.at = now + self.grace;
        Some(step)
    }

    /// The same stop, or one that is sooner over.
    pub(super) fn sooner(self, other: Option<Self>) -> Self {
        let end = |s: &Self| s.at + if s.step == Step::Term { s.grace } else { Duration::ZERO };
        match other {
            Some(other) if end(&other) < end(&self) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_then_term_then_kill() {
        let grace = Duration::from_secs(5);
        let mut stop = Stop::begun(signals::INT, grace, Time::ZERO);
        assert_eq!(stop.step(Time::from_millis(4999)), None);
        assert_eq!(stop.step(Time::from_millis(5000)), Some(Step::Term));
        assert_eq!(stop.step(Time::from_millis(9999)), None);
        assert_eq!(stop.step(Time::from_millis(10_000)), Some(Step::Kill));
        let term = Stop::begun(signals::TERM, grace, Time::ZERO);
        assert_eq!(stop.sooner(Some(term)).due(), Time::from_millis(5000));
    }
}
