//! Shared by the build scripts of the programs whose start counts: a process of a launch begins in half the time
//! when its program has nothing to load and nothing to relocate (each page touched on the way costs some
//! microseconds). What is given up is the random placement of the program itself, not of its stack and heap; and that a
//! static program must not look up names and users through the C library, whose plug-ins it could not load:
//! `rmpi_ssh::names` is the way.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The C library and what it needs, static, under the names that the standard library asks for: linker scripts.
/// The compiler's unwinder belongs to it.
const WHOLE: [(&str, &str); 3] = [
    ("libgcc_s.so", "INPUT(-l:libgcc_eh.a -l:libgcc.a)\n"),
    ("libm.so", "INPUT(-l:libm.a)\n"),
    ("libc.so", "GROUP(-l:libc.a -l:libgcc_eh.a -l:libgcc.a)\n"),
];
/// What those scripts name.
const ARCHIVES: [&str; 4] = ["libc.a", "libm.a", "libgcc_eh.a", "libgcc.a"];

/// Links this package's programs at fixed addresses, and statically where the C library can be had so.
pub(crate) fn for_a_quick_start() {
    println!("cargo::rerun-if-changed=../link.rs");
    println!("cargo::rerun-if-changed=../order.ld");
    println!("cargo::rerun-if-env-changed=RMPI_LINK_MAP");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    // One that is asked to be static is placed by its own flags.
    let asked =
        std::env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|f| f.split(',').any(|f| f == "crt-static"));
    if asked || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-no-pie");
    let native = std::env::var("HOST") == std::env::var("TARGET");
    if !native || !ARCHIVES.iter().all(|name| has(name)) {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if WHOLE.iter().all(|(name, script)| std::fs::write(out.join(name), script).is_ok()) {
        // For the programs only: tests of the package are linked as usual.
        println!("cargo::rustc-link-arg-bins=-L{}", out.display());
        println!("cargo::rustc-link-arg-bins=-static");
        beside_each_other();
    }
}

/// Has a launch's functions put beside each other, so that they come with fewer page faults (`cargo xtask order`).
fn beside_each_other() {
    // A linker of the user's choice may know no scripts; other builds are not for speed.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0")
        && !flags.contains("linker")
        && !flags.contains("-fuse-ld")
    {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", Path::new(&here).join("../order.ld").display());
    }
    if let Some(map) = std::env::var_os("RMPI_LINK_MAP") {
        println!("cargo::rustc-link-arg-bins=-Wl,-Map={}", map.display());
    }
}

/// Whether the C compiler, which links Rust programs too, has a library of its own.
fn has(library: &str) -> bool {
    let asked = Command::new("cc").arg(format!("-print-file-name={library}")).output();
    asked.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_absolute())
}
