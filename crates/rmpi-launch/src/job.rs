//! Building a job.

use crate::event::Event;
use crate::horovod::Rendezvous;
use crate::image::{DaemonSource, Image};
use crate::input::Input;
use crate::outcome::Outcome;
use crate::plan;
use crate::running::{self, Control, Running};
use crate::sink::Delivery;
use crate::staging::Staged;
use nix::sys::signal::SigSet;
use rmpi_daemon::{Forked, Joined};
use rmpi_types::spec::{App, EnvMap, Host, Slots, Stdin, Tag};
use rmpi_types::{JobSpec, Transport};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// A job that cannot be started from here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No program was given.
    #[error("no program given: name one with JobBuilder::program")]
    NoProgram,
    /// A file that the nodes are to be sent; the exit code of the command line, and why.
    #[error("{1}")]
    File(u8, String),
    /// No thread, runtime or executable path.
    #[error("the launcher cannot be started: {0}")]
    System(#[from] io::Error),
}

/// A job ready to start.
#[derive(Debug)]
pub struct Job {
    pub(crate) config: Config,
}

/// Everything the driver is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) spec: JobSpec,
    pub(crate) delivery: Delivery,
    pub(crate) input: Input,
    pub(crate) image: Image,
    /// The environment that is forwarded from, if it was given or has been asked for: see [`Config::env`].
    pub(crate) env: OnceLock<EnvMap>,
    /// Whether that is this process's.
    pub(crate) own_env: bool,
    /// Ranks' working directory where the specification names none.
    pub(crate) cwd: PathBuf,
    /// Ask for passphrases on the terminal.
    pub(crate) prompt: bool,
    /// Which start of the job this is, from 0.
    pub(crate) restart: u32,
    /// This machine's daemon, if it was forked off this process or is in it.
    pub(crate) daemon: Mutex<Option<Daemon>>,
    /// Files that the nodes are sent.
    pub(crate) staged: Staged,
    /// Where Horovod's workers meet, once it is open.
    pub(crate) rendezvous: OnceLock<Arc<Rendezvous>>,
    /// The process that the user started, if it is another one: it stops when the job is suspended.
    pub(crate) front: Option<i32>,
}

/// A daemon on this machine that needs no start.
#[derive(Debug)]
pub(crate) enum Daemon {
    /// Another process.
    Forked(Forked),
    /// This process.
    Here(Joined),
}

impl Config {
    /// The environment that is forwarded from. Made when it is first asked for: a job of this machine needs none.
    pub(crate) fn env(&self) -> &EnvMap {
        self.env.get_or_init(|| std::env::vars_os().collect())
    }
}

impl Job {
    /// A job of one rank on this machine, of no program yet.
    #[must_use]
    pub fn builder() -> JobBuilder {
        JobBuilder::default()
    }

    /// A job as the command line or another front end understood it. Its standard input is ours.
    #[must_use]
    pub fn from_spec(spec: JobSpec) -> JobBuilder {
        JobBuilder { spec, input: Input::Inherit, ..JobBuilder::default() }
    }

    /// Starts the job on a thread of its own and returns at once; what goes wrong from now on is told by
    /// [`Running::wait`].
    ///
    /// # Errors
    /// [`StartError::System`] when there is no thread or runtime to be had.
    pub fn start(self) -> Result<Running, StartError> {
        Ok(Running::start(self.config)?)
    }

    /// Runs the job on the calling thread to its end: for a program that does nothing else. It saves what
    /// threads cost, and on this machine, where the daemon is this program ([`DaemonSource::ThisExecutable`],
    /// [`DaemonSource::Bytes`]) and has one thread yet, starting the daemon as a program: it is forked off.
    ///
    /// If the whole job is on this machine, and standard input is no terminal, this process is the daemon too. **Then
    /// this returns in a child of the calling process**, which stays behind as the child's guard, passes `signals`
    /// on and ends with the child's exit code: have nothing open that must be closed once only.
    ///
    /// `signals` must be blocked; each that comes is given to `on_signal`. `on_event` must not wait: the job
    /// stands still meanwhile, and hosts that hear nothing give it up.
    ///
    /// # Errors
    /// [`StartError::System`] when there is no runtime to be had.
    pub fn run_here(
        self,
        signals: &SigSet,
        on_signal: impl FnMut(&Control, i32),
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Outcome, StartError> {
        Ok(running::here(self.config, signals, on_signal, on_event)?)
    }
}

/// Builds a [`Job`]. Each method sets one thing; [`JobBuilder::spec_mut`] reaches all others.
///
/// ```no_run
/// use rmpi_launch::{Delivery, Job};
/// let outcome = Job::builder()
///     .program("./train")
///     .args(["--epochs", "3"])
///     .ranks(8)
///     .host("n1", 4)
///     .host("n2", 4)
///     .output(Delivery::Inherit)
///     .build()?
///     .start()?
///     .wait();
/// assert_eq!(outcome.code(), 0, "{}", outcome.report());
/// # Ok::<(), rmpi_launch::StartError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct JobBuilder {
    spec: JobSpec,
    /// The program of the builder's own methods; `None` when a whole specification was given.
    app: Option<App>,
    delivery: Delivery,
    input: Input,
    daemon: DaemonSource,
    env: Option<EnvMap>,
    prompt: bool,
    restart: u32,
}

