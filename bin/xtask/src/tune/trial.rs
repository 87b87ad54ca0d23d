//! The thresholds of a tuning table: a few values of each, tried in turn on work that they decide about.

use super::figures::{Place, Ranks};
use crate::stage::say;
use rmpi_types::{Threshold, Thresholds, Tuning};
use std::collections::BTreeMap;

/// Turns of all values, so that a slow minute of the machine hits all of them.
const ROUNDS: usize = 5;
/// A value must take this part of the built-in one's time to be taken instead.
const CLEARLY: f64 = 0.95;

/// Work that a threshold decides about: a mode of `rmpi-bench`, the sizes that count, smallest and largest.
struct Work {
    mode: &'static str,
    sizes: (u64, u64),
}

/// How one threshold is tried.
pub(super) struct Trial {
    name: &'static str,
    place: Place,
    work: &'static [Work],
    /// Beside the built-in value.
    values: &'static [usize],
}

const fn work(mode: &'static str, from: u64, to: u64) -> Work {
    Work { mode, sizes: (from, to) }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All that are measured.
pub(super) const ALL: [Trial; 9] = [
    Trial {
        name: "eager",
        place: Place::Between,
        work: &[work("latency", 16 * KIB, 256 * KIB), work("bw", 16 * KIB, 256 * KIB)],
        values: &[8 << 10, 32 << 10, 256 << 10],
    },
    Trial {
        name: "piece",
        place: Place::Between,
        work: &[work("latency", MIB, 4 * MIB), work("bw", MIB, 4 * MIB)],
        values: &[252 << 10, 508 << 10, 2_044 << 10, 8 << 20],
    },
    Trial {
        name: "direct-from",
        place: Place::Between,
        work: &[work("bw", 4 * KIB, 256 * KIB)],
        values: &[4 << 10, 64 << 10, Threshold::NEVER],
    },
    Trial {
        name: "quic-piece",
        place: Place::Quic,
        work: &[work("bw", MIB, 4 * MIB), work("latency", MIB, 4 * MIB)],
        values: &[64 << 10, 128 << 10, 512 << 10, 1 << 20],
    },
    Trial {
        name: "local-eager",
        place: Place::Inside,
        work: &[work("latency", 4 * KIB, 16 * KIB), work("bw", 4 * KIB, 16 * KIB)],
        values: &[2 << 10, 8 << 10],
    },
    Trial {
        name: "node-piece",
        place: Place::Inside,
        work: &[work("allreduce", 64 * KIB, 4 * MIB)],
        values: &[8 << 10, 32 << 10, 64 << 10],
    },
    Trial {
        name: "node-turn",
        place: Place::Crowded,
        work: &[work("bcast", 256 * KIB, 4 * MIB), work("allgather", 256 * KIB, MIB)],
        values: &[128 << 10, 256 << 10, 1 << 20],
    },
    Trial {
        name: "stream",
        place: Place::Inside,
        work: &[work("allreduce", MIB, 64 * MIB)],
        values: &[1 << 20, 4 << 20, Threshold::NEVER],
    },
    Trial {
        name: "single-copy",
        place: Place::Inside,
        work: &[work("bcast", 16 * KIB, 4 * MIB), work("allgather", 16 * KIB, MIB)],
        values: &[16 << 10, 64 << 10, 256 << 10],
    },
];

/// Nanoseconds of each kind of work and size, a round each.
type Times = BTreeMap<(&'static str, u64), Vec<f64>>;

impl Trial {
    /// Tries the values in turn, says how they did, and takes the best where it is clearly better.
    ///
    /// # Errors
    /// A run that fails.
    pub(super) fn run(&self, ranks: &Ranks, thresholds: &mut Thresholds) -> Result<(), String> {
        let threshold = Threshold::named(self.name).ok_or_else(|| format!("no threshold {}", self.name))?;
        let built_in = threshold.of(Thresholds::default());
        let values: Vec<usize> = [built_in].iter().chain(self.values).copied().collect();
        let mut times = vec![Times::new(); values.len()];
        let set = |value: &usize, thresholds: &mut Thresholds| {
            threshold
                .set(thresholds, &value.to_string())
                .ok_or_else(|| format!("{} cannot be {value}", self.name))
        };
        for _ in 0..ROUNDS {
            for (value, times) in values.iter().zip(&mut times) {
                let mut tried = Tuning::default();
                set(value, &mut tried.thresholds)?;
                let table = tried.to_string();
                for work in self.work {
                    let most = work.sizes.1.to_string();
                    let points = ranks.run(self.place, &table, &[work.mode, &most])?;
                    for p in points.iter().filter(|p| p.bytes >= work.sizes.0) {
                        times.entry((work.mode, p.bytes)).or_default().push(p.ns);
                    }
                }
            }
        }
        let scores: Vec<f64> = times.iter().map(|t| ratio(t, &times[0])).collect();
        let taken = best(&scores);
        set(&values[taken], thresholds)?;
        let told: Vec<_> = values.iter().zip(&scores).map(|(v, s)| format!("{v} {s:.2}")).collect();
        let kept = if taken == 0 { "kept" } else { "taken" };
        say(&format!("{}: {}: {} {kept}", self.name, told.join(", "), threshold.written(*thresholds)));
        Ok(())
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The geometric mean of what each work took, by medians, against what it took there.
#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn ratio(times: &Times, there: &Times) -> f64 {
    let logs: Vec<f64> =
        times.iter().filter_map(|(k, t)| Some((median(t) / median(there.get(k)?)).ln())).collect();
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}

/// The value to take: the best one if it is clearly better than the first, which is built in.
fn best(scores: &[f64]) -> usize {
    let least = (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
    if scores.get(least).is_some_and(|s| *s <= CLEARLY) { least } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_better_is_taken() {
        assert_eq!(best(&[1.0, 0.96, 1.2]), 0);
        assert_eq!(best(&[1.0, 0.94, 0.9, 1.2]), 2);
        assert_eq!(best(&[1.0, f64::NAN]), 0, "no figures are no reason");
    }

    #[test]
    fn values_are_compared_by_medians_size_by_size() {
        let times = |a: &[f64], b: &[f64]| Times::from([(("bw", 1), a.to_vec()), (("bw", 2), b.to_vec())]);
        let there = times(&[10.0, 10.0, 500.0], &[100.0, 90.0, 110.0]);
        let here = times(&[5.0, 1.0, 5.0], &[200.0, 200.0, 200.0]);
        assert!((ratio(&here, &there) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_trial_is_of_a_threshold_and_tries_what_it_can_be() {
        for trial in &ALL {
            let threshold = Threshold::named(trial.name).unwrap();
            let built_in = threshold.of(Thresholds::default());
            for value in trial.values {
                assert!(threshold.range.contains(value) && *value != built_in, "{}={value}", trial.name);
            }
        }
        let tried: Vec<_> = ALL.iter().map(|t| t.name).collect();
        assert_eq!(tried, Threshold::ALL.map(|t| t.name), "docs/tuning.md says that all are measured");
    }
}
