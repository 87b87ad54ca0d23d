//! The script under every shell that is installed, in places that cannot hold or run a daemon, and the
//! dialogue against hosts that say anything.

use super::script::command_of;
use super::*;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use rmpi_types::{LaunchFault, Stage};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// A daemon that greets at once with bytes that look like markers, then echoes its input.
const DAEMON: &str = "#!/bin/sh\nprintf 'RMPI-READY\\nbinary\\001 %s|' \"$@\"; cat\n";

fn image(program: &[u8]) -> DaemonImage {
    let hash: String = digest(&SHA256, program).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let bytes = bytes::Bytes::copy_from_slice(program);
    DaemonImage {
        source: ImageSource::Pushed { bytes, hash: hash.into() },
        words: vec!["a b".into(), "--c=d".into()],
    }
}

/// A large daemon, so that pushing takes many writes and pipes fill.
fn large() -> DaemonImage {
    image(format!("{DAEMON}exit\n{}", "x".repeat(3 << 20)).as_bytes())
}

/// A folder that is gone when this is dropped.
struct Scratch(PathBuf);

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("rmpi-bootstrap-{name}.{}.{n}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    Scratch(dir)
}

/// `login... COMMAND` with a home of its own.
fn shell(login: &[&str], home: &Path, command: &str) -> Child {
    Command::new(login[0])
        .args(&login[1..])
        .arg(command)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", home)
        .env("TMPDIR", home)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Starts the daemon after a close look; then says `hello` to it and returns all it said.
async fn start(login: &[&str], home: &Path, image: &DaemonImage) -> Result<Vec<u8>, LaunchFault> {
    look(Look::Close, login, home, image).await.map(|(said, _)| said)
}

async fn look(
    look: Look,
    login: &[&str],
    home: &Path,
    image: &DaemonImage,
) -> Result<(Vec<u8>, Found), LaunchFault> {
    run(&remote_command(image, look).unwrap(), login, home, image).await
}

async fn run(
    command: &str,
    login: &[&str],
    home: &Path,
    image: &DaemonImage,
) -> Result<(Vec<u8>, Found), LaunchFault> {
    let mut child = shell(login, home, command);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    let noise = tokio::spawn(async move {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text).await;
        text
    });
    let found = start_daemon(&mut stdin, &mut stdout, image, deadline).await?;
    let _ = stdin.write_all(b"hello").await;
    drop(stdin);
    let mut said = Vec::new();
    stdout.read_to_end(&mut said).await.unwrap();
    assert_eq!(noise.await.unwrap(), "", "nothing on stderr under {login:?}");
    Ok((said, found))
}

const SAID: &[u8] = b"RMPI-READY\nbinary\x01 a b|RMPI-READY\nbinary\x01 --c=d|hello";

fn installed(program: &str) -> bool {
    ["/bin", "/usr/bin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(program).exists())
}

#[tokio::test]
async fn every_login_shell_starts_it() {
    let shells: [&[&str]; 9] = [
        &["sh", "-c"],
        &["bash", "-c"],
        &["dash", "-c"],
        &["zsh", "-c"],
        &["ksh", "-c"],
        &["fish", "-c"],
        &["tcsh", "-c"],
        &["csh", "-c"],
        &["busybox", "sh", "-c"],
    ];
    for login in shells {
        if !installed(login[0]) {
            eprintln!("skipped: {} is not installed", login[0]);
            continue;
        }
        let home = scratch(login[0]);
        let image = large();
        for (round, by, expected) in [
            ("pushed", Look::Quick, Found::Checked),
            ("cached", Look::Quick, Found::ByName),
            ("checked", Look::Close, Found::Checked),
        ] {
            let said = look(by, login, &home, &image).await;
            let (said, found) = said.unwrap_or_else(|e| panic!("{login:?} {round}: {e}"));
            assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(SAID), "{login:?} {round}");
            assert_eq!(found, expected, "{login:?} {round}");
        }
        let cached = std::fs::read_dir(home.join(".cache/rmpirun")).unwrap().count();
        assert_eq!(cached, 1, "nothing but the daemon is left behind");
    }
}

