//! What a command line may refer to: environment, files, standard input, programs of this machine.

use rmpi_cli::{CliError, Parsed, Sources};
use rmpi_launch::types::spec::EnvMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// Reads options, environment and the files they name.
pub(crate) fn understand(argv0: OsString, args: Vec<OsString>) -> Result<Parsed, CliError> {
    let env: EnvMap = std::env::vars_os().collect();
    let read_stdin = || read_up_to_limit(io::stdin().lock());
    let sources = Sources {
        env: &env,
        read_file: &|path| std::fs::File::open(path).and_then(read_up_to_limit),
        read_stdin: &read_stdin,
        run: &run,
        have: &have,
        cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        argv0,
    };
    rmpi_cli::parse(args, &sources)
}

/// Everything there is to read of a host file and its like, or an error for what never ends (`/dev/zero`).
fn read_up_to_limit(source: impl io::Read) -> io::Result<Vec<u8>> {
    const LIMIT: u64 = 64 << 20;
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    let too_large = io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB");
    if bytes.len() as u64 > LIMIT { Err(too_large) } else { Ok(bytes) }
}

/// What a program prints; its own complaints are the user's to see.
fn run(words: &[&OsStr]) -> io::Result<Vec<u8>> {
    let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("it failed ({})", output.status)))
}

/// Whether a program is in our search path.
fn have(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runs = |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
    std::env::split_paths(&path).any(|dir| std::fs::metadata(dir.join(name)).is_ok_and(runs))
}
