//! Fuzz targets: one plain function over bytes for every decoder of bytes from outside. `fuzz_targets/` runs
//! them under libFuzzer, `tests/replay.rs` over the committed seeds and cheap mutations of them. A target
//! panics when a promise is broken: a panic of ours, no end, or a rule the target states itself. Nothing
//! here touches files or anything but loopback sockets.

mod data;
mod horovod;
mod input;
mod job;
mod lanes;
mod node;
mod pmi;
mod pmix;
mod rails;
mod service;
mod text;
mod wire;

pub use input::Input;

/// All targets by name; the same names as `fuzz_targets/` and `corpus/`.
pub mod targets {
    pub use crate::data::{data_header, data_peer, link_hello};
    pub use crate::horovod::{horovod_hosts, horovod_registration, horovod_store};
    pub use crate::job::job_machine;
    pub use crate::lanes::data_lanes;
    pub use crate::node::daemon_machine;
    pub use crate::pmi::pmi_stream;
    pub use crate::pmix::{pmix_hello, pmix_request, pmix_values};
    pub use crate::rails::{quic_units, shm_peer, tls_session};
    pub use crate::text::{cmdline, hostfile, hostlist, known_hosts, plan, rankfile, ssh_config};
    pub use crate::wire::{boot, fence, frames, hello, messages, rank_requests};
}

/// A target.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub const TARGETS: [(&str, Target); 29] = [
    ("hostfile", targets::hostfile),
    ("hostlist", targets::hostlist),
    ("rankfile", targets::rankfile),
    ("plan", targets::plan),
    ("cmdline", targets::cmdline),
    ("ssh_config", targets::ssh_config),
    ("known_hosts", targets::known_hosts),
    ("hello", targets::hello),
    ("frames", targets::frames),
    ("messages", targets::messages),
    ("rank_requests", targets::rank_requests),
    ("fence", targets::fence),
    ("boot", targets::boot),
    ("daemon_machine", targets::daemon_machine),
    ("job_machine", targets::job_machine),
    ("data_header", targets::data_header),
    ("data_peer", targets::data_peer),
    ("data_lanes", targets::data_lanes),
    ("link_hello", targets::link_hello),
    ("tls_session", targets::tls_session),
    ("quic_units", targets::quic_units),
    ("shm_peer", targets::shm_peer),
    ("pmi_stream", targets::pmi_stream),
    ("pmix_hello", targets::pmix_hello),
    ("pmix_request", targets::pmix_request),
    ("pmix_values", targets::pmix_values),
    ("horovod_store", targets::horovod_store),
    ("horovod_registration", targets::horovod_registration),
    ("horovod_hosts", targets::horovod_hosts),
];
