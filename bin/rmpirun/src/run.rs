//! Running a job: started again after failures as often as was asked, followed by what shows and records it, told
//! about at its end.

use crate::follow::Follower;
use crate::{DAEMON, failed, say, signals, termination};
use nix::sys::signal::SigSet;
use rmpi_cli::{Command, CompatText};
use rmpi_launch::types::outcome::Cause;
use rmpi_launch::types::spec::Horovod;
use rmpi_launch::{Control, Job, Outcome, StartError, horovod, report};

/// Runs the job; gives the exit code. The report is the last thing on stderr.
pub(crate) fn run(command: &Command) -> u8 {
    if matches!(command.job.horovod, Horovod::Elastic(_)) {
        return elastic(command);
    }
    let taken = signals::block(&command.signals);
    let follower = match Follower::new(command) {
        Ok(follower) => follower,
        Err(message) => {
            say(&report::lines(&message));
            say(&format!("rmpirun: exit code {}\n", rmpi_cli::CliError::EXIT));
            return rmpi_cli::CliError::EXIT;
        }
    };
    let quiet = command.job.output.quiet;
    let mut restart = 0;
    loop {
        let outcome = match once(command, restart, &taken, &follower) {
            Ok(outcome) => outcome,
            Err(error) => return failed(&error),
        };
        let again = matches!(outcome.cause(), Cause::Rank(_) | Cause::NodeLost { .. });
        let code = outcome.code();
        if again && restart < command.job.restarts {
            restart += 1;
            follower.restarting(&outcome, restart, command.job.restarts);
            continue;
        }
        if let Some(error) = outcome.cause().id() {
            tracing::info!(error, code, "the job failed");
        }
        follower.finish(&(&outcome).into());
        if !quiet {
            say(&compat(command.show.compat, &outcome));
        }
        termination::leave(&report::render(&outcome, false), code);
        say(&report::render(&outcome, quiet));
        return code;
    }
}

/// Runs an elastic job.
fn elastic(command: &Command) -> u8 {
    let usage = |what| horovod::elastic::Ending::new(rmpi_cli::CliError::EXIT, "internal", Some(what));
    let ending = Follower::new(command).map_or_else(usage, |follower| {
        let ending = horovod::elastic::run(&command.job, &DAEMON, &follower).unwrap_or_else(usage);
        follower.finish(&ending.record);
        ending
    });
    termination::leave(&ending.report, ending.code);
    say(&ending.report);
    ending.code
}

/// One start of the job.
fn once(command: &Command, restart: u32, taken: &SigSet, follower: &Follower) -> Result<Outcome, StartError> {
    let job = Job::from_spec(command.job.clone()).daemon(DAEMON).prompt().restart(restart).build()?;
    let mut interrupts = 0;
    let rules = command.signals.clone();
    let on_signal = move |job: &Control, signal| signals::forward(job, signal, &rules, &mut interrupts);
    let follower = follower.clone();
    job.run_here(taken, on_signal, move |event| follower.on(event))
}

/// Sentences of other launchers that test suites look for.
fn compat(text: CompatText, outcome: &Outcome) -> String {
    let Cause::Rank(exit) = outcome.cause() else { return String::new() };
    match text {
        CompatText::None => String::new(),
        CompatText::OpenMpi => format!(
            "Primary job  terminated normally, but 1 process returned\na non-zero exit code. Per user-direction, the job has \
             been aborted.\nmpirun detected that one or more processes exited with non-zero status, thus causing\nthe job \
             to be terminated. The first process to do so was:\n\n  Process name: [[1,1],{}]\n  Exit code:    {}\n",
            exit.proc.rank,
            exit.code()
        ),
        CompatText::Mpich => format!(
            "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID {} RUNNING AT {}\n=   EXIT CODE: {}\n",
            exit.pid,
            outcome.host_of(exit.proc.rank).unwrap_or("?"),
            exit.code()
        ),
    }
}
