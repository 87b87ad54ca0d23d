//! Output files that this node writes itself (`--output-where node`): made before a rank starts, so that a directory
//! that cannot be written stops the job early, and written in the bytes and the order of the rank. Writing waits in a
//! thread of the runtime's own: the rank is not read meanwhile, everybody else is.

use crate::prepare::text;
use bytes::Bytes;
use rmpi_types::launch::RankLaunch;
use rmpi_types::names::{Series, Writer};
use rmpi_types::{LaunchFault, NodeLaunch, ProcId, Stage};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

/// The file of one stream.
#[derive(Clone, Debug)]
pub(crate) struct OutFile {
    file: Arc<File>,
    path: Arc<PathBuf>,
    /// The launcher gets a copy.
    pub(crate) copy: bool,
}

/// A rank's files: of its standard output and its standard error.
pub(crate) type RankFiles = [Option<OutFile>; 2];

/// Makes the files of a rank; none where the launcher writes them, or the layout has none.
///
/// # Errors
/// The path and what the system said.
pub(crate) fn make(launch: &NodeLaunch, rank: &RankLaunch) -> Result<RankFiles, LaunchFault> {
    let Some(wanted) = &launch.extras.output else { return Ok([None, None]) };
    let series = Series::new(launch.size, launch.extras.restart, wanted.merge);
    let of = Writer {
        proc: ProcId { rank: rank.rank, ..launch.ns },
        host: &launch.host,
        node: launch.node.0,
        local: rank.local_rank,
        namespace: &wanted.namespace,
    };
    let one = |stderr: bool| {
        let Some(path) = wanted.layout.path(&of, stderr, series) else { return Ok(None) };
        let fault = |e: io::Error| {
            let what = format!("cannot create output file {}: {}", path.display(), text(&e));
            LaunchFault::fatal(Stage::Exec, what).code(rmpi_types::exit::USAGE)
        };
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(fault)?;
        // Emptied by its first stream only: both may write to one file.
        if !(stderr && wanted.merge) {
            File::create(&path).map_err(fault)?;
        }
        let file = File::options().append(true).open(&path).map_err(fault)?;
        let copy = wanted.copy && wanted.layout.copied(rank.local_rank, stderr);
        Ok(Some(OutFile { file: Arc::new(file), path: Arc::new(path), copy }))
    };
    Ok([one(false)?, one(true)?])
}

impl OutFile {
    /// Writes all of it; waits as long as the file system does.
    ///
    /// # Errors
    /// The path and what the system said.
    pub(crate) async fn write(&self, bytes: Bytes) -> Result<(), String> {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await;
        let error = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => text(&error),
            Err(_) => "no thread".to_owned(),
        };
        Err(format!("cannot write its output file {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::launch::NodeFiles;
    use rmpi_types::spec::FileLayout;

    fn launch(dir: &std::path::Path, merge: bool, nojobid: bool) -> NodeLaunch {
        let mut launch = crate::testing::launch(vec![crate::testing::app("true", &[])], 1);
        let layout = FileLayout::OpenMpi4 { dir: dir.to_owned(), nojobid };
        launch.extras.output = Some(NodeFiles { layout, merge, copy: false, namespace: "n@1".into() });
        launch
    }

    #[tokio::test]
    async fn both_streams_of_a_rank_may_share_a_file() {
        let dir = std::env::temp_dir().join(format!("rmpi-outfiles-{}", std::process::id()));
        let launch = launch(&dir, true, true);
        for text in ["first", "again"] {
            let [Some(out), Some(err)] = make(&launch, &launch.ranks[0]).unwrap() else {
                panic!("two files")
            };
            out.write(Bytes::from_static(b"1\n")).await.unwrap();
            err.write(Bytes::from_static(b"2\n")).await.unwrap();
            out.write(Bytes::from(text)).await.unwrap();
            assert!(!out.copy);
            let got = fs::read_to_string(dir.join("rank.0/stdout")).unwrap();
            assert_eq!(got, format!("1\n2\n{text}"), "a new start begins anew");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_made_or_written_is_told_with_its_path() {
        let fault =
            make(&launch("/dev/null/x".as_ref(), false, false), &launch("/".as_ref(), false, false).ranks[0]);
        assert_eq!(
            fault.unwrap_err().what,
            "cannot create output file /dev/null/x/1/rank.0/stdout: not a directory"
        );
        let file = File::options().write(true).open("/dev/full").unwrap();
        let full = OutFile { file: Arc::new(file), path: Arc::new("/dev/full".into()), copy: true };
        let error = full.write(Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error, "cannot write its output file /dev/full: no space left on device");
    }
}
