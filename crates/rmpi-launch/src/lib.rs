//! The embeddable launcher: build a [`Job`], start it, follow its typed [`Event`]s, get its [`Outcome`],
//! cancel it. `rmpirun` is a thin shell around this crate.
//!
//! A job runs on a thread of its own; nothing here needs an async runtime. The daemon that runs on every node
//! comes from a [`DaemonSource`]; with [`DaemonSource::ThisExecutable`] one binary is enough:
//!
//! ```
//! use rmpi_launch::{DaemonSource, Delivery, Event, Job};
//!
//! rmpi_launch::daemon_if_asked(); // first thing in main: this executable is the daemon too
//! let mut running = Job::builder()
//!     .program("echo")
//!     .args(["hello"])
//!     .ranks(2)
//!     .oversubscribe()
//!     .output(Delivery::Events)
//!     .daemon(DaemonSource::ThisExecutable)
//!     .build()?
//!     .start()?;
//! let mut lines = 0;
//! for event in running.events() {
//!     if let Event::Output { bytes, .. } = event {
//!         lines += bytes.iter().filter(|&&b| b == b'\n').count();
//!     }
//! }
//! let outcome = running.wait();
//! assert!(outcome.success(), "{}", outcome.report());
//! assert_eq!(lines, 2);
//! # Ok::<(), rmpi_launch::StartError>(())
//! ```
//!
//! Inside: [`report`] renders what a user reads; the driver owns all sockets, pipes and timers and runs the
//! state machine of `rmpi-control`; reaching hosts, planning and output have a module each.

pub mod bootstrap;
mod clock;
mod driver;
mod event;
mod heap;
pub mod horovod;
mod hosts;
mod image;
mod input;
mod job;
mod json;
mod outcome;
mod plan;
mod reach;
pub mod record;
pub mod report;
mod running;
mod sink;
mod spawn;
mod staging;
mod view;

pub use event::{Event, Stream};
pub use image::DaemonSource;
pub use input::Input;
pub use job::{Job, JobBuilder, StartError};
pub use outcome::{HostResult, HostState, Outcome};
pub use plan::{preview, ways};
pub use rmpi_types as types;
pub use running::{Control, EventStream, Running};
pub use sink::Delivery;
pub use view::{NodeView, Parts, PlanView};

/// Ends the program after [`Job::run_here`], as `std::process::exit` does but sooner: a process that stayed behind as
/// the guard ends with the same code at once.
pub fn leave(code: u8) -> ! {
    rmpi_daemon::leave(code)
}

/// Becomes the per-node daemon and never returns, if this process was started as one by
/// [`DaemonSource::ThisExecutable`]. Call it first in `main`, before any thread is started.
pub fn daemon_if_asked() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == rmpi_daemon::HIDDEN_WORD) {
        std::process::exit(rmpi_daemon::main(args).into());
    }
}
