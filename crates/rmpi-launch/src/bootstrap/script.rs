//! The command line given to the remote login shell, whichever that is: `exec /bin/sh -c '...'`, where the
//! quoted text has no single quote, exclamation mark, backslash or line break, because sh, csh and fish agree
//! on everything else between single quotes. The text itself is plain POSIX shell plus `head -c`.

use super::{DaemonImage, ImageSource};
use std::path::Path;

/// Characters of a path or argument that mean themselves between double quotes inside single quotes.
const PLAIN: &str = "_./+,:@%=~ -";

/// Something that cannot be put on a remote command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A word has characters that not all shells quote alike.
    #[error("{word:?} cannot be given to a remote shell: only letters, digits and {PLAIN:?} are allowed")]
    Word {
        /// The word.
        word: String,
    },
    /// The hash is not a SHA-256.
    #[error("the daemon's hash {0:?} is not 64 hexadecimal digits")]
    Hash(String),
}

/// How a host's cache is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Our own program at its path here is run if it is there: pods of one image. Else as [`Look::Quick`].
    SameImage,
    /// A file of the right name and owner is run.
    Quick,
    /// Its content is checked first.
    Close,
}

/// The beginning of every script: the empty line ends a banner that has no line end.
const BEGIN: &str = "echo; ";

/// The first marker line, and how to fail.
const PREAMBLE: &str = r#"echo "RMPI-HOST $(uname -m)"; f() { echo "RMPI-FAIL $*"; exit 1; }; "#;

/// The usual case without starting a single program, each of which costs a millisecond of a host: the daemon is
/// in the user's own cache, where a whole file was renamed to this name, and file and folder belong to nobody
/// else. What answers there with anything but this build's hello is looked at closely by [`FIND_OR_TAKE`] next time.
/// Shells that do not know `-O` go on to that too.
const CACHED: &str = r#"
q=${XDG_CACHE_HOME:-${HOME:-/dev/null}/.cache}/rmpirun; p=$q/rmpid-$h;
if { test -O "$q" && test -O "$p" && test -f "$p" && test -x "$p"; } 2>/dev/null;
 then echo "RMPI-HOST -"; @START; fi;
"#;

/// The launcher's own path.
const SAME: &str = r#"if test -f "@OWN" && test -x "@OWN"; then echo "RMPI-HOST -"; echo RMPI-READY; exec "@OWN" __rmpid; fi; "#;

/// Looks the daemon up by its hash in places only this user can have written to (`own`: right type and owner,
/// not writable for group or others), or takes it from standard input into the first place that can hold and
/// execute it. A probe file tells whether programs run there: `noexec` is not visible otherwise. Where there is no such
/// place, an installed `rmpirun` is the daemon, as in images whose file systems are all read-only; another build
/// says so in its hello. Hosts may share the place and push at the same time, and neither a host's name nor a process's
/// number is its own alone (pods, other namespaces): hence `mktemp` where there is one.
const FIND_OR_TAKE: &str = r##"
umask 077; u=$(id -u); n=rmpid-$h; p=; q=; w=;
own() { set -- "$1" $(ls -ldn "$2" 2>/dev/null);
 case "$2" in $1????w*|$1???????w*) return 1;; $1*) test "$4" = "$u";; *) return 1;; esac; };
sum() { if command -v sha256sum >/dev/null 2>&1; then set -- $(sha256sum < "$1"); test "$1" = $h; fi; };
new() { mktemp "$1.XXXXXX" 2>/dev/null || echo "$1.$(uname -n).$$"; };
full() { test $(wc -c < "$1") -eq $s && sum "$1"; };
set -- "${XDG_CACHE_HOME:-${HOME:-/dev/null}/.cache}/rmpirun" "${TMPDIR:-/tmp}/rmpirun-$u"
 "/tmp/rmpirun-$u" "/dev/shm/rmpirun-$u" "/var/tmp/rmpirun-$u";
for d in "$@"; do
 if test -x "$d/$n" && own d "$d" && own - "$d/$n" && full "$d/$n"; then p=$d/$n; break; fi;
