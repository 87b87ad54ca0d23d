//! Unmodified programs of other MPI implementations: every program of `tests/mpi` with every implementation that is
//! installed, on one node and on hosts with real sshd and a `/dev/shm` of their own. Prints the matrix.

#![allow(clippy::print_stdout, reason = "the matrix is what this is for")]

use rmpi_tests::bins;
use rmpi_tests::mpi::Mpi;
use rmpi_tests::procs::{self, Finished};
use rmpi_tests::{cluster_or_skip, long};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What a good run looks like.
#[derive(Clone, Copy)]
enum Good {
    /// Code 0 and the program's own last line.
    Line,
    /// This exit code and nothing on standard output.
    Code(i32),
    /// A failure: which one comes first is a race of ranks that notice each other's end.
    Fails,
}

const PROGRAMS: [(&str, u32, Good); 12] = [
    ("hello", 1, Good::Line),
    ("ring", 1, Good::Line),
    ("collectives", 1, Good::Line),
    ("onesided", 1, Good::Line),
    ("threads", 1, Good::Line),
    ("merge", 2, Good::Line),
    ("sessions", 1, Good::Line),
    ("ports", 2, Good::Line),
    ("spawn", 1, Good::Line),
    ("abort", 2, Good::Code(42)),
    ("early", 2, Good::Fails),
    ("die", 2, Good::Code(139)),
];

/// A program says so with this code when its implementation lacks what it is about.
const LACKING: i32 = 77;

/// What is known not to work, and why.
fn excused(mpi: &Mpi, program: &str, many: bool) -> Option<&'static str> {
    match program {
        "spawn" => Some("more ranks cannot be started yet"),
        "ports" if mpi.is("mpich-4") => Some("its UCX netmod has no ports, nor under its own mpiexec"),
        "ports" if mpi.is("mpich-5") => Some("refuses MPI_Open_port, also under its own mpiexec"),
        "onesided" if mpi.is("openmpi-4") && many => {
            Some("it has no one-sided over TCP, nor under its own mpirun")
        }
        _ if mpi.is("mpich-4.0") && many => {
            Some("its UCX now and then hangs in MPI_Finalize, under its own mpiexec too")
        }
        _ => None,
    }
}

fn judge(program: &str, ranks: u32, good: Good, done: &Finished) -> Result<(), String> {
    let out = done.out();
    let fits = match good {
        Good::Line => done.code == 0 && out == format!("{program} ok {ranks}\n"),
        Good::Code(code) => done.code == code && out.is_empty(),
        Good::Fails => done.code != 0 && out.is_empty() && done.stderr.contains("rmpirun: rank "),
    };
    if fits { Ok(()) } else { Err(format!("code {}\nstdout: {out}\nstderr: {}", done.code, done.stderr)) }
}

/// Runs all programs; `place` puts one where the ranks see it, `command` gives rmpirun.
fn matrix(title: &str, ranks: &[u32], place: impl Fn(PathBuf) -> PathBuf, command: impl Fn() -> Command) {
    let implementations = Mpi::all();
    if implementations.is_empty() {
        println!("skipped: no MPI implementation is installed (see RMPI_MPI)");
    }
    let (mut table, mut wrong) = (String::new(), String::new());
    for mpi in &implementations {
        for (program, least, good) in PROGRAMS {
            let _ = write!(table, "{title} {:16} {program:12}", mpi.name);
            let excuse = excused(mpi, program, !title.starts_with("1 "));
            for &n in ranks.iter().filter(|n| **n >= least && excuse.is_none()) {
                let mut rmpirun = command();
                rmpirun.args(["--oversubscribe", "-np", &n.to_string()]).args(mpi.options());
                rmpirun.arg(place(mpi.program(program)));
                let (done, hangs) = procs::attempt(&mut rmpirun, LIMIT);
                let judged = judge(program, n, good, &done);
                let word = match &judged {
                    _ if hangs => "HANGS",
                    _ if done.code == LACKING => "lacks it",
                    Ok(()) => "ok",
                    Err(_) => "WRONG",
                };
                let _ = write!(table, " {n}:{word}({:.1}s)", done.took.as_secs_f64());
                if let ("HANGS" | "WRONG", Err(why)) = (word, judged) {
                    let _ = writeln!(wrong, "{title} {} {program} with {n} ranks: {why}", mpi.name);
                }
            }
            let _ = writeln!(table, "{}", excuse.unwrap_or(""));
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn programs_of_other_implementations_run_on_one_node() {
    let ranks: &[u32] = if long() { &[1, 2, 3, 4, 8] } else { &[1, 2, 4] };
    let before = leftovers();
    matrix("1 node ", ranks, |program| program, || Command::new(bins::path("rmpirun")));
    let left: Vec<_> = leftovers().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Shared-memory files and session folders as our jobs would leave them.
fn leftovers() -> BTreeSet<PathBuf> {
    let folders = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let entries = folders.iter().flat_map(|f| std::fs::read_dir(f).expect("a system folder").flatten());
    let ours = |name: &str| name.starts_with("rmpirun.") || name.contains("vader_segment");
    entries.filter(|e| ours(&e.file_name().to_string_lossy())).map(|e| e.path()).collect()
}

#[test]
fn programs_of_other_implementations_run_on_many_nodes() {
    let nodes = if long() { 4 } else { 2 };
    let Some(cluster) = cluster_or_skip(nodes, None) else { return };
    let bin = cluster.install(&["rmpirun", "rmpid"]);
    let ranks: &[u32] = if long() { &[4, 8] } else { &[4] };
    matrix(
        &format!("{nodes} nodes"),
        ranks,
        |program| cluster.share(&program),
        || {
            let mut command = cluster.command("n0", bin.join("rmpirun"));
            command.arg("--hostfile").arg(cluster.hostfile());
            // What a test's own terminal or job has set is of no use on these hosts.
            command.args(["--map-by", "node"]);
            command
        },
    );
}
