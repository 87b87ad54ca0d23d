//! What goes wrong in clusters, and what must come of it: pods that never come, keys that cannot be read or are
//! refused, two launchers at once, service accounts without rights, elastic jobs that lose a pod.

use super::cases::{LIMIT, PROMISE, clean, end, expect, job, ready, start, terminate};
use super::exec::GRACE;
use super::{Set, Way};
use crate::procs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Kubernetes is asked about a pod after 7 s: this long is waited for one.
const WAIT: &str = "9";

fn starts(name: &str, way: Way) -> Result<Set, String> {
    Set::up(name, way).and_then(|set| boot(set, usize::MAX))
}

/// Starts the first `most` workers.
fn boot(mut set: Set, most: usize) -> Result<Set, String> {
    for worker in set.workers().to_vec().iter().take(most) {
        set.boot(worker)?;
    }
    Ok(set)
}

/// A pod that never comes: 255 when the time is over, the pod, the stage and what Kubernetes says in the words and in
/// the pod's message; nothing stays on the pods that were there.
pub(super) fn never(name: &str, way: Way) -> Result<Duration, String> {
    missing(name, way, true)
}

/// The same for a service account that may ask nothing.
pub(super) fn no_rights(name: &str, way: Way) -> Result<Duration, String> {
    missing(name, way, false)
}

fn missing(name: &str, way: Way, rights: bool) -> Result<Duration, String> {
    let set = Set::with(name, way, |tree| tree.rights = rights)?;
    let all = set.workers().len();
    let set = boot(set, all - 1)?;
    let worker = set.workers().last().cloned().ok_or("a set without workers")?;
    let inner = job(&set, &["--wait-hosts", WAIT], "echo never");
    let words: Vec<String> =
        inner.get_args().skip_while(|w| *w != "mpirun").map(|w| w.to_string_lossy().into_owned()).collect();
    let script = "touch /tmp/message; RMPIRUN_TERMINATION_LOG=/tmp/message \"$@\"; code=$?; cat /tmp/message; exit $code";
    let mut wrapped = vec!["sh", "-c", script, "sh"];
    wrapped.extend(words.iter().map(String::as_str));
    let run = procs::run(&mut set.command(&wrapped), LIMIT);
    expect("it is not said to be the pods' fault", run.code == 255, &run)?;
    expect("the pod is not named", run.stderr.contains(&worker), &run)?;
    expect("the pod's message", run.out().contains(&worker) && run.out().len() <= 2048, &run)?;
    // Only launchers that reach workers through it have a kubectl.
    if way == Way::Exec {
        let said = run.stderr.contains("Kubernetes: Pending, ImagePullBackOff");
        expect("what Kubernetes says", said == rights, &run)?;
    }
    clean(&set)?;
    Ok(run.took)
}

/// Owner, group and mode of the key, the launcher's user, where the secret is, and what the job must end with: the
/// combinations that operators ship (`ssh` refuses some of them), and one that nobody can read.
const KEYS: [(u32, u32, u32, u32, &str, u8); 8] = [
    (0, 0, 0o600, 0, "/root/.ssh", 0),
    (0, 0, 0o640, 0, "/root/.ssh", 0),
    (0, 0, 0o644, 0, "/root/.ssh", 0),
    (0, 0, 0o644, 1000, "/home/mpiuser/.ssh", 0),
    (0, 1000, 0o640, 1000, "/home/mpiuser/.ssh", 0),
    (1000, 1000, 0o640, 1000, "/home/mpiuser/.ssh", 0),
    (0, 0, 0o644, 4711, "/home/mpiuser/.ssh", 0),
    (0, 0, 0o600, 1000, "/home/mpiuser/.ssh", 255),
];

