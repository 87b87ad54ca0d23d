//! Commands of the embedded server: `/bin/sh -c` in a process group of its own with a small environment, its
//! three pipes carried over the channel. The end of the channel or connection closes the pipes and kills
//! nothing, as OpenSSH does without a terminal; exit status or signal go back after the last output byte.

use super::{Faults, ServerOptions, Socket};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;

/// Variables of the server that commands inherit; all others are made or left out.
const INHERITED: [&str; 7] = ["HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "LANG", "TZ", "LLVM_PROFILE_FILE"];

/// A command to run.
pub(crate) struct Command {
    /// As the client sent it.
    pub(crate) text: Vec<u8>,
    /// The name the client logged in with.
    pub(crate) user: String,
}

/// What a launcher's command that looks for its daemon begins with, and what it prints before it runs the daemon.
const BOOTSTRAP: &[u8] = b"exec /bin/sh -c 'echo; ";
const READY: &[u8] = b"echo RMPI-READY; exec ";

/// What the server says in the daemon's name before it; empty for any other command.
pub(crate) fn preface(options: &ServerOptions, command: &Command) -> String {
    let asked = command.text.starts_with(BOOTSTRAP) && command.text.windows(READY.len()).any(|w| w == READY);
    match &options.daemon {
        Some(_) if asked => format!("\nRMPI-HOST {}\nRMPI-READY\n", std::env::consts::ARCH),
        _ => String::new(),
    }
}

/// Starts the command, or the daemon if that is what the command is to find.
pub(crate) fn start(options: &ServerOptions, command: &Command) -> io::Result<Child> {
    let mut sh = match &options.daemon {
        Some((program, words)) if !preface(options, command).is_empty() => {
            let mut daemon = tokio::process::Command::new(program);
            daemon.args(words);
            daemon
        }
        _ => {
            let mut sh = tokio::process::Command::new("/bin/sh");
            sh.arg("-c").arg(OsStr::from_bytes(&command.text));
            sh
        }
    };
    sh.process_group(0).kill_on_drop(false);
    sh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !options.inherit {
        sh.env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                sh.env(name, value);
            }
        }
    }
    if let Some(home) = std::env::var_os("HOME").filter(|_| !options.inherit) {
        sh.current_dir(if std::path::Path::new(&home).is_dir() { home } else { "/".into() });
    }
    sh.env("USER", &command.user).env("LOGNAME", &command.user).env("SHELL", "/bin/sh");
    sh.env("SSH_CONNECTION", "embedded");
    if let Some(id) = &options.node_id {
        sh.env("RMPI_NODE_ID", id);
    }
    sh.envs(options.env.iter().map(|(k, v)| (k, v)));
    sh.spawn()
}

/// Carries a started command's streams until it has ended and its output is sent.
pub(crate) async fn carry(
    mut child: Child,
    preface: String,
    channel: Channel<Msg>,
    handle: Handle,
    socket: Socket,
    faults: Faults,
) {
    let id = channel.id();
    let (from, to) = channel.split();
    let (gone, mut is_gone) = watch::channel(false);
    let stdin = child.stdin.take();
    tokio::spawn(feed(from, stdin, gone));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async {
        if let Some(line) = &faults.banner_line {
            let _ = to.data_bytes(format!("{line}\n").into_bytes()).await;
        }
        if !preface.is_empty() {
            let _ = to.data_bytes(preface.into_bytes()).await;
        }
        tokio::join!(send(stdout, &to, None, faults.drop_after), send(stderr, &to, Some(1), None)).0
    };
    // A silent command would hold its pipes open for ever after the client has gone: closing them is how a
    // daemon learns that its launcher is lost.
    let cut = tokio::select! {
        cut = output => cut,
        _ = is_gone.wait_for(|g| *g) => false,
    };
    if cut {
        drop(to);
        if let Some(socket) = socket.upgrade() {
            let _ = socket.0.shutdown(std::net::Shutdown::Both);
        }
    }
    let Ok(status) = child.wait().await else { return };
    report(&handle, id, status).await;
}

async fn report(handle: &Handle, id: russh::ChannelId, status: ExitStatus) {
    let sent = match (status.code(), status.signal()) {
        (Some(code), _) => handle.exit_status_request(id, u32::try_from(code).unwrap_or(255)).await,
        (None, Some(signal)) => {
            let name = signal_name(signal);
            handle.exit_signal_request(id, name, status.core_dumped(), String::new(), String::new()).await
        }
        (None, None) => Ok(()),
    };
    if sent.is_ok() {
        let _ = handle.eof(id).await;
        let _ = handle.close(id).await;
    }
}

/// RFC 4254 names of signals, without `SIG`.
fn signal_name(signal: i32) -> Sig {
    let name = nix::sys::signal::Signal::try_from(signal).map_or("TERM", nix::sys::signal::Signal::as_str);
    match name.trim_start_matches("SIG") {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(format!("{other}@rmpi")),
    }
}

/// Client to command: end of input closes the pipe; the end of the channel also says that the client is gone.
async fn feed(mut from: ChannelReadHalf, mut stdin: Option<ChildStdin>, gone: watch::Sender<bool>) {
    while let Some(msg) = from.wait().await {
        match msg {
            ChannelMsg::Data { data } => {
                // A command that does not read its input is no error; the rest is thrown away.
                if let Some(pipe) = stdin.as_mut()
                    && (pipe.write_all(&data).await.is_err() || pipe.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            ChannelMsg::Eof => stdin = None,
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    gone.send_replace(true);
}

/// Command to client; true when the connection is to be cut.
async fn send(
    from: Option<impl AsyncRead + Unpin>,
    to: &ChannelWriteHalf<Msg>,
    ext: Option<u32>,
    mut allowed: Option<u64>,
) -> bool {
    let Some(mut from) = from else { return false };
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return false };
        let n = allowed.map_or(n, |a| n.min(usize::try_from(a).unwrap_or(usize::MAX)));
        let data = bytes::Bytes::copy_from_slice(&buffer[..n]);
        let sent = match ext {
            None => to.data_bytes(data).await,
            Some(ext) => to.extended_data_bytes(ext, data).await,
        };
        if sent.is_err() {
            return false;
        }
        if let Some(left) = allowed.as_mut() {
            *left -= n as u64;
            if *left == 0 {
                return true;
            }
        }
    }
}
