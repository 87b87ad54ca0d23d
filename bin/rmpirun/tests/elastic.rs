//! Elastic jobs with workers that are no Horovod: shell scripts that ask the store what Horovod's workers ask.

mod common;

use common::{finish, rmpirun, run};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What every worker can do: a request to the store, and joining the world.
const WORKER: &str = r#"
req() {
  exec 3<>/dev/tcp/$HOROVOD_GLOO_RENDEZVOUS_ADDR/$HOROVOD_GLOO_RENDEZVOUS_PORT
  printf '%s %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "${#3}" "$3" >&3
  cat <&3; exec 3>&-
}
join() { req PUT /global/rank_$HOROVOD_RANK x > /dev/null; }
ask() { req GET /rank_and_size/$HOROVOD_HOSTNAME:$HOROVOD_LOCAL_RANK '' | tail -n 1; }
until_there() { for i in $(seq 1 1200); do [ -e "$1" ] && return; sleep 0.05; done; exit 99; }
"#;

/// What every discovery script can do: `listed` after its lines tells workers, by `@/seen`, that the job has these
/// hosts. That is so when the script is called again: what the call before printed has been taken by then.
const HOSTS: &str = "listed() { if [ -e @/listed ]; then touch @/seen; else touch @/listed; fi; }\n";

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rmpi-elastic-{test}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a temporary folder");
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text.replace("@", &self.0.display().to_string())).expect("the folder is writable");
        path.display().to_string()
    }

    /// `horovodrun` with a discovery script and a worker; `@` in both is this folder.
    fn job(&self, options: &[&str], hosts: &str, worker: &str) -> Command {
        let hosts = format!("sh {}", self.file("hosts.sh", &format!("{HOSTS}{hosts}")));
        let worker = self.file("worker.sh", &format!("{WORKER}{worker}"));
        let mut command = rmpirun(["--personality", "horovodrun", "--host-discovery-script", &hosts]);
        command.args(options).args(["bash", &worker]);
        command
    }
}

#[test]
fn a_job_grows_and_the_survivor_is_told_when_the_newcomer_joins() {
    let dir = Dir::new("grow");
    let hosts = "echo localhost:1; if [ -e @/grow ]; then echo 127.0.0.1:1; listed; fi";
    let worker = r#"
        if [ $HOROVOD_SIZE = 1 ]; then
          join; echo alone; touch @/grow; until_there @/seen
          echo "told $(ask)"; [ -e @/joined ] && echo after the newcomer
        else
          sleep 1; touch @/joined; join; echo newcomer $HOROVOD_RANK of $HOROVOD_SIZE on $HOROVOD_HOSTNAME
        fi"#;
    let run = run(&mut dir.job(&["-np", "1", "--max-np", "2"], hosts, worker));
    assert_eq!(run.code(), 0, "{}\n{}", run.text(), run.stderr);
    for line in [
        "[0]<stdout>:told 0,2,0,1,0,2",
        "[0]<stdout>:after the newcomer",
        "[1]<stdout>:newcomer 1 of 2 on 127.0.0.1",
    ] {
        assert!(run.text().lines().any(|l| l == line), "{line}: {}\n{}", run.text(), run.stderr);
    }
    assert!(run.stderr.contains("generation 2: 2 ranks, 1 of them new"), "{}", run.stderr);
}

