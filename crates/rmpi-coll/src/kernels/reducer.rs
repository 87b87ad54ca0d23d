//! A reduction without its Rust type: a built-in operation on a type, or the user's own on bytes.

use super::{DataType, KernelError, Op, Source, Target, combine, reduce};
use std::sync::Arc;

/// `left[i] = f(left[i], right[i])` over whole elements at any alignment.
type UserFn = dyn Fn(&mut [u8], &[u8]) + Send + Sync;

/// The user's function on all sources in their order. It gets references, so it gets memory that nobody else writes.
fn apply_in_order(f: &UserFn, mut out: Target<'_>, sources: &[Source<'_>]) -> Result<(), KernelError> {
    let dst = out.len();
    if let Some(src) = sources.iter().find_map(|s| s.len().filter(|&l| l != dst)) {
        return Err(KernelError::Lengths { dst, src });
    }
    out.through_copy(|old| {
        let mut sum = vec![0; old.len()];
        let mut next = vec![0; old.len()];
        for (i, source) in sources.iter().enumerate() {
            let into = if i == 0 { &mut sum } else { &mut next };
            if source.is_output() {
                into.copy_from_slice(old)
            } else {
                source.copy_to(into)
            }
            if i > 0 {
                f(&mut sum, &next);
            }
        }
        if !sources.is_empty() {
            old.copy_from_slice(&sum);
        }
    });
    Ok(())
}

/// What a reduction does with bytes.
#[derive(Clone)]
pub enum Reducer {
    /// A built-in operation.
    Builtin(DataType, Op),
    /// The user's, and a number that tells its kind from the built-in ones.
    User(Arc<UserFn>, u16),
}

impl std::fmt::Debug for Reducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Builtin(dtype, op) => write!(f, "{op:?} of {dtype:?}"),
            Self::User(_, code) => write!(f, "user operation {code:#x}"),
        }
    }
}

impl Reducer {
    /// `dst = op(dst, src)`.
    ///
    /// # Errors
    /// As [`reduce`].
    pub fn apply(&self, dst: &mut [u8], src: &[u8]) -> Result<(), KernelError> {
        match self {
            Self::Builtin(dtype, op) => reduce(*dtype, *op, dst, src),
            Self::User(f, _) => {
                f(dst, src);
                Ok(())
            }
        }
    }

    /// All sources in their order into `out`; see [`combine`].
    ///
    /// # Errors
    /// As [`combine`].
    #[inline]
    pub fn combine(&self, out: Target<'_>, sources: &[Source<'_>], stream: bool) -> Result<(), KernelError> {
        match self {
            Self::Builtin(dtype, op) => combine(*dtype, *op, out, sources, stream),
            Self::User(f, _) => apply_in_order(&**f, out, sources),
        }
    }

    /// A number that tells operations apart, the same on all ranks, never 0.
    #[must_use]
    #[inline]
    pub fn code(&self) -> u16 {
        match self {
            Self::Builtin(_, op) => *op as u16 + 1,
            Self::User(_, code) => *code,
        }
    }
}
