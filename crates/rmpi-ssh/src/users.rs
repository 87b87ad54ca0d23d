//! The user of this process: from `/etc/passwd`, and from `getent` for those whom a directory service knows. Never
//! by the C library's own functions, which load plug-ins that a static program must not load.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A line of the user database (`passwd(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Login name.
    pub(crate) name: String,
    /// Home directory.
    pub(crate) home: PathBuf,
}

/// The user with this number.
pub(crate) fn by_number(uid: u32) -> Option<User> {
    let local = std::fs::read("/etc/passwd").ok().and_then(|file| line_of(&file, uid));
    local.or_else(|| {
        let mut command = Command::new("getent");
        command.args(["passwd", &uid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        line_of(&command.output().ok()?.stdout, uid)
    })
}

fn line_of(file: &[u8], uid: u32) -> Option<User> {
    String::from_utf8_lossy(file).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        let home = fields.nth(2)?;
        (number == uid).then(|| User { name: name.into(), home: home.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_number() {
        let file = b"root:x:0:0:root:/root:/bin/sh\nshort:x\nme:x:1000:7:,,,:/home/me:/bin/csh\n";
        assert_eq!(line_of(file, 1000), Some(User { name: "me".into(), home: "/home/me".into() }));
        assert_eq!(line_of(file, 7), None);
        assert_eq!(by_number(0).unwrap().name, "root");
    }
}
