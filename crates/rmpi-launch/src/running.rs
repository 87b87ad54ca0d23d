//! A job that runs on a thread with a runtime of its own, and the handle to it.

use crate::driver::{self, Input};
use crate::event::{Event, Events, Sent};
use crate::job::{Config, Daemon};
use crate::outcome::Outcome;
use crate::reach;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rmpi_daemon::{Here, Joined};
use rmpi_types::outcome::Cause;
use rmpi_types::spec::BindTo;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc as queue;
use tokio::task::{LocalSet, spawn_local};

/// A running job. Dropping it cancels the job without waiting for its end.
#[derive(Debug)]
pub struct Running {
    control: Control,
    events: Option<mpsc::Receiver<Sent>>,
    outcome: mpsc::Receiver<Outcome>,
    waited: bool,
}

/// A way to influence a running job from any thread; does nothing once the job has ended.
#[derive(Clone, Debug)]
pub struct Control(queue::UnboundedSender<Input>);

impl Control {
    /// Stops the job: SIGTERM to all ranks, SIGKILL after the grace.
    pub fn cancel(&self) {
        let _ = self.0.send(Input::Cancel);
    }

    /// Does what `rmpirun` does when it gets this signal: SIGINT, SIGTERM and SIGHUP stop the job (SIGINT again
    /// kills it), SIGTSTP suspends it *and this process*, others go to all ranks.
    pub fn signal(&self, signal: i32) {
        let _ = self.0.send(Input::Signal(signal));
    }

    /// Tells a job that stops, because this pod does, how long the pod has; see
    /// [`rmpi_types::spec::Limits::pod_grace`].
    pub(crate) fn pod_grace(&self, grace: Duration) {
        let _ = self.0.send(Input::PodGrace(grace));
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

impl Running {
    pub(crate) fn start(config: Config) -> io::Result<Self> {
        let (events, stream) = Events::channel();
        // As it is now, whatever the program does to it while the job's thread begins.
        config.env();
        let (control, inbox) = queue::unbounded_channel();
        let (done, outcome) = mpsc::sync_channel(1);
        let to_driver = control.clone();
        thread::Builder::new().name("rmpi-job".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let job = driver::run(Arc::new(config), events, to_driver, inbox);
                    let _ = done.send(runtime.block_on(job));
                    // Name look-ups of given-up hosts may still block a pool thread: not waited for.
                    runtime.shutdown_background();
                }
                Err(error) => drop(done.send(internal(format!("cannot make a runtime: {error}")))),
            }
        })?;
        Ok(Self { control: Control(control), events: Some(stream), outcome, waited: false })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Stops the job, as [`Control::cancel`].
    pub fn cancel(&self) {
        self.control.cancel();
    }

    /// As [`Control::signal`].
    pub fn signal(&self, signal: i32) {
        self.control.signal(signal);
    }

    /// The events, from the start; they end with the job. A second call gives an empty stream.
    ///
    /// Under [`crate::Delivery::Events`] ranks are held back until their output is taken here.
    pub fn events(&mut self) -> EventStream {
        EventStream(self.events.take())
    }

    /// Waits for the end. Events that were not taken are dropped.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        self.events = None;
        self.waited = true;
        self.outcome.recv().unwrap_or_else(|_| internal("the launcher's thread panicked".into()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            self.cancel();
        }
    }
}

/// Events taken at once from the kernel by a job of this machine.
const EVENTS: usize = 128;

