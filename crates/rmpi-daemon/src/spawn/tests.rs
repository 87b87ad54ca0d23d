//! Spawning: what a child has, what a failed start says.

use super::*;
use std::io::Read;
use std::time::Instant;

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn program(argv: &[&str]) -> Arc<Program> {
    Arc::new(Program {
        path: c(argv[0]),
        argv: argv.iter().map(|a| c(a)).collect(),
        cwd: c("/"),
        env: vec![c("SHARED=1"), c("PATH=/usr/bin:/bin")],
    })
}

fn start(children: impl IntoIterator<Item = io::Result<Child>>) -> Batch {
    Batch::start(children, crate::status::Status::get().not_default()).unwrap()
}

fn child(program: &Arc<Program>, out: OwnedFd) -> Child {
    let null = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    Child {
        program: Arc::clone(program),
        env: Variables::of([("OWN", "2".to_owned()), ("GONE", "a\0b".to_owned())]),
        cpus: None,
        memory: None,
        fds: vec![(null, 0), (Arc::new(out), 1)],
        nofile: None,
        stopped: false,
    }
}

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (read.into(), write)
}

fn reap(pid: i32) -> i32 {
    match crate::sys::wait_for(pid) {
        Some(crate::sys::Reaped { end: rmpi_types::RankEnd::Exited(code), .. }) => i32::from(code),
        Some(crate::sys::Reaped { end: rmpi_types::RankEnd::Signaled { signal, .. }, .. }) => -signal,
        None => panic!("no such child"),
    }
}

#[test]
fn children_get_their_world() {
    let script =
        "echo $SHARED$OWN$GONE $(pwd) $(ps -o pgid= -p $$ | tr -d ' ') $$ $(ls /proc/$$/fd | tr '\\n' ,)";
    let (mut read, write) = pipe();
    let mut batch = start([Ok(child(&program(&["/bin/sh", "-c", script]), write))]);
    let pid = batch.pids()[0];
    assert_eq!(batch.wait().unwrap(), []);
    drop(batch);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(reap(pid), 0);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["12", "/", &pid.to_string(), &pid.to_string()], "{text}");
    // The shell keeps its standard input and output (2 is the test runner's) and a saved copy at 10.
    let mut fds: Vec<i32> = words[4].split(',').filter_map(|f| f.parse().ok()).filter(|&f| f < 10).collect();
    fds.sort_unstable();
    assert!([&[0, 1, 2][..], &[0, 1, 2, 3]].contains(&&fds[..]), "{text}");
}

#[test]
fn faults_carry_step_and_errno_and_harmless_ones_do_not_stop() {
    let missing = program(&["/nonexistent/program"]);
    let fine = program(&["/bin/true"]);
    let elsewhere = Arc::new(Program {
        path: c("/bin/true"),
        argv: vec![c("true")],
        cwd: c("/nonexistent"),
        env: Vec::new(),
    });
    let mut unbindable = child(&fine, pipe().1);
    unbindable.cpus = Some([60_000].into_iter().collect());
    let children =
        vec![child(&missing, pipe().1), child(&fine, pipe().1), child(&elsewhere, pipe().1), unbindable];
    let mut batch = start(children.into_iter().map(Ok));
    let faults = batch.wait().unwrap();
    let expected = [
        ExecFault { index: 0, step: Step::Exec, errno: libc::ENOENT },
        ExecFault { index: 2, step: Step::Cwd, errno: libc::ENOENT },
        ExecFault { index: 3, step: Step::Affinity, errno: libc::EINVAL },
    ];
    assert_eq!(faults, expected);
    assert_eq!(faults.iter().map(ExecFault::harmless).collect::<Vec<_>>(), [false, false, true]);
    let codes: Vec<i32> = batch.pids().iter().map(|&p| reap(p)).collect();
    assert_eq!(codes, [127, 0, 127, 0]);
}

#[test]
fn signal_dispositions_and_mask_are_reset() {
    let (mut read, write) = pipe();
    let status = program(&["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let mut batch = start([Ok(child(&status, write))]);
    batch.wait().unwrap();
    let pid = batch.pids()[0];
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    reap(pid);
    // The test runner ignores SIGPIPE, as every Rust program does.
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn a_batch_given_up_leaves_nothing() {
    let sleeper = program(&["/bin/sleep", "1000"]);
    let children: Vec<_> = (0..4).map(|_| child(&sleeper, pipe().1)).collect();
    let batch = start(children.into_iter().map(Ok));
    let pids = batch.pids().to_vec();
    drop(batch);
    for pid in pids {
        assert!(matches!(reap(pid), -9));
    }
}

/// `cargo test --release -p rmpi-daemon -- --ignored --nocapture spawn_times`
#[test]
#[ignore = "a measurement, not a check"]
fn spawn_times() {
    let program = program(&["/bin/true"]);
    for n in [1, 8, 64] {
        let mut times: Vec<f64> = (0..50)
            .map(|_| {
                let begun = Instant::now();
                let (reads, children): (Vec<_>, Vec<_>) = (0..n)
                    .map(|_| {
                        let (read, write) = pipe();
                        (read, child(&program, write))
                    })
                    .unzip();
                let mut batch = start(children.into_iter().map(Ok));
                batch.wait().unwrap();
                let pids = batch.pids().to_vec();
                drop(batch);
                for mut read in reads {
                    read.read_to_end(&mut Vec::new()).unwrap();
                }
                pids.into_iter().for_each(|p| assert_eq!(reap(p), 0));
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{n} x true: median {:.2} ms, best {:.2} ms", times[25], times[0]);
    }
}
