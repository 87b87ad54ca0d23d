//! Lines for the user while the job runs, written by a thread of their own, started by the first one: a reader
//! of our stderr that is slow must not hold up the job.

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

#[derive(Default)]
pub(crate) struct Printer(Mutex<Option<(mpsc::Sender<String>, JoinHandle<()>)>>);

impl Printer {
    /// Prints soon, in order.
    pub(crate) fn print(&self, text: String) {
        if text.is_empty() {
            return;
        }
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (send, lines) = mpsc::channel::<String>();
            let write = move || lines.iter().for_each(|text| super::say(&text));
            match thread::Builder::new().name("printer".into()).spawn(write) {
                Ok(thread) => *running = Some((send, thread)),
                Err(_) => return super::say(&text),
            }
        }
        if let Some((send, _)) = &*running {
            // The thread lives as long as this end does.
            let _ = send.send(text);
        }
    }

    /// Returns when everything is written.
    pub(crate) fn finish(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((send, thread)) = running {
            drop(send);
            let _ = thread.join();
        }
    }
}
