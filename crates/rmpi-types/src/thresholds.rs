//! From how many bytes on ranks do something another way. What is built in was measured on one kind of machine; a
//! tuning table says what holds on another.

use std::ops::RangeInclusive;

/// Sizes in bytes at which ranks go over to another way, and sizes of pieces. Those that two ranks must have in common
/// are the same everywhere because the launcher hands the table out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Longest message that goes over a socket without asking its receiver.
    pub eager: usize,
    /// Piece of a longer one over TCP and TLS.
    pub piece: usize,
    /// Payloads from here on are read into their place without what follows them.
    pub direct_from: usize,
    /// Piece of a longer message over QUIC.
    pub quic_piece: usize,
    /// Longest message that goes through shared memory without asking its receiver.
    pub local_eager: usize,
    /// Piece of a collective of two ranks of a node, each with a core, below 1 MiB; longer data goes in twice and four
    /// times as long ones, data of more ranks in eight times as long ones.
    pub node_piece: usize,
    /// The same where ranks share cores.
    pub node_turn: usize,
    /// Results of collectives of a node from here on are written past the caches.
    pub stream: usize,
    /// Data of a broadcast or an allgather of a node from here on is copied once, out of its owner's memory, while that
    /// proves faster; messages between two ranks from 16 times as many bytes on.
    pub single_copy: usize,
}

impl Default for Thresholds {
    /// Measured on two cores of a Zen 4 (L2 1 MiB a core, L3 32 MiB, Linux 6.18), between nodes over loopback.
    fn default() -> Self {
        Self {
            eager: 64 << 10,
            piece: 1_020 << 10,
            direct_from: 16 << 10,
            quic_piece: 256 << 10,
            local_eager: 32 << 10,
            node_piece: 16 << 10,
            node_turn: 512 << 10,
            stream: 16 << 20,
            single_copy: Threshold::NEVER,
        }
    }
}

/// One of the [`Thresholds`] as a table names it.
#[derive(Clone, Debug)]
pub struct Threshold {
    /// Its name.
    pub name: &'static str,
    /// Values that work.
    pub range: RangeInclusive<usize>,
    field: fn(&mut Thresholds) -> &mut usize,
}

