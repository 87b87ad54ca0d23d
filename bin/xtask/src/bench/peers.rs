//! The file that names other implementations' command lines.

use super::suite::Suite;
use std::path::Path;

/// One command line of one implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    transport: String,
    words: Vec<String>,
}

impl Peer {
    /// Its words for a benchmark; `None` when it is not for that transport.
    pub(super) fn command(&self, suite: &Suite) -> Option<Vec<String>> {
        if self.transport != "any" && self.transport != suite.transport {
            return None;
        }
        let bytes = if suite.bytes == 0 { String::new() } else { suite.bytes.to_string() };
        let fill = |w: &String| {
            w.replace("{np}", &suite.np.to_string()).replace("{mode}", suite.mode).replace("{bytes}", &bytes)
        };
        Some(self.words.iter().map(fill).filter(|w| !w.is_empty()).collect())
    }
}

/// Reads `NAME TRANSPORT COMMAND...` lines; `#` begins a comment.
fn parse(text: &str) -> Result<Vec<Peer>, String> {
    let mut peers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        let Some(name) = words.next() else { continue };
        let transport = words.next().unwrap_or_default();
        if !["shm", "tcp", "any"].contains(&transport.as_str()) {
            return Err(format!("line {number}: {transport:?} is not shm, tcp or any"));
        }
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return Err(format!("line {number}: {name} has no command"));
        }
        peers.push(Peer { name, transport, words });
    }
    Ok(peers)
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Vec<Peer>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_filled_in() {
        let text =
            "# ours to beat\nompi tcp env A=1 mpirun -np {np} bench {mode} {bytes}\nmpich any m {mode}\n";
        let peers = parse(text).unwrap();
        let names: Vec<&str> = peers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["ompi", "mpich"]);
        let suite = |transport, bytes| Suite { mode: "bw", transport, np: 2, bytes };
        let words = peers[0].command(&suite("tcp", 0)).unwrap();
        assert_eq!(words.join(" "), "env A=1 mpirun -np 2 bench bw");
        assert_eq!(peers[0].command(&suite("shm", 0)), None);
        assert_eq!(peers[1].command(&suite("shm", 8)).unwrap(), ["m", "bw"]);
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, want) in
            [("\na ib x", "line 2: \"ib\""), ("a shm", "line 1: a has no command"), ("a", "line 1")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
