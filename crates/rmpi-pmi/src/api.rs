//! What a node's process-management servers are told and what they ask for. One server serves all ranks of its
//! protocol on one node. Its driver feeds an [`Event`] with the time, and carries out the [`Action`]s that come
//! back, in order. What has to cross nodes goes through the job's control machines as opaque bytes
//! ([`rmpi_wire::service`]).
//!
//! Order that a server may rely on: [`Event::Space`] of a namespace comes before anything of its ranks;
//! [`Event::Eof`] is the last of a connection; tokens come back once, or never when the job is going down.

use bytes::Bytes;
use rmpi_types::{ProcId, RankEnd};
use rmpi_wire::service::{Answer, Domain, GatherKey, Request, Scope, Space};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A stream to one process of a rank; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn(pub u64);

/// Names an open request or join of one server; unique on the node, as [`Tokens`] makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Makes tokens that say whose they are, so that answers find the right server.
#[derive(Debug)]
pub struct Tokens {
    next: u64,
    domain: Domain,
}

impl Tokens {
    /// Tokens of one server.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self { next: 0, domain }
    }

    /// A token that was not given before.
    pub fn fresh(&mut self) -> Token {
        self.next += 1;
        let domain = match self.domain {
            Domain::Native => 0,
            Domain::Pmi => 1,
            Domain::Pmix => 2,
        };
        Token(self.next << 2 | domain)
    }
}

impl Token {
    /// Whose it is.
    #[must_use]
    pub fn domain(self) -> Domain {
        match self.0 & 3 {
            1 => Domain::Pmi,
            2 => Domain::Pmix,
            _ => Domain::Native,
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A namespace came into being; some of its ranks may be on this node.
    Space(Arc<Space>),
    /// A stream whose other end only this rank inherited.
    Opened {
        /// The stream.
        conn: Conn,
        /// The rank.
        proc: ProcId,
    },
    /// Somebody on this machine dialled in; who it is must still be said.
    Accepted {
        /// The stream.
        conn: Conn,
        /// The user it runs as, from the kernel; `None` where the kernel does not say.
        uid: Option<u32>,
    },
    /// Bytes of a stream, cut anywhere.
    Bytes {
        /// The stream.
        conn: Conn,
        /// Bytes, at least one.
        bytes: Bytes,
    },
    /// A stream ended. Not for those the server closed itself.
    Eof {
        /// The stream.
        conn: Conn,
    },
    /// A rank of this node ended.
    RankEnded {
        /// The rank.
        proc: ProcId,
        /// How.
        end: RankEnd,
    },
    /// Answer to [`Action::Request`].
    Answered {
        /// Whose.
        token: Token,
        /// The answer.
        answer: Answer,
        /// Its payload.
        payload: Bytes,
    },
    /// A gather is complete, or cannot be.
    Gathered {
        /// Which.
        key: GatherKey,
        /// The joins of this node that it ends, in the order they came.
        tokens: Vec<Token>,
        /// What came of it.
        result: Result<Gathered, ProcId>,
    },
    /// A server elsewhere asks; answered by [`Action::Answer`], at any time.
    Asked {
        /// To repeat in the answer.
        question: Question,
        /// The process of this node it is about.
        of: ProcId,
        /// Milliseconds it may take.
        wait_ms: u32,
        /// The question.
        payload: Bytes,
    },
    /// A server, perhaps this one, has sent [`Request::Notify`].
    Notified {
        /// For whom.
        scope: Scope,
        /// On whose behalf.
        by: ProcId,
        /// What.
        payload: Bytes,
    },
    /// A rank somewhere ended in failure; only after [`Request::Watch`].
    Ended {
        /// The rank.
        proc: ProcId,
        /// How.
        end: RankEnd,
    },
    /// The time a server asked for has come. Early and spurious ticks do no harm.
    Tick,
}

/// What a gather brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The members' data in a row, in the same order on all nodes. Members left out have none.
    pub data: Bytes,
    /// A number no other gather of the job has.
    pub serial: u64,
}

/// Names a question of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The asking node, as the control machines number them.
    pub asker: u32,
    /// Its number there.
    pub id: u64,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send bytes.
    Send {
        /// The stream.
        conn: Conn,
        /// Bytes.
        bytes: Bytes,
    },
    /// Send what is queued and close.
    Close {
        /// The stream.
        conn: Conn,
        /// Why, if the other side broke the protocol: a line for the log.
        why: Option<String>,
    },
    /// A rank of this node joins a gather with its data; answered by [`Event::Gathered`].
    Join {
        /// To be given back.
        token: Token,
        /// The member.
        by: ProcId,
        /// Which gather.
        key: GatherKey,
        /// What it brings.
        data: Bytes,
    },
    /// Ask the job.
    Request {
        /// To be given back.
        token: Token,
        /// On whose behalf.
        by: ProcId,
        /// What.
        request: Request,
        /// Its payload.
        payload: Bytes,
    },
    /// Answer to [`Event::Asked`].
    Answer {
        /// The question.
        question: Question,
        /// The answer.
        answer: Answer,
        /// Its payload.
        payload: Bytes,
    },
    /// The rank uses the library: exiting without [`Action::Finalized`] is a failure from now on.
    Hello {
        /// The rank.
        proc: ProcId,
    },
    /// The rank has finished with the library in good order.
    Finalized {
        /// The rank.
        proc: ProcId,
    },
    /// The rank ends the job.
    Abort {
        /// The rank.
        by: ProcId,
        /// Exit code.
        code: i32,
        /// Why, possibly empty.
        message: String,
    },
    /// Make this directory, and those above it, for this user alone; before what follows.
    Folder {
        /// Absolute.
        path: PathBuf,
    },
    /// Remove this file or directory if it is there.
    Remove {
        /// Absolute.
        path: PathBuf,
        /// With all that is in it.
        recursive: bool,
    },
    /// Text that a rank wants its user to see, as if it had written it on standard error.
    Output {
        /// The rank.
        by: ProcId,
        /// Text.
        bytes: Bytes,
    },
    /// One line for the user.
    Note(String),
}

/// A protocol server of one node. `now` is the time since a start that is the same for all calls.
pub trait Server {
    /// Takes one event; appends what is to be done.
    fn on(&mut self, now: Duration, event: Event, out: &mut Vec<Action>);

    /// When the next [`Event::Tick`] is due.
    fn next_timer(&self) -> Option<Duration>;
}
