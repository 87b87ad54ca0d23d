//! The ranks of a communicator that share this node's memory: their blocks, and driving operations there.
//!
//! A blocking call looks at the memory without the engine's lock for a while, since most collectives end within a
//! microsecond; then it goes on inside the engine, so that messages move, failures are seen and the rank sleeps
//! when nothing happens.

use super::ask::Ask;
use crate::comm::Communicator;
use crate::error::Error;
use crate::world::Inner;
use rmpi_coll::node::{
    Buffers, Call, Cursor, Group, Look, Memory as _, Pass, Reach, Reading, Round, Trouble, Window,
};
use rmpi_core::Core;
use rmpi_shm::{Area, Block, Segment, Sleepers};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Looks before the engine takes over: about 30 us where each rank has a core.
const LOOKS: u32 = 1000;
/// The same where ranks share cores; each is a change of place.
const LOOKS_CROWDED: u32 = 32;

/// Groups whose blocks are mapped in whole: the mapping costs each member all members' pages.
const WARMED: usize = 16;

/// Looks inside the engine between questions whether the awaited member lives.
const LOOKS_A_CHECK: u32 = 32;

/// Where this member stands.
struct Turns {
    /// The number of the latest operation that was called for.
    begun: u64,
    cursor: Cursor,
}

impl Turns {
    /// The number of the next operation.
    #[inline]
    fn next(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// Whether all operations before `n` are over here.
    #[inline]
    fn reached(&self, n: u64) -> bool {
        self.cursor.done() + 1 == n
    }
}

/// The members of a communicator on this node.
pub(crate) struct Node {
    group: Group<Window>,
    turns: Mutex<Turns>,
    /// Local numbers on the node of the other members.
    others: Vec<u32>,
    /// Ranks of the communicator, by member.
    pub(crate) ranks: Vec<u32>,
    sleepers: Sleepers,
    /// The same blocks, to have their pages before the first large operation.
    areas: Vec<Area>,
    warm: AtomicBool,
    /// Looks inside the engine that found nothing.
    idle: AtomicU32,
    /// The awaited member seemed to have left.
    suspects: AtomicBool,
    crowded: bool,
    /// This member's block when it is a piece of the heap, to be given back.
    block: Option<(Block, Arc<Inner>)>,
}

/// Mappings of others' buffers that are kept.
const MAPPED: usize = 256;

/// The members' buffers in the segment, mapped at their first use: by member and place in its heap.
struct Heaps {
    segment: Arc<Segment>,
    locals: Vec<u32>,
    windows: Mutex<HashMap<(usize, u64), Window>>,
}

impl Heaps {
    fn new(segment: Arc<Segment>, locals: Vec<u32>) -> Self {
        Self { segment, locals, windows: Mutex::default() }
    }
}

impl std::fmt::Debug for Heaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heaps({:?})", self.locals)
    }
}

/// Reading the members' own memory, where the kernel allows it.
#[derive(Debug)]
struct Neighbours {
    segment: Arc<Segment>,
    locals: Vec<u32>,
    began: Instant,
}

impl Reading for Neighbours {
    fn offers(&self) -> bool {
        self.segment.single().offer()
    }

    fn read(&self, member: usize, at: u64, into: &mut [u8]) -> bool {
        self.locals.get(member).is_some_and(|&local| self.segment.single().read(local, at, into).is_ok())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Reach<Window> for Heaps {
    fn window(&self, member: usize, at: u64, len: usize) -> Option<Window> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get(&(member, at)).filter(|w| w.len() >= len) {
            return Some(window.clone());
        }
        let len = (len as u64).max(1).checked_next_multiple_of(4096)?;
        let local = *self.locals.get(member)?;
        let window = Window::from(self.segment.heap(local, Block { offset: at, len }).ok()?);
        if windows.len() >= MAPPED {
            windows.clear();
        }
        windows.insert((member, at), window.clone());
        Some(window)
    }
}

/// Where a block says how many other members are done with it.
const LEAVERS: usize = 32 << 10;

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} members)", self.ranks.len())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some((block, inner)) = self.block.take() else { return };
        for (r, other) in self.group.blocks().iter().enumerate() {
            if r != self.group.me() {
                other.add(LEAVERS, 1);
            }
        }
        let mine = self.group.blocks()[self.group.me()].clone();
        let others = self.ranks.len() as u64 - 1;
        inner.retired.lock().unwrap_or_else(PoisonError::into_inner).push(Retired { block, mine, others });
    }
}

