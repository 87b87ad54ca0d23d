//! rmpi-daemon