done;
if test -z "$p"; then
 for d in "$@"; do
  mkdir -p "$d" 2>/dev/null;
  if test -d "$d"; then :; else w="$w; $d cannot be made"; continue; fi;
  own d "$d" || { w="$w; $d belongs to someone else or others may write to it"; continue; };
  x=$(new "$d/.probe"); { echo : > "$x" && chmod 700 "$x"; } 2>/dev/null || { rm -f "$x" 2>/dev/null; w="$w; $d cannot be written to"; continue; };
  "$x" 2>/dev/null; r=$?; rm -f "$x";
  test $r -eq 0 || { w="$w; $d is mounted noexec"; continue; };
  a=$(df -Pk "$d" 2>/dev/null | tail -n 1 | { read b c e a r; echo "$a"; });
  if test "$a" -ge 0 2>/dev/null && test $((s / 1024)) -ge "$a"; then w="$w; $d has only $a KiB free"; continue; fi;
  q=$d; break;
 done;
 if test -z "$q"; then
  for c in "@OWN" rmpirun /usr/local/bin/rmpirun /opt/rmpirun/rmpirun; do
   if command -v "$c" >/dev/null 2>&1; then echo RMPI-READY; exec "$c" __rmpid; fi;
  done;
  f "no place for the daemon on this host, and no rmpirun$w";
 fi;
 t=$(new "$q/.$n");
 echo "RMPI-NEED $h";
 e=$({ head -c $s > "$t"; } 2>&1) || { rm -f "$t"; f "the daemon cannot be written to $q: $e"; };
 full "$t" || { rm -f "$t"; f "the daemon did not arrive whole"; };
 { chmod 700 "$t" && mv -f "$t" "$q/$n"; } || { rm -f "$t"; f "the daemon cannot be put into $q"; };
 find "$q" -name "*rmpid-*" -mtime +30 -exec rm -f {} + 2>/dev/null;
 p=$q/$n;
fi;
"##;

/// Uses an installed daemon.
const INSTALLED: &str = r#"
if test -f "$p"; then :; else f "no daemon at $p"; fi;
if test -x "$p"; then :; else f "the daemon at $p is not executable"; fi;
"#;

/// The last thing before the daemon takes over.
const START: &str = r#"echo RMPI-READY; exec "$p""#;

/// The command that starts the daemon on a host, to be run by the login shell there.
///
/// # Errors
/// When a path or argument has characters that shells treat differently.
pub fn remote_command(image: &DaemonImage, look: Look) -> Result<String, CommandError> {
    // Embedders' programs are no daemons, and need not be.
    let own = std::env::current_exe().ok().filter(|p| p.file_name().is_some_and(|n| n == "rmpirun"));
    command_of(image, look, own.as_deref().and_then(Path::to_str))
}

/// The same for a launcher that is at this path.
pub(super) fn command_of(image: &DaemonImage, look: Look, own: Option<&str>) -> Result<String, CommandError> {
    let mut start = String::from(START);
    for word in &image.words {
        start.push_str(&format!(" \"{}\"", plain(word)?));
    }
    let mut script = String::from(BEGIN);
    match &image.source {
        ImageSource::Installed(path) => {
            let path = plain(path)?;
            let path =
                path.strip_prefix("~/").map_or_else(|| path.to_owned(), |rest| format!("$HOME/{rest}"));
            script.push_str(&format!("{PREAMBLE}p=\"{path}\"; {INSTALLED}"));
        }
        ImageSource::Pushed { bytes, hash } => {
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(CommandError::Hash(hash.to_string()));
            }
            let cached = match look {
                Look::SameImage | Look::Quick => CACHED.replace("@START", &start),
                Look::Close => String::new(),
            };
            let own = own.filter(|p| plain(p).is_ok());
            let find = FIND_OR_TAKE.replace("@OWN", own.unwrap_or("rmpirun"));
            let same = own.filter(|_| look == Look::SameImage).map(|own| SAME.replace("@OWN", own));
            let same = same.unwrap_or_default();
            script.push_str(&format!("{same}h={hash}; s={}; {cached}{PREAMBLE}{find}", bytes.len()));
        }
    }
    script.push_str(&start);
    Ok(format!("exec /bin/sh -c '{}'", script.replace('\n', " ")))
}

fn plain(word: &str) -> Result<&str, CommandError> {
    let fine = word.chars().all(|c| c.is_alphanumeric() || PLAIN.contains(c));
    if fine && !word.is_empty() { Ok(word) } else { Err(CommandError::Word { word: word.to_owned() }) }
}
