//! Between the ranks' sockets, the process-management servers and the machine: bytes go in, what servers decide
//! is carried out, what they ask of the job is put to the machine. No server exists before a client speaks.

use super::{Worker, dialled};
use crate::kvs::Heard;
use crate::prepare;
use bytes::Bytes;
use rmpi_control::{DaemonEvent, Member};
use rmpi_pmi::Servers;
use rmpi_pmi::api::{Action, Conn, Event, Gathered, Question, Token};
use rmpi_pmi::pmix::topology::Drawing;
use rmpi_types::{EndpointTable, NodeIdx, NodeLaunch, ProcId};
use rmpi_wire::msg::Stream;
use rmpi_wire::service::{Answer, Domain, GatherKey, Space};
use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What comes to the worker on its queue.
#[derive(Debug)]
pub(super) enum Input {
    /// For the machine.
    Event(DaemonEvent),
    /// A rank has read more of its standard input.
    Took(ProcId),
    /// The control stream of this number has ended.
    UpEnded(u32),
    /// The launcher was dialled again.
    Redialled(Box<crate::secure::Secure>),
    /// Bytes from a rank whose library is not ours.
    Bytes(ProcId, Bytes),
    /// Somebody dialled in.
    Accepted(TcpStream),
    /// Somebody dialled in at the port of PMI.
    PmiAccepted(TcpStream),
    /// Bytes of one who dialled in.
    Heard(Conn, Bytes),
    /// One who dialled in has hung up.
    HungUp(Conn),
}

impl From<DaemonEvent> for Input {
    fn from(event: DaemonEvent) -> Self {
        Self::Event(event)
    }
}

/// The servers and their streams.
#[derive(Debug, Default)]
pub(super) struct Serving {
    pub(super) servers: Servers,
    conns: HashMap<Conn, ProcId>,
    by_proc: HashMap<ProcId, Conn>,
    last: u64,
    /// What clients of PMI read the node's topology from, while we live; empty where it is left to them.
    topology: Option<Option<OwnedFd>>,
}

impl Serving {
    /// The number of a new stream.
    pub(super) fn fresh(&mut self) -> Conn {
        self.last += 1;
        Conn(self.last)
    }
}

/// A rank's words as the worker takes them.
pub(super) fn heard(proc: ProcId, what: Heard, give: impl Fn(Input)) {
    give(match what {
        Heard::Request(request, payload) => Input::Event(DaemonEvent::RankRequest {
            proc,
            id: request.id,
            request: request.request,
            payload: payload.into(),
        }),
        Heard::Bytes(bytes) => Input::Bytes(proc, bytes.into()),
        Heard::Gone(why) => {
            if let Some(why) = why {
                give(DaemonEvent::Note(format!("{proc}: request socket closed: {why}")).into());
            }
            DaemonEvent::RankGone { proc }.into()
        }
    });
}

/// What servers know of a namespace.
pub(super) fn space(launch: &NodeLaunch, table: &EndpointTable) -> Space {
    let node =
        |n: &rmpi_types::launch::NodeEndpoints| (n.host.clone(), n.ranks.iter().map(|r| r.rank).collect());
    Space::of(launch, table.nodes.iter().map(node))
}

impl Worker {
    /// A namespace whose ranks are about to start here.
    pub(super) fn serve_space(&mut self, space: Space) {
        self.with_servers(|servers, now, out| servers.space(now, Arc::new(space), out));
    }

    /// Bytes of a rank.
    pub(super) fn pmi_bytes(&mut self, proc: ProcId, bytes: Bytes) {
        let conn = match self.serving.by_proc.get(&proc) {
            Some(conn) => *conn,
            None => {
                self.show_topology();
                let conn = self.serving.fresh();
                self.serving.conns.insert(conn, proc);
                self.serving.by_proc.insert(proc, conn);
                self.with_servers(|servers, now, out| servers.pmi_opened(now, conn, proc, out));
                conn
            }
        };
        self.with_servers(|servers, now, out| servers.on(now, Event::Bytes { conn, bytes }, out));
        self.drain();
    }

    /// Gives clients of PMI, before the first is heard, the node's topology to read: each would look for itself, which
    /// costs some 10 ms of CPU a rank.
    fn show_topology(&mut self) {
        if self.serving.topology.is_some() {
            return;
        }
        let drawing = Drawing::new(self.topology.clone());
        // Without it they look for themselves.
        let file = drawing.even_xml().and_then(|xml| prepare::seal("rmpi-topology", xml.as_bytes()).ok());
        if let Some(file) = &file {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            self.serving.servers.pmi_topology(path);
        }
        self.serving.topology = Some(file);
    }

    /// These processes may dial in at the port with these numbers.
    pub(super) fn pmi_expect(&mut self, ids: Vec<(u32, ProcId)>) {
        self.show_topology();
        self.with_servers(|servers, now, out| {
            ids.into_iter().for_each(|(id, proc)| servers.pmi_expect(now, id, proc, out));
        });
    }

    /// Somebody dialled in at the port.
    pub(super) fn pmi_accepted(&mut self, conn: Conn) {
        self.with_servers(|servers, now, out| servers.pmi_accepted(now, conn, out));
    }

