//! What is done with every set of pods, and what must come of it.

use super::{Set, Way, files::Tree, trouble};
use crate::procs::{self, Job};
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes longer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// A lost pod is named, and everything gone, within this time.
pub(super) const PROMISE: Duration = Duration::from_secs(10);

/// A set, a way and a case, and what came of it.
#[derive(Debug)]
pub struct Row {
    /// The folder under `tests/kubernetes/pods`.
    pub set: String,
    /// How workers are reached.
    pub way: Way,
    /// What was tried.
    pub case: &'static str,
    /// How long it took, or what was wrong.
    pub result: Result<Duration, String>,
}

/// Does something with a set reached by a way; how long it took, or what was wrong.
pub type Case = fn(&str, Way) -> Result<Duration, String>;

/// Which sets a case is tried with.
type Fits = fn(&str, Way) -> bool;

const ALL: Fits = |_, _| true;
/// What has nothing to do with what operators write: one set of those reached by each way.
const ONE: Fits = |set, _| matches!(set, "training-v1-1.9" | "mpi-v2beta1-0.8-openmpi");
const BY_EXEC: Fits = |set, way| ONE(set, way) && way == Way::Exec;
const BY_SSH: Fits = |set, way| ONE(set, way) && way != Way::Exec;

/// What is tried.
const CASES: [(&str, Fits, Case); 16] = [
    ("all up", ALL, all_up),
    ("late worker", ALL, late),
    ("rank fails", ALL, rank_fails),
    ("worker lost", ALL, lost),
    ("SIGTERM", ALL, terminated),
    ("moved worker", ALL, moved),
    ("never comes", ONE, trouble::never),
    ("no rights", BY_EXEC, trouble::no_rights),
    ("key modes", |set, way| BY_SSH(set, way) && way == Way::Serve, trouble::keys),
    ("key refused", BY_SSH, trouble::refused),
    ("twice at once", ONE, trouble::twice),
    ("pod grace", BY_EXEC, trouble::grace),
    ("job deleted", |set, way| BY_SSH(set, way) && way == Way::Serve, trouble::deleted),
    ("pod drained", |set, way| BY_SSH(set, way) && way == Way::Serve, trouble::drained),
    ("elastic", ONE, trouble::elastic),
    ("ssh true", |set, way| BY_SSH(set, way) && way == Way::Sshd, trouble::ssh),
];

/// All sets with the ways each can be reached by.
///
/// # Errors
/// The folder cannot be read.
pub fn sets() -> Result<Vec<(String, Vec<Way>)>, String> {
    let folder = crate::bins::root().join("tests/kubernetes/pods");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let ways = |name: &String| {
        let tree = Tree::read(name)?;
        let exec = tree.launcher_env.iter().any(|(n, _)| n == "OMPI_MCA_plm_rsh_agent");
        Ok((name.clone(), if exec { vec![Way::Exec] } else { vec![Way::Sshd, Way::Serve] }))
    };
    names.iter().map(ways).collect()
}

