//! Bad input is one clear error before anything starts: the text, the exit code, an empty standard output, and no
//! process left.

use rmpi_tests::bins;
use rmpi_tests::loopback::Loopback;
use rmpi_tests::procs::{Finished, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rmpi-bad-input.{}.{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary folder");
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("our own folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rmpirun(words: &[&str]) -> Finished {
    run(Command::new(bins::path("rmpirun")).args(words), LIMIT)
}

fn refused(words: &[&str], code: i32, texts: &[&str]) {
    let done = rmpirun(words);
    assert_eq!(done.code, code, "{words:?}: {}", done.stderr);
    assert!(done.stdout.is_empty(), "{words:?}: {}", done.out());
    for text in texts {
        assert!(done.stderr.contains(text), "{words:?}: no '{text}' in: {}", done.stderr);
    }
    assert!(done.stderr.lines().count() <= 4, "{words:?}: too many words: {}", done.stderr);
    let ours = |l: &str| l.starts_with("rmpirun: ") || l.starts_with("  ");
    assert!(done.stderr.lines().all(ours), "{words:?}: {}", done.stderr);
    let clean = done.stderr.chars().all(|c| c == '\n' || !c.is_control());
    assert!(clean, "{words:?}: control characters in: {:?}", done.stderr);
}

#[test]
fn host_files() {
    let dir = Folder::new("hostfiles");
    let with = |file: &str, texts: &[&str]| refused(&["--hostfile", file, "-np", "1", "hostname"], 2, texts);
    with("/no/such/hosts", &["/no/such/hosts"]);
    with("/", &["directory"]);
    with("/dev/zero", &["/dev/zero", "larger than"]);
    with(&dir.file("empty", b"# nobody\n", 0o600), &["no host in the file"]);
    with(&dir.file("binary", b"\x7fELF\0\0\x01", 0o600), &["binary:1"]);
    with(&dir.file("slots", b"n1 slots=x\n", 0o600), &["slots:1: slots: 'x' is not a number"]);
    with(&dir.file("second", b"n1 slots=2\nn2 slots=-1\n", 0o600), &["second:2"]);
    with(&dir.file("max", b"n1 slots=4 max_slots=2\n", 0o600), &["max:1"]);
}

#[test]
fn options_and_plans() {
    refused(&["-np", "0", "hostname"], 2, &["-np"]);
    refused(&["-np", "", "hostname"], 2, &["empty"]);
    refused(&["-np", "two", "hostname"], 2, &["'two'"]);
    refused(
        &["--hostfiel", "x", "hostname"],
        2,
        &["unknown option '--hostfiel' (did you mean '--hostfile'?)"],
    );
    refused(&["-np", "1"], 2, &["program"]);
    refused(
        &["--host", "localhost", "-np", "2", "hostname"],
        2,
        &["2 ranks asked for, 1 slot given (localhost=1)", "--oversubscribe"],
    );
    refused(&["--map-by", "nonsense", "hostname"], 2, &["nonsense"]);
}

#[test]
fn programs_and_folders() {
    let dir = Folder::new("programs");
    let with = |program: &str, code: i32, texts: &[&str]| {
        let done = rmpirun(&["-np", "1", program]);
        assert_eq!(done.code, code, "{}", done.stderr);
        assert!(done.stdout.is_empty());
        texts.iter().for_each(|t| assert!(done.stderr.contains(t), "no '{t}' in: {}", done.stderr));
    };
    with("no-such-program", 127, &["no-such-program: not found in PATH"]);
    with("./no-such-program", 127, &["./no-such-program"]);
    with(&dir.file("plain", b"#!/bin/sh\n", 0o644), 126, &["no execute permission", "0644"]);
    with("/", 126, &["is a directory"]);
    with(&dir.file("words", b"just words\n", 0o755), 126, &["#!"]);
    with(&dir.file("interp", b"#!/no/such/interp\n", 0o755), 126, &["interpreter /no/such/interp not found"]);
    let done = rmpirun(&["-np", "1", "--wdir", "/no/such/folder", "hostname"]);
    assert_eq!(done.code, 125, "{}", done.stderr);
    assert!(done.stderr.contains("/no/such/folder"), "{}", done.stderr);
}

#[test]
fn ssh_faults_name_host_stage_and_cause() {
    let hosts = Loopback::up(2);
    let dir = hosts.dir();
    let faulty = |known: Option<&str>, options: &[&str], texts: &[&str]| {
        let file = dir.join("known_hosts");
        let right = fs::read_to_string(&file).expect("written at start");
        if let Some(known) = known {
            fs::write(&file, known).expect("our own folder");
        }
        let done =
            run(hosts.rmpirun().args(options).args(["-np", "4", "--launch-timeout", "8", "hostname"]), LIMIT);
        fs::write(&file, right).expect("our own folder");
        assert_eq!(done.code, 255, "{}", done.stderr);
        assert!(done.stdout.is_empty());
        assert!(done.stderr.contains("nothing was started"), "{}", done.stderr);
        texts.iter().for_each(|t| assert!(done.stderr.contains(t), "no '{t}' in: {}", done.stderr));
    };
    faulty(
        Some("\n"),
        &[],
        &[
            "2 hosts, 2 could not be used",
            "host key not in known_hosts: ssh-ed25519 SHA256:",
            "--host-keys accept-new",
        ],
    );
    let other = fs::read_to_string(dir.join("id.pub")).expect("written at start");
    let changed: String = hosts
        .hosts
        .iter()
        .map(|h| {
            let (address, port) = h.rsplit_once(':').expect("ADDRESS:PORT");
            format!("[{address}]:{port} {other}\n")
        })
        .collect();
    faulty(Some(&changed), &[], &["known_hosts:1"]);
    let right = fs::read_to_string(dir.join("known_hosts")).expect("written at start");
    let revoked: String =
        right.lines().map(|l| format!("@revoked * {}\n", l.split_once(' ').expect("a key").1)).collect();
    faulty(Some(&format!("{revoked}{right}")), &[], &["revoked"]);
    let lonely = dir.join("lonely_config");
    let config = fs::read_to_string(dir.join("ssh_config"))
        .expect("written at start")
        .replace("/id\n", "/no_such_key\n");
    fs::write(&lonely, format!("{config}  IdentitiesOnly yes\n")).expect("our own folder");
    faulty(None, &["--ssh-config", &lonely.display().to_string()], &["auth"]);
}

/// Whatever comes on its control stream, a daemon ends with a message and starts nothing.
#[test]
fn a_daemon_that_hears_nonsense_leaves() {
    use std::io::Write;
    use std::process::Stdio;
    for nonsense in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
        let mut daemon = Command::new(bins::path("rmpid"));
        daemon.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = rmpi_tests::procs::start(&mut daemon, rmpi_tests::procs::LIFE);
        let mut stdin = daemon.stdin.take().expect("stdin is piped");
        let _ = stdin.write_all(nonsense);
        drop(stdin);
        assert!(rmpi_tests::procs::ends_within(&mut daemon, LIMIT), "{nonsense:?}");
        assert_ne!(daemon.wait().expect("it ended").code(), Some(0));
    }
}
