//! Random messages and collectives for a given time, every byte checked at its receiver.
//!
//! All ranks draw the same numbers, so that everybody knows who sends what to whom; the order in which a rank
//! starts and finishes its own part is its own.

use crate::run::{Bench, BenchError};
use rmpi::{ANY_SOURCE, Communicator, Datatype, Op, Request};
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest message.
const LARGEST: u64 = 4 << 20;
/// Most messages in one round.
const MESSAGES: u64 = 24;
/// Tags of one round.
const TAGS: i32 = 32;
/// Bytes of one round's messages after which no more are drawn.
const ROUND_BYTES: usize = 16 << 20;

/// Numbers that look random (`SplitMix64`).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn rank(&mut self, size: u32) -> u32 {
        u32::try_from(self.below(u64::from(size))).unwrap_or(0)
    }

    /// Small lengths as often as large ones; sometimes exactly a power of two.
    fn length(&mut self, most: u64) -> usize {
        let bits = self.below(u64::from(most.ilog2()) + 1);
        let low = self.below(1 << bits);
        let n = if self.below(4) == 0 { 1 << bits } else { (1 << bits) - 1 + low };
        usize::try_from(n.min(most)).unwrap_or(0)
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, usize::try_from(self.below(i as u64 + 1)).unwrap_or(0));
        }
    }
}

/// The bytes of message `key`.
fn pattern(key: u64, len: usize) -> Vec<u8> {
    let mut draw = Draw(key);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| draw.next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// What a run did.
#[derive(Default)]
struct Count {
    rounds: u64,
    messages: u64,
    bytes: u64,
    /// When something was last over, and the longest time in which nothing was.
    moved: Option<Instant>,
    gap: Duration,
}

impl Count {
    /// Notes that something is over.
    fn progress(&mut self) {
        let now = Instant::now();
        let since = self.moved.replace(now).map_or(Duration::ZERO, |last| now - last);
        self.gap = self.gap.max(since);
    }
}

struct Soak<'a> {
    bench: &'a Bench,
    comm: &'a Communicator,
    /// The same on all ranks.
    shared: Draw,
    /// This rank's own.
    own: Draw,
    /// First tag of the next batch of messages. A fast rank may be a batch ahead, and a receive from anybody must
    /// not take what it sends.
    tag: i32,
    count: Count,
}