/// Runs a job on the calling thread; see [`crate::Job::run_here`].
pub(crate) fn here(
    mut config: Config,
    signals: &SigSet,
    mut on_signal: impl FnMut(&Control, i32),
    on_event: impl FnMut(Event) + Send + 'static,
) -> io::Result<Outcome> {
    let worker = own_daemon(&mut config, signals);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if worker.is_some() {
        // No stream of another host: room for fewer at once, in less memory.
        runtime.max_io_events_per_tick(EVENTS);
    }
    let runtime = runtime.enable_all().build()?;
    let (control, inbox) = queue::unbounded_channel();
    let mut worker = worker.map(|worker| {
        let (ours, theirs) = Joined::pair();
        *config.daemon.lock().unwrap_or_else(PoisonError::into_inner) = Some(Daemon::Here(ours));
        (worker, theirs)
    });
    let hosts = &config.spec.hosts;
    let caches = config.spec.placement.by_caches()
        || hosts.iter().any(|h| h.bind_to.as_ref().is_some_and(BindTo::by_caches));
    let identity = hosts.len() > 1;
    let in_pod = config.spec.limits.pod_grace.is_some();
    let job = driver::run(Arc::new(config), Events::call(on_event), control.clone(), inbox);
    let control = Control(control);
    let here = worker.is_some();
    let local = LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        let mut signals = match &worker {
            Some((here, _)) => Signals::Passed(Receiver::from_owned_fd(here.signals()?)?),
            None => Signals::open(signals)?,
        };
        let serving = worker.take().map(|(here, joined)| spawn_local(here.serve(caches, identity, joined)));
        let mut job = pin!(job);
        let outcome = loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    on_signal(&control, signal);
                    if in_pod && signal == Signal::SIGTERM as i32 {
                        let control = control.clone();
                        spawn_local(async move {
                            let grace = reach::pods::grace().await;
                            grace.into_iter().for_each(|grace| control.pod_grace(grace));
                        });
                    }
                }
                outcome = &mut job => break outcome,
            }
        };
        if let Some(serving) = serving
            && let Ok(Err(error)) = serving.await
        {
            tracing::warn!(%error, "this machine's worker failed");
        }
        Ok(outcome)
    });
    if here {
        // The process that the user waits for waits for this one, which has nothing else to do: its tasks are over,
        // and what they leave is quicker taken apart by the kernel.
        std::mem::forget((local, runtime));
    } else {
        drop(local);
        // Name look-ups of given-up hosts may still block a pool thread: not waited for.
        runtime.shutdown_background();
    }
    outcome
}

/// Sees to a daemon on this machine, if the job needs one and it is this program. Gives the one that this process
/// is to be: when nothing of the job is elsewhere, no terminal's input has to be read from its session, and it will
/// not be started again in the process that then is the worker.
fn own_daemon(config: &mut Config, signals: &SigSet) -> Option<Here> {
    if !config.image.is_this_program() {
        return None;
    }
    let started = match reach::where_needed(config) {
        reach::Needed::Elsewhere => return None,
        reach::Needed::OnlyHere if !io::stdin().is_terminal() && config.spec.restarts == 0 => {
            rmpi_daemon::guarded(signals).map(|here| {
                config.front = Some(here.guard());
                Some(here)
            })
        }
        reach::Needed::OnlyHere | reach::Needed::HereToo => rmpi_daemon::fork().map(|forked| {
            *config.daemon.lock().unwrap_or_else(PoisonError::into_inner) = Some(Daemon::Forked(forked));
            None
        }),
    };
    started.unwrap_or_else(|error| {
        tracing::debug!(%error, "the daemon is started as a program of its own");
        None
    })
}

/// The user's signals, one by one.
enum Signals {
    /// Blocked in this process, read from the kernel.
    Blocked(Receiver),
    /// Passed on by the guard, a byte each.
    Passed(Receiver),
}

impl Signals {
    fn open(set: &SigSet) -> io::Result<Self> {
        let fd = SignalFd::with_flags(set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // No pipe, but read like one: whole records or nothing.
        Receiver::from_owned_fd_unchecked(fd.into()).map(Self::Blocked)
    }

    /// The next one; never returns when no more can be had. Safe to give up and call again.
    async fn next(&mut self) -> i32 {
        // `signalfd(2)`: 128 bytes, the number first.
        let mut record = [0; 128];
        let (from, length) = match self {
            Self::Blocked(from) => (from, 128),
            Self::Passed(from) => (from, 1),
        };
        loop {
            if from.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
            match from.try_read(&mut record[..length]) {
                Ok(0) => std::future::pending().await,
                Ok(n) if n == length => {
                    return i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn internal(what: String) -> Outcome {
    Outcome {
        job: driver::ended(Cause::Internal(what)),
        hosts: Vec::new(),
        notes: Vec::new(),
        output_error: None,
        placement: Vec::new(),
    }
}

/// Events of a job: a blocking iterator that ends with the job.
#[derive(Debug)]
pub struct EventStream(Option<mpsc::Receiver<Sent>>);

impl Iterator for EventStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        // Dropping the receipt tells the ranks that they may write on.
        let (event, _receipt) = self.0.as_ref()?.recv().ok()?;
        Some(event)
    }
}
