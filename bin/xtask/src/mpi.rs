//! `cargo xtask mpi [--long]`: programs of other MPI implementations under `rmpirun`, as a table of implementation, program,
//! ranks and nodes. Debian's implementations are installed when we may; newer ones come from PyPI, into the target
//! folder.

use crate::group::OneGroup;
use crate::stage::{self, cargo, have, say, target};
use crate::{build, test};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's two implementations.
const DEBIAN: [test::Need; 2] = [
    ("mpicc.openmpi", &["gcc", "libc6-dev", "openmpi-bin", "libopenmpi-dev"], "Open MPI's test programs"),
    ("mpicc.mpich", &["gcc", "libc6-dev", "mpich", "libmpich-dev"], "MPICH's test programs"),
];

/// Another launcher's client library of PMI-2: driven by a program of ours, and loaded by Intel MPI.
const PMI2: test::Need =
    ("libpmi2.so.0", &["gcc", "libc6-dev", "libpmi2-0-dev"], "a client library of PMI-2");

/// What people have on their disks.
const PROGRAMS: [test::Need; 2] = [
    ("NPopenmpi", &["netpipe-openmpi"], "NetPIPE, linked with Open MPI"),
    ("hpcc", &["hpcc"], "the HPC Challenge benchmark, linked with Open MPI"),
];

/// Implementations from PyPI: their folder and their packages. Intel's wants a libfabric that it does not bring and
/// PyPI does not have everywhere, so nothing is installed but what is named; Debian's Open MPI brings one.
const WHEELS: [(&str, &[&str]); 3] =
    [("openmpi", &["openmpi>=5,<6"]), ("mpich", &["mpich>=5,<6"]), ("intel", &["impi-devel", "impi-rt"])];
/// The Python with mpi4py, for all implementations.
const PYTHON: (&str, &[&str]) = ("mpi4py", &["mpi4py>=4.1,<5"]);

/// Runs the whole matrix; `long` with more ranks and hosts.
///
/// # Errors
/// The first stage that fails.
pub(crate) fn run(long: bool) -> Result<(), String> {
    test::install(&test::CLUSTER)?;
    let _one = OneGroup::make();
    let mut tests = cargo(&["test", "--locked", "-p", "rmpi-tests", "--test", "mpi", "--"]);
    tests.args(["--nocapture", "--test-threads=1"]);
    implementations(&mut tests)?;
    let bin = match std::env::var_os("RMPI_BIN_DIR") {
        Some(bin) => PathBuf::from(bin),
        None => build::release()?,
    };
    tests.env("RMPI_BIN_DIR", bin);
    if long {
        tests.env("RMPI_LONG", "1");
    }
    stage::run("programs of other MPI implementations", &mut tests)
}

/// Installs the implementations that we can get and tells tests of them.
///
/// # Errors
/// Debian's packages do not install; what PyPI does not give is left out, and said.
pub(crate) fn implementations(tests: &mut Command) -> Result<(), String> {
    test::install(&[&DEBIAN[..], &[PMI2], &PROGRAMS[..]].concat())?;
    let folder = target().join("wheels");
    let mut prefixes = Vec::new();
    for (name, packages) in WHEELS {
        match wheels(&folder, name, packages) {
            Ok(prefix) => prefixes.push(prefix),
            Err(why) => say(&format!("xtask: skipped: {name} from PyPI ({why})")),
        }
    }
    let known = std::env::var_os("RMPI_MPI").unwrap_or_default();
    prefixes.extend(std::env::split_paths(&known).filter(|p| !p.as_os_str().is_empty()));
    let prefixes = std::env::join_paths(prefixes).map_err(|e| format!("xtask: RMPI_MPI: {e}"))?;
    tests.env("RMPI_MPI", prefixes);
    match wheels(&folder, PYTHON.0, PYTHON.1) {
        Ok(prefix) => drop(tests.env("RMPI_PYTHON", prefix.join("bin/python"))),
        Err(why) => say(&format!("xtask: skipped: mpi4py ({why})")),
    }
    Ok(())
}

/// Makes a Python environment with these packages and nothing else, unless it is there; its folder.
fn wheels(folder: &Path, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let prefix = folder.join(name);
    let whole = prefix.join("whole");
    if whole.exists() {
        return Ok(prefix);
    }
    if !have("python3") {
        return Err("python3 is missing".into());
    }
    if !Command::new("python3").args(["-c", "import ensurepip"]).output().is_ok_and(|o| o.status.success()) {
        return Err("python3 cannot make environments; in Debian that is python3-venv".into());
    }
    let mut make = Command::new("python3");
    stage::run(&format!("{name}: a Python environment"), make.args(["-m", "venv", "--clear"]).arg(&prefix))?;
    let mut install = Command::new(prefix.join("bin/python"));
    install
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--retries", "2"])
        .args(packages);
    stage::run(&format!("{name}: pip install"), &mut install)?;
    std::fs::write(&whole, "").map_err(|e| format!("{}: {e}", whole.display()))?;
    Ok(prefix)
}
