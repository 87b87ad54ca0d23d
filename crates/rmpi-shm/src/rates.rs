//! Which way large payloads take between two ranks: through cells, or in one copy out of the sender's memory. Pure.
//!
//! Which one is faster depends on how far the two cores' caches are from each other, which nobody can know before
//! and which changes while a job runs, and on whether the reader's cache still has the data. So the reader times
//! what it copies anyway, and now and then takes the other way once. Through cells until one copy has shown that it
//! is clearly faster.

/// A way for a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Copied into the segment by its sender and out of it by its reader, at the same time.
    #[default]
    Cells,
    /// Copied once, by its reader.
    Single,
}

/// Payloads of similar size: below 256 KiB, 1 MiB, 4 MiB, 16 MiB, and longer ones.
const CLASSES: usize = 5;
/// Payloads before one copy is tried for the first time: the first ones meet pages that are not there yet.
const FIRST: u32 = 8;
/// Payloads between two trials of the other way. In the worst case it is four times slower.
const EVERY: u32 = 256;
/// Payloads of a trial of one copy: what the first has read, the reader's cache may still have at the next.
const TRIAL: u32 = 3;
/// Payloads between trials when the way in use has become slower or faster by [`CHANGED`].
const SOON: u32 = 4;
/// A change, in quarters, that says something: the cores' distance makes four times and more.
const CHANGED: u64 = 6;
fn class(bytes: usize) -> usize {
    match bytes >> 18 {
        0 => 0,
        1..4 => 1,
        4..16 => 2,
        16..64 => 3,
        _ => 4,
    }
}

/// The last few samples, picoseconds a byte; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Rate([u32; 4]);

impl Rate {
    /// The best of them: time is only ever lost, to something else that the machine had to do.
    fn best(self) -> u64 {
        self.0.iter().copied().filter(|&s| s > 0).min().map_or(0, u64::from)
    }

    fn add(&mut self, bytes: usize, ns: u64) {
        let sample = (ns.saturating_mul(1000) / (bytes.max(1) as u64)).clamp(1, u64::from(u32::MAX));
        self.0.rotate_right(1);
        self.0[0] = u32::try_from(sample).unwrap_or(u32::MAX);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    way: Way,
    cells: Rate,
    single: Rate,
    /// Payloads since the other way was tried, and how fast the way in use was then.
    turns: u32,
    mark: u64,
    /// Payloads left of a trial.
    trial: u32,
}

impl Class {
    fn decide(&mut self) {
        let (cells, single) = (self.cells.best(), self.single.best());
        if cells == 0 || single == 0 {
            return;
        }
        let way = match self.way {
            // One copy keeps a sender busy that cells let go: it must win by something.
            Way::Cells if 4 * single < 3 * cells => Way::Single,
            Way::Single if 10 * cells < 9 * single => Way::Cells,
            way => way,
        };
        if way != self.way {
            (self.way, self.turns, self.trial) = (way, 0, 0);
            self.mark = self.current();
        }
    }

    fn current(&self) -> u64 {
        match self.way {
            Way::Cells => self.cells.best(),
            Way::Single => self.single.best(),
        }
    }

    fn choose(&mut self) -> Way {
        let other = match self.way {
            Way::Cells => Way::Single,
            Way::Single => Way::Cells,
        };
        if self.trial > 0 {
            self.trial -= 1;
            return other;
        }
        self.turns = self.turns.saturating_add(1);
        let (now, mark) = (self.current(), self.mark);
        let changed = 4 * now > CHANGED * mark || CHANGED * now < 4 * mark;
        let due = match (self.single.best(), self.cells.best()) {
            (0, 0) => false,
            (0, _) => self.turns > FIRST,
            _ => self.turns > EVERY || (changed && self.turns > SOON),
        };
        if !due {
            return self.way;
        }
        (self.turns, self.mark) = (0, now);
        self.trial = if other == Way::Single { TRIAL - 1 } else { 0 };
        other
    }
}

/// How fast payloads were read each way, by size, and what follows.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    classes: [Class; CLASSES],
    refused: bool,
}

impl Rates {
    /// Number of words in which [`Rates::report`] fits.
    pub const WORDS: usize = CLASSES;

    /// The way for the next payload of so many bytes.
    pub fn choose(&mut self, bytes: usize) -> Way {
        if self.refused { Way::Cells } else { self.classes[class(bytes)].choose() }
    }

    /// `read` bytes of a payload of `bytes` came through cells in `ns`.
    pub fn cells(&mut self, bytes: usize, read: usize, ns: u64) {
        let class = &mut self.classes[class(bytes)];
        class.cells.add(read, ns);
        class.decide();
    }

