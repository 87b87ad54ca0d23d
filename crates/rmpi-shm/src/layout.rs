//! Where everything is in a node's segment. Pure: a function of the number of ranks on the node.
//!
//! ```text
//! header     2 pages: magic "RMPISHM1", version u32, ranks u32, length u64; then at 64 a byte a local rank:
//!            1 set by the daemon when it has reaped the process, 2 by a rank that does not use the segment; at 1088 the world's number of each local rank, u32
//! states     512 bytes a rank: what a rank says of itself (parked or not, how to wake it, who has news)
//! offers     4 KiB a rank: which memory of its own it lets others copy from
//! pairs      64 KiB for each (receiver, sender): 64 slots of a cache line | control lines | 32 KiB lane
//! pools      4 MiB a sending rank: cells for large messages to anybody
//! coll       8 MiB a rank: collectives of the world communicator
//! heaps      16 GiB a rank, mapped piece by piece: only its rank allocates there
//! ```
//! The file is sparse: a page nobody touches costs nothing. Everything is zero at the start but the header.

/// Most ranks of one node that share memory; more talk over sockets.
pub const MAX_RANKS: u32 = 1024;

/// Bytes of the header.
pub(crate) const HEADER: u64 = 8192;
/// Where the header's bytes of reaped ranks begin.
pub(crate) const GONE: u64 = 64;
/// Where the header's table of world ranks begins.
pub(crate) const WORLD: u64 = GONE + MAX_RANKS as u64;
pub(crate) const MAGIC: [u8; 8] = *b"RMPISHM1";
pub(crate) const VERSION: u32 = 2;

const PAGE: u64 = 4096;
const STATE: u64 = 512;
const PAIR: u64 = 64 << 10;
const OFFERS: u64 = 8 * Layout::OFFERS as u64;
const LANE_AT: u64 = 32 << 10;

/// A part of the segment: offset in the file and length, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl Span {
    /// One past the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The layout for some number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ranks: u32,
}

impl Layout {
    /// Slots of a pair: a message or a part of one each.
    pub const SLOTS: u32 = 64;
    /// Bytes of a slot: a cache line.
    pub const SLOT: u64 = 64;
    /// Offers of a rank that can stand at once.
    pub const OFFERS: u16 = 512;
    /// Bytes of a pair's lane for small payloads.
    pub const LANE: u64 = 32 << 10;
    /// Bytes of a rank's pool of cells.
    pub const POOL: u64 = 4 << 20;
    /// Bytes of a rank's area for collectives of the world.
    pub const COLL: u64 = 8 << 20;
    /// Bytes of a rank's heap.
    pub const HEAP: u64 = 16 << 30;

    /// The layout for a node of `ranks`; `None` for none or more than [`MAX_RANKS`].
    #[must_use]
    pub const fn new(ranks: u32) -> Option<Self> {
        if ranks == 0 || ranks > MAX_RANKS { None } else { Some(Self { ranks }) }
    }

    /// Ranks of the node.
    #[must_use]
    pub const fn ranks(&self) -> u32 {
        self.ranks
    }

    const fn states(&self) -> u64 {
        HEADER
    }

    const fn all_offers(&self) -> u64 {
        (self.states() + self.ranks as u64 * STATE).next_multiple_of(PAGE)
    }

    const fn pairs(&self) -> u64 {
        (self.all_offers() + self.ranks as u64 * OFFERS).next_multiple_of(PAIR)
    }

    const fn pools(&self) -> u64 {
        (self.pairs() + self.ranks as u64 * self.ranks as u64 * PAIR).next_multiple_of(2 << 20)
    }

    const fn colls(&self) -> u64 {
        self.pools() + self.ranks as u64 * Self::POOL
    }

    const fn heaps(&self) -> u64 {
        (self.colls() + self.ranks as u64 * Self::COLL).next_multiple_of(Self::HEAP)
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.heaps() + self.ranks as u64 * Self::HEAP
    }

    /// Everything that is mapped at once: all but the heaps.
    #[must_use]
    pub const fn core(&self) -> Span {
        Span { start: 0, len: self.colls() + self.ranks as u64 * Self::COLL }
    }

