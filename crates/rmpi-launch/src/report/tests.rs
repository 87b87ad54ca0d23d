//! The texts a user reads at the end, word for word.

use super::*;
use crate::outcome::HostResult;
use rmpi_types::outcome::{Abort, JobOutcome};
use rmpi_types::{LaunchFault, NodeIdx, ProcId, Rank, RankEnd, RankExit, RankSet, Stage};
use std::time::Duration;

fn host(name: &str, state: HostState, ms: u64, tries: u32) -> HostResult {
    HostResult { name: name.into(), state, elapsed: Duration::from_millis(ms), tries }
}

fn outcome(cause: Cause, hosts: Vec<HostResult>) -> Outcome {
    Outcome {
        job: JobOutcome {
            cause,
            also: Vec::new(),
            failed_after_us: None,
            stopped: Vec::new(),
            unknown: Vec::new(),
        },
        hosts,
        notes: Vec::new(),
        output_error: None,
        placement: vec![(NodeIdx(0), RankSet::range(0, 1)), (NodeIdx(1), RankSet::range(2, 3))],
    }
}

fn two_hosts() -> Vec<HostResult> {
    vec![host("n1", HostState::Ready, 210, 1), host("n2", HostState::Ready, 240, 1)]
}

fn exit(rank: u32, end: RankEnd) -> RankExit {
    RankExit {
        proc: ProcId::first(rank),
        pid: 3042,
        end,
        abort: None,
        stopped: false,
        oom: false,
        last_stderr: Vec::new(),
        wall_us: 0,
    }
}

fn launch_failed(hosts: Vec<HostResult>) -> Outcome {
    let fault = |(i, h): (usize, &HostResult)| match &h.state {
        HostState::Failed(f) => Some((NodeIdx(u32::try_from(i).unwrap()), f.clone())),
        HostState::Ready | HostState::Unused => None,
    };
    let faults = hosts.iter().enumerate().filter_map(fault).collect();
    outcome(Cause::Launch(faults), hosts)
}

#[test]
fn launch_table_as_the_contract_prints_it() {
    let unknown = LaunchFault::fatal(Stage::Ssh, "host key not in known_hosts: ssh-ed25519 SHA256:x")
        .hint("accept once with --host-keys accept-new");
    let out = launch_failed(vec![
        host("n1", HostState::Ready, 210, 1),
        host("n2", HostState::Ready, 240, 1),
        host("10.0.0.78", HostState::Failed(unknown), 300, 1),
        host("10.0.0.77", HostState::Failed(LaunchFault::passing(Stage::Tcp, "no route to host")), 7100, 3),
    ]);
    assert_eq!(
        out.report(),
        "rmpirun: 4 hosts, 2 could not be used; nothing was started\n  \
         n1          ok      0.21 s\n  \
         n2          ok      0.24 s\n  \
         10.0.0.77   tcp     no route to host (3 tries, 7.1 s)\n  \
         10.0.0.78   ssh     host key not in known_hosts: ssh-ed25519 SHA256:x  (accept once with --host-keys accept-new)\n\
         rmpirun: exit code 255   (rerun with --min-hosts 2 to go on without them)\n"
    );
}

#[test]
fn hosts_with_one_cause_share_a_row() {
    let refused = || HostState::Failed(LaunchFault::passing(Stage::Tcp, "connection refused"));
    let mut hosts: Vec<HostResult> =
        (1..=20).map(|i| host(&format!("n{i}"), HostState::Ready, i * 10, 1)).collect();
    hosts.extend((21..=40).map(|i| host(&format!("n{i}"), refused(), 60_000, 9)));
    assert_eq!(
        launch_failed(hosts).report(),
        "rmpirun: 40 hosts, 20 could not be used; nothing was started\n  \
         n[1-20]    ok      0.20 s\n  \
         n[21-40]   tcp     connection refused (9 tries, 60.0 s)\n\
         rmpirun: exit code 255   (rerun with --min-hosts 20 to go on without them)\n"
    );
}