    /// Words of one who dialled in there; who it is, once it has said so.
    pub(super) fn pmi_said(&mut self, conn: Conn, bytes: Bytes) -> Option<ProcId> {
        self.with_servers(|servers, now, out| servers.on(now, Event::Bytes { conn, bytes }, out));
        let proc = self.serving.servers.pmi_proc(conn);
        if let Some(proc) = proc {
            self.serving.conns.insert(conn, proc);
            self.serving.by_proc.insert(proc, conn);
        }
        self.drain();
        proc
    }

    /// A rank's socket ended.
    pub(super) fn pmi_eof(&mut self, proc: ProcId) {
        if let Some(conn) = self.serving.by_proc.remove(&proc) {
            self.serving.conns.remove(&conn);
            self.with_servers(|servers, now, out| servers.on(now, Event::Eof { conn }, out));
        }
    }

    /// The machine's word for the servers.
    pub(super) fn tell_servers(&mut self, event: Event) {
        self.with_servers(|servers, now, out| servers.on(now, event, out));
    }

    /// The machine's word for the server of one domain.
    pub(super) fn tell_server(&mut self, domain: Domain, event: Event) {
        self.with_servers(|servers, now, out| servers.on_of(domain, now, event, out));
    }

    pub(super) fn gathered(
        &mut self,
        key: GatherKey,
        tokens: Vec<u64>,
        result: Result<(Bytes, u64), ProcId>,
    ) {
        let tokens = tokens.into_iter().map(Token).collect();
        let result = result.map(|(data, serial)| Gathered { data, serial });
        self.tell_servers(Event::Gathered { key, tokens, result });
    }

    pub(super) fn answered(&mut self, token: u64, answer: Answer, payload: Bytes) {
        self.tell_servers(Event::Answered { token: Token(token), answer, payload });
    }

    /// A timer of the servers may be over.
    pub(super) fn servers_due(&self) -> Option<Duration> {
        self.serving.servers.next_timer()
    }

    fn with_servers(&mut self, what: impl FnOnce(&mut Servers, Duration, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        let now = self.now().0;
        what(&mut self.serving.servers, now, &mut actions);
        for action in actions {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let event = match action {
            Action::Send { conn, bytes } => return self.send_to(conn, bytes),
            Action::Close { conn, why } => {
                if self.door.as_mut().is_some_and(|d| d.close(conn)) {
                    if let Some(why) = why {
                        tracing::warn!(why, "PMIx stream closed");
                    }
                    return;
                }
                let dialled = self.ported.as_mut().is_some_and(|p| p.close(conn));
                let known = self.serving.conns.remove(&conn);
                if dialled && known.is_none() {
                    return tracing::warn!(why, "a stranger at the port for PMI");
                }
                if let Some(proc) = known {
                    self.serving.by_proc.remove(&proc);
                    if dialled {
                        tracing::debug!(?proc, "PMI stream closed");
                    } else if let Some(rank) = self.ranks.get_mut(&proc) {
                        rank.requests = None;
                        rank.requests_done = true;
                    }
                }
                match why {
                    Some(why) => DaemonEvent::Note(format!("PMI socket closed: {why}")),
                    None => return,
                }
            }
            Action::Join { token, by, key, data } => DaemonEvent::Join { token: token.0, by, key, data },
            Action::Request { token, by, request, payload } => {
                DaemonEvent::Request { token: token.0, by, request, payload }
            }
            Action::Answer { question: Question { asker, id }, answer, payload } => {
                DaemonEvent::Answer { asker: NodeIdx(asker), id, answer, payload }
            }
            Action::Hello { proc } => DaemonEvent::Member { proc, what: Member::Hello },
            Action::Finalized { proc } => DaemonEvent::Member { proc, what: Member::Finalized },
            Action::Abort { by, code, message } => {
                DaemonEvent::Member { proc: by, what: Member::Abort { code, message } }
            }
            Action::Folder { path } => {
                let made = self.door.as_mut().map(|d| d.make(&path));
                match made {
                    Some(Err(error)) => {
                        let path = path.display();
                        DaemonEvent::Note(format!("cannot make session folder {path}: {error}"))
                    }
                    Some(Ok(())) | None => return,
                }
            }
            Action::Remove { path, recursive } => return dialled::remove(&path, recursive),
            Action::Output { by, bytes } => {
                DaemonEvent::Output { proc: by, stream: Stream::Stderr, bytes, last: false }
            }
            Action::Note(text) => DaemonEvent::Note(text),
        };
        self.pending.push_back(event);
    }

    fn send_to(&self, conn: Conn, bytes: Bytes) {
        if let Some(ported) = self.ported.as_ref().filter(|p| p.has(conn)) {
            return ported.send(conn, bytes);
        }
        let proc = self.serving.conns.get(&conn);
        if let Some(requests) = proc.and_then(|p| self.ranks.get(p)).and_then(|r| r.requests.as_ref()) {
            requests.send(bytes.into());
        } else if let Some(door) = &self.door {
            door.send(conn, bytes);
        }
    }
}
