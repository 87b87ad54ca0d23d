//! Broadcasts and allgathers whose data is copied out of its giver's own memory.

use super::*;
use crate::node::block::Slots;
use rmpi_shm::{Rates, Segment};
use std::sync::atomic::{AtomicU64, Ordering};

/// Members of this process; `blind` ones cannot read others' memory.
#[derive(Debug)]
struct Together {
    segment: Segment,
    blind: bool,
    copies: Arc<AtomicU64>,
}

impl Reading for Together {
    fn offers(&self) -> bool {
        self.segment.single().offer()
    }

    fn read(&self, member: usize, at: u64, into: &mut [u8]) -> bool {
        if self.blind {
            // What an attempt leaves behind is anything.
            into.fill(0xEE);
            return false;
        }
        self.copies.fetch_add(1, Ordering::Relaxed);
        self.segment.single().read(u32::try_from(member).unwrap(), at, into).is_ok()
    }

    fn now(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }
}

fn tuning() -> Thresholds {
    Thresholds { single_copy: 16 << 10, ..Thresholds::default() }
}

/// Broadcasts and allgathers only, in groups where one copy is said to win; copies made.
fn run_copying(p: usize, blind: &[usize], seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut cases: Vec<Case> = (0..40)
        .map(|n| {
            let words = [513, 5000, 70_001, 300_000][random.below(4)];
            case(n, p, words, [1, 6, 3, 6][n % 4], &mut random)
        })
        .collect();
    let heaps = Arc::new(Heaps::of(&cases));
    let file = rmpi_shm::create(&(0..u32::try_from(p).unwrap()).collect::<Vec<_>>()).unwrap();
    let copies = Arc::new(AtomicU64::new(0));
    let groups: Vec<_> = groups(p, false, tuning(), &heaps)
        .into_iter()
        .enumerate()
        .map(|(me, group)| {
            let local = u32::try_from(me).unwrap();
            let segment =
                Segment::attach(file.try_clone().unwrap(), local, u32::try_from(p).unwrap()).unwrap();
            group.copying(Arc::new(Together { segment, blind: blind.contains(&me), copies: copies.clone() }))
        })
        .collect();
    for group in &groups {
        (0..Rates::WORDS).for_each(|word| group.mine().set_report(word, u64::from(u32::MAX) << 32 | 1));
    }
    run_in(&groups, &heaps, &mut cases, &mut random);
    copies.load(Ordering::Relaxed)
}

#[test]
fn data_is_copied_from_where_it_is() {
    for p in [2, 3, 4, 7] {
        assert!(run_copying(p, &[], 5 + p as u64) > 0, "{p}");
    }
}

#[test]
fn members_that_cannot_read_get_it_through_the_rings() {
    for (p, blind) in [(2, &[0][..]), (2, &[1]), (2, &[0, 1]), (4, &[2]), (5, &[0, 3, 4])] {
        run_copying(p, blind, 9 + p as u64);
    }
}

#[test]
fn an_abandoned_offer_is_not_believed() {
    let mut random = Random(3);
    let mut cases = [case(0, 2, 100_000, 6, &mut random)];
    let heaps = Arc::new(Heaps::of(&cases));
    let file = rmpi_shm::create(&[0, 1]).unwrap();
    let copies = Arc::new(AtomicU64::new(0));
    let groups: Vec<_> = groups(2, false, tuning(), &heaps)
        .into_iter()
        .zip(0..)
        .map(|(group, me)| {
            let segment = Segment::attach(file.try_clone().unwrap(), me, 2).unwrap();
            group.copying(Arc::new(Together { segment, blind: false, copies: copies.clone() }))
        })
        .collect();
    for group in &groups {
        (0..Rates::WORDS).for_each(|word| group.mine().set_report(word, u64::from(u32::MAX) << 32 | 1));
    }
    let (mut cursors, mut passes) = (vec![Cursor::new(2); 2], [Pass::new(1), Pass::new(1)]);
    let mut look = |r: usize, passes: &mut [Pass; 2], cursors: &mut [Cursor]| {
        let case = &mut cases[0];
        let input = case.inputs[r].as_deref().map(bytemuck::cast_slice);
        let mut buffers = Buffers { input, output: bytemuck::cast_slice_mut(&mut case.outputs[r]) };
        passes[r].look(&groups[r], &mut cursors[r], &case.call, &mut buffers).unwrap()
    };
    assert!(!look(0, &mut passes, &mut cursors).done);
    passes[0].abandon(&groups[0]);
    for _ in 0..10 {
        let seen = look(1, &mut passes, &mut cursors);
        assert!(!seen.done && seen.awaits == Some(0), "it waits to hear why");
    }
    assert_eq!(copies.load(Ordering::Relaxed), 0);
}
