//! Taking over the descriptors that the daemon left for this rank, once per process.
#![allow(unsafe_code, reason = "a descriptor number becomes an owned descriptor exactly here")]

use crate::error::InitError;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rmpi_wire::boot::ENV_FDS;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The descriptors a rank inherits.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The sealed boot block.
    pub(crate) boot: OwnedFd,
    /// The rank's listening socket.
    pub(crate) listen: OwnedFd,
    /// The stream to the daemon.
    pub(crate) kvs: Option<OwnedFd>,
    /// The memory shared by the ranks of this node.
    pub(crate) shm: Option<OwnedFd>,
    /// The UDP socket of the QUIC rail.
    pub(crate) udp: Option<OwnedFd>,
    /// A pipe with the private half of the rank's key pair.
    pub(crate) key: Option<OwnedFd>,
}

/// Names in the variable, in the order of what [`parse`] gives.
const NAMES: [&str; 6] = ["boot", "listen", "kvs", "shm", "udp", "key"];

/// Descriptors belong to the process, so taking them is the one thing that cannot be done twice.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Reads `boot=3,listen=4,kvs=5,shm=6`.
fn parse(text: &str) -> Result<[Option<RawFd>; NAMES.len()], String> {
    let mut fds = [None; NAMES.len()];
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (name, number) = part.split_once('=').ok_or_else(|| format!("not NAME=NUMBER in {part:?}"))?;
        let number: RawFd = number.parse().map_err(|_| format!("not a number in {part:?}"))?;
        // Later daemons may leave more.
        let Some(slot) = NAMES.iter().position(|n| *n == name) else { continue };
        if number < 3 || fds.contains(&Some(number)) {
            return Err(format!("an impossible descriptor in {part:?}"));
        }
        fds[slot] = Some(number);
    }
    Ok(fds)
}

fn take(name: &'static str, fd: RawFd) -> Result<OwnedFd, InitError> {
    let bad = |e: nix::Error| InitError::Descriptor { name, source: e.into() };
    // SAFETY: only borrowed to ask whether the number is open at all; an unopened one gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(bad)?;
    // SAFETY: the descriptor is open (checked above), was left for this library by the contract of the
    // variable that names it, and is taken once per process (TAKEN).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the inherited descriptors; `None` without a launcher.
pub(crate) fn inherited() -> Result<Option<Inherited>, InitError> {
    let Some(text) = std::env::var_os(ENV_FDS) else { return Ok(None) };
    let bad = |what: String| InitError::Environment { name: ENV_FDS, what };
    let text = text.into_string().map_err(|_| bad("not text".into()))?;
    let [boot, listen, kvs, shm, udp, key] = parse(&text).map_err(bad)?;
    let (Some(boot), Some(listen)) = (boot, listen) else {
        return Err(bad("without `boot` or `listen`".into()));
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InitError::Twice);
    }
    let optional = |name, fd: Option<RawFd>| fd.map(|fd| take(name, fd)).transpose();
    let (kvs, shm) = (optional("kvs", kvs)?, optional("shm", shm)?);
    let (udp, key) = (optional("udp", udp)?, optional("key", key)?);
    Ok(Some(Inherited { boot: take("boot", boot)?, listen: take("listen", listen)?, kvs, shm, udp, key }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_checked() {
        assert_eq!(parse("boot=3,listen=4,kvs=5"), Ok([Some(3), Some(4), Some(5), None, None, None]));
        let all = parse("listen=9,later=5,shm=10,boot=8,key=6,udp=7");
        assert_eq!(all, Ok([Some(8), Some(9), None, Some(10), Some(7), Some(6)]));
        for bad in ["boot", "boot=x", "boot=1", "boot=3,listen=3", "boot=-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