#[tokio::test]
async fn busybox_tools_do() {
    if !installed("busybox") {
        eprintln!("skipped: busybox is not installed");
        return;
    }
    let (home, bin) = (scratch("applets"), scratch("applets-bin"));
    let tools = [
        "uname",
        "id",
        "ls",
        "wc",
        "sha256sum",
        "mkdir",
        "chmod",
        "rm",
        "df",
        "tail",
        "head",
        "mv",
        "find",
        "cat",
    ];
    for tool in tools {
        let busybox = if Path::new("/bin/busybox").exists() { "/bin/busybox" } else { "/usr/bin/busybox" };
        std::os::unix::fs::symlink(busybox, bin.join(tool)).unwrap();
    }
    let login = format!("PATH={}; export PATH; eval \"$0\"", bin.display());
    let said = start(&["busybox", "sh", "-c", &login], &home, &large()).await.unwrap();
    assert_eq!(said, SAID);
}

#[tokio::test]
async fn banners_are_skipped_and_quoted() {
    let home = scratch("banner");
    let noisy = ["sh", "-c", "echo Welcome; printf 'no end of line'; exec sh -c \"$0\""];
    assert_eq!(start(&noisy, &home, &large()).await.unwrap(), SAID);
    let closed = ["sh", "-c", "echo This account is closed.; exit 1"];
    let fault = start(&closed, &home, &large()).await.unwrap_err();
    assert_eq!(fault.stage, Stage::Shell);
    assert!(fault.what.ends_with("it printed \"This account is closed.\""), "{fault}");
    let endless = ["sh", "-c", "yes $(printf '%0999d' 1)"];
    let fault = start(&endless, &home, &large()).await.unwrap_err();
    assert!(fault.what.starts_with("the login shell prints without end"), "{fault}");
}

#[tokio::test]
async fn files_of_others_are_never_run() {
    let evil = "#!/bin/sh\necho evil\n";
    let image = large();
    let ImageSource::Pushed { hash, .. } = &image.source else { panic!("pushed") };
    let home = scratch("others");
    let cache = home.join(".cache/rmpirun");
    let place = |mode: u32| {
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::write(cache.join(format!("rmpid-{hash}")), evil).unwrap();
        let set = |p: &Path, m| std::fs::set_permissions(p, PermissionsExt::from_mode(m)).unwrap();
        set(&cache.join(format!("rmpid-{hash}")), mode);
        set(&cache, 0o700);
    };
    // A folder or a file of somebody else is not even looked into, whatever it is called.
    if nix::unistd::geteuid().is_root() {
        for theirs in [cache.clone(), cache.join(format!("rmpid-{hash}"))] {
            place(0o755);
            std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
            let (said, found) = look(Look::Quick, &["sh", "-c"], &home, &image).await.unwrap();
            assert_eq!((said.as_slice(), found), (SAID, Found::Checked), "{}", theirs.display());
            std::fs::remove_dir_all(&cache).unwrap();
            let _ = std::fs::remove_dir_all(home.join("rmpirun-0"));
        }
    }
    // Right name, wrong content: replaced after a close look.
    place(0o755);
    assert_eq!(start(&["sh", "-c"], &home, &image).await.unwrap(), SAID);
    assert!(std::fs::read(cache.join(format!("rmpid-{hash}"))).unwrap().len() > evil.len());
    // A directory others may write to is left alone: the next place is used.
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::remove_file(cache.join(format!("rmpid-{hash}"))).unwrap();
    assert_eq!(start(&["sh", "-c"], &home, &image).await.unwrap(), SAID);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    let second = std::fs::read_dir(&home).unwrap().flatten();
    assert!(second.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("rmpirun-")), "in TMPDIR");
    // So is a link, even to a good place.
    std::fs::remove_dir(&cache).unwrap();
    let elsewhere = scratch("linked");
    std::os::unix::fs::symlink(&elsewhere, &cache).unwrap();
    assert_eq!(start(&["sh", "-c"], &home, &image).await.unwrap(), SAID);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// A login shell in which every candidate is a file system mounted with `options`; `None` where mounting is
