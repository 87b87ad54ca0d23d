//! One peer on the node: a ring each way, and the memory that its slots point to.
//!
//! ```text
//! slot  0 number u32 | kind u8 | place u8 | check u16      1 context u32 | tag i32
//!       inline (place = bytes, 0..=48): 2..8 payload
//!       else (place = LANE, POOL): 2 length u64   3 id u64   4 offset u32 | bytes u32
//!            (place = NONE): the same, and 4 address u64   5 ticket u64, or 0
//! ```
//! What the words of kind, length and id mean is the engine's business; where bytes are, and that they are
//! inside the sender's memory, is looked after here.

use crate::area::{Area, SlotWords};
use crate::layout::Layout;
use crate::offers::{Offer, Ticket};
use crate::pool::{CELL, Held, Pool};
use crate::ring::{INLINE, Impossible, Receiver, Sender};
use crate::segment::Segment;
use std::sync::atomic::Ordering;

const SLOTS: u64 = Layout::SLOTS as u64;
const NONE: u8 = 0xff;
const LANE: u8 = 0xfe;
const POOL: u8 = 0xfd;
/// Pieces up to this size travel in the lane; in a stream longer ones go through cells, whose rotation is larger.
const LANE_MAX: usize = 512;
/// Pieces of a stream up to this size share cells; and longest piece in a lane.
const SHARED_MAX: usize = 8 << 10;
const LANE_MOST: usize = 2 << 10;
/// Lines of the lane that are claimed for the next message after one was sent.
const AHEAD: usize = 2;

/// What comes with every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// What kind of message; the engine's numbers.
    pub kind: u8,
    /// Its check word.
    pub check: u16,
    /// Its context.
    pub context: u32,
    /// Its tag.
    pub tag: i32,
}

/// Where a message's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There is none.
    None,
    /// In the slot.
    Inline(usize),
    /// In the sender's lane: offset and bytes.
    Lane(usize, usize),
    /// In the sender's pool: offset and bytes.
    Pool(usize, usize),
}

/// A message read from a slot.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Its label.
    pub label: Label,
    /// Bytes of the whole message, or what the kind says. Of an inline message its bytes.
    pub length: u64,
    /// What the kind says.
    pub id: u64,
    /// Its payload, or this part of it.
    pub place: Place,
    /// Of a message without payload: where its sender has it, if it may be copied from there.
    pub offer: Option<Offer>,
}

#[inline]
fn head(label: Label, place: u8) -> (u64, u64) {
    let first = u64::from(label.kind) << 32 | u64::from(place) << 40 | u64::from(label.check) << 48;
    (first, u64::from(label.context) | u64::from(label.tag.cast_unsigned()) << 32)
}

/// Up to 7 bytes as a word.
#[inline]
fn tail(bytes: &[u8]) -> u64 {
    let word = |b: &[u8]| b.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b));
    match bytes {
        [] => 0,
        &[a] => u64::from(a),
        &[a, b] => u64::from(u16::from_le_bytes([a, b])),
        &[a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        other => word(other),
    }
}

/// Both directions between this rank and one other of its node.
#[derive(Debug)]
pub struct Peer {
    local: u32,
    out: Sender<SlotWords, SLOTS>,
    held: Held,
    out_lane: Area,
    out_taken: Area,
    out_wanted: Area,
    wanting: bool,
    inn: Receiver<SlotWords, SLOTS>,
    in_lane: Area,
    in_pool: Area,
    in_taken: Area,
    in_wanted: Area,
}

impl Peer {
    /// Largest message that [`Peer::room_for_all`] speaks of, in pieces that double from 1 KiB or longer ones.
    pub const QUICK: usize = 32 << 10;

    /// This rank's ends towards a local rank.
    ///
    /// # Panics
    /// When it is not one of the node.
    #[must_use]
    pub fn new(segment: &Segment, local: u32) -> Self {
        let (l, me) = (segment.layout(), segment.me());
        let area = |span| segment.area(span);
        let words = |span| SlotWords::new(segment.area(span));
        Self {
            local,
            out: Sender::new(words(l.slots(me, local)), words(l.taken(me, local))),
            held: Held::default(),
            out_lane: area(l.lane(me, local)),
            out_taken: area(l.taken(me, local)),
            out_wanted: area(l.wanted(me, local)),
            wanting: false,
            inn: Receiver::new(words(l.slots(local, me)), words(l.taken(local, me))),
            in_lane: area(l.lane(local, me)),
            in_pool: area(l.pool(local)),
            in_taken: area(l.taken(local, me)),
            in_wanted: area(l.wanted(local, me)),
        }
    }

    /// Its number on the node.
    #[must_use]
    pub fn local(&self) -> u32 {
        self.local
    }

