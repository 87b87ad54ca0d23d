//! The termination message of a pod: what Kubernetes shows of a container that failed. Only where the kubelet has put
//! the file, only on failure, cause first, at most as long as Kubernetes keeps.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Where the kubelet puts the file unless the pod says otherwise.
const DEFAULT: &str = "/dev/termination-log";
/// Names another.
const VARIABLE: &str = "RMPIRUN_TERMINATION_LOG";
/// Bytes at most.
const MOST: usize = 2048;

/// Leaves the message; without such a file, or without the right to write to it, nothing happens.
pub(crate) fn leave(report: &str, code: u8) {
    if code == 0 {
        return;
    }
    let path =
        std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map_or_else(|| DEFAULT.into(), PathBuf::from);
    if !fs::metadata(&path).is_ok_and(|m| m.is_file()) {
        return;
    }
    let file = OpenOptions::new().write(true).truncate(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    if let Ok(mut file) = file {
        let _ = file.write_all(message(report, code).as_bytes());
    }
}

/// The report without our name before each line, cut at a character.
fn message(report: &str, code: u8) -> String {
    let mut text: String =
        report.lines().map(|l| format!("{}\n", l.strip_prefix("rmpirun: ").unwrap_or(l))).collect();
    if text.trim().is_empty() {
        text = format!("exit code {code}\n");
    }
    let end = (0..=MOST.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_first_and_the_length_is_kept() {
        let text = message("rmpirun: rank 3 on w-1 (pid 7) exited with code 3\nrmpirun: exit code 3\n", 3);
        assert_eq!(text, "rank 3 on w-1 (pid 7) exited with code 3\nexit code 3\n");
        assert_eq!(message("", 143), "exit code 143\n");
        assert!(message(&"ä".repeat(3000), 1).len() <= MOST);
    }
}
