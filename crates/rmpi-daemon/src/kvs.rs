//! A rank's socket to us: messages in, answers out. It speaks the native language, or PMI where the first bytes
//! are; the same descriptor is offered for both, so that ranks of other libraries cost nothing more. Whatever a
//! rank sends, the worst it gets is its own socket closed; one that does not take its answers is not heard until
//! it does.

use rmpi_types::ProcId;
use rmpi_wire::rank::{self, RankRequest, Reply, Request};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpStream, UnixStream, tcp};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, spawn_local};

/// Requests without an answer at which a rank is not heard any more.
const MAX_OPEN: usize = 1024;
/// Bytes of answers not yet taken at which a rank is not heard any more.
const MAX_ANSWERS: usize = 8 << 20;
/// Bytes read at once at first, and at most: a rank that says nothing costs little.
const FIRST: usize = 1 << 10;
const CHUNK: usize = 64 << 10;
/// Bytes read at once of a client that speaks PMI, whose messages are lines.
const PMI_CHUNK: usize = 4 << 10;
/// Bytes read at once of a client that speaks PMIx.
const PMIX_CHUNK: usize = 16 << 10;

/// What comes from a rank.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A request and its payload.
    Request(Request, Vec<u8>),
    /// Bytes of another language, from the first on.
    Bytes(Vec<u8>),
    /// End of the socket; with a text if the rank broke the protocol.
    Gone(Option<String>),
}

#[derive(Debug, Default)]
struct Load {
    open: Cell<usize>,
    bytes: Cell<usize>,
    less: Notify,
}

/// The answering side.
#[derive(Debug)]
pub(crate) struct Requests {
    answers: mpsc::UnboundedSender<Vec<u8>>,
    load: Rc<Load>,
    /// Writing, reading.
    tasks: Vec<AbortHandle>,
}

impl Drop for Requests {
    /// The rank is gone: nothing more is heard or said.
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Requests {
    /// Serves the socket on the current `LocalSet`.
    ///
    /// # Errors
    /// What the runtime says of the descriptor.
    pub(crate) fn serve(
        proc: ProcId,
        fd: OwnedFd,
        heard: impl Fn(ProcId, Heard) + 'static,
    ) -> std::io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(socket)?.into_split();
        let (answers, queue) = mpsc::unbounded_channel();
        let load = Rc::new(Load::default());
        let writing = spawn_local(write(writer, queue, Rc::clone(&load)));
        let shared = Rc::clone(&load);
        let reading = spawn_local(async move {
            let end = read(reader, &shared, |what| heard(proc, what)).await;
            heard(proc, Heard::Gone(end.err()));
        });
        Ok(Self { answers, load, tasks: vec![writing.abort_handle(), reading.abort_handle()] })
    }

    /// Serves a stream of another language on the current `LocalSet`; everything is heard as bytes.
    pub(crate) fn serve_raw(stream: TcpStream, heard: impl Fn(Heard) + 'static) -> Self {
        let (mut reader, writer) = stream.into_split();
        let (answers, queue) = mpsc::unbounded_channel();
        let load = Rc::new(Load::default());
        let writing = spawn_local(write(writer, queue, Rc::clone(&load)));
        let shared = Rc::clone(&load);
        let reading = spawn_local(async move {
            read_raw(&mut reader, &shared, &heard).await;
            heard(Heard::Gone(None));
        });
        Self { answers, load, tasks: vec![writing.abort_handle(), reading.abort_handle()] }
    }

    /// Says what was sent before to the end, then closes; nothing more is heard.
    pub(crate) fn finish(mut self) {
        // The writing task is left to itself: without a sender it ends after what is queued.
        self.tasks.remove(0);
    }

    /// Sends an answer; to a rank that is gone, nowhere.
    pub(crate) fn answer(&self, reply: &Reply, payload: &[u8]) {
        self.load.open.set(self.load.open.get().saturating_sub(1));
        self.load.less.notify_one();
        let mut bytes = Vec::new();
        if rank::encode(reply, payload, &mut bytes).is_ok() {
            self.send(bytes);
        }
    }

    /// Sends bytes of another language.
    pub(crate) fn send(&self, bytes: Vec<u8>) {
        self.load.bytes.set(self.load.bytes.get() + bytes.len());
        // The receiver ends when the rank's side is closed.
        let _ = self.answers.send(bytes);
    }
}

/// Whether a socket that begins like this speaks PMI: read as a native length it would be a gigabyte.
fn is_pmi(first: &[u8]) -> bool {
    first.starts_with(b"cmd=") || first.starts_with(b"mcmd")
}

/// Gives everything as it comes, to the end.
async fn read_raw(socket: &mut tcp::OwnedReadHalf, load: &Load, give: &impl Fn(Heard)) {
    loop {
        while load.bytes.get() >= MAX_ANSWERS {
            load.less.notified().await;
        }
        // A client that writes twice before we answer would wait 40 ms for the acknowledgement of the first (its
        // side does not turn Nagle's algorithm off): no later read keeps this setting.
        let _ = socket.as_ref().set_quickack(true);
        let mut buffer = Vec::with_capacity(PMIX_CHUNK);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => give(Heard::Bytes(buffer)),
        }
    }
}

