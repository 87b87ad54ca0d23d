//! All the engine keeps per peer: the link or the effort to get one, what is to be sent, what is being
//! received, the eager window both ways. Data only; the work is done in `linkup`, `transmit` and `receive`.

use crate::error::Fault;
use crate::header::{HEADER_LEN, Header};
use crate::lanes::Lanes;
use crate::local::{Local, Waiting};
use crate::matching::Age;
use crate::ops::OpId;
use crate::transmit::Cause;
use rmpi_net::{Dial, Link};
use rmpi_types::Threshold;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a guessed message that are read into their place with its header.
pub(crate) const GUESS_MAX: usize = 64 << 10;
/// Largest message that goes without asking: when its receiver waits for it, or will in a moment. Two of them fit into the
/// window. Others are told by the thresholds.
pub(crate) const AWAITED_MAX: usize = 512 << 10;
const _: () = assert!(Threshold::EAGER_MOST <= AWAITED_MAX, "what the table allows is taken by receivers");
/// Eager bytes that may be unconsumed at a receiver, per sender.
pub(crate) const WINDOW: u64 = (1 << 20) + (64 << 10);
/// Bytes gathered into one call; a link keeps the buffer.
pub(crate) const FRAMES_MAX: usize = 50 << 10;
/// Bytes of the staging buffer: what was guessed wrong goes into the first half, what lies behind it into the second.
pub(crate) const STAGING: usize = 2 * GUESS_MAX;
/// Unexpected rendezvous requests of one peer; more is not a rank of ours.
pub(crate) const MAX_UNEXPECTED_RTS: usize = 1 << 20;

/// Receives whose messages are guessed to come; more are received through the staging buffer.
const MAX_GUESSES: usize = 1024;

/// What an eager message of `len` bytes costs of the window.
pub(crate) fn cost(len: u64) -> u64 {
    len + HEADER_LEN as u64
}

/// One thing to send, in order.
pub(crate) enum Item {
    /// Whole frames, copied; the sends among them complete when the last byte is with the kernel.
    Frames { bytes: Vec<u8>, at: usize, ops: Vec<OpId> },
    /// A header and the operation's buffer; `at` counts through both.
    Eager { header: [u8; HEADER_LEN], op: OpId, at: usize },
    /// A cleared message, sent in pieces, `turn` of them since another large message had its turn.
    Pieces { op: OpId, piece: Option<Piece>, turn: u32 },
}

/// A piece under way: its header, where it starts in the buffer, its length, bytes of both sent.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) at: usize,
}

/// Where the payload being received goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A receive's buffer, from this offset.
    Op(OpId, u64),
    /// An unexpected message.
    Message(Age),
    /// Nowhere.
    Sink,
}

/// A payload on the way in.
pub(crate) struct Incoming {
    pub(crate) target: Target,
    pub(crate) got: u64,
    pub(crate) len: u64,
    /// Window to give back when it is over and went straight to a receive.
    pub(crate) cost: u64,
}

/// Bytes of a header.
pub(crate) struct Part(pub(crate) [u8; HEADER_LEN]);

impl Default for Part {
    fn default() -> Self {
        Self([0; HEADER_LEN])
    }
}

#[derive(Default)]
pub(crate) struct Rx {
    /// The engine's staging buffer, while this link is read; `start..end` of it is not worked through yet.
    pub(crate) staging: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The beginning of a header whose rest has not come.
    pub(crate) part: Part,
    pub(crate) part_len: usize,
    pub(crate) incoming: Option<Incoming>,
    /// Receives in the order in which their messages are guessed to come; those that are over are still in it.
    pub(crate) guesses: VecDeque<OpId>,
    /// Number of the next matchable message.
    pub(crate) sequence: u32,
    /// Eager bytes received and not yet given back.
    pub(crate) outstanding: u64,
    /// Requests to send that wait for a receive.
    pub(crate) unexpected_rts: usize,
    /// Reads in a row that found something.
    pub(crate) streak: u32,
    /// Consumed bytes not yet told to the sender.
    pub(crate) owed: u64,
}

#[derive(Default)]
pub(crate) struct Tx {
    pub(crate) queue: VecDeque<Item>,
    /// A small message went out since the last progress: further ones are gathered.
    pub(crate) burst: bool,
    /// The peer takes nothing more; what it sent before is still to be read.
    pub(crate) closed: bool,
    pub(crate) sequence: u32,
    pub(crate) spare: Vec<u8>,
}

