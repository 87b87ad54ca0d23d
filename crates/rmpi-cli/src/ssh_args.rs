//! Remote-shell agents and arguments meant for OpenSSH's `ssh` (`plm_rsh_agent`, `plm_rsh_args`): what the
//! built-in client can do itself, it does; an argument it has no meaning for means the real program is wanted.

use crate::values::words;
use rmpi_types::spec::HostKeys;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What arguments for `ssh` ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SshArgs {
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) identities: Vec<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) host_keys: Option<HostKeys>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
    pub(crate) options: Vec<(String, String)>,
    /// The first argument that only the real program understands.
    pub(crate) foreign: Option<String>,
}

/// The words of an agent or of its arguments.
pub(crate) fn split(text: &OsStr) -> Result<Vec<OsString>, String> {
    Ok(words(text.as_bytes())?.into_iter().map(|(w, _)| OsString::from_vec(w)).collect())
}

/// The first agent of a list `ssh : rsh`.
pub(crate) fn first_agent(text: &OsStr) -> Result<Vec<OsString>, String> {
    let all = split(text)?;
    Ok(all.into_iter().take_while(|w| w != ":").collect())
}

/// Whether an agent is what the built-in client stands in for.
pub(crate) fn is_ssh(program: &OsStr) -> bool {
    matches!(Path::new(program).file_name().map(OsStr::as_bytes), Some(b"ssh" | b"rsh"))
}

/// Reads arguments as `ssh` does. Of repeated settings the first wins, as there.
pub(crate) fn read(args: &[OsString]) -> Result<SshArgs, String> {
    let mut out = SshArgs::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let text = word.to_str().ok_or("the arguments are not valid UTF-8")?;
        let Some(mut letters) = text.strip_prefix('-').filter(|l| !l.is_empty()) else {
            out.foreign.get_or_insert_with(|| text.to_owned());
            continue;
        };
        while let Some(letter) = letters.chars().next() {
            letters = &letters[letter.len_utf8()..];
            match letter {
                'p' | 'i' | 'l' | 'o' | 'F' | 'J' => {
                    let value = if letters.is_empty() {
                        let next = rest.next().and_then(|w| w.to_str());
                        next.ok_or_else(|| format!("-{letter} of ssh needs a value"))?
                    } else {
                        letters
                    };
                    setting(&mut out, letter, value)?;
                    break;
                }
                // Quiet, X11, no terminal, no stdin, address family, verbose, agent, compression: nothing to do.
                'q' | 'x' | 'T' | 'n' | '4' | '6' | 'v' | 'a' | 'k' | 'C' => {}
                _ => {
                    out.foreign.get_or_insert_with(|| format!("-{letter}"));
                }
            }
        }
    }
    Ok(out)
}

fn setting(out: &mut SshArgs, letter: char, value: &str) -> Result<(), String> {
    let (key, value) = match letter {
        'p' => ("Port", value),
        'i' => ("IdentityFile", value),
        'l' => ("User", value),
        'J' => ("ProxyJump", value),
        'F' => {
            out.config.get_or_insert_with(|| value.into());
            return Ok(());
        }
        _ => {
            let (key, value) = value
                .split_once('=')
                .or_else(|| value.split_once(char::is_whitespace))
                .ok_or_else(|| format!("'-o {value}' of ssh is not KEY=VALUE"))?;
            (key.trim(), value.trim())
        }
    };
    let bad = || format!("'{key}={value}' of ssh is not understood");
    match key.to_ascii_lowercase().as_str() {
        "port" => {
            let port = crate::values::port(value)?;
            out.port.get_or_insert(port);
        }
        "identityfile" => out.identities.push(value.into()),
        "user" => {
            out.user.get_or_insert_with(|| value.to_owned());
        }
        "connecttimeout" if value.eq_ignore_ascii_case("none") => {}
        "connecttimeout" => {
            let time = crate::values::limit(value)?;
            out.connect_timeout.get_or_insert(time);
        }
        "connectionattempts" => {
            let n = crate::values::count(value)?;
            out.attempts.get_or_insert(n);
        }
        "stricthostkeychecking" => {
            let keys = match value.to_ascii_lowercase().as_str() {
                "yes" | "ask" => HostKeys::Strict,
                "accept-new" => HostKeys::AcceptNew,
                "no" | "off" => HostKeys::Off,
                _ => return Err(bad()),
            };
            out.host_keys.get_or_insert(keys);
        }
        _ => out.options.push((key.to_owned(), value.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Result<SshArgs, String> {
        read(&split(OsStr::new(text)).unwrap())
    }

    #[test]
    fn what_scripts_pass() {
        let got =
            args("-q -p 2222 -i ~/k -oStrictHostKeyChecking=no -o ConnectionAttempts=10 -xTl me -J j1,j2")
                .unwrap();
        assert_eq!((got.port, got.attempts, got.host_keys), (Some(2222), Some(10), Some(HostKeys::Off)));
        assert_eq!((got.user.as_deref(), got.identities.len()), (Some("me"), 1));
        assert_eq!(got.options, [("ProxyJump".to_owned(), "j1,j2".to_owned())]);
        assert_eq!(got.foreign, None);
        assert_eq!(args("-L 1:h:2").unwrap().foreign.as_deref(), Some("-L"));
    }

    #[test]
    fn wrong_values_are_errors() {
        for bad in ["-p x", "-p", "-o ConnectTimeout=x", "-o nothing", "-o StrictHostKeyChecking=maybe"] {
            assert!(args(bad).is_err(), "{bad}");
        }
    }
}