/// Every combination of [`KEYS`].
pub(super) fn keys(name: &str, way: Way) -> Result<Duration, String> {
    let begin = Instant::now();
    for (owner, group, mode, uid, mount, code) in KEYS {
        let set = Set::with(name, way, |tree| {
            tree.secret = Some(mount.to_owned());
            (tree.uid, tree.key) = (uid, Some((owner, group, mode)));
            tree.worker_uid = 0;
        })?;
        let set = boot(set, usize::MAX)?;
        let run = procs::run(&mut job(&set, &["--wait-hosts", "2"], "echo ran"), LIMIT);
        let row = format!("{owner}:{group} {mode:o} as {uid} in {mount}");
        expect(&row, run.code == i32::from(code), &run)?;
        if code == 0 {
            expect(&row, run.stderr.is_empty(), &run)?;
        } else {
            let parts = ["cannot be read", "id_rsa", "as uid 1000", "mode 0600", "sshAuthMountPath"];
            let named = parts.iter().all(|part| run.stderr.contains(part));
            expect(&format!("{row}: the cause is not named"), named, &run)?;
        }
    }
    Ok(begin.elapsed())
}

/// Workers that hold another secret than the launcher: refused for good after the time a secret takes to arrive.
pub(super) fn refused(name: &str, way: Way) -> Result<Duration, String> {
    let set = Set::with(name, way, |tree| tree.strange = true)?;
    let set = boot(set, usize::MAX)?;
    let run = procs::run(&mut job(&set, &[], "echo never"), LIMIT);
    expect("the code", run.code == 255, &run)?;
    let named = run.stderr.contains("id_rsa") || run.stderr.to_lowercase().contains("key");
    expect("the key is not named", named, &run)?;
    Ok(run.took)
}

/// Two launchers of one job at once, as after a restart whose first try still runs: each has its own ranks, neither
/// disturbs the other.
pub(super) fn twice(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let begin = Instant::now();
    let run = |mut command: Command| std::thread::spawn(move || procs::run(&mut command, LIMIT));
    let both = ["first", "second"].map(|word| run(job(&set, &[], &format!("sleep 0.5; echo {word} $RANK"))));
    for (thread, word) in both.into_iter().zip(["first", "second"]) {
        let run = thread.join().map_err(|_| "a launcher does not end")?;
        expect(word, run.code == 0 && run.stderr.is_empty(), &run)?;
        let own = run.out().lines().filter(|l| l.starts_with(word)).count();
        expect("ranks of the other", own == set.slots() as usize && run.out().lines().count() == own, &run)?;
    }
    clean(&set)?;
    Ok(begin.elapsed())
}

/// SIGTERM to the launcher: ranks have what Kubernetes says that its pod has, less five seconds, and then end.
pub(super) fn grace(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let child = ready(&set, start(&mut job(&set, &[], "trap '' TERM; echo ready; sleep 300")))?;
    let begin = Instant::now();
    terminate(&set)?;
    let (code, said) = end(child)?;
    let (took, left) = (begin.elapsed(), Duration::from_secs(GRACE - 5));
    if code != 143 || took < left || took > left + Duration::from_secs(3) {
        return Err(format!("exit code {code} after {:.1} s: {said}", took.as_secs_f64()));
    }
    clean(&set)?;
    Ok(took)
}

/// All pods of a job get SIGTERM at once, the workers' first, as when the job is deleted: ranks hear of it once, and have
/// the time to say that they saved what they did.
pub(super) fn deleted(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let script = "trap 'echo heard >&2; sleep 4 & wait $!; echo saved >&2; exit 0' TERM; echo ready; \
                  sleep 300 & wait $!; sleep 300";
    let child = ready(&set, start(&mut job(&set, &[], script)))?;
    let begin = Instant::now();
    for worker in set.workers() {
        set.terminate(worker);
    }
    terminate(&set)?;
    let (code, said) = end(child)?;
    let (took, slots) = (begin.elapsed(), set.slots() as usize);
    let times = |word| said.lines().filter(|l| *l == word).count();
    if code != 143 || times("heard") != slots || times("saved") != slots || took > PROMISE {
        return Err(format!("exit code {code} after {:.1} s: {said}", took.as_secs_f64()));
    }
    if !procs::until(PROMISE, || set.workers().iter().all(|w| set.ended(w))) {
        return Err("workers do not end".into());
    }
    Ok(took)
}

