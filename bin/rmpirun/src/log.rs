//! Our own log on stderr: text or JSON lines, off below the asked level. Targets are crate names.

use rmpi_cli::{LogLevel, LogSettings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Our crates that speak.
const OURS: [&str; 7] =
    ["rmpirun", "rmpi_launch", "rmpi_control", "rmpi_ssh", "rmpi_daemon", "rmpi_plan", "rmpi_wire"];

/// Installs the log. `RMPI_LOG` takes directives (`rmpi_ssh=trace,warn`) and wins.
pub(crate) fn start(settings: LogSettings) {
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let asked = std::env::var("RMPI_LOG").ok().and_then(|directives| directives.parse::<Targets>().ok());
    let targets = asked.unwrap_or_else(|| {
        // Libraries below ours speak only when everything is to be seen.
        let others = if level == LevelFilter::TRACE { level } else { LevelFilter::OFF };
        Targets::new().with_default(others).with_targets(OURS.map(|name| (name, level)))
    });
    let layer = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    // A second start in one process cannot happen; if it did, the first log stays.
    let _ = if settings.json {
        registry.with(layer.json().with_filter(targets)).try_init()
    } else {
        registry.with(layer.with_ansi(false).with_filter(targets)).try_init()
    };
}
