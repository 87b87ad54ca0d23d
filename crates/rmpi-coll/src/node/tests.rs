//! Every collective against its meaning, for 1 to 33 members that are looked at in random order, one operation
//! after the other without anything between them: slots, rings and claims are used again and again.

use super::*;
use crate::kernels::{DataType, Op, Reducer};
use rmpi_types::{Threshold, Thresholds};
use std::collections::HashMap;
use std::sync::Arc;

mod single;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Member `r`'s words of operation `n`; odd multipliers, see [`compose`].
fn data(n: usize, r: usize, words: usize) -> Vec<u64> {
    let seed = (n as u64) << 40 | (r as u64) << 20;
    (0..words as u64).map(|i| (seed + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 32).collect()
}

/// Affine maps modulo 2^32, one after the other: associative, not commutative.
fn compose(f: u64, g: u64) -> u64 {
    let split = |x: u64| (x >> 32, x & 0xffff_ffff);
    let ((a, b), (c, d)) = (split(f), split(g));
    ((a * c) & 0xffff_ffff) << 32 | ((c * b + d) & 0xffff_ffff)
}

fn composition() -> Reducer {
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
    let f = move |left: &mut [u8], right: &[u8]| {
        for (l, r) in left.chunks_mut(8).zip(right.chunks(8)) {
            let both = compose(word(l), word(r));
            l.copy_from_slice(&both.to_le_bytes());
        }
    };
    Reducer::User(Arc::new(f), 0x41)
}

fn fold(n: usize, members: std::ops::Range<usize>, words: usize, user: bool) -> Vec<u64> {
    let op = if user { compose } else { u64::wrapping_add };
    let mut parts = members.map(|r| data(n, r, words));
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |sum, d| sum.into_iter().zip(d).map(|(a, b)| op(a, b)).collect())
}

/// One operation of all members: buffers before, outputs after.
struct Case {
    call: Call,
    inputs: Vec<Option<Vec<u64>>>,
    outputs: Vec<Vec<u64>>,
    want: Vec<Vec<u64>>,
}

const BLANK: u64 = 0xdead_dead_dead_dead;

