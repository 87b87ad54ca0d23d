//! Users and homes from `/etc/passwd`, read by hand: the static binary must not load name-service plug-ins.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A line's name and home for `uid`.
fn entry(text: &[u8], uid: u32) -> Option<(OsString, OsString)> {
    text.split(|&b| b == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let number = std::str::from_utf8(fields.get(2)?).ok()?.parse::<u32>().ok()?;
        let os = |i: usize| fields.get(i).map(|f| OsStr::from_bytes(f).to_owned());
        (number == uid).then_some((os(0)?, os(5)?))
    })
}

/// The login's home: `HOME`, else what `/etc/passwd` says, else `/`.
pub(crate) fn home() -> OsString {
    std::env::var_os("HOME").filter(|h| !h.is_empty()).unwrap_or_else(|| {
        let text = std::fs::read("/etc/passwd").unwrap_or_default();
        entry(&text, nix::unistd::geteuid().as_raw()).map_or_else(|| "/".into(), |(_, home)| home)
    })
}

/// A user's name, else `uid N`.
pub(crate) fn user(uid: u32) -> String {
    let text = std::fs::read("/etc/passwd").unwrap_or_default();
    entry(&text, uid).map_or_else(|| format!("uid {uid}"), |(name, _)| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_number() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:1:,,,:/home/me:/bin/csh";
        assert_eq!(entry(text, 1000), Some(("me".into(), "/home/me".into())));
        assert_eq!(entry(text, 0), Some(("root".into(), "/root".into())));
        assert_eq!(entry(text, 7), None);
    }
}
