//! Asking for a passphrase on the terminal of the process, whatever its standard streams are.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How a passphrase for a key file is got: the file and how many wrong ones came before; `None` gives up.
/// Called on a thread that may block, one call at a time.
pub type Ask = Arc<dyn Fn(&Path, u32) -> Option<Zeroizing<String>> + Send + Sync>;

/// Asks on `/dev/tty`; `None` when this process has no terminal.
#[must_use]
pub fn ask_on_terminal() -> Option<Ask> {
    open_terminal().ok()?;
    Some(Arc::new(|path, attempt| {
        let again = if attempt == 0 { "" } else { "wrong, " };
        question(&format!("{again}passphrase for {}: ", path.display())).ok().filter(|p| !p.is_empty())
    }))
}

fn open_terminal() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// Puts the terminal back as it was, whatever happens.
struct Quiet<'a>(&'a File, Termios);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, SetArg::TCSAFLUSH, &self.1);
    }
}

fn question(text: &str) -> std::io::Result<Zeroizing<String>> {
    let tty = open_terminal()?;
    let before = tcgetattr(&tty)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    let quiet = Quiet(&tty, before);
    tcsetattr(&tty, SetArg::TCSAFLUSH, &silent)?;
    (&tty).write_all(text.as_bytes())?;
    let mut line = Zeroizing::new(String::new());
    let read = BufReader::new(&tty).read_line(&mut line);
    drop(quiet);
    (&tty).write_all(b"\n")?;
    read?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}
