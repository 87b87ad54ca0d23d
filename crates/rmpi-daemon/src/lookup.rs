//! Finding the program and the working directory of ranks before anything starts, with faults that name the
//! cause: not found (127), not executable (126), no such explicit working directory (125).

use crate::passwd;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};
use rmpi_types::launch::AppLaunch;
use rmpi_types::{LaunchFault, Stage, exit};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a rank starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its directory.
    pub(crate) wdir: PathBuf,
    /// A line for the user when that is not the one meant.
    pub(crate) note: Option<String>,
}

fn fault(what: String, code: u8) -> LaunchFault {
    LaunchFault::fatal(Stage::Exec, what).code(code)
}

/// The working directory: as given, or the home directory when a directory that nobody gave is missing.
///
/// # Errors
/// An explicitly given directory that cannot be used.
pub(crate) fn wdir(app: &AppLaunch, home: &Path) -> Result<Place, LaunchFault> {
    let wanted = PathBuf::from(&app.wdir);
    let why = match fs::metadata(&wanted) {
        Ok(meta) if !meta.is_dir() => "is not a directory",
        Ok(_) if access(&wanted, AccessFlags::X_OK).is_err() => "may not be entered",
        Ok(_) => return Ok(Place { wdir: wanted, note: None }),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => "may not be entered",
        Err(_) => "does not exist",
    };
    if app.wdir_explicit {
        return Err(fault(format!("working directory {} {why}", wanted.display()), exit::NO_WDIR));
    }
    let wdir = if home.is_dir() { home.to_owned() } else { PathBuf::from("/") };
    let note = format!("working directory {} {why}; using {}", wanted.display(), wdir.display());
    Ok(Place { wdir, note: Some(note) })
}

/// What to give `execve` after changing to `wdir`.
///
/// # Errors
/// Why the program cannot be started.
pub fn program(app: &AppLaunch, path: Option<&OsStr>, wdir: &Path) -> Result<PathBuf, LaunchFault> {
    let name = app.program.to_string_lossy();
    if app.program.as_bytes().contains(&b'/') {
        let found = PathBuf::from(&app.program);
        return match fs::metadata(wdir.join(&found)) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(fault(format!("{name}: no permission to reach it"), exit::NOT_EXECUTABLE))
            }
            Err(_) => {
                let fault = fault(format!("{name}: not found"), exit::NOT_FOUND);
                Err(if found.is_relative() {
                    fault.hint(format!("working directory {}", wdir.display()))
                } else {
                    fault
                })
            }
            Ok(_) => check(&name, &wdir.join(&found), wdir).map(|()| found),
        };
    }
    if app.program.is_empty() {
        return Err(fault("no program given".into(), exit::NOT_FOUND));
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    let listed = path.as_bytes().split(|&b| b == b':').map(|d| PathBuf::from(OsStr::from_bytes(d)));
    let dirs = app.search.iter().map(PathBuf::from).chain(listed).chain([PathBuf::from(".")]);
    let mut refused = None;
    for dir in dirs {
        let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir };
        let found = dir.join(&app.program);
        let whole = wdir.join(&found);
        if !whole.is_file() {
            continue;
        }
        match check(&found.to_string_lossy(), &whole, wdir) {
            Ok(()) => return Ok(found),
            Err(fault) => refused = refused.or(Some(fault)),
        }
    }
    Err(refused.unwrap_or_else(|| fault(format!("{name}: not found in PATH"), exit::NOT_FOUND)))
}

