//! Requests: operations under way that own their buffers. Dropping one is safe: a receive that nothing has
//! matched is cancelled, everything else goes on unseen.

use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::p2p::Status;
use rmpi_core::{Core, Finished, OpId, Task};

/// Makes the result of a finished operation.
type Finish<R> =
    Box<dyn FnOnce(&Communicator, Finished, Option<Box<dyn Task>>) -> Result<(R, Status), Error> + Send>;

/// An operation under way. `R` is what it gives back: usually its buffer.
#[must_use = "an operation is over only when it has been waited for"]
pub struct Request<R> {
    comm: Communicator,
    op: Option<OpId>,
    finish: Option<Finish<R>>,
}

impl<R> std::fmt::Debug for Request<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({:?})", self.op)
    }
}

impl<T: Datatype> Request<Vec<T>> {
    /// A send or receive of a vector; `shrink` to what came.
    pub(crate) fn buffer(comm: &Communicator, op: OpId, shrink: bool) -> Self {
        Self::new(comm, op, move |comm, (result, memory), _| {
            let status = comm.status(result.map_err(Error::message)?);
            let lost = Error::Internal("an operation lost its buffer");
            let mut data = *memory.ok_or(lost.clone())?.into_any().downcast::<Vec<T>>().map_err(|_| lost)?;
            if shrink {
                data.truncate(status.count::<T>());
            }
            Ok((data, status))
        })
    }
}

impl<R> Request<R> {
    pub(crate) fn new(
        comm: &Communicator,
        op: OpId,
        finish: impl FnOnce(&Communicator, Finished, Option<Box<dyn Task>>) -> Result<(R, Status), Error>
        + Send
        + 'static,
    ) -> Self {
        Self { comm: comm.clone(), op: Some(op), finish: Some(Box::new(finish)) }
    }

    fn conclude(mut self, op: OpId, finished: Finished) -> Result<(R, Status), Error> {
        self.op = None;
        let task = self.comm.inner.engine.with(|core| core.take_task(op));
        let finish = self.finish.take().ok_or(Error::Internal("a request was completed twice"))?;
        finish(&self.comm, finished, task)
    }

    /// Waits for the end of the operation and gives its result.
    ///
    /// # Errors
    /// The operation's.
    pub fn wait(self) -> Result<R, Error> {
        self.wait_status().map(|(r, _)| r)
    }

    /// The same, with the status of the message.
    ///
    /// # Errors
    /// The operation's.
    pub fn wait_status(self) -> Result<(R, Status), Error> {
        let op = self.op.ok_or(Error::Internal("a request was completed twice"))?;
        let finished = self.comm.inner.engine.wait(op);
        self.conclude(op, finished)
    }

    /// Makes progress and says whether the operation is over: [`Request::wait`] does not block then.
    pub fn test(&mut self) -> bool {
        let Some(op) = self.op else { return true };
        self.comm.inner.engine.with(|core| {
            core.progress();
            core.is_done(op)
        })
    }

    /// Cancels a receive that nothing has matched; whether it was. The request then ends with
    /// [`Error::Cancelled`].
    pub fn cancel(&mut self) -> bool {
        self.op.is_some_and(|op| self.comm.inner.engine.with(|core| core.cancel(op)))
    }
}

impl<R> Drop for Request<R> {
    fn drop(&mut self) {
        if let Some(op) = self.op.take() {
            self.comm.inner.engine.with(|core| {
                drop(core.take_task(op));
                core.release(op);
            });
        }
    }
}

/// Waits for all requests; their results in order.
///
/// # Errors
/// The first error in order; all requests are over then.
pub fn wait_all<R>(requests: impl IntoIterator<Item = Request<R>>) -> Result<Vec<R>, Error> {
    let results: Vec<Result<R, Error>> = requests.into_iter().map(Request::wait).collect();
    results.into_iter().collect()
}

/// Waits until one of the requests is over, takes it out of the list, and gives its place and result. `None`
/// for an empty list.
pub fn wait_any<R>(requests: &mut Vec<Request<R>>) -> Option<(usize, Result<R, Error>)> {
    let engine = requests.first()?.comm.inner.engine.clone();
    let over = |core: &mut Core| requests.iter().position(|r| r.op.is_none_or(|op| core.is_done(op)));
    let at = engine.block(over);
    Some((at, requests.remove(at).wait()))
}
