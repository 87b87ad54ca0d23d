//! The control protocol as state machines without IO and without a clock.
//!
//! [`DaemonMachine`] runs on every node, [`JobMachine`] in the launcher. A driver feeds events together with
//! the time and carries out the actions that come back, in order; that is all it does. The same machines run
//! under tokio, in unit tests and in a simulator with thousands of daemons and injected faults.
//!
//! Nothing here panics on what comes off a wire: a daemon that breaks the protocol is a lost node with a
//! text, a launcher that breaks it is a lost launcher.
#![forbid(unsafe_code)]

pub mod daemon;
pub mod job;
pub mod link;
pub mod signals;
pub mod time;

pub use daemon::{DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, Member};
pub use job::{HostEntry, JobAction, JobEvent, JobEventOut, JobMachine, JobPolicy, PlanFault, StopReason};
pub use link::{LinkId, LinkKind};
pub use time::Time;
