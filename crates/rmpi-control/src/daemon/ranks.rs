//! The ranks of this node: who runs, who ended, whose output is drained. Invariant: `unreported` counts the
//! ranks without a sent `Exited`, `alive` those without a `RankExited`.

use super::gather::Here;
use super::more::Credits;
use crate::time::{Time, earlier};
use rmpi_types::outcome::Abort;
use rmpi_types::{Epoch, Namespace, NodeLaunch, ProcId, Rank, RankEnd, RankExit, RankSet};
use rmpi_wire::msg::Stream;
use rmpi_wire::service::Group;
use std::collections::BTreeMap;
use std::time::Duration;

/// Smallest credit of an output stream, bytes: a line assembler holds up to 64 KiB back.
pub(crate) const MIN_OUTPUT_CREDIT: u32 = 128 << 10;
/// One output stream.
#[derive(Debug)]
pub(super) struct Output {
    /// Bytes the driver may still read.
    pub(super) credit: u32,
    /// No more will come.
    pub(super) done: bool,
    /// When something last happened to it.
    pub(super) touched: Time,
}

/// One rank.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) proc: ProcId,
    pub(super) outputs: [Output; 2],
    pub(super) reads_stdin: bool,
    pub(super) exit: Option<RankExit>,
    pub(super) reported: bool,
    /// We sent it a signal that is meant to end it.
    pub(super) stopping: bool,
    pub(super) abort: Option<Abort>,
    pub(super) hello: bool,
    pub(super) finalized: bool,
    /// Ending without finalizing is no failure.
    unfinished_ok: bool,
    gone_sent: bool,
}

impl Slot {
    /// Whether the driver has not yet reported its end.
    pub(super) fn alive(&self) -> bool {
        self.exit.is_none()
    }

    /// One of its streams.
    pub(super) fn output(&mut self, stream: Stream) -> &mut Output {
        &mut self.outputs[index(stream)]
    }

    /// Takes over its end; `exit.abort` and `stopped` become what this daemon knows.
    pub(super) fn ended(&mut self, mut exit: RankExit, now: Time) {
        let unfinished = self.hello && !self.finalized && !self.stopping && !self.unfinished_ok;
        exit.abort = self.abort.take();
        if exit.abort.is_none() && unfinished && exit.end == RankEnd::Exited(0) {
            exit.abort = Some(Abort::unfinished());
        }
        exit.stopped = self.stopping && exit.abort.is_none();
        for output in &mut self.outputs {
            output.touched = now;
        }
        self.exit = Some(exit);
    }

    fn drained(&self) -> bool {
        self.outputs.iter().all(|o| o.done)
    }

    /// The stream, if any, on which waiting is over: its rank has ended, there was room and yet nothing came.
    fn idle(&self, now: Time, drain: Duration) -> Option<Stream> {
        let idle = |o: &Output| !o.done && o.credit > 0 && now >= o.touched + drain;
        let ended = self.exit.is_some() && !self.reported;
        [Stream::Stdout, Stream::Stderr].into_iter().find(|&s| ended && idle(&self.outputs[index(s)]))
    }
}

/// What is due for a rank that has ended.
#[derive(Debug, PartialEq)]
pub(super) enum Due {
    /// Tell the launcher that it is gone although its output is not.
    Gone(Box<RankExit>),
    /// Report its end.
    Exited(Box<RankExit>),
}

/// All ranks of the node.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// Ascending by process.
    slots: Vec<Slot>,
    /// The first namespace here and the ranks it has, all nodes counted: native ranks are of it.
    home: ProcId,
    pub(super) size: u32,
    /// Ranks of each namespace.
    sizes: BTreeMap<(Namespace, Epoch), u32>,
    /// How long an ended rank's open pipe may be silent.
    drain: Duration,
    alive: usize,
    unreported: usize,
}

impl Ranks {
    pub(super) fn new(launch: &NodeLaunch, now: Time) -> Self {
        let credit = launch.output_credit.max(MIN_OUTPUT_CREDIT);
        let output = || Output { credit, done: false, touched: now };
        let slot = |r: &rmpi_types::RankLaunch| Slot {
            proc: ProcId { rank: r.rank, ..launch.ns },
            outputs: [output(), output()],
            reads_stdin: r.stdin,
            exit: None,
            reported: false,
            stopping: false,
            abort: None,
            hello: false,
            finalized: false,
            unfinished_ok: launch.extras.unfinished_ok,
            gone_sent: false,
        };
        let slots: Vec<Slot> = launch.ranks.iter().map(slot).collect();
        let drain = Duration::from_millis(u64::from(launch.drain_ms));
        let (alive, unreported) = (slots.len(), slots.len());
        let sizes = BTreeMap::from([((launch.ns.ns, launch.ns.epoch), launch.size)]);
        Self { slots, home: launch.ns, size: launch.size, sizes, drain, alive, unreported }
    }

