//! A terminal as a user has it: a pseudo-terminal with a job-controlling shell on it, keys to press and a screen to
//! look at.

use crate::procs;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shell's prompt.
const PROMPT: &str = "ready> ";

/// A terminal with a shell.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    path: PathBuf,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Where the next look begins.
    seen: usize,
    shell: Child,
}

impl Terminal {
    /// Opens it, `bin` first in the shell's search path.
    ///
    /// # Panics
    /// When there is no terminal, no `setsid` or no `bash` to be had.
    #[must_use]
    pub fn open(bin: &std::path::Path) -> Self {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let path = nix::unistd::ttyname(&pty.slave).expect("it has a name");
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor of ours");
        }
        let slave = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let search = std::env::var("PATH").unwrap_or_default();
        // Tests that run in the background inherit ignored signals, which no shell can give back.
        let shell = Command::new("env")
            .args(["--default-signal=HUP,INT,QUIT", "setsid", "--ctty"])
            .args(["bash", "--norc", "--noprofile", "--noediting", "-i"])
            .env("PS1", PROMPT)
            .env("TERM", "dumb")
            .env("PATH", format!("{}:{search}", bin.display()))
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid and bash are installed");
        let keys = File::from(pty.master);
        let mut output = keys.try_clone().expect("a descriptor");
        let screen = Arc::<Mutex<Vec<u8>>>::default();
        let shown = Arc::clone(&screen);
        // Ends when the terminal does: every process on it is gone then.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                lock(&shown).extend_from_slice(&buffer[..n]);
            }
        });
        let mut terminal = Self { keys, path, screen, seen: 0, shell };
        terminal.see(PROMPT);
        terminal
    }

    /// Presses keys: text, `\n` for Enter, `\x03` for Ctrl-C, `\x1a` for Ctrl-Z.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Runs a command line; its own echo is not looked at any more.
    pub fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
        self.see(&format!("{line}\r\n"));
    }

    /// Waits until this appears after all that was seen before; gives what came before it.
    ///
    /// # Panics
    /// When it does not, with the screen.
    pub fn see(&mut self, text: &str) -> String {
        let from = self.seen;
        let find = |screen: &[u8]| {
            screen[from..].windows(text.len()).position(|w| w == text.as_bytes()).map(|at| from + at)
        };
        let mut at = None;
        let came = procs::until(PATIENCE, || {
            at = find(&lock(&self.screen));
            at.is_some()
        });
        let screen = lock(&self.screen);
        assert!(came, "'{text}' did not appear after: {}", String::from_utf8_lossy(&screen[from..]));
        let at = at.unwrap_or_default();
        self.seen = at + text.len();
        String::from_utf8_lossy(&screen[from..at]).into_owned()
    }

    /// Waits for the prompt and gives what came before it.
    pub fn prompt(&mut self) -> String {
        self.see(PROMPT)
    }

    /// The exit code of the last command.
    ///
    /// # Panics
    /// When the shell says no number.
    pub fn code(&mut self) -> u8 {
        self.enter("echo code $?.");
        self.see("code ");
        let code = self.see(".");
        self.prompt();
        code.parse().expect("a number")
    }

    /// Gives the window another size, as the user's window manager does.
    ///
    /// # Panics
    /// Without `stty`.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = ["rows", &rows.to_string(), "cols", &columns.to_string()].map(str::to_owned);
        let done = Command::new("stty").arg("-F").arg(&self.path).args(size).status();
        assert!(done.is_ok_and(|s| s.success()), "stty");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn lock(screen: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
