//! Running plans: on borrowed buffers until they are done, or as tasks on owned ones.
//!
//! A collective that fails gives up the communicator's collective context and tells the other members, so that
//! a failure seen by one rank's neighbours ends the call everywhere.

use super::fabric::{Bench, Flying, Wire};
use super::plans::Plan;
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::p2p::Status;
use crate::request::Request;
use rmpi_coll::{Progress, Run};
use rmpi_core::{Arena, Core, Fault, Finished, Memory, Task};
use std::any::Any;
use std::sync::PoisonError;

/// Kept pieces of scratch memory.
const MAX_SCRATCH: usize = 4;

impl Wire {
    fn give_up(&self, core: &mut Core, error: &Error) {
        if let Some(culprit) = error.culprit() {
            core.revoke(self.context, self.first_tag(), culprit, &self.group);
        }
    }
}

impl Communicator {
    fn wire(&self, plan: &Plan) -> Wire {
        let context = self.context + 1;
        let mut calls = self.inner.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let call = calls.entry(context).or_insert(0);
        let number = *call;
        *call = call.wrapping_add(1);
        let (call, check, reducer) = (plan.call, plan.check, plan.reducer.clone());
        Wire { call, group: self.group.clone(), context, number, check, reducer }
    }

    /// Words for `bytes` of scratch memory, contents arbitrary.
    fn scratch(&self, bytes: usize) -> Vec<u64> {
        let words = bytes.div_ceil(8);
        if words == 0 {
            return Vec::new();
        }
        let mut kept = self.inner.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = (0..kept.len()).filter(|&i| kept[i].len() >= words).min_by_key(|&i| kept[i].len());
        match fit {
            Some(i) => kept.swap_remove(i),
            None => vec![0; words],
        }
    }

    fn keep_scratch(&self, scratch: Vec<u64>) {
        let mut kept = self.inner.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if scratch.is_empty() {
            return;
        }
        if kept.len() == MAX_SCRATCH {
            let smallest = (0..kept.len()).min_by_key(|&i| kept[i].len());
            smallest.map(|i| kept.swap_remove(i));
        }
        kept.push(scratch);
    }

    /// Runs a plan to its end.
    pub(crate) fn run<T: Datatype>(&self, plan: &Plan, input: &[T], output: &mut [T]) -> Result<(), Error> {
        let wire = self.wire(plan);
        let mut scratch = self.scratch(plan.schedule.scratch_len());
        let reads: [&[u8]; 1] = [bytemuck::cast_slice(input)];
        let mut writes: [&mut [u8]; 2] =
            [bytemuck::cast_slice_mut(output), bytemuck::cast_slice_mut(&mut scratch)];
        let engine = &self.inner.engine;
        let mut run: Run<Flying> = Run::new(plan.schedule.clone());
        let result = engine.lend(&reads, &mut writes, |arena| {
            engine.block(|core| match run.advance(&mut Bench { wire: &wire, core, arena: &mut *arena }) {
                Ok(Progress::Pending) => None,
                Ok(Progress::Done) => Some(Ok(())),
                Err(e) => Some(Err(e)),
            })
        });
        match &result {
            Ok(()) => self.keep_scratch(scratch),
            Err(e) => engine.with(|core| wire.give_up(core, e)),
        }
        result
    }

    /// Starts a plan; the request gives `output` back.
    pub(crate) fn start<T: Datatype>(&self, plan: &Plan, input: Vec<T>, output: Vec<T>) -> Request<Vec<T>> {
        let scratch = self.scratch(plan.schedule.scratch_len());
        let memories: Vec<Box<dyn Memory>> = vec![Box::new(input), Box::new(output), Box::new(scratch)];
        let task = Collective {
            wire: self.wire(plan),
            run: Run::new(plan.schedule.clone()),
            arena: Arena::owned(memories),
            error: None,
        };
        let op = self.inner.engine.with(|core| {
            let op = core.spawn(Box::new(task));
            core.progress();
            op
        });
        Request::new(self, op, finished::<T>)
    }
}

/// A non-blocking collective.
struct Collective {
    wire: Wire,
    run: Run<Flying>,
    arena: Arena<'static>,
    error: Option<Error>,
}

impl Task for Collective {
    fn poll(&mut self, core: &mut Core) -> Option<Result<(), Fault>> {
        let Self { wire, run, arena, error } = self;
        match run.advance(&mut Bench { wire, core, arena }) {
            Ok(Progress::Pending) => None,
            Ok(Progress::Done) => Some(Ok(())),
            Err(e) => {
                arena.abandon(core);
                wire.give_up(core, &e);
                *error = Some(e);
                Some(Ok(()))
            }
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

fn finished<T: Datatype>(
    comm: &Communicator,
    (result, _): Finished,
    task: Option<Box<dyn Task>>,
) -> Result<(Vec<T>, Status), Error> {
    const LOST: Error = Error::Internal("a collective lost its buffers");
    result.map_err(Error::message)?;
    let task = task.ok_or(LOST)?.into_any().downcast::<Collective>().map_err(|_| LOST)?;
    if let Some(e) = task.error {
        return Err(e);
    }
    let mut memories = task.arena.into_memories().ok_or(LOST)?;
    let (scratch, output) = (memories.pop().ok_or(LOST)?, memories.pop().ok_or(LOST)?);
    if let Ok(scratch) = scratch.into_any().downcast::<Vec<u64>>() {
        comm.keep_scratch(*scratch);
    }
    let output = *output.into_any().downcast::<Vec<T>>().map_err(|_| LOST)?;
    let status = Status { source: comm.rank(), tag: 0, bytes: size_of_val(&output[..]) as u64 };
    Ok((output, status))
}
