//! The `rmpi` command as the demo and tests use it: keys, several addresses in one process, its end.

use rmpi_ssh::Target;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn rmpi() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rmpi"))
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("rmpi-tool-{name}.{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    dir
}

fn keygen(file: &Path) -> bool {
    rmpi().arg("keygen").arg(file).stderr(Stdio::null()).status().expect("rmpi runs").success()
}

fn serve(dir: &Path, listen: &[&str]) -> (Child, Vec<String>) {
    let mut command = rmpi();
    command.arg("serve").arg("--host-key").arg(dir.join("host")).arg("--until-eof");
    command.arg("--authorized-keys").arg(dir.join("id.pub"));
    for address in listen {
        command.args(["--listen", address]);
    }
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rmpi serve starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let lines = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("listening ").map(str::to_owned));
    let addresses = lines.take(listen.len()).collect();
    (child, addresses)
}

#[test]
fn several_addresses_are_several_nodes_until_input_ends() {
    let dir = scratch("serve");
    assert!(keygen(&dir.join("host")) && keygen(&dir.join("id")));
    assert!(!keygen(&dir.join("id")), "a key is never overwritten");
    let (mut child, addresses) = serve(&dir, &["127.0.0.2:0", "127.0.0.3:0"]);
    assert_eq!(addresses.len(), 2);
    let reach = rmpi_types::spec::Reach {
        ssh_config: Some("none".into()),
        host_keys: Some(rmpi_types::spec::HostKeys::AcceptNew),
        identities: vec![dir.join("id")],
        ssh_options: vec![
            ("UserKnownHostsFile".into(), dir.join("known").display().to_string()),
            ("IdentityAgent".into(), "none".into()),
        ],
        ..Default::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ids: Vec<String> = runtime.block_on(async {
        use tokio::io::AsyncReadExt as _;
        let connector = rmpi_ssh::Connector::new(&reach, None);
        let mut ids = Vec::new();
        for address in &addresses {
            let target = Target::parse(&format!("someone@{address}")).expect("an address");
            let session = connector.connect(&target, &|_| {}).await.expect("connects");
            let mut process = session.exec("printf %s \"$RMPI_NODE_ID\"").await.expect("runs");
            let mut id = String::new();
            process.stdout.read_to_string(&mut id).await.expect("reads");
            ids.push(id);
        }
        ids
    });
    assert!(ids[0].ends_with("-0") && ids[1].ends_with("-1"), "{ids:?}");
    assert_eq!(ids[0].strip_suffix("-0"), ids[1].strip_suffix("-1"), "one process");
    drop(child.stdin.take());
    assert!(child.wait().expect("waits").success());
}

#[test]
fn wrong_words_and_files_are_said() {
    let dir = scratch("wrong");
    let run = |words: &[&str]| {
        let mut child =
            rmpi().args(words).current_dir(&dir).stderr(Stdio::piped()).spawn().expect("rmpi runs");
        let mut text = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut text).expect("reads");
        (child.wait().expect("waits").code(), text)
    };
    assert!(keygen(&dir.join("host")));
    assert_eq!(run(&["surf"]).0, Some(2));
    let words = ["serve", "--listen", "127.0.0.1:0", "--host-key", "none", "--authorized-keys", "host.pub"];
    let (code, text) = run(&words);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("rmpi: key file none:"), "{text}");
    std::fs::write(dir.join("empty"), "# nobody\n").expect("writes");
    let words = ["serve", "--listen", "127.0.0.1:0", "--host-key", "host", "--authorized-keys", "empty"];
    assert!(run(&words).1.contains("nobody could log in"));
}
