//! Our standard input, read only when a rank has asked for it, never from a background process group of the
//! terminal, on a thread that can always be told to leave.

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, getpgrp, lseek, tcgetpgrp};
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::thread;

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
    thread: Option<(mpsc::Sender<u32>, PipeWriter)>,
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
                if let Some((requests, _)) = &self.thread {
                    let _ = requests.send(up_to);
                }
            }
        }
    }

    /// Seeks our standard input back by bytes that no rank has taken, if it is a file: they belong to the next
    /// command of the script.
    pub(crate) fn give_back(&self, bytes: u64) {
        let regular = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned()?).metadata();
        if bytes > 0
            && self.input == Input::Inherit
            && regular(io::stdin().as_fd()).is_ok_and(|m| m.is_file())
            && let Ok(back) = i64::try_from(bytes)
        {
            let _ = lseek(io::stdin(), -back, Whence::SeekCur);
        }
    }

    fn reply(&self, bytes: Option<Bytes>) {
        if let Some(answer) = &self.answer {
            answer(bytes);
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (wake, keep) = io::pipe()?;
        let (tx, requests) = mpsc::channel();
        let Some(answer) = self.answer.take() else { return Ok(()) };
        thread::Builder::new().name("rmpi-stdin".into()).spawn(move || {
            while let Ok(up_to) = requests.recv() {
                match read(&wake, up_to as usize) {
                    Some(Ok(bytes)) if !bytes.is_empty() => answer(Some(bytes)),
                    Some(_) => return answer(None),
                    None => return,
                }
            }
        })?;
        self.thread = Some((tx, keep));
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some((_, wake)) = &mut self.thread {
            let _ = wake.write_all(b"x");
        }
    }
}

/// Whether our standard input is a file or the null device, which need no thread that can wait.
fn never_blocks() -> bool {
    let metadata = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned()?).metadata();
    metadata(io::stdin().as_fd()).is_ok_and(|m: Metadata| m.is_file() || m.rdev() == NULL_DEVICE)
}

/// One read of standard input; `None` when told to leave. An error counts as end of file.
fn read(wake: &PipeReader, up_to: usize) -> Option<io::Result<Bytes>> {
    let stdin = io::stdin();
    loop {
        let background = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group != getpgrp());
        let mut fds = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        if !background {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let timeout = if background { PollTimeout::from(FOREGROUND_CHECK_MS) } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Some(Err(e.into())),
        }
        let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| fd.any().unwrap_or(true));
        if ready(fds.first()) {
            return None;
        }
        if ready(fds.get(1)) {
            return Some(read_once(stdin.as_fd(), up_to));
        }
    }
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
