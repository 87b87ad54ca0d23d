//! rmpi-ssh
