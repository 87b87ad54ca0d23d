//! The client: from a host's name to a running command, each stage with its own fault. Holds what all
//! connections share: configuration, keys, known hosts, jump-host connections.

mod algorithms;
mod connect;
mod dial;
pub(crate) mod handler;
#[cfg(test)]
mod openssh_tests;
mod policy;
mod process;
mod session;
#[cfg(test)]
mod tests;

pub use connect::{Connector, Target};
pub use process::{Exit, ExitStatus, ProcessInput, ProcessOutput, RemoteProcess};
pub use session::Session;

pub(crate) use session::Inner;