/// Whether this file can be executed.
fn check(name: &str, file: &Path, wdir: &Path) -> Result<(), LaunchFault> {
    let refuse = |why: String| fault(format!("{name}: {why}"), exit::NOT_EXECUTABLE);
    let meta = fs::metadata(file).map_err(|e| refuse(e.to_string().to_lowercase()))?;
    if meta.is_dir() {
        return Err(refuse("is a directory".into()));
    }
    if !meta.is_file() {
        return Err(refuse("is not a regular file".into()));
    }
    if access(file, AccessFlags::X_OK).is_err() {
        let mode = Mode::from_bits_truncate(meta.mode()).bits() & 0o7777;
        let owner = passwd::user(meta.uid());
        return Err(if mode & 0o111 == 0 {
            refuse(format!("no execute permission (mode {mode:04o}, owner {owner})"))
                .hint(format!("chmod +x {name}"))
        } else {
            refuse(format!(
                "no execute permission for us (mode {mode:04o}, owner {owner}, or mounted noexec)"
            ))
        });
    }
    let mut head = Vec::new();
    // A file that may be executed but not read is left to the kernel.
    let Ok(opened) = fs::File::open(file) else { return Ok(()) };
    if opened.take(256).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    let told = match (head.starts_with(b"\x7fELF"), head.strip_prefix(b"#!")) {
        (true, _) => machine(&head).map_err(refuse),
        (false, Some(line)) => interpreter(line, wdir).map_err(refuse),
        (false, None) if head.is_empty() => Err(refuse("is empty".into())),
        (false, None) => {
            Err(refuse("exec format error: neither a program nor a script with a #! line".into())
                .hint("begin a script with a line such as #!/bin/sh"))
        }
    };
    if told.is_err() && foreign_formats() { Ok(()) } else { told }
}

/// A program for another kind of machine.
fn machine(head: &[u8]) -> Result<(), String> {
    // Class and byte order, and the machine's number.
    let (Some(class), Some(theirs), Some(ours)) = (head.get(4..6), head.get(18..20), OWN) else {
        return Ok(());
    };
    let same_class = class == [if cfg!(target_pointer_width = "64") { 2 } else { 1 }, 1];
    if theirs == ours || !same_class && theirs == [3, 0] {
        return Ok(());
    }
    Err(format!("wrong format: built for machine type {}, this is {}", elf(theirs), elf(&ours)))
}

/// The machine's number in programs that run here (`elf(5)`, `e_machine`), where it is known.
const OWN: Option<[u8; 2]> = if cfg!(target_arch = "x86_64") {
    Some([62, 0])
} else if cfg!(target_arch = "aarch64") {
    Some([183, 0])
} else if cfg!(target_arch = "riscv64") {
    Some([243, 0])
} else {
    None
};

fn elf(machine: &[u8]) -> String {
    match u16::from_le_bytes([machine[0], machine[1]]) {
        3 => "x86".into(),
        21 => "ppc64".into(),
        40 => "arm".into(),
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        other => other.to_string(),
    }
}

/// The interpreter of a `#!` line (what follows the two characters).
fn interpreter(line: &[u8], wdir: &Path) -> Result<(), String> {
    // As the kernel does: a carriage return belongs to the name.
    let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
    let word = line.split(|b| b" \t".contains(b)).find(|w| !w.is_empty()).unwrap_or_default();
    let path = OsString::from(OsStr::from_bytes(word));
    if path.is_empty() {
        return Err("no interpreter after #!".into());
    }
    let shown = path.to_string_lossy();
    match fs::metadata(wdir.join(&path)) {
        Err(_) if shown.contains('\r') => {
            Err(format!("interpreter {} not found: the script has Windows line ends", shown.escape_debug()))
        }
        Err(_) => Err(format!("interpreter {shown} not found")),
        Ok(_) if access(&wdir.join(&path), AccessFlags::X_OK).is_err() => {
            Err(format!("interpreter {shown} is not executable"))
        }
        Ok(_) => Ok(()),
    }
}