/// The state of the relation with one peer.
pub(crate) struct Conn {
    pub(crate) peer: u32,
    pub(crate) host: Arc<str>,
    pub(crate) link: Option<Box<dyn Link>>,
    pub(crate) dial: Option<Dial>,
    /// Further connections, for pieces of large messages.
    pub(crate) lanes: Lanes,
    /// The peer is on this node, and this is how it is reached.
    pub(crate) local: Option<Box<Local>>,
    /// After a duplicate verdict: when to dial after all.
    pub(crate) redial_at: Option<Instant>,
    /// The relation is over, and why.
    pub(crate) dead: Option<Fault>,
    /// The peer has said that it will send nothing more.
    pub(crate) bye: bool,
    pub(crate) tx: Tx,
    pub(crate) rx: Rx,
    /// Eager bytes we may send.
    pub(crate) credit: u64,
    /// Whether the socket is in the epoll set.
    pub(crate) registered: bool,
    /// Whether it is polled directly.
    pub(crate) hot: bool,
    /// Progress round of the last traffic.
    pub(crate) last_used: u64,
}

impl Conn {
    pub(crate) fn new(peer: u32, host: Arc<str>) -> Self {
        Self {
            peer,
            host,
            link: None,
            dial: None,
            lanes: Lanes::default(),
            local: None,
            redial_at: None,
            dead: None,
            bye: false,
            tx: Tx::default(),
            rx: Rx::default(),
            credit: WINDOW,
            registered: false,
            hot: false,
            last_used: 0,
        }
    }

    /// Whether messages can go now: there is a link, or the peer is on this node.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_some() || self.local.is_some()
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn nothing_queued(&self) -> bool {
        self.tx.queue.is_empty() && self.local.as_ref().is_none_or(|l| l.nothing_queued())
    }

    /// Room in a gathered frame buffer for `len` more bytes, at the end of the queue.
    pub(crate) fn frames(&mut self, len: usize) -> (&mut Vec<u8>, &mut Vec<OpId>) {
        let fits = match self.tx.queue.back() {
            Some(Item::Frames { bytes, .. }) => bytes.len() + len <= FRAMES_MAX,
            _ => false,
        };
        if !fits {
            let mut bytes = std::mem::take(&mut self.tx.spare);
            bytes.clear();
            self.tx.queue.push_back(Item::Frames { bytes, at: 0, ops: Vec::new() });
        }
        match self.tx.queue.back_mut() {
            Some(Item::Frames { bytes, ops, .. }) => {
                if bytes.capacity() - bytes.len() < len {
                    // Once, not by doubling, which would end above what the allocator keeps.
                    bytes.reserve_exact(len.max(FRAMES_MAX - bytes.len()));
                }
                (bytes, ops)
            }
            _ => unreachable!("a frames item was just ensured"),
        }
    }

    /// Queues a header that nothing follows.
    pub(crate) fn control(&mut self, header: &Header) {
        if let Some(local) = self.local.as_deref_mut() {
            local.messages.push_back(Waiting::Bare(*header, None));
            return;
        }
        self.frames(HEADER_LEN).0.extend_from_slice(&header.encode());
    }

    /// Largest message that goes to this peer without asking.
    pub(crate) fn unasked_max(&self, eager: usize, awaited: bool) -> usize {
        // Where whole frames queue elsewhere, a long one would be in the way of all others.
        let long = awaited && self.link.as_ref().is_some_and(|l| l.max_piece().is_none());
        if long { AWAITED_MAX } else { eager }
    }

    /// The peer has freed `bytes` of its window.
    ///
    /// # Errors
    /// When that is more than was used.
    pub(crate) fn freed(&mut self, bytes: u64) -> Result<(), Cause> {
        self.credit += bytes.min(WINDOW);
        if self.credit > WINDOW {
            return Err("more window returned than was used".into());
        }
        Ok(())
    }

    /// Notes a receive whose message will come after those noted before.
    pub(crate) fn expect(&mut self, op: OpId) {
        if self.rx.guesses.len() < MAX_GUESSES {
            self.rx.guesses.push_back(op);
        }
    }

    /// The number of the next matchable message to the peer.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        let n = self.tx.sequence;
        self.tx.sequence = n.wrapping_add(1);
        n
    }
}
