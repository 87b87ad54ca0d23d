//! Files that the launcher sends for the ranks (`--preload-binary`, `--preload-files`), and the job's own folder on the
//! node. They are kept in that folder as they come, checked against what the order says of them, put where the ranks
//! look for them, and removed at the end of the job: nothing that was there before is touched.

use nix::sys::stat::Mode;
use ring::digest::{SHA256, digest};
use rmpi_types::launch::StagedFile;
use rmpi_types::{LaunchFault, Stage};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Names tried for the folder before something must be wrong.
const NAMES: u32 = 1000;

/// A folder that goes, with all that is in it, when this does.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) made: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the job's folder stays");
        }
    }
}

/// What a node keeps for its ranks.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    folder: Option<Folder>,
    open: Option<(u32, File)>,
    /// What went wrong with a file that came; told with the order.
    fault: Option<String>,
    /// Files put into working directories.
    placed: Vec<PathBuf>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        for path in &self.placed {
            let _ = fs::remove_file(path);
        }
    }
}

fn fault(what: String) -> LaunchFault {
    LaunchFault::fatal(Stage::Exec, what)
}

impl Staging {
    /// Keeps the next bytes of a file. What fails is told by [`Staging::program`] and [`Staging::place`].
    pub(crate) fn keep(&mut self, temporary: &Path, number: u32, bytes: &[u8], last: bool) {
        if self.fault.is_some() {
            return;
        }
        if let Err(error) = self.try_keep(temporary, number, bytes, last) {
            let folder = self.folder.as_ref().map_or(temporary, |f| f.path.as_path()).display();
            self.fault =
                Some(format!("cannot keep what was sent in {folder}: {}", crate::prepare::text(&error)));
        }
    }

