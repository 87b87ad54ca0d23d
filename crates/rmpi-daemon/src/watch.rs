//! A guard's view of its worker: whether it has ended, and whether somebody has stopped it for too long. A stopped
//! worker notices nothing, not even that its launcher is gone, so its guard gives it up as a launcher gives up a
//! silent host.

use crate::sys::{self, Look};
use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use rmpi_types::RankEnd;
use std::io;
use std::time::{Duration, Instant};

/// A worker that has been stopped for this long counts as lost.
pub(crate) const STOPPED: Duration = Duration::from_secs(6);

/// The worker, looked at whenever the kernel says that something happened to a child, and when [`Watch::left`] is over.
#[derive(Debug)]
pub(crate) struct Watch {
    worker: i32,
    limit: Option<Instant>,
    gave_up: bool,
}

impl Watch {
    /// Of this child.
    pub(crate) fn new(worker: i32) -> Self {
        Self { worker, limit: None, gave_up: false }
    }

    /// Its end, if it has come. Ends it when it has been stopped for too long.
    ///
    /// # Errors
    /// That it is no child.
    pub(crate) fn look(&mut self) -> io::Result<Option<RankEnd>> {
        match sys::look_at(self.worker)? {
            Look::Ended(end) => return Ok(Some(end)),
            Look::Stopped => self.limit = self.limit.or_else(|| Some(Instant::now() + STOPPED)),
            Look::Continued => self.limit = None,
            Look::Same => {}
        }
        if self.limit.is_some_and(|limit| limit <= Instant::now()) {
            self.gave_up = true;
            self.limit = None;
            sys::send_signal(self.worker, Signal::SIGKILL as i32);
        }
        Ok(None)
    }

    /// How long nothing needs to be looked at if nothing happens.
    pub(crate) fn left(&self) -> PollTimeout {
        self.limit.map_or(PollTimeout::NONE, |limit| {
            let left = limit.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    /// Whether it was ended because it had been stopped.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up
    }
}
