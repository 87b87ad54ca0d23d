//! Models of the lock-free parts, explored by loom over every order of steps:
//! `RUSTFLAGS="--cfg loom" cargo test -p rmpi-shm --release`.

#![allow(unsafe_code, reason = "loom's cells, whose use it checks, are reached through pointers")]

use crate::park;
use crate::pool::{Held, Pool};
use crate::ring::{Receiver, Sender, Words};
use crate::sync::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

#[derive(Clone)]
struct Memory(Arc<Vec<AtomicU64>>);

impl Memory {
    fn new(words: usize) -> Self {
        Self(Arc::new((0..words).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl Words for Memory {
    fn word(&self, i: usize) -> &AtomicU64 {
        &self.0[i % self.0.len()]
    }
}

/// A ring of `SLOTS` slots, with a plain cell of memory for each that slots point to and that is used again.
struct Pair {
    slots: Memory,
    taken: Memory,
    cells: Arc<Vec<UnsafeCell<u64>>>,
}

const SLOTS: u64 = 2;

fn pair() -> Pair {
    let cells = (0..SLOTS).map(|_| UnsafeCell::new(0)).collect();
    Pair { slots: Memory::new(8 * SLOTS as usize), taken: Memory::new(1), cells: Arc::new(cells) }
}

#[test]
fn messages_arrive_whole_in_order_and_memory_is_not_rewritten_while_it_is_read() {
    const MESSAGES: u64 = 4;
    loom::model(|| {
        let Pair { slots, taken, cells } = pair();
        let mut out = Sender::<_, SLOTS>::new(slots.clone(), taken.clone());
        let mut inn = Receiver::<_, SLOTS>::new(slots, taken);
        let theirs = cells.clone();
        let sender = thread::spawn(move || {
            for n in 0..MESSAGES {
                while !out.has_room() {
                    out.look().unwrap();
                    thread::yield_now();
                }
                let at = (n % SLOTS) as usize;
                // SAFETY: the cell lives; loom fails the model if the receiver may still be reading.
                theirs[at].with_mut(|p| unsafe { *p = 100 + n });
                out.write(1, 7 * n);
                out.write(2, 3 * n);
                out.publish(0);
            }
        });
        for n in 0..MESSAGES {
            while inn.peek().is_none() {
                inn.tell();
                thread::yield_now();
            }
            assert_eq!((inn.read(1), inn.read(2)), (7 * n, 3 * n));
            let at = (n % SLOTS) as usize;
            // SAFETY: the cell lives; loom fails the model if the sender may be writing.
            assert_eq!(cells[at].with(|p| unsafe { *p }), 100 + n);
            inn.advance();
        }
        inn.tell();
        sender.join().unwrap();
    });
}

#[test]
fn cells_come_back_only_when_they_have_been_read() {
    loom::model(|| {
        let Pair { slots, taken, cells } = pair();
        let mut out = Sender::<_, SLOTS>::new(slots.clone(), taken.clone());
        let mut inn = Receiver::<_, SLOTS>::new(slots, taken);
        let theirs = cells.clone();
        let sender = thread::spawn(move || {
            let (mut pool, mut held) = (Pool::of(1), Held::default());
            for n in 1..=2 {
                let cell = loop {
                    if let Some(cell) = pool.take(held.cells()) {
                        break cell;
                    }
                    held.settle(out.look().unwrap(), &mut pool);
                    thread::yield_now();
                };
                held.hold(out.position(), cell);
                // SAFETY: the cell lives; loom fails the model if the receiver may still be reading.
                theirs[usize::from(cell)].with_mut(|p| unsafe { *p = n });
                out.write(1, u64::from(cell));
                out.publish(0);
            }
        });
        for n in 1..=2 {
            while inn.peek().is_none() {
                thread::yield_now();
            }
            let cell = inn.read(1) as usize;
            // SAFETY: the cell lives; loom fails the model if the sender may be writing.
            assert_eq!(cells[cell].with(|p| unsafe { *p }), n);
            inn.advance();
            inn.tell();
        }
        sender.join().unwrap();
    });
}

#[test]
fn who_sleeps_with_a_message_waiting_is_rung() {
    loom::model(|| {
        let flag = Arc::new(AtomicU64::new(0));
        let Pair { slots, taken, .. } = pair();
        let mut out = Sender::<_, SLOTS>::new(slots.clone(), taken.clone());
        let inn = Receiver::<_, SLOTS>::new(slots, taken);
        let theirs = flag.clone();
        let sender = thread::spawn(move || {
            out.publish(0);
            park::is_raised(&theirs, true) && park::claim(&theirs)
        });
        let sure = park::raise(&flag);
        let sleeps = !inn.ready();
        let rung = sender.join().unwrap();
        assert!(sure && (!sleeps || rung));
    });
}

#[test]
fn who_sleeps_for_want_of_room_is_rung() {
    loom::model(|| {
        let (flag, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let Pair { slots, taken, .. } = pair();
        let mut out = Sender::<_, SLOTS>::new(slots.clone(), taken.clone());
        let mut inn = Receiver::<_, SLOTS>::new(slots, taken);
        out.publish(0);
        out.publish(0);
        let (f, w) = (flag.clone(), wanted.clone());
        let receiver = thread::spawn(move || {
            inn.peek().unwrap();
            inn.advance();
            inn.tell();
            crate::fence::light(true);
            w.load(Ordering::Relaxed) != 0 && park::is_raised(&f, true) && park::claim(&f)
        });
        wanted.store(1, Ordering::SeqCst);
        let sure = park::raise(&flag);
        out.look().unwrap();
        let sleeps = !out.has_room();
        let rung = receiver.join().unwrap();
        assert!(sure && (!sleeps || rung));
    });
}
