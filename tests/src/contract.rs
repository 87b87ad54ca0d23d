//! The command-line contract, row by row: what a script written for another launcher may assume. The rows are
//! the files of `tests/contract` (the form is in its README); each command runs in a shell, in a folder with the
//! files of `tests/contract/files`, with `rmpirun` under all its names first in `PATH`.

use crate::bins;
use crate::procs::{Finished, attempt};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest that one command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Names our program answers to.
const NAMES: [&str; 8] =
    ["rmpirun", "mpirun", "mpiexec", "orterun", "prterun", "mpiexec.hydra", "horovodrun", "torchrun"];
/// Variables that would change what a command line means.
const FOREIGN: [&str; 15] = [
    "RMPIRUN_", "RMPI_", "OMPI_", "PRTE_", "PMIX_", "PMI_", "HYDRA_", "MPIEXEC_", "MPICH_", "I_MPI_", "PET_",
    "HOROVOD_", "SLURM", "PBS_", "LSB_",
];

/// A row: a line of the contract, and the commands that show it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Chapter, `2.1 How many processes, on which hosts`.
    pub section: String,
    /// `MUST`, `SHOULD`, `IGNORE`, `NOTE` or `REJECT`.
    pub verdict: String,
    /// Spellings, or what the row is about.
    pub label: String,
    /// `file:line`.
    pub origin: String,
    steps: Vec<Step>,
    /// Why it is known not to hold yet.
    pub gap: Option<String>,
}

/// One command and what it must do.
#[derive(Clone, Debug, Default)]
struct Step {
    command: String,
    code: i32,
    lines: Vec<String>,
    whole: bool,
    checks: Vec<Check>,
}

#[derive(Clone, Debug)]
enum Check {
    Out(String),
    Err(String),
    NoErr(String),
    NoOut(String),
}

/// All rows, in the order of the files.
///
/// # Panics
/// When a file cannot be read or has a line that is none of the form's.
#[must_use]
pub fn rows() -> Vec<Row> {
    let dir = bins::root().join("tests/contract");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("the contract's folder")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files.iter().flat_map(|f| read(f)).collect()
}

fn read(file: &Path) -> Vec<Row> {
    let text = fs::read_to_string(file).expect("a file of the contract");
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rows: Vec<Row> = Vec::new();
    let mut section = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let origin = format!("{name}:{number}");
        let bad = || -> ! { panic!("{origin}: not a line of the contract: {line}") };
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => continue,
            "##" => rest.clone_into(&mut section),
            "MUST" | "SHOULD" | "IGNORE" | "NOTE" | "REJECT" => rows.push(Row {
                section: section.clone(),
                verdict: mark.to_owned(),
                label: rest.to_owned(),
                origin,
                steps: Vec::new(),
                gap: None,
            }),
            _ => {
                let Some(row) = rows.last_mut() else { bad() };
                if mark == "gap" {
                    row.gap = Some(rest.to_owned());
                    continue;
                }
                if mark == "$" {
                    row.steps.push(Step { command: rest.to_owned(), ..Step::default() });
                    continue;
                }
                let Some(step) = row.steps.last_mut() else { bad() };
                match mark {
                    ">" => {
                        step.whole = true;
                        step.lines.push(rest.to_owned());
                    }
                    "rc" => step.code = rest.parse().unwrap_or_else(|_| bad()),
                    "out" => step.checks.push(Check::Out(rest.to_owned())),
                    "err" => step.checks.push(Check::Err(rest.to_owned())),
                    "no-err" => step.checks.push(Check::NoErr(rest.to_owned())),
                    "no-out" => step.checks.push(Check::NoOut(rest.to_owned())),
                    "silent" => step.checks.push(Check::NoErr(String::new())),
                    _ => bad(),
                }
            }
        }
    }
    rows
}