    /// Whether anything was ever sent to it.
    #[inline]
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.out.position() == 0
    }

    /// Whether a slot is free; looks at the other side's count only when it must.
    ///
    /// # Errors
    /// [`Impossible`].
    #[inline]
    pub fn room(&mut self, pool: &mut Pool) -> Result<bool, Impossible> {
        if self.out.has_room() {
            return Ok(true);
        }
        self.settle(pool)?;
        Ok(self.out.has_room())
    }

    /// Whether a message of up to [`Peer::QUICK`] bytes finds memory and slots for all its pieces at once.
    ///
    /// # Errors
    /// [`Impossible`].
    #[inline]
    pub fn room_for_all(&mut self, pool: &mut Pool) -> Result<bool, Impossible> {
        if self.has_plenty(pool) {
            return Ok(true);
        }
        self.settle(pool)?;
        Ok(self.has_plenty(pool))
    }

    /// Pieces of at most 8: in the lane at most half of it, each of the others in a cell.
    #[inline]
    fn has_plenty(&self, pool: &Pool) -> bool {
        self.out.free() >= 8 && pool.has(self.held.cells(), 4) && self.held.lane_used() <= Layout::LANE / 2
    }

    /// Takes back what the receiver has read.
    ///
    /// # Errors
    /// [`Impossible`].
    pub fn settle(&mut self, pool: &mut Pool) -> Result<(), Impossible> {
        let taken = self.out.look()?;
        self.held.settle(taken, pool);
        Ok(())
    }

    /// Whether the receiver has taken everything, as far as is known.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.out.seen() == self.out.position()
    }

    /// Sends a whole message of at most [`INLINE`] bytes. There must be room.
    #[inline]
    pub fn send_inline(&mut self, label: Label, bytes: &[u8]) {
        debug_assert!(bytes.len() <= INLINE);
        let (first, second) = head(label, u8::try_from(bytes.len()).unwrap_or(0));
        self.out.write(1, second);
        if let Ok(word) = <[u8; 8]>::try_from(bytes) {
            self.out.write(2, u64::from_le_bytes(word));
            return self.out.publish(first);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for (i, word) in words.iter().enumerate().take(INLINE / 8) {
            self.out.write(2 + i, u64::from_le_bytes(*word));
        }
        if !rest.is_empty() && words.len() < INLINE / 8 {
            self.out.write(2 + words.len(), tail(rest));
        }
        self.out.publish(first);
    }

    /// Sends a message without payload, and perhaps where the payload is. There must be room.
    pub fn send_bare(&mut self, label: Label, length: u64, id: u64, offer: Option<Offer>) {
        let (first, second) = head(label, NONE);
        let (address, ticket) = offer.map_or((0, 0), |o| (o.address, o.ticket.word()));
        self.out.write(1, second);
        self.out.write(2, length);
        self.out.write(3, id);
        self.out.write(4, address);
        self.out.write(5, ticket);
        self.out.publish(first);
    }

    /// Sends as much of `bytes` as fits into one slot's memory and at most `most`; how much. 0 when there is no
    /// memory now. There must be room for a slot.
    ///
    /// # Errors
    /// [`Impossible`].
    pub fn send_part(
        &mut self,
        pool: &mut Pool,
        cells: &Area,
        (label, length, id): (Label, u64, u64),
        bytes: &[u8],
        most: usize,
    ) -> Result<usize, Impossible> {
        let Some((place, at, n)) = self.place(pool, bytes.len().min(most), most == usize::MAX)? else {
            return Ok(0);
        };
        let memory = if place == POOL { cells } else { &self.out_lane };
        memory.write(at, &bytes[..n]);
        let (first, second) = head(label, place);
        self.out.write(1, second);
        self.out.write(2, length);
        self.out.write(3, id);
        self.out.write(4, at as u64 | (n as u64) << 32);
        self.out.publish(first);
        if place == LANE {
            // The receiver has read those lines long ago: taking them back now is not waited for at the next message.
            self.out_lane.claim_lines(self.held.lane_next(), AHEAD);
        }
        Ok(n)
    }

    /// Finds memory for a piece of `n` bytes or its beginning.
    /// In a stream small pieces go through shared cells: the lane would be written again while the receiver's cache
    /// still has it.
    fn place(
        &mut self,
        pool: &mut Pool,
        n: usize,
        stream: bool,
    ) -> Result<Option<(u8, usize, usize)>, Impossible> {
        for attempt in 0..2 {
            let position = self.out.position();
            if n > if stream { LANE_MAX } else { LANE_MOST } {
                let shares = stream && n <= SHARED_MAX;
                if shares && let Some(at) = self.held.carve(position, n) {
                    return Ok(Some((POOL, at, n)));
                }
                let held = self.held.cells();
                if shares && let Some(cell) = pool.take_shared(held) {
                    self.held.hold_open(position, cell, n);
                    return Ok(Some((POOL, Pool::offset(cell), n)));
                }
                if !shares && let Some(cell) = pool.take(held) {
                    self.held.hold(position, cell);
                    return Ok(Some((POOL, Pool::offset(cell), n.min(CELL))));
                }
            }
            // Small pieces, and when the pool has nothing left a way on for large ones.
            if let Some(at) = self.held.lane(position, n.min(LANE_MOST)) {
                return Ok(Some((LANE, at, n.min(LANE_MOST))));
            }
            if attempt == 0 {
                self.settle(pool)?;
            }
        }
        Ok(None)
    }

    /// Notes for the receiver that this rank waits for room, before it sleeps.
    pub fn want(&mut self) {
        self.wanting = true;
        if let Some(w) = self.out_wanted.word64(0) {
            w.store(1, Ordering::SeqCst);
        }
    }

    /// It does not wait any more.
    pub fn want_no_more(&mut self) {
        if std::mem::take(&mut self.wanting)
            && let Some(w) = self.out_wanted.word64(0)
        {
            w.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the other rank waits for room. Call it after telling it of room, with a fence between.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.in_wanted.word64(0).is_some_and(|w| w.load(Ordering::Relaxed) != 0)
    }

    /// Whether a message is there.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> bool {
        self.inn.ready()
    }

    /// The next message, which stays where it is.
    ///
    /// # Errors
    /// [`Impossible`] when it points outside its sender's memory.
    #[inline]
    pub fn peek(&self) -> Option<Result<Message, Impossible>> {
        self.inn.peek().map(|first| self.parse(first))
    }

    /// The next message if its payload is in its slot, and how long it is.
    #[expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]
    #[inline]
    pub fn peek_inline(&self) -> Option<(Label, usize)> {
        let first = self.inn.peek()?;
        let len = usize::from((first >> 40) as u8);
        if len > INLINE {
            return None;
        }
        let second = self.inn.read(1);
        let (context, tag) = (second as u32, ((second >> 32) as u32).cast_signed());
        Some((Label { kind: (first >> 32) as u8, check: (first >> 48) as u16, context, tag }, len))
    }

    #[expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]
    #[inline]
    fn parse(&self, first: u64) -> Result<Message, Impossible> {
        let (kind, place, check) = ((first >> 32) as u8, (first >> 40) as u8, (first >> 48) as u16);
        let second = self.inn.read(1);
        let (context, tag) = (second as u32, ((second >> 32) as u32).cast_signed());
        let label = Label { kind, check, context, tag };
        if usize::from(place) <= INLINE {
            let length = u64::from(place);
            return Ok(Message {
                label,
                length,
                id: 0,
                place: Place::Inline(usize::from(place)),
                offer: None,
            });
        }
        let part = self.inn.read(4);
        let (offset, bytes) = (part as u32 as usize, (part >> 32) as usize);
        let fits = |size: u64| (offset as u64 + bytes as u64) <= size;
        let ticket = if place == NONE { Ticket::from_word(self.inn.read(5)) } else { None };
        let offer = ticket.map(|ticket| Offer { address: part, ticket });
        let place = match place {
            NONE => Place::None,
            LANE if fits(Layout::LANE) => Place::Lane(offset, bytes),
            POOL if fits(Layout::POOL) => Place::Pool(offset, bytes),
            _ => return Err(Impossible),
        };
        Ok(Message { label, length: self.inn.read(2), id: self.inn.read(3), place, offer })
    }

    /// Copies the payload of the next message, of which [`Peer::peek`] has said where it is, as much as fits.
    #[inline]
    pub fn read(&self, place: Place, into: &mut [u8]) {
        match place {
            Place::Inline(n) => self.read_inline(clamp(into, n.min(INLINE))),
            Place::Lane(at, n) => drop(self.in_lane.read(at, clamp(into, n))),
            Place::Pool(at, n) => drop(self.in_pool.read(at, clamp(into, n))),
            Place::None => {}
        }
    }

    /// Copies the payload of a message in its slot, as much as fits; at most [`INLINE`] bytes are there.
    #[inline]
    pub fn read_inline(&self, into: &mut [u8]) {
        if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *into) {
            *word = self.inn.read(2).to_le_bytes();
            return;
        }
        let into = clamp(into, INLINE);
        let (words, rest) = into.as_chunks_mut::<8>();
        let count = words.len();
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.inn.read(2 + i).to_le_bytes();
        }
        if !rest.is_empty() {
            let word = self.inn.read(2 + count).to_le_bytes();
            match rest {
                [a] => *a = word[0],
                rest => rest.copy_from_slice(&word[..rest.len()]),
            }
        }
    }

    /// Goes on to the next message; whether the sender was told, and may have waited for it.
    #[inline]
    pub fn advance(&mut self) -> bool {
        self.inn.advance()
    }

    /// Tells the sender what is taken; whether that was news.
    #[inline]
    pub fn tell(&mut self) -> bool {
        self.inn.tell()
    }

    /// Tells the sender how many bytes of its window are free again, in all.
    pub fn free_window(&self, bytes: u64) {
        if let Some(w) = self.in_taken.word64(8) {
            w.store(bytes, Ordering::Release);
        }
    }

    /// Bytes of this rank's window that the receiver has freed, in all.
    #[must_use]
    pub fn window_freed(&self) -> u64 {
        self.out_taken.word64(8).map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Gives all memory back to the pool: the receiver is gone.
    pub fn abandon(&mut self, pool: &mut Pool) {
        self.held.abandon(pool);
    }
}

fn clamp(bytes: &mut [u8], n: usize) -> &mut [u8] {
    let n = n.min(bytes.len());
    &mut bytes[..n]
}