/// Operation `n` of `p` members with blocks of about `words` words.
fn case(n: usize, p: usize, words: usize, which: usize, random: &mut Random) -> Case {
    let root = random.below(p);
    let user = random.below(4) == 0;
    let kind = [
        Kind::Barrier,
        Kind::Bcast { root },
        Kind::Reduce { root },
        Kind::Allreduce,
        Kind::Gather { root },
        Kind::Scatter { root },
        Kind::Allgather,
        Kind::ReduceScatter,
        Kind::Alltoall,
        Kind::Scan,
        Kind::Exscan,
        Kind::AllreduceShared { at: n as u64 },
    ][which % 12];
    let uneven = random.below(2) == 1;
    let lens: Vec<usize> = (0..p)
        .map(|r| {
            if uneven && matches!(kind, Kind::Allgather | Kind::ReduceScatter) {
                words / (1 + r % 3)
            } else {
                words
            }
        })
        .collect();
    let ends: Vec<usize> = std::iter::once(0)
        .chain(lens.iter().scan(0, |s, l| {
            *s += l;
            Some(*s)
        }))
        .collect();
    let total = ends[p];
    let in_place = random.below(2) == 1;
    let sum = |members: std::ops::Range<usize>| fold(n, members, words, user);
    let own = |r: usize| Some(data(n, r, words));
    let all = |r: usize| Some(data(n, r, total));
    let each = |f: &dyn Fn(usize) -> Vec<u64>| -> Vec<Vec<u64>> { (0..p).map(f).collect() };
    let blank = |len: usize| vec![BLANK; len];
    let gathered = || (0..p).flat_map(|r| data(n, r, lens[r])).collect::<Vec<u64>>();
    let block = |from: usize, to: usize| data(n, from, total)[ends[to]..ends[to + 1]].to_vec();
    let mut inputs: Vec<Option<Vec<u64>>> = (0..p).map(own).collect();
    let (outputs, want) = match kind {
        Kind::Barrier => {
            inputs.fill(None);
            (each(&|_| vec![]), each(&|_| vec![]))
        }
        Kind::Bcast { .. } => {
            inputs.fill(None);
            (
                each(&|r| if r == root { data(n, r, words) } else { blank(words) }),
                each(&|_| data(n, root, words)),
            )
        }
        Kind::Reduce { .. } => (
            each(&|r| if r == root { blank(words) } else { vec![] }),
            each(&|r| if r == root { sum(0..p) } else { vec![] }),
        ),
        Kind::Allreduce if in_place => {
            inputs.fill(None);
            (each(&|r| data(n, r, words)), each(&|_| sum(0..p)))
        }
        Kind::AllreduceShared { .. } => {
            inputs.fill(None);
            (each(&|r| data(n, r, words)), each(&|_| sum(0..p)))
        }
        Kind::Allreduce => (each(&|_| blank(words)), each(&|_| sum(0..p))),
        Kind::Gather { .. } => (
            each(&|r| if r == root { blank(total) } else { vec![] }),
            each(&|r| if r == root { gathered() } else { vec![] }),
        ),
        Kind::Scatter { .. } => {
            inputs = (0..p).map(|r| if r == root { all(r) } else { Some(vec![]) }).collect();
            (each(&|_| blank(words)), each(&|r| block(root, r)))
        }
        Kind::ReduceScatter if in_place => {
            inputs.fill(None);
            let result = fold(n, 0..p, total, user);
            let merged = |r: usize| {
                let mut all = data(n, r, total);
                all[ends[r]..ends[r + 1]].copy_from_slice(&result[ends[r]..ends[r + 1]]);
                all
            };
            (each(&|r| data(n, r, total)), each(&merged))
        }
        Kind::Allgather if in_place => {
            inputs.fill(None);
            let placed = |r: usize| {
                let mut all = blank(total);
                all[ends[r]..ends[r + 1]].copy_from_slice(&data(n, r, lens[r]));
                all
            };
            (each(&placed), each(&|_| gathered()))
        }
        Kind::Allgather => {
            inputs = (0..p).map(|r| Some(data(n, r, lens[r]))).collect();
            (each(&|_| blank(total)), each(&|_| gathered()))
        }
        Kind::ReduceScatter => {
            inputs = (0..p).map(all).collect();
            let result = fold(n, 0..p, total, user);
            (each(&|r| blank(lens[r])), each(&|r| result[ends[r]..ends[r + 1]].to_vec()))
        }
        Kind::Alltoall => {
            inputs = (0..p).map(all).collect();
            (each(&|_| blank(total)), each(&|r| (0..p).flat_map(|from| block(from, r)).collect()))
        }
        Kind::Scan => (each(&|_| blank(words)), each(&|r| sum(0..r + 1))),
        Kind::Exscan => (each(&|_| blank(words)), each(&|r| if r == 0 { blank(words) } else { sum(0..r) })),
    };
    let lens = if uneven || random.below(3) == 0 {
        Lens::Packed(ends.iter().map(|e| 8 * e).collect())
    } else {
        Lens::Each(8 * words)
    };
    let lens = match kind {
        Kind::Allgather | Kind::ReduceScatter => lens,
        _ => Lens::Each(8 * words),
    };
    let reducer =
        kind.combines().then(|| if user { composition() } else { Reducer::Builtin(DataType::U64, Op::Sum) });
    let digest = u32::try_from(n * 31 + which).unwrap();
    Case { call: Call { kind, digest, lens, reducer }, inputs, outputs, want }
}

/// Members' buffers in memory that all reach, by operation.
#[derive(Debug, Default)]
struct Heaps(HashMap<(usize, u64), Window>);

impl Heaps {
    /// With the outputs of those operations that want theirs there.
    fn of(cases: &[Case]) -> Self {
        let mut all = Self::default();
        for case in cases {
            let Kind::AllreduceShared { at } = case.call.kind else { continue };
            for (r, output) in case.outputs.iter().enumerate() {
                let window = Window::private(8 * output.len());
                window.bytes_mut().copy_from_slice(bytemuck::cast_slice(output));
                all.0.insert((r, at), window);
            }
        }
        all
    }

    fn output<'a>(&'a self, call: &Call, r: usize, output: &'a mut [u64]) -> &'a mut [u8] {
        match call.kind {
            Kind::AllreduceShared { at } => self.0[&(r, at)].bytes_mut(),
            _ => bytemuck::cast_slice_mut(output),
        }
    }

    /// What a member has got.
    fn result(&self, call: &Call, r: usize, output: &[u64]) -> Vec<u8> {
        match call.kind {
            Kind::AllreduceShared { at } => self.0[&(r, at)].bytes_mut().to_vec(),
            _ => bytemuck::cast_slice(output).to_vec(),
        }
    }
}

impl Reach<Window> for Heaps {
    fn window(&self, member: usize, at: u64, len: usize) -> Option<Window> {
        self.0.get(&(member, at)).filter(|w| w.len() >= len).cloned()
    }
}

