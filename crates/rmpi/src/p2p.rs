//! Messages between two ranks: typed, tagged, blocking and not.

use crate::comm::Communicator;
use crate::datatype::{Datatype, code};
use crate::error::Error;
use crate::request::Request;
use rmpi_core::{Envelope, From as Sources, RecvSpec, SendSpec};

/// Whose messages a receive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This rank's, of the communicator.
    Rank(u32),
    /// Anybody's.
    Any,
}

/// Which messages of a source a receive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Those with this tag.
    Is(i32),
    /// All.
    Any,
}

/// The type of [`ANY_SOURCE`].
#[derive(Clone, Copy, Debug)]
pub struct AnySource;
/// The type of [`ANY_TAG`].
#[derive(Clone, Copy, Debug)]
pub struct AnyTag;
/// A receive from anybody.
pub const ANY_SOURCE: AnySource = AnySource;
/// A receive of any tag.
pub const ANY_TAG: AnyTag = AnyTag;

impl From<u32> for Source {
    fn from(rank: u32) -> Self {
        Self::Rank(rank)
    }
}

impl From<AnySource> for Source {
    fn from(_: AnySource) -> Self {
        Self::Any
    }
}

impl From<i32> for Tag {
    fn from(tag: i32) -> Self {
        Self::Is(tag)
    }
}

impl From<AnyTag> for Tag {
    fn from(_: AnyTag) -> Self {
        Self::Any
    }
}

/// What was received, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The sender, a rank of the communicator.
    pub source: u32,
    /// The message's tag.
    pub tag: i32,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Status {
    /// Its length in elements of `T`.
    #[must_use]
    pub fn count<T: Datatype>(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX) / size_of::<T>()
    }
}

impl Communicator {
    pub(crate) fn send_spec<T: Datatype>(&self, to: u32, tag: i32) -> Result<SendSpec, Error> {
        if tag < 0 {
            return Err(Error::BadTag(tag));
        }
        Ok(SendSpec {
            to: self.world_rank(to)?,
            context: self.context,
            tag,
            check: code(T::TYPE),
            awaited: false,
        })
    }

    pub(crate) fn recv_spec<T: Datatype>(&self, from: Source, tag: Tag) -> Result<RecvSpec, Error> {
        let from = match from {
            Source::Rank(r) => Sources::Rank(self.world_rank(r)?),
            Source::Any => Sources::Any(self.group.clone()),
        };
        let tag = match tag {
            Tag::Is(t) if t < 0 => return Err(Error::BadTag(t)),
            Tag::Is(t) => Some(t),
            Tag::Any => None,
        };
        Ok(RecvSpec { from, context: self.context, tag, check: code(T::TYPE), scribble: true })
    }

    pub(crate) fn status(&self, s: rmpi_core::Status) -> Status {
        Status { source: self.local(s.peer), tag: s.tag, bytes: s.length }
    }

    /// Sends `data` to rank `to` and returns when the buffer may be used again. Messages above 64 KiB wait for
    /// their receiver; smaller ones usually do not.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::NoSuchRank`], [`Error::BadTag`].
    pub fn send<T: Datatype>(&self, data: &[T], to: u32, tag: i32) -> Result<(), Error> {
        let spec = self.send_spec::<T>(to, tag)?;
        self.inner.engine.send(spec, bytemuck::cast_slice(data)).map_err(Error::message)?;
        Ok(())
    }

    /// Receives a message into `data`. Messages of one sender arrive in the order sent. When the message is
    /// shorter than `data`, the elements after it are unspecified afterwards.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Truncated`], [`Error::WrongType`], [`Error::NoSuchRank`],
    /// [`Error::BadTag`].
    pub fn recv<T: Datatype>(
        &self,
        data: &mut [T],
        from: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Status, Error> {
        let spec = self.recv_spec::<T>(from.into(), tag.into())?;
        let got = self.inner.engine.recv(&spec, bytemuck::cast_slice_mut(data));
        got.map(|s| self.status(s)).map_err(Error::message)
    }

    /// Receives a message of any length. Not for several threads that receive the same messages: another may
    /// take the message after its length was seen.
    ///
    /// # Errors
    /// As [`Communicator::recv`].
    pub fn recv_vec<T: Datatype>(
        &self,
        from: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(Vec<T>, Status), Error> {
        let found = self.probe(from, tag)?;
        let mut data = vec![T::zeroed(); found.count::<T>()];
        let status = self.recv(&mut data, found.source, found.tag)?;
        Ok((data, status))
    }

    /// Sends `out` to rank `to` and receives into `into` at the same time, so that neither waits for the
    /// other.
    ///
    /// # Errors
    /// As [`Communicator::send`] and [`Communicator::recv`].
    pub fn sendrecv<T: Datatype, U: Datatype>(
        &self,
        out: &[T],
        to: u32,
        send_tag: i32,
        into: &mut [U],
        from: impl Into<Source>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status, Error> {
        let send = self.send_spec::<T>(to, send_tag)?;
        let recv = self.recv_spec::<U>(from.into(), recv_tag.into())?;
        let engine = &self.inner.engine;
        let got = engine.sendrecv(send, bytemuck::cast_slice(out), &recv, bytemuck::cast_slice_mut(into));
        got.map(|s| self.status(s)).map_err(Error::message)
    }

    /// Starts sending `data`; the request gives the buffer back. Several small messages in a row are gathered
    /// until a wait or test.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::BadTag`]; the rest comes with the request.
    pub fn isend<T: Datatype>(&self, data: Vec<T>, to: u32, tag: i32) -> Result<Request<Vec<T>>, Error> {
        let spec = self.send_spec::<T>(to, tag)?;
        let op = self.inner.engine.with(|core| core.send_owned(spec, Box::new(data)));
        Ok(Request::buffer(self, op, false))
    }

    /// Starts receiving at most `len` elements; the request gives those that came.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::BadTag`]; the rest comes with the request.
    pub fn irecv<T: Datatype>(
        &self,
        len: usize,
        from: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Request<Vec<T>>, Error> {
        let spec = self.recv_spec::<T>(from.into(), tag.into())?;
        let data = vec![T::zeroed(); len];
        let op = self.inner.engine.with(|core| core.recv_owned(&spec, Box::new(data)));
        Ok(Request::buffer(self, op, true))
    }

    /// Waits until a message is there that such a receive would take, and describes it.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::NoSuchRank`], [`Error::BadTag`].
    pub fn probe(&self, from: impl Into<Source>, tag: impl Into<Tag>) -> Result<Status, Error> {
        let spec = self.recv_spec::<u8>(from.into(), tag.into())?;
        self.inner.engine.block(|core| match core.probe(&spec) {
            Some(e) => Some(Ok(self.described(e))),
            None => core.probe_fault(&spec).map(|f| Err(Error::message(f))),
        })
    }

    /// Describes a message that such a receive would take, if one is there.
    ///
    /// # Errors
    /// As [`Communicator::probe`].
    pub fn iprobe(&self, from: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Status>, Error> {
        let spec = self.recv_spec::<u8>(from.into(), tag.into())?;
        self.inner.engine.with(|core| {
            core.progress();
            match core.probe(&spec) {
                Some(e) => Ok(Some(self.described(e))),
                None => core.probe_fault(&spec).map_or(Ok(None), |f| Err(Error::message(f))),
            }
        })
    }

    fn described(&self, e: Envelope) -> Status {
        Status { source: self.local(e.source), tag: e.tag, bytes: e.length }
    }
}