    /// `read` bytes of a payload of `bytes` were copied once in `ns`.
    pub fn single(&mut self, bytes: usize, read: usize, ns: u64) {
        let class = &mut self.classes[class(bytes)];
        class.single.add(read, ns);
        class.decide();
    }

    /// The kernel does not let one of the two read the other's memory: never again.
    pub fn refuse(&mut self) {
        self.refused = true;
    }

    /// Whether one copy is out of the question.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// What is known for payloads of so many bytes, for others: which word it is, and the word.
    #[must_use]
    pub fn report(&self, bytes: usize) -> (usize, u64) {
        let at = class(bytes);
        (at, self.classes[at].cells.best() << 32 | self.classes[at].single.best())
    }

    /// Takes over what readers report ([`Rates::report`]) of payloads of so many bytes: the slowest counts.
    pub fn adopt(&mut self, bytes: usize, reports: impl Iterator<Item = u64>) {
        let (mut cells, mut single) = (0, 0);
        for word in reports {
            let halves = (word >> 32, word & u64::from(u32::MAX));
            cells = cells.max(u32::try_from(halves.0).unwrap_or(u32::MAX));
            single = single.max(u32::try_from(halves.1).unwrap_or(u32::MAX));
        }
        let class = &mut self.classes[class(bytes)];
        (class.cells, class.single) = (Rate([cells; 4]), Rate([single; 4]));
        class.decide();
    }

    /// Which word of a report payloads of so many bytes have.
    #[must_use]
    pub fn word(bytes: usize) -> usize {
        class(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    /// Payloads of which each way takes so many ns a KiB; how many of `n` went in one copy.
    fn run(rates: &mut Rates, bytes: usize, n: usize, cells: u64, single: u64) -> usize {
        let mut singles = 0;
        for _ in 0..n {
            match rates.choose(bytes) {
                Way::Cells => rates.cells(bytes, 16 << 10, 16 * cells),
                Way::Single => {
                    singles += 1;
                    rates.single(bytes, bytes, (bytes as u64 >> 10) * single);
                }
            }
        }
        singles
    }

    #[test]
    fn near_cells_stay_and_trials_are_few() {
        let mut rates = Rates::default();
        let singles = run(&mut rates, MIB, 1000, 40, 120);
        assert!((TRIAL as usize..=15).contains(&singles), "{singles}");
    }

    #[test]
    fn a_change_of_distance_is_noticed_both_ways() {
        let mut rates = Rates::default();
        run(&mut rates, MIB, 100, 40, 120);
        // Far: cells become ten times slower, one copy of what the cache still has does not.
        let singles = run(&mut rates, MIB, 200, 400, 130);
        assert!(singles > 170, "{singles}");
        // Near again, which one copy does not show.
        let singles = run(&mut rates, MIB, 600, 40, 130);
        assert!(singles < 2 * EVERY as usize, "{singles}");
        assert!(run(&mut rates, MIB, 1000, 40, 130) < 20);
    }

    #[test]
    fn sizes_are_apart_and_refusal_is_final() {
        let mut rates = Rates::default();
        run(&mut rates, 4 * MIB, 50, 400, 100);
        assert_eq!(rates.choose(4 * MIB), Way::Single);
        assert_eq!(rates.choose(64 << 10), Way::Cells);
        rates.refuse();
        assert_eq!(rates.choose(4 * MIB), Way::Cells);
    }

    #[test]
    fn the_slowest_reader_decides() {
        let (mut a, mut b, mut root) = (Rates::default(), Rates::default(), Rates::default());
        run(&mut a, MIB, 20, 400, 100);
        run(&mut b, MIB, 20, 50, 500);
        root.adopt(MIB, [a.report(MIB).1, b.report(MIB).1].into_iter());
        assert_eq!(root.choose(MIB), Way::Cells);
        root.adopt(MIB, std::iter::once(a.report(MIB).1));
        assert_eq!(root.choose(MIB), Way::Single);
    }

    proptest! {
        /// Whatever is measured or reported, a way comes out, and no sum runs over.
        #[test]
        fn anything_may_be_measured(samples in proptest::collection::vec((any::<u64>(), any::<u64>(), 0usize..40, any::<bool>()), 0..200)) {
            let mut rates = Rates::default();
            for (ns, word, shift, one) in samples {
                let bytes = 1 << shift;
                let _ = rates.choose(bytes);
                if one { rates.single(bytes, bytes, ns) } else { rates.cells(bytes, 0, ns) }
                rates.adopt(bytes, std::iter::once(word));
            }
        }
    }
}
