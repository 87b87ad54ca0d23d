//! Carries a [`Schedule`] out over a [`Fabric`], step by step, without ever waiting.
//!
//! Messages go before arithmetic: whatever can be on its way is put on its way before the next reduction is
//! made. After an error a run is dead: it must be dropped, or its operations taken out and cancelled.

use crate::{Action, Region, Schedule};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a run needs of the world: the buffers of this call and messages to its peers.
pub trait Fabric {
    /// Why something failed.
    type Error;
    /// A message on its way.
    type Op;

    /// Starts sending `data` to `peer`. The bytes stay unchanged until the operation is done.
    ///
    /// # Errors
    /// The fabric's own.
    fn send(&mut self, peer: u32, tag: u32, data: Region) -> Result<Self::Op, Self::Error>;

    /// Starts receiving the message `tag` of `peer` into `into`, which it fills exactly.
    ///
    /// # Errors
    /// The fabric's own.
    fn recv(&mut self, peer: u32, tag: u32, into: Region) -> Result<Self::Op, Self::Error>;

    /// Whether the operation is over; not called again once it is.
    ///
    /// # Errors
    /// The fabric's own, also when the operation failed.
    fn done(&mut self, op: &mut Self::Op) -> Result<bool, Self::Error>;

    /// `dst = op(dst, src)`, element by element, in this operand order; equal lengths, no overlap.
    ///
    /// # Errors
    /// The fabric's own.
    fn reduce(&mut self, dst: Region, src: Region) -> Result<(), Self::Error>;

    /// `dst = src`; equal lengths, no overlap.
    ///
    /// # Errors
    /// The fabric's own.
    fn copy(&mut self, dst: Region, src: Region) -> Result<(), Self::Error>;
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All steps are done.
    Done,
    /// Messages are on their way.
    Pending,
}

/// One execution of a schedule. `Op` is the fabric's operation type.
#[derive(Debug)]
pub struct Run<Op> {
    schedule: Arc<Schedule>,
    waits: Vec<u32>,
    messages: VecDeque<u32>,
    compute: VecDeque<u32>,
    flying: Vec<(u32, Op)>,
    left: usize,
}

impl<Op> Run<Op> {
    /// A run at its start; nothing happens before [`Run::advance`].
    #[must_use]
    pub fn new(schedule: Arc<Schedule>) -> Self {
        let waits = schedule.waits.clone();
        let left = waits.len();
        let mut run = Self {
            schedule,
            waits,
            messages: VecDeque::new(),
            compute: VecDeque::new(),
            flying: Vec::new(),
            left,
        };
        for step in 0..u32::try_from(left).unwrap_or(u32::MAX) {
            if run.waits[step as usize] == 0 {
                run.ready(step);
            }
        }
        run
    }

    /// The schedule.
    #[must_use]
    pub fn schedule(&self) -> &Arc<Schedule> {
        &self.schedule
    }

    /// Does all that can be done now and returns at once.
    ///
    /// # Errors
    /// The fabric's first; the run is dead then.
    pub fn advance<F: Fabric<Op = Op>>(&mut self, fabric: &mut F) -> Result<Progress, F::Error> {
        loop {
            self.start_messages(fabric)?;
            let landed = self.poll(fabric)?;
            if let Some(step) = self.compute.pop_front() {
                match self.schedule.steps[step as usize] {
                    Action::Reduce { dst, src } => fabric.reduce(dst, src)?,
                    Action::Copy { dst, src } => fabric.copy(dst, src)?,
                    Action::Send { .. } | Action::Recv { .. } => {}
                }
                self.complete(step);
            } else if self.left == 0 {
                return Ok(Progress::Done);
            } else if !landed && self.messages.is_empty() {
                return Ok(Progress::Pending);
            }
        }
    }

    /// The operations still on their way, to cancel them.
    pub fn into_operations(self) -> impl Iterator<Item = Op> {
        self.flying.into_iter().map(|(_, op)| op)
    }

    fn start_messages<F: Fabric<Op = Op>>(&mut self, fabric: &mut F) -> Result<(), F::Error> {
        while let Some(step) = self.messages.pop_front() {
            let op = match self.schedule.steps[step as usize] {
                Action::Send { peer, tag, data } => fabric.send(peer, tag, data)?,
                Action::Recv { peer, tag, into } => fabric.recv(peer, tag, into)?,
                Action::Reduce { .. } | Action::Copy { .. } => continue,
            };
            self.flying.push((step, op));
        }
        Ok(())
    }

    /// Looks at each message once; whether any is over.
    fn poll<F: Fabric<Op = Op>>(&mut self, fabric: &mut F) -> Result<bool, F::Error> {
        let mut landed = false;
        let mut i = 0;
        while i < self.flying.len() {
            if fabric.done(&mut self.flying[i].1)? {
                let (step, _) = self.flying.swap_remove(i);
                self.complete(step);
                landed = true;
            } else {
                i += 1;
            }
        }
        Ok(landed)
    }

    fn ready(&mut self, step: u32) {
        match self.schedule.steps[step as usize] {
            Action::Send { .. } | Action::Recv { .. } => self.messages.push_back(step),
            Action::Reduce { .. } | Action::Copy { .. } => self.compute.push_back(step),
        }
    }

    fn complete(&mut self, step: u32) {
        self.left -= 1;
        let schedule = Arc::clone(&self.schedule);
        for &next in schedule.dependents(step as usize) {
            let waits = &mut self.waits[next as usize];
            *waits -= 1;
            if *waits == 0 {
                self.ready(next);
            }
        }
    }
}
