//! Running the benchmarks, ours and the peers', in turn.

use super::results::{Figures, Measured, OURS, Results, Round};
use super::suite::Suite;
use super::{Plan, line};
use crate::stage::say;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest run of one command.
const LIMIT: Duration = Duration::from_secs(120);
/// Failures after which a column is left out.
const FAILURES: usize = 2;

/// `mode np=N bytes=B us=T ...`: size and microseconds.
fn line_of(text: &str) -> Option<(u64, f64)> {
    let value = |name: &str| text.split(' ').find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    Some((value("bytes")?.parse().ok()?, value("us")?.parse().ok()?))
}

/// Runs one command; nothing when it fails or takes too long.
fn figures(words: &[String]) -> Option<Figures> {
    let (program, arguments) = words.split_first()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = child.stdout.take()?;
    let (done, over) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // A command that is stopped leaves half a line, which no figure is read from.
        let _ = std::io::Read::read_to_string(&mut out, &mut text);
        let _ = done.send(());
        text
    });
    let start = Instant::now();
    if over.recv_timeout(LIMIT).is_err() {
        let _ = child.kill();
    }
    let good = child.wait().is_ok_and(|s| s.success()) && start.elapsed() < LIMIT;
    let text = reader.join().ok()?;
    let found: Figures = text.lines().filter_map(line_of).collect();
    (good && !found.is_empty()).then_some(found)
}

fn ours(bin: &Path, suite: &Suite) -> Vec<String> {
    let path = |name: &str| bin.join(name).to_string_lossy().into_owned();
    let np = suite.np.to_string();
    let mut words = vec![path("rmpirun"), "--oversubscribe".into(), "-np".into(), np, path("rmpi-bench")];
    words.extend(["--transport".into(), suite.transport.into(), suite.mode.into()]);
    words.extend((suite.bytes > 0).then(|| suite.bytes.to_string()));
    words
}

fn one(plan: &Plan, bin: &Path, suite: &Suite) -> Measured {
    let mut columns = vec![(OURS.to_owned(), ours(bin, suite), 0)];
    for peer in &plan.peers {
        columns.extend(peer.command(suite).map(|words| (peer.name.clone(), words, 0)));
    }
    let mut rounds: Vec<Round> = Vec::new();
    let mut tries = 0;
    while rounds.iter().filter(|r| r.state != "mixed").count() < plan.rounds && tries < 3 * plan.rounds {
        tries += 1;
        let mut seen = vec![line::state()];
        let mut round = BTreeMap::new();
        for (name, words, failed) in &mut columns {
            if *failed >= FAILURES {
                continue;
            }
            match figures(words) {
                Some(f) => drop(round.insert(name.clone(), f)),
                None => {
                    *failed += 1;
                    say(&format!("xtask: failed: {}", words.join(" ")));
                }
            }
            seen.push(line::state());
        }
        let alike = seen.iter().all(|s| *s == seen[0]);
        rounds.push(Round { state: if alike { seen[0] } else { "mixed" }.into(), figures: round });
    }
    Measured { name: suite.name(), mode: suite.mode.into(), np: suite.np, rounds }
}

/// The processor's name and how many of them, from the kernel.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim()));
    let model = field("model name").or_else(|| field("CPU part")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// All suites of the plan.
pub(super) fn all(plan: &Plan, bin: &Path) -> Results {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let suites = plan.suites.iter().map(|suite| {
        let start = Instant::now();
        let measured = one(plan, bin, suite);
        say(&format!("xtask: {}: {:.1} s", suite.name(), start.elapsed().as_secs_f64()));
        measured
    });
    Results { at, machine: machine(), suites: suites.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_benchmarks_are_read() {
        assert_eq!(line_of("latency np=2 bytes=64 us=1.50000 gbs=0.1"), Some((64, 1.5)));
        assert_eq!(line_of("overlap np=2 bytes=4 us=2.5 gbs=1 alone=2.0 hidden=0.5"), Some((4, 2.5)));
        for bad in ["", "bytes=4", "bytes=x us=1", "us=1"] {
            assert_eq!(line_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn commands_that_fail_give_nothing() {
        let words = |s: &str| ["sh".to_owned(), "-c".to_owned(), s.to_owned()];
        assert_eq!(figures(&words("echo 'x np=1 bytes=8 us=2'")), Some(Figures::from([(8, 2.0)])));
        assert_eq!(figures(&words("echo 'x np=1 bytes=8 us=2'; exit 1")), None);
        assert_eq!(figures(&words("echo hello")), None);
        assert_eq!(figures(&["/nonexistent".to_owned()]), None);
    }
}