/// A block that other members may still read.
pub(crate) struct Retired {
    block: Block,
    mine: Window,
    others: u64,
}

/// Members' places: local numbers, and ranks in the communicator.
pub(crate) struct Members {
    pub(crate) locals: Vec<u32>,
    pub(crate) ranks: Vec<u32>,
    me: usize,
}

impl Members {
    /// Those of `group` (ranks of the world) on this node; `None` unless there are two.
    pub(crate) fn of(inner: &Inner, group: &[u32]) -> Option<Self> {
        inner.segment.as_ref()?;
        let nodes = inner.nodes_of(group)?;
        let here = nodes[group.iter().position(|&w| w == inner.rank)?];
        let (mut locals, mut ranks, mut me) = (Vec::new(), Vec::new(), None);
        for ((rank, &world), _) in (0..).zip(group).zip(nodes).filter(|(_, n)| *n == here) {
            if let Some(local) = inner.engine.with(|core| core.local_rank_of(world)) {
                if world == inner.rank {
                    me = Some(locals.len());
                }
                locals.push(local);
                ranks.push(rank);
            }
        }
        (locals.len() > 1).then_some(Self { locals, ranks, me: me? })
    }
}

impl Node {
    /// The world's own: its blocks lie in the segment from the start.
    pub(crate) fn of_world(inner: &Arc<Inner>, group: &[u32]) -> Option<Self> {
        let segment = inner.segment.as_ref()?;
        let members = Members::of(inner, group)?;
        let blocks = members.locals.iter().map(|&l| segment.coll(l)).collect();
        Self::assemble(inner, segment, members, blocks, None)
    }

