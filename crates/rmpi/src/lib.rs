//! rmpi