fn groups(p: usize, crowded: bool, thresholds: Thresholds, heaps: &Arc<Heaps>) -> Vec<Group<Window>> {
    let blocks: Vec<Window> = (0..p).map(|_| Window::private(Group::<Window>::BLOCK)).collect();
    let group =
        |me| Group::new(blocks.clone(), me, crowded).unwrap().tuned(thresholds).reaching(heaps.clone());
    (0..p).map(group).collect()
}

fn run(p: usize, crowded: bool, cases: &mut [Case], random: &mut Random) {
    run_tuned(p, crowded, Thresholds::default(), cases, random);
}

/// The same with data cut by these.
fn run_tuned(p: usize, crowded: bool, thresholds: Thresholds, cases: &mut [Case], random: &mut Random) {
    let heaps = Arc::new(Heaps::of(cases));
    let groups = groups(p, crowded, thresholds, &heaps);
    run_in(&groups, &heaps, cases, random);
}

/// Begins operation `n` of a member as a blocking call does: what goes on from there.
fn begin(
    group: &Group<Window>,
    cursor: &mut Cursor,
    call: &Call,
    n: u64,
    buffers: &Buffers<'_>,
) -> (Pass, Option<Round>) {
    let small = buffers.output.len() <= Group::<Window>::SMALL;
    if matches!(call.kind, Kind::Barrier | Kind::Allreduce) && small {
        let own = buffers.input.unwrap_or(buffers.output);
        let round = Round { n, digest: call.digest, len: own.len() };
        if group.put(cursor, round, own) {
            return (Pass::begun(n), Some(round));
        }
    }
    (Pass::new(n), None)
}

/// Runs the operations, members looked at in random order and ahead of each other as far as they can; small ones
/// of all begin as rounds now and then, and may go on as passes.
fn run_in(groups: &[Group<Window>], heaps: &Heaps, cases: &mut [Case], random: &mut Random) {
    let p = groups.len();
    let mut cursors = vec![Cursor::new(p); p];
    let mut passes: Vec<Option<Pass>> = (0..p).map(|_| None).collect();
    let mut rounds: Vec<Option<Round>> = vec![None; p];
    let mut at = vec![0usize; p];
    let mut idle = 0;
    while at.iter().any(|&a| a < cases.len()) {
        let r = random.below(p);
        if at[r] == cases.len() {
            continue;
        }
        let case = &mut cases[at[r]];
        let input = case.inputs[r].as_deref().map(bytemuck::cast_slice);
        let mut buffers = Buffers { input, output: heaps.output(&case.call, r, &mut case.outputs[r]) };
        let (group, cursor, n) = (&groups[r], &mut cursors[r], at[r] as u64 + 1);
        if passes[r].is_none() && random.below(2) == 0 {
            let (pass, round) = begin(group, cursor, &case.call, n, &buffers);
            (passes[r], rounds[r]) = (Some(pass), round);
        }
        let pass = passes[r].get_or_insert_with(|| Pass::new(n));
        let look = match rounds[r] {
            Some(round) if group.missing(cursor, round).unwrap().is_none() => {
                let reducer = case.call.reducer.as_ref();
                group.sum_up(cursor, round, reducer, buffers.input, buffers.output).unwrap();
                Look { done: true, ..Look::default() }
            }
            Some(_) => {
                // It takes too long.
                rounds[r] = rounds[r].filter(|_| random.below(8) > 0);
                Look::default()
            }
            None => pass.look(group, cursor, &case.call, &mut buffers).unwrap(),
        };
        idle = if look.done || look.published || look.busy { 0 } else { idle + 1 };
        assert!(idle < 1000 * p, "nobody gets on: {:?} {at:?} {pass:?}", case.call);
        if look.done {
            at[r] += 1;
            (passes[r], rounds[r]) = (None, None);
            assert_eq!(cursors[r].done(), at[r] as u64);
        }
    }
    for (n, case) in cases.iter().enumerate() {
        for (r, (got, want)) in case.outputs.iter().zip(&case.want).enumerate() {
            let got = heaps.result(&case.call, r, got);
            assert!(
                got == bytemuck::cast_slice::<_, u8>(want),
                "operation {n} of {p}, member {r}: {:?}",
                case.call
            );
        }
    }
}

