//! Where the program begins. The standard library's own beginning reads `/proc/self/maps`, in order to tell an overflow
//! of the main thread's stack from other faults: with what it needs for that, a fiftieth of a launch. So `main` is the
//! C library's, where that tells the standard library of the arguments by itself.
#![allow(unsafe_code, reason = "`main` as the C library looks for it")]

use std::ffi::{c_char, c_int};

#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    rmpi_daemon::begin();
    crate::run_program().into()
}
