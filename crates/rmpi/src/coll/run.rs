//! Carrying calls out: on borrowed buffers until they are done, or as tasks on owned ones; in shared memory, over
//! messages, or in two levels.
//!
//! A collective that fails gives up the communicator's collective context and tells the other members, so that
//! a failure seen by one rank's neighbours ends the call everywhere.

use super::ask::{Ask, Shape};
use super::fabric::{Bench, Flying, Wire, first_tag};
use super::node::{Node, Place, Step};
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::p2p::Status;
use crate::request::Request;
use rmpi_coll::node::{Buffers, Call, Group, Kind, Pass, Window};
use rmpi_coll::select::Level;
use rmpi_coll::{Progress, Run, Schedule};
use rmpi_core::{Arena, Core, Fault, Finished, Memory, Task};
use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Kept pieces of scratch memory.
const MAX_SCRATCH: usize = 4;
/// Kept schedules of a communicator, and the most steps of one that is kept.
const MAX_PLANS: usize = 64;

/// Which ranks of a communicator a schedule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    /// One of each node.
    Leaders,
    /// Those with this one's number on their nodes.
    Peers,
    /// All, in two levels of messages.
    Levels,
}

impl Communicator {
    /// Gives up the collectives of this communicator from the next call on.
    pub(crate) fn give_up(&self, core: &mut Core, error: &Error) {
        if let Some(culprit) = error.culprit() {
            // A call in two levels has drawn its number already; others give up one more call, which is over.
            let number = self.shared.calls.load(Ordering::Relaxed).wrapping_sub(1);
            core.revoke(self.context + 1, first_tag(number), culprit, &self.group);
        }
    }

    /// A number for the next call over messages; all members draw alike.
    pub(crate) fn draw(&self) -> u32 {
        self.shared.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn wire(&self, ask: &Ask<'_>, scope: Scope, group: &Arc<[u32]>, number: u32) -> Wire {
        // Ranks that go about it in different ways must notice.
        let way = match scope {
            Scope::All => 0,
            Scope::Leaders => 0x5500,
            Scope::Peers => 0xaa00,
            Scope::Levels => 0x3c00,
        };
        let (call, check, reducer) = (ask.name(), ask.check() ^ way, ask.reducer.clone());
        // Two ranks who exchange something, or of whom one tells the other, are both there, or one comes soon; more than two
        // may be far apart.
        let soon =
            matches!(ask.shape, Shape::Allreduce { .. } | Shape::Allgather { .. } | Shape::Bcast { .. });
        let awaited = group.len() == 2 && soon;
        Wire { call, group: group.clone(), context: self.context + 1, number, check, reducer, awaited }
    }

    /// The schedule that `make` makes, or a kept one.
    pub(crate) fn planned(
        &self,
        ask: &Ask<'_>,
        scope: Scope,
        make: impl FnOnce() -> Result<Schedule, Error>,
    ) -> Result<Arc<Schedule>, Error> {
        let Some(key) = ask.key() else { return Ok(Arc::new(make()?)) };
        let mut plans = self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&(key, scope)) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(make()?);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert((key, scope), plan.clone());
        Ok(plan)
    }

    /// Makes what a call needs that can be made before.
    pub(crate) fn prepare(&self, ask: &Ask<'_>) -> Result<(), Error> {
        match self.level(ask) {
            Level::Node => ask.in_memory(self.group.len()).map(drop),
            level => self.scheduled(ask, level).map(drop),
        }
    }

    /// Where a call runs.
    #[inline]
    fn level(&self, ask: &Ask<'_>) -> Level {
        match self.selector.level(ask.collective(), ask.weight(self.group.len()), ask.commutes) {
            // Not all ranks know all sizes.
            Level::TwoLevel if !ask.has_two_levels() => Level::Flat,
            level => level,
        }
    }

    /// The schedule over messages, in two levels or flat, and which ranks it is for.
    fn scheduled(&self, ask: &Ask<'_>, level: Level) -> Result<(Arc<Schedule>, Scope), Error> {
        let scope = match (level, &self.shared.levels) {
            (Level::TwoLevel, Some(_)) => Scope::Levels,
            _ => Scope::All,
        };
        let plan = self.planned(ask, scope, || match (scope, &self.shared.levels) {
            (Scope::Levels, Some(levels)) => ask.schedule_in_two(self, levels),
            _ => ask.schedule(self),
        })?;
        Ok((plan, scope))
    }

