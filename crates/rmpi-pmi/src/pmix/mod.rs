//! PMIx as its clients speak it over TCP (OpenPMIx 3.2 to 6.1), seen from the server.
//!
//! [`codec`] packs and unpacks values, [`frame`] cuts a stream into messages, [`hello`] reads a client's first
//! words, [`request`] what it asks, [`server`] answers.

pub mod codec;
pub mod frame;
pub mod hello;
pub mod keys;
pub mod request;
pub mod server;
pub mod status;
pub mod topology;
