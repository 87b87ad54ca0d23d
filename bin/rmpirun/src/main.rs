//! rmpirun
fn main() {}
