//! Progress of a launch that takes long, on a terminal: one line that is drawn over, gone when ranks run.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A launch that is done by then is not worth a line.
const LONG: Duration = Duration::from_secs(1);
/// How often the line is drawn over.
const REDRAW: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    up: usize,
    failed: usize,
    over: bool,
}

/// The line; dropping it does not wait.
pub(crate) struct Progress {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Progress {
    /// A thread that draws the line, when standard error is a terminal.
    pub(crate) fn start(hosts: usize) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let draw = move || draw(&theirs, hosts);
        let thread = thread::Builder::new().name("progress".into()).spawn(draw).ok()?;
        Some(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn host(&self, up: bool) {
        let mut state = self.lock();
        if up { state.up += 1 } else { state.failed += 1 }
    }

    /// Takes the line away.
    pub(crate) fn over(&self) {
        self.lock().over = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn draw(shared: &(Mutex<State>, Condvar), hosts: usize) {
    let begun = Instant::now();
    let mut drawn = false;
    let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.over {
        let pause = if begun.elapsed() < LONG { LONG.saturating_sub(begun.elapsed()) } else { REDRAW };
        let waited = shared.1.wait_timeout(state, pause);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if begun.elapsed() >= LONG && !state.over {
            let failed = if state.failed > 0 { format!(", {} failed", state.failed) } else { String::new() };
            let seconds = begun.elapsed().as_secs();
            put(&format!("\r\x1b[Krmpirun: {} of {hosts} hosts up{failed}, {seconds} s", state.up));
            drawn = true;
        }
    }
    if drawn {
        put("\r\x1b[K");
    }
}

fn put(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
