//! rmpi-core
