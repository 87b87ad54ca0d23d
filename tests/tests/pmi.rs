//! Ranks that do not keep to the protocols of process management, against real daemons: who is no client of the job is
//! turned away, a rank that talks nonsense or dies is the job's failure like any other, and one that never comes to a
//! fence is named when the job's time is over.

use rmpi_tests::bins;
use rmpi_tests::procs::{self, Finished};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(150);

/// Runs three of our clients.
fn clients(protocol: &str, mode: &str, options: &[&str]) -> Finished {
    let client = env!("CARGO_BIN_EXE_pmi_client");
    let mut rmpirun = Command::new(bins::path("rmpirun"));
    rmpirun.args(["--oversubscribe", "-np", "3"]).args(options);
    match protocol {
        "pmix" => rmpirun.args([client, protocol, mode]),
        // Its socket as standard input and output: a shell can hand it over.
        _ => rmpirun.args(["bash", "-c", "exec \"$0\" pmi \"$1\" <&$PMI_FD >&$PMI_FD", client, mode]),
    };
    procs::run(&mut rmpirun, LIMIT)
}

#[test]
fn who_is_no_pmix_client_of_the_job_is_turned_away() {
    let done = clients("pmix", "strangers", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_pmix_client_that_talks_nonsense_loses_that_stream_only() {
    let done = clients("pmix", "nonsense", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn two_streams_may_be_one_rank() {
    let done = clients("pmix", "twice", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_rank_that_dies_ends_the_fence_that_others_wait_in() {
    for protocol in ["pmix", "pmi"] {
        let done = clients(protocol, "dies", &[]);
        assert_eq!(done.code, 134, "{protocol}: {}", done.stderr);
        assert!(done.stderr.contains("rank 1 on "), "{protocol}: {}", done.stderr);
    }
}

#[test]
fn a_rank_that_never_comes_to_a_fence_is_named_when_the_time_is_over() {
    for protocol in ["pmix", "pmi"] {
        let done = clients(protocol, "absent", &["--timeout", "2"]);
        assert_eq!(done.code, 110, "{protocol}: {}", done.stderr);
        let named = "rank 2 did not come to the fence that ranks 0-1 waited in";
        assert!(done.stderr.contains(named), "{protocol}: {}", done.stderr);
    }
}

#[test]
fn a_pmi_client_that_talks_nonsense_is_the_jobs_failure() {
    let done = clients("pmi", "binary", &[]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("rank 1 on "), "{}", done.stderr);
    for mode in ["garbage", "others"] {
        let done = clients("pmi", mode, &[]);
        assert_eq!(done.code, 0, "a refusal is an answer: {mode}: {}", done.stderr);
    }
}

#[test]
fn a_pmi_client_can_read_the_nodes_topology() {
    let done = clients("pmi", "topology", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_message_that_never_ends_is_a_rank_that_does_not_come() {
    let done = clients("pmi", "half", &["--timeout", "2"]);
    assert_eq!(done.code, 110, "{}", done.stderr);
    assert!(done.stderr.contains("rank 1 did not come to the fence"), "{}", done.stderr);
}

#[test]
fn the_port_of_pmi_lets_every_rank_in_once_and_nobody_else() {
    let script = r#"
        exec 3<>/dev/tcp/${PMI_PORT/:/\/}
        echo "cmd=initack pmiid=$PMI_ID" >&3
        for i in 1 2 3 4; do read -r line <&3; done
        for words in "cmd=initack pmiid=$PMI_ID" "cmd=initack pmiid=99" "cmd=initack pmiid=-1" "GET / HTTP/1.1"; do
            exec 4<>/dev/tcp/${PMI_PORT/:/\/}
            echo "$words" >&4
            said=$(timeout 20 cat <&4) && test -z "$said" || { echo "$words: $said" >&2; exit 2; }
        done
        echo "cmd=init pmi_version=1 pmi_subversion=1" >&3
        read -r line <&3
        case $line in *rc=0*) ;; *) echo "$line" >&2; exit 3 ;; esac
        echo "cmd=finalize" >&3
        read -r line <&3
    "#;
    let mut rmpirun = Command::new(bins::path("rmpirun"));
    rmpirun.args(["--oversubscribe", "-pmi-port", "-np", "3", "bash", "-c", script]);
    let done = procs::run(&mut rmpirun, LIMIT);
    assert_eq!(done.code, 0, "{}", done.stderr);
}