    /// Words for `bytes` of scratch memory, contents arbitrary.
    pub(crate) fn scratch(&self, bytes: usize) -> Vec<u64> {
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

    pub(crate) fn keep_scratch(&self, scratch: Vec<u64>) {
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

    /// Carries a call out to its end. Without `input` the contribution is in `output`.
    pub(crate) fn carry<T: Datatype>(
        &self,
        ask: &Ask<'_>,
        input: Option<&[T]>,
        output: &mut [T],
    ) -> Result<(), Error> {
        self.carry_at(ask, input, output, None)
    }

    /// The same with an output that the ranks of the node find at `at`, if so.
    pub(crate) fn carry_at<T: Datatype>(
        &self,
        ask: &Ask<'_>,
        input: Option<&[T]>,
        output: &mut [T],
        at: Option<u64>,
    ) -> Result<(), Error> {
        if self.inner.explains {
            self.tell(ask);
        }
        let mut buffers =
            Buffers { input: input.map(bytemuck::cast_slice), output: bytemuck::cast_slice_mut(output) };
        if self.group.len() == 1 && ask.alone(&mut buffers) {
            return Ok(());
        }
        let level = self.level(ask);
        match (level, &self.shared.node) {
            (Level::Node, Some(node)) => {
                let mut begun = None;
                if ask.is_round() && buffers.output.len() <= Group::<Window>::SMALL {
                    let digest = ask.digest() ^ at.map_or(0, |_| SHARED);
                    begun = self.in_slots(node, ask, digest, &mut buffers)?;
                    if begun.is_none() {
                        return Ok(());
                    }
                }
                if let Some(call) = ask.in_memory(self.group.len())? {
                    return self.in_memory(node, ask.name(), &placed(call, at), &mut buffers, begun);
                }
            }
            (Level::TwoLevel, _) => {
                if let Some(levels) = self.shared.levels.as_ref().filter(|_| ask.in_nodes_memory()) {
                    return self.in_two_levels(levels, ask, &mut buffers);
                }
            }
            _ => {}
        }
        if level == Level::Flat && self.is_one_message(ask) {
            return self.in_one_message(ask, &mut buffers);
        }
        let (schedule, scope) = self.scheduled(ask, level)?;
        let wire = self.wire(ask, scope, &self.group, self.draw());
        self.over_messages(&wire, schedule, buffers.input.unwrap_or(&[]), buffers.output)
    }

    /// Runs a schedule to its end.
    pub(crate) fn over_messages(
        &self,
        wire: &Wire,
        schedule: Arc<Schedule>,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), Error> {
        let mut scratch = self.scratch(schedule.scratch_len());
        let reads: [&[u8]; 1] = [input];
        let mut writes: [&mut [u8]; 2] = [output, bytemuck::cast_slice_mut(&mut scratch)];
        let engine = &self.inner.engine;
        let mut run: Run<Flying> = Run::new(schedule);
        let result = engine.lend(&reads, &mut writes, |arena| {
            engine.block(|core| match run.advance(&mut Bench { wire, core, arena: &mut *arena }) {
                Ok(Progress::Pending) => None,
                Ok(Progress::Done) => Some(Ok(())),
                Err(e) => Some(Err(e)),
            })
        });
        match &result {
            Ok(()) => self.keep_scratch(scratch),
            Err(e) => engine.with(|core| wire.give_up(core, e, &self.group)),
        }
        result
    }

    /// Starts a call; the request gives `output` back. In two levels all of it goes over messages.
    pub(crate) fn launch<T: Datatype>(
        &self,
        ask: &Ask<'_>,
        input: Option<Vec<T>>,
        output: Vec<T>,
    ) -> Result<Request<Vec<T>>, Error> {
        self.launch_at(ask, input, output, None)
    }

    /// The same for any memory, with an output that the ranks of the node find at `at`, if so.
    pub(crate) fn launch_at<T: Datatype, B: Memory + AsRef<[T]>>(
        &self,
        ask: &Ask<'_>,
        input: Option<Vec<T>>,
        output: B,
        at: Option<u64>,
    ) -> Result<Request<B>, Error> {
        if self.inner.explains {
            self.tell(ask);
        }
        let level = self.level(ask);
        let call = match (level, &self.shared.node) {
            (Level::Node, Some(node)) => {
                ask.in_memory(self.group.len())?.map(|c| (node.begin(), placed(c, at)))
            }
            _ => None,
        };
        let task: Box<dyn Task> = match call {
            Some((pass, call)) => Box::new(InMemory {
                comm: self.clone(),
                pass,
                call,
                name: ask.name(),
                input: input.map(|i| Box::new(i) as Box<dyn Memory>),
                output: Box::new(output),
                error: None,
            }),
            None => {
                let (schedule, scope) = self.scheduled(ask, level)?;
                let scratch = self.scratch(schedule.scratch_len());
                let input = input.unwrap_or_default();
                let memories: Vec<Box<dyn Memory>> =
                    vec![Box::new(input), Box::new(output), Box::new(scratch)];
                Box::new(OverMessages {
                    wire: self.wire(ask, scope, &self.group, self.draw()),
                    group: self.group.clone(),
                    run: Run::new(schedule),
                    arena: Arena::owned(memories),
                    error: None,
                })
            }
        };
        let op = self.inner.engine.with(|core| {
            let op = core.spawn(task);
            core.progress();
            op
        });
        Ok(Request::new(self, op, finished::<T, B>))
    }
}

/// What tells the digests of calls whose outputs lie in memory that all reach from others: one who thinks otherwise notices.
const SHARED: u32 = 0x5a5a_5a5a;

/// The call where the members' outputs lie in memory that all reach.
fn placed(call: Call, at: Option<u64>) -> Call {
    match (at, call.kind) {
        (Some(at), Kind::Allreduce) => {
            Call { kind: Kind::AllreduceShared { at }, digest: call.digest ^ SHARED, ..call }
        }
        _ => call,
    }
}

/// A non-blocking collective in shared memory.
struct InMemory {
    comm: Communicator,
    pass: Pass,
    call: Call,
    name: &'static str,
    input: Option<Box<dyn Memory>>,
    output: Box<dyn Memory>,
    error: Option<Error>,
}

impl InMemory {
    fn look(&mut self, core: &mut Core) -> Result<Step, Error> {
        let lost = Error::Internal("a communicator lost its node");
        let node: &Node = self.comm.shared.node.as_ref().ok_or(lost)?;
        let input = self.input.as_mut().map(|i| &*i.bytes());
        let mut buffers = Buffers { input, output: self.output.bytes() };
        let place = Place { call: self.name, context: self.comm.context + 1, group: &self.comm.group };
        node.look_in(core, &mut self.pass, &self.call, &mut buffers, &place)
    }
}

impl Task for InMemory {
    fn poll(&mut self, core: &mut Core) -> Option<Result<(), Fault>> {
        match self.look(core) {
            Ok(Step::Done) => Some(Ok(())),
            Ok(Step::Moves | Step::Waits) => None,
            Err(e) => {
                self.comm.give_up(core, &e);
                self.error = Some(e);
                Some(Ok(()))
            }
        }
    }

    fn polled_each_round(&self) -> bool {
        true
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A non-blocking collective over messages.
struct OverMessages {
    wire: Wire,
    group: Arc<[u32]>,
    run: Run<Flying>,
    arena: Arena<'static>,
    error: Option<Error>,
}

impl Task for OverMessages {
    fn poll(&mut self, core: &mut Core) -> Option<Result<(), Fault>> {
        let Self { wire, group, run, arena, error } = self;
        match run.advance(&mut Bench { wire, core, arena }) {
            Ok(Progress::Pending) => None,
            Ok(Progress::Done) => Some(Ok(())),
            Err(e) => {
                arena.abandon(core);
                wire.give_up(core, &e, group);
                *error = Some(e);
                Some(Ok(()))
            }
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

fn finished<T: Datatype, B: Memory + AsRef<[T]>>(
    comm: &Communicator,
    (result, _): Finished,
    task: Option<Box<dyn Task>>,
) -> Result<(B, Status), Error> {
    const LOST: Error = Error::Internal("a collective lost its buffers");
    result.map_err(Error::message)?;
    let output = match task.ok_or(LOST)?.into_any().downcast::<InMemory>() {
        Ok(task) => match task.error {
            Some(e) => return Err(e),
            None => task.output,
        },
        Err(other) => {
            let task = other.downcast::<OverMessages>().map_err(|_| LOST)?;
            if let Some(e) = task.error {
                return Err(e);
            }
            let mut memories = task.arena.into_memories().ok_or(LOST)?;
            let (scratch, output) = (memories.pop().ok_or(LOST)?, memories.pop().ok_or(LOST)?);
            if let Ok(scratch) = scratch.into_any().downcast::<Vec<u64>>() {
                comm.keep_scratch(*scratch);
            }
            output
        }
    };
    let output = *output.into_any().downcast::<B>().map_err(|_| LOST)?;
    let status = Status { source: comm.rank(), tag: 0, bytes: size_of_val(output.as_ref()) as u64 };
    Ok((output, status))
}
