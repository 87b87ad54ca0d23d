//! Where the daemon comes from: the same for hosts it is pushed to and for this machine.

use crate::bootstrap::{DaemonImage, ImageSource};
use ring::digest::{SHA256, digest};
use rmpi_daemon::HIDDEN_WORD;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that is started on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DaemonSource {
    /// The file `rmpid` beside this executable.
    #[default]
    Beside,
    /// Installed at this path on every host; nothing is pushed.
    Path(PathBuf),
    /// This local file, pushed to hosts that do not have it.
    File(PathBuf),
    /// These bytes (`include_bytes!`), pushed to hosts that do not have them.
    Bytes(&'static [u8]),
    /// This executable; its `main` must begin with [`crate::daemon_if_asked`]. What is pushed to other hosts is
    /// the smaller `rmpid` beside it, if there is one.
    ThisExecutable,
}

/// This very file, even if another has taken its name.
const OWN: &str = "/proc/self/exe";

fn beside() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("rmpid"))
}

/// The resolved source.
#[derive(Debug)]
pub(crate) enum Image {
    /// Installed on the hosts.
    Installed(PathBuf),
    /// To be pushed.
    Pushed(Pushed),
}

/// A program to push.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// The local file, for starting it here; `None` for embedded bytes.
    file: Option<PathBuf>,
    embedded: Option<&'static [u8]>,
    /// Words between the program and the daemon's own arguments.
    words: Vec<String>,
    loaded: OnceLock<Result<DaemonImage, String>>,
}

impl Image {
    /// Resolves a source. Reads nothing yet.
    ///
    /// # Errors
    /// The path of this executable is unknown.
    pub(crate) fn resolve(source: &DaemonSource) -> io::Result<Self> {
        let hidden = || vec![HIDDEN_WORD.to_owned()];
        let pushed =
            |file, embedded, words| Self::Pushed(Pushed { file, embedded, words, loaded: OnceLock::new() });
        Ok(match source {
            DaemonSource::Path(path) => Self::Installed(path.clone()),
            DaemonSource::File(path) => pushed(Some(path.clone()), None, Vec::new()),
            DaemonSource::Bytes(bytes) => pushed(None, Some(bytes), Vec::new()),
            DaemonSource::ThisExecutable => {
                if std::env::args_os().nth(1).is_some_and(|word| word == HIDDEN_WORD) {
                    return Err(io::Error::other(
                        "this process was started as a daemon: call daemon_if_asked first in main",
                    ));
                }
                pushed(Some(OWN.into()), None, hidden())
            }
            DaemonSource::Beside => {
                let file = beside()?;
                if !file.is_file() {
                    return Err(io::Error::other(format!("no daemon: {} is not there", file.display())));
                }
                pushed(Some(file), None, Vec::new())
            }
        })
    }

    /// The daemon for other hosts; what is pushed is read and hashed once, when the first host asks.
    ///
    /// # Errors
    /// The file that cannot be read and what the system said.
    pub(crate) fn remote(&self) -> Result<DaemonImage, String> {
        match self {
            Self::Installed(path) => Ok(DaemonImage {
                source: ImageSource::Installed(path.display().to_string()),
                words: Vec::new(),
            }),
            Self::Pushed(pushed) => pushed.load(),
        }
    }

    /// Where the program would be on a host that has the same image as this machine, for daemons that cannot be
    /// pushed.
    ///
    /// # Errors
    /// The path of this executable is unknown.
    pub(crate) fn installed_at(&self) -> io::Result<String> {
        Ok(match self {
            Self::Installed(path) => path.display().to_string(),
            Self::Pushed(Pushed { file: Some(file), .. }) if file != Path::new(OWN) => {
                file.display().to_string()
            }
            Self::Pushed(_) => std::env::current_exe()?.display().to_string(),
        })
    }

    /// Whether the daemon on this machine is this very program: itself, or the build it carries.
    pub(crate) fn is_this_program(&self) -> bool {
        match self {
            Self::Installed(_) => false,
            Self::Pushed(pushed) => pushed.file.as_deref().is_none_or(|file| file == Path::new(OWN)),
        }
    }

    /// A command that runs the daemon on this machine.
    ///
    /// # Errors
    /// Embedded bytes could not be put into a memory file.
    pub(crate) fn local_command(&self) -> io::Result<Command> {
        match self {
            Self::Installed(path) => Ok(Command::new(path)),
            Self::Pushed(Pushed { file: Some(file), words, .. }) => {
                let mut command = Command::new(file);
                command.args(words);
                Ok(command)
            }
            Self::Pushed(pushed) => memory_command(pushed.embedded.unwrap_or_default()),
        }
    }
}

/// A command for a program that is only in memory. The descriptor stays open in this process: the path names
/// it through `/proc`.
fn memory_command(bytes: &[u8]) -> io::Result<Command> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::io::Write as _;
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    static FD: OnceLock<Result<i32, String>> = OnceLock::new();
    let make = || -> io::Result<i32> {
        let mut file = std::fs::File::from(memfd_create(c"rmpid", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(bytes)?;
        // Executing a file open for writing fails (ETXTBSY): keep a read-only descriptor instead.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(std::fs::File::open(path)?.into_raw_fd())
    };
    let fd = FD.get_or_init(|| make().map_err(|e| e.to_string())).clone().map_err(io::Error::other)?;
    Ok(Command::new(format!("/proc/{}/fd/{fd}", std::process::id())))
}

impl Pushed {
    fn load(&self) -> Result<DaemonImage, String> {
        let own = self.file.as_deref() == Some(Path::new(OWN));
        let smaller = if own { beside().ok().filter(|f| f.is_file()) } else { None };
        let words = if smaller.is_some() { Vec::new() } else { self.words.clone() };
        let read = || -> Result<DaemonImage, String> {
            let bytes = match (smaller.as_ref().or(self.file.as_ref()), self.embedded) {
                (Some(file), _) => bytes::Bytes::from(
                    std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?,
                ),
                (None, embedded) => bytes::Bytes::from_static(embedded.unwrap_or_default()),
            };
            let hash: String = digest(&SHA256, &bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect();
            Ok(DaemonImage { source: ImageSource::Pushed { bytes, hash: hash.into() }, words })
        };
        self.loaded.get_or_init(read).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_hashed_and_run_from_memory() {
        let program: &'static [u8] = std::fs::read("/bin/true").unwrap().leak();
        let image = Image::resolve(&DaemonSource::Bytes(program)).unwrap();
        assert!(image.local_command().unwrap().status().unwrap().success());
        let remote = image.remote().unwrap();
        let ImageSource::Pushed { bytes, hash } = remote.source else { panic!("not pushed") };
        assert_eq!((bytes.len(), hash.len()), (program.len(), 64));
    }
}
