//! Host files and host lists of every dialect, and how they combine into the pool of a job. Pure: the
//! caller reads the files. Nothing here resolves or dials a name.

mod combine;
mod host;
pub(crate) mod lexer;
mod line;
mod list;
#[cfg(test)]
mod tests;

pub use crate::error::{HostsError, HostsProblem};
pub use combine::{combine, per_context};
pub(crate) use host::parse_name;
pub use line::{parse_hostfile, read_hostfile};
pub use list::{Count, Entry, HostDialect, HostList, ParsedHosts, Who, parse_host_list};

/// Most hosts of one list, and most mentions of hosts.
pub const MAX_HOSTS: usize = 100_000;
/// Longest line in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Largest file in bytes.
pub const MAX_FILE: usize = 16 * 1024 * 1024;
/// Most slots of one host.
pub const MAX_SLOTS: u32 = 1_000_000;
/// Longest host name in characters (RFC 1035 has 255 octets).
pub const MAX_NAME: usize = 255;
