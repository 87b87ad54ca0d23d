//! Our standard input, looked at only when a rank has asked for it, never from a background process group of the
//! terminal, on a thread that can always be told to leave. What no rank has read stays in it, for the next
//! command of a script: a pipe or a socket is looked into without taking anything out before a rank has read it,
//! a file is sought back at the end. Of a terminal or a device only what was asked for is gone.

mod front;

use bytes::Bytes;
use front::Front;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, getpgrp, lseek, tcgetpgrp};
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::mpsc::{self, TryRecvError};
use std::thread::{self, JoinHandle};

/// How often a background process looks whether it has become the foreground one, in milliseconds.
const FOREGROUND_CHECK_MS: u16 = 250;

/// `/dev/null`: major 1, minor 3 (Linux `Documentation/admin-guide/devices.txt`).
const NULL_DEVICE: u64 = 1 << 8 | 3;

/// What the job's standard input is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// Ours.
    Inherit,
    /// End of file at once.
    #[default]
    Null,
    /// These bytes.
    Bytes(Bytes),
}

/// Answers of the reader: `None` is end of file.
pub(crate) type Answer = Box<dyn Fn(Option<Bytes>) + Send>;

/// A source of standard input, started on the first request.
pub(crate) struct Source {
    input: Input,
    answer: Option<Answer>,
    thread: Option<Reader>,
}

/// The thread, and what reaches it.
struct Reader {
    orders: mpsc::Sender<Order>,
    wake: PipeWriter,
    thread: JoinHandle<()>,
}

/// What the thread is told.
enum Order {
    /// Answer once with at most this many bytes that come next.
    Give(usize),
    /// This many of the bytes given were read by a rank.
    Taken(u64),
}

impl Source {
    pub(crate) fn new(input: Input, answer: Answer) -> Self {
        Self { input, answer: Some(answer), thread: None }
    }

    /// Asks for at most `up_to` bytes; the answer comes by the callback, possibly at once.
    pub(crate) fn request(&mut self, up_to: u32) {
        match &mut self.input {
            Input::Null => self.reply(None),
            Input::Bytes(bytes) => {
                let n = bytes.len().min(up_to as usize);
                let part = bytes.split_to(n);
                self.reply((n > 0).then_some(part));
            }
            Input::Inherit if never_blocks() => {
                let read = read_once(io::stdin().as_fd(), up_to as usize).unwrap_or_default();
                self.reply((!read.is_empty()).then_some(read));
            }
            Input::Inherit => {
                if self.thread.is_none()
                    && let Err(error) = self.start()
                {
                    tracing::warn!(%error, "cannot read standard input");
                    self.input = Input::Null;
                    self.reply(None);
                }
                self.order(Order::Give(up_to as usize));
            }
        }
    }

    /// A rank has read this many more of the bytes that were given.
    pub(crate) fn taken(&mut self, bytes: u64) {
        self.order(Order::Taken(bytes));
    }

    /// The end: nothing is given any more; `unread` bytes were given that no rank has read, and are what a file
    /// is sought back by.
    pub(crate) fn finish(&mut self, unread: u64) {
        if let Some(reader) = self.thread.take() {
            reader.end();
        }
        if unread > 0
            && self.input == Input::Inherit
            && about_stdin().is_ok_and(|m| m.is_file())
            && let Ok(back) = i64::try_from(unread)
        {
            let _ = lseek(io::stdin(), -back, Whence::SeekCur);
        }
    }

    fn reply(&self, bytes: Option<Bytes>) {
        if let Some(answer) = &self.answer {
            answer(bytes);
        }
    }

