//! rmpi-plan
