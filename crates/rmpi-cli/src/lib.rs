//! rmpi-cli
