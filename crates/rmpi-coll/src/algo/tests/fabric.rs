//! A world in memory: all ranks of a collective, messages delivered in an order drawn from a seed, and
//! buffers checked for what a schedule may not do.

use crate::{Action, Buffer, Fabric, Progress, Region, Run, Schedule};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// How elements combine; the elements are eight bytes.
pub(crate) type Combine = fn(u64, u64) -> u64;

/// Affine maps x → ax + b modulo 2^32, packed (a, b), one after the other: associative, not commutative.
pub(crate) fn compose(f: u64, g: u64) -> u64 {
    let split = |x: u64| (x >> 32, x & 0xffff_ffff);
    let ((a, b), (c, d)) = (split(f), split(g));
    ((a * c) & 0xffff_ffff) << 32 | ((c * b + d) & 0xffff_ffff)
}

/// Wrapping addition.
pub(crate) fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

type Key = (u32, u32, u32);

#[derive(Default)]
struct Wire {
    /// Sent and not yet delivered, by (from, to, tag).
    flying: Vec<(Key, Vec<u8>)>,
    /// The keys of `flying`.
    out: HashSet<Key>,
    /// Delivered and not yet taken.
    here: HashMap<Key, Vec<u8>>,
}

/// One rank.
struct Node {
    rank: u32,
    buffers: [Vec<u8>; 3],
    combine: Combine,
    wire: Rc<RefCell<Wire>>,
    /// Bytes being received: nobody may look at them.
    open: Vec<Region>,
    /// Bytes being sent: nobody may change them.
    held: Vec<Region>,
}

enum Op {
    Send { key: Key, data: Region },
    Recv { key: Key, into: Region },
}

fn overlap(a: Region, b: Region) -> bool {
    a.buffer == b.buffer && a.range().start < b.range().end && b.range().start < a.range().end
}

impl Node {
    fn bytes(&mut self, r: Region) -> &mut [u8] {
        &mut self.buffers[r.buffer as usize][r.range()]
    }

    fn may_read(&self, r: Region) {
        assert!(!self.open.iter().any(|&o| overlap(o, r)), "{r:?} read while received");
    }

    fn may_write(&self, r: Region) {
        assert_ne!(r.buffer, Buffer::Input, "input written");
        self.may_read(r);
        assert!(!self.held.iter().any(|&o| overlap(o, r)), "{r:?} written while sent");
    }
}

impl Fabric for Node {
    type Error = String;
    type Op = Op;

    fn send(&mut self, peer: u32, tag: u32, data: Region) -> Result<Op, String> {
        self.may_read(data);
        let key = (self.rank, peer, tag);
        let bytes = self.bytes(data).to_vec();
        let mut wire = self.wire.borrow_mut();
        if !wire.out.insert(key) {
            return Err(format!("message {key:?} sent twice"));
        }
        wire.flying.push((key, bytes));
        drop(wire);
        self.held.push(data);
        Ok(Op::Send { key, data })
    }

    fn recv(&mut self, peer: u32, tag: u32, into: Region) -> Result<Op, String> {
        self.may_write(into);
        self.open.push(into);
        Ok(Op::Recv { key: (peer, self.rank, tag), into })
    }

    fn done(&mut self, op: &mut Op) -> Result<bool, String> {
        let forget = |list: &mut Vec<Region>, r: Region| {
            let at = list.iter().position(|&x| x == r).expect("was pushed");
            list.swap_remove(at);
        };
        match *op {
            Op::Send { key, data } => {
                if self.wire.borrow().out.contains(&key) {
                    return Ok(false);
                }
                forget(&mut self.held, data);
            }
            Op::Recv { key, into } => {
                let Some(bytes) = self.wire.borrow_mut().here.remove(&key) else { return Ok(false) };
                if bytes.len() != into.len {
                    return Err(format!("message {key:?} of {} bytes into {into:?}", bytes.len()));
                }
                forget(&mut self.open, into);
                self.bytes(into).copy_from_slice(&bytes);
            }
        }
        Ok(true)
    }

    fn reduce(&mut self, dst: Region, src: Region) -> Result<(), String> {
        self.may_write(dst);
        self.may_read(src);
        assert!(!overlap(dst, src) && dst.len == src.len);
        let right = self.bytes(src).to_vec();
        let combine = self.combine;
        for (d, s) in self.bytes(dst).chunks_mut(8).zip(right.chunks(8)) {
            let read = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("whole elements"));
            d.copy_from_slice(&combine(read(d), read(s)).to_le_bytes());
        }
        Ok(())
    }

    fn copy(&mut self, dst: Region, src: Region) -> Result<(), String> {
        self.may_write(dst);
        self.may_read(src);
        assert!(!overlap(dst, src));
        let from = self.bytes(src).to_vec();
        self.bytes(dst).copy_from_slice(&from);
        Ok(())
    }
}

/// What a rank starts with.
pub(crate) struct Start {
    pub(crate) schedule: Schedule,
    pub(crate) input: Vec<u64>,
    pub(crate) output: Vec<u64>,
}

fn to_bytes(x: &[u64]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Runs all ranks; returns their outputs.
pub(crate) fn run(starts: Vec<Start>, combine: Combine, seed: u64) -> Vec<Vec<u64>> {
    let wire = Rc::new(RefCell::new(Wire::default()));
    let mut random = Random(seed);
    let mut ranks: Vec<(Node, Run<Op>, bool)> = starts
        .into_iter()
        .zip(0u32..)
        .map(|(s, rank)| {
            let buffers = [to_bytes(&s.input), to_bytes(&s.output), vec![0xee; s.schedule.scratch_len()]];
            let node = Node { rank, buffers, combine, wire: Rc::clone(&wire), open: vec![], held: vec![] };
            (node, Run::new(Arc::new(s.schedule)), false)
        })
        .collect();
    loop {
        let all_done = step(&mut ranks);
        let mut w = wire.borrow_mut();
        if all_done {
            assert!(w.flying.is_empty() && w.here.is_empty(), "messages nobody took");
            break;
        }
        assert!(!w.flying.is_empty() || !w.here.is_empty(), "deadlock");
        // Some of what is on its way arrives, in any order.
        for _ in 0..random.below(w.flying.len() + 1).max(1).min(w.flying.len()) {
            let at = random.below(w.flying.len());
            let (key, bytes) = w.flying.swap_remove(at);
            w.out.remove(&key);
            w.here.insert(key, bytes);
        }
    }
    let values = |b: &[u8]| b.chunks(8).map(|c| u64::from_le_bytes(c.try_into().expect("8"))).collect();
    ranks.iter().map(|(node, ..)| values(&node.buffers[1])).collect()
}

fn step(ranks: &mut [(Node, Run<Op>, bool)]) -> bool {
    for (node, run, done) in ranks.iter_mut().filter(|r| !r.2) {
        *done = run.advance(node).unwrap_or_else(|e| panic!("rank {}: {e}", node.rank)) == Progress::Done;
    }
    ranks.iter().all(|r| r.2)
}

/// The most bytes of messages any rank sends, for comparisons of algorithms.
pub(crate) fn sent(schedule: &Schedule) -> usize {
    let bytes = |a: &Action| if let Action::Send { data, .. } = a { data.len } else { 0 };
    schedule.steps().iter().map(bytes).sum()
}