    fn order(&mut self, order: Order) {
        if let Some(reader) = &mut self.thread
            && reader.orders.send(order).is_ok()
        {
            let _ = reader.wake.write_all(b"x");
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (woken, wake) = io::pipe()?;
        let (orders, inbox) = mpsc::channel();
        let Some(answer) = self.answer.take() else { return Ok(()) };
        let kind = about_stdin()?.file_type();
        let front = (kind.is_fifo() || kind.is_socket()).then(|| Front::new(kind.is_fifo())).transpose()?;
        let serving = Serving { inbox, woken, answer, front, wanted: None };
        let thread = thread::Builder::new().name("rmpi-stdin".into()).spawn(move || serving.run())?;
        self.thread = Some(Reader { orders, wake, thread });
        Ok(())
    }
}

impl Reader {
    /// Has the thread do what it was told and leave.
    fn end(mut self) {
        drop(self.orders);
        let _ = self.wake.write_all(b"x");
        let _ = self.thread.join();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(reader) = self.thread.take() {
            reader.end();
        }
    }
}

/// The thread's side.
struct Serving {
    inbox: mpsc::Receiver<Order>,
    woken: PipeReader,
    answer: Answer,
    /// Where bytes can be looked at without taking them.
    front: Option<Front>,
    wanted: Option<usize>,
}

impl Serving {
    fn run(mut self) {
        let mut ended = false;
        while self.orders() {
            let stdin = io::stdin();
            let background = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group != getpgrp());
            // Where bytes lie that were given already, more come only after a rank has read those.
            let more = match (&mut self.front, self.wanted) {
                (_, None) => false,
                (Some(front), Some(up_to)) => match front.more(stdin.as_fd(), up_to) {
                    Some(bytes) => {
                        self.wanted = None;
                        (self.answer)(Some(bytes));
                        continue;
                    }
                    None => front.nothing_held(),
                },
                (None, Some(_)) => !background,
            };
            let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
            if more && !ended {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            let look_again = background && self.wanted.is_some();
            let timeout = if look_again { FOREGROUND_CHECK_MS.into() } else { PollTimeout::NONE };
            if poll(&mut fds, timeout).is_err_and(|e| e != nix::errno::Errno::EINTR) {
                return;
            }
            let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or(true));
            let (told, readable) = (ready(0), ready(1));
            if told {
                let _ = self.woken.read(&mut [0; 64]);
            } else if readable {
                ended = self.readable(stdin.as_fd());
            }
        }
    }

    /// Takes what it was told; false when it is to leave.
    fn orders(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Give(up_to)) => self.wanted = Some(up_to),
                Ok(Order::Taken(bytes)) => {
                    if let Some(front) = &mut self.front {
                        front.take(io::stdin().as_fd(), bytes);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Something, or the end, is there; whether it is the end. An error counts as the end.
    fn readable(&mut self, stdin: BorrowedFd<'_>) -> bool {
        let Some(up_to) = self.wanted.take() else { return false };
        let bytes = match &mut self.front {
            Some(front) => match front.first(stdin, up_to) {
                Ok(Some(bytes)) => bytes,
                // Somebody else was quicker.
                Ok(None) => {
                    self.wanted = Some(up_to);
                    return false;
                }
                Err(_) => Bytes::new(),
            },
            None => read_once(stdin, up_to).unwrap_or_default(),
        };
        let ended = bytes.is_empty();
        (self.answer)((!ended).then_some(bytes));
        ended
    }
}

fn about_stdin() -> io::Result<Metadata> {
    File::from(io::stdin().as_fd().try_clone_to_owned()?).metadata()
}

/// Whether our standard input is a file or the null device, which need no thread that can wait.
fn never_blocks() -> bool {
    about_stdin().is_ok_and(|m| m.is_file() || m.rdev() == NULL_DEVICE)
}

/// Past the standard library's buffer: bytes it would hold back belong to the next command of the script.
fn read_once(fd: BorrowedFd<'_>, up_to: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; up_to];
    let n = loop {
        match File::from(fd.try_clone_to_owned()?).read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    buffer.truncate(n);
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_in_portions_and_then_end() {
        let (tx, rx) = mpsc::channel();
        let answer = Box::new(move |bytes| tx.send(bytes).unwrap());
        let mut source = Source::new(Input::Bytes("abcde".into()), answer);
        for _ in 0..4 {
            source.request(2);
        }
        let got: Vec<Option<Bytes>> = rx.try_iter().collect();
        assert_eq!(got, [Some("ab".into()), Some("cd".into()), Some("e".into()), None]);
    }
}