impl JobBuilder {
    fn app(&mut self) -> &mut App {
        match self.spec.apps.is_empty() {
            true => self.app.get_or_insert_with(|| App { np: Some(1), ..App::default() }),
            false => &mut self.spec.apps[0],
        }
    }

    /// The program: with a `/` a path on the nodes, else looked up in `PATH` there.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.app().program = program.into();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.app().args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How many ranks; 1 unless set.
    #[must_use]
    pub fn ranks(mut self, ranks: u32) -> Self {
        self.app().np = Some(ranks);
        self
    }

    /// Working directory of the ranks; a missing one is an error. Ours unless set.
    #[must_use]
    pub fn working_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.app().wdir = Some(dir.into());
        self
    }

    /// Sets a variable for the ranks, whatever the nodes have.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.app().env.set.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a host with this many slots. Without hosts the job runs on this machine.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>, slots: u32) -> Self {
        let origin = "JobBuilder::host".to_owned();
        self.spec.hosts.push(Host {
            name: name.into(),
            slots: Slots::Count(slots),
            origin,
            ..Host::default()
        });
        self
    }

    /// Allows more ranks than slots.
    #[must_use]
    pub fn oversubscribe(mut self) -> Self {
        self.spec.placement.oversubscribe = true;
        self
    }

    /// The rail of ranks that use the rmpi library; the fastest that fits each pair unless set. One that cannot
    /// be had (`Shm` on several nodes, `Tcp` with [`JobBuilder::encrypt`]) is told before anything starts.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.spec.data.transport = transport;
        self
    }

    /// Encrypts what those ranks send from node to node.
    #[must_use]
    pub fn encrypt(mut self) -> Self {
        self.spec.data.encrypt = true;
        self
    }

    /// Where output goes; to our own stdout and stderr unless set.
    #[must_use]
    pub fn output(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Tags lines on our own stdout and stderr.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.spec.output.tag = tag;
        self
    }

    /// What rank 0 reads; end of file at once unless set.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Where the daemon comes from.
    #[must_use]
    pub fn daemon(mut self, source: DaemonSource) -> Self {
        self.daemon = source;
        self
    }

    /// Stops the job after this long.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.spec.limits.job = Some(limit);
        self
    }

    /// Gives up hosts that are not ready after this long; 60 s + 0.1 s a host unless set.
    #[must_use]
    pub fn launch_limit(mut self, limit: Duration) -> Self {
        self.spec.limits.launch = Some(limit);
        self
    }

    /// Asks for passphrases of SSH keys on the terminal if there is one; never unless set.
    #[must_use]
    pub fn prompt(mut self) -> Self {
        self.prompt = true;
        self
    }

    /// Says that the job is started again, for the `n`th time: ranks are told (`RMPIRUN_RESTART`).
    #[must_use]
    pub fn restart(mut self, n: u32) -> Self {
        self.restart = n;
        self
    }

    /// The environment to forward from, instead of this process's.
    #[must_use]
    pub fn environment(mut self, env: EnvMap) -> Self {
        self.env = Some(env);
        self
    }

    /// The whole specification, for everything that has no method here.
    pub fn spec_mut(&mut self) -> &mut JobSpec {
        &mut self.spec
    }

    /// Checks what can be checked here.
    ///
    /// # Errors
    /// [`StartError::NoProgram`]; [`StartError::System`] when our own executable or working directory is
    /// unknown.
    pub fn build(mut self) -> Result<Job, StartError> {
        self.spec.apps.extend(self.app.take());
        if self.spec.apps.is_empty() || self.spec.apps.iter().any(|app| app.program.is_empty()) {
            return Err(StartError::NoProgram);
        }
        let input = if self.spec.stdin == Stdin::None { Input::Null } else { self.input };
        let source = match &self.spec.reach.daemon {
            Some(path) => DaemonSource::Path(path.clone()),
            None => self.daemon,
        };
        let mut job = Job {
            config: Config {
                delivery: self.delivery,
                input,
                image: Image::resolve(&source)?,
                own_env: self.env.is_none(),
                env: self.env.map(OnceLock::from).unwrap_or_default(),
                cwd: cwd()?,
                prompt: self.prompt,
                restart: self.restart,
                daemon: Mutex::default(),
                rendezvous: OnceLock::new(),
                front: None,
                staged: Staged::default(),
                spec: self.spec,
            },
        };
        job.config.staged = staged(&job.config)?;
        Ok(job)
    }
}

/// Reads what the nodes are to be sent.
fn staged(config: &Config) -> Result<Staged, StartError> {
    let mut staged = Staged::default();
    let path = config.env().get(OsStr::new("PATH")).map(OsString::as_os_str);
    let refused = |(code, what)| StartError::File(code, what);
    for (number, app) in (0..).zip(&config.spec.apps) {
        if app.preload {
            staged.program(number, &plan::app_launch(app, config), path).map_err(refused)?;
        }
    }
    config.spec.preload.iter().try_for_each(|file| staged.file(file)).map_err(refused)?;
    Ok(staged)
}

/// Our working directory; a removed one by its old name, so that ranks go on as on a host that does not have it.
fn cwd() -> io::Result<PathBuf> {
    std::env::current_dir().or_else(|error| {
        let shell = std::env::var_os("PWD").map(PathBuf::from).filter(|dir| dir.is_absolute());
        shell.ok_or(error)
    })
}
