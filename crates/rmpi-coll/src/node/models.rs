//! The protocols of slots, rings and claims under a model checker: every order of their reads and writes that the
//! memory model allows, within a bound on preemptions. Run with `RUSTFLAGS="--cfg loom" cargo test -p rmpi-coll
//! --release models`. Each byte range that one write covers is a cell of which the checker knows who reads and who
//! writes: a value read too early, or memory reused too early, is an error.

use super::*;
use crate::kernels::{DataType, Op, Reducer, Source, Target};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words and cells at the offsets that the protocols use.
struct Modelled {
    words: BTreeMap<usize, AtomicU64>,
    cells: BTreeMap<usize, UnsafeCell<u64>>,
}

// SAFETY: the checker watches all accesses of the cells.
#[allow(unsafe_code, reason = "the cells are what is checked")]
unsafe impl Sync for Modelled {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the cells are what is checked")]
unsafe impl Send for Modelled {}

/// Bytes of a ring that are one cell.
const CELL: usize = 16 << 10;

impl Modelled {
    fn new() -> Self {
        let slots = (0..block::SLOTS as usize).map(|k| k * (128 + block::SMALL));
        let words = slots.clone().flat_map(|s| [0, 8, 16, 24, 64, 72, 80].map(|w| s + w));
        let words = words.chain([block::CLAIMS, block::CHUNKS_DONE]);
        let ring = (0..4).map(|k| block::RING + k * CELL);
        let cells = slots.map(|s| s + 24).chain(ring);
        Self {
            words: words.map(|at| (at, AtomicU64::new(0))).collect(),
            cells: cells.map(|at| (at, UnsafeCell::new(0))).collect(),
        }
    }

    /// The cells that `len` bytes at `at` touch.
    fn touched(&self, at: usize, len: usize) -> impl Iterator<Item = (&usize, &UnsafeCell<u64>)> {
        let first = if at >= block::RING { (at - block::RING) / CELL * CELL + block::RING } else { at };
        self.cells.range(first..at + len.max(1))
    }
}

impl Memory for Modelled {
    fn load(&self, at: usize) -> u64 {
        self.words[&at].load(Ordering::Acquire)
    }
    fn store(&self, at: usize, value: u64) {
        self.words[&at].store(value, Ordering::Release);
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.words[&at].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
    fn add(&self, at: usize, by: u64) {
        self.words[&at].fetch_add(by, Ordering::AcqRel);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        for (&cell, c) in self.touched(at, bytes.len()) {
            let word = bytes[cell.saturating_sub(at)..][..8].try_into().unwrap();
            c.with_mut(|p| {
                // SAFETY: the checker has found that nobody else uses the cell.
                #[allow(unsafe_code, reason = "the cells are what is checked")]
                unsafe {
                    *p = u64::from_ne_bytes(word);
                }
            });
        }
    }
    fn read(&self, at: usize, bytes: &mut [u8]) {
        for (&cell, c) in self.touched(at, bytes.len()) {
            // SAFETY: the checker has found that nobody writes the cell.
            #[allow(unsafe_code, reason = "the cells are what is checked")]
            let word = c.with(|p| unsafe { *p });
            let from = cell.saturating_sub(at);
            bytes[from..from + 8].copy_from_slice(&word.to_ne_bytes());
        }
    }
    fn source(&self, at: usize, len: usize) -> Source<'_> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes);
        Source::from(&*bytes.leak())
    }
    fn target(&self, at: usize, len: usize) -> Target<'_> {
        // Claims write the sum over the first member's data: read by the model's combination, then written.
        let bytes = vec![0; len].leak();
        self.read(at, bytes);
        let sum = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
        self.write(at, &sum.to_ne_bytes().repeat(len / 8));
        Target::from(bytes)
    }
}

