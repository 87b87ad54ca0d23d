//! The main job on four loopback hosts, and what a user sees when hosts or ranks fail there.

use rmpi_tests::bins;
use rmpi_tests::loopback::Loopback;
use rmpi_tests::procs::{self, run};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn eight_ranks_train_on_four_hosts_over_tcp() {
    let hosts = Loopback::up(4);
    let done =
        run(hosts.rmpirun().args(["-np", "8"]).arg(bins::path("train")).args(["--epochs", "4"]), LIMIT);
    let out = done.out();
    assert_eq!(done.code, 0, "{out}\n{}", done.stderr);
    // Four node ids, one machine: any use of shared memory between two of its hosts would name another rail.
    assert!(out.contains("nodes=4 rail=tcp local=shm "), "{out}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("train: done ranks=8 epochs=4 accuracy=0."), "{out}");
    assert_eq!(done.stderr, "", "nothing of ours is printed when all is well");
}

/// The same global batch gives the same losses, however many ranks share it.
#[test]
fn the_loss_curve_does_not_depend_on_the_number_of_ranks() {
    let hosts = Loopback::up(4);
    let curves: Vec<Vec<f64>> = [1, 2, 4, 8].iter().map(|ranks| loss_curve(&hosts, *ranks)).collect();
    for (curve, ranks) in curves.iter().zip([1, 2, 4, 8]) {
        assert_eq!(curve.len(), 3, "{ranks} ranks");
        for (loss, reference) in curve.iter().zip(&curves[0]) {
            assert!(
                (loss - reference).abs() <= 1e-3 * reference.abs(),
                "{ranks} ranks: {curve:?} not {:?}",
                curves[0]
            );
        }
    }
}

fn loss_curve(hosts: &Loopback, ranks: u32) -> Vec<f64> {
    let file = hosts.dir().join(format!("loss.{ranks}"));
    let np = ranks.to_string();
    let mut job = hosts.rmpirun();
    job.args(["-np", &np, "--map-by", "node"])
        .arg(bins::path("train"))
        .args(["--epochs", "3", "--log-loss"])
        .arg(&file);
    let done = run(&mut job, LIMIT);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let text = std::fs::read_to_string(&file).expect("train writes the curve");
    text.lines().filter_map(|l| l.split_whitespace().last()?.parse().ok()).collect()
}

#[test]
fn the_first_failing_rank_is_the_cause_and_nothing_survives() {
    let hosts = Loopback::up(4);
    let script = "test $RANK = 5 && { echo last words >&2; exit 7; }; sleep 100 & exec sleep 314159";
    let done = run(
        hosts.rmpirun().args(["-np", "8", "-x", "RMPI_TEST_MARK=first-failure", "sh", "-c", script]),
        LIMIT,
    );
    assert_eq!(done.code, 7, "{}", done.stderr);
    assert!(done.stderr.contains("rank 5 on 127.0.0.4"), "{}", done.stderr);
    assert!(done.stderr.contains("last words"), "{}", done.stderr);
    assert!(done.stderr.trim_end().ends_with("rmpirun: exit code 7"), "{}", done.stderr);
    assert_eq!(procs::with_env("RMPI_TEST_MARK", "first-failure"), Vec::<String>::new());
}

#[test]
fn a_program_missing_on_the_hosts_is_one_message() {
    let hosts = Loopback::up(4);
    let done = run(hosts.rmpirun().args(["-np", "8", "no-such-program"]), LIMIT);
    assert_eq!(done.code, 127, "{}", done.stderr);
    assert!(done.stderr.contains("no-such-program: not found in PATH"), "{}", done.stderr);
    assert!(done.stdout.is_empty());
    assert!(done.stderr.lines().count() <= 3, "{}", done.stderr);
}