/// A folder to run commands in, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("rmpi-contract.{}", std::process::id()));
        let (bin, work) = (dir.join("bin"), dir.join("work"));
        fs::create_dir_all(&bin).expect("a temporary folder");
        fs::create_dir_all(&work).expect("a temporary folder");
        for name in NAMES {
            let _ = std::os::unix::fs::symlink(bins::path("rmpirun"), bin.join(name));
        }
        let _ = std::os::unix::fs::symlink(bins::path("rmpi-bench"), bin.join("rmpi-bench"));
        let files = bins::root().join("tests/contract/files");
        for entry in fs::read_dir(files).into_iter().flatten().flatten() {
            let _ = fs::copy(entry.path(), work.join(entry.file_name()));
        }
        Self(dir)
    }

    fn shell(&self, command: &str) -> (Finished, bool) {
        let path = std::env::var("PATH").unwrap_or_default();
        // Tests that run in the background inherit ignored signals, which no shell can give back.
        let mut shell = Command::new("env");
        shell.args(["--default-signal=HUP,INT,QUIT", "sh", "-c", command]).current_dir(self.0.join("work"));
        for (name, _) in std::env::vars_os() {
            if FOREIGN.iter().any(|f| name.as_encoded_bytes().starts_with(f.as_bytes())) {
                shell.env_remove(name);
            }
        }
        shell.env("PATH", format!("{}:{path}", self.0.join("bin").display()));
        shell.env("LC_ALL", "C.UTF-8");
        attempt(&mut shell, LIMIT)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Row {
    /// The commands, one for each spelling where they have a `{}`.
    fn commands(&self) -> Vec<(String, &Step)> {
        let spellings: Vec<&str> = self.label.split_whitespace().filter(|w| w.starts_with('-')).collect();
        let mut out = Vec::new();
        for step in &self.steps {
            match step.command.contains("{}") {
                true => out.extend(spellings.iter().map(|s| (step.command.replace("{}", s), step))),
                false => out.push((step.command.clone(), step)),
            }
        }
        out
    }

    /// `None` when the row holds, else the first command that shows it does not, and how.
    fn broken(&self, place: &Place) -> Option<String> {
        let commands = self.commands();
        if commands.is_empty() {
            return Some("no command shows it".to_owned());
        }
        commands.into_iter().find_map(|(command, step)| {
            let (done, late) = place.shell(&command);
            let why = if late { Some("did not end".to_owned()) } else { step.wrong(&done) }?;
            Some(format!("$ {command}\n      {why}\n      rc {}\n{}", done.code, shown(&done)))
        })
    }
}

impl Step {
    fn wrong(&self, done: &Finished) -> Option<String> {
        if done.code != self.code {
            return Some(format!("exit code {} instead of {}", done.code, self.code));
        }
        let out = done.out();
        if self.whole {
            let want: String = self.lines.iter().map(|l| format!("{l}\n")).collect();
            if out != want {
                return Some(format!("standard output is not {want:?}"));
            }
        }
        self.checks.iter().find_map(|check| match check {
            Check::Out(text) if !out.contains(text) => Some(format!("standard output lacks '{text}'")),
            Check::NoOut(text) if out.contains(text) => Some(format!("standard output has '{text}'")),
            Check::Err(text) if !done.stderr.contains(text) => Some(format!("standard error lacks '{text}'")),
            Check::NoErr(text) if text.is_empty() && !done.stderr.is_empty() => {
                Some("standard error is not empty".to_owned())
            }
            Check::NoErr(text) if !text.is_empty() && done.stderr.contains(text) => {
                Some(format!("standard error has '{text}'"))
            }
            _ => None,
        })
    }
}

fn shown(done: &Finished) -> String {
    let lines = |stream: &str, text: &str| -> String {
        text.lines().take(12).map(|l| format!("      {stream}: {l}\n")).collect()
    };
    format!("{}{}", lines("stdout", &done.out()), lines("stderr", &done.stderr))
}

/// What became of one row.
#[derive(Debug)]
pub struct Verdict {
    /// The row.
    pub row: Row,
    /// `None` when it holds.
    pub broken: Option<String>,
}

/// Runs the rows whose section or label holds `only`, two at a time.
#[must_use]
pub fn check(only: &str) -> Vec<Verdict> {
    let rows: Vec<Row> =
        rows().into_iter().filter(|r| r.section.contains(only) || r.label.contains(only)).collect();
    let place = Place::new();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Option<String>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((i, row)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    rows.get(i).map(|row| (i, row))
                } {
                    let broken = row.broken(&place);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, broken));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    rows.into_iter().zip(done).map(|(row, (_, broken))| Verdict { row, broken }).collect()
}

impl Verdict {
    /// Whether the row does what the files say of it: it holds, or is a gap that is named.
    #[must_use]
    pub fn as_written(&self) -> bool {
        self.broken.is_some() == self.row.gap.is_some()
    }
}

/// A line a section with how many rows hold, and what each broken one did.
#[must_use]
pub fn report(verdicts: &[Verdict]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for section in verdicts.chunk_by(|a, b| a.row.section == b.row.section) {
        let held = section.iter().filter(|v| v.broken.is_none()).count();
        let _ = writeln!(out, "{:3} of {:3} rows hold: {}", held, section.len(), section[0].row.section);
        for v in section {
            match (&v.broken, &v.row.gap) {
                (None, None) => {}
                (None, Some(_)) => {
                    let _ = writeln!(
                        out,
                        "    {} {} {}\n      holds now: take its gap away",
                        v.row.origin, v.row.verdict, v.row.label
                    );
                }
                (Some(_), Some(gap)) => {
                    let _ = writeln!(
                        out,
                        "    {} {} {}\n      not yet: {gap}",
                        v.row.origin, v.row.verdict, v.row.label
                    );
                }
                (Some(why), None) => {
                    let _ = write!(out, "    {} {} {}\n    {why}", v.row.origin, v.row.verdict, v.row.label);
                }
            }
        }
    }
    let held = verdicts.iter().filter(|v| v.broken.is_none()).count();
    let _ = writeln!(out, "{held} of {} rows hold in all", verdicts.len());
    out
}
