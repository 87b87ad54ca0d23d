//! What the processes of a rank are doing, in words, from `/proc` (`proc_pid_stat(5)`, `proc_pid_wchan(5)`,
//! `proc_pid_stack(5)`): state, where in the kernel it waits and, where the kernel lets us read them, the
//! kernel's frames. Nothing is stopped for it; frames of the program itself are a debugger's business.

use crate::family::{self, Process};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Processes of one rank, threads of one process, frames of one thread told at most.
const MOST: (usize, usize, usize) = (32, 32, 16);
/// Bytes of one rank's text.
const MAX_BYTES: usize = 32 << 10;

/// Lines about the process `root` and all below it, `processes` being all there are.
pub(crate) fn describe(proc: &Path, root: i32, processes: &[Process]) -> String {
    let mut text = String::new();
    let own = processes.iter().filter(|p| p.pid == root).cloned();
    let family: Vec<Process> = own.chain(family::below(root, processes.to_vec())).collect();
    for process in family.iter().take(MOST.0) {
        let _ = writeln!(text, "  {} (pid {})", process.name, process.pid);
        threads(&proc.join(process.pid.to_string()).join("task"), &mut text);
        if text.len() > MAX_BYTES {
            break;
        }
    }
    if family.len() > MOST.0 {
        let _ = writeln!(text, "  and {} more processes", family.len() - MOST.0);
    }
    text
}

fn threads(tasks: &Path, text: &mut String) {
    let Ok(dir) = fs::read_dir(tasks) else { return };
    let mut ids: Vec<i32> = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    for id in ids.iter().take(MOST.1) {
        let dir = tasks.join(id.to_string());
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap_or_default()).trim().to_owned()
        };
        let (name, stat, wchan) = (read("comm"), read("stat"), read("wchan"));
        let _ = write!(text, "    thread {id} ({name}): {}", state(&stat));
        if !matches!(wchan.as_str(), "" | "0") {
            let _ = write!(text, " in {wchan}");
        }
        text.push('\n');
        for frame in read("stack").lines().take(MOST.2) {
            let _ = writeln!(text, "      {}", frame.trim_start_matches("[<0>] "));
        }
    }
    if ids.len() > MOST.1 {
        let _ = writeln!(text, "    and {} more threads", ids.len() - MOST.1);
    }
}

/// The state of `/proc/PID/stat` in a word.
fn state(stat: &str) -> &'static str {
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('R') => "runs",
        Some('S') => "sleeps",
        Some('D') => "waits for a device",
        Some('T') => "is stopped",
        Some('t') => "is stopped by a debugger",
        Some('Z' | 'X' | 'x') => "has ended",
        Some('I') => "is idle",
        _ => "is gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_words() {
        for (stat, word) in [
            ("1 (a) R) S 1 2", "sleeps"),
            ("1 (a) R 1", "runs"),
            ("1 (a) t 1", "is stopped by a debugger"),
            ("", "is gone"),
        ] {
            assert_eq!(state(stat), word, "{stat}");
        }
    }

    #[test]
    fn every_thread_of_this_process_is_told() {
        let me = i32::try_from(std::process::id()).unwrap();
        let process = Process { pid: me, parent: 1, group: me, zombie: false, name: "tests".into() };
        let other = Process { pid: me + 1, parent: 1, group: 1, zombie: false, name: "other".into() };
        let text = describe(Path::new("/proc"), me, &[other, process]);
        assert!(text.starts_with(&format!("  tests (pid {me})\n    thread {me} (")), "{text}");
        assert!(text.contains("): runs"), "the asking thread: {text}");
        assert!(!text.contains("other"), "{text}");
    }
}