/// Whether the kernel was taught further formats (qemu, wine): then it decides.
fn foreign_formats() -> bool {
    fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|d| {
        d.flatten().any(|e| !["register", "status"].iter().any(|n| e.file_name() == OsStr::new(n)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("rmpi-lookup-{}-{name}", std::process::id()));
            fs::create_dir_all(dir.join("bin")).unwrap();
            Self(dir)
        }

        fn file(&self, name: &str, text: &[u8], mode: u32) {
            fs::write(self.0.join(name), text).unwrap();
            fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn programs() {
        let dir = Dir::new("programs");
        let mut other = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        other.extend_from_slice(&[0x99, 0x99]);
        dir.file("bin/tool", b"#!/bin/sh\n", 0o755);
        dir.file("bin/plain", b"#!/bin/sh\n", 0o644);
        dir.file("local", b"#!/bin/sh -e\n", 0o755);
        dir.file("text", b"garbage\n", 0o755);
        dir.file("lost", b"#!/no/such/interp\n", 0o755);
        dir.file("dos", b"#!/bin/sh\r\n", 0o755);
        dir.file("empty", b"", 0o755);
        dir.file("other", &other, 0o755);
        let owner = passwd::user(nix::unistd::geteuid().as_raw());
        let no_x = format!("./bin/plain: no execute permission (mode 0644, owner {owner})");
        let no_x_path = no_x.replace("./bin/plain", "bin/plain");
        let table = [
            ("tool", Ok("bin/tool")),
            ("local", Ok("./local")),
            ("./local", Ok("./local")),
            ("bin/tool", Ok("bin/tool")),
            ("/bin/sh", Ok("/bin/sh")),
            ("nosuchprog", Err(("nosuchprog: not found in PATH", 127))),
            ("./nosuchprog", Err(("./nosuchprog: not found", 127))),
            ("plain", Err((&no_x_path, 126))),
            ("./bin/plain", Err((&no_x, 126))),
            ("./bin", Err(("./bin: is a directory", 126))),
            ("bin", Err(("bin: not found in PATH", 127))),
            (
                "./text",
                Err(("./text: exec format error: neither a program nor a script with a #! line", 126)),
            ),
            ("./lost", Err(("./lost: interpreter /no/such/interp not found", 126))),
            (
                "./dos",
                Err(("./dos: interpreter /bin/sh\\r not found: the script has Windows line ends", 126)),
            ),
            ("./empty", Err(("./empty: is empty", 126))),
            ("./other", Err(("./other: wrong format: built for machine type 39321, this is ", 126))),
            ("", Err(("no program given", 127))),
        ];
        if foreign_formats() {
            return;
        }
        for (name, expected) in table {
            let app = crate::testing::app(name, &[]);
            match (program(&app, Some(OsStr::new("/nowhere:bin")), &dir.0), expected) {
                (Ok(found), Ok(path)) => assert_eq!(found, Path::new(path)),
                (Err(fault), Err((what, code))) => {
                    assert!(fault.what.starts_with(what), "{name}: {fault}");
                    assert_eq!((fault.stage, fault.code), (Stage::Exec, code), "{name}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn search_directories_come_first() {
        let dir = Dir::new("search");
        dir.file("bin/sh", b"#!/bin/sh\n", 0o755);
        let mut app = crate::testing::app("sh", &[]);
        app.search.push(dir.0.join("bin").into_os_string());
        assert_eq!(program(&app, Some(OsStr::new("/bin")), &dir.0).unwrap(), dir.0.join("bin/sh"));
    }

    #[test]
    fn directories() {
        let home = Dir::new("home");
        let mut app = crate::testing::app("true", &[]);
        assert_eq!(wdir(&app, &home.0), Ok(Place { wdir: "/tmp".into(), note: None }));
        app.wdir = "/no/such/dir".into();
        let fault = wdir(&app, &home.0).unwrap_err();
        assert_eq!((fault.what.as_str(), fault.code), ("working directory /no/such/dir does not exist", 125));
        app.wdir = "/bin/sh".into();
        assert_eq!(wdir(&app, &home.0).unwrap_err().what, "working directory /bin/sh is not a directory");
        app.wdir_explicit = false;
        let place = wdir(&app, &home.0).unwrap();
        assert_eq!(place.wdir, home.0);
        assert!(place.note.unwrap().starts_with("working directory /bin/sh is not a directory; using "));
    }
}
