//! The dialogue with the start script as a pure machine: lines in, steps out. Everything a remote shell prints
//! is untrusted: bounded, and quoted without control characters.

use super::{DaemonImage, ImageSource};
use rmpi_types::{LaunchFault, Stage};
use std::time::Duration;

/// Longest line that is looked at, and most that may come before the first marker, in bytes.
const MAX_LINE: usize = 4 << 10;
const MAX_BANNER: usize = 256 << 10;
/// Characters of a banner or failure that are quoted.
const QUOTED: usize = 240;

/// What to do after a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read on.
    Read,
    /// Send the daemon's bytes, reading on meanwhile.
    Push,
    /// The next byte is the daemon's.
    Ready,
    /// It will not start.
    Failed(LaunchFault),
}

/// How the stream ended before the daemon was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of file.
    Closed,
    /// Nothing more within this time.
    Late(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No marker yet.
    Banner,
    /// The script is running.
    Script,
    /// The daemon's bytes were asked for.
    Pushing,
}

/// What a host says of its machine when it has not looked: it found the daemon at once.
const AT_ONCE: &str = "-";

/// The launcher's half of the dialogue.
#[derive(Clone, Debug)]
pub struct Dialogue {
    state: State,
    /// What the program is built for, as `uname -m` says it; `None` if it cannot be told.
    built_for: Option<&'static str>,
    hash: Option<std::sync::Arc<str>>,
    line: Vec<u8>,
    /// Last lines of the banner.
    banner: String,
    seen: usize,
    at_once: bool,
}

impl Dialogue {
    /// Waits for the first marker.
    #[must_use]
    pub fn new(image: &DaemonImage) -> Self {
        let (built_for, hash) = match &image.source {
            ImageSource::Installed(_) => (None, None),
            ImageSource::Pushed { bytes, hash } => (machine(bytes), Some(hash.clone())),
        };
        Self {
            state: State::Banner,
            built_for,
            hash,
            line: Vec::new(),
            banner: String::new(),
            seen: 0,
            at_once: false,
        }
    }

    /// Whether the daemon was run by its name and owner alone ([`super::Look::Quick`]).
    #[must_use]
    pub fn at_once(&self) -> bool {
        self.at_once
    }

    /// Takes one byte of the remote's standard output. Not to be called after [`Step::Ready`] or
    /// [`Step::Failed`].
    pub fn byte(&mut self, byte: u8) -> Step {
        if byte != b'\n' {
            self.seen += 1;
            if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
            if self.seen > MAX_BANNER {
                let what = format!("the login shell prints without end{}", self.quote());
                return Step::Failed(LaunchFault::fatal(Stage::Shell, what));
            }
            return Step::Read;
        }
        let line = std::mem::take(&mut self.line);
        self.whole_line(String::from_utf8_lossy(&line).trim_end())
    }

    fn whole_line(&mut self, line: &str) -> Step {
        let (marker, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (marker, self.state) {
            ("RMPI-HOST", State::Banner) => {
                self.state = State::Script;
                self.at_once = rest.trim() == AT_ONCE;
                if self.at_once { Step::Read } else { self.check_machine(rest.trim()) }
            }
            ("RMPI-NEED", State::Script) if self.hash.as_deref() == Some(rest.trim()) => {
                self.state = State::Pushing;
                Step::Push
            }
            ("RMPI-READY", State::Script | State::Pushing) => Step::Ready,
            ("RMPI-FAIL", State::Script | State::Pushing) => {
                Step::Failed(LaunchFault::fatal(Stage::Daemon, tame(rest)).hint(HINT))
            }
            (_, State::Banner) => {
                self.keep(line);
                Step::Read
            }
            // Tools of the host may say something in between; it does not change what follows.
            (_, State::Script | State::Pushing) => Step::Read,
        }
    }

    fn check_machine(&self, theirs: &str) -> Step {
        let same = |ours: &str| match theirs {
            "amd64" => ours == "x86_64",
            "arm64" => ours == "aarch64",
            other => ours == other,
        };
        match self.built_for {
            Some(ours) if !same(ours) => {
                let what = format!("the daemon is built for {ours}, the host is {}", tame(theirs));
                Step::Failed(LaunchFault::fatal(Stage::Daemon, what).hint(HINT))
            }
            _ => Step::Read,
        }
    }

    fn keep(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if !self.banner.is_empty() {
            self.banner.push_str(" | ");
        }
        self.banner.push_str(line.trim());
        let surplus = self.banner.chars().count().saturating_sub(QUOTED);
        if surplus > 0 {
            self.banner = self.banner.chars().skip(surplus).collect();
        }
    }

    /// What was printed so far, as the end of a message.
    fn quote(&self) -> String {
        let mut all = self.clone();
        let rest = String::from_utf8_lossy(&self.line).into_owned();
        all.keep(&rest);
        let text = tame(&all.banner);
        if text.is_empty() { String::new() } else { format!("; it printed \"{text}\"") }
    }

    /// The fault when the stream ends, or nothing more comes, before the daemon is there.
    #[must_use]
    pub fn end(&self, ending: Ending) -> LaunchFault {
        match (self.state, ending) {
            (State::Banner, Ending::Closed) => {
                let what = format!("the login shell ended without running the start command{}", self.quote());
                LaunchFault::fatal(Stage::Shell, what)
            }
            (State::Banner, Ending::Late(limit)) => {
                let what =
                    format!("no answer of the login shell within {} s{}", limit.as_secs_f32(), self.quote());
                LaunchFault::passing(Stage::Shell, what)
            }
            (State::Script | State::Pushing, Ending::Closed) => {
                LaunchFault::passing(Stage::Daemon, "the connection ended before the daemon was started")
            }
            (State::Script, Ending::Late(limit)) => {
                let what = format!("the daemon was not found or started within {} s", limit.as_secs_f32());
                LaunchFault::passing(Stage::Daemon, what)
            }
            (State::Pushing, Ending::Late(limit)) => {
                let what = format!("the daemon could not be sent within {} s", limit.as_secs_f32());
                LaunchFault::passing(Stage::Daemon, what)
            }
        }
    }
}

/// What helps against most failures of finding a place.
const HINT: &str = "install rmpid there and name it with --daemon path:PATH";

/// Text of a host, fit for one line of a message.
fn tame(text: &str) -> String {
    text.trim().chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a program is built for, as `uname -m` says it (ELF header, `e_machine`).
fn machine(program: &[u8]) -> Option<&'static str> {
    let header = program.get(..20).filter(|h| h.starts_with(b"\x7fELF"))?;
    let (class, little) = (header[4], header[5] == 1);
    let raw = [header[18], header[19]];
    let number = if little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) };
    match (number, class, little) {
        (62, 2, true) => Some("x86_64"),
        (183, 2, true) => Some("aarch64"),
        (243, 2, true) => Some("riscv64"),
        (21, 2, true) => Some("ppc64le"),
        (22, 2, false) => Some("s390x"),
        _ => None,
    }
}