    /// The members of a gather on this node.
    pub(super) fn members(&self, group: &Group) -> Here {
        let mut here = Here { alive: Vec::new(), dead: None, all: false };
        for slot in self.slots.iter().filter(|s| group.contains(s.proc)) {
            if slot.alive() {
                here.alive.push(slot.proc);
            } else {
                here.dead = Some(slot.proc);
            }
        }
        here.all = group.parts().iter().all(|part| {
            let Some(size) = self.sizes.get(&(part.ns, part.epoch)) else { return false };
            let wanted = part.ranks.as_ref().map_or(*size as usize, RankSet::len);
            let ours = |s: &&Slot| {
                (s.proc.ns, s.proc.epoch) == (part.ns, part.epoch)
                    && part.ranks.as_ref().is_none_or(|r| r.contains(s.proc.rank))
            };
            self.slots.iter().filter(ours).count() == wanted
        });
        here
    }

    /// Whether every rank has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.alive == 0
    }

    /// Whether every rank's end was reported.
    pub(super) fn all_reported(&self) -> bool {
        self.unreported == 0
    }

    pub(super) fn get(&mut self, proc: ProcId) -> Option<&mut Slot> {
        let at = self.slots.binary_search_by_key(&proc, |s| s.proc).ok()?;
        Some(&mut self.slots[at])
    }

    /// Whether ranks of a namespace are or were here.
    pub(super) fn knows(&self, ns: ProcId) -> bool {
        self.sizes.contains_key(&(ns.ns, ns.epoch))
    }

    /// Takes in the ranks of another namespace; what may be read of their streams.
    pub(super) fn add(&mut self, more: Self) -> Credits {
        self.alive += more.alive;
        self.unreported += more.unreported;
        self.sizes.extend(more.sizes);
        let mut credits = Vec::with_capacity(2 * more.slots.len());
        for slot in &more.slots {
            for stream in [Stream::Stdout, Stream::Stderr] {
                credits.push((slot.proc, stream, slot.outputs[index(stream)].credit));
            }
        }
        self.slots.extend(more.slots);
        self.slots.sort_by_key(|s| s.proc);
        credits
    }

    /// A rank of this namespace as a process.
    pub(super) fn proc(&self, rank: Rank) -> ProcId {
        ProcId { rank, ..self.home }
    }

    pub(super) fn rank(&self, rank: Rank) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&self.proc(rank), |s| s.proc).ok()?;
        Some(&self.slots[at])
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// The ranks that still run, of one namespace or all.
    pub(super) fn running(&self, of: Option<ProcId>) -> Vec<ProcId> {
        let wanted =
            |s: &&Slot| s.alive() && of.is_none_or(|ns| (s.proc.ns, s.proc.epoch) == (ns.ns, ns.epoch));
        self.slots.iter().filter(wanted).map(|s| s.proc).collect()
    }

    /// Marks all that run as being stopped by us.
    pub(super) fn mark_stopping(&mut self) {
        self.slots.iter_mut().filter(|s| s.alive()).for_each(|s| s.stopping = true);
    }

    /// Records an end; false when the rank is unknown or has ended before.
    pub(super) fn ended(&mut self, exit: RankExit, now: Time) -> bool {
        let Some(slot) = self.get(exit.proc).filter(|s| s.alive()) else { return false };
        slot.ended(exit, now);
        self.alive -= 1;
        true
    }

    /// What is due for a rank after its end or the end of a stream.
    pub(super) fn due(&mut self, proc: ProcId) -> Option<Due> {
        let slot = self.get(proc)?;
        let drained = slot.drained();
        let exit = slot.exit.as_ref()?;
        if slot.reported {
            return None;
        }
        if drained {
            let exit = Box::new(exit.clone());
            slot.reported = true;
            self.unreported -= 1;
            return Some(Due::Exited(exit));
        }
        if exit.failed() && !slot.gone_sent {
            let exit = Box::new(exit.clone());
            slot.gone_sent = true;
            return Some(Due::Gone(exit));
        }
        None
    }

    /// Ended ranks whose pipes are still open and of which the launcher was not told.
    pub(super) fn quiet_gone(&mut self) -> Vec<Due> {
        if self.alive + self.unreported == 0 || self.alive == self.unreported {
            return Vec::new();
        }
        let open = |s: &&mut Slot| s.exit.is_some() && !s.reported && !s.gone_sent;
        let gone = |s: &mut Slot| {
            s.gone_sent = true;
            s.exit.clone().map(|exit| Due::Gone(Box::new(exit)))
        };
        self.slots.iter_mut().filter(open).filter_map(gone).collect()
    }

    /// Streams on which waiting is over.
    pub(super) fn idle_streams(&self, now: Time) -> Vec<(ProcId, Stream)> {
        if self.alive == self.unreported {
            return Vec::new();
        }
        self.slots.iter().filter_map(|s| s.idle(now, self.drain).map(|stream| (s.proc, stream))).collect()
    }

    /// When waiting on some stream will be over.
    pub(super) fn next_idle(&self) -> Option<Time> {
        if self.alive == self.unreported {
            return None;
        }
        let ended = self.slots.iter().filter(|s| s.exit.is_some() && !s.reported);
        let waiting = ended.flat_map(|s| s.outputs.iter()).filter(|o| !o.done && o.credit > 0);
        waiting.map(|o| o.touched + self.drain).fold(None, |a, b| earlier(a, Some(b)))
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