impl Threshold {
    const fn new(
        name: &'static str,
        range: RangeInclusive<usize>,
        field: fn(&mut Thresholds) -> &mut usize,
    ) -> Self {
        Self { name, range, field }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name == name)
    }

    /// Its value among these.
    #[must_use]
    pub fn of(&self, mut thresholds: Thresholds) -> usize {
        *(self.field)(&mut thresholds)
    }

    /// Gives it a value written as bytes, or with K, M or G as 1,024 of the one before, or `never` where that is one;
    /// `None` when it is none of the range.
    #[must_use]
    pub fn set(&self, thresholds: &mut Thresholds, text: &str) -> Option<()> {
        *(self.field)(thresholds) = self.value(text)?;
        Some(())
    }

    fn value(&self, text: &str) -> Option<usize> {
        if text == "never" && self.has_never() {
            return Some(Self::NEVER);
        }
        let (digits, shift) = match text.as_bytes().last()? {
            b'K' | b'k' => (&text[..text.len() - 1], 10),
            b'M' | b'm' => (&text[..text.len() - 1], 20),
            b'G' | b'g' => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let bytes = digits.parse::<usize>().ok().filter(|_| plain)?.checked_mul(1 << shift)?;
        Some(bytes).filter(|b| self.range.contains(b))
    }

    /// Its value among these as [`Threshold::set`] reads it.
    #[must_use]
    pub fn written(&self, thresholds: Thresholds) -> String {
        match self.of(thresholds) {
            Self::NEVER => "never".to_owned(),
            bytes => bytes.to_string(),
        }
    }

    /// Whether the other way may be gone never.
    #[must_use]
    pub fn has_never(&self) -> bool {
        *self.range.end() == Self::NEVER
    }

    /// A value that no message reaches.
    pub const NEVER: usize = 1 << 40;

    /// All, in the order of the fields.
    pub const ALL: [Self; 9] = [
        // The receiver's window for them is 1 MiB a peer.
        Self::new("eager", 1 << 10..=Self::EAGER_MOST, |t| &mut t.eager),
        Self::new("piece", 64 << 10..=64 << 20, |t| &mut t.piece),
        Self::new("direct-from", 1 << 10..=Self::NEVER, |t| &mut t.direct_from),
        // A unit of the QUIC rail has 1 MiB and some for headers, at most.
        Self::new("quic-piece", 16 << 10..=1 << 20, |t| &mut t.quic_piece),
        // A message for which room is looked for in one step is no longer.
        Self::new("local-eager", 64..=Self::LOCAL_EAGER_MOST, |t| &mut t.local_eager),
        // A member's ring has 2 MiB, and four pieces of the longest data or two of many ranks must fit.
        Self::new("node-piece", 4 << 10..=64 << 10, |t| &mut t.node_piece),
        Self::new("node-turn", 64 << 10..=1 << 20, |t| &mut t.node_turn),
        Self::new("stream", 64 << 10..=Self::NEVER, |t| &mut t.stream),
        // What fits into slots has no other way.
        Self::new("single-copy", 8 << 10..=Self::NEVER, |t| &mut t.single_copy),
    ];

    /// Most that [`Thresholds::eager`] can be: what a receiver takes from a peer that was tuned so.
    pub const EAGER_MOST: usize = 256 << 10;

    /// Most that [`Thresholds::local_eager`] can be.
    pub const LOCAL_EAGER_MOST: usize = 32 << 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_threshold_has_a_name_a_field_and_a_default_that_works() {
        let built_in = Thresholds::default();
        for (i, t) in Threshold::ALL.iter().enumerate() {
            assert!(t.range.contains(&t.of(built_in)), "{}", t.name);
            assert_eq!(Threshold::named(t.name).unwrap().name, t.name, "two have a name");
            let mut changed = built_in;
            t.set(&mut changed, &t.range.start().to_string()).unwrap();
            let differing = Threshold::ALL.iter().filter(|o| o.of(changed) != o.of(built_in)).count();
            assert_eq!(differing, 1, "{} is no field of its own (row {i})", t.name);
        }
    }

    #[test]
    fn values_are_bytes_within_the_range() {
        let (eager, mut t) = (Threshold::named("eager").unwrap(), Thresholds::default());
        for (text, bytes) in [("1024", 1024), ("8K", 8192), ("64k", 65536), ("262144", 262_144)] {
            assert_eq!((eager.set(&mut t, text), t.eager), (Some(()), bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "+2048",
            "1023",
            "262145",
            "1M",
            "20000000000G",
            "99999999999999999999",
            "4 K",
            "0x800",
        ] {
            assert_eq!((eager.set(&mut t, text), t.eager), (None, 262_144), "{text}");
        }
    }

    #[test]
    fn a_way_that_need_not_be_gone_is_never_gone() {
        let (stream, mut t) = (Threshold::named("stream").unwrap(), Thresholds::default());
        assert_eq!((stream.set(&mut t, "never"), t.stream), (Some(()), Threshold::NEVER));
        assert_eq!(stream.written(t), "never");
        assert_eq!(Threshold::named("eager").unwrap().set(&mut t, "never"), None);
    }

    /// The table of `docs/tuning.md` has a row for each, with the value built in.
    #[test]
    fn the_documentation_has_all() {
        let page = include_str!("../../../docs/tuning.md");
        for t in Threshold::ALL {
            let row = format!("| `{}` | {} |", t.name, t.written(Thresholds::default()));
            assert!(page.contains(&row), "docs/tuning.md has no row that begins with {row}");
        }
    }
}
