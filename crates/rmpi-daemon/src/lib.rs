//! The per-node daemon: two processes, a guard and a worker, that start this node's ranks, carry their
//! output and input, and leave nothing behind. What to do when is decided by `rmpi-control`; here is the
//! doing. No name lookups, no command-line parser, no SSH: it must run as one small static binary anywhere.

mod dialling;
mod entry;
mod env;
mod family;
mod frameworks;
mod guard;
mod here;
mod joined;
mod keys;
mod kvs;
mod lines;
mod lookup;
mod net;
mod node;
mod outfiles;
mod passwd;
mod peer;
mod prepare;
mod rank_vars;
pub mod secure;
mod spawn;
mod stacks;
mod staging;
mod status;
mod stdin;
mod stdio;
mod sys;
mod topo;
mod uplink;
mod watch;
mod worker;

#[cfg(test)]
mod testing;

pub use dialling::{DIAL_WORD, FAIL_MARK, KEY_MARK};
use entry::complain;
pub use entry::{Forked, HIDDEN_WORD, begin, fork, main};
pub use here::{Here, guarded, leave};
pub use joined::Joined;
pub use lookup::program as find_program;
pub use net::own_addresses;
pub use status::ignored_signals;

/// The size of the terminal that is this process's standard output, if it is one.
#[must_use]
pub fn window() -> Option<rmpi_types::launch::Window> {
    sys::window(std::os::fd::AsFd::as_fd(&std::io::stdout()))
}

/// The CPUs this process may use, as a daemon here would report them.
#[must_use]
pub fn topology() -> rmpi_types::Topology {
    topo::read(
        std::path::Path::new("/"),
        &status::Status::get().cpus.clone().unwrap_or_default(),
        topo::Caches::Read,
    )
}
