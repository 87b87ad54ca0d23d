//! Tests of whole command lines: what each kind of option does to the job, what wrong ones are told, the rules of
//! the table, and arbitrary input. Helpers here; cases in the files beside this one.

mod allocations;
mod errors;
mod lines;
mod others;
mod pods;
mod props;
mod rows;

use crate::{CliError, Command, Parsed, Sources, parse};
use rmpi_types::spec::EnvMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Files that exist in these tests.
fn file(path: &Path) -> io::Result<Vec<u8>> {
    Ok(match path.to_str() {
        Some("/w/hosts") => b"n1 slots=2\nn2 slots=2\nn3 slots=2\n".to_vec(),
        Some("/w/bare") => b"n1\nn2\n".to_vec(),
        Some("/w/apps") => b"-np 1 -x A=1 one\n-np 2 --host n2 two 'a b'\n".to_vec(),
        Some("/w/ranks") => b"rank 0=n3 slot=0\nrank 1=n1 slot=1\n".to_vec(),
        Some("/w/seq") => b"n2\nn1\nn2\n".to_vec(),
        Some("/w/affinity") => b"h1 0,4 0 1\nh1 1,5 0 1\n\nH2 -\n".to_vec(),
        Some("/w/badcpus") => b"h1 x\n".to_vec(),
        Some("/w/empty") => Vec::new(),
        Some("/w/nodes") => b"n1\nn1\nn2\n".to_vec(),
        Some("/w/pe") => b"n1 2 all.q UNDEFINED\nn2.x 1 all.q UNDEFINED\n".to_vec(),
        Some("/w/tune") => {
            b"# comment\n-x A=1 --mca btl tcp\ntimeout = 5\npml = ob1\ntag-output = 1\n".to_vec()
        }
        Some("/c/rmpirun.conf") => b"kill_grace = 7\ntimeout = 4\n".to_vec(),
        Some("/w/horovod.yaml") => b"params:\n  cycle_time_ms: 3.5\n".to_vec(),
        Some("/w/bad") => b"n1 slots=2\nn2 slots=x\n".to_vec(),
        Some("/w/.") => return Err(io::Error::from_raw_os_error(21)),
        _ => return Err(io::Error::from_raw_os_error(2)),
    })
}

/// Programs that exist in these tests.
fn program(words: &[&std::ffi::OsStr]) -> io::Result<Vec<u8>> {
    let line: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
    Ok(match line.join(" ").as_str() {
        "srun --version" => b"slurm 22.05.8\n".to_vec(),
        "flux hostlist local" => b"f[1-2]\n".to_vec(),
        "./discover" => b"d1:2\nd2\n".to_vec(),
        _ => return Err(io::Error::from_raw_os_error(2)),
    })
}

/// A shell's splitting is enough for tests: blanks; `''` is an empty word.
fn split(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(|w| if w == "''" { "".into() } else { w.into() }).collect()
}

fn parse_as(argv0: &str, env: &[(&str, &str)], args: Vec<OsString>) -> Result<Parsed, CliError> {
    let env: EnvMap = env.iter().map(|(n, v)| (n.into(), v.into())).collect();
    let read_stdin = || Ok(b"s1:4\n".to_vec());
    let sources = Sources {
        env: &env,
        read_file: &file,
        read_stdin: &read_stdin,
        run: &|words| program(words),
        have: &|name| name == "srun",
        cwd: "/w".into(),
        argv0: argv0.into(),
    };
    parse(args, &sources)
}

fn try_run(env: &[(&str, &str)], line: &str) -> Result<Command, CliError> {
    match parse_as("rmpirun", env, split(line))? {
        Parsed::Run(command) => Ok(*command),
        Parsed::Print { text } => Err(CliError::new(format!("printed {text}"))),
    }
}

/// A good line in an environment.
fn run_in(env: &[(&str, &str)], line: &str) -> Command {
    try_run(env, line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// A good line.
fn run(line: &str) -> Command {
    run_in(&[], line)
}

/// The message about a bad line.
fn error(line: &str) -> String {
    match try_run(&[], line) {
        Ok(_) => panic!("{line}: accepted"),
        Err(e) => e.message,
    }
}

fn printed(argv0: &str, env: &[(&str, &str)], line: &str) -> String {
    match parse_as(argv0, env, split(line)) {
        Ok(Parsed::Print { text }) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// Hosts and slots as `n1:2 n2:*`.
fn hosts(command: &Command) -> String {
    use rmpi_types::spec::Slots;
    let show = |h: &rmpi_types::spec::Host| match h.slots {
        Slots::Auto => format!("{}:*", h.name),
        Slots::Count(n) => format!("{}:{n}", h.name),
    };
    command.job.hosts.iter().map(show).collect::<Vec<_>>().join(" ")
}
