//! rmpid
fn main() {}
