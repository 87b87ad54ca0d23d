//! The command: understand, launch, report. Everything real is in the crates; here are the process's own
//! matters only: which personality it was called by, signals, log, exit code. Nothing of ours goes to stdout
//! but what was asked for there (help, version).

mod log;
mod printer;
mod signals;

use printer::Printer;
use rmpi_cli::{CliError, Command, Parsed, Sources};
use rmpi_launch::types::exit;
use rmpi_launch::types::spec::EnvMap;
use rmpi_launch::{Control, DaemonSource, Event, Job, StartError};
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

/// The daemon for the hosts: a packaged build carries it, any other takes the file beside it, else itself.
#[cfg(embedded_daemon)]
const DAEMON: DaemonSource = DaemonSource::Bytes(include_bytes!(concat!(env!("OUT_DIR"), "/rmpid")));
#[cfg(not(embedded_daemon))]
const DAEMON: DaemonSource = DaemonSource::ThisExecutable;

fn main() -> ExitCode {
    let mut args = std::env::args_os().peekable();
    let argv0 = args.next().unwrap_or_else(|| "rmpirun".into());
    if args.next_if(|word| word == rmpi_daemon::HIDDEN_WORD).is_some() {
        return rmpi_daemon::main(args);
    }
    match understand(argv0, args.collect()) {
        Ok(Parsed::Print { text }) => print(&text),
        Ok(Parsed::Run(command)) => ExitCode::from(run(*command)),
        Err(error) => {
            say(&rmpi_launch::report::lines(&error.message));
            say(&format!("rmpirun: exit code {}\n", CliError::EXIT));
            ExitCode::from(CliError::EXIT)
        }
    }
}

/// Reads options, environment and the files they name.
fn understand(argv0: OsString, args: Vec<OsString>) -> Result<Parsed, CliError> {
    let env: EnvMap = std::env::vars_os().collect();
    let read_stdin = || read_up_to_limit(io::stdin().lock());
    let sources = Sources {
        env: &env,
        read_file: &|path| std::fs::File::open(path).and_then(read_up_to_limit),
        read_stdin: &read_stdin,
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

/// Runs the job; gives the exit code. The report is the last thing on stderr.
fn run(command: Command) -> u8 {
    log::start(command.log);
    let quiet = command.job.output.quiet;
    if !quiet {
        command.notes.iter().for_each(|note| say_note(note));
    }
    if command.display.dry_run {
        return dry_run(&command);
    }
    let display = command.display;
    let taken = signals::block();
    let job = match Job::from_spec(command.job).daemon(DAEMON).prompt().build() {
        Ok(job) => job,
        Err(error @ (StartError::NoProgram | StartError::System(_))) => return failed(&error),
    };
    let mut interrupts = 0;
    let on_signal = move |job: &Control, signal| signals::forward(job, signal, &mut interrupts);
    let printer = Arc::new(Printer::default());
    let lines = Arc::clone(&printer);
    let on_event = move |event| match event {
        Event::Note(text) if !quiet => lines.print(note_line(&text)),
        Event::Stopping { why, .. } if interrupted(&why) && !quiet => {
            lines.print(format!("rmpirun: {why}\n"))
        }
        Event::Stacks { proc, host, text } => {
            let text = format!("{proc} on {host}\n{}", text.trim_end());
            lines.print(rmpi_launch::report::lines(&text));
        }
        Event::Planned(plan) => {
            lines.print(plan.render(display.allocation, display.map, display.bindings));
        }
        _ => {}
    };
    let outcome = match job.run_here(&taken, on_signal, on_event) {
        Ok(outcome) => outcome,
        Err(error) => return failed(&error),
    };
    printer.finish();
    say(&rmpi_launch::report::render(&outcome, quiet));
    outcome.code()
}

/// Whether a user sits there and wonders what is being waited for.
fn interrupted(why: &str) -> bool {
    why.starts_with("SIGINT")
}

/// Shows what would be done with what is known without asking any host.
fn dry_run(command: &Command) -> u8 {
    match rmpi_launch::preview(&command.job) {
        Ok(plan) => {
            say(&plan.render(true, true, true));
            0
        }
        Err(fault) => {
            say(&rmpi_launch::report::lines(&fault));
            say(&format!("rmpirun: exit code {}\n", exit::USAGE));
            exit::USAGE
        }
    }
}

fn failed(error: &StartError) -> u8 {
    let code = match error {
        StartError::NoProgram => exit::USAGE,
        StartError::System(_) => exit::INTERNAL,
    };
    say(&format!("rmpirun: {error}\nrmpirun: exit code {code}\n"));
    code
}

fn say_note(text: &str) {
    say(&note_line(text));
}

fn note_line(text: &str) -> String {
    format!("rmpirun: note: {}\n", rmpi_launch::report::sanitize(text))
}

/// One write to stderr, so that lines of ours and of ranks do not mix.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Text that was asked for; a reader that went away is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(141),
        Err(_) => ExitCode::from(exit::INTERNAL),
    }
}
