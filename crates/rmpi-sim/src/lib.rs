//! rmpi-sim
