//! rmpi-wire