    /// Takes memory for this rank's block; its offset in the heap, to tell the others.
    pub(crate) fn reserve(inner: &Inner) -> Option<Block> {
        let segment = inner.segment.as_ref()?;
        let mut retired = inner.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|r| {
            let over = r.mine.load(LEAVERS) >= r.others;
            if over {
                segment.free(r.block);
            }
            !over
        });
        let block = segment.alloc(Group::<Window>::BLOCK as u64)?;
        let mine = segment.heap(segment.me(), block).ok()?;
        // Memory that was used before and could not be given back to the system is not zero.
        mine.write(0, &[0; Group::<Window>::ZEROED]);
        Some(block)
    }

    /// A communicator's: `offsets` by member say where in its heap each has reserved its block.
    pub(crate) fn of_blocks(
        inner: &Arc<Inner>,
        members: Members,
        offsets: &[u64],
        mine: Block,
    ) -> Option<Self> {
        let segment = inner.segment.as_ref()?;
        let area = |(&local, &offset): (&u32, &u64)| {
            let block = Block { offset, len: mine.len };
            segment.heap(local, block).ok()
        };
        let blocks = members.locals.iter().zip(offsets).map(area).collect::<Option<Vec<_>>>()?;
        Self::assemble(inner, segment, members, blocks, Some((mine, inner.clone())))
    }

    fn assemble(
        inner: &Inner,
        segment: &Segment,
        members: Members,
        areas: Vec<Area>,
        block: Option<(Block, Arc<Inner>)>,
    ) -> Option<Self> {
        let crowded = inner.crowded;
        let blocks = areas.iter().cloned().map(Window::from).collect();
        let heaps = Heaps::new(inner.segment.clone()?, members.locals.clone());
        let group = Group::new(blocks, members.me, crowded).ok()?;
        let group = group.tuned(inner.tuning.thresholds).reaching(Arc::new(heaps));
        let (segment_too, here) = (inner.segment.clone()?, members.locals.clone());
        let neighbours = Neighbours { segment: segment_too, locals: here, began: Instant::now() };
        let group = group.copying(Arc::new(neighbours));
        let Members { locals, ranks, .. } = members;
        let turns = Mutex::new(Turns { begun: 0, cursor: Cursor::new(locals.len()) });
        let others: Vec<u32> = locals.into_iter().filter(|&l| l != segment.me()).collect();
        let sleepers = Sleepers::new(segment, &others);
        Some(Self {
            group,
            turns,
            others,
            ranks,
            sleepers,
            areas,
            warm: AtomicBool::new(false),
            idle: AtomicU32::new(0),
            suspects: AtomicBool::new(false),
            crowded,
            block,
        })
    }

    /// The next operation of this group.
    pub(crate) fn begin(&self) -> Pass {
        Pass::new(self.turns().next())
    }

    /// Looks of a blocking call before the engine takes over.
    #[inline]
    fn looks(&self) -> u32 {
        if self.crowded { LOOKS_CROWDED } else { LOOKS }
    }

    #[inline]
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the first large operation: all pages of the rings at once cost less than one by one.
    fn warm_up(&self) {
        if self.warm.swap(true, Ordering::Relaxed) || self.areas.len() > WARMED {
            return;
        }
        for (r, area) in self.areas.iter().enumerate() {
            let whole = Group::<Window>::BLOCK.min(area.len());
            if let Some(block) = area.part(0, whole) {
                block.populate(r == self.group.me());
            }
        }
    }

    /// This rank's number among the members.
    pub(crate) fn me(&self) -> usize {
        self.group.me()
    }

    /// One look; `None` while earlier operations are not over.
    fn look(&self, pass: &mut Pass, call: &Call, buffers: &mut Buffers<'_>) -> Result<Option<Look>, Trouble> {
        let mut turns = self.turns();
        if !turns.reached(pass.number()) {
            return Ok(None);
        }
        pass.look(&self.group, &mut turns.cursor, call, buffers).map(Some)
    }

    /// One look inside the engine; whether the operation is over.
    pub(crate) fn look_in(
        &self,
        core: &mut Core,
        pass: &mut Pass,
        call: &Call,
        buffers: &mut Buffers<'_>,
        place: &Place<'_>,
    ) -> Result<Step, Error> {
        let step = self.step_in(core, pass, call, buffers, place);
        if step.is_err() {
            pass.abandon(&self.group);
        }
        step
    }

    fn step_in(
        &self,
        core: &mut Core,
        pass: &mut Pass,
        call: &Call,
        buffers: &mut Buffers<'_>,
        place: &Place<'_>,
    ) -> Result<Step, Error> {
        let look = self.look(pass, call, buffers).map_err(|t| self.trouble(t, place))?;
        let Some(look) = look else { return Ok(Step::Waits) };
        if look.published && self.sleepers.any() {
            self.wake(core);
        }
        if look.done || look.published || look.busy {
            self.suspects.store(false, Ordering::Relaxed);
            return Ok(if look.done { Step::Done } else { Step::Moves });
        }
        if let Some(fault) = core.revocation(place.context, None) {
            return Err(Error::collective(place.call, fault));
        }
        // The kernel is asked whether a process lives: not at every look.
        let looks = self.idle.fetch_add(1, Ordering::Relaxed);
        if looks.is_multiple_of(LOOKS_A_CHECK)
            && let Some(fault) = look.awaits.and_then(|m| core.lost(place.group[self.ranks[m] as usize]))
        {
            // It may have done its part, or said why it leaves, before it left: believed at the second time.
            return if self.suspects.swap(true, Ordering::Relaxed) {
                Err(Error::collective(place.call, fault))
            } else {
                Ok(Step::Waits)
            };
        }
        Ok(Step::Waits)
    }

    fn trouble(&self, trouble: Trouble, place: &Place<'_>) -> Error {
        match trouble {
            Trouble::Mismatch { member } => {
                let rank = self.ranks.get(member).and_then(|&r| place.group.get(r as usize));
                Error::Mismatched { call: place.call, rank: rank.copied().unwrap_or(u32::MAX) }
            }
            Trouble::Kernel(e) => e.into(),
        }
    }

    /// Rings the other members that sleep.
    fn wake(&self, core: &mut Core) {
        self.others.iter().for_each(|&local| core.ring(local));
    }
}

/// An operation of a blocking call that is not over.
pub(crate) struct Begun {
    pass: Pass,
    /// Looks before the engine takes over.
    looks: u32,
}