/// Files by rank, and the job's life in events, summary and timeline.
#[test]
fn what_is_written_and_recorded_of_a_job_that_changes() {
    let dir = Dir::new("records");
    let hosts = "echo localhost:1; echo 127.0.0.1:1";
    // Rank 0 fails; rank 1 becomes rank 0 and goes on.
    let worker = r#"
        echo "born $HOROVOD_RANK"; echo "words of $HOROVOD_RANK" >&2
        join; touch @/joined.$HOROVOD_RANK; until_there @/joined.0; until_there @/joined.1
        if [ $HOROVOD_RANK = 0 ]; then exit 7; fi
        echo "told $(ask)""#;
    let path = |name: &str| dir.0.join(name).display().to_string();
    let (out, events, summary, trace) = (path("out"), path("events"), path("summary"), path("trace"));
    let options = ["-np", "2", "--min-np", "1", "--output-filename", &out, "--events", &events];
    let records = ["--summary", &summary, "--timeline", &trace];
    let run = run(&mut dir.job(&[&options[..], &records].concat(), hosts, worker));
    assert_eq!(run.code(), 0, "{}\n{}", run.text(), run.stderr);
    assert!(run.text().contains("[0]<stdout>:told 0,1,0,1,0,1"), "{}", run.text());
    let read = |name: &str| fs::read_to_string(dir.0.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(read("out/rank.0/stdout"), "born 0\ntold 0,1,0,1,0,1\n", "who has the rank writes on");
    assert_eq!(read("out/rank.1/stdout"), "born 1\n");
    assert_eq!(read("out/rank.1/stderr"), "words of 1\n");
    let lines = read("events");
    for part in [
        r#""event":"job_start""#,
        r#""event":"generation","n":1,"new":2,"nodes":[{"host":"localhost","ranks":"0"},{"host":"127.0.0.1","ranks":"1"}]"#,
        r#""event":"host_up","node":1,"host":"127.0.0.1""#,
        r#""event":"generation","n":2,"new":0,"nodes":[{"host":"127.0.0.1","ranks":"0"}]"#,
        r#""event":"job_end","code":0,"cause":"success""#,
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let exits = |code: u32| {
        let found = |l: &&str| l.contains("rank_exit") && l.contains(&format!("\"code\":{code},"));
        lines.lines().filter(found).count()
    };
    assert_eq!((exits(7), exits(0)), (1, 1), "{lines}");
    let text = read("summary");
    assert!(text.contains(r#""code":0,"cause":"success""#), "{text}");
    assert!(text.contains(r#"{"host":"localhost","state":"ready","tries":1"#), "{text}");
    let text = read("trace");
    assert!(text.contains("rank 0: exit 7") && text.contains("rank 0: exit 0"), "{text}");
}

#[test]
fn a_dead_process_costs_its_host_and_the_others_go_on() {
    let dir = Dir::new("death");
    let hosts = "echo localhost:1; echo 127.0.0.1:1";
    let worker = r#"
        join; touch @/joined.$HOROVOD_RANK; until_there @/joined.0; until_there @/joined.1
        if [ $HOROVOD_RANK = 1 ]; then exit 7; fi
        echo "told $(ask)""#;
    let run = run(&mut dir.job(&["-np", "2", "--min-np", "1"], hosts, worker));
    assert_eq!(run.code(), 0, "{}\n{}", run.text(), run.stderr);
    assert!(run.text().contains("told 0,1,0,1,0,1"), "{}", run.text());
    assert!(
        run.stderr.contains("host 127.0.0.1 failed (exit code 7) and is left out for good"),
        "{}",
        run.stderr
    );
}

/// A host that leaves the list: its process ends as Horovod's do that are not wanted any more, and that is no failure.
#[test]
fn a_process_that_was_taken_out_may_die_as_it_likes() {
    let dir = Dir::new("out");
    let hosts = "echo localhost:1; if [ -e @/shrink ]; then listed; else echo 127.0.0.1:1; fi";
    let worker = r#"
        join; touch @/joined.$HOROVOD_RANK; until_there @/joined.0; until_there @/joined.1
        if [ $HOROVOD_RANK = 0 ]; then
          touch @/shrink; until_there @/seen; echo "told $(ask)"; until_there @/out
          while kill -0 $(cat @/pid) 2> /dev/null; do sleep 0.05; done
        else
          echo $$ > @/pid; until_there @/seen; echo "told $(ask)"; touch @/out; kill -ABRT $$
        fi"#;
    let run = run(&mut dir.job(&["-np", "2", "--min-np", "1"], hosts, worker));
    assert_eq!(run.code(), 0, "{}\n{}", run.text(), run.stderr);
    for line in ["[0]<stdout>:told 0,1,0,1,0,1", "[1]<stdout>:told -1,-1,-1,-1,-1,-1"] {
        assert!(run.text().lines().any(|l| l == line), "{line}: {}\n{}", run.text(), run.stderr);
    }
    assert!(run.stderr.contains("generation 2: 1 ranks, 0 of them new"), "{}", run.stderr);
    assert!(!run.stderr.contains("died") && !run.stderr.contains("failed"), "{}", run.stderr);
}

/// The daemon of a host is killed, and with it what it started: a host that dies.
#[test]
fn a_dead_daemon_costs_its_host_and_another_host_takes_its_place() {
    let dir = Dir::new("dies");
    let hosts = "echo localhost:1; echo 127.0.0.1:1; if [ -e @/dying ]; then echo $(hostname):1; listed; fi";
    let worker = r#"
        join; touch @/joined.$HOROVOD_HOSTNAME
        until_there @/joined.localhost; until_there @/joined.127.0.0.1
        case $HOROVOD_HOSTNAME in
          127.0.0.1) touch @/dying; until_there @/seen; kill -9 $PPID; sleep 100;;
          localhost) echo "told $(ask)";;
          *) echo "instead: $HOROVOD_RANK of $HOROVOD_SIZE"; join;;
        esac"#;
    let run = run(&mut dir.job(&["-np", "2", "--min-np", "2", "--max-np", "2"], hosts, worker));
    assert_eq!(run.code(), 0, "{}\n{}", run.text(), run.stderr);
    for line in ["[0]<stdout>:told 0,2,0,1,0,2", "[1]<stdout>:instead: 1 of 2"] {
        assert!(run.text().lines().any(|l| l == line), "{line}: {}\n{}", run.text(), run.stderr);
    }
    for line in ["host 127.0.0.1 was lost: control stream closed; rank 1 ran there", "host 127.0.0.1 failed"]
    {
        assert!(run.stderr.contains(line), "{line}: {}", run.stderr);
    }
    assert_eq!(run.stderr.matches("exit code").count(), 1, "only the host's: {}", run.stderr);
}

#[test]
fn a_script_that_fails_first_ends_the_job_and_later_does_not() {
    let dir = Dir::new("script");
    let failing = run(&mut dir.job(&["-np", "1"], "echo no such cluster >&2; exit 3", "echo never"));
    assert_eq!(failing.code(), 255, "{}", failing.stderr);
    assert!(failing.stderr.contains("it failed (exit status: 3) no such cluster"), "{}", failing.stderr);
    assert_eq!(failing.text(), "");
    let garbage = run(&mut dir.job(&["-np", "1"], "echo 'Traceback (most recent call last):'", "echo never"));
    assert_eq!(garbage.code(), 255, "{}", garbage.stderr);
    assert!(garbage.stderr.contains("line 1 of the host discovery script"), "{}", garbage.stderr);
    // Good at first, then garbage, a failure, nothing.
    let hosts = "n=$(cat @/n 2>/dev/null || echo 0); echo $((n+1)) > @/n; \
                 case $n in 0) echo localhost:1;; 1) echo '!!';; 2) exit 1;; *) touch @/empty;; esac";
    let run = run(&mut dir.job(&["-np", "1"], hosts, "join; until_there @/empty; echo done"));
    assert_eq!((run.code(), run.text().as_str()), (0, "[0]<stdout>:done\n"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("the hosts stay as they are").count(), 2, "{}", run.stderr);
}

#[test]
fn too_few_slots_end_the_job_in_time() {
    let dir = Dir::new("few");
    let start = Instant::now();
    let run = run(&mut dir.job(&["-np", "3", "--elastic-timeout", "2"], "echo localhost:2", "echo never"));
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("2 of 3 slots after 2 s: no more hosts have come"), "{}", run.stderr);
    assert!(start.elapsed() < common::DEADLINE);
}

#[test]
fn a_program_that_fails_at_once_ends_the_job_with_its_code() {
    let dir = Dir::new("early");
    let run =
        run(&mut dir.job(&["-np", "2"], "echo localhost:2", "[ $HOROVOD_RANK = 1 ] && exit 5; sleep 300"));
    assert_eq!(run.code(), 5, "{}", run.stderr);
    assert!(run.stderr.contains("localhost:1 failed before the job began"), "{}", run.stderr);
    assert!(run.stderr.ends_with("rmpirun: exit code 5\n"), "{}", run.stderr);
}

#[test]
fn sigterm_ends_everything() {
    let dir = Dir::new("term");
    let marker = format!("86403.{}", std::process::id());
    let worker = format!("join; touch @/up; exec sleep {marker}");
    let child = dir.job(&["-np", "2"], "echo localhost:2", &worker).spawn().expect("rmpirun starts");
    let until = Instant::now() + common::DEADLINE;
    while !dir.0.join("up").exists() {
        assert!(Instant::now() < until, "the workers do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    common::signal(child.id(), "TERM");
    let run = finish(child);
    assert_eq!(run.code(), 143, "{}", run.stderr);
    let left = Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).output().expect("pgrep runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "nothing stays");
}
