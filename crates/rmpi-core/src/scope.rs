//! Operations on borrowed memory: blocking calls, and scopes for non-blocking ones.
//!
//! Every window made here is released before the borrow it came from ends: by a guard on the stack of the
//! function that borrows, which runs on return and on panic alike and cannot be forgotten.
#![allow(unsafe_code, reason = "windows of borrowed memory; the guards end them in time")]

use crate::core::Core;
use crate::engine::Engine;
use crate::error::Fault;
use crate::memory::RawBuf;
use crate::ops::{Finished, OpId, Status};
use crate::quick::sent;
use crate::submit::{RecvSpec, SendSpec};
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// Releases operations when it goes out of scope.
struct Guard<'a> {
    engine: &'a Engine,
    ops: [Option<OpId>; 2],
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.ops.iter().any(Option::is_some) {
            self.engine.with(|core| self.ops.iter().flatten().for_each(|&op| core.release(op)));
        }
    }
}

/// A span in which borrowed memory is lent to non-blocking operations; see [`Engine::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    engine: &'env Engine,
    ops: Mutex<Vec<OpId>>,
    /// Invariant: memory lent for 'scope must not be taken for shorter.
    lent: PhantomData<&'scope mut &'scope ()>,
}

impl<'scope> Scope<'scope, '_> {
    fn remember(&self, op: OpId) -> OpId {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
        op
    }

    /// Sends borrowed memory; its status if it was sent at once.
    pub fn send(&'scope self, spec: SendSpec, bytes: &'scope [u8]) -> Result<Status, OpId> {
        let mut core = self.engine.lock();
        if core.send_at_once(&spec, bytes) {
            return Ok(Status { peer: spec.to, tag: spec.tag, length: bytes.len() as u64 });
        }
        // SAFETY: `bytes` is borrowed until 'scope ends, and `Engine::scope` releases the operation before.
        let buf = unsafe { RawBuf::read(bytes) };
        let op = core.submit_send(spec, buf, None);
        self.engine.tell(&core);
        self.engine.bed().wake(&core);
        drop(core);
        Err(self.remember(op))
    }

    /// Receives into borrowed memory.
    pub fn recv(&'scope self, spec: &RecvSpec, bytes: &'scope mut [u8]) -> OpId {
        // SAFETY: `bytes` is exclusively borrowed until 'scope ends, and `Engine::scope` releases the operation
        // before.
        let buf = unsafe { RawBuf::write(bytes) };
        self.remember(self.engine.with(|core| core.submit_recv(spec, buf, None)))
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts `count` receives into the same borrowed memory, which each message overwrites.
    pub fn recv_over(&'scope self, spec: &RecvSpec, bytes: &'scope mut [u8], count: usize) -> Vec<OpId> {
        // SAFETY: as in `recv`; the windows are the same memory, but only the engine uses them, under its lock,
        // and never two at once.
        let buf = unsafe { RawBuf::write(bytes) };
        let ops = self.engine.with(|core: &mut Core| core.submit_recvs(spec, buf, count));
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).extend(&ops);
        ops
    }
}

impl Scope<'_, '_> {
    /// Waits for operations of this scope.
    ///
    /// # Errors
    /// As [`Engine::wait_all`].
    pub fn wait_all(&self, ops: &[OpId]) -> Result<(), Fault> {
        let outcome = self.engine.wait_all(ops);
        // Mostly these are the last or all that were started, and nothing is left to be released.
        let mut mine = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.ends_with(ops) {
            let rest = mine.len() - ops.len();
            mine.truncate(rest);
        }
        outcome
    }
}

/// Releases all operations of a scope.
struct ScopeGuard<'a, 'scope, 'env>(&'a Scope<'scope, 'env>);

impl Drop for ScopeGuard<'_, '_, '_> {
    fn drop(&mut self) {
        let ops = std::mem::take(&mut *self.0.ops.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.engine.with(|core| ops.into_iter().for_each(|op| core.release(op)));
    }
}

impl Engine {
    /// Runs `f` with a scope whose operations may use memory borrowed from outside. Operations not waited for
    /// by its end are released: receives are cancelled or go nowhere, sends go on from a copy.
    pub fn scope<'env, R>(&'env self, f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
        let scope = Scope { engine: self, ops: Mutex::new(Vec::new()), lent: PhantomData };
        let _guard = ScopeGuard(&scope);
        f(&scope)
    }

    /// Waits for an operation on borrowed memory, unless it is over; releases it if waiting panics.
    fn finish_borrowed(&self, started: Result<Finished, OpId>) -> Result<Status, Fault> {
        match started {
            Ok((result, _)) => result,
            Err(op) => {
                let mut guard = Guard { engine: self, ops: [Some(op), None] };
                let result = self.wait(op).0;
                guard.ops = [None; 2];
                result
            }
        }
    }

    /// Sends if that is possible at once, without waiting for anything; whether it was.
    #[must_use]
    pub fn send_now(&self, spec: &SendSpec, bytes: &[u8]) -> bool {
        self.with(|core| core.send_at_once(spec, bytes) || core.send_quickly(spec, bytes))
    }

    /// Sends and waits until the memory is free again.
    ///
    /// # Errors
    /// The operation's [`Fault`].
    pub fn send(&self, spec: SendSpec, bytes: &[u8]) -> Result<Status, Fault> {
        if self.send_now(&spec, bytes) {
            return sent(&spec, bytes);
        }
        // SAFETY: `finish_borrowed` ends or releases the operation before this call, and so the borrow, ends.
        let buf = unsafe { RawBuf::read(bytes) };
        self.finish_borrowed(self.start(|core| core.submit_send(spec, buf, None)))
    }

    /// Receives and waits for the message.
    ///
    /// # Errors
    /// The operation's [`Fault`].
    pub fn recv(&self, spec: &RecvSpec, bytes: &mut [u8]) -> Result<Status, Fault> {
        // SAFETY: `finish_borrowed` ends or releases the operation before this call, and so the borrow, ends.
        let buf = unsafe { RawBuf::write(bytes) };
        match self.recv_soon(spec, buf) {
            Some(Ok(status)) => return Ok(status),
            Some(Err(op)) => return self.finish_borrowed(Err(op)),
            None => {}
        }
        let begun = self.recv_quickly(spec, buf);
        self.finish_borrowed(begun.unwrap_or_else(|| self.start(|core| core.submit_recv(spec, buf, None))))
    }

    /// Sends and receives at once; the receive's status.
    ///
    /// # Errors
    /// The receive's [`Fault`], else the send's.
    pub fn sendrecv(
        &self,
        send: SendSpec,
        out: &[u8],
        recv: &RecvSpec,
        into: &mut [u8],
    ) -> Result<Status, Fault> {
        if self.send_now(&send, out) {
            return self.recv(recv, into);
        }
        // SAFETY: the guard below releases both operations before this call, and so the borrows, end.
        let (out, into) = unsafe { (RawBuf::read(out), RawBuf::write(into)) };
        let (r, s) =
            self.with(|core| (core.submit_recv(recv, into, None), core.submit_send(send, out, None)));
        let _guard = Guard { engine: self, ops: [Some(r), Some(s)] };
        let received = self.wait(r).0;
        received.and_then(|status| self.wait(s).0.map(|_| status))
    }
}