/// What a look inside the engine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Moves,
    Waits,
}

/// Whose operation it is, for errors.
pub(crate) struct Place<'a> {
    pub(crate) call: &'static str,
    pub(crate) context: u32,
    pub(crate) group: &'a [u32],
}

impl Communicator {
    fn place_of(&self, call: &'static str) -> Place<'_> {
        Place { call, context: self.context + 1, group: &self.group }
    }

    /// A small operation in which every member needs every other's data, in the looks that come before the engine's.
    /// When it takes longer, what is left for [`Communicator::in_memory`].
    pub(crate) fn in_slots(
        &self,
        node: &Node,
        ask: &Ask<'_>,
        digest: u32,
        buffers: &mut Buffers<'_>,
    ) -> Result<Option<Begun>, Error> {
        let group = &node.group;
        let own: &[u8] = buffers.input.unwrap_or(buffers.output);
        let mut turns = node.turns();
        let round = Round { n: turns.next(), digest, len: own.len() };
        if !turns.reached(round.n) || !group.put(&mut turns.cursor, round, own) {
            return Ok(Some(Begun { pass: Pass::new(round.n), looks: node.looks() }));
        }
        if node.sleepers.any() {
            // The engine's lock comes first.
            drop(turns);
            self.inner.engine.with(|core| node.wake(core));
            return Ok(Some(Begun { pass: Pass::begun(round.n), looks: node.looks() }));
        }
        let mut left = node.looks();
        let done = loop {
            match group.missing(&mut turns.cursor, round) {
                Ok(None) => {
                    let reducer = ask.reducer.as_ref();
                    break group.sum_up(&mut turns.cursor, round, reducer, buffers.input, buffers.output);
                }
                Ok(Some(_)) => {}
                Err(trouble) => break Err(trouble),
            }
            left -= 1;
            if left == 0 {
                return Ok(Some(Begun { pass: Pass::begun(round.n), looks: 0 }));
            }
            pause(node.crowded);
        };
        drop(turns);
        match done {
            Ok(()) => Ok(None),
            Err(trouble) => Err(self.fails(node.trouble(trouble, &self.place_of(ask.name())))),
        }
    }

    /// Carries out one operation of the node's group, or the rest of one.
    pub(crate) fn in_memory(
        &self,
        node: &Node,
        name: &'static str,
        call: &Call,
        buffers: &mut Buffers<'_>,
        begun: Option<Begun>,
    ) -> Result<(), Error> {
        let begun = begun.unwrap_or_else(|| Begun { pass: node.begin(), looks: node.looks() });
        let Begun { mut pass, looks: mut left } = begun;
        let place = self.place_of(name);
        let engine = &self.inner.engine;
        if !call.is_small(node.ranks.len()) {
            node.warm_up();
        }
        let mut turns = node.turns();
        let result = loop {
            if !turns.reached(pass.number()) {
                break None;
            }
            let look = match pass.look(&node.group, &mut turns.cursor, call, buffers) {
                Ok(look) => look,
                Err(t) => break Some(node.trouble(t, &place)),
            };
            if look.published && node.sleepers.any() {
                // The engine's lock comes first.
                drop(turns);
                engine.with(|core| node.wake(core));
                turns = node.turns();
            }
            if look.done {
                return Ok(());
            }
            if look.published || look.busy {
                left = node.looks();
                continue;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                break None;
            }
            pause(node.crowded);
        };
        drop(turns);
        let result = match result {
            Some(error) => {
                pass.abandon(&node.group);
                Err(error)
            }
            None => engine.block(|core| {
                loop {
                    match node.look_in(core, &mut pass, call, buffers, &place) {
                        Ok(Step::Done) => return Some(Ok(())),
                        Ok(Step::Moves) => {}
                        Ok(Step::Waits) => return None,
                        Err(e) => return Some(Err(e)),
                    }
                }
            }),
        };
        result.map_err(|e| self.fails(e))
    }

    /// An operation's error, of which the other members are told.
    #[cold]
    fn fails(&self, error: Error) -> Error {
        self.inner.engine.with(|core| self.give_up(core, &error));
        error
    }
}

/// Between two looks.
#[inline]
fn pause(crowded: bool) {
    if crowded {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
