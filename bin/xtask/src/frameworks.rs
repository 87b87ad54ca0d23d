//! `cargo xtask test --frameworks`: real Horovod, TensorFlow, PyTorch, JAX and what stands on torch under the built
//! programs, with the log kept. `RMPI_FRAMEWORKS` names a Python that has Horovod and TensorFlow; without it one is made,
//! which takes minutes and needs the package index, a C++ compiler and an MPI. PyTorch, Accelerate, Lightning and DeepSpeed
//! are those of the system's Python (`python3-torch`), or of `RMPI_TORCH`; JAX is `RMPI_JAX`'s. Cases whose package is missing
//! are skipped and said so. With `RMPI_FLYTE`, a Python with flytekitplugins-kfmpi, its lines are run too.

use crate::stage::{self, cargo, have, root, say, target};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes longer on a busy machine: it is for what hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Packages in the order they are installed: tool-chain, then what Horovod is built against.
const TOOLS: &[&str] = &["pip<24.1", "setuptools<66", "wheel"];
const PACKAGES: &[&str] = &[
    "tensorflow-cpu==2.12.1",
    "scikit-learn<1.6",
    "cloudpickle",
    "psutil",
    "pyyaml",
    "cmake==3.31.6",
    "packaging<24",
];

/// A Python: the variable that names one, what it is without, what must be importable.
type Python = (&'static str, &'static str, &'static str);

const SYSTEM: &str = "/usr/bin/python3";
const HOROVOD: Python = ("RMPI_FRAMEWORKS", "", "horovod.tensorflow");
const TORCH: Python = ("RMPI_TORCH", SYSTEM, "torch");
const ACCELERATE: Python = ("RMPI_TORCH", SYSTEM, "accelerate");
const LIGHTNING: Python = ("RMPI_TORCH", SYSTEM, "lightning_fabric");
const DEEPSPEED: Python = ("RMPI_TORCH", SYSTEM, "deepspeed");
const JAX: Python = ("RMPI_JAX", SYSTEM, "jax");

/// A run: its name, our command line with `@` words for files, what its output must have.
struct Case {
    name: &'static str,
    program: &'static str,
    words: &'static str,
    python: Python,
    want: &'static str,
}

const fn case(
    name: &'static str,
    program: &'static str,
    words: &'static str,
    python: Python,
    want: &'static str,
) -> Case {
    Case { name, program, words, python, want }
}

/// Another kind of case: a test of ours.
const FLYTE: &str = "the lines of Flyte's plugin";

const CASES: &[Case] = &[
    case("torch env:// gloo", "rmpirun", "-np 3 --oversubscribe @python @torch_gloo.py", TORCH, ": ok"),
    case(
        "accelerate",
        "rmpirun",
        "-np 2 --oversubscribe @python @torch_ways.py accelerate",
        ACCELERATE,
        ": ok",
    ),
    case("lightning", "rmpirun", "-np 2 --oversubscribe @python @torch_ways.py lightning", LIGHTNING, ": ok"),
    case("deepspeed", "rmpirun", "-np 2 --oversubscribe @python @torch_ways.py deepspeed", DEEPSPEED, ": ok"),
    case("jax.distributed", "rmpirun", "-np 2 --oversubscribe @python @jax_ranks.py", JAX, ": ok"),
    case("tensorflow TF_CONFIG", "rmpirun", "-np 2 --tf-config @python @tf_workers.py", HOROVOD, ": ok"),
    case(
        "horovod over MPI",
        "rmpirun",
        "-np 2 --bind-to none -x OMPI_MCA_mpi_yield_when_idle=1 @python @hvd_digits.py --checks",
        HOROVOD,
        "RESULT",
    ),
    case("horovod over Gloo", "horovodrun", "-np 2 @python @hvd_digits.py --checks", HOROVOD, "RESULT"),
    case(
        "horovod elastic, host comes",
        "horovodrun",
        "-np 1 --min-np 1 --max-np 2 --host-discovery-script @comes.sh --output-filename @out --events @events @python @hvd_digits.py --mode elastic --steps 100 --sleep 0.05 --began @began",
        HOROVOD,
        "\"sizes\": [1, 2]",
    ),
    case(
        "horovod elastic, host goes",
        "horovodrun",
        "-np 2 --min-np 1 --host-discovery-script @goes.sh @python @hvd_digits.py --mode elastic --steps 100 --sleep 0.05 --began @began",
        HOROVOD,
        "\"sizes\": [2, 1]",
    ),
    case(
        "horovod elastic, process dies",
        "horovodrun",
        "-np 2 --min-np 1 --host-discovery-script @both.sh @python @hvd_digits.py --mode elastic --steps 100 --sleep 0.05 --fail-host 127.0.0.1",
        HOROVOD,
        "\"sizes\": [2, 1]",
    ),
    case(
        "horovod elastic, host dies",
        "horovodrun",
        "-np 2 --min-np 1 --host-discovery-script @both.sh @python @hvd_digits.py --mode elastic --steps 100 --sleep 0.05 --lose-host 127.0.0.1",
        HOROVOD,
        "\"sizes\": [2, 1]",
    ),
];

/// Runs the cases with all of `words` in their names whose framework is there.
///
/// # Errors
/// A Python that cannot be made, or the cases that failed.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let wanted = |name: &str| words.iter().all(|w| name.contains(w));
    if !wanted(FLYTE) && !CASES.iter().any(|c| wanted(c.name)) {
        let names: Vec<&str> = CASES.iter().map(|c| c.name).chain([FLYTE]).collect();
        return Err(format!("no case has these words in its name; there are: {}", names.join("; ")));
    }
    let bin = rmpi_tests::bins::dir();
    let dir = target().join("frameworks");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let needed = CASES.iter().any(|c| wanted(c.name) && c.python.0 == HOROVOD.0);
    let horovod = if needed { python(&dir)? } else { PathBuf::new() };
    for name in ["horovodrun", "mpirun"] {
        let link = dir.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(bin.join("rmpirun"), &link)
            .map_err(|e| format!("{}: {e}", link.display()))?;
    }
    let log = dir.join("log");
    let mut file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut failed = Vec::new();
    for case in CASES.iter().filter(|c| wanted(c.name)) {
        let (variable, system, module) = case.python;
        let named = std::env::var_os(variable).map_or_else(|| PathBuf::from(system), PathBuf::from);
        let python = if variable == HOROVOD.0 { &horovod } else { &named };
        if !says(Command::new(python).args(["-c", &format!("import {module}")])) {
            let python = python.display();
            say(&format!(
                "xtask: skipped: {} ({python} has no {module}; {variable} names another)",
                case.name
            ));
            continue;
        }
        let program =
            if case.program == "horovodrun" { dir.join("horovodrun") } else { bin.join(case.program) };
        let start = Instant::now();
        let outcome = one(case, &program, python, &dir);
        let (text, fine) = match outcome {
            Ok(text) => {
                let fine = text.contains(case.want);
                (text, fine)
            }
            Err(text) => (text, false),
        };
        let took = start.elapsed().as_secs_f64();
        let verdict = if fine { "ok" } else { "FAILED" };
        say(&format!("xtask: {}: {verdict} {took:.1} s", case.name));
        let _ =
            writeln!(file, "== {} {verdict} {took:.1} s: {} {}\n{text}", case.name, case.program, case.words);
        if !fine {
            failed.push(case.name);
        }
    }
    say(&format!("xtask: log in {}", log.display()));
    let flyte = std::env::var_os("RMPI_FLYTE").is_some();
    if wanted(FLYTE) && flyte {
        let mut lines = cargo(&["test", "-q", "-p", "rmpi-tests", "--test", "kubernetes", "flyte"]);
        stage::run(FLYTE, lines.env("RMPI_BIN_DIR", bin))?;
    } else if wanted(FLYTE) {
        say(&format!("xtask: skipped: {FLYTE} (RMPI_FLYTE names no Python that has it)"));
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn says(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Everything a run printed, an error when it failed or had to be stopped.
fn one(case: &Case, program: &Path, python: &Path, dir: &Path) -> Result<String, String> {
    let scripts = root().join("tests/frameworks");
    let began = dir.join("began");
    let _ = fs::remove_file(&began);
    // The second host comes, or goes, when the job has trained a few steps.
    let after = |then: &str, before: &str| {
        format!(
            "#!/bin/sh\necho localhost:1\nif [ -e {} ]; then {then}; else {before}; fi\n",
            began.display()
        )
    };
    let second = "echo 127.0.0.1:1";
    for (name, text) in [
        ("comes.sh", after(second, "true")),
        ("goes.sh", after("true", second)),
        ("both.sh", format!("#!/bin/sh\necho localhost:1\n{second}\n")),
    ] {
        fs::write(dir.join(name), text).map_err(|e| e.to_string())?;
    }
    let word = |w: &str| match w.strip_prefix('@') {
        Some("python") => python.display().to_string(),
        Some(hosts) if hosts.ends_with(".sh") => format!("sh {}", dir.join(hosts).display()),
        Some(file @ ("out" | "events" | "began")) => dir.join(file).display().to_string(),
        Some(script) => scripts.join(script).display().to_string(),
        None => w.to_owned(),
    };
    let words: Vec<String> = case.words.split(' ').map(word).collect();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=20", &LIMIT.as_secs().to_string()]).arg(program).args(words);
    command.current_dir(dir).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("timeout: {e}"))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(format!("{}\n{text}", output.status)) }
}

/// A Python with Horovod and TensorFlow: the one named, or one made here.
fn python(dir: &Path) -> Result<PathBuf, String> {
    if let Some(python) = std::env::var_os("RMPI_FRAMEWORKS") {
        return Ok(python.into());
    }
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    if says(Command::new(&python).args(["-c", "import horovod.tensorflow"])) {
        return Ok(python);
    }
    if !have("mpicxx") {
        return Err("Horovod needs an MPI to be built with: install libopenmpi-dev and openmpi-bin".into());
    }
    stage::run("make a Python", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let pip = |words: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "-q"]).args(words);
        command
    };
    stage::run("install tools", &mut pip(TOOLS))?;
    stage::run("install TensorFlow", &mut pip(PACKAGES))?;
    let mut build = pip(&["--no-build-isolation", "--no-cache-dir", "--no-deps", "horovod==0.28.1"]);
    for (name, value) in [
        ("HOROVOD_WITH_MPI", "1"),
        ("HOROVOD_WITH_GLOO", "1"),
        ("HOROVOD_WITH_TENSORFLOW", "1"),
        ("HOROVOD_WITHOUT_PYTORCH", "1"),
        ("HOROVOD_WITHOUT_MXNET", "1"),
        ("MAKEFLAGS", "-j2"),
    ] {
        build.env(name, value);
    }
    // Its build looks for cmake in PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    build.env("PATH", format!("{}:{path}", venv.join("bin").display()));
    stage::run("build Horovod", &mut build)?;
    Ok(python)
}
