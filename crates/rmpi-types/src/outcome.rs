//! How ranks and jobs end.

use crate::{LaunchFault, NodeIdx, ProcId, Rank};
use serde::{Deserialize, Serialize};

/// How one process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RankEnd {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it left a core file.
        core: bool,
    },
}

impl RankEnd {
    /// The code a shell would give: the exit code, or 128 + signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled { signal, .. } => crate::exit::of_signal(signal),
        }
    }
}

/// The end of one rank as its daemon saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankExit {
    /// Which process.
    pub proc: ProcId,
    /// Its pid on its node.
    pub pid: u32,
    /// How it ended.
    pub end: RankEnd,
    /// It called abort with this code before it ended.
    pub abort: Option<Abort>,
    /// We stopped it: never a failure of its own.
    pub stopped: bool,
    /// The kernel's out-of-memory killer ended something in the job's cgroup on this node.
    pub oom: bool,
    /// Its last lines on stderr, newest last, lossy UTF-8, at most 4 lines of 256 bytes.
    pub last_stderr: Vec<String>,
    /// Wall-clock microseconds since 1970 on its node.
    pub wall_us: u64,
}

/// A rank's call of abort, or what its daemon holds against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// The code it gave.
    pub code: i32,
    /// Its message, possibly empty.
    pub message: String,
    /// The rank called; else its daemon says in the message what the rank did, after its name.
    pub called: bool,
}

impl Abort {
    /// A rank's own call.
    #[must_use]
    pub fn called(code: i32, message: String) -> Self {
        Self { code, message, called: true }
    }

    /// A rank that left an MPI library unfinished.
    #[must_use]
    pub fn unfinished() -> Self {
        let message = "exited with code 0 without finalizing the library".to_owned();
        Self { code: 1, message, called: false }
    }
}

impl RankExit {
    /// The exit code this rank asks the job to have. An abort's code is taken modulo 256, and 1 if that is 0.
    #[must_use]
    pub fn code(&self) -> u8 {
        match &self.abort {
            Some(abort) => match u8::try_from(abort.code.rem_euclid(256)) {
                Ok(0) | Err(_) => 1,
                Ok(code) => code,
            },
            None => self.end.code(),
        }
    }

    /// Whether it is a failure of its own.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.stopped && (self.abort.is_some() || self.end != RankEnd::Exited(0))
    }
}

/// Why a job ended as it did: the first cause only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Every rank exited with 0.
    Success,
    /// This rank failed first.
    Rank(RankExit),
    /// Hosts could not be used; nothing was started. One entry a failed host.
    Launch(Vec<(NodeIdx, LaunchFault)>),
    /// The job cannot be placed on the hosts (not enough slots, a binding that does not fit); nothing was
    /// started.
    Plan {
        /// The exit code it asks for.
        code: u8,
        /// What does not fit, and what to do.
        message: String,
    },
    /// A host was lost while ranks ran.
    NodeLost {
        /// The host.
        node: NodeIdx,
        /// What was seen: `no sign of life for 6.0 s`, `control stream closed`.
        what: String,
        /// Its ranks.
        ranks: crate::RankSet,
    },
    /// The job's time limit.
    Timeout {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// A signal to the launcher, or a call to cancel (then SIGTERM).
    Signal(i32),
    /// The reader of our standard output went away.
    BrokenPipe,
    /// A defect of ours.
    Internal(String),
}

impl Cause {
    /// The stable name of this kind of failure (`docs/exit-codes.md`); none of a success. Of hosts that could not be
    /// used it is the first one's.
    #[must_use]
    pub fn id(&self) -> Option<&'static str> {
        Some(match self {
            Self::Success => return None,
            Self::Rank(RankExit { abort: Some(_), .. }) => "E-RANK-ABORT",
            Self::Rank(RankExit { end: RankEnd::Exited(_), .. }) => "E-RANK-EXIT",
            Self::Rank(RankExit { end: RankEnd::Signaled { .. }, .. }) => "E-RANK-SIGNAL",
            Self::Launch(faults) => faults.first().map_or("E-LAUNCH", |(_, fault)| fault.id()),
            Self::Plan { .. } => "E-PLAN",
            Self::NodeLost { .. } => "E-NODE-LOST",
            Self::Timeout { .. } => "E-TIMEOUT",
            Self::Signal(_) => "E-SIGNAL",
            Self::BrokenPipe => "E-BROKEN-PIPE",
            Self::Internal(_) => "E-INTERNAL",
        })
    }
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The first cause.
    pub cause: Cause,
    /// Later failures of other ranks (`--on-failure continue`, or at the same moment), in time order.
    pub also: Vec<RankExit>,
    /// Microseconds from the first rank's start to the first failure, if one failed.
    pub failed_after_us: Option<u64>,
    /// Ranks we stopped, by the signal that ended them: `(15, 2)`, `(9, 1)`; 0 for those that exited.
    pub stopped: Vec<(i32, u32)>,
    /// Ranks that never reported an end because their node was lost.
    pub unknown: Vec<Rank>,
}

impl JobOutcome {
    /// The exit code of the command (`docs/exit-codes.md`).
    #[must_use]
    pub fn code(&self) -> u8 {
        use crate::exit;
        match &self.cause {
            Cause::Success => 0,
            Cause::Rank(exit) => exit.code(),
            Cause::Launch(faults) => faults.iter().map(|(_, f)| f.code).max().unwrap_or(exit::LAUNCH),
            Cause::Plan { code, .. } => *code,
            Cause::NodeLost { .. } => exit::NODE_LOST,
            Cause::Timeout { .. } => exit::TIMEOUT,
            Cause::Signal(signal) => exit::of_signal(*signal),
            Cause::BrokenPipe => 141,
            Cause::Internal(_) => exit::INTERNAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abort_codes_are_modulo_256_and_never_0() {
        let exit = |code| RankExit {
            proc: ProcId::first(0),
            pid: 1,
            end: RankEnd::Exited(0),
            abort: Some(Abort::called(code, String::new())),
            stopped: false,
            oom: false,
            last_stderr: Vec::new(),
            wall_us: 0,
        };
        for (code, expected) in [(7, 7), (0, 1), (256, 1), (257, 1), (-1, 255), (511, 255)] {
            assert_eq!(exit(code).code(), expected, "{code}");
        }
    }

    #[test]
    fn failures_have_stable_names() {
        use crate::{FaultKind, Stage, exit};
        let name = |fault: LaunchFault| Cause::Launch(vec![(NodeIdx(0), fault)]).id();
        let key = "host key not in known_hosts: ssh-ed25519 SHA256:x";
        for (fault, id) in [
            (LaunchFault::fatal(Stage::Ssh, key).kind(FaultKind::HostKey), "E-SSH-HOSTKEY"),
            (LaunchFault::fatal(Stage::Ssh, key), "E-SSH"),
            (LaunchFault::passing(Stage::Ssh, "closed"), "E-SSH"),
            (LaunchFault::fatal(Stage::Exec, "x").code(exit::NOT_FOUND), "E-EXEC-NOTFOUND"),
            (LaunchFault::fatal(Stage::Exec, "x"), "E-EXEC"),
            (LaunchFault::fatal(Stage::Name, "x"), "E-NAME"),
        ] {
            assert_eq!(name(fault), Some(id));
        }
        assert_eq!((Cause::Success.id(), Cause::Signal(2).id()), (None, Some("E-SIGNAL")));
    }

    #[test]
    fn signals_add_128() {
        assert_eq!(RankEnd::Signaled { signal: 11, core: true }.code(), 139);
    }
}
