//! Message passing and collectives for parallel programs started by `rmpirun`.
//!
//! A program calls [`World::init`] once and gets its rank, the number of ranks, and a [`Communicator`] over all
//! of them. A program started without a launcher is rank 0 of 1, so it runs, and can be tested, alone:
//!
//! ```
//! use rmpi::{Op, World};
//!
//! let world = World::init()?;
//! let comm = world.comm();
//! let mut sum = [0.0f32; 2];
//! comm.allreduce(&[1.0, 2.0], &mut sum, &Op::Sum)?;
//! assert_eq!(sum, [comm.size() as f32, 2.0 * comm.size() as f32]);
//! world.finalize()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * **Messages**: [`Communicator::send`], [`Communicator::recv`], their non-blocking forms with owned buffers
//!   ([`Communicator::isend`], [`Communicator::irecv`]) or borrowed ones ([`Communicator::scope`]).
//! * **Collectives**: barrier, broadcast, reductions, gathers, scatters, exchanges, prefix sums.
//! * **Shared buffers** ([`World::alloc`]): sums straight from one rank's memory into another's.
//! * **Key-value space**: [`World::put`], [`World::get`], [`World::fence`].
//!
//! There are no background threads unless [`Options::progress_thread`] or the QUIC rail asks for one: messages move inside
//! calls of this library. Nothing panics or hangs because
//! of a peer: a lost rank is an [`Error`] that names it and its host.

mod boot;
mod coll;
mod comm;
mod datatype;
mod error;
mod inherit;
mod kvs;
mod op;
mod options;
mod p2p;
mod request;
mod scope;
mod shared;
mod shown;
mod world;

pub use boot::{Secret, Wiring};
pub use coll::persistent::Persistent;
pub use comm::Communicator;
pub use datatype::Datatype;
pub use error::{Error, InitError};
pub use op::{Reduction, UserOp};
pub use options::Options;
pub use p2p::{ANY_SOURCE, ANY_TAG, AnySource, AnyTag, Source, Status, Tag};
pub use request::{Request, wait_all, wait_any};
pub use rmpi_coll::kernels::{DataType, Op};
pub use rmpi_types::{Transport, UnknownTransport};
pub use scope::{Scope, ScopedRequest};
pub use shared::Shared;
pub use world::World;

pub use half::{bf16, f16};
