//! Reaching hosts over SSH, in this process: an OpenSSH-compatible client (configuration, known hosts, keys,
//! agent, certificates, jump hosts) and the small server that loopback hosts and tests use. The only crate
//! that names the SSH library; nothing of it shows in our interface. Never asks for or sends a password.
#![forbid(unsafe_code)]

pub mod auth;
pub mod client;
pub mod config;
pub mod keys;
pub mod known_hosts;
pub mod names;
pub mod retry;
pub mod server;

mod base64;
mod glob;
mod users;

pub use client::{Connector, ExitStatus, RemoteProcess, Session, Target};
pub use keys::KeyPair;
pub use server::{Faults, Server, ServerOptions};
