//! Following a running job: what is shown on standard error, and what is recorded in files. Called on the job's
//! thread, so everything that could wait is written by threads of their own.

use crate::printer::Printer;
use crate::progress::Progress;
use crate::{note_line, print, say};
use rmpi_cli::{Command, Display, Progress as How, Where};
use rmpi_launch::record::{self, Timeline};
use rmpi_launch::types::outcome::RankEnd;
use rmpi_launch::types::spec::{Horovod, Tag};
use rmpi_launch::{Event, Outcome, Parts, PlanView, horovod, report};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Follows all starts of a job.
#[derive(Clone)]
pub(crate) struct Follower(Arc<Inner>);

struct Inner {
    begun: Instant,
    quiet: bool,
    display: Display,
    plain: bool,
    state_on_timeout: bool,
    exit_codes: bool,
    xml: bool,
    console: Option<PathBuf>,
    program: String,
    timeline: Option<PathBuf>,
    summary: Option<PathBuf>,
    printer: Printer,
    events: Option<Printer>,
    progress: Option<Progress>,
    seen: Mutex<Seen>,
}

/// What events have said, as far as something of it is to be shown.
#[derive(Default)]
struct Seen {
    hosts: HashMap<u32, String>,
    ranks: BTreeMap<u32, RankSeen>,
    placed: usize,
    running: usize,
    trace: Timeline,
}

#[derive(Default)]
struct RankSeen {
    host: String,
    pid: u32,
    end: Option<String>,
}

impl Follower {
    /// Opens what is to be written.
    ///
    /// # Errors
    /// The file that cannot be, and why.
    pub(crate) fn new(command: &Command) -> Result<Self, String> {
        let (job, show) = (&command.job, &command.show);
        let program =
            job.apps.first().map(|app| app.program.to_string_lossy().into_owned()).unwrap_or_default();
        let elastic = matches!(job.horovod, Horovod::Elastic(_));
        let far = !job.hosts.is_empty() && !job.output.quiet && !elastic;
        if let Some(place) = &show.pid {
            let pid = format!("{}\n", std::process::id());
            match place {
                Where::Stdout => drop(print(&pid)),
                Where::Stderr => say(&pid),
                Where::File(path) => std::fs::write(path, pid).map_err(|e| cannot("write", path, &e))?,
            }
        }
        let xml = job.output.tag == Tag::Xml;
        if xml {
            mark(job.output.console.as_deref(), "<mpirun>\n", true)?;
        }
        let follower = Self(Arc::new(Inner {
            begun: Instant::now(),
            quiet: job.output.quiet,
            display: command.display,
            plain: show.progress == How::Plain,
            state_on_timeout: job.on_timeout.state,
            exit_codes: show.exit_codes,
            xml,
            console: job.output.console.clone(),
            program,
            timeline: show.timeline.clone(),
            summary: show.summary.clone(),
            printer: Printer::default(),
            events: show.events.as_deref().map(open).transpose()?.map(Printer::to),
            progress: (far && show.progress == How::Auto).then(|| Progress::start(job.hosts.len())).flatten(),
            seen: Mutex::default(),
        }));
        follower.0.begin(0);
        Ok(follower)
    }

    /// Something happened.
    pub(crate) fn on(&self, event: Event) {
        let inner = &*self.0;
        inner.keep(&event);
        match event {
            Event::Note(text) if !inner.quiet => inner.printer.print(note_line(&text)),
            Event::Stopping { why, .. } => {
                if inner.state_on_timeout && why.contains("time limit") {
                    inner.printer.print(inner.seen().states());
                }
                if interrupted(&why) && !inner.quiet {
                    inner.printer.print(format!("rmpirun: {why}\n"));
                }
            }
            Event::Stacks { proc, host, text } => {
                let text = format!("{proc} on {host}\n{}", text.trim_end());
                inner.printer.print(report::lines(&text));
            }
            Event::Waiting { hosts, of } if !inner.quiet => inner.printer.print(report::waiting(&hosts, of)),
            Event::Planned(plan) => inner.planned(&plan),
            Event::HostUp { host, elapsed, .. } if inner.plain => {
                inner.printer.print(format!("rmpirun: {host} is up after {:.2} s\n", elapsed.as_secs_f64()));
            }
            Event::RankStarted { .. } => inner.started(),
            _ => {}
        }
    }

