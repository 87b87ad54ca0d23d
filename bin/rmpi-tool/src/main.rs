//! rmpi
fn main() {}
