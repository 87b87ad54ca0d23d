//! Local calendar time for `--timestamp-output`: the C library's `localtime_r`, the one place that knows the
//! user's time zone. Nothing else here may be unsafe.
#![allow(unsafe_code, reason = "localtime_r has no safe binding")]

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// `ctime(3)`'s form without its newline: `Sun Nov 22 18:55:21 2026`.
pub(crate) fn ctime_now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    ctime(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn ctime(seconds: i64) -> String {
    let seconds: nix::libc::time_t = seconds;
    // SAFETY: `tm` is plain integers and a pointer, for which all zeroes is a value.
    let mut tm: nix::libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types; localtime_r keeps neither.
    let filled = unsafe { nix::libc::localtime_r(&raw const seconds, &raw mut tm) };
    if filled.is_null() {
        return seconds.to_string();
    }
    let name = |names: &[&'static str], i: i32| usize::try_from(i).ok().and_then(|i| names.get(i).copied());
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        name(&DAYS, tm.tm_wday).unwrap_or("?"),
        name(&MONTHS, tm.tm_mon).unwrap_or("?"),
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        i64::from(tm.tm_year) + 1900
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn has_the_shape_of_ctime() {
        // Noon of 22 November 2026 UTC is that day, or the 23rd, in every time zone.
        let text = super::ctime(1_795_348_800);
        assert!(text.contains(" Nov 22 ") || text.contains(" Nov 23 "), "{text}");
        assert!(text.ends_with(" 2026") && text.len() == 24, "{text}");
    }
}
