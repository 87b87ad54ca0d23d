//! Collectives: each call becomes a plan (a schedule of `rmpi-coll`, an operation, a digest of the arguments)
//! that is run over the engine in the communicator's second context.

mod blocking;
mod fabric;
mod nonblocking;
mod plans;
mod run;
