//! Unmodified programs of other MPI implementations: every program of `tests/mpi` with every implementation that is
//! installed, on one node and on hosts with real sshd and a `/dev/shm` of their own. Shows the matrix.

use rmpi_tests::bins;
use rmpi_tests::mpi::{self, Mpi};
use rmpi_tests::procs::{self, Finished};
use rmpi_tests::{cluster_or_skip, long};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(150);

/// What a good run looks like.
#[derive(Clone, Copy)]
enum Good {
    /// Code 0 and the program's own last line.
    Line,
    /// This exit code and nothing on standard output.
    Code(i32),
    /// Death by a signal, with its code unless another rank saw the dead one's sockets close and called abort before
    /// the kernel let anybody wait for it; named in any case.
    Dies(i32, &'static str),
    /// A failure: which one comes first is a race of ranks that notice each other's end.
    Fails,
}

/// The Python script among the programs; it needs mpi4py.
const SCRIPT: &str = "script";

const PROGRAMS: [(&str, u32, Good); 13] = [
    ("hello", 1, Good::Line),
    ("ring", 1, Good::Line),
    ("collectives", 1, Good::Line),
    ("onesided", 1, Good::Line),
    ("threads", 1, Good::Line),
    ("merge", 2, Good::Line),
    ("sessions", 1, Good::Line),
    ("ports", 2, Good::Line),
    ("spawn", 1, Good::Line),
    (SCRIPT, 1, Good::Line),
    ("abort", 2, Good::Code(42)),
    ("early", 2, Good::Fails),
    ("die", 2, Good::Dies(139, "SIGSEGV")),
];

/// The client library of PMI-2 that we drive without an MPI.
const LIBPMI2: &str = "slurm-libpmi2";

/// A program says so with this code when its implementation lacks what it is about.
const LACKING: i32 = 77;

/// What is known not to work, and why.
fn excused(mpi: &Mpi, program: &str, many: bool) -> Option<&'static str> {
    match program {
        "ports" | "spawn" if mpi.is("mpich-4") => {
            Some("its UCX netmod has neither ports nor spawn, nor under its own mpiexec")
        }
        "onesided" if mpi.is("openmpi-4") && many => {
            Some("it has no one-sided over TCP, nor under its own mpirun")
        }
        _ if mpi.is("mpich-4.0") && many => {
            Some("its UCX now and then hangs in MPI_Finalize, under its own mpiexec too")
        }
        _ => None,
    }
}

/// Variables that a program needs under its own launcher too.
fn needed(mpi: &Mpi, program: &str, many: bool) -> &'static [&'static str] {
    match program {
        // Its other transport, UCX, refuses MPI_Open_port and hangs between nodes in every third run or so.
        _ if mpi.is("mpich-5") && (many || program == "ports") => &["MPIR_CVAR_CH4_NETMOD=ofi"],
        // Else it talks by shared memory alone on one node; with it everything takes longer.
        "ports" | "spawn" if mpi.is("intel") => &["I_MPI_SPAWN=1"],
        _ => &[],
    }
}

fn judge(program: &str, ranks: u32, good: Good, done: &Finished) -> Result<(), String> {
    let out = done.out();
    let fits = match good {
        Good::Line => done.code == 0 && out == format!("{program} ok {ranks}\n"),
        Good::Code(code) => done.code == code && out.is_empty(),
        Good::Dies(code, _) if done.code == code => out.is_empty(),
        Good::Dies(_, signal) => done.code != 0 && out.is_empty() && done.stderr.contains(signal),
        Good::Fails => done.code != 0 && out.is_empty() && done.stderr.contains("rmpirun: rank "),
    };
    if fits { Ok(()) } else { Err(format!("code {}\nstdout: {out}\nstderr: {}", done.code, done.stderr)) }
}

/// Says it also when the test passes: cargo keeps back what macros print.
fn show(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Where programs are run.
struct Place<'a> {
    title: String,
    ranks: &'a [u32],
    many: bool,
    /// Puts a file where the ranks see it.
    put: &'a dyn Fn(&Path) -> PathBuf,
    /// Whether the ranks see this folder.
    sees: &'a dyn Fn(&Path) -> bool,
    rmpirun: &'a dyn Fn() -> Command,
}

