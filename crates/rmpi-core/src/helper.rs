//! A thread that makes progress while the program computes: optional, asleep while nothing is under way.
//!
//! It works like any other thread that waits: it spins a little, parks when nothing happens, and lets in who wants the
//! engine. Calls that block need no help and do not wake it.

use crate::core::Core;
use crate::engine::Engine;
use std::io;
use std::sync::{Condvar, PoisonError};
use std::thread::{Builder, JoinHandle};

/// What the engine's state knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Helping {
    /// There is none.
    #[default]
    No,
    /// It sleeps until something is under way.
    Asleep,
    Awake,
    /// It shall end.
    Ending,
}

/// Where it sleeps.
#[derive(Default)]
pub(crate) struct Bed(Condvar);

impl Bed {
    /// Wakes it if there is something to do.
    #[inline]
    pub(crate) fn wake(&self, core: &Core) {
        if core.helping == Helping::Asleep && core.has_work() {
            self.0.notify_one();
        }
    }
}

/// The thread. It ends when this value is dropped.
#[derive(Debug)]
pub struct Helper {
    engine: Engine,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts a thread that makes progress whenever something is under way.
    ///
    /// # Errors
    /// When there can be no thread, or there is one already.
    pub fn help(&self) -> io::Result<Helper> {
        self.with(|core| match core.helping {
            Helping::No => {
                core.helping = Helping::Awake;
                Ok(())
            }
            _ => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        })?;
        let engine = self.clone();
        let thread = Builder::new().name("rmpi-progress".into()).spawn(move || engine.keep_going());
        let thread = thread.inspect_err(|_| self.with(|core| core.helping = Helping::No))?;
        Ok(Helper { engine: self.clone(), thread: Some(thread) })
    }

    fn keep_going(&self) {
        loop {
            let mut core = self.lock();
            while core.helping != Helping::Ending && !core.has_work() {
                core.helping = Helping::Asleep;
                core = self.bed().0.wait(core).unwrap_or_else(PoisonError::into_inner);
                if core.helping == Helping::Asleep {
                    core.helping = Helping::Awake;
                }
            }
            if core.helping == Helping::Ending {
                return;
            }
            drop(core);
            self.block(|core| (core.helping == Helping::Ending || !core.has_work()).then_some(()));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.engine.with(|core| core.helping = Helping::Ending);
        self.engine.bed().0.notify_all();
        // It has nothing to tell; a panic of its has been reported.
        let _ = self.thread.take().map(JoinHandle::join);
        self.engine.with(|core| core.helping = Helping::No);
    }
}

impl Core {
    /// Whether anything is under way that would go on by itself.
    #[inline]
    fn has_work(&self) -> bool {
        self.ops.running() > 0
    }
}
