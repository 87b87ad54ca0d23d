//! Output byte for byte whatever the reader does, and input to the rank that gets it.

mod common;

use common::{DEADLINE, feed, finish, ranks, rmpirun, run, wait};
use std::collections::HashMap;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn every_rank_s_lines_arrive_whole_and_in_order() {
    let run = run(&mut ranks(4, "seq -f \"$RANK %g\" 20000"));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert_numbered(&run.text(), 4, 20_000);
}

fn assert_numbered(text: &str, ranks: u32, lines: u32) {
    let mut next: HashMap<u32, u32> = HashMap::new();
    for line in text.lines() {
        let (rank, number) = line.split_once(' ').expect("two words");
        let (rank, number): (u32, u32) = (rank.parse().expect("a rank"), number.parse().expect("a number"));
        let expected = next.entry(rank).or_insert(1);
        assert_eq!(number, *expected, "rank {rank}");
        *expected += 1;
    }
    for rank in 0..ranks {
        assert_eq!(next.get(&rank), Some(&(lines + 1)), "rank {rank}");
    }
}

/// 100 MB: 8 ranks, 12.5 MB each, read by someone who first does not read at all, then slowly.
#[test]
fn a_hundred_megabytes_through_a_slow_reader() {
    let script = "yes \"rank $RANK says the same thing for ever and ever....\" | head -n 250000";
    let mut child = ranks(8, script).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut counts = HashMap::<Vec<u8>, u64>::new();
        let mut rest = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        let mut naps = 0;
        loop {
            // The slowness under test, not a wait for anything.
            if naps < 40 {
                std::thread::sleep(Duration::from_millis(25));
                naps += 1;
            }
            let n = stdout.read(&mut buffer).unwrap();
            if n == 0 {
                return (counts, rest);
            }
            rest.extend_from_slice(&buffer[..n]);
            let end = rest.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
            for line in rest[..end].split_inclusive(|&b| b == b'\n') {
                *counts.entry(line.to_vec()).or_default() += 1;
            }
            rest.drain(..end);
        }
    });
    let run = finish(child);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let (counts, rest) = reader.join().unwrap();
    assert!(rest.is_empty());
    let expected: HashMap<Vec<u8>, u64> = (0..8)
        .map(|r| (format!("rank {r} says the same thing for ever and ever....\n").into_bytes(), 250_000))
        .collect();
    assert_eq!(counts, expected);
}

#[test]
fn binary_output_without_newlines_arrives_unchanged() {
    let run = run(&mut rmpirun(["-np", "1", "sh", "-c", "head -c 300000 /dev/zero; printf 'end'"]));
    assert_eq!(run.stdout.len(), 300_003);
    assert!(run.stdout[..300_000].iter().all(|&b| b == 0) && run.stdout.ends_with(b"end"));
}

#[test]
fn output_before_a_failure_is_delivered() {
    let script = "seq -f \"$RANK %g\" 20000; [ $RANK = 2 ] && exit 5; sleep 100";
    // Ranks 0 and 1 may be stopped before they have written; rank 2's lines must all be there.
    let run = run(&mut ranks(3, script));
    assert_eq!(run.code(), 5, "{}", run.stderr);
    let text = run.text();
    assert_eq!(text.lines().filter(|l| l.starts_with("2 ")).count(), 20_000);
}

/// Even `-q` does not hide that output is lost.
#[test]
fn output_that_cannot_be_written_is_told() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = run(rmpirun(["-q", "-np", "1", "sh", "-c", "echo x; sleep 100"]).stdout(full));
    assert_eq!(run.code(), 141, "{}", run.stderr);
    assert!(run.stderr.starts_with("rmpirun: output cannot be written: "), "{}", run.stderr);
    assert!(run.stderr.ends_with("rmpirun: exit code 141\n"), "{}", run.stderr);
}

