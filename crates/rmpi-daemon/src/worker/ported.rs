//! PMI on a TCP port (`-pmi-port`): a client of MPICH's simple PMI dials `PMI_PORT`, says which rank it is by its
//! `PMI_ID`, is told size and rank, and goes on as on an inherited descriptor. The port is on loopback, and a stream is
//! let in when the kernel says that it is of our own user.

use super::Worker;
use super::dialled::accept;
use super::serve::Input;
use crate::kvs::{Heard, Requests};
use crate::peer;
use crate::prepare::PmiPort;
use bytes::Bytes;
use rmpi_pmi::api::Conn;
use rmpi_types::{NodeLaunch, ProcId, Rank};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};

/// Bytes of a first line, at most.
const MAX_LINE: usize = 1024;

/// The port and who came through it.
#[derive(Debug)]
pub(super) struct Ported {
    port: u16,
    worlds: Vec<World>,
    accepting: AbortHandle,
    streams: HashMap<Conn, Stream>,
}

/// A namespace whose ranks may come through the port.
#[derive(Clone, Copy, Debug)]
struct World {
    /// The `PMI_ID` of its rank 0: one port serves all worlds, and a client says nothing else of itself.
    first: u32,
    ns: ProcId,
    size: u32,
}

/// Whose number that is, and the size of its world.
fn meant(worlds: &[World], id: u32) -> Option<(ProcId, u32)> {
    worlds.iter().find_map(|world| {
        let rank = id.checked_sub(world.first).filter(|rank| *rank < world.size)?;
        Some((ProcId { rank: Rank(rank), ..world.ns }, world.size))
    })
}

#[derive(Debug)]
struct Stream {
    requests: Requests,
    who: Who,
}

#[derive(Debug)]
enum Who {
    /// It has said this much.
    Unknown(Vec<u8>),
    Rank(ProcId),
}

impl Drop for Ported {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Ported {
    /// Lets one more namespace's ranks in.
    fn expect(&mut self, launch: &NodeLaunch) -> PmiPort {
        let first = self.worlds.last().map_or(0, |w| w.first.saturating_add(w.size));
        self.worlds.push(World { first, ns: launch.ns, size: launch.size });
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

    /// A stream has ended: which rank's it was.
    pub(super) fn gone(&mut self, conn: Conn) -> Option<ProcId> {
        match self.streams.remove(&conn)?.who {
            Who::Rank(proc) => Some(proc),
            Who::Unknown(_) => None,
        }
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
    Ok(Ported { port, worlds: Vec::new(), accepting, streams: HashMap::new() })
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
        Ok(Some(ported.expect(launch)))
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
        ported.streams.insert(conn, Stream { requests, who: Who::Unknown(Vec::new()) });
    }

    /// Words of one who dialled in: first who it is, then as of every rank.
    pub(super) fn pmi_port_heard(&mut self, conn: Conn, bytes: Bytes) {
        let Some(ported) = self.ported.as_mut() else { return };
        let Some(stream) = ported.streams.get_mut(&conn) else { return };
        let said = match &mut stream.who {
            Who::Rank(proc) => {
                let proc = *proc;
                return self.pmi_bytes(proc, bytes);
            }
            Who::Unknown(said) => {
                said.extend_from_slice(&bytes);
                said
            }
        };
        let Some(end) = said.iter().position(|&b| b == b'\n') else {
            if said.len() > MAX_LINE {
                ported.close(conn);
            }
            return;
        };
        let rest = said.split_off(end + 1);
        let meant = introduced(&said[..end]).and_then(|id| meant(&ported.worlds, id));
        let Some((proc, size)) = meant.filter(|(proc, _)| self.ranks.contains_key(proc)) else {
            ported.close(conn);
            return;
        };
        stream.who = Who::Rank(proc);
        if !self.pmi_known(conn, proc) {
            // A second stream of one rank.
            if let Some(ported) = &mut self.ported {
                ported.close(conn);
            }
            return;
        }
        let rank = proc.rank;
        let told = format!("cmd=initack rc=0\ncmd=set size={size}\ncmd=set rank={rank}\ncmd=set debug=0\n");
        if let Some(ported) = &self.ported {
            ported.send(conn, told.into());
        }
        if !rest.is_empty() {
            self.pmi_bytes(proc, rest.into());
        }
    }
}

/// The number in `cmd=initack pmiid=N`.
fn introduced(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    if words.next() != Some("cmd=initack") {
        return None;
    }
    words.find_map(|w| w.strip_prefix("pmiid=")).and_then(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_its_number() {
        assert_eq!(introduced(b"cmd=initack pmiid=3"), Some(3));
        assert_eq!(introduced(b"cmd=initack host=n1 pmiid=4 "), Some(4));
        for wrong in [&b""[..], b"cmd=init pmiid=3", b"cmd=initack", b"cmd=initack pmiid=-1", b"\xff"] {
            assert_eq!(introduced(wrong), None);
        }
    }
    #[test]
    fn numbers_tell_the_ranks_of_several_worlds_apart() {
        let child = ProcId { ns: rmpi_types::Namespace(1), ..ProcId::first(0) };
        let worlds =
            [World { first: 0, ns: ProcId::first(0), size: 3 }, World { first: 3, ns: child, size: 2 }];
        assert_eq!(meant(&worlds, 2), Some((ProcId::first(2), 3)));
        assert_eq!(meant(&worlds, 3), Some((child, 2)));
        assert_eq!(meant(&worlds, 4), Some((ProcId { rank: Rank(1), ..child }, 2)));
        assert_eq!(meant(&worlds, 5), None);
        assert_eq!(meant(&[], 0), None);
    }
}
