//! PMI on a TCP port (`-pmi-port`): a client dials `PMI_PORT`, says to the server which rank it is by its `PMI_ID`, and
//! goes on as on an inherited descriptor. The port is on loopback, and a stream is let in when the kernel says that it is
//! of our own user.

use super::Worker;
use super::dialled::accept;
use super::serve::Input;
use crate::kvs::{Heard, Requests};
use crate::peer;
use crate::prepare::PmiPort;
use bytes::Bytes;
use rmpi_pmi::api::Conn;
use rmpi_types::{NodeLaunch, ProcId};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};

/// The port and who came through it.
#[derive(Debug)]
pub(super) struct Ported {
    port: u16,
    /// The first number that no world has.
    next: u32,
    accepting: AbortHandle,
    streams: HashMap<Conn, Stream>,
}

#[derive(Debug)]
struct Stream {
    requests: Requests,
    /// Once it has said so.
    who: Option<ProcId>,
}

impl Drop for Ported {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Ported {
    /// Gives one more world its numbers: one port serves all, and a client says nothing else of itself.
    fn number(&mut self, launch: &NodeLaunch) -> PmiPort {
        let first = self.next;
        self.next = first.saturating_add(launch.size);
        (self.port, first)
    }

    /// Whether a stream came through here.
    pub(super) fn has(&self, conn: Conn) -> bool {
        self.streams.contains_key(&conn)
    }

    /// Sends bytes to one who dialled in.
    pub(super) fn send(&self, conn: Conn, bytes: Bytes) {
        if let Some(stream) = self.streams.get(&conn) {
            stream.requests.send(bytes.into());
        }
    }

    /// Closes a stream when what was sent has left; whether it was one of these.
    pub(super) fn close(&mut self, conn: Conn) -> bool {
        self.streams.remove(&conn).map(|stream| stream.requests.finish()).is_some()
    }

    /// Whether a process has a stream here whose end was not heard yet.
    pub(super) fn hears(&self, proc: ProcId) -> bool {
        self.streams.values().any(|stream| stream.who == Some(proc))
    }

    /// A stream has ended; whether it was one of these, and of a rank.
    pub(super) fn gone(&mut self, conn: Conn) -> Option<Option<ProcId>> {
        self.streams.remove(&conn).map(|stream| stream.who)
    }
}

/// A port that nobody may come through yet.
fn listen(inputs: mpsc::UnboundedSender<Input>) -> io::Result<Ported> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let taken = move |stream| drop(inputs.send(Input::PmiAccepted(stream)));
    let accepting = spawn_local(accept(listener, taken)).abort_handle();
    Ok(Ported { port, next: 0, accepting, streams: HashMap::new() })
}

impl Worker {
    /// Opens the port where the job asks for one and is not open yet, and lets this namespace's ranks in.
    ///
    /// # Errors
    /// What the kernel says of the listener.
    pub(super) fn open_port(&mut self, launch: &NodeLaunch) -> io::Result<Option<PmiPort>> {
        if !launch.extras.pmi_port || !launch.mpi.pmi.pmi() {
            return Ok(None);
        }
        let ported = match &mut self.ported {
            Some(ported) => ported,
            none => none.insert(listen(self.events.clone())?),
        };
        let (port, first) = ported.number(launch);
        let ids = launch.ranks.iter().map(|r| (first.saturating_add(r.rank.0), r.rank));
        self.pmi_expect(ids.map(|(id, rank)| (id, ProcId { rank, ..launch.ns })).collect());
        Ok(Some((port, first)))
    }

    /// Somebody dialled in.
    pub(super) fn pmi_dialled_in(&mut self, stream: TcpStream) {
        let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
        let uid = ends.ok().and_then(|(peer, ours)| peer::user(peer, ours));
        let most = self.ranks.len() * 2;
        let conn = self.serving.fresh();
        let inputs = self.events.clone();
        let Some(ported) = self.ported.as_mut().filter(|p| p.streams.len() < most) else { return };
        if uid != Some(nix::unistd::geteuid().as_raw()) {
            tracing::warn!("somebody else dialled in at the port for PMI clients");
            return;
        }
        let _ = stream.set_nodelay(true);
        let requests = Requests::serve_raw(stream, move |heard| {
            let _ = inputs.send(match heard {
                Heard::Bytes(bytes) => Input::Heard(conn, bytes.into()),
                Heard::Request(..) | Heard::Gone(_) => Input::HungUp(conn),
            });
        });
        ported.streams.insert(conn, Stream { requests, who: None });
        self.pmi_accepted(conn);
    }

    /// Words of one who dialled in: the server learns from them who it is.
    pub(super) fn pmi_port_heard(&mut self, conn: Conn, bytes: Bytes) {
        let said = self.pmi_said(conn, bytes);
        if let (Some(proc), Some(stream)) =
            (said, self.ported.as_mut().and_then(|p| p.streams.get_mut(&conn)))
        {
            stream.who = Some(proc);
        }
    }
}
