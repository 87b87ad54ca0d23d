//! Starting many processes at once: `clone(CLONE_VM)` with a stack each, so that the cost does not depend on
//! the size of the daemon and no child suspends it. What runs between `clone` and `exec` is in [`child`].
//!
//! Invariants: a [`Batch`] keeps all memory that its children read until every one of them has called `exec`
//! or ended; one close-on-exec pipe tells when (end of file) and carries the faults. Children must be started
//! by the daemon's *main thread*: their parent-death signal fires when the creating thread ends.
//! Together with `crate::sys` the only unsafe code of the crate.
#![allow(unsafe_code, reason = "clone with shared memory and raw system calls in the child")]

mod child;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::{Pid, pipe2, read};
use rmpi_types::CpuSet;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

pub(crate) use child::{Memory, NODE_WORDS, RECORD, Step};
use child::{Plan, child_main};

/// Bytes of stack for the short life between `clone` and `exec`.
const STACK: usize = 8 << 10;
/// Stacks that are made at once, at most.
const STACKS: usize = 64;
/// Descriptors below this are the ranks' own; sources are moved above it.
const LOWEST_SOURCE: RawFd = 16;

/// A program and its arguments, shared by the ranks of one application.
#[derive(Debug)]
pub(crate) struct Program {
    /// What `execve` gets, relative to the working directory.
    pub path: CString,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// Working directory.
    pub cwd: CString,
    /// Environment shared by all ranks, `NAME=value`.
    pub env: Vec<CString>,
}

/// Variables of one process, as it gets them: `NAME=value` and a NUL each, in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Variables {
    /// These. One with a NUL inside is left out: no program could have it.
    pub(crate) fn of<'a>(all: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut variables = Self::default();
        for (name, value) in
            all.into_iter().filter(|(name, value)| !name.contains('\0') && !value.contains('\0'))
        {
            if variables.starts.is_empty() {
                // What a rank has by itself is rarely more: memory is asked for twice.
                variables.bytes.reserve(1 << 10);
                variables.starts.reserve(24);
            }
            variables.starts.push(variables.bytes.len());
            for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
                variables.bytes.extend_from_slice(part);
            }
        }
        variables
    }

    /// Where each begins.
    fn pointers(&self) -> impl Iterator<Item = *const c_char> {
        self.starts.iter().map(|&start| self.bytes[start..].as_ptr().cast())
    }
}

/// One process to start.
#[derive(Debug)]
pub(crate) struct Child {
    /// What to run.
    pub program: Arc<Program>,
    /// Its own variables, after the shared ones.
    pub env: Variables,
    /// CPUs to bind to.
    pub cpus: Option<CpuSet>,
    /// Where its memory comes from, if not as ours does.
    pub memory: Option<Memory>,
    /// Descriptors it gets, `(ours, its number)`; numbers below 16. All others close.
    pub fds: Vec<(Arc<OwnedFd>, RawFd)>,
    /// Soft and hard limit of open files, if another than ours.
    pub nofile: Option<(u64, u64)>,
    /// Stop it before its first instruction: `sys::reap_any` lets go of it there.
    pub stopped: bool,
}

/// Why a child did not come to run its program, or not as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExecFault {
    /// Index into the batch.
    pub index: usize,
    /// What failed.
    pub step: Step,
    /// `errno`.
    pub errno: i32,
}

impl ExecFault {
    /// Whether the program runs all the same (only its binding failed).
    #[must_use]
    pub(crate) fn harmless(&self) -> bool {
        matches!(self.step, Step::Affinity | Step::Memory)
    }
}

/// Memory that one child reads until it calls `exec`.
struct Held {
    plan: Box<Plan>,
    child: Child,
    _argv: Vec<*const c_char>,
    _envp: Vec<*const c_char>,
    _fds: Vec<[i32; 2]>,
    lifted: Vec<OwnedFd>,
}

