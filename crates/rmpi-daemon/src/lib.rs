//! The per-node daemon: two processes, a guard and a worker, that start this node's ranks, carry their
//! output and input, and leave nothing behind. What to do when is decided by `rmpi-control`; here is the
//! doing. No name lookups, no command-line parser, no SSH: it must run as one small static binary anywhere.
#![allow(dead_code, reason = "parts are put together in the worker")]

mod env;
mod family;
mod guard;
mod lines;
mod lookup;
mod net;
mod passwd;
mod spawn;
mod sys;
mod topo;

#[cfg(test)]
mod testing;
