//! System calls that neither `std`, `socket2` nor `nix` wrap safely: what the kernel knows of a TCP socket.
//! Every function takes a borrowed descriptor and plain out-parameters, so none can be misused from outside.
#![allow(unsafe_code, reason = "TCP_INFO and SIOCOUTQ have no safe wrapper")]

use nix::libc;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Bytes written to `fd` that the other host's kernel has not acknowledged (`SIOCOUTQ`).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int through its argument, which points to a
    // live c_int; the descriptor is open for as long as the borrow lasts.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

/// How long the other host has left sent data unacknowledged in spite of retransmissions; `None` when nothing
/// is being retransmitted. A closed receive window of a live host is not silence.
pub(crate) fn silence(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: `info` is a zeroed, writable tcp_info of `len` bytes and `len` is a live socklen_t; the kernel
    // writes at most `len` bytes. The descriptor is open for as long as the borrow lasts.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: tcp_info is plain integers, all zeroed before the kernel filled in a prefix.
    let info = unsafe { info.assume_init() };
    let lost = info.tcpi_unacked > 0 && info.tcpi_retransmits >= 2;
    Ok(lost.then(|| Duration::from_millis(u64::from(info.tcpi_last_ack_recv))))
}
