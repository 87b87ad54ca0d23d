//! What the user wants done with the output of ranks: tags, files, who is shown. Part of a [`crate::JobSpec`].

use crate::RankSet;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Output of ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What is put before each line.
    pub tag: Tag,
    /// A time before the tag.
    pub timestamp: bool,
    /// Both streams on our standard output.
    pub merge_stderr: bool,
    /// Who is seen on the console.
    pub shown: Shown,
    /// Pseudo-terminal for standard output: `None` decides by our own.
    pub pty: Option<bool>,
    /// Files.
    pub files: Option<Files>,
    /// They are written on the ranks' own nodes, not on the launcher's host.
    pub on_nodes: bool,
    /// What is meant for the console goes to this file instead (`-xml-file`).
    pub console: Option<PathBuf>,
    /// Go on when our standard output is closed.
    pub ignore_broken_pipe: bool,
    /// No messages of ours.
    pub quiet: bool,
}

/// Whose output is seen on the console; files get all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Every rank's.
    #[default]
    All,
    /// That of these ranks.
    Ranks(RankSet),
    /// That of the ranks with these numbers on their nodes.
    Local(RankSet),
    /// Only the end of what ranks wrote that failed, when they have.
    Failed,
}

/// Line tags; exact formats in `docs/output.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// None: bytes as they are.
    #[default]
    None,
    /// `[1,0]<stdout>:text`, Open MPI 4.1's `--tag-output`.
    OpenMpi4,
    /// `[1,0]<stdout>: text`, Open MPI 5's `--output tag`.
    OpenMpi5,
    /// `<stdout>: text`, Open MPI 5's form where only the time was asked for.
    OpenMpi5Stream,
    /// `[namespace,0]<stdout>: text`, `--output tag-fullname`.
    OpenMpi5Fullname,
    /// `[namespace,0][host:pid]<stdout>: text`, `--output tag-detailed`.
    OpenMpi5Detailed,
    /// `[0] text`, Hydra's `-l`.
    Hydra,
    /// `[0]<stdout>:text`, horovodrun's.
    Horovod,
    /// `[role0]:text` with the local rank, torchrun's `--tee`.
    Torch(String),
    /// Hydra's `-prepend-pattern`.
    Pattern(Vec<Piece>),
    /// One JSON object a line.
    Json,
    /// `<stdout rank="0">text&#010;</stdout>`.
    Xml,
}

/// A piece of a pattern (`-prepend-pattern`, `-outfile-pattern`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `%r`: the rank.
    Rank,
    /// `%g`: the process group, 0 for the first job.
    Group,
    /// `%p`: the number of the node.
    Node,
    /// `%h`: the host's name.
    Host,
    /// `%t`: the time.
    Time,
    /// Open MPI 5's `%n`: the job's name.
    Namespace,
}

/// Output files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Where they are.
    pub layout: FileLayout,
    /// No copy on the console. Layouts that say themselves what goes to the console do not look at it.
    pub nocopy: bool,
}

/// Where a rank's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileLayout {
    /// `DIR/1/rank.N/stdout`, Open MPI 4.1's `--output-filename`; `nojobid` leaves out the `1`.
    OpenMpi4 {
        /// DIR.
        dir: PathBuf,
        /// No level for the job.
        nojobid: bool,
    },
    /// `DIR/NAMESPACE/rank.N/stdout`, Open MPI 5's `--output dir=`.
    OpenMpi5(PathBuf),
    /// `PREFIX.NAMESPACE.N.out` and `.err`, Open MPI 5's `--output file=`.
    Prefix(PathBuf),
    /// `DIR/rank.N/stdout`, horovodrun's.
    Horovod(PathBuf),
    /// `DIR/NAMESPACE/attempt_A/L/stdout.log` for local rank L, torchrun's.
    Torch {
        /// DIR.
        dir: PathBuf,
        /// Streams that go to files only.
        redirects: Redirects,
        /// Streams that go to files and the console.
        tee: Redirects,
    },
    /// Hydra's `-outfile-pattern` and `-errfile-pattern`; a stream with a file is not on the console.
    Patterns {
        /// Of standard output.
        out: Option<Vec<Piece>>,
        /// Of standard error.
        err: Option<Vec<Piece>>,
    },
    /// Open MPI 5's `--output file=PATTERN:pattern`: with `.stdout` and `.stderr` behind.
    Pattern(Vec<Piece>),
}

/// Streams by local rank: 0 none, 1 standard output, 2 standard error, 3 both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirects {
    /// Of local ranks not named.
    pub all: u8,
    /// Of local ranks by number.
    pub of: Vec<(u32, u8)>,
}

impl Redirects {
    /// The streams of a local rank.
    #[must_use]
    pub fn of(&self, local_rank: u32) -> u8 {
        self.of.iter().find(|(r, _)| *r == local_rank).map_or(self.all, |&(_, streams)| streams)
    }

    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.of.iter().all(|&(_, streams)| streams == 0)
    }
}
