//! What went wrong, and what came first. Times are microseconds of our wall clock; an end on another node is
//! corrected by that node's clock offset. Ranks that we stopped are never causes.

use rmpi_types::outcome::Cause;
use rmpi_types::{LaunchFault, NodeIdx, ProcId, Rank, RankEnd, RankExit, RankSet};
use std::collections::{BTreeMap, HashMap};

/// Ends that keep their last stderr lines; further ones are counted and listed without.
const KEEP_LINES: usize = 64;
/// Lines and bytes of each, as the vocabulary says.
const LINES: (usize, usize) = (4, 256);

/// A node that was lost with ranks on it.
#[derive(Debug)]
struct LostNode {
    at_us: i64,
    node: NodeIdx,
    what: String,
    ranks: RankSet,
}

/// The causes seen so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    exits: Vec<(NodeIdx, RankExit)>,
    lost: Option<LostNode>,
    /// When abort calls arrived.
    aborts: HashMap<ProcId, i64>,
    stopped: BTreeMap<i32, u32>,
    unknown: Vec<Rank>,
    pub(super) start: Vec<(NodeIdx, LaunchFault)>,
}

/// The first cause with its time, and the later ends.
#[derive(Debug, PartialEq)]
pub(super) struct First {
    pub(super) cause: Cause,
    pub(super) at_us: i64,
    pub(super) also: Vec<RankExit>,
}

impl Failures {
    pub(super) fn aborted(&mut self, proc: ProcId, at_us: i64) {
        self.aborts.entry(proc).or_insert(at_us);
    }

    /// A rank's end.
    pub(super) fn exited(&mut self, node: NodeIdx, mut exit: RankExit) {
        if exit.stopped {
            let signal = match exit.end {
                RankEnd::Exited(_) => 0,
                RankEnd::Signaled { signal, .. } => signal,
            };
            *self.stopped.entry(signal).or_insert(0) += 1;
        } else if exit.failed() {
            if self.exits.len() >= KEEP_LINES {
                exit.last_stderr = Vec::new();
            }
            self.exits.push((node, exit));
        }
    }

    /// A node was lost whose ranks `ranks` had not reported their end.
    pub(super) fn lost(&mut self, at_us: i64, node: NodeIdx, what: String, ranks: RankSet) {
        self.unknown.extend(ranks.iter());
        if self.lost.as_ref().is_none_or(|l| at_us < l.at_us) {
            self.lost = Some(LostNode { at_us, node, what, ranks });
        }
    }

    /// What came first, with each node's clock offset from `offset`.
    pub(super) fn first(&mut self, offset: impl Fn(NodeIdx) -> i64) -> Option<First> {
        let aborts = &self.aborts;
        let time = |node: NodeIdx, exit: &RankExit| {
            let ended = super::nodes::signed(exit.wall_us) - offset(node);
            aborts.get(&exit.proc).map_or(ended, |&at| at.min(ended))
        };
        let mut exits: Vec<(i64, RankExit)> =
            std::mem::take(&mut self.exits).into_iter().map(|(node, e)| (time(node, &e), e)).collect();
        exits.sort_by_key(|(at, e)| (*at, e.proc));
        let rank_at = exits.first().map(|(at, _)| *at);
        match self.lost.take() {
            // A node that fell silent before a rank failed elsewhere is why that rank failed.
            Some(lost) if rank_at.is_none_or(|at| lost.at_us <= at) => Some(First {
                cause: Cause::NodeLost { node: lost.node, what: lost.what, ranks: lost.ranks },
                at_us: lost.at_us,
                also: exits.into_iter().map(|(_, e)| e).collect(),
            }),
            _ => {
                let mut exits = exits.into_iter();
                let (at_us, exit) = exits.next()?;
                Some(First { cause: Cause::Rank(exit), at_us, also: exits.map(|(_, e)| e).collect() })
            }
        }
    }

    /// Ranks we stopped, by signal.
    pub(super) fn stopped(&self) -> Vec<(i32, u32)> {
        self.stopped.iter().map(|(signal, count)| (*signal, *count)).collect()
    }

    /// Ranks of which no end is known, ascending.
    pub(super) fn unknown(&mut self) -> Vec<Rank> {
        self.unknown.sort_unstable();
        std::mem::take(&mut self.unknown)
    }
}

/// Holds an exit from the wire to the limits of its vocabulary.
pub(super) fn limited(mut exit: RankExit) -> RankExit {
    exit.last_stderr.truncate(LINES.0);
    exit.last_stderr = exit.last_stderr.into_iter().map(|l| crate::link::clip(l, LINES.1)).collect();
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(rank: u32, wall_us: u64) -> RankExit {
        RankExit {
            proc: ProcId::first(rank),
            pid: 1,
            end: RankEnd::Exited(3),
            abort: None,
            stopped: false,
            oom: false,
            last_stderr: Vec::new(),
            wall_us,
        }
    }

    fn first(failures: &mut Failures, offsets: &[i64]) -> Cause {
        failures.first(|n| offsets[n.0 as usize]).unwrap().cause
    }

    #[test]
    fn the_earliest_by_corrected_clock_is_first_and_ties_go_to_the_lower_rank() {
        let mut f = Failures::default();
        f.exited(NodeIdx(0), exit(0, 1_000_000));
        f.exited(NodeIdx(1), exit(1, 5_000_000));
        assert!(matches!(first(&mut f, &[0, 4_500_000]), Cause::Rank(e) if e.proc.rank == Rank(1)));
        f.exited(NodeIdx(1), exit(5, 7));
        f.exited(NodeIdx(0), exit(4, 7));
        assert!(matches!(first(&mut f, &[0, 0]), Cause::Rank(e) if e.proc.rank == Rank(4)));
    }

    #[test]
    fn stopped_ranks_are_counted_and_never_causes() {
        let mut f = Failures::default();
        let end = RankEnd::Signaled { signal: 15, core: false };
        f.exited(NodeIdx(0), RankExit { stopped: true, end, ..exit(0, 1) });
        f.exited(NodeIdx(0), exit(1, 2));
        assert_eq!(f.stopped(), [(15, 1)]);
        assert!(matches!(first(&mut f, &[0]), Cause::Rank(e) if e.proc.rank == Rank(1)));
    }

    #[test]
    fn a_node_that_fell_silent_first_is_the_cause_of_what_failed_after() {
        let mut f = Failures::default();
        f.lost(10, NodeIdx(2), "gone".into(), RankSet::range(4, 5));
        f.exited(NodeIdx(0), exit(0, 11));
        let first = f.first(|_| 0).unwrap();
        assert!(matches!(first.cause, Cause::NodeLost { node: NodeIdx(2), .. }));
        assert_eq!(first.also.len(), 1);
        assert_eq!(f.unknown(), [Rank(4), Rank(5)]);
    }

    #[test]
    fn an_abort_counts_from_its_call() {
        let mut f = Failures::default();
        f.aborted(ProcId::first(3), 100);
        let abort = Some(rmpi_types::outcome::Abort::called(7, String::new()));
        f.exited(NodeIdx(0), RankExit { abort, ..exit(3, 900) });
        f.exited(NodeIdx(0), exit(1, 200));
        assert!(matches!(first(&mut f, &[0]), Cause::Rank(e) if e.code() == 7));
    }
}
