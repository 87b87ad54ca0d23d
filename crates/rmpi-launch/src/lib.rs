//! rmpi-launch