impl Place<'_> {
    /// The words after `rmpirun` for a program, or why it cannot be run.
    fn words(&self, mpi: &Mpi, program: &str) -> Result<Vec<OsString>, &'static str> {
        if let Some(excuse) = excused(mpi, program, self.many) {
            return Err(excuse);
        }
        if mpi.prefix().is_some_and(|p| !(self.sees)(p)) {
            return Err("these hosts do not see its folder");
        }
        let mut words: Vec<_> = mpi.options().into_iter().map(Into::into).collect();
        words
            .extend(needed(mpi, program, self.many).iter().flat_map(|setting| ["-x".into(), setting.into()]));
        if program != SCRIPT {
            words.push((self.put)(&mpi.program(program)).into());
            return Ok(words);
        }
        let python = mpi::python().ok_or("no Python with mpi4py (see RMPI_PYTHON)")?;
        if !(self.sees)(&python) {
            return Err("these hosts do not see the Python with mpi4py");
        }
        // Later options replace earlier ones.
        words.extend(mpi.python_options().into_iter().map(Into::into));
        words.extend([python.into(), (self.put)(&bins::root().join("tests/mpi/script.py")).into()]);
        Ok(words)
    }

    /// Runs all programs, shows the table.
    fn matrix(&self) {
        let implementations = Mpi::all();
        if implementations.is_empty() {
            show("skipped: no MPI implementation is installed (see RMPI_MPI)");
        }
        let mut report = Report::default();
        for mpi in &implementations {
            for (program, least, good) in PROGRAMS {
                report.begin(&self.title, &mpi.title(), program);
                match self.words(mpi, program) {
                    Ok(words) => self.row(&mut report, program, least, good, &words),
                    Err(why) => report.end(why),
                }
            }
        }
        self.pmi2(&mut report);
        show(&report.table);
        assert!(report.failed.is_empty(), "{}\n{}", report.failed.join("\n"), report.wrong);
    }

    /// A client library of PMI-2 without any MPI: every call, and one rank's abort.
    fn pmi2(&self, report: &mut Report) {
        let Some(program) = mpi::pmi2_program() else {
            report.begin(&self.title, LIBPMI2, "pmi2");
            return report.end("not installed (libpmi2-0-dev)");
        };
        let program = (self.put)(&program).into_os_string();
        let rows = [
            ("pmi2", 1, Good::Line, vec![program.clone()]),
            ("pmi2 by port", 1, Good::Line, vec!["-pmi-port".into(), program.clone()]),
            ("pmi2 abort", 2, Good::Code(42), vec![program.clone(), "abort".into()]),
            ("abort by port", 2, Good::Code(42), vec!["-pmi-port".into(), program, "abort".into()]),
        ];
        for (title, least, good, words) in rows {
            report.begin(&self.title, LIBPMI2, title);
            self.row(report, "pmi2", least, good, &words);
        }
    }

    /// One program with every number of ranks. Some implementations hang now and then under any launcher: what fails
    /// once is run once more, and both runs are in the table.
    fn row(&self, report: &mut Report, program: &str, least: u32, good: Good, words: &[OsString]) {
        for &n in self.ranks.iter().filter(|n| **n >= least) {
            let mut whys = String::new();
            for _ in 0..2 {
                let mut rmpirun = (self.rmpirun)();
                rmpirun.args(["--oversubscribe", "-np", &n.to_string()]).args(words);
                let (done, hangs) = procs::attempt(&mut rmpirun, LIMIT);
                let judged = judge(program, n, good, &done);
                let word = match &judged {
                    _ if hangs => "HANGS",
                    _ if done.code == LACKING => "lacks it",
                    Ok(()) => "ok",
                    Err(_) => "WRONG",
                };
                let _ = write!(report.table, " {n}:{word}({:.1}s)", done.took.as_secs_f64());
                let ("HANGS" | "WRONG", Err(why)) = (word, judged) else {
                    whys.clear();
                    break;
                };
                let _ = writeln!(whys, "{} with {n} ranks: {why}", report.row);
            }
            if !whys.is_empty() {
                report.failed.push(format!("{} with {n} ranks", report.row));
                report.wrong += &whys;
            }
        }
        report.end("");
    }
}

/// The table, a line a program, and what is wrong: the rows' names, for logs that are cut, and what was seen.
#[derive(Debug, Default)]
struct Report {
    row: String,
    table: String,
    failed: Vec<String>,
    wrong: String,
}

