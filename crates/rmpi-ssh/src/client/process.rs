//! A remote command's three streams and its end. One task per command sorts what arrives; it holds at most a
//! few packets for a slow reader, then stops reading the connection, so memory is bounded and the other side
//! waits. Whoever starts a command must therefore read, or drop, both outputs.

use super::{Inner, handler};
use bytes::{Buf as _, Bytes};
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

/// Packets kept for a reader, on top of the connection's own buffer.
const PACKETS: usize = 4;

/// Bytes of one packet, and bytes after which a writer lets the connection send. The connection keeps a buffer
/// as large as the most it ever had to encrypt at once: pushing a daemon must not leave megabytes behind for
/// every host.
const LARGEST_WRITE: usize = 2 << 10;
const BURST: usize = 4 << 10;

/// A running remote command. Its parts may be taken apart and moved to different tasks; the connection lives
/// as long as any stream does, and closes with the last.
#[derive(Debug)]
pub struct RemoteProcess {
    /// Its standard input: shutting down is end of file.
    pub stdin: ProcessInput,
    /// Its standard output.
    pub stdout: ProcessOutput,
    /// Its standard error.
    pub stderr: ProcessOutput,
    /// Its end.
    pub exit: Exit,
}

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// With this code.
    Code(u32),
    /// By this signal (`TERM`, without `SIG`).
    Signal(String),
    /// The connection went first, for this reason if one is known.
    Lost(Option<String>),
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
            Self::Lost(None) => f.write_str("connection lost"),
            Self::Lost(Some(why)) => write!(f, "connection lost: {why}"),
        }
    }
}

/// Resolves when the command has ended and all its output has been handed on.
#[derive(Debug)]
pub struct Exit(oneshot::Receiver<ExitStatus>);

impl Future for Exit {
    type Output = ExitStatus;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExitStatus> {
        let ended = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(ended.unwrap_or(ExitStatus::Lost(None)))
    }
}

/// An output of a remote command. End of file comes at the end of the stream and also when the connection is
/// lost: [`Exit`] tells which.
#[derive(Debug)]
pub struct ProcessOutput {
    packets: mpsc::Receiver<Bytes>,
    rest: Bytes,
    _connection: Arc<Inner>,
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.packets.poll_recv(cx)) {
                Some(packet) => self.rest = packet,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = buf.remaining().min(self.rest.len());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// The input of a remote command. A write may wait for the command to read. Not cancel safe: a write whose
/// future is dropped may still be sent.
pub struct ProcessInput {
    to: Pin<Box<dyn AsyncWrite + Send>>,
    /// Resolves when the channel is gone: a write waiting for window must not wait for ever.
    gone: oneshot::Receiver<()>,
    is_gone: bool,
    /// Bytes written since the connection had its turn.
    burst: usize,
    _connection: Arc<Inner>,
}

impl std::fmt::Debug for ProcessInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessInput").field("is_gone", &self.is_gone).finish_non_exhaustive()
    }
}

impl ProcessInput {
    fn check_gone<T>(&mut self, cx: &mut Context<'_>, pending: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if pending.is_ready() {
            return pending;
        }
        if !self.is_gone {
            // Both a message and a dropped sender mean the end.
            self.is_gone = Pin::new(&mut self.gone).poll(cx).is_ready();
        }
        if self.is_gone { Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) } else { pending }
    }
}

impl AsyncWrite for ProcessInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.burst >= BURST {
            self.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = self.to.as_mut().poll_write(cx, &buf[..buf.len().min(LARGEST_WRITE)]);
        if let Poll::Ready(Ok(n)) = written {
            self.burst += n;
        }
        self.check_gone(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.to.as_mut().poll_shutdown(cx);
        self.check_gone(cx, done)
    }
}

/// Takes a channel on which a command has been started apart.
pub(crate) fn split(channel: russh::Channel<russh::client::Msg>, connection: &Arc<Inner>) -> RemoteProcess {
    let (from, to) = channel.split();
    let (out_tx, out_rx) = mpsc::channel(PACKETS);
    let (err_tx, err_rx) = mpsc::channel(PACKETS);
    let (exit_tx, exit_rx) = oneshot::channel();
    let (gone_tx, gone) = oneshot::channel();
    let words = connection.words.clone();
    tokio::spawn(async move {
        let status = sort(from, out_tx, err_tx).await;
        drop(gone_tx);
        let _ = exit_tx.send(status.unwrap_or_else(|| ExitStatus::Lost(handler::last_words(&words))));
    });
    let output = |packets| ProcessOutput { packets, rest: Bytes::new(), _connection: connection.clone() };
    RemoteProcess {
        stdin: ProcessInput {
            to: Box::pin(to.make_writer()),
            gone,
            is_gone: false,
            burst: 0,
            _connection: connection.clone(),
        },
        stdout: output(out_rx),
        stderr: output(err_rx),
        exit: Exit(exit_rx),
    }
}

/// Hands arriving packets to their readers until the channel ends; those of a dropped reader are thrown away.
async fn sort(
    mut from: ChannelReadHalf,
    out: mpsc::Sender<Bytes>,
    err: mpsc::Sender<Bytes>,
) -> Option<ExitStatus> {
    let mut status = None;
    let mut outputs = Some((out, err));
    while let Some(msg) = from.wait().await {
        match (msg, &outputs) {
            (ChannelMsg::Data { data }, Some((out, _))) => {
                let _ = out.send(data).await;
            }
            (ChannelMsg::ExtendedData { data, ext: 1 }, Some((_, err))) => {
                let _ = err.send(data).await;
            }
            (ChannelMsg::ExitStatus { exit_status }, _) => status = Some(ExitStatus::Code(exit_status)),
            (ChannelMsg::ExitSignal { signal_name, .. }, _) => {
                status = Some(ExitStatus::Signal(signal_text(&signal_name)));
            }
            // The status may come before or after; the streams end here.
            (ChannelMsg::Eof, _) => outputs = None,
            (ChannelMsg::Close, _) => break,
            _ => {}
        }
    }
    status
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => handler::tame(name.split('@').next().unwrap_or(name)),
        known => format!("{known:?}"),
    }
}
