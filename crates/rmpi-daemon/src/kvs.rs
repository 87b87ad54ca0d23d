//! A rank's request socket: messages in, answers out. Whatever a rank sends, the worst it gets is its own
//! socket closed; a rank that does not take its answers is not heard until it does.

use rmpi_types::ProcId;
use rmpi_wire::rank::{self, RankRequest, Reply, Request};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};

/// Requests without an answer at which a rank is not heard any more.
const MAX_OPEN: usize = 1024;
/// Bytes of answers not yet taken at which a rank is not heard any more.
const MAX_ANSWERS: usize = 8 << 20;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// What comes from a rank.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A request and its payload.
    Request(Request, Vec<u8>),
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
        tokio::task::spawn_local(write(writer, queue, Rc::clone(&load)));
        let shared = Rc::clone(&load);
        tokio::task::spawn_local(async move {
            let end =
                read(reader, &shared, |request, payload| heard(proc, Heard::Request(request, payload))).await;
            heard(proc, Heard::Gone(end.err()));
        });
        Ok(Self { answers, load })
    }

    /// Sends an answer; to a rank that is gone, nowhere.
    pub(crate) fn answer(&self, reply: &Reply, payload: &[u8]) {
        self.load.open.set(self.load.open.get().saturating_sub(1));
        self.load.less.notify_one();
        let mut bytes = Vec::new();
        if rank::encode(reply, payload, &mut bytes).is_ok() {
            self.load.bytes.set(self.load.bytes.get() + bytes.len());
            // The receiver ends when the rank's side is closed.
            let _ = self.answers.send(bytes);
        }
    }
}

async fn read(mut socket: OwnedReadHalf, load: &Load, give: impl Fn(Request, Vec<u8>)) -> Result<(), String> {
    let mut buffer = Vec::new();
    loop {
        while load.open.get() >= MAX_OPEN || load.bytes.get() >= MAX_ANSWERS {
            load.less.notified().await;
        }
        match rank::decode::<Request>(&mut buffer) {
            Ok(Some((request, payload))) => {
                if !matches!(request.request, RankRequest::Abort { .. }) {
                    load.open.set(load.open.get() + 1);
                }
                give(request, payload);
                continue;
            }
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        buffer.reserve(CHUNK);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

async fn write(mut socket: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>, load: Rc<Load>) {
    while let Some(bytes) = queue.recv().await {
        let sent = socket.write_all(&bytes).await;
        load.bytes.set(load.bytes.get().saturating_sub(bytes.len()));
        load.less.notify_one();
        if sent.is_err() {
            return;
        }
    }
}