impl Report {
    fn begin(&mut self, place: &str, implementation: &str, program: &str) {
        self.row = format!("{place} {implementation} {program}");
        let _ = write!(self.table, "{place} {implementation:20} {program:12}");
    }

    fn end(&mut self, why: &str) {
        let _ = writeln!(self.table, "{}{why}", if why.is_empty() { "" } else { " " });
    }
}

/// The machine for one test of this file: ranks of other implementations spin while they wait, and two jobs of them on
/// few cores would be a test of the kernel's scheduler.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn programs_of_other_implementations_run_on_one_node() {
    let _alone = alone();
    let ranks: &[u32] = if long() { &[1, 2, 3, 4, 8] } else { &[1, 2, 4] };
    let before = leftovers();
    let rmpirun = || Command::new(bins::path("rmpirun"));
    let (put, sees) = (|file: &Path| file.to_owned(), |_: &Path| true);
    Place { title: "1 node ".into(), ranks, many: false, put: &put, sees: &sees, rmpirun: &rmpirun }.matrix();
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
    let _alone = alone();
    let nodes = if long() { 4 } else { 2 };
    let Some(cluster) = cluster_or_skip(nodes, None) else { return };
    let bin = cluster.install(&["rmpirun", "rmpid"]);
    let ranks: &[u32] = if long() { &[4, 8] } else { &[4] };
    let put = |file: &Path| cluster.share(file);
    let sees = |folder: &Path| {
        cluster.command("n1", "test").arg("-e").arg(folder).status().is_ok_and(|s| s.success())
    };
    let rmpirun = || {
        let mut command = cluster.command("n0", bin.join("rmpirun"));
        command.arg("--hostfile").arg(cluster.hostfile());
        // What a test's own terminal or job has set is of no use on these hosts.
        command.args(["--map-by", "node"]);
        // Where scheduling groups cannot be switched off (see docs/mpi.md), spawning ranks of Open MPI keep the CPUs from
        // us for seconds: such a host is not lost.
        command.args(["--heartbeat", "1,60"]);
        command
    };
    let title = format!("{nodes} nodes");
    Place { title, ranks, many: true, put: &put, sees: &sees, rmpirun: &rmpirun }.matrix();
}

/// A benchmark from Debian that runs on two ranks in a folder of its own; what it wrote to `result`.
fn benchmark(words: &[&str], input: Option<(&str, &str)>, result: &str) -> Option<String> {
    let program = Path::new("/usr/bin").join(words[0]);
    if !program.exists() {
        show(&format!("skipped: {} is not installed", words[0]));
        return None;
    }
    let folder = std::env::temp_dir().join(format!("rmpi-mpi-{}-{}", words[0], std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder of our own");
    if let Some((name, text)) = input {
        std::fs::write(folder.join(name), text).expect("a folder of our own");
    }
    let mut rmpirun = Command::new(bins::path("rmpirun"));
    rmpirun.args(["--oversubscribe", "-np", "2"]).arg(program).args(&words[1..]).current_dir(&folder);
    let done = procs::run(&mut rmpirun, LIMIT);
    let written = std::fs::read_to_string(folder.join(result));
    std::fs::remove_dir_all(&folder).expect("it was ours");
    assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    Some(written.expect("it leaves its result in a file"))
}

#[test]
fn netpipe_from_debian_runs() {
    let _alone = alone();
    let words = ["NPopenmpi", "-u", "65536", "-n", "5", "-o", "result"];
    let Some(result) = benchmark(&words, None, "result") else { return };
    // A line a size: bytes, megabits a second, seconds.
    let sizes: Vec<u64> = result.lines().filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect();
    assert!(sizes.contains(&65536) && sizes.is_sorted(), "{result}");
}

#[test]
fn hpcc_from_debian_runs() {
    let _alone = alone();
    let input = include_str!("../mpi/hpccinf.txt");
    let Some(result) = benchmark(&["hpcc"], Some(("hpccinf.txt", input)), "hpccoutf.txt") else { return };
    assert!(result.contains("\nSuccess=1\n") && result.contains(" PASSED"), "{result}");
    assert!(!result.contains(" FAILED"), "{result}");
}
