//! Ranks of `rmpi-bench`, placed where something is to be measured, and the figures they print.

use std::path::PathBuf;
use std::process::Command;

/// Which ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Two of this machine, in its memory.
    Inside,
    /// As many as two for each core of this machine, in its memory.
    Crowded,
    /// Two of two nodes, over TCP.
    Between,
    /// The same over QUIC.
    Quic,
}

/// Bytes of a message and nanoseconds it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) bytes: u64,
    pub(super) ns: f64,
}

/// How ranks are started.
pub(super) struct Ranks {
    programs: PathBuf,
    /// Options for ranks between nodes.
    between: Vec<String>,
    crowd: usize,
}

impl Ranks {
    /// With the programs of this folder, and these options of rmpirun between nodes.
    pub(super) fn new(programs: PathBuf, options: &[&str]) -> Self {
        // Without hosts both are on this machine; with them there is one a node.
        let here = ["--oversubscribe"].as_slice();
        let between =
            if options.is_empty() { here.to_vec() } else { [options, &["--map-by", "node"]].concat() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { programs, between: between.into_iter().map(str::to_owned).collect(), crowd: 2 * cores }
    }

    /// What `rmpi-bench` prints with these words, one size a line, where ranks were given this table.
    ///
    /// # Errors
    /// When it fails or prints no figures.
    pub(super) fn run(&self, place: Place, table: &str, words: &[&str]) -> Result<Vec<Point>, String> {
        let mut command = Command::new(self.programs.join("rmpirun"));
        // The table that is being made, not the one that was made before.
        command.args(["--costs", table]);
        let crowd = self.crowd.to_string();
        match place {
            Place::Inside => command.args(["--oversubscribe", "--transport", "shm", "-np", "2"]),
            Place::Crowded => command.args(["--oversubscribe", "--transport", "shm", "-np", &crowd]),
            Place::Between => command.args(&self.between).args(["--transport", "tcp", "-np", "2"]),
            Place::Quic => command.args(&self.between).args(["--transport", "quic", "-np", "2"]),
        };
        command.arg(self.programs.join("rmpi-bench")).args(words);
        let output = command.stderr(std::process::Stdio::inherit()).output();
        let output = output.map_err(|e| format!("{command:?}: {e}"))?;
        if !output.status.success() {
            return Err(format!("{command:?}: {}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let points: Vec<_> = text.lines().filter_map(point).collect();
        if points.is_empty() { Err(format!("{command:?} printed no figures")) } else { Ok(points) }
    }
}

/// `latency np=2 bytes=8 us=0.28000 gbs=0.02857`
fn point(line: &str) -> Option<Point> {
    let field = |name: &str| line.split_whitespace().find_map(|w| w.strip_prefix(name));
    let us: f64 = field("us=")?.parse().ok()?;
    Some(Point { bytes: field("bytes=")?.parse().ok()?, ns: us * 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_off_the_lines_of_the_benchmark() {
        let text = "latency np=2 bytes=1 us=0.25000 gbs=0\nother\nlatency np=2 bytes=65536 us=10.00000 gbs=0";
        let points: Vec<_> = text.lines().filter_map(point).collect();
        assert_eq!(points, [Point { bytes: 1, ns: 250.0 }, Point { bytes: 65_536, ns: 10_000.0 }]);
    }
}