    fn try_keep(&mut self, temporary: &Path, number: u32, bytes: &[u8], last: bool) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = self.folder(temporary)?.join(number.to_string());
            self.open =
                Some((number, OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?));
        }
        if let Some((_, file)) = &mut self.open {
            file.write_all(bytes)?;
        }
        if last {
            self.open = None;
        }
        Ok(())
    }

    /// The job's folder, this user's alone, made now if there is none.
    pub(crate) fn folder(&mut self, temporary: &Path) -> io::Result<PathBuf> {
        if let Some(folder) = &self.folder {
            return Ok(folder.path.clone());
        }
        for n in 0..NAMES {
            let path = temporary.join(format!("rmpirun.{}.{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other?;
                    self.folder = Some(Folder { path: path.clone(), made: true });
                    return Ok(path);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The content of a file that came, if it is what the order says.
    fn content(&self, number: usize, file: &StagedFile) -> Result<Vec<u8>, LaunchFault> {
        if let Some(what) = &self.fault {
            return Err(fault(what.clone()));
        }
        let name = file.name.to_string_lossy();
        let folder = self.folder.as_ref().ok_or_else(|| fault(format!("{name} did not come")))?;
        let bytes = fs::read(folder.path.join(number.to_string()))
            .map_err(|e| fault(format!("{name} did not come: {}", crate::prepare::text(&e))))?;
        if bytes.len() as u64 != file.length || digest(&SHA256, &bytes).as_ref() != file.sha256 {
            return Err(fault(format!("{name} did not come as it was sent")));
        }
        Ok(bytes)
    }

    /// The path of the program that was sent for an application, if one was.
    ///
    /// # Errors
    /// It did not come, or cannot be kept here.
    pub(crate) fn program(&self, files: &[StagedFile], app: u32) -> Result<Option<PathBuf>, LaunchFault> {
        let Some((number, file)) = files.iter().enumerate().find(|(_, f)| f.app == Some(app)) else {
            return Ok(None);
        };
        let bytes = self.content(number, file)?;
        let folder = self.folder.as_ref().map(|f| f.path.join(format!("program{app}")));
        let folder = folder.ok_or_else(|| fault("no folder".into()))?;
        let path = folder.join(bare(&file.name)?);
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.and_then(|()| put(&path, &bytes, file.mode | 0o500))
            .map_err(|e| fault(format!("cannot write {}: {}", path.display(), crate::prepare::text(&e))))?;
        Ok(Some(path))
    }

    /// Puts the files that are no programs into a working directory. One that is there already with the same content
    /// stays as it is.
    ///
    /// # Errors
    /// They did not come, cannot be written, or another file of the name is there.
    pub(crate) fn place(&mut self, files: &[StagedFile], wdir: &Path) -> Result<(), LaunchFault> {
        for (number, file) in files.iter().enumerate().filter(|(_, f)| f.app.is_none()) {
            let bytes = self.content(number, file)?;
            let path = wdir.join(bare(&file.name)?);
            match put(&path, &bytes, file.mode) {
                Ok(()) => self.placed.push(path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let there = fs::read(&path);
                    if there.ok().as_ref() != Some(&bytes) {
                        let what =
                            format!("{} is another file than the one to be copied there", path.display());
                        return Err(fault(what).hint("move it away, or use --set-cwd-to-session-dir"));
                    }
                }
                Err(e) => {
                    let text = crate::prepare::text(&e);
                    return Err(fault(format!("cannot write {}: {text}", path.display())));
                }
            }
        }
        Ok(())
    }
}

/// A name without a folder: what came over the wire decides no path.
fn bare(name: &OsStr) -> Result<&OsStr, LaunchFault> {
    let plain = !name.is_empty() && !name.as_bytes().contains(&b'/') && name != "." && name != "..";
    plain.then_some(name).ok_or_else(|| fault(format!("'{}' is no name of a file", name.to_string_lossy())))
}

/// A new file with this content and these permissions, or none.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mode = Mode::from_bits_truncate(mode & 0o777).bits();
    let written = file.write_all(bytes).and_then(|()| file.set_permissions(Permissions::from_mode(mode)));
    written.inspect_err(|_| drop(fs::remove_file(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, app: Option<u32>, content: &[u8]) -> StagedFile {
        let sha256 = digest(&SHA256, content).as_ref().try_into().unwrap();
        StagedFile { name: name.into(), app, mode: 0o644, length: content.len() as u64, sha256 }
    }

    #[test]
    fn files_are_put_where_ranks_look_and_go_with_the_job() {
        let base = std::env::temp_dir().join(format!("rmpi-staging-{}", std::process::id()));
        fs::create_dir_all(base.join("work")).unwrap();
        fs::write(base.join("work/same"), b"same").unwrap();
        let files =
            [file("prog", Some(0), b"#!/bin/sh\n"), file("data", None, b""), file("same", None, b"same")];
        let mut staging = Staging::default();
        staging.keep(&base, 0, b"#!/bin", false);
        staging.keep(&base, 0, b"/sh\n", true);
        staging.keep(&base, 1, b"", true);
        staging.keep(&base, 2, b"same", true);
        let program = staging.program(&files, 0).unwrap().unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"#!/bin/sh\n");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o744);
        assert_eq!(staging.program(&files, 1).unwrap(), None);
        staging.place(&files, &base.join("work")).unwrap();
        assert!(base.join("work/data").is_file());
        drop(staging);
        let left: Vec<_> = fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["work"], "the job's folder is gone");
        let left: Vec<_> = fs::read_dir(base.join("work")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["same"], "what was there stays");
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn what_is_not_as_it_was_sent_is_refused() {
        let base = std::env::temp_dir().join(format!("rmpi-staging-bad-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let mut staging = Staging::default();
        staging.keep(&base, 0, b"abc", true);
        for (what, files) in [
            ("did not come as it was sent", [file("a", None, b"abd")]),
            ("is no name of a file", [file("../a", None, b"abc")]),
            ("is another file", [file("b", None, b"abc")]),
        ] {
            fs::write(base.join("b"), b"x").unwrap();
            let fault = staging.place(&files, &base).unwrap_err();
            assert!(fault.what.contains(what), "{fault}");
        }
        let files = [file("a", None, b"abc"), file("c", None, b"")];
        assert!(staging.place(&files, &base).unwrap_err().what.contains("c did not come"));
        let mut nowhere = Staging::default();
        nowhere.keep(Path::new("/no/such/folder"), 0, b"abc", true);
        let fault = nowhere.place(&files, &base).unwrap_err();
        assert!(fault.what.starts_with("cannot keep what was sent in /no/such/folder"), "{fault}");
        drop(staging);
        fs::remove_dir_all(&base).unwrap();
    }
}
