//! The packing of values ("bfrops"): which form a client uses, what can be wrong, and the limits that hold
//! for whatever comes off a wire.
//!
//! A payload is a row of *items*; an item is a count and as many values of one type. Modules `v21` and `v3`
//! write integers big endian in their natural size, `v4` and newer as variable-length groups of seven bits; a
//! described buffer says types in front of counts and values. All four forms share this code.

mod items;
mod read;
mod types;
mod value;
mod write;

pub use items::{App, Envar, Info, Item, Kval, Pdata, Proc, ProcInfo, Query, info_flags};
pub use read::Reader;
pub use types::DataType;
pub use value::{Array, Text, Value};
pub use write::Writer;

use thiserror::Error;

/// Values inside values, at most.
pub const MAX_DEPTH: u8 = 24;
/// Values in one payload, nested ones counted, at most: what a small message may make of itself in memory.
pub const MAX_VALUES: usize = 1 << 20;

/// The form in which one client packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codec {
    /// Integers of variable length (`v4` and newer) instead of fixed size (`v21`, `v3`).
    pub flex: bool,
    /// Types in front of counts and values.
    pub described: bool,
}

impl Codec {
    /// What we keep and send between nodes: `v3`, not described.
    pub const PLAIN: Self = Self { flex: false, described: false };

    /// The form of a packing module's name; `None` for modules before `v21`, which pack types otherwise.
    #[must_use]
    pub fn of_module(module: &str, described: bool) -> Option<Self> {
        let digits = module.strip_prefix('v')?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        match digits {
            "12" | "20" => None,
            "21" | "3" => Some(Self { flex: false, described }),
            _ => Some(Self { flex: true, described }),
        }
    }
}

/// What is wrong with a payload.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end inside a value.
    #[error("message ends inside a value")]
    Short,
    /// More values are announced than bytes are left, or a negative number of them.
    #[error("count of {0} does not fit the message")]
    Count(i64),
    /// A type that has no packing here.
    #[error("value of type {0}, which has no packing")]
    Type(u16),
    /// One type of item where another belongs.
    #[error("item of type {found} where {expected} belongs")]
    Mismatch {
        /// What belongs there.
        expected: u16,
        /// What is there.
        found: u16,
    },
    /// An item of so many values where one belongs.
    #[error("item of {0} values where one belongs")]
    NotOne(usize),
    /// Above [`MAX_DEPTH`].
    #[error("values nested too deeply")]
    Depth,
    /// Above [`MAX_VALUES`].
    #[error("too many values in one message")]
    Values,
    /// A string that does not end with its only NUL.
    #[error("string without its NUL")]
    Text,
    /// A number its type has no room for.
    #[error("number out of the range of its type")]
    Range,
}

#[cfg(test)]
mod tests;
