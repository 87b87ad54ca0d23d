//! What travels between launcher, daemons and ranks, as bytes.
//!
//! * [`hello`]: the fixed-size, hand-coded first words of a control stream;
//! * [`frame`]: length-prefixed frames with origin, destinations and sequence number;
//! * [`msg`]: the messages inside, coded by [`codec`] (serde over bincode, named nowhere else);
//! * [`rank`]: requests of a rank to its daemon over the inherited socket;
//! * [`boot`]: the flat block in shared memory that a rank reads at init.
//! * [`service`]: what process-management servers ask of the job;
//!
//! Bulk bytes (output, input, key-value data) ride as a frame's raw payload and never pass the codec.
#![forbid(unsafe_code)]

pub mod boot;
pub mod codec;
pub mod frame;
pub mod hello;
pub mod msg;
pub mod rank;
pub mod service;

pub use codec::WireError;
pub use frame::{Dest, Frame, FrameDecoder, Origin};
pub use hello::Hello;
pub use msg::{Down, LinkMsg, Message, Up};