/// Stacks for children. Each child would touch its own for the first time, at ten times the price of making the pages of
/// many ready at once.
#[derive(Default)]
struct Stacks {
    areas: Vec<Vec<u128>>,
    /// Of the last area.
    left: usize,
}

impl Stacks {
    /// The upper end of a stack that nobody has; `expected` are the children that are still to come.
    fn next(&mut self, expected: usize) -> *mut u128 {
        const EACH: usize = STACK / 16;
        if self.left == 0 {
            self.left = expected.clamp(1, STACKS);
            let mut area: Vec<u128> = Vec::with_capacity(self.left * EACH);
            if self.left > 1 {
                let (page, start) = (crate::sys::page(), area.as_mut_ptr().addr());
                let end = start + self.left * STACK;
                crate::sys::populate(start.next_multiple_of(page), end / page * page);
            }
            self.areas.push(area);
        }
        let top = self.left * EACH;
        self.left -= 1;
        self.areas.last_mut().map_or(std::ptr::null_mut(), |area| area.as_mut_ptr().wrapping_add(top))
    }
}

/// Children on their way to `exec`.
pub(crate) struct Batch {
    held: Vec<Held>,
    stacks: Stacks,
    pids: Vec<i32>,
    report: OwnedFd,
    partial: Vec<u8>,
    faults: Vec<ExecFault>,
    done: bool,
}