#[test]
fn a_reader_that_leaves_ends_the_job_quietly() {
    let mut child = ranks(2, "yes").spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 4];
    stdout.read_exact(&mut start).unwrap();
    drop(stdout);
    let began = Instant::now();
    let run = finish(child);
    assert_eq!((run.code(), run.stderr.as_str()), (141, ""));
    assert!(began.elapsed() < DEADLINE / 2);
}

#[test]
fn streams_stay_apart_and_tags_are_exact() {
    let script = "echo out; echo err >&2";
    let run_plain = run(&mut ranks(1, script));
    assert_eq!((run_plain.text().as_str(), run_plain.stderr.as_str()), ("out\n", "err\n"));
    let tagged = |option: &[&str]| {
        let run = run(&mut rmpirun([&["-np", "1"], option, &["sh", "-c", script]].concat()));
        (run.text(), run.stderr)
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(tagged(&["--tag-output"]), pair("[1,0]<stdout>:out\n", "[1,0]<stderr>:err\n"));
    assert_eq!(tagged(&["--output", "tag"]), pair("[1,0]<stdout>: out\n", "[1,0]<stderr>: err\n"));
    assert_eq!(tagged(&["-l"]), pair("[0] out\n", "[0] err\n"));
}

/// Writes of a rank end inside lines, frames have a limit: neither may show.
#[test]
fn a_line_has_one_tag_however_its_bytes_travelled() {
    let run = run(&mut rmpirun(["-np", "1", "--tag-output", "seq", "400000"]));
    assert_eq!(run.code(), 0, "{}", run.stderr);
    let text = run.text();
    let mut lines = 0;
    for (line, number) in text.lines().zip(1..) {
        assert_eq!(line.strip_prefix("[1,0]<stdout>:"), Some(format!("{number}").as_str()));
        lines = number;
    }
    assert_eq!(lines, 400_000);
}

#[test]
fn output_files_have_open_mpi_s_layout() {
    let dir = std::env::temp_dir().join(format!("rmpirun-files-{}", std::process::id()));
    let name = format!("{}:nocopy", dir.display());
    let args =
        ["-np", "2", "--oversubscribe", "--output-filename", &name, "sh", "-c", "echo $RANK; echo e >&2"];
    let run = run(&mut rmpirun(args));
    assert_eq!((run.code(), run.text().as_str(), run.stderr.as_str()), (0, "", ""));
    for rank in 0..2 {
        let read =
            |stream: &str| std::fs::read_to_string(dir.join(format!("1/rank.{rank}/{stream}"))).unwrap();
        assert_eq!((read("stdout"), read("stderr")), (format!("{rank}\n"), "e\n".to_owned()));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn rank_0_reads_all_of_our_input_and_the_others_none() {
    let input: Vec<u8> = (0..3_000_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let script = "if [ $RANK = 0 ]; then cat; else cat | wc -c >&2; fi";
    let mut command = ranks(2, script);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, input.clone());
    let run = finish(child);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert_eq!(run.stderr.trim(), "0");
    assert!(run.stdout == input, "{} bytes of {}", run.stdout.len(), input.len());
}

/// `while read h; do rmpirun ...; done < list` must not lose lines, not even those that came as far as the
/// rank's pipe (`read -t 0` says when, and reads nothing).
#[test]
fn input_no_rank_reads_is_left_for_the_next_command() {
    let path = std::env::temp_dir().join(format!("rmpirun-stdin-{}", std::process::id()));
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let script = format!(
        "while read h; do '{}' -np 1 bash -c 'until read -t 0; do :; done; echo '\"$h\"; done < '{}'",
        env!("CARGO_BIN_EXE_rmpirun"),
        path.display()
    );
    let mut shell = std::process::Command::new("sh");
    let child = shell.args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(finish(child).text(), "one\ntwo\n");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_closed_stdin_does_no_harm() {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("'{}' -np 1 echo x <&-", env!("CARGO_BIN_EXE_rmpirun"))]);
    let status = wait(shell.stdout(Stdio::null()).spawn().unwrap());
    assert!(status.success());
}
