//! Store-load fences of unequal weight, for parking.
//!
//! Who sends: stores its message, [`light`], looks whether the receiver is parked. Who parks: stores that it is,
//! [`heavy`], looks once more for messages. One of the two sees the other. With the kernel's `membarrier` the
//! sender's fence is none at all; the one who parks, and is about to pay for a system call anyway, interrupts
//! the other processors instead.
#![allow(unsafe_code, reason = "membarrier has no safe wrapper")]

#[cfg(loom)]
pub use modelled::{heavy, light};
#[cfg(not(loom))]
pub use real::{asymmetric, heavy, light};

/// Loom knows no membarrier; the fences are what it guarantees.
#[cfg(loom)]
mod modelled {
    use loom::sync::atomic::{Ordering, fence};

    pub fn light(_asymmetric: bool) {
        fence(Ordering::SeqCst);
    }

    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

#[cfg(not(loom))]
mod real {
    use nix::libc;
    use std::sync::OnceLock;
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    static REGISTERED: OnceLock<bool> = OnceLock::new();

    /// How this process fences, found out once: whether the kernel fences for it.
    #[must_use]
    pub fn asymmetric() -> bool {
        *REGISTERED.get_or_init(|| membarrier(REGISTER_GLOBAL_EXPEDITED))
    }

    /// The sender's fence; `asymmetric` is what [`asymmetric`] said.
    #[inline]
    pub fn light(asymmetric: bool) {
        if asymmetric { compiler_fence(Ordering::SeqCst) } else { fence(Ordering::SeqCst) }
    }

    /// The fence of who parks; whether it can be relied on. If not, the park must be short.
    #[must_use]
    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        // A process that could not register uses full fences, which pair with this one.
        membarrier(GLOBAL_EXPEDITED) || !asymmetric()
    }
}
