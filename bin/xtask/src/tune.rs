//! `cargo xtask tune`: what messages and reductions cost on this machine, and between hosts where some are named,
//! as the line of a configuration file that rmpirun hands to all ranks.

use crate::stage::say;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `--help` says of the words.
pub(crate) const WORDS: &str = "\
cargo xtask tune [--write] [OPTIONS]: measure the costs by which ranks choose algorithms of collectives
  --write   put them into the configuration file ($XDG_CONFIG_HOME/rmpirun.conf), instead of only showing them
  OPTIONS   of rmpirun, for the costs between nodes: --hostfile hosts; without any, between two ranks of this machine
            that talk over TCP
";

/// Large messages: what a byte costs is read off between these sizes.
const LARGE: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// Measures; shows or writes.
///
/// # Errors
/// A build or run that fails, and lines that are not understood.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let (write, options) = match words {
        ["--write", options @ ..] => (true, options),
        options => (false, options),
    };
    let bin = crate::build::release()?;
    let measure = |options: &[&str], mode: &str| measure(&bin, options, mode);
    let inside = ["--oversubscribe", "--transport", "shm"];
    let between =
        if options.is_empty() { vec!["--oversubscribe", "--transport", "tcp"] } else { spread(options) };
    let costs = Costs {
        inside: link(&measure(&inside, "latency")?)?,
        between: link(&measure(&between, "latency")?)?,
        reduce: slope(&measure(&inside, "sum")?)?,
    };
    say(&format!("costs = {}", costs.line()));
    if write {
        let file = config_file().ok_or("neither XDG_CONFIG_HOME nor HOME is set")?;
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let failed = |e| format!("{}: {e}", file.display());
        file.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        std::fs::write(&file, with_costs(&old, &costs.line())).map_err(failed)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(())
}

/// One rank a node.
fn spread<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [options, &["--map-by", "node"]].concat()
}

fn config_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("rmpirun.conf"))
}

/// A configuration with this table of costs instead of the one it had.
fn with_costs(old: &str, table: &str) -> String {
    let is_costs = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == "costs");
    let others = old.lines().filter(|line| !is_costs(line)).map(|line| format!("{line}\n"));
    others.chain([format!("costs = {table}\n")]).collect()
}

/// A latency in ns, and ns a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Link(f64, f64);

struct Costs {
    inside: Link,
    between: Link,
    reduce: f64,
}

impl Costs {
    /// As `rmpirun --costs` reads it.
    fn line(&self) -> String {
        let link = |Link(alpha, beta): Link| format!("{alpha:.0},{beta:.4}");
        format!("inside={} between={} reduce={:.4}", link(self.inside), link(self.between), self.reduce)
    }
}

/// Two ranks of `rmpi-bench`: bytes and nanoseconds of each size.
fn measure(bin: &Path, options: &[&str], mode: &str) -> Result<Vec<(f64, f64)>, String> {
    let mut command = Command::new(bin.join("rmpirun"));
    command.args(options).args(["-np", "2"]).arg(bin.join("rmpi-bench")).arg(mode);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let points: Vec<_> = text.lines().filter_map(point).collect();
    if points.is_empty() { Err(format!("{command:?} printed no figures")) } else { Ok(points) }
}

/// `latency np=2 bytes=8 us=0.28000 gbs=0.02857`
#[expect(clippy::cast_precision_loss, reason = "sizes of messages")]
fn point(line: &str) -> Option<(f64, f64)> {
    let field = |name: &str| line.split_whitespace().find_map(|w| w.strip_prefix(name));
    let bytes: u64 = field("bytes=")?.parse().ok()?;
    let us: f64 = field("us=")?.parse().ok()?;
    Some((bytes as f64, us * 1e3))
}

/// The smallest message's time, and what a byte adds among large ones.
fn link(points: &[(f64, f64)]) -> Result<Link, String> {
    let smallest = points.iter().min_by(|a, b| a.0.total_cmp(&b.0)).ok_or("no figures")?;
    Ok(Link(smallest.1, slope(points)?))
}

/// Nanoseconds a byte from the smallest to the largest of the large sizes.
#[expect(clippy::cast_precision_loss, reason = "sizes of messages")]
fn slope(points: &[(f64, f64)]) -> Result<f64, String> {
    let (from, to) = (*LARGE.start() as f64, *LARGE.end() as f64);
    let mut large: Vec<_> = points.iter().filter(|p| p.0 >= from && p.0 <= to).collect();
    large.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(first), Some(last)) = (large.first(), large.last()) else {
        return Err("no large messages".into());
    };
    let ns = (last.1 - first.1) / (last.0 - first.0);
    if ns > 0.0 { Ok(ns) } else { Err("larger messages took no longer: is the machine busy?".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_off_the_lines_of_the_benchmark() {
        let text = "latency np=2 bytes=1 us=0.25000 gbs=0\nlatency np=2 bytes=65536 us=10.00000 gbs=0\n\
                    latency np=2 bytes=4194304 us=422.88640 gbs=0\nother";
        let points: Vec<_> = text.lines().filter_map(point).collect();
        assert_eq!(points.len(), 3);
        let costs = Costs { inside: link(&points).unwrap(), between: Link(9000.0, 0.5), reduce: 0.05 };
        assert_eq!(costs.line(), "inside=250,0.1000 between=9000,0.5000 reduce=0.0500");
        assert!(link(&points[..1]).is_err());
    }

    #[test]
    fn a_configuration_keeps_its_other_lines() {
        assert_eq!(with_costs("", "x"), "costs = x\n");
        let old = "# mine\ncosts=inside=1,1\ntag-output = 1\n";
        assert_eq!(with_costs(old, "x"), "# mine\ntag-output = 1\ncosts = x\n");
    }
}
