//! A packaged build carries its daemon: `RMPI_EMBED_DAEMON` names the file (`cargo xtask package`).

#[path = "../link.rs"]
mod link;

use std::path::PathBuf;

fn main() {
    link::for_a_quick_start();
    println!("cargo::rerun-if-env-changed=RMPI_EMBED_DAEMON");
    println!("cargo::rustc-check-cfg=cfg(embedded_daemon)");
    let Some(daemon) = std::env::var_os("RMPI_EMBED_DAEMON").map(PathBuf::from) else { return };
    println!("cargo::rerun-if-changed={}", daemon.display());
    println!("cargo::rustc-cfg=embedded_daemon");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("rmpid");
    if let Err(error) = std::fs::copy(&daemon, out) {
        println!("cargo::error=RMPI_EMBED_DAEMON={}: {error}", daemon.display());
    }
}