/// not permitted.
fn mounted(options: &str) -> Option<String> {
    let mut script = String::new();
    for dir in ["/tmp", "/var/tmp", "/dev/shm"] {
        script.push_str(&format!("mount -t tmpfs -o {options} none {dir} && "));
    }
    let allowed = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{script} true")])
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|s| s.success()) {
        eprintln!("skipped: file systems cannot be mounted here");
        return None;
    }
    Some(format!("{script} HOME=/tmp/home exec sh -c \"$0\""))
}

#[tokio::test]
async fn nowhere_to_run_and_nowhere_to_write_are_said() {
    let home = scratch("nowhere");
    let Some(noexec) = mounted("noexec") else { return };
    let fault = start(&["unshare", "-m", "sh", "-c", &noexec], &home, &large()).await.unwrap_err();
    assert_eq!(fault.stage, Stage::Daemon);
    assert!(fault.what.contains("no place for the daemon on this host"), "{fault}");
    assert!(fault.what.contains("noexec"), "{fault}");
    let Some(full) = mounted("size=1m") else { return };
    let fault = start(&["unshare", "-m", "sh", "-c", &full], &home, &large()).await.unwrap_err();
    assert!(fault.what.contains("KiB free"), "{fault}");
    let Some(tight) = mounted("size=4m") else { return };
    // Full by the time it is written: df is made to lie.
    let lying = format!("df() {{ echo; echo fs 9 9 999999 9 9; }}; {}", "eval \"$1\"");
    let command = tight.replace(
        "exec sh -c \"$0\"",
        &format!("exec sh -c '{lying}' sh \"$(echo \"$0\" | sed \"s/^exec .bin.sh -c .//; s/.$//\")\""),
    );
    let big = image(format!("{DAEMON}exit\n{}", "x".repeat(6 << 20)).as_bytes());
    let fault = start(&["unshare", "-m", "sh", "-c", &command], &home, &big).await.unwrap_err();
    assert!(fault.what.contains("cannot be written to") && fault.what.contains("No space left"), "{fault}");
}

#[tokio::test]
async fn a_read_only_or_noexec_home_is_survived() {
    let home = scratch("read-only");
    for options in ["ro", "noexec"] {
        let script = format!("mount -t tmpfs -o {options} none \"$HOME\" && exec sh -c \"$0\"");
        if mounted("rw").is_none() {
            return;
        }
        let tmp = scratch("tmp");
        let login = format!("TMPDIR={}; export TMPDIR; {script}", tmp.display());
        let said = start(&["unshare", "-m", "sh", "-c", &login], &home, &large()).await;
        assert_eq!(said.unwrap_or_else(|e| panic!("{options}: {e}")), SAID);
    }
}