/// Each of `p` threads runs the operations; `f` gives a member's call, input and wanted output.
fn model(
    p: usize,
    ops: u64,
    preemptions: usize,
    f: impl Fn(u64, usize) -> (Call, Option<Vec<u64>>, Vec<u64>, Option<u64>) + Send + Sync + Clone + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        let blocks: Arc<Vec<Arc<Modelled>>> = Arc::new((0..p).map(|_| Arc::new(Modelled::new())).collect());
        let rank = {
            let f = f.clone();
            move |me: usize, blocks: Arc<Vec<Arc<Modelled>>>| {
                let group = Group::new(blocks.to_vec(), me, true).unwrap();
                let mut cursor = Cursor::new(p);
                for n in 1..=ops {
                    let (call, input, mut output, want) = f(n, me);
                    let mut pass = Pass::new(n);
                    let input = input.as_deref().map(bytemuck::cast_slice);
                    let mut buffers = Buffers { input, output: bytemuck::cast_slice_mut(&mut output) };
                    while !pass.look(&group, &mut cursor, &call, &mut buffers).unwrap().done {
                        loom::thread::yield_now();
                    }
                    assert!(want.is_none_or(|w| output[0] == w), "operation {n} at {me}: {output:?}");
                }
            }
        };
        let others: Vec<_> = (1..p)
            .map(|me| {
                let (rank, blocks) = (rank.clone(), blocks.clone());
                loom::thread::spawn(move || rank(me, blocks))
            })
            .collect();
        rank(0, blocks);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// Two threads sum up in rounds; member 1 goes on with the machine when the other does not come at once.
fn model_rounds(ops: u64, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        let blocks: Arc<Vec<Arc<Modelled>>> = Arc::new((0..2).map(|_| Arc::new(Modelled::new())).collect());
        let rank = move |me: usize, blocks: Arc<Vec<Arc<Modelled>>>| {
            let group = Group::new(blocks.to_vec(), me, true).unwrap();
            let mut cursor = Cursor::new(2);
            let call = call(Kind::Allreduce, 8);
            for n in 1..=ops {
                let (own, mut output) = ([10 * n + me as u64], [0]);
                let own: &[u8] = bytemuck::cast_slice(&own);
                let round = Round { n, digest: 7, len: 8 };
                while !group.put(&mut cursor, round, own) {
                    loom::thread::yield_now();
                }
                let mut pass = Pass::begun(n);
                loop {
                    let output = bytemuck::cast_slice_mut(&mut output);
                    if me == 1 {
                        let mut buffers = Buffers { input: Some(own), output };
                        if pass.look(&group, &mut cursor, &call, &mut buffers).unwrap().done {
                            break;
                        }
                    } else if group.missing(&mut cursor, round).unwrap().is_none() {
                        group.sum_up(&mut cursor, round, call.reducer.as_ref(), Some(own), output).unwrap();
                        break;
                    }
                    loom::thread::yield_now();
                }
                assert_eq!(output, [20 * n + 1], "operation {n} at {me}");
            }
        };
        let other = blocks.clone();
        let other = loom::thread::spawn(move || rank(1, other));
        rank(0, blocks);
        other.join().unwrap();
    });
}

fn call(kind: Kind, bytes: usize) -> Call {
    let reducer = Some(Reducer::Builtin(DataType::U64, Op::Sum));
    Call { kind, digest: 7, lens: Lens::Each(bytes), reducer }
}

impl Memory for Arc<Modelled> {
    fn load(&self, at: usize) -> u64 {
        (**self).load(at)
    }
    fn store(&self, at: usize, value: u64) {
        (**self).store(at, value);
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        (**self).replace(at, old, new)
    }
    fn add(&self, at: usize, by: u64) {
        (**self).add(at, by);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        (**self).write(at, bytes);
    }
    fn read(&self, at: usize, bytes: &mut [u8]) {
        (**self).read(at, bytes);
    }
    fn source(&self, at: usize, len: usize) -> Source<'_> {
        (**self).source(at, len)
    }
    fn target(&self, at: usize, len: usize) -> Target<'_> {
        (**self).target(at, len)
    }
}

#[test]
fn small_sums_of_two() {
    model(2, 2, 3, |n, me| {
        (call(Kind::Allreduce, 8), Some(vec![10 * n + me as u64]), vec![0], Some(20 * n + 1))
    });
}

#[test]
fn rounds_of_two_use_slots_again() {
    model_rounds(6, 2);
}

#[test]
fn a_root_that_runs_ahead_does_not_reuse_a_slot_too_early() {
    model(2, 6, 2, |n, me| {
        (call(Kind::Bcast { root: 0 }, 8), None, vec![if me == 0 { n } else { 0 }], Some(n))
    });
}

#[test]
fn large_data_through_rings() {
    const WORDS: usize = CELL / 8;
    model(2, 2, 2, |n, me| {
        (call(Kind::Allgather, CELL), Some(vec![10 * n + me as u64; WORDS]), vec![0; 2 * WORDS], Some(10 * n))
    });
}

#[test]
fn chunks_are_claimed_once_and_seen_by_all() {
    const WORDS: usize = CELL / 8;
    // The model's target keeps the first member's data: what is checked is who reads and writes when.
    model(2, 2, 2, |n, me| {
        (call(Kind::Allreduce, CELL), Some(vec![10 * n + me as u64; WORDS]), vec![0; WORDS], Some(10 * n))
    });
}
