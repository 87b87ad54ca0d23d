//! A socket in the network namespace of a process, served by a thread until the value is dropped.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::thread::JoinHandle;

/// Stops with the value.
#[derive(Debug)]
pub(super) struct Server {
    /// Closed, it tells the thread to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    /// Opens the socket in the namespace of process `switch` and calls `ready` whenever something has come.
    pub(super) fn start<S: AsFd>(
        switch: u32,
        open: impl FnOnce() -> io::Result<S> + Send + 'static,
        mut ready: impl FnMut(&S) + Send + 'static,
    ) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // This thread alone.
            let enter =
                || Ok(setns(File::open(format!("/proc/{switch}/ns/net"))?, CloneFlags::CLONE_NEWNET)?);
            let socket = match enter().and_then(|()| open()) {
                Ok(socket) => socket,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let _ = tell.send(Ok(()));
            loop {
                let mut both = [socket.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                let polled = poll(&mut both, PollTimeout::NONE);
                if both[1].any() == Some(true) || polled.is_err_and(|e| e != nix::Error::EINTR) {
                    return;
                }
                if both[0].any() == Some(true) {
                    ready(&socket);
                }
            }
        });
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}