#[test]
fn small_operations_of_1_to_33_members() {
    for p in 1..=33 {
        let mut random = Random(p as u64);
        let mut cases: Vec<Case> = (0..66)
            .map(|n| {
                let words = [0, 1, 4, 5, 6, 60, 512 / p, 512][random.below(8)];
                case(n, p, words, n + random.below(3), &mut random)
            })
            .collect();
        run(p, p % 2 == 0, &mut cases, &mut random);
    }
}

#[test]
fn large_operations_go_round_the_rings() {
    for (p, crowded) in [(1, false), (2, false), (2, true), (3, true), (4, false), (5, true), (8, true)] {
        let mut random = Random(77 + p as u64);
        let mut cases: Vec<Case> = (0..33)
            .map(|n| {
                let words = [513, 1000, 5000, 70_001, 200_000, 600_000][random.below(6)];
                let words = if p > 3 { words.min(200_000) } else { words };
                case(n, p, words, n, &mut random)
            })
            .collect();
        run(p, crowded, &mut cases, &mut random);
    }
}

#[test]
fn data_may_be_cut_by_any_table() {
    for (p, crowded) in [(2, false), (2, true), (3, false), (5, true), (7, false)] {
        for most in [false, true] {
            let mut thresholds = Thresholds::default();
            for t in Threshold::ALL {
                let value = if most { t.range.end() } else { t.range.start() };
                t.set(&mut thresholds, &value.to_string()).unwrap();
            }
            let mut random = Random(5 + p as u64);
            let mut cases: Vec<Case> = (0..22)
                .map(|n| case(n, p, [513, 9_001, 70_001, 300_000][random.below(4)], n, &mut random))
                .collect();
            run_tuned(p, crowded, thresholds, &mut cases, &mut random);
        }
    }
}

#[test]
fn another_call_is_noticed() {
    for words in [1, 100, 10_000] {
        let groups = groups(3, true, Thresholds::default(), &Arc::default());
        let mut random = Random(1);
        let mut cases = [case(0, 3, words, 3, &mut random), case(1, 3, words, 6, &mut random)];
        let mut seen = [false; 3];
        let mut cursors = vec![Cursor::new(3); 3];
        let mut passes: Vec<Pass> = (0..3).map(|_| Pass::new(1)).collect();
        for _ in 0..4 {
            for r in 0..3 {
                let case = &mut cases[usize::from(r == 1)];
                let input = case.inputs[r].as_deref().map(bytemuck::cast_slice);
                let mut buffers = Buffers { input, output: bytemuck::cast_slice_mut(&mut case.outputs[r]) };
                if !seen[r] {
                    let look = passes[r].look(&groups[r], &mut cursors[r], &case.call, &mut buffers);
                    seen[r] = matches!(look, Err(Trouble::Mismatch { .. }));
                    assert!(look.is_err() || !look.unwrap().done);
                }
            }
        }
        assert_eq!(seen, [true; 3]);
    }
}

#[test]
fn ranks_as_threads() {
    for p in [2usize, 3, 4] {
        let mut random = Random(5);
        let words = [1, 5, 100, 512, 4096, 30_000, 150_000];
        let cases: Vec<Case> = (0..33).map(|n| case(n, p, words[random.below(7)], n, &mut random)).collect();
        let heaps = Arc::new(Heaps::of(&cases));
        let groups = groups(p, true, Thresholds::default(), &heaps);
        let mut by_rank: Vec<Vec<_>> = (0..p).map(|_| Vec::new()).collect();
        for case in cases {
            let parts = case.inputs.into_iter().zip(case.outputs).zip(case.want);
            for (r, ((input, output), want)) in parts.enumerate() {
                by_rank[r].push((case.call.clone(), input, output, want));
            }
        }
        std::thread::scope(|s| {
            for (group, mine) in groups.iter().zip(by_rank) {
                let heaps = heaps.clone();
                s.spawn(move || {
                    let mut cursor = Cursor::new(p);
                    for (n, (call, input, mut output, want)) in mine.into_iter().enumerate() {
                        let input = input.as_deref().map(bytemuck::cast_slice);
                        let mut pass = Pass::new(n as u64 + 1);
                        let into = heaps.output(&call, group.me(), &mut output);
                        let mut buffers = Buffers { input, output: into };
                        while !pass.look(group, &mut cursor, &call, &mut buffers).unwrap().done {
                            std::thread::yield_now();
                        }
                        let got = heaps.result(&call, group.me(), &output);
                        assert!(
                            got == bytemuck::cast_slice::<_, u8>(&want),
                            "operation {n} of {p}: {call:?}"
                        );
                    }
                });
            }
        });
    }
}
