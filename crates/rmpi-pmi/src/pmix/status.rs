//! Status codes that clients know.

/// It is done.
pub const SUCCESS: i32 = 0;
/// The process called abort.
pub const PROC_ABORTED: i32 = -7;
/// An abort was asked for.
pub const PROC_REQUESTED_ABORT: i32 = -8;
/// It is there already.
pub const EXISTS: i32 = -11;
/// The credential is not that of the caller.
pub const INVALID_CRED: i32 = -12;
/// The message could not be unpacked.
pub const UNPACK_FAILURE: i32 = -20;
/// The time is over.
pub const TIMEOUT: i32 = -24;
/// It cannot be reached.
pub const UNREACH: i32 = -25;
/// A wrong argument.
pub const BAD_PARAM: i32 = -27;
/// Too much is asked for.
pub const OUT_OF_RESOURCE: i32 = -29;
/// It is not there.
pub const NOT_FOUND: i32 = -46;
/// It is not done here.
pub const NOT_SUPPORTED: i32 = -47;
/// Some of it is there.
pub const PARTIAL_SUCCESS: i32 = -52;
/// A client or server is gone.
pub const LOST_CONNECTION: i32 = -61;
/// Processes could not be started.
pub const JOB_FAILED_TO_LAUNCH: i32 = -181;
/// A program was not found.
pub const EXE_NOT_FOUND: i32 = -190;
/// A process ended without finalizing.
pub const TERM_WO_SYNC: i32 = -200;
/// A process ended by a signal.
pub const ABORTED_BY_SIG: i32 = -402;
/// A process ended with a code other than 0.
pub const NON_ZERO_TERM: i32 = -404;