async fn read(mut socket: OwnedReadHalf, load: &Load, give: impl Fn(Heard)) -> Result<(), String> {
    let mut buffer = Vec::new();
    let mut pmi = false;
    let mut room = FIRST;
    loop {
        while load.open.get() >= MAX_OPEN || load.bytes.get() >= MAX_ANSWERS {
            load.less.notified().await;
        }
        pmi |= is_pmi(&buffer);
        if pmi {
            if !buffer.is_empty() {
                give(Heard::Bytes(std::mem::take(&mut buffer)));
            }
            buffer.reserve(PMI_CHUNK);
            match socket.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => continue,
            }
        }
        match rank::decode::<Request>(&mut buffer) {
            Ok(Some((request, payload))) => {
                if !matches!(request.request, RankRequest::Abort { .. }) {
                    load.open.set(load.open.get() + 1);
                }
                give(Heard::Request(request, payload));
                continue;
            }
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        buffer.reserve(room);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(n) if n >= room => room = CHUNK,
            Ok(_) => {}
        }
    }
}

async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    load: Rc<Load>,
) {
    while let Some(bytes) = queue.recv().await {
        let sent = socket.write_all(&bytes).await;
        load.bytes.set(load.bytes.get().saturating_sub(bytes.len()));
        load.less.notify_one();
        if sent.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::rank::RankReply;
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Plain;
    use std::time::Duration;
    use tokio::task::LocalSet;

    type Log = Rc<RefCell<Vec<Heard>>>;

    /// Serves one socket while `talk` runs as the rank on a thread of its own; what was heard until the end.
    fn serve(talk: impl FnOnce(Plain) + Send + 'static, answer: bool) -> Vec<Heard> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, theirs) = Plain::pair().unwrap();
        let rank = std::thread::spawn(move || talk(theirs));
        let log: Log = Rc::default();
        let heard = Rc::clone(&log);
        LocalSet::new().block_on(&runtime, async move {
            let (send, mut events) = mpsc::unbounded_channel();
            let give = move |_, heard| drop(send.send(heard));
            let requests = Requests::serve(ProcId::first(3), ours.into(), give).unwrap();
            loop {
                let next = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
                let event = next.expect("something happens").expect("the reader says the end");
                if let (Heard::Request(request, payload), true) = (&event, answer) {
                    requests.answer(&Reply { id: request.id, reply: RankReply::Value }, payload);
                }
                let end = matches!(event, Heard::Gone(_));
                heard.borrow_mut().push(event);
                if end {
                    return;
                }
            }
        });
        rank.join().unwrap();
        log.take()
    }

    fn request(id: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let request = Request { id, request: RankRequest::Put { key: "k".into() } };
        rank::encode(&request, payload, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn requests_are_heard_and_answered() {
        let heard = serve(
            |mut socket| {
                for id in 0..3000u64 {
                    socket.write_all(&request(id, b"value")).unwrap();
                    let mut head = [0; 4];
                    socket.read_exact(&mut head).unwrap();
                    let mut answer = head.to_vec();
                    answer.resize(4 + u32::from_le_bytes(head) as usize, 0);
                    socket.read_exact(&mut answer[4..]).unwrap();
                    let (reply, payload) = rank::decode::<Reply>(&mut answer).unwrap().unwrap();
                    assert_eq!((reply.id, payload.as_slice()), (id, &b"value"[..]));
                }
            },
            true,
        );
        assert_eq!(heard.len(), 3001);
        assert!(matches!(heard.last(), Some(Heard::Gone(None))));
    }

    #[test]
    fn a_rank_that_breaks_the_protocol_loses_its_socket_only() {
        for bytes in [&[0xff; 64][..], &[0; 8], &[5, 0, 0, 0, 200, 0, 0, 0, 1]] {
            let heard = serve(
                move |mut socket| {
                    socket.write_all(bytes).unwrap();
                    // Closed on the other side, whatever that looks like from here.
                    let _ = socket.read(&mut [0; 1]);
                },
                false,
            );
            assert!(matches!(&heard[..], [Heard::Gone(Some(_))]), "{bytes:?}: {heard:?}");
        }
    }

    #[test]
    fn a_rank_is_not_heard_beyond_its_open_requests() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, mut theirs) = Plain::pair().unwrap();
        theirs.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Stops when the daemon does not read any more; nobody answers.
        let rank = std::thread::spawn(move || while theirs.write_all(&request(1, &[0; 4000])).is_ok() {});
        let count = LocalSet::new().block_on(&runtime, async move {
            let (send, mut events) = mpsc::unbounded_channel();
            let _requests =
                Requests::serve(ProcId::first(0), ours.into(), move |_, heard| drop(send.send(heard)))
                    .unwrap();
            let mut count = 0;
            while tokio::time::timeout(Duration::from_millis(600), events.recv()).await.is_ok() {
                count += 1;
            }
            count
        });
        rank.join().unwrap();
        assert_eq!(count, MAX_OPEN);
    }
}
