//! rmpi-control