impl Batch {
    /// Starts all children, each as soon as it is given: what a child's descriptors cost it, and how long the
    /// others wait, must not grow with the descriptors of all. On an error none is left running. `reset` are the
    /// signals that get their default action, bit 0 for signal 1: those that this process ignores or handles.
    ///
    /// # Errors
    /// The first that `children` gives; what `pipe`, `fcntl` or `clone` say (descriptors or processes
    /// exhausted).
    pub(crate) fn start(
        children: impl IntoIterator<Item = io::Result<Child>>,
        reset: u64,
    ) -> io::Result<Self> {
        let (report, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let write = lift(write.as_fd())?.unwrap_or(write);
        let mut batch = Self {
            held: Vec::new(),
            stacks: Stacks::default(),
            pids: Vec::new(),
            report,
            partial: Vec::new(),
            faults: Vec::new(),
            done: false,
        };
        // A handler of ours must not run in a child on our memory: all signals stay blocked until its exec.
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        let started = batch.start_all(children, write.as_raw_fd(), reset);
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        drop(write);
        started.map(|()| batch)
    }

    fn start_all(
        &mut self,
        children: impl IntoIterator<Item = io::Result<Child>>,
        report: RawFd,
        reset: u64,
    ) -> io::Result<()> {
        let parent = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let common = Common { parent, report, reset };
        let mut children = children.into_iter();
        self.held.reserve(children.size_hint().0);
        while let Some(child) = children.next() {
            let held = hold(child?, self.held.len(), &common)?;
            self.held.push(held);
            self.clone_last(1 + children.size_hint().0)?;
        }
        Ok(())
    }

    /// Starts the child that was held last, of so many that are still to be started.
    fn clone_last(&mut self, left: usize) -> io::Result<()> {
        let top = self.stacks.next(left);
        let Some(held) = self.held.last_mut() else { return Ok(()) };
        let plan: *const Plan = &raw const *held.plan;
        // SAFETY: `top` is the 16-byte aligned end of a stack that, like everything `plan` points to, lives in
        // this batch until the child has called exec or ended (`drop` waits for that). Without CLONE_FILES
        // and CLONE_SIGHAND the child's descriptors and handlers are its own.
        let pid = unsafe {
            libc::clone(
                child_main,
                top.cast::<c_void>(),
                libc::CLONE_VM | libc::SIGCHLD,
                plan.cast_mut().cast::<c_void>(),
            )
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        self.pids.push(pid);
        // The child has its own table of descriptors since its clone.
        held.child.fds.clear();
        held.lifted.clear();
        Ok(())
    }

    /// The children's process ids, in order.
    #[must_use]
    pub(crate) fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// Readable when [`Batch::collect`] has something to do.
    #[must_use]
    pub(crate) fn report_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Takes in what children report, without waiting: `None` while some are still on their way, else the
    /// faults of those that did not make it, by index. Children with a fault that is not
    /// [harmless](ExecFault::harmless) have ended or will at once; the caller reaps them.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn collect(&mut self) -> io::Result<Option<Vec<ExecFault>>> {
        let mut buffer = [0; 64 * RECORD];
        while !self.done {
            match read(&self.report, &mut buffer) {
                Ok(0) => self.done = true,
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let words = self.partial.chunks_exact(4).map(|c| i32::from_ne_bytes([c[0], c[1], c[2], c[3]]));
        let words: Vec<i32> = words.collect();
        self.faults = words
            .chunks_exact(3)
            .filter_map(|r| {
                Some(ExecFault {
                    index: usize::try_from(r[0]).ok()?,
                    step: Step::from_code(r[1])?,
                    errno: r[2],
                })
            })
            .collect();
        self.faults.sort_unstable_by_key(|f| f.index);
        Ok(Some(std::mem::take(&mut self.faults)))
    }

    /// Waits for [`Batch::collect`]'s result.
    ///
    /// # Errors
    /// What `poll` or `read` say.
    pub(crate) fn wait(&mut self) -> io::Result<Vec<ExecFault>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            if let Some(faults) = self.collect()? {
                return Ok(faults);
            }
            match poll(&mut [PollFd::new(self.report.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Batch {
    /// A batch given up before its children are through: they are ended, and their memory outlives them.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for &pid in &self.pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if self.wait().is_err() {
            std::mem::forget((std::mem::take(&mut self.held), std::mem::take(&mut self.stacks)));
        }
    }
}

/// What all children of a batch are told.
struct Common {
    parent: i32,
    report: RawFd,
    reset: u64,
}

fn hold(child: Child, index: usize, common: &Common) -> io::Result<Held> {
    let program = &child.program;
    let pointers = |strings: &[CString], more: &Variables| -> Vec<*const c_char> {
        let mut pointers = Vec::with_capacity(strings.len() + more.starts.len() + 1);
        pointers.extend(strings.iter().map(|s| s.as_ptr()));
        pointers.extend(more.pointers());
        pointers.push(std::ptr::null());
        pointers
    };
    let argv = pointers(&program.argv, &Variables::default());
    let envp = pointers(&program.env, &child.env);
    let mut lifted = Vec::new();
    let mut fds = Vec::with_capacity(child.fds.len());
    for (source, target) in &child.fds {
        let raw = match lift(source.as_fd())? {
            Some(fd) => {
                let raw = fd.as_raw_fd();
                lifted.push(fd);
                raw
            }
            None => source.as_raw_fd(),
        };
        fds.push([raw, *target]);
    }
    let cpus = child.cpus.as_ref().map_or(&[][..], CpuSet::words);
    let plan = Box::new(Plan {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        cwd: program.cwd.as_ptr(),
        cpus: cpus.as_ptr(),
        cpus_bytes: std::mem::size_of_val(cpus),
        memory: child.memory,
        fds: fds.as_ptr(),
        fds_len: fds.len(),
        nofile: child.nofile.map_or([0, 0], |(soft, hard)| [soft, hard]),
        parent: common.parent,
        report: common.report,
        traced: child.stopped,
        reset: common.reset,
        index: i32::try_from(index).unwrap_or(i32::MAX),
    });
    Ok(Held { plan, child, _argv: argv, _envp: envp, _fds: fds, lifted })
}

/// A copy above the ranks' numbers when `fd` is among them.
fn lift(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    if fd.as_raw_fd() >= LOWEST_SOURCE {
        return Ok(None);
    }
    crate::sys::keep(fd, LOWEST_SOURCE).map(Some)
}

#[cfg(test)]
mod tests;