impl Soak<'_> {
    fn check(&self, what: &'static str, bytes: usize, good: bool) -> Result<(), BenchError> {
        self.bench.check(what, bytes, good)
    }

    /// A batch of messages between random pairs, all under way at once.
    fn messages(&mut self) -> Result<(), BenchError> {
        let (me, size) = (self.comm.rank(), self.comm.size());
        let wanted = self.shared.below(MESSAGES) + 1;
        let (mut parts, mut total) = (Vec::new(), 0);
        let first = self.tag;
        self.tag = (first + TAGS) % (1 << 30);
        for tag in first..first + i32::try_from(wanted).unwrap_or(TAGS) {
            let (from, to) = (self.shared.rank(size), self.shared.rank(size));
            let (len, key) = (self.shared.length(LARGEST), self.shared.next());
            total += len;
            parts.extend((from == me).then_some((true, to, tag, len, key)));
            parts.extend((to == me).then_some((false, from, tag, len, key)));
            if total > ROUND_BYTES {
                break;
            }
        }
        self.own.shuffle(&mut parts);
        let mut receives: Vec<(Request<Vec<u8>>, usize, u64)> = Vec::new();
        let mut sends: Vec<Request<Vec<u8>>> = Vec::new();
        for (send, peer, tag, len, key) in parts {
            self.count.messages += 1;
            self.count.bytes += len as u64;
            if send {
                sends.push(self.comm.isend(pattern(key, len), peer, tag)?);
            } else if self.own.below(4) == 0 {
                receives.push((self.comm.irecv(len, ANY_SOURCE, tag)?, len, key));
            } else {
                receives.push((self.comm.irecv(len, peer, tag)?, len, key));
            }
        }
        self.own.shuffle(&mut receives);
        for (request, len, key) in receives {
            let got = request.wait()?;
            self.count.progress();
            self.check("soak messages", len, got == pattern(key, len))?;
        }
        sends.into_iter().try_for_each(|s| s.wait().map(drop))?;
        self.count.progress();
        Ok(())
    }

    /// Pairs of ranks that talk with blocking calls, one message after the other.
    fn talk(&mut self) -> Result<(), BenchError> {
        let (me, size) = (self.comm.rank(), self.comm.size());
        let (shift, turns, most) =
            (self.shared.rank(size), self.shared.below(64), self.shared.below(LARGEST));
        // Who adds up to `shift` talks; who would talk to itself listens.
        let peer = (shift + size - me) % size;
        let tag = self.tag;
        self.tag = (tag + TAGS) % (1 << 30);
        let mut draw = Draw(self.shared.next() ^ u64::from(me.min(peer)) << 32);
        let mut total = 0;
        for turn in 0..turns {
            let (len, key) = (draw.length(most.max(1)), draw.next());
            total += len;
            if peer == me || total > ROUND_BYTES / 2 {
                break;
            }
            // Three in a row one way, so that blocking sends also pile up.
            self.count.messages += 1;
            self.count.bytes += len as u64;
            if (turn / 3 % 2 == 0) == (me < peer) {
                self.comm.send(&pattern(key, len), peer, tag)?;
                self.count.progress();
            } else {
                let mut got = vec![0; len + 7];
                let status = self.comm.recv(&mut got, peer, tag)?;
                self.count.progress();
                let good = status.bytes == len as u64 && got[..len] == pattern(key, len);
                self.check("soak talk", len, good)?;
            }
        }
        Ok(())
    }

    /// A number of elements that all ranks share.
    fn elements(&mut self, each: usize) -> usize {
        self.shared.length(LARGEST / 4) / each.max(1) / 8 + 1
    }

    /// Everybody's small whole numbers for a sum, and what the ranks before `until` give together.
    fn numbers<T: Datatype + From<u8>>(&mut self, n: usize, until: u32) -> (Vec<T>, Vec<u64>) {
        let (me, key) = (self.comm.rank(), self.shared.next());
        let byte = |rank: u32, i: usize| {
            u8::try_from((key >> (i % 48)).wrapping_add(u64::from(rank)) % 7).unwrap_or(0)
        };
        let mine = (0..n).map(|i| T::from(byte(me, i))).collect();
        let sums = (0..n).map(|i| (0..until).map(|r| u64::from(byte(r, i))).sum()).collect();
        (mine, sums)
    }

    fn sums<T: Datatype + From<u8> + Into<f64>>(&mut self) -> Result<(), BenchError>
    where
        Op: rmpi::Reduction<T>,
    {
        let (size, me) = (self.comm.size(), self.comm.rank());
        let n = self.shared.length(LARGEST) / 8 + 1;
        #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "small whole numbers are exact")]
        let same =
            |got: &[T], want: &[u64]| got.iter().zip(want).all(|(g, w)| Into::<f64>::into(*g) == *w as f64);
        match self.shared.below(5) {
            0 => {
                let (mut data, want) = self.numbers::<T>(n, size);
                self.comm.allreduce_in_place(&mut data, &Op::Sum)?;
                self.check("soak allreduce in place", n, same(&data, &want))
            }
            1 => {
                let (data, want) = self.numbers::<T>(n, size);
                let request = self.comm.iallreduce(data, &Op::Sum)?;
                // Messages pass while the sum is under way.
                self.messages()?;
                let got = request.wait()?;
                self.check("soak iallreduce", n, same(&got, &want))
            }
            2 => {
                let (data, want) = self.numbers::<T>(n, me + 1);
                let mut got = vec![T::zeroed(); n];
                self.comm.scan(&data, &mut got, &Op::Sum)?;
                self.check("soak scan", n, same(&got, &want))
            }
            3 => {
                let each = n / size as usize + 1;
                let (data, want) = self.numbers::<T>(each * size as usize, size);
                let mut got = vec![T::zeroed(); each];
                self.comm.reduce_scatter(&data, &mut got, &vec![each; size as usize], &Op::Sum)?;
                self.check("soak reduce_scatter", n, same(&got, &want[each * me as usize..]))
            }
            _ => {
                let (data, want) = self.numbers::<T>(n, size);
                let mut got = vec![T::zeroed(); n];
                self.comm.allreduce(&data, &mut got, &Op::Sum)?;
                self.check("soak allreduce", n, same(&got, &want))
            }
        }
    }

    fn copies(&mut self) -> Result<(), BenchError> {
        let (me, size) = (self.comm.rank(), self.comm.size());
        let (ranks, key, root) = (size as usize, self.shared.next(), self.shared.rank(size));
        let len = self.elements(ranks);
        let from = |r: u32| pattern(key ^ u64::from(r), len);
        let all = || (0..size).flat_map(from).collect::<Vec<u8>>();
        match self.shared.below(5) {
            0 => {
                let mut data = if me == root { pattern(key, len) } else { vec![0; len] };
                self.comm.bcast(&mut data, root)?;
                self.check("soak bcast", len, data == pattern(key, len))
            }
            1 => {
                let mut got = vec![0; len * ranks];
                self.comm.allgather(&from(me), &mut got)?;
                self.check("soak allgather", len, got == all())
            }
            2 => {
                let mut got = vec![0; len * ranks];
                self.comm.gather(&from(me), &mut got, root)?;
                self.check("soak gather", len, me != root || got == all())
            }
            3 => {
                let mut got = vec![0; len];
                self.comm.scatter(&if me == root { all() } else { Vec::new() }, &mut got, root)?;
                self.check("soak scatter", len, got == from(me))
            }
            _ => {
                let block = |from: u32, to: u32| pattern(key ^ (u64::from(from) << 20 | u64::from(to)), len);
                let data: Vec<u8> = (0..size).flat_map(|to| block(me, to)).collect();
                let mut got = vec![0; len * ranks];
                self.comm.alltoall(&data, &mut got)?;
                let want: Vec<u8> = (0..size).flat_map(|from| block(from, me)).collect();
                self.check("soak alltoall", len, got == want)
            }
        }
    }

    fn round(&mut self) -> Result<(), BenchError> {
        self.count.rounds += 1;
        match self.shared.below(8) {
            0..2 => self.messages(),
            2..4 => self.talk(),
            4 => self.sums::<f32>(),
            5 => self.sums::<f64>(),
            6 => self.sums::<i32>(),
            _ => self.copies(),
        }
    }
}