#[test]
fn a_missing_program_is_one_line_a_cause() {
    let missing = || HostState::Failed(LaunchFault::fatal(Stage::Exec, "./train: not found").code(127));
    let out = launch_failed(vec![
        host("n1", HostState::Ready, 1, 1),
        host("n2", missing(), 1, 1),
        host("n3", missing(), 1, 1),
    ]);
    assert_eq!(out.report(), "rmpirun: ./train: not found on n[2-3] (found on n1)\nrmpirun: exit code 127\n");
    let mode = LaunchFault::fatal(Stage::Exec, "./x.sh: no execute permission").hint("mode 0644, owner you");
    let out = launch_failed(vec![host("n1", HostState::Failed(mode.code(126)), 1, 1)]);
    assert_eq!(
        out.report(),
        "rmpirun: ./x.sh: no execute permission on n1 (mode 0644, owner you)\nrmpirun: exit code 126\n"
    );
}

#[test]
fn failure_summary_as_the_contract_prints_it() {
    let mut first = exit(3, RankEnd::Signaled { signal: 11, core: true });
    first.last_stderr = vec!["earlier".into(), "train: index out of range".into()];
    let mut out = outcome(Cause::Rank(first), two_hosts());
    out.job.failed_after_us = Some(12_804_000);
    out.job.stopped = vec![(15, 2), (9, 1)];
    assert_eq!(
        out.report(),
        "rmpirun: rank 3 on n2 (pid 3042) died: signal 11 (segmentation fault), core dumped\n\
         rmpirun:   first failure at 12.804 s; 3 other ranks were stopped (2 by SIGTERM, 1 by SIGKILL)\n\
         rmpirun:   its last stderr line: \"train: index out of range\"\n\
         rmpirun: exit code 139\n"
    );
    let loud = out.report();
    assert_eq!(Some(render(&out, true).as_str()), loud.strip_suffix("rmpirun: exit code 139\n"));
}

#[test]
fn other_causes() {
    let mut abort = exit(1, RankEnd::Signaled { signal: 9, core: false });
    abort.abort = Some(Abort::called(7, String::new()));
    let mut out = outcome(Cause::Rank(abort), two_hosts());
    out.job.also = vec![exit(0, RankEnd::Exited(11))];
    assert_eq!(
        out.report(),
        "rmpirun: rank 1 on n1 called abort with code 7\n\
         rmpirun:   also: rank 0 on n1 (pid 3042) exited with code 11\n\
         rmpirun: exit code 7\n"
    );
    let lost = Cause::NodeLost {
        node: NodeIdx(1),
        what: "no sign of life for 6.0 s".into(),
        ranks: RankSet::range(2, 3),
    };
    let mut out = outcome(lost, two_hosts());
    out.job.stopped = vec![(15, 1)];
    out.job.unknown = vec![Rank(2), Rank(3)];
    assert_eq!(
        out.report(),
        "rmpirun: host n2 was lost: no sign of life for 6.0 s; ranks 2-3 ran there\n\
         rmpirun:   1 rank was stopped (1 by SIGTERM)\n\
         rmpirun: exit code 254\n"
    );
    let out = outcome(Cause::Timeout { limit_ms: 2500 }, two_hosts());
    assert_eq!(out.report(), "rmpirun: the job's time limit of 2.5 s was reached\nrmpirun: exit code 110\n");
    let out = outcome(Cause::Signal(2), two_hosts());
    assert_eq!(out.report(), "rmpirun: stopped by SIGINT\nrmpirun: exit code 130\n");
    let mut broken = outcome(Cause::BrokenPipe, two_hosts());
    assert_eq!(broken.report(), "");
    broken.output_error = Some("no space left".into());
    let text = "rmpirun: output cannot be written: no space left\nrmpirun: exit code 141\n";
    assert_eq!(render(&broken, true), text);
    assert_eq!(outcome(Cause::Success, two_hosts()).report(), "");
    let plan = Cause::Plan { code: 2, message: "not enough slots\n2 asked for, 1 there".into() };
    let out = outcome(plan, two_hosts());
    assert_eq!(
        out.report(),
        "rmpirun: not enough slots\nrmpirun: 2 asked for, 1 there\nrmpirun: exit code 2\n"
    );
}