    /// What `rank` says of itself.
    ///
    /// # Panics
    /// Like all that follow, when a rank is not one of the node.
    #[must_use]
    pub const fn state(&self, rank: u32) -> Span {
        assert!(rank < self.ranks);
        Span { start: self.states() + rank as u64 * STATE, len: STATE }
    }

    /// Which of its offers of its own memory `rank` stands by.
    #[must_use]
    pub const fn offers(&self, rank: u32) -> Span {
        assert!(rank < self.ranks);
        Span { start: self.all_offers() + rank as u64 * OFFERS, len: OFFERS }
    }

    const fn pair(&self, from: u32, to: u32) -> u64 {
        assert!(from < self.ranks && to < self.ranks);
        self.pairs() + (to as u64 * self.ranks as u64 + from as u64) * PAIR
    }

    /// The slots in which `from` announces messages to `to`.
    #[must_use]
    pub const fn slots(&self, from: u32, to: u32) -> Span {
        Span { start: self.pair(from, to), len: Self::SLOTS as u64 * Self::SLOT }
    }

    /// The line of a pair that the receiver writes: how far it has come.
    #[must_use]
    pub const fn taken(&self, from: u32, to: u32) -> Span {
        Span { start: self.pair(from, to) + PAGE, len: 64 }
    }

    /// The line of a pair that the sender writes: whether it waits for room.
    #[must_use]
    pub const fn wanted(&self, from: u32, to: u32) -> Span {
        Span { start: self.pair(from, to) + PAGE + 128, len: 64 }
    }

    /// Small payloads of a pair.
    #[must_use]
    pub const fn lane(&self, from: u32, to: u32) -> Span {
        Span { start: self.pair(from, to) + LANE_AT, len: Self::LANE }
    }

    /// Cells in which `rank` sends.
    #[must_use]
    pub const fn pool(&self, rank: u32) -> Span {
        assert!(rank < self.ranks);
        Span { start: self.pools() + rank as u64 * Self::POOL, len: Self::POOL }
    }

    /// The part of `rank` in collectives of the world.
    #[must_use]
    pub const fn coll(&self, rank: u32) -> Span {
        assert!(rank < self.ranks);
        Span { start: self.colls() + rank as u64 * Self::COLL, len: Self::COLL }
    }

    /// The heap of `rank`.
    #[must_use]
    pub const fn heap(&self, rank: u32) -> Span {
        assert!(rank < self.ranks);
        Span { start: self.heaps() + rank as u64 * Self::HEAP, len: Self::HEAP }
    }

    /// The first bytes of the file, up to the table of world ranks and with it.
    pub(crate) fn header(&self, world: &[u32]) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(WORLD).unwrap_or(0)];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.ranks.to_le_bytes());
        out[16..24].copy_from_slice(&self.length().to_le_bytes());
        world.iter().for_each(|r| out.extend_from_slice(&r.to_le_bytes()));
        out
    }
}

const _: () = assert!(LANE_AT + Layout::LANE <= PAIR && PAGE + 256 <= LANE_AT);
const _: () = assert!(WORLD + 4 * MAX_RANKS as u64 <= HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_meet_and_lie_inside() {
        for n in [1, 2, 3, 8, 64] {
            let l = Layout::new(n).unwrap();
            let mut parts = vec![Span { start: 0, len: HEADER }];
            for r in 0..n {
                parts.extend([l.state(r), l.offers(r), l.pool(r), l.coll(r), l.heap(r)]);
                for s in 0..n {
                    parts.extend([l.slots(s, r), l.taken(s, r), l.wanted(s, r), l.lane(s, r)]);
                }
            }
            parts.sort_by_key(|p| p.start);
            assert!(parts.windows(2).all(|w| w[0].end() <= w[1].start), "{n}");
            assert_eq!(parts.last().unwrap().end(), l.length());
            assert!(parts.iter().all(|p| p.start % 64 == 0));
            assert!(l.core().end() <= l.heap(0).start);
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!((Layout::new(0), Layout::new(MAX_RANKS + 1)), (None, None));
        let largest = Layout::new(MAX_RANKS).unwrap();
        assert!(largest.length() < 1 << 46 && largest.core().len < 1 << 37);
    }
}
