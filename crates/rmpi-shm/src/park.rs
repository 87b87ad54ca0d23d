//! The flag of a rank that sleeps: raised before it looks a last time, claimed by whoever wakes it.
//!
//! One of the two always sees the other: the sleeper raises the flag, fences, and looks at everything once more;
//! who has something for it stores that, fences, and looks at the flag. The models check exactly this code.

use crate::fence;
use crate::sync::{AtomicU64, Ordering};

/// Raises the flag; whether those who store something from now on certainly see it.
pub(crate) fn raise(flag: &AtomicU64) -> bool {
    flag.store(1, Ordering::SeqCst);
    fence::heavy()
}

/// Whether a flag is raised, for who has just stored something; `asymmetric` as for [`fence::light`].
#[inline]
pub(crate) fn is_raised(flag: &AtomicU64, asymmetric: bool) -> bool {
    fence::light(asymmetric);
    flag.load(Ordering::Relaxed) != 0
}

/// Takes a raised flag down: of several that see it one is enough to wake the sleeper.
pub(crate) fn claim(flag: &AtomicU64) -> bool {
    flag.swap(0, Ordering::SeqCst) != 0
}

/// The sleeper's own way up.
pub(crate) fn lower(flag: &AtomicU64) {
    flag.store(0, Ordering::Relaxed);
}
