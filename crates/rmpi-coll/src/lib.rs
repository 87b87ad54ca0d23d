//! rmpi-coll