/// One worker's pod gets SIGTERM, as when its node is drained: its ranks hear of it, and what they do then is the job's end.
pub(super) fn drained(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let script = "trap 'echo heard >&2; exit 7' TERM; echo ready; sleep 300 & wait $!; sleep 300";
    let child = ready(&set, start(&mut job(&set, &[], script)))?;
    let begin = Instant::now();
    let worker = set.workers().last().ok_or("a set without workers")?;
    set.terminate(worker);
    let (code, said) = end(child)?;
    let took = begin.elapsed();
    if code != 7 || !said.contains(worker) || took > PROMISE {
        return Err(format!("exit code {code} after {:.1} s: {said}", took.as_secs_f64()));
    }
    match procs::until(PROMISE, || set.ended(worker)) {
        true => Ok(took),
        false => Err("the worker does not end".into()),
    }
}

/// What Horovod's workers ask the store, without Horovod: rank 0 wants its rank in the next generation at once.
const WORKER: &str = r#"
req() {
  exec 3<>/dev/tcp/$HOROVOD_GLOO_RENDEZVOUS_ADDR/$HOROVOD_GLOO_RENDEZVOUS_PORT
  printf '%s %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "${#3}" "$3" >&3
  cat <&3; exec 3>&-
}
req PUT /global/rank_$HOROVOD_RANK x > /dev/null
until req GET /global/rank_$((HOROVOD_SIZE - 1)) '' | grep -q ' 200 '; do sleep 0.05; done
echo ready
[ $HOROVOD_RANK = 0 ] || exec sleep 300
echo "told $(req GET /rank_and_size/$HOROVOD_HOSTNAME:$HOROVOD_LOCAL_RANK '' | tail -n 1)" >&2
"#;

/// A pod of an elastic job is lost without a word: its host is out, the others go on.
pub(super) fn elastic(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let named = |worker: &String| match &set.tree.service {
        Some(service) => format!("echo {worker}.{service}.default.svc:1"),
        None => format!("echo {worker}:1"),
    };
    let hosts = set.workers().iter().map(named).collect::<Vec<_>>().join("; ");
    let np = set.workers().len().to_string();
    let mut command = set.command(&[
        "mpirun",
        "--personality",
        "horovodrun",
        "-np",
        &np,
        "--min-np",
        "1",
        "--host-discovery-script",
        &hosts,
        "bash",
        "-c",
        WORKER,
    ]);
    let child = super::cases::ready_when(start(&mut command), set.workers().len())?;
    let lost = set.workers().last().cloned().ok_or("a set without workers")?;
    set.cut(&lost);
    let begin = Instant::now();
    let (code, said) = end(child)?;
    let took = begin.elapsed();
    let left = set.workers().len() - 1;
    let told = said.contains(&format!("told 0,{left},0,1,0,{left}"));
    if code != 0 || !told || !said.contains("is left out") || took > PROMISE {
        return Err(format!("exit code {code} after {:.1} s: {said}", took.as_secs_f64()));
    }
    clean(&set)?;
    Ok(took)
}

/// How long `ssh WORKER true` takes in the launcher pod, for comparison.
pub(super) fn ssh(name: &str, way: Way) -> Result<Duration, String> {
    let set = starts(name, way)?;
    let worker = set.workers().first().cloned().ok_or("a set without workers")?;
    let service = set.tree.service.clone().unwrap_or_default();
    let host = format!("{worker}.{service}.default.svc");
    let key = format!("{}/id_rsa", set.tree.secret.as_deref().unwrap_or_default());
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let run = procs::run(&mut set.command(&["ssh", "-i", &key, &host, "true"]), LIMIT);
        expect("ssh", run.code == 0, &run)?;
        best = best.min(run.took);
    }
    Ok(best)
}
