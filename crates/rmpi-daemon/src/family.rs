//! The processes below this one, found by the chain of parents in `/proc`, and their end. Both halves of the
//! daemon are subreapers, so no process of a job can leave this chain: not by a new process group or session,
//! not by a double fork. A caller without any child (`waitpid` says so) has no descendant either.

use crate::sys::{self, Reap, Reaped};
use nix::libc;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Passes of one call of [`kill_all`]: a process that forks on is caught by a later pass.
const PASSES: usize = 64;

/// One line of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: i32,
    /// Parent.
    pub(crate) parent: i32,
    /// Process group.
    pub(crate) group: i32,
    /// Ended but not reaped.
    pub(crate) zombie: bool,
    /// Command name.
    pub(crate) name: String,
}

fn parse_stat(text: &str) -> Option<Process> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    let group = words.next()?.parse().ok()?;
    let zombie = matches!(state, "Z" | "X" | "x");
    Some(Process { pid: pid.parse().ok()?, parent, group, zombie, name: name.to_owned() })
}

fn all(proc: &Path) -> Vec<Process> {
    let Ok(dir) = std::fs::read_dir(proc) else { return Vec::new() };
    dir.flatten()
        .filter(|e| e.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|e| parse_stat(&String::from_utf8_lossy(&std::fs::read(e.path().join("stat")).ok()?)))
        .collect()
}

/// The processes below `root` among `all`.
pub(crate) fn below(root: i32, all: Vec<Process>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next].pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// All processes below this one, zombies included.
pub(crate) fn descendants() -> Vec<Process> {
    below(i32::try_from(std::process::id()).unwrap_or(i32::MAX), all(Path::new("/proc")))
}

/// Sends SIGKILL to all descendants until no new one turns up; does not wait for their end. The processes
/// that are left: those being ended, and those that cannot be (another user's, stuck in the kernel).
pub(crate) fn kill_all() -> Vec<Process> {
    let mut killed = HashSet::new();
    for _ in 0..PASSES {
        let alive: Vec<Process> = descendants().into_iter().filter(|p| !p.zombie).collect();
        let mut new = false;
        for process in &alive {
            if killed.insert(process.pid) {
                new = true;
                sys::send_signal(process.pid, libc::SIGKILL);
            }
        }
        if !new {
            return alive;
        }
    }
    descendants()
}

/// Kills and reaps until nothing is left or the limit has passed; every reaped process is told. Whether
/// nothing is left.
pub(crate) fn end_all(limit: Duration, mut reaped: impl FnMut(Reaped)) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        loop {
            match sys::reap_any() {
                Reap::One(one) => reaped(one),
                Reap::NoChild => return true,
                Reap::Running => break,
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
        kill_all();
        // There is no event for "a grandchild ended or was adopted"; the killed end within microseconds.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        for (line, expected) in [
            ("12 (sh) S 1 12 12 0 -1", Some((12, 1, 12, false, "sh"))),
            ("13 (a) b) (c) Z 12 7 7 0", Some((13, 12, 7, true, "a) b) (c"))),
            ("x (sh) S 1 1", None),
            ("14 (sh) S", None),
            ("", None),
        ] {
            let got = parse_stat(line);
            let got = got.as_ref().map(|p| (p.pid, p.parent, p.group, p.zombie, p.name.as_str()));
            assert_eq!(got, expected, "{line}");
        }
    }

    #[test]
    fn only_what_hangs_below_is_found() {
        let process = |pid, parent| Process { pid, parent, group: pid, zombie: false, name: String::new() };
        let all =
            vec![process(9, 5), process(5, 2), process(2, 1), process(3, 1), process(7, 9), process(8, 3)];
        let mut pids: Vec<i32> = below(2, all).iter().map(|p| p.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [5, 7, 9]);
    }
}