#[tokio::test]
async fn installed_daemons_are_used_or_missed() {
    let home = scratch("installed");
    let path = home.join("my rmpid");
    std::fs::write(&path, DAEMON).unwrap();
    let image = |p: &str| DaemonImage { source: ImageSource::Installed(p.into()), words: vec!["x".into()] };
    let fault = start(&["sh", "-c"], &home, &image("~/my rmpid")).await.unwrap_err();
    assert!(fault.what.contains("is not executable"), "{fault}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let said = start(&["sh", "-c"], &home, &image("~/my rmpid")).await.unwrap();
    assert_eq!(said, b"RMPI-READY\nbinary\x01 x|hello");
    let fault = start(&["sh", "-c"], &home, &image("/no/such/rmpid")).await.unwrap_err();
    assert_eq!((fault.stage, fault.what.as_str()), (Stage::Daemon, "no daemon at /no/such/rmpid"));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let mut child = shell(&["sh", "-c", "sleep 60"], Path::new("/"), "");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let deadline = Instant::now() + Duration::from_millis(100);
    let fault = start_daemon(&mut stdin, &mut stdout, &large(), deadline).await.unwrap_err();
    assert_eq!((fault.stage, fault.retry), (Stage::Shell, true), "{fault}");
    child.kill().await.unwrap();
}

#[test]
fn other_machines_are_told_before_anything_is_sent() {
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 183;
    for (theirs, fits) in [("aarch64", true), ("arm64", true), ("x86_64", false)] {
        let mut dialogue = Dialogue::new(&image(&elf));
        let steps: Vec<Step> =
            format!("motd\nRMPI-HOST {theirs}\n").bytes().map(|b| dialogue.byte(b)).collect();
        match steps.last().unwrap() {
            Step::Read => assert!(fits, "{theirs}"),
            Step::Failed(f) => {
                assert!(!fits);
                assert_eq!(f.what, "the daemon is built for aarch64, the host is x86_64");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Pods of one image: the launcher's own path is tried first and nothing is sent; where there is no program at it, or
/// another build answers, the daemon comes the usual way.
#[tokio::test]
async fn our_own_program_at_its_path_is_the_daemon() {
    let (home, image) = (scratch("same"), large());
    let path = home.join("rmpirun");
    let own = path.to_str().unwrap();
    let ask = async |by: Look| {
        let command = command_of(&image, by, Some(own)).unwrap();
        let (said, found) = run(&command, &["sh", "-c"], &home, &image).await.unwrap();
        (String::from_utf8(said).unwrap(), found)
    };
    let cache = home.join(".cache/rmpirun");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let pushed = (String::from_utf8(SAID.to_vec()).unwrap(), Found::Checked);
    std::fs::write(&path, "#!/bin/sh\necho \"own $@\"; cat\n").unwrap();
    mode(0o755);
    assert_eq!(ask(Look::SameImage).await, ("own __rmpid\nhello".to_owned(), Found::ByName));
    assert!(!cache.exists(), "nothing was sent");
    // Its hello was not ours: a close look takes no notice of it.
    assert_eq!(ask(Look::Close).await, pushed);
    std::fs::remove_dir_all(&cache).unwrap();
    mode(0o644);
    assert_eq!(ask(Look::SameImage).await, pushed, "it cannot be run");
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(Look::SameImage).await, pushed, "it is not there");
    let hidden = command_of(&image, Look::SameImage, Some("/opt/$(x)/rmpirun")).unwrap();
    assert!(!hidden.contains("$(x)"), "a path that a shell would read otherwise is left alone");
}

#[test]
fn commands_survive_every_quoting() {
    for image in
        [large(), DaemonImage { source: ImageSource::Installed("/opt/x y/rmpid".into()), words: vec![] }]
    {
        let command = command_of(&image, Look::SameImage, Some("/opt/rmpirun/bin/rmpirun")).unwrap();
        let inner = command.strip_prefix("exec /bin/sh -c '").unwrap().strip_suffix('\'').unwrap();
        assert!(!inner.contains(['\'', '!', '\\', '\n', '`']), "{inner}");
        assert!(command.len() < 4000, "{} bytes: some shells take no more", command.len());
    }
    for bad in ["", "a'b", "$(x)", "a\"b", "a\\b", "a\nb", "a!b", "a;b", "a`b"] {
        let image = DaemonImage { source: ImageSource::Installed("/r".into()), words: vec![bad.into()] };
        assert!(remote_command(&image, Look::Quick).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn hosts_may_say_anything(bytes in proptest::collection::vec(any::<u8>(), 0..600), lines in proptest::collection::vec(0usize..5, 0..6)) {
        let image = large();
        let ImageSource::Pushed { hash, .. } = &image.source else { panic!("pushed") };
        let markers = ["RMPI-HOST x86_64".to_owned(), format!("RMPI-NEED {hash}"), "RMPI-NEED other".into(), "RMPI-FAIL \u{7}why".into(), "RMPI-READY".into()];
        let mut dialogue = Dialogue::new(&image);
        let mut text = bytes;
        for l in &lines {
            text.push(b'\n');
            text.extend_from_slice(markers[*l].as_bytes());
        }
        text.push(b'\n');
        let mut host = false;
        for (i, b) in text.iter().enumerate() {
            host |= text[..i].ends_with(b"\nRMPI-HOST x86_64");
            match dialogue.byte(*b) {
                Step::Read => {}
                Step::Push => prop_assert!(host),
                Step::Ready | Step::Failed(_) => { prop_assert!(host); break }
            }
        }
        let end = dialogue.end(Ending::Closed);
        prop_assert!(!end.what.contains(char::is_control));
    }
}
