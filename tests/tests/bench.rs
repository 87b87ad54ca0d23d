//! `rmpi-bench` in jobs of two and three ranks: every mode runs, checks its data and prints its lines.

use rmpi_tests::bins;
use rmpi_tests::procs::{Finished, run};
use std::process::Command;
use std::time::Duration;

/// Longest run of one mode: on a machine that others keep busy each of its thousands of messages may take milliseconds.
const LIMIT: Duration = Duration::from_secs(600);

fn bench(np: &str, words: &[&str]) -> Finished {
    let mut command = Command::new(bins::path("rmpirun"));
    command.args(["--oversubscribe", "--timeout", "580", "-np", np]);
    run(command.arg(bins::path("rmpi-bench")).args(words), LIMIT)
}

/// `mode np=N bytes=B us=T gbs=G ...` with five decimals; the bytes.
fn line(mode: &str, np: &str, text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split(' ').collect();
    let value = |i: usize, name: &str| words.get(i)?.strip_prefix(name)?.strip_prefix('=');
    let decimals = |v: &str| v.split_once('.').is_some_and(|(_, d)| d.len() == 5);
    let good = words[0] == mode
        && value(1, "np")? == np
        && decimals(value(3, "us")?)
        && decimals(value(4, "gbs")?)
        && value(3, "us")?.parse::<f64>().is_ok_and(|t| t > 0.0);
    if good { value(2, "bytes")?.parse().ok() } else { None }
}

#[test]
fn every_mode_prints_its_lines() {
    let sizes: &[(&str, &[u64])] = &[
        ("latency", &[1, 8, 64, 512, 4096, 16_384, 65_536, 262_144]),
        ("bw", &[1024, 4096, 16_384, 65_536, 262_144]),
        ("rate", &[262_144]),
        ("allreduce", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("bcast", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("allgather", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("alltoall", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("overlap", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("sum", &[4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144]),
        ("barrier", &[0]),
        ("init", &[0]),
    ];
    for np in ["2", "3"] {
        for (mode, want) in sizes {
            let output = bench(np, &["--transport", "tcp", mode, "262144"]);
            let text = output.out();
            assert!(output.code == 0, "{mode}: {text}{}", output.stderr);
            let got: Vec<u64> = text.lines().map(|l| line(mode, np, l).unwrap_or(u64::MAX)).collect();
            assert_eq!(got, *want, "{mode} {np}: {text}");
        }
    }
    let output = bench("3", &["reduce_scatter", "50000"]);
    let text = output.out();
    let got: Vec<Option<u64>> = text.lines().map(|l| line("reduce_scatter", "3", l)).collect();
    assert_eq!(got, [12, 48, 192, 768, 3072, 12_288, 49_152].map(Some), "{text}");
}

#[test]
fn unusable_options_end_with_code_2() {
    for (np, words, want) in [
        ("1", "latency", "at least two ranks"),
        ("1", "speed", "unknown mode"),
        ("2", "bw x", "number of bytes"),
    ] {
        let output = bench(np, &words.split(' ').collect::<Vec<_>>());
        let text = &output.stderr;
        assert_eq!(output.code, 2, "{words}: {text}");
        assert!(text.contains(want), "{words}: {text}");
        assert!(output.stdout.is_empty());
    }
}
