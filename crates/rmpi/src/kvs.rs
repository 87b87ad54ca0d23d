//! The key-value space, through the inherited stream to the daemon. One request at a time; messages between
//! ranks go on while an answer is awaited.

use crate::error::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rmpi_core::Engine;
use rmpi_types::Rank;
use rmpi_wire::rank::{self, RankReply, RankRequest, Reply, Request};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Between rounds of progress while an answer is awaited, in milliseconds.
const ROUND_MS: u8 = 5;
/// Beyond the daemon's own deadline, before it counts as silent.
const SLACK: Duration = Duration::from_secs(10);

/// The rank's end of the key-value space.
pub(crate) enum Kvs {
    /// In a world of one.
    Alone(HashMap<String, Vec<u8>>),
    /// With a daemon.
    Daemon { stream: UnixStream, buffer: Vec<u8>, next: u64 },
}

fn gone(e: impl std::fmt::Display) -> Error {
    Error::Kvs(format!("the daemon of this node is gone: {e}"))
}

impl Kvs {
    pub(crate) fn new(stream: Option<UnixStream>) -> Result<Self, Error> {
        let Some(stream) = stream else { return Ok(Self::Alone(HashMap::new())) };
        stream.set_nonblocking(true).map_err(gone)?;
        let mut kvs = Self::Daemon { stream, buffer: Vec::new(), next: 0 };
        // Its answer, if any, is passed over by its number.
        kvs.post(RankRequest::Hello, &[], None)?;
        Ok(kvs)
    }

    /// Sends a request; its number.
    fn post(&mut self, request: RankRequest, payload: &[u8], engine: Option<&Engine>) -> Result<u64, Error> {
        let Self::Daemon { stream, next, .. } = self else { return Ok(0) };
        *next += 1;
        let mut out = Vec::new();
        let request = Request { id: *next, request };
        rank::encode(&request, payload, &mut out).map_err(|e| Error::Kvs(e.to_string()))?;
        let mut rest = &out[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => wait(stream, PollFlags::POLLOUT, engine),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(gone(e)),
            }
        }
        Ok(*next)
    }

    /// Sends a request and waits for its answer.
    fn ask(
        &mut self,
        request: RankRequest,
        payload: &[u8],
        limit: Option<Duration>,
        engine: &Engine,
    ) -> Result<(RankReply, Vec<u8>), Error> {
        let id = self.post(request, payload, Some(engine))?;
        let deadline = limit.map(|l| Instant::now() + l);
        let Self::Daemon { stream, buffer, .. } = self else {
            return Err(Error::Internal("a world of one has no daemon to ask"));
        };
        let mut chunk = vec![0; 64 << 10];
        loop {
            while let Some((reply, payload)) = rank::decode::<Reply>(buffer).map_err(gone)? {
                if reply.id == id {
                    return Ok((reply.reply, payload));
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) => return Err(gone("it closed the stream")),
                Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if deadline.is_some_and(|d| Instant::now() >= d) {
                        return Err(Error::Kvs("the daemon of this node does not answer".into()));
                    }
                    wait(stream, PollFlags::POLLIN, Some(engine));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(gone(e)),
            }
        }
    }

    pub(crate) fn put(&mut self, key: &str, value: &[u8], engine: &Engine) -> Result<(), Error> {
        if key.len() > rank::MAX_KEY || value.len() > rank::MAX_VALUE {
            let (k, v) = (rank::MAX_KEY, rank::MAX_VALUE);
            return Err(Error::Kvs(format!("keys have at most {k} bytes, values {v}")));
        }
        if let Self::Alone(map) = self {
            map.insert(key.to_owned(), value.to_owned());
            return Ok(());
        }
        let (reply, _) = self.ask(RankRequest::Put { key: key.to_owned() }, value, Some(SLACK), engine)?;
        done(reply)
    }

    pub(crate) fn get(
        &mut self,
        of: u32,
        key: &str,
        limit: Duration,
        engine: &Engine,
    ) -> Result<Option<Vec<u8>>, Error> {
        if let Self::Alone(map) = self {
            return Ok(map.get(key).cloned());
        }
        let wait_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let request = RankRequest::Get { rank: Rank(of), key: key.to_owned(), wait_ms };
        let limit = Duration::from_millis(u64::from(wait_ms)) + SLACK;
        match self.ask(request, &[], Some(limit), engine)? {
            (RankReply::Value, value) => Ok(Some(value)),
            (RankReply::Missing, _) => Ok(None),
            (other, _) => done(other).map(|()| None),
        }
    }

    pub(crate) fn fence(&mut self, engine: &Engine) -> Result<(), Error> {
        if let Self::Alone(_) = self {
            return Ok(());
        }
        // As long as it takes: the launcher's failure detector ends it when a rank is lost.
        done(self.ask(RankRequest::Fence, &[], None, engine)?.0)
    }

    pub(crate) fn finalize(&mut self, engine: &Engine) -> Result<(), Error> {
        if let Self::Alone(_) = self {
            return Ok(());
        }
        done(self.ask(RankRequest::Finalize, &[], Some(SLACK), engine)?.0)
    }

    pub(crate) fn abort(&mut self, code: i32, message: &str) -> Result<(), Error> {
        self.post(RankRequest::Abort { code, message: message.to_owned() }, &[], None).map(drop)
    }
}

fn done(reply: RankReply) -> Result<(), Error> {
    match reply {
        RankReply::Done => Ok(()),
        RankReply::Lost(rank) => Err(Error::Kvs(format!("rank {rank} is lost"))),
        RankReply::Refused(why) => Err(Error::Kvs(why)),
        RankReply::Value | RankReply::Missing => Err(Error::Kvs("an answer to another question".into())),
    }
}

/// Waits for the stream for a moment, then lets messages between ranks go on.
fn wait(stream: &UnixStream, flags: PollFlags, engine: Option<&Engine>) {
    // An error or a signal only makes the moment shorter.
    let _ = poll(&mut [PollFd::new(stream.as_fd(), flags)], PollTimeout::from(ROUND_MS));
    if let Some(engine) = engine {
        engine.with(rmpi_core::Core::progress);
    }
}