    /// The job failed and is started again.
    pub(crate) fn restarting(&self, outcome: &Outcome, n: u32, of: u32) {
        let inner = &*self.0;
        inner.printer.print(report::render(outcome, true));
        inner.printer.print(format!("rmpirun: starting the job again ({n} of {of})\n"));
        if let Some(events) = &inner.events {
            events.print(format!("{}\n", record::restart(now(), n, of)));
        }
        let mut seen = inner.seen();
        seen.trace.end(inner.begun.elapsed());
        let trace = std::mem::take(&mut seen.trace);
        *seen = Seen { trace, ..Seen::default() };
        drop(seen);
        inner.begin(n);
    }

    /// The job has ended: everything is written before this returns.
    pub(crate) fn finish(&self, end: &record::End) {
        let inner = &*self.0;
        if let Some(progress) = &inner.progress {
            progress.over();
        }
        if inner.exit_codes {
            inner.printer.print(inner.seen().codes());
        }
        inner.printer.finish();
        let mut complaints = String::new();
        if inner.xml
            && let Err(text) = mark(inner.console.as_deref(), "</mpirun>\n", false)
        {
            complaints.push_str(&note_line(&text));
        }
        if let Some(events) = &inner.events {
            events.print(format!("{}\n", record::job_end(now(), end)));
            events.finish();
        }
        let mut write = |path: &Path, text: String| {
            if let Err(error) = std::fs::write(path, text) {
                complaints.push_str(&note_line(&cannot("write", path, &error)));
            }
        };
        if let Some(path) = &inner.timeline {
            let mut seen = inner.seen();
            seen.trace.end(inner.begun.elapsed());
            write(path, seen.trace.render());
        }
        if let Some(path) = &inner.summary {
            write(path, format!("{}\n", record::outcome(now(), end)));
        }
        say(&complaints);
    }
}

impl horovod::elastic::Follow for Follower {
    fn say(&self, text: &str) {
        self.0.printer.print(text.to_owned());
    }

    fn on(&self, event: Event) {
        match event {
            // It was said already.
            Event::Note(_) => self.0.keep(&event),
            event => Follower::on(self, event),
        }
    }
}

impl Inner {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, restart: u32) {
        if let Some(events) = &self.events {
            events.print(format!("{}\n", record::job_start(now(), &self.program, restart)));
        }
        if self.timeline.is_some() {
            self.seen().trace.start(self.begun.elapsed());
        }
    }

    /// Remembers and records, where something asks for it.
    fn keep(&self, event: &Event) {
        if let Some(progress) = &self.progress {
            match event {
                Event::HostUp { .. } => progress.host(true),
                Event::HostFailed { .. } => progress.host(false),
                Event::Planned(_) | Event::Stopping { .. } => progress.over(),
                _ => {}
            }
        }
        let tables = self.display.proctable || self.exit_codes || self.state_on_timeout || self.plain;
        if !tables && self.events.is_none() && self.timeline.is_none() {
            return;
        }
        let mut seen = self.seen();
        seen.note(event);
        if self.timeline.is_some() {
            seen.trace.on(self.begun.elapsed(), event);
        }
        if let Some(events) = &self.events {
            let host = |node: u32| seen.hosts.get(&node).cloned().unwrap_or_default();
            if let Some(line) = record::event(now(), event, host) {
                events.print(line + "\n");
            }
        }
    }

    fn planned(&self, plan: &PlanView) {
        let text = plan.render(Parts {
            allocation: self.display.allocation,
            map: self.display.map,
            bindings: self.display.bindings,
            topology: self.display.topology,
            parseable: self.display.parseable,
        });
        if self.display.stdout {
            print(&text);
        } else {
            self.printer.print(text);
        }
        if self.plain {
            let ranks: usize = plan.nodes.iter().map(|n| n.ranks.len()).sum();
            let hosts = plan.nodes.iter().filter(|n| !n.ranks.is_empty()).count();
            self.printer.print(format!("rmpirun: {ranks} ranks are placed on {hosts} hosts\n"));
        }
    }

    /// One more rank runs; when all do, the process table is complete.
    fn started(&self) {
        if !self.display.proctable && !self.plain {
            return;
        }
        let seen = self.seen();
        if seen.running != seen.placed || seen.placed == 0 {
            return;
        }
        if self.plain {
            let seconds = self.begun.elapsed().as_secs_f64();
            self.printer.print(format!("rmpirun: {} ranks run after {seconds:.2} s\n", seen.running));
        }
        if self.display.proctable {
            self.printer.print(seen.proctable(&self.program));
        }
    }
}

