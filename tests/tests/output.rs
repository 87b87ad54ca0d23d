//! Every byte a rank writes arrives, in order, in whole lines, however slow the reader is.

use rmpi_tests::bins;
use rmpi_tests::procs::{ends_within, start};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RANKS: u64 = 8;
const LIMIT: Duration = Duration::from_secs(240);

/// Eight ranks write 100 MB; the reader sleeps first and then reads in small pieces.
#[test]
fn a_hundred_megabytes_through_a_slow_reader_are_byte_exact() {
    const LINES: u64 = 200_000;
    let script = format!(
        "awk -v r=$RANK 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"%d %d %s\\n\", r, i, \"{}\" }}'",
        "x".repeat(52)
    );
    let np = RANKS.to_string();
    let mut job = Command::new(bins::path("rmpirun"));
    job.args(["--oversubscribe", "-np", &np, "sh", "-c", &script]);
    job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut job = start(&mut job, LIMIT);
    let mut out = job.stdout.take().expect("stdout is piped");
    let start = Instant::now();
    let (mut total, mut rest, mut next) = (0u64, Vec::new(), BTreeMap::new());
    let mut piece = vec![0; 60_000];
    loop {
        // A slow reader is the point of this test: it makes every buffer between the rank and us fill up.
        if total < 5_000_000 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let n = out.read(&mut piece).expect("the pipe can be read");
        if n == 0 {
            break;
        }
        total += n as u64;
        assert!(start.elapsed() < LIMIT, "after {total} bytes");
        rest.extend_from_slice(&piece[..n]);
        let whole = rest.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        for line in rest[..whole].split_inclusive(|&b| b == b'\n') {
            check(line, &mut next);
        }
        rest.drain(..whole);
    }
    assert!(rest.is_empty(), "an unfinished line at the end");
    assert_eq!(job.wait().expect("the job ends").code(), Some(0));
    assert_eq!(next, (0..RANKS).map(|r| (r, LINES)).collect::<BTreeMap<_, _>>());
    println!("{total} bytes in {:.1} s", start.elapsed().as_secs_f64());
}

/// A line is `rank number filler`, and numbers of one rank come without a gap.
fn check(line: &[u8], next: &mut BTreeMap<u64, u64>) {
    let text = std::str::from_utf8(line).expect("ASCII");
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
    let (Some(rank), Some(i), 3) = (number(0), number(1), words.len()) else {
        panic!("a torn line: {text:?}")
    };
    assert_eq!(words[2].len(), 52, "a torn line: {text:?}");
    let expected = next.entry(rank).or_insert(0);
    assert_eq!(i, *expected, "rank {rank} lost or repeated a line");
    *expected += 1;
}

#[test]
fn a_reader_that_leaves_ends_the_job_quietly() {
    let mut job = Command::new(bins::path("rmpirun"));
    job.args(["-np", "2", "--oversubscribe", "yes"]);
    job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut job = start(&mut job, LIMIT);
    let mut first = [0; 100];
    job.stdout.take().expect("stdout is piped").read_exact(&mut first).expect("yes writes");
    assert!(ends_within(&mut job, LIMIT), "still there after its reader left");
    assert_eq!(job.wait().expect("the job ends").code(), Some(141));
    let mut text = String::new();
    job.stderr.take().expect("stderr is piped").read_to_string(&mut text).expect("text");
    assert_eq!(text, "");
}
