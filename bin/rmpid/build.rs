//! Links the daemon for a quick start.

#[path = "../link.rs"]
mod link;

fn main() {
    link::for_a_quick_start();
}
