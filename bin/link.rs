//! Shared by the build scripts of the programs whose start counts: a process of a launch begins in half the time
//! when its program has nothing to relocate (page by page, 3 microseconds each on a virtual machine) and one library
//! less to load. What is given up is the random placement of the program itself, not of its stack, heap or libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Links this package's programs at fixed addresses and with the C compiler's unwinder inside, where that is
/// possible.
pub(crate) fn for_a_quick_start() {
    println!("cargo::rerun-if-changed=../link.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    // A statically linked one is placed by its own flags.
    let fixed =
        std::env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|f| f.split(',').any(|f| f == "crt-static"));
    if fixed || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-no-pie");
    let native = std::env::var("HOST") == std::env::var("TARGET");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if native && has("libgcc_eh.a") && has("libgcc.a") {
        // The name that the standard library asks for, as a linker script.
        let script = std::fs::write(out.join("libgcc_s.so"), "INPUT(-l:libgcc_eh.a -l:libgcc.a)\n");
        if script.is_ok() {
            println!("cargo::rustc-link-search=native={}", out.display());
        }
    }
}

/// Whether the C compiler, which links Rust programs too, has a library of its own.
fn has(library: &str) -> bool {
    let asked = Command::new("cc").arg(format!("-print-file-name={library}")).output();
    asked.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_absolute())
}
