//! Every target over its committed seeds, then over mutations of them from a fixed seed for
//! `RMPI_FUZZ_SECONDS` (1) seconds each: what can be had without the coverage-guided runner. A failing input
//! is written to `found/`.

use rmpi_fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest mutated input in bytes.
const LONGEST: usize = 4096;
/// A single input that takes longer is a finding.
const SLOW: Duration = Duration::from_secs(60);

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn names(dir: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(here().join(dir)).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter_map(|n| n.strip_suffix(suffix).map(str::to_owned)).collect()
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = here().join("corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no seeds");
    paths.iter().map(|p| fs::read(p).unwrap()).collect()
}

/// xorshift64*: enough for mutations, the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
}

/// A few changes of the kinds that find most: bits, bytes, numbers at their limits, pieces cut out, repeated,
/// or taken from another seed.
fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(data.len() + 1);
        match rng.below(7) {
            0 => data.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (rng.next() >> 61)),
            1 => data.insert(at, (rng.next() >> 56) as u8),
            2 => data.truncate(at),
            3 => {
                let end = (at + rng.below(16)).min(data.len());
                data.drain(at..end);
            }
            4 => {
                let end = (at + rng.below(64)).min(data.len());
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            5 => {
                let number =
                    [0u64, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, u64::from(u32::MAX), u64::MAX];
                let bytes = number[rng.below(number.len())].to_le_bytes();
                let n = [1, 2, 4, 8][rng.below(4)];
                data.iter_mut().skip(at).zip(&bytes[..n]).for_each(|(b, new)| *b = *new);
            }
            _ => {
                let other = &seeds[rng.below(seeds.len())];
                let from = rng.below(other.len() + 1);
                let to = (from + rng.below(128)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    data.truncate(LONGEST);
    data
}

/// What is wrong with one input, if anything.
fn try_one(name: &str, target: Target, data: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| target(data)));
    let took = start.elapsed();
    if result.is_ok() && took <= SLOW {
        return Ok(());
    }
    let dir = here().join("found");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, data).unwrap();
    let what = if result.is_err() { "panic" } else { "slow" };
    Err(format!("{name}: {what} after {took:?}; the input is in {}", path.display()))
}

/// Seeds, then mutations for so many seconds; how many runs.
fn fuzz(name: &str, target: Target, seconds: u64) -> Result<usize, String> {
    let seeds = seeds(name);
    seeds.iter().try_for_each(|seed| try_one(name, target, seed))?;
    let (mut rng, mut runs) = (Rng(0x726d_7069), seeds.len());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        try_one(name, target, &mutate(&mut rng, &seeds))?;
        runs += 1;
    }
    Ok(runs)
}

#[test]
fn every_target_is_everywhere() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets", ".rs"), listed);
    assert_eq!(names("corpus", ""), listed);
}

#[test]
fn seeds_are_few_and_small() {
    for (name, _) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() <= 20 && seeds.iter().all(|s| s.len() <= 2048), "{name}");
    }
}

#[test]
fn seeds_and_mutations_of_them_break_no_promise() {
    let seconds = std::env::var("RMPI_FUZZ_SECONDS").map_or(1, |s| s.parse().expect("RMPI_FUZZ_SECONDS"));
    let mut found = Vec::new();
    for (name, target) in TARGETS {
        match fuzz(name, target, seconds) {
            Ok(runs) => println!("{name}: {runs} runs"),
            Err(what) => found.push(what),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// One input given by hand: `RMPI_FUZZ_INPUT=target:FILE`.
#[test]
fn one_given_input() {
    let Ok(given) = std::env::var("RMPI_FUZZ_INPUT") else { return };
    let (name, file) = given.split_once(':').expect("RMPI_FUZZ_INPUT=target:FILE");
    let (_, target) = TARGETS.iter().find(|(n, _)| *n == name).expect("a target");
    target(&fs::read(Path::new(file)).unwrap());
}
