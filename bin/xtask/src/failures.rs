//! A run of `cargo test` that repeats at its end what failed: a log that is cut in its middle still shows it.

use crate::stage::{self, say};
use std::fmt::{self, Display};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Lines that are repeated of what one test printed.
const LINES: usize = 60;
/// How long the rest of the output is awaited when cargo has ended: what a test left running may hold the pipe.
const REST: Duration = Duration::from_secs(5);

/// Runs tests as a named stage; their output goes through as it comes.
///
/// # Errors
/// A line naming the stage when the command cannot be started or fails, with the tests that failed.
pub(crate) fn run(name: &str, tests: &mut Command) -> Result<(), String> {
    let start = Instant::now();
    let mut child = tests.stdout(Stdio::piped()).spawn().map_err(|e| format!("{name}: {tests:?}: {e}"))?;
    let output = child.stdout.take().ok_or_else(|| format!("{name}: no output"))?;
    let (give, lines) = channel();
    std::thread::spawn(move || pass(output, &give));
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    let mut failures = Failures::default();
    let ended = Instant::now();
    while let Ok(line) = lines.recv_timeout(REST.saturating_sub(ended.elapsed())) {
        failures.line(&line);
    }
    say(&format!("xtask: {name}: {:.1} s", start.elapsed().as_secs_f64()));
    if status.success() { Ok(()) } else { Err(format!("{}\n{failures}", stage::failed(name, status, tests))) }
}

/// Shows and gives every line to the end.
fn pass(output: ChildStdout, give: &Sender<String>) {
    let (mut output, mut line) = (BufReader::new(output), Vec::new());
    while let Ok(1..) = output.read_until(b'\n', &mut line) {
        let _ = std::io::stdout().write_all(&line);
        let _ = give.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// What test programs said of their failing tests.
#[derive(Debug, Default)]
struct Failures {
    /// Name, and what it printed.
    tests: Vec<(String, Vec<String>)>,
    /// The lines are what the last of them printed.
    inside: bool,
}

impl Failures {
    /// Takes one more line of a run's output.
    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            self.tests.push((name.to_owned(), Vec::new()));
            self.inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.inside = false;
        } else if let Some((_, printed)) = self.tests.last_mut().filter(|_| self.inside) {
            printed.push(line.to_owned());
        }
    }
}

impl Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, printed) in &self.tests {
            writeln!(f, "xtask: failed: {name}")?;
            printed.iter().take(LINES).try_for_each(|line| writeln!(f, "    {line}"))?;
            if let Some(more @ 1..) = printed.len().checked_sub(LINES) {
                writeln!(f, "    ({more} lines more above)")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_tests_are_repeated_with_the_beginning_of_what_they_printed() {
        let long: String = (0..LINES + 2).map(|i| format!("line {i}\n")).collect();
        let output = format!(
            "running 3 tests\ntest good ... ok\ntest bad ... FAILED\n\nfailures:\n\n---- bad stdout ----\n\
             it panicked\n---- a::worse stdout ----\n{long}\n\nfailures:\n    a::worse\n    bad\n\n\
             test result: FAILED. 1 passed; 2 failed\n\nrunning 1 test\ntest other ... ok\n"
        );
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.line(line));
        let text = failures.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["xtask: failed: bad", "    it panicked", "xtask: failed: a::worse"]);
        assert_eq!(lines[3], "    line 0");
        assert_eq!(lines[LINES + 2], format!("    line {}", LINES - 1));
        assert_eq!(lines[LINES + 3..], ["    (4 lines more above)"]);
        assert_eq!(Failures::default().to_string(), "");
    }
}
