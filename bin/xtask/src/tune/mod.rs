//! `cargo xtask tune`: what messages and reductions cost on this machine, and between hosts where some are named, and
//! from which sizes on they are better done another way, as the line of a configuration file that rmpirun hands to all
//! ranks.

mod costs;
mod figures;
mod trial;

use crate::stage::say;
use figures::Ranks;
use rmpi_types::Tuning;
use std::path::PathBuf;

/// What `--help` says of the words.
pub(crate) const WORDS: &str = "\
cargo xtask tune [--write] [--costs-only] [OPTIONS]: measure what ranks choose algorithms and sizes by (docs/tuning.md);
the machine should have nothing else to do, for about ten minutes
  --write       put it into the configuration file ($XDG_CONFIG_HOME/rmpirun.conf), instead of only showing it
  --costs-only  leave the thresholds as they are built in
  OPTIONS       of rmpirun, for what is between nodes: --hostfile hosts; without any, between two ranks of this machine
                that talk over TCP
";

/// Measures; shows or writes.
///
/// # Errors
/// A build or run that fails, and lines that are not understood.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let own = words.iter().take_while(|w| matches!(**w, "--write" | "--costs-only")).count();
    let (own, options) = words.split_at(own);
    let ranks = Ranks::new(crate::build::release()?, options);
    let mut tuning = Tuning { costs: costs::measure(&ranks)?, ..Tuning::default() };
    say(&format!("costs: {}", tuning.costs));
    if !own.contains(&"--costs-only") {
        for trial in &trial::ALL {
            trial.run(&ranks, &mut tuning.thresholds)?;
        }
    }
    say(&format!("costs = {tuning}"));
    if own.contains(&"--write") {
        let file = config_file().ok_or("neither XDG_CONFIG_HOME nor HOME is set")?;
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let failed = |e| format!("{}: {e}", file.display());
        file.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        std::fs::write(&file, with_table(&old, &tuning.to_string())).map_err(failed)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(())
}

fn config_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("rmpirun.conf"))
}

/// A configuration with this table instead of the one it had.
fn with_table(old: &str, table: &str) -> String {
    let is_table = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == "costs");
    let others = old.lines().filter(|line| !is_table(line)).map(|line| format!("{line}\n"));
    others.chain([format!("costs = {table}\n")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_keeps_its_other_lines() {
        assert_eq!(with_table("", "x"), "costs = x\n");
        let old = "# mine\ncosts=inside=1,1\ntag-output = 1\n";
        assert_eq!(with_table(old, "x"), "# mine\ntag-output = 1\ncosts = x\n");
    }
}
