//! Non-blocking operations on borrowed buffers, within a scope that outlives them.

use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::p2p::{Source, Status, Tag};
use rmpi_core::OpId;
use std::marker::PhantomData;
use std::sync::Arc;

/// A span in which buffers are lent to operations; made by [`Communicator::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    comm: &'env Communicator,
    engine: &'scope rmpi_core::Scope<'scope, 'env>,
}

/// An operation on a borrowed buffer.
#[must_use = "an operation that is not waited for is cancelled or goes on unseen when its scope ends"]
pub struct ScopedRequest<'scope> {
    comm: &'scope Communicator,
    op: Result<rmpi_core::Status, OpId>,
    scope: PhantomData<&'scope ()>,
}

impl Communicator {
    /// Runs `f` with a scope for non-blocking operations on borrowed buffers:
    ///
    /// ```
    /// # let world = rmpi::World::init()?;
    /// # let comm = world.comm();
    /// let (out, mut into) = ([1, 2, 3], [0; 3]);
    /// comm.scope(|s| {
    ///     let receive = s.irecv(&mut into, 0, 7)?;
    ///     s.isend(&out, 0, 7)?.wait()?;
    ///     receive.wait()
    /// })?;
    /// assert_eq!(into, out);
    /// # Ok::<(), rmpi::Error>(())
    /// # .map_err(Box::<dyn std::error::Error>::from)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Operations not waited for when it ends are let go: receives are cancelled or go nowhere, sends go on
    /// from a copy.
    pub fn scope<'env, R>(&'env self, f: impl for<'scope> FnOnce(&Scope<'scope, 'env>) -> R) -> R {
        self.inner.engine.scope(|engine| f(&Scope { comm: self, engine }))
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts sending a borrowed buffer.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::BadTag`]; the rest comes with the request.
    pub fn isend<T: Datatype>(
        &self,
        data: &'scope [T],
        to: u32,
        tag: i32,
    ) -> Result<ScopedRequest<'scope>, Error> {
        let spec = self.comm.send_spec::<T>(to, tag)?;
        let op = self.engine.send(spec, bytemuck::cast_slice(data));
        Ok(ScopedRequest { comm: self.comm, op, scope: PhantomData })
    }

    /// Starts receiving into a borrowed buffer. Elements after a shorter message are unspecified afterwards.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::BadTag`]; the rest comes with the request.
    pub fn irecv<T: Datatype>(
        &self,
        data: &'scope mut [T],
        from: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<ScopedRequest<'scope>, Error> {
        let spec = self.comm.recv_spec::<T>(from.into(), tag.into())?;
        let op = Err(self.engine.recv(&spec, bytemuck::cast_slice_mut(data)));
        Ok(ScopedRequest { comm: self.comm, op, scope: PhantomData })
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts `count` receives into the same buffer, for streams of which only the arrival or the last value
    /// counts: each message overwrites the one before, and those under way at once may mix.
    ///
    /// # Errors
    /// As [`Scope::irecv`].
    pub fn irecv_over<T: Datatype>(
        &self,
        data: &'scope mut [T],
        count: usize,
        from: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Vec<ScopedRequest<'scope>>, Error> {
        let spec = self.comm.recv_spec::<T>(from.into(), tag.into())?;
        let ops = self.engine.recv_over(&spec, bytemuck::cast_slice_mut(data), count);
        Ok(ops
            .into_iter()
            .map(|op| ScopedRequest { comm: self.comm, op: Err(op), scope: PhantomData })
            .collect())
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Waits for all of these requests: quicker than for one after the other.
    ///
    /// # Errors
    /// The first error in order; all requests are over then.
    pub fn wait_all(&self, requests: Vec<ScopedRequest<'scope>>) -> Result<(), Error> {
        let mine = |r: &ScopedRequest<'_>| Arc::ptr_eq(&self.comm.inner, &r.comm.inner);
        if !requests.iter().all(mine) {
            let results: Vec<Result<Status, Error>> = requests.into_iter().map(ScopedRequest::wait).collect();
            return results.into_iter().try_for_each(|r| r.map(drop));
        }
        let mut ops = Vec::with_capacity(requests.len());
        ops.extend(requests.into_iter().filter_map(|r| r.op.err()));
        if ops.is_empty() { Ok(()) } else { self.engine.wait_all(&ops).map_err(Error::message) }
    }
}

impl ScopedRequest<'_> {
    /// Waits for the end of the operation.
    ///
    /// # Errors
    /// The operation's.
    pub fn wait(self) -> Result<Status, Error> {
        let result = self.op.or_else(|op| self.comm.inner.engine.wait(op).0);
        result.map(|s| self.comm.status(s)).map_err(Error::message)
    }

    /// Makes progress and says whether the operation is over.
    pub fn test(&mut self) -> bool {
        let Err(op) = self.op else { return true };
        self.comm.inner.engine.with(|core| {
            core.progress();
            core.is_done(op)
        })
    }
}
