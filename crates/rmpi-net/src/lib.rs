//! rmpi-net