/// Random work for `time`, or until there is such a file; `seed` gives the same work again.
pub(crate) fn soak(bench: &Bench, time: Duration, until: Option<&Path>, seed: u64) -> Result<(), BenchError> {
    let (comm, start) = (bench.comm(), Instant::now());
    let own = Draw(seed ^ u64::from(comm.rank() + 1) << 32);
    let mut s = Soak { bench, comm, shared: Draw(seed), own, tag: 0, count: Count::default() };
    loop {
        let ended = start.elapsed() >= time || until.is_some_and(Path::exists);
        let mut go_on = [u8::from(!ended)];
        comm.bcast(&mut go_on, 0)?;
        if go_on == [0] {
            break;
        }
        s.round()?;
        s.count.progress();
    }
    let mut total = [0u64; 2];
    comm.allreduce(&[s.count.messages, s.count.bytes], &mut total, &Op::Sum)?;
    let mut gap = [0.0f64];
    comm.allreduce(&[s.count.gap.as_secs_f64()], &mut gap, &Op::Max)?;
    bench.say(&format!(
        "soak np={} seconds={:.1} rounds={} messages={} bytes={} longest_gap={:.3}",
        comm.size(),
        start.elapsed().as_secs_f64(),
        s.count.rounds,
        total[0] / 2,
        total[1] / 2,
        gap[0],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_without_progress_is_kept() {
        let mut count = Count::default();
        count.progress();
        assert_eq!(count.gap, Duration::ZERO);
        count.moved = count.moved.and_then(|t| t.checked_sub(Duration::from_secs(3)));
        count.progress();
        count.progress();
        assert!(count.gap >= Duration::from_secs(3) && count.moved.is_some_and(|t| t.elapsed() < count.gap));
    }

    #[test]
    fn lengths_reach_both_ends_and_patterns_differ() {
        let mut draw = Draw(1);
        let lengths: Vec<usize> = (0..10_000).map(|_| draw.length(LARGEST)).collect();
        assert!(
            lengths.contains(&0) && lengths.contains(&(4 << 20)) && lengths.iter().all(|n| *n <= 4 << 20)
        );
        assert_eq!(pattern(3, 21), pattern(3, 24)[..21]);
        assert_ne!(pattern(3, 16), pattern(4, 16));
    }
}
