//! The programs under test: release builds of the workspace, made on first use when nobody made them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lives in the workspace")
}

/// The folder with `rmpirun`, `rmpid`, `rmpi`, `rmpi-bench` and `train`: `RMPI_BIN_DIR` where set, else built now.
///
/// # Panics
/// When the build fails.
#[must_use]
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("RMPI_BIN_DIR") {
            return dir.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--release",
                "-q",
                "-p",
                "rmpirun",
                "-p",
                "rmpid",
                "-p",
                "rmpi-tool",
                "-p",
                "rmpi-bench",
                "-p",
                "train",
            ])
            .current_dir(root())
            .status();
        assert!(built.is_ok_and(|s| s.success()), "building the release binaries failed");
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), PathBuf::from)
            .join("release")
    })
}

/// The path of one of them.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    dir().join(name)
}