impl Seen {
    fn note(&mut self, event: &Event) {
        match event {
            Event::HostUp { node, host, .. } => drop(self.hosts.insert(node.0, host.clone())),
            Event::Planned(plan) => self.placed = plan.nodes.iter().map(|n| n.ranks.len()).sum(),
            Event::RankStarted { proc, node, pid } => {
                let host = self.hosts.get(&node.0).cloned().unwrap_or_default();
                self.ranks.insert(proc.rank.0, RankSeen { host, pid: *pid, end: None });
                self.running += 1;
            }
            Event::RankExited(exit) => {
                let end = match exit.end {
                    RankEnd::Exited(code) => code.to_string(),
                    RankEnd::Signaled { signal, .. } => report::signals::name(signal),
                };
                self.ranks.entry(exit.proc.rank.0).or_default().end = Some(end);
            }
            _ => {}
        }
    }

    fn proctable(&self, program: &str) -> String {
        let mut out = String::new();
        for (rank, seen) in &self.ranks {
            let _ =
                writeln!(out, "rmpirun: rank {rank} host {} pid {} program {program}", seen.host, seen.pid);
        }
        out
    }

    /// A line a rank: whether it still runs.
    fn states(&self) -> String {
        let mut out = String::new();
        for (rank, seen) in &self.ranks {
            let state = seen.end.as_ref().map_or_else(|| "running".to_owned(), |end| format!("ended: {end}"));
            let _ = writeln!(out, "rmpirun: rank {rank} on {} (pid {}): {state}", seen.host, seen.pid);
        }
        out
    }

    /// `rmpirun: exit codes: n1: 0=0 1=1`.
    fn codes(&self) -> String {
        let mut hosts: BTreeMap<&str, String> = BTreeMap::new();
        for (rank, seen) in &self.ranks {
            let end = seen.end.as_deref().unwrap_or("unknown");
            let _ = write!(hosts.entry(&seen.host).or_default(), " {rank}={end}");
        }
        hosts.into_iter().map(|(host, codes)| format!("rmpirun: exit codes: {host}:{codes}\n")).collect()
    }
}

/// Whether a user sits there and wonders what is being waited for.
fn interrupted(why: &str) -> bool {
    why.starts_with("SIGINT")
}

/// Begins or ends the output's XML, in the file it goes to or on standard output.
fn mark(file: Option<&Path>, text: &str, first: bool) -> Result<(), String> {
    let Some(path) = file else {
        print(text);
        return Ok(());
    };
    let opened = File::options().append(!first).write(true).create(true).truncate(first).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| cannot("write", path, &e))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("cannot {what} '{}': {text}", path.display())
}

/// A file, or a socket by `unix:PATH`.
fn open(path: &Path) -> Result<File, String> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let text = path.to_string_lossy();
    let at = text.find("unix:").filter(|at| *at == 0 || text[..*at].ends_with('/'));
    if let Some(at) = at {
        let socket = std::os::unix::net::UnixStream::connect(&text[at + 5..]);
        let socket = socket.map_err(|e| cannot("connect to", Path::new(&text[at + 5..]), &e))?;
        return Ok(File::from(std::os::fd::OwnedFd::from(socket)));
    }
    if let Some(fd) = name.strip_prefix("fd:") {
        let path = PathBuf::from(format!("/dev/fd/{fd}"));
        return File::options().append(true).open(&path).map_err(|e| cannot("open", &path, &e));
    }
    File::create(path).map_err(|e| cannot("create", path, &e))
}
