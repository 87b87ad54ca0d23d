//! What a child does between `clone` and `exec`. It shares the daemon's memory, thread-local storage included,
//! while the daemon runs on: only raw system calls (no `errno`), no allocation, no panic, no lock.

use nix::libc;
use std::ffi::{c_char, c_int, c_void};

/// Bytes of one fault on the report pipe: index, step, errno as native `i32`s (written at once, so whole).
pub(crate) const RECORD: usize = 12;

/// Steps that can fail in a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Process group, parent-death signal, descriptors.
    Setup,
    /// Binding to CPUs.
    Affinity,
    /// Changing to the working directory.
    Cwd,
    /// `execve`.
    Exec,
    /// Where memory comes from.
    Memory,
}

/// A policy for memory as `set_mempolicy(2)` takes it, for up to 1,024 NUMA nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// `MPOL_LOCAL`, `MPOL_INTERLEAVE`.
    pub(crate) mode: i32,
    /// The nodes; none for policies without.
    pub(crate) nodes: [u64; NODE_WORDS],
}

/// Words of a set of NUMA nodes.
pub(crate) const NODE_WORDS: usize = 16;

impl Step {
    const fn code(self) -> i32 {
        match self {
            Self::Setup => 1,
            Self::Affinity => 2,
            Self::Cwd => 3,
            Self::Exec => 4,
            Self::Memory => 5,
        }
    }

    pub(super) const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::Setup,
            2 => Self::Affinity,
            3 => Self::Cwd,
            4 => Self::Exec,
            5 => Self::Memory,
            _ => return None,
        })
    }
}

/// What a child needs, as plain pointers into memory that the batch keeps.
pub(super) struct Plan {
    pub(super) path: *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) envp: *const *const c_char,
    pub(super) cwd: *const c_char,
    pub(super) cpus: *const u64,
    pub(super) cpus_bytes: usize,
    pub(super) memory: Option<Memory>,
    pub(super) fds: *const [i32; 2],
    pub(super) fds_len: usize,
    pub(super) nofile: [u64; 2],
    pub(super) parent: i32,
    pub(super) report: i32,
    /// Whether the parent traces it, to stop it at its exec.
    pub(super) traced: bool,
    /// Signals to set to their default, bit 0 for signal 1.
    pub(super) reset: u64,
    pub(super) index: i32,
}

#[cfg(target_arch = "x86_64")]
unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let ret: isize;
    // SAFETY: the kernel's calling convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!(
            "syscall", inlateout("rax") number as isize => ret,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    ret
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let ret: isize;
    // SAFETY: the kernel's calling convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!(
            "svc 0", in("x8") number, inlateout("x0") args[0] as isize => ret,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], options(nostack)
        );
    }
    ret
}

/// The kernel's `struct sigaction` for `SIG_DFL`: all zero, whatever the layout.
static DEFAULT_ACTION: [u64; ACTION_WORDS] = [0; ACTION_WORDS];
/// More words than any kernel's `struct sigaction` has.
const ACTION_WORDS: usize = 8;
static EMPTY_MASK: u64 = 0;
/// Bytes of the kernel's signal set.
const KERNEL_SIGSET_BYTES: usize = 8;

/// Entry of the child. Returns only when something failed; `clone`'s wrapper then ends the process.
pub(super) extern "C" fn child_main(plan: *mut c_void) -> c_int {
    // SAFETY: `plan` is a `Plan` that the parent keeps, with all it points to, until our exec or end.
    let plan = unsafe { &*plan.cast::<Plan>() };
    // SAFETY: as above; this is the child.
    let (step, errno) = unsafe { run(plan) };
    // SAFETY: as above.
    unsafe { report(plan, step, errno) };
    127
}

unsafe fn report(plan: &Plan, step: Step, errno: i32) {
    let record = [plan.index, step.code(), errno];
    // SAFETY: the record is RECORD bytes on our own stack.
    unsafe { call(libc::SYS_write, [fd(plan.report), record.as_ptr() as usize, RECORD, 0, 0]) };
}

const fn fd(raw: i32) -> usize {
    raw as usize
}

unsafe fn run(plan: &Plan) -> (Step, i32) {
    // SAFETY: pointers are the plan's; numbers and structures are the kernel's.
    unsafe {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0]);
        // The signal does not fire for a parent that ended before it was asked for.
        if call(libc::SYS_getppid, [0; 5]) != plan.parent as isize {
            return (Step::Setup, libc::ESRCH);
        }
        let ret = call(libc::SYS_setpgid, [0; 5]);
        if ret < 0 {
            return (Step::Setup, errno(ret));
        }
        let mut reset = plan.reset;
        while reset != 0 {
            let signal = reset.trailing_zeros() as usize + 1;
            reset &= reset - 1;
            let action = DEFAULT_ACTION.as_ptr() as usize;
            call(libc::SYS_rt_sigaction, [signal, action, 0, KERNEL_SIGSET_BYTES, 0]);
        }
        // Whatever the daemon inherited stays out; kernels before 5.11 refuse, ours are marked anyway.
        call(libc::SYS_close_range, [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0]);
        let mut i = 0;
        while i < plan.fds_len {
            let [from, to] = *plan.fds.add(i);
            let ret = call(libc::SYS_dup3, [fd(from), fd(to), 0, 0, 0]);
            if ret < 0 {
                return (Step::Setup, errno(ret));
            }
            i += 1;
        }
        if plan.nofile[1] != 0 {
            let limit = plan.nofile.as_ptr() as usize;
            call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit, 0, 0]);
        }
        if plan.cpus_bytes != 0 {
            let ret = call(libc::SYS_sched_setaffinity, [0, plan.cpus_bytes, plan.cpus as usize, 0, 0]);
            if ret < 0 {
                report(plan, Step::Affinity, errno(ret));
            }
        }
        if let Some(memory) = &plan.memory {
            let some = memory.nodes.iter().any(|&word| word != 0);
            // One more than there are: the kernel looks at the bits below that number less one.
            let (nodes, most) =
                if some { (memory.nodes.as_ptr() as usize, NODE_WORDS * 64 + 1) } else { (0, 0) };
            let ret = call(libc::SYS_set_mempolicy, [fd(memory.mode), nodes, most, 0, 0]);
            if ret < 0 {
                report(plan, Step::Memory, errno(ret));
            }
        }
        let ret = call(libc::SYS_chdir, [plan.cwd as usize, 0, 0, 0, 0]);
        if ret < 0 {
            return (Step::Cwd, errno(ret));
        }
        if plan.traced {
            let ret = call(libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0]);
            if ret < 0 {
                return (Step::Setup, errno(ret));
            }
        }
        let mask = &raw const EMPTY_MASK as usize;
        call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, mask, 0, KERNEL_SIGSET_BYTES, 0]);
        let ret = call(libc::SYS_execve, [plan.path as usize, plan.argv as usize, plan.envp as usize, 0, 0]);
        (Step::Exec, errno(ret))
    }
}

const fn errno(ret: isize) -> i32 {
    -(ret as i32)
}
