//! Persistent collectives: what can be prepared once is prepared once, for calls that repeat with the same sizes.

use super::ask::{Ask, Shape};
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::op::Reduction;
use crate::request::Request;

/// A collective prepared to be started again and again on one buffer. Made by [`Communicator::allreduce_init`] and
/// its like; members must start theirs in the same order as all other collectives of the communicator.
///
/// ```
/// # let world = rmpi::World::init()?;
/// let mut sum = world.comm().allreduce_init(vec![0.0f32; 3], &rmpi::Op::Sum)?;
/// for step in 1..=3 {
///     sum.buffer()?.fill(step as f32);
///     sum.start()?;
///     // … compute something else …
///     assert_eq!(sum.wait()?[0], step as f32 * world.size() as f32);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Persistent<T: Datatype> {
    comm: Communicator,
    ask: Ask<'static>,
    /// Between runs.
    buffer: Option<Vec<T>>,
    running: Option<Request<Vec<T>>>,
}

impl<T: Datatype> std::fmt::Debug for Persistent<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Persistent({}, running {})", self.ask.name(), self.running.is_some())
    }
}

impl Communicator {
    /// Prepares combining everybody's buffer, in place.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn allreduce_init<T: Datatype>(
        &self,
        buffer: Vec<T>,
        op: &impl Reduction<T>,
    ) -> Result<Persistent<T>, Error> {
        self.prepared(Ask::allreduce::<T>(buffer.len(), op, true)?, buffer)
    }

    /// Prepares copying the root's buffer to all.
    ///
    /// # Errors
    /// As [`Communicator::bcast`].
    pub fn bcast_init<T: Datatype>(&self, buffer: Vec<T>, root: u32) -> Result<Persistent<T>, Error> {
        self.prepared(Ask::new::<T>(Shape::Bcast { count: buffer.len(), root }), buffer)
    }

    /// Prepares a barrier.
    ///
    /// # Errors
    /// As [`Communicator::barrier`].
    pub fn barrier_init(&self) -> Result<Persistent<u8>, Error> {
        self.prepared(Ask::new::<u8>(Shape::Barrier), Vec::new())
    }

    fn prepared<T: Datatype>(&self, ask: Ask<'static>, buffer: Vec<T>) -> Result<Persistent<T>, Error> {
        self.prepare(&ask)?;
        Ok(Persistent { comm: self.clone(), ask, buffer: Some(buffer), running: None })
    }
}

impl<T: Datatype> Persistent<T> {
    /// The buffer, between [`Persistent::wait`] and [`Persistent::start`]: the contribution before, the result
    /// after.
    ///
    /// # Errors
    /// [`Error::Running`] while it is under way.
    pub fn buffer(&mut self) -> Result<&mut [T], Error> {
        self.buffer.as_deref_mut().ok_or(Error::Running)
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Running`] when it has been started and not waited for.
    pub fn start(&mut self) -> Result<(), Error> {
        let buffer = self.buffer.take().ok_or(Error::Running)?;
        self.running = Some(self.comm.launch(&self.ask, None, buffer)?);
        Ok(())
    }

    /// Makes progress and says whether it is over, or was not started.
    pub fn test(&mut self) -> bool {
        self.running.as_mut().is_none_or(Request::test)
    }

    /// Waits for its end and gives the result; at once when it was not started.
    ///
    /// # Errors
    /// The collective's; afterwards it cannot be started again.
    pub fn wait(&mut self) -> Result<&mut [T], Error> {
        if let Some(request) = self.running.take() {
            self.buffer = Some(request.wait()?);
        }
        self.buffer()
    }

    /// The buffer for good, after the last wait.
    #[must_use]
    pub fn into_buffer(self) -> Option<Vec<T>> {
        self.buffer
    }
}
