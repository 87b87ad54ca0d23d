//! Lines for the user or a file while the job runs, written by a thread of their own, started by the first one: a
//! reader that is slow must not hold up the job.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

#[derive(Default)]
pub(crate) struct Printer {
    /// Standard error without one.
    file: Option<File>,
    running: Mutex<Option<(mpsc::Sender<String>, JoinHandle<()>)>>,
}

impl Printer {
    /// To a file instead of standard error.
    pub(crate) fn to(file: File) -> Self {
        Self { file: Some(file), running: Mutex::default() }
    }

    /// Prints soon, in order.
    pub(crate) fn print(&self, text: String) {
        if text.is_empty() {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (send, lines) = mpsc::channel::<String>();
            let file = self.file.as_ref().and_then(|f| f.try_clone().ok());
            let write = move || lines.iter().for_each(|text| put(file.as_ref(), &text));
            match thread::Builder::new().name("printer".into()).spawn(write) {
                Ok(thread) => *running = Some((send, thread)),
                Err(_) => return put(self.file.as_ref(), &text),
            }
        }
        if let Some((send, _)) = &*running {
            // The thread lives as long as this end does.
            let _ = send.send(text);
        }
    }

    /// Returns when everything is written.
    pub(crate) fn finish(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((send, thread)) = running {
            drop(send);
            let _ = thread.join();
        }
    }
}

fn put(file: Option<&File>, text: &str) {
    match file {
        // Nobody to tell: the job goes on without its record.
        Some(mut file) => drop(io::Write::write_all(&mut file, text.as_bytes())),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}
