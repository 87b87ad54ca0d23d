//! Files of ours that the nodes are sent (`--preload-binary`, `--preload-files`): read once, before anything starts.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use rmpi_types::exit;
use rmpi_types::launch::{AppLaunch, StagedFile};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What the nodes are sent: what they are told of each file, and its content.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) files: Vec<StagedFile>,
    pub(crate) contents: Vec<Bytes>,
}

/// Why nothing can be sent: the exit code and the words.
pub(crate) type Refusal = (u8, String);

impl Staged {
    /// Adds the program of an application, found as ranks would find it here.
    ///
    /// # Errors
    /// It is not here, or is no program.
    pub(crate) fn program(
        &mut self,
        number: u32,
        app: &AppLaunch,
        path: Option<&OsStr>,
    ) -> Result<(), Refusal> {
        let wdir = Path::new(&app.wdir);
        let found = rmpi_daemon::find_program(app, path, wdir).map_err(|fault| (fault.code, fault.what))?;
        self.add(&wdir.join(found), Some(number))
    }

    /// Adds a file for the ranks' working directory.
    ///
    /// # Errors
    /// It cannot be read, or another of its name was added.
    pub(crate) fn file(&mut self, path: &Path) -> Result<(), Refusal> {
        let name = path.file_name().unwrap_or_default();
        if self.files.iter().any(|f| f.app.is_none() && f.name == name) {
            let what = format!("two files called {} cannot both be copied", name.to_string_lossy());
            return Err((exit::USAGE, what));
        }
        self.add(path, None)
    }

    fn add(&mut self, path: &Path, app: Option<u32>) -> Result<(), Refusal> {
        let read = std::fs::metadata(path).and_then(|about| Ok((about, std::fs::read(path)?)));
        let (about, bytes) = read.map_err(|e| {
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            (exit::USAGE, format!("cannot read '{}': {text}", path.display()))
        })?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        self.files.push(StagedFile {
            name: path.file_name().unwrap_or_default().to_owned(),
            app,
            mode: about.permissions().mode() & 0o777,
            length: bytes.len() as u64,
            sha256,
        });
        self.contents.push(bytes.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_named_once() {
        let dir = std::env::temp_dir().join(format!("rmpi-staged-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("a"), b"abc").unwrap();
        std::fs::write(dir.join("sub/a"), b"x").unwrap();
        let mut staged = Staged::default();
        staged.file(&dir.join("a")).unwrap();
        assert_eq!((staged.files[0].length, staged.contents[0].as_ref()), (3, &b"abc"[..]));
        assert_eq!(
            staged.file(&dir.join("sub/a")).unwrap_err(),
            (2, "two files called a cannot both be copied".into())
        );
        let (code, what) = staged.file(&dir.join("none")).unwrap_err();
        assert_eq!(
            (code, what),
            (2, format!("cannot read '{}/none': no such file or directory", dir.display()))
        );
        assert!(staged.file(&dir.join("sub")).unwrap_err().1.ends_with("is a directory"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
