//! Our own log on stderr: text or JSON lines, off below the asked level. Targets are crate names. What formats it is
//! only made when there is something to say: most jobs say nothing.

use rmpi_cli::{LogLevel, LogSettings};
use std::ffi::OsString;
use std::io;
use std::sync::OnceLock;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Our crates that speak.
const OURS: [&str; 7] =
    ["rmpirun", "rmpi_launch", "rmpi_control", "rmpi_ssh", "rmpi_daemon", "rmpi_plan", "rmpi_wire"];

/// Installs the log. `RMPI_LOG` takes directives (`rmpi_ssh=trace,warn`) and wins.
pub(crate) fn start(settings: LogSettings) {
    // A second start in one process cannot happen; if it did, the first log stays.
    let _ = tracing::subscriber::set_global_default(Log::new(settings));
}

/// Whether a command line that nobody understood asks for more than errors.
pub(crate) fn asked_for(words: &[OsString]) -> bool {
    let level = |w: &OsString| w.to_str().is_some_and(|w| ["info", "debug", "trace"].contains(&w));
    let flag = |w: &OsString| {
        let w = w.to_str().unwrap_or_default();
        ["-v", "-verbose", "--verbose", "-d"].contains(&w)
            || w.strip_prefix("--log=").is_some_and(|l| level(&l.into()))
    };
    words.iter().any(flag) || words.windows(2).any(|w| w[0] == "--log" && level(&w[1]))
}

/// Standard error, for lines of text that begin as all of ours do.
struct Ours;

impl io::Write for Ours {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&[b"rmpirun: ", line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log as it is before its first word.
struct Log {
    json: bool,
    targets: Targets,
    most: LevelFilter,
    whole: OnceLock<Box<dyn Subscriber + Send + Sync>>,
}

impl Log {
    fn new(settings: LogSettings) -> Self {
        let level = match settings.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let asked = std::env::var("RMPI_LOG").ok().and_then(|directives| directives.parse::<Targets>().ok());
        let most = if asked.is_some() { LevelFilter::TRACE } else { level };
        let targets = asked.unwrap_or_else(|| {
            // Libraries below ours speak only when everything is to be seen.
            let others = if level == LevelFilter::TRACE { level } else { LevelFilter::OFF };
            Targets::new().with_default(others).with_targets(OURS.map(|name| (name, level)))
        });
        Self { json: settings.json, targets, most, whole: OnceLock::new() }
    }

    fn whole(&self) -> &(dyn Subscriber + Send + Sync) {
        self.whole.get_or_init(|| {
            let layer = fmt::layer();
            let registry = tracing_subscriber::registry();
            if self.json {
                Box::new(
                    registry.with(layer.json().with_writer(io::stderr).with_filter(self.targets.clone())),
                )
            } else {
                Box::new(
                    registry
                        .with(layer.with_writer(|| Ours).with_ansi(false).with_filter(self.targets.clone())),
                )
            }
        })
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.targets.would_enable(metadata.target(), metadata.level()) && self.whole().enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.whole().new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.whole().record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.whole().record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.whole().event(event);
    }

    fn enter(&self, span: &Id) {
        self.whole().enter(span);
    }

    fn exit(&self, span: &Id) {
        self.whole().exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.whole().clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.whole().try_close(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_it_wants_to_hear() {
        let asks = |line: &str| asked_for(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(["-v --zz", "--log info --zz", "--zz --log=debug", "-d"].into_iter().all(asks));
        assert!(!["--zz", "--log error --zz", "info --zz"].into_iter().any(asks));
    }

    #[test]
    fn nothing_is_made_before_the_first_word() {
        let log = Log::new(LogSettings { level: LogLevel::Warn, ..LogSettings::default() });
        let dispatch = tracing::Dispatch::new(log);
        let made = || dispatch.downcast_ref::<Log>().unwrap().whole.get().is_some();
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(target: "rmpi_launch", "too quiet");
            tracing::warn!(target: "another_library", "not ours");
            assert!(!made());
            let span = tracing::warn_span!(target: "rmpi_launch", "job", n = 1);
            let _entered = span.enter();
            assert!(made());
        });
    }
}