/// Runs what has all these words in `set way case`; `told` is called after each.
///
/// # Errors
/// Such pods cannot be had here.
pub fn run(words: &[&str], mut told: impl FnMut(&Row)) -> Result<Vec<Row>, String> {
    super::possible()?;
    let mut rows = Vec::new();
    for (set, ways) in sets()? {
        for way in ways {
            for (case, fits, run) in CASES {
                let name = format!("{set} {way:?} {case}");
                if fits(&set, way) && words.iter().all(|w| name.contains(w)) {
                    let row = Row { set: set.clone(), way, case, result: run(&set, way) };
                    told(&row);
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

fn with_workers(name: &str, way: Way) -> Result<Set, String> {
    let mut set = Set::up(name, way)?;
    for worker in set.workers().to_vec() {
        set.boot(&worker)?;
    }
    Ok(set)
}

/// The launcher's command as a job of this operator would have it, running `script` on every slot.
pub(super) fn job(set: &Set, options: &[&str], script: &str) -> Command {
    let ranks = set.slots().to_string();
    let host = set.tree.launcher_env.iter().find(|(n, _)| n == "MPI_HOST").map(|(_, v)| v.clone());
    let mut words = vec!["mpirun", "--allow-run-as-root", "-n", &ranks];
    if let Some(host) = &host {
        words.extend(["--host", host]);
    }
    words.extend(options);
    words.extend(["sh", "-c", script]);
    set.command(&words)
}

pub(super) fn expect(what: &str, fine: bool, run: &procs::Finished) -> Result<(), String> {
    match fine {
        true => Ok(()),
        false => Err(format!("{what}: exit code {}\n{}\n{}", run.code, run.out(), run.stderr)),
    }
}

/// Every slot has its rank, in the order of the host list, and nothing but that is printed.
fn all_up(name: &str, way: Way) -> Result<Duration, String> {
    let set = with_workers(name, way)?;
    let run = procs::run(&mut job(&set, &[], "echo $RANK $(hostname)"), LIMIT);
    expect("the job fails", run.code == 0, &run)?;
    expect("something is said", run.stderr.is_empty(), &run)?;
    expect("not every rank ran", run.out().lines().count() == set.slots() as usize, &run)?;
    let everywhere = set.workers().iter().all(|w| run.out().contains(w.as_str()));
    expect("a worker got no rank", everywhere, &run)?;
    let here = run.out().contains(set.launcher());
    expect("the launcher's own ranks", here == set.launcher_works(), &run)?;
    clean(&set)?;
    Ok(run.took)
}

/// The last worker, its name and its server come two seconds after the launcher has begun.
fn late(name: &str, way: Way) -> Result<Duration, String> {
    let mut set = Set::up(name, way)?;
    let workers = set.workers().to_vec();
    let (last, others) = workers.split_last().ok_or("a set without workers")?;
    for worker in others {
        set.boot(worker)?;
    }
    let mut child = start(&mut job(&set, &[], "hostname"));
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("it did not wait: {status}: {}", stderr(&mut child)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    set.boot(last)?;
    let ready = Instant::now();
    let (code, said) = end(child)?;
    let took = ready.elapsed();
    if code != 0 {
        return Err(format!("exit code {code}: {said}"));
    }
    Ok(took)
}

/// The first failing rank's code, the cause first and last.
fn rank_fails(name: &str, way: Way) -> Result<Duration, String> {
    let set = with_workers(name, way)?;
    let run = procs::run(&mut job(&set, &[], "test $RANK = 1 && exit 3; sleep 300"), LIMIT);
    expect("the code is not the rank's", run.code == 3, &run)?;
    expect(
        "the cause is not named",
        run.stderr.contains("rank 1 on ") && run.stderr.contains("exited with code 3"),
        &run,
    )?;
    clean(&set)?;
    Ok(run.took)
}

/// A worker's cable is pulled while ranks run.
fn lost(name: &str, way: Way) -> Result<Duration, String> {
    let set = with_workers(name, way)?;
    let child = ready(&set, start(&mut job(&set, &[], "echo ready; exec sleep 300")))?;
    let worker = set.workers().last().cloned().ok_or("a set without workers")?;
    set.cut(&worker);
    let since = Instant::now();
    let (code, said) = end(child)?;
    let took = since.elapsed();
    if code != 254 || !said.contains(&worker) || !said.contains("lost") || took > PROMISE {
        return Err(format!("exit code {code} after {:.1} s: {said}", took.as_secs_f64()));
    }
    let left = || -> Vec<String> { set.workers().iter().flat_map(|w| set.ps(w)).collect() };
    if !procs::until(PROMISE, || left().is_empty()) {
        return Err(format!("left behind: {:?}", left()));
    }
    Ok(took)
}

/// SIGTERM to the launcher alone, as the kubelet sends it.
fn terminated(name: &str, way: Way) -> Result<Duration, String> {
    let set = with_workers(name, way)?;
    let child = ready(&set, start(&mut job(&set, &[], "echo ready; exec sleep 300")))?;
    let since = Instant::now();
    terminate(&set)?;
    let (code, said) = end(child)?;
    if code != 143 {
        return Err(format!("exit code {code}: {said}"));
    }
    clean(&set)?;
    Ok(since.elapsed())
}

/// Sends the launcher SIGTERM.
pub(super) fn terminate(set: &Set) -> Result<(), String> {
    // What entered the pod for it is not the launcher.
    let ours = |line: &String| line.contains("mpirun --allow-run-as-root") && !line.contains("nsenter");
    let line = set.ps(set.launcher()).into_iter().find(ours).ok_or("no launcher is running")?;
    let pid = line.split(':').next().unwrap_or_default();
    Command::new("kill").args(["-s", "TERM", pid]).status().map(drop).map_err(|e| format!("kill: {e}"))
}

/// A worker is made again under its name with another address before the launcher begins: nothing old is used.
fn moved(name: &str, way: Way) -> Result<Duration, String> {
    let mut set = with_workers(name, way)?;
    let worker = set.workers().last().cloned().ok_or("a set without workers")?;
    let first = procs::run(&mut job(&set, &[], "true"), LIMIT);
    expect("the first job fails", first.code == 0, &first)?;
    set.delete(&worker);
    set.boot(&worker)?;
    let run = procs::run(&mut job(&set, &[], "hostname"), LIMIT);
    expect("the second job fails", run.code == 0 && run.out().contains(&worker), &run)?;
    Ok(run.took)
}

pub(super) fn clean(set: &Set) -> Result<(), String> {
    let left = || -> Vec<String> { set.workers().iter().flat_map(|w| set.ps(w)).collect() };
    match procs::until(PROMISE, || left().is_empty()) {
        true => Ok(()),
        false => Err(format!("left behind: {:?}", left())),
    }
}

pub(super) fn start(command: &mut Command) -> Job {
    procs::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()), LIMIT)
}

/// Waits until every rank has said that it is there.
pub(super) fn ready(set: &Set, child: Job) -> Result<Job, String> {
    ready_when(child, set.slots() as usize)
}

/// Waits until so many ranks have said that they are there.
pub(super) fn ready_when(mut child: Job, want: usize) -> Result<Job, String> {
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 512];
        while let Ok(n @ 1..) = out.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
            if String::from_utf8_lossy(&text).matches("ready").count() == want {
                let _ = tell.send(());
            }
        }
    });
    match told.recv_timeout(LIMIT) {
        Ok(()) => Ok(child),
        Err(_) => {
            let _ = child.kill();
            Err(format!("the ranks do not start: {}", stderr(&mut child)))
        }
    }
}

fn stderr(child: &mut Job) -> String {
    let mut text = String::new();
    if let Some(mut err) = child.stderr.take() {
        let _ = err.read_to_string(&mut text);
    }
    text
}

/// The code and standard error of a child that ends in time.
pub(super) fn end(mut child: Job) -> Result<(i32, String), String> {
    let mut err = child.stderr.take().ok_or("no stderr")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let mut status = None;
    let ended = procs::until(LIMIT, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return Err("the launcher does not end".into());
    }
    let code = status.and_then(|s| s.code()).unwrap_or(-1);
    Ok((code, reader.join().unwrap_or_default()))
}
