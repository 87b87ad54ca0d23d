//! What was measured, as values and as JSON.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Microseconds by message size.
pub(super) type Figures = BTreeMap<u64, f64>;

/// One interleaved round: which state the machine was in, and everybody's figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Round {
    pub(super) state: String,
    pub(super) figures: BTreeMap<String, Figures>,
}

/// All rounds of one benchmark.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) np: usize,
    pub(super) rounds: Vec<Round>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Results {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) machine: String,
    pub(super) suites: Vec<Measured>,
}

/// The name of our own column.
pub(super) const OURS: &str = "rmpirun";

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { None } else { Some(f64::midpoint(values[(n - 1) / 2], values[n / 2])) }
}

impl Measured {
    /// The state with the most rounds, `near` where equal; `mixed` when no round was all in one.
    pub(super) fn state(&self) -> &'static str {
        let count = |s: &str| self.rounds.iter().filter(|r| r.state == s).count();
        match (count("near"), count("far")) {
            (0, 0) => "mixed",
            (near, far) if near >= far => "near",
            _ => "far",
        }
    }

    /// Rounds of that state.
    fn good(&self) -> impl Iterator<Item = &Round> {
        let state = self.state();
        self.rounds.iter().filter(move |r| r.state == state)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.good().count()
    }

    /// Names of the columns, ours first.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.good().flat_map(|r| r.figures.keys().cloned()).collect();
        names.sort_by_key(|n| (n != OURS, n.clone()));
        names.dedup();
        names
    }

    /// Sizes of the rows.
    pub(super) fn sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> =
            self.good().flat_map(|r| r.figures.values().flat_map(|f| f.keys().copied())).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The median of a column at a size.
    pub(super) fn median(&self, name: &str, size: u64) -> Option<f64> {
        median(self.good().filter_map(|r| r.figures.get(name)?.get(&size).copied()).collect())
    }

    /// The median over rounds of ours divided by the best other of the same round.
    pub(super) fn ratio(&self, size: u64) -> Option<f64> {
        let one = |r: &Round| {
            let ours = r.figures.get(OURS)?.get(&size)?;
            let others = r.figures.iter().filter(|(n, _)| *n != OURS);
            let best = others.filter_map(|(_, f)| f.get(&size).copied()).min_by(f64::total_cmp)?;
            Some(ours / best)
        };
        median(self.good().filter_map(one).collect())
    }
}

/// Writes the file.
pub(super) fn save(results: &Results, path: &Path) -> Result<(), String> {
    let suites = results.suites.iter().map(|m| {
        let rounds: Vec<Value> = m
            .rounds
            .iter()
            .map(|r| {
                let figures: BTreeMap<&str, BTreeMap<String, f64>> = r
                    .figures
                    .iter()
                    .map(|(n, f)| (n.as_str(), f.iter().map(|(s, us)| (s.to_string(), *us)).collect()))
                    .collect();
                json!({"state": r.state, "microseconds": figures})
            })
            .collect();
        json!({"name": m.name, "mode": m.mode, "np": m.np, "rounds": rounds})
    });
    let suites: Vec<Value> = suites.collect();
    let all = json!({"at": results.at, "machine": results.machine, "suites": suites});
    let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())?;
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Reads the file.
pub(super) fn load(path: &Path) -> Result<Results, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let all: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&all).ok_or_else(|| format!("{}: not the results of cargo xtask bench", path.display()))
}

fn parse(all: &Value) -> Option<Results> {
    let text = |v: &Value| Some(v.as_str()?.to_owned());
    let figures = |f: &Value| -> Option<Figures> {
        f.as_object()?.iter().map(|(s, us)| Some((s.parse().ok()?, us.as_f64()?))).collect()
    };
    let round = |r: &Value| {
        let columns = r["microseconds"].as_object()?;
        let figures: Option<_> = columns.iter().map(|(n, f)| Some((n.clone(), figures(f)?))).collect();
        Some(Round { state: text(&r["state"])?, figures: figures? })
    };
    let suite = |m: &Value| {
        let rounds: Option<_> = m["rounds"].as_array()?.iter().map(round).collect();
        let np = usize::try_from(m["np"].as_u64()?).ok()?;
        Some(Measured { name: text(&m["name"])?, mode: text(&m["mode"])?, np, rounds: rounds? })
    };
    let suites: Option<_> = all["suites"].as_array()?.iter().map(suite).collect();
    Some(Results { at: all["at"].as_u64()?, machine: text(&all["machine"])?, suites: suites? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(state: &str, ours: f64, other: f64) -> Round {
        let figures = [(OURS, ours), ("a", other), ("b", 9.0)];
        let figures = figures.map(|(n, us)| (n.to_owned(), Figures::from([(8, us)])));
        Round { state: state.into(), figures: figures.into() }
    }

    fn measured() -> Measured {
        let rounds = vec![
            round("near", 1.0, 2.0),
            round("far", 5.0, 6.0),
            round("near", 3.0, 4.0),
            round("near", 1.0, 4.0),
        ];
        Measured { name: "latency-shm".into(), mode: "latency".into(), np: 2, rounds }
    }

    #[test]
    fn ratios_are_of_one_round_and_one_state() {
        let m = measured();
        assert_eq!(
            (m.state(), m.count(), m.names(), m.sizes()),
            ("near", 3, vec![OURS.into(), "a".into(), "b".into()], vec![8])
        );
        assert_eq!((m.median(OURS, 8), m.ratio(8), m.median("c", 8)), (Some(1.0), Some(0.5), None));
    }

    #[test]
    fn results_are_read_back() {
        let results = Results { at: 7, machine: "two cores".into(), suites: vec![measured()] };
        let dir = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        save(&results, &dir).unwrap();
        assert_eq!(load(&dir), Ok(results));
        std::fs::write(&dir, "{}").unwrap();
        assert!(load(&dir).unwrap_err().contains("not the results"));
        std::fs::remove_file(&dir).unwrap();
    }
}
