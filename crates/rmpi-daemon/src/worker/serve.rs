//! Between the ranks' sockets, the process-management servers and the machine: bytes go in, what servers decide
//! is carried out, what they ask of the job is put to the machine. No server exists before a client speaks.

use super::Worker;
use crate::kvs::Heard;
use bytes::Bytes;
use rmpi_control::{DaemonEvent, Member};
use rmpi_pmi::Servers;
use rmpi_pmi::api::{Action, Conn, Event, Gathered, Question, Token};
use rmpi_types::{EndpointTable, NodeIdx, NodeLaunch, ProcId, RankSet};
use rmpi_wire::service::{Answer, GatherKey, Space, SpaceApp, SpaceNode};
use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What comes to the worker on its queue.
#[derive(Debug)]
pub(super) enum Input {
    /// For the machine.
    Event(DaemonEvent),
    /// Bytes from a rank whose library is not ours.
    Bytes(ProcId, Bytes),
}

impl From<DaemonEvent> for Input {
    fn from(event: DaemonEvent) -> Self {
        Self::Event(event)
    }
}

/// The servers and their streams.
#[derive(Debug, Default)]
pub(super) struct Serving {
    servers: Servers,
    conns: HashMap<Conn, ProcId>,
    by_proc: HashMap<ProcId, Conn>,
    last: u64,
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
    let node = |n: &rmpi_types::launch::NodeEndpoints| SpaceNode {
        node: n.node.0,
        host: n.host.clone(),
        ranks: n.ranks.iter().map(|r| r.rank).collect(),
    };
    let all = || RankSet::range(0, launch.size.saturating_sub(1));
    let apps = launch.apps.iter().enumerate().map(|(i, app)| SpaceApp {
        ranks: launch.mpi.apps.get(i).cloned().unwrap_or_else(all),
        program: app.program.clone(),
        args: app.args.clone(),
        wdir: app.wdir.clone(),
    });
    Space {
        job: launch.job,
        id: launch.ns,
        size: launch.size,
        universe: launch.universe,
        parent: launch.mpi.parent,
        nodes: table.nodes.iter().map(node).collect(),
        apps: apps.collect(),
        preputs: launch.mpi.preputs.clone(),
    }
}

/// Makes a folder that only its owner enters.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes what a rank asked to be removed; what is gone already is as good.
fn remove(path: &Path, recursive: bool) {
    let gone = match (path.symlink_metadata().map(|m| m.is_dir()), recursive) {
        (Ok(true), true) => std::fs::remove_dir_all(path),
        (Ok(true), false) => std::fs::remove_dir(path),
        (Ok(false), _) => std::fs::remove_file(path),
        (Err(_), _) => return,
    };
    if let Err(error) = gone {
        tracing::debug!(path = %path.display(), %error, "not removed");
    }
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
                self.serving.last += 1;
                let conn = Conn(self.serving.last);
                self.serving.conns.insert(conn, proc);
                self.serving.by_proc.insert(proc, conn);
                self.with_servers(|servers, now, out| servers.pmi_opened(now, conn, proc, out));
                conn
            }
        };
        self.with_servers(|servers, now, out| servers.on(now, Event::Bytes { conn, bytes }, out));
        self.drain();
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
                if let Some(proc) = self.serving.conns.remove(&conn) {
                    self.serving.by_proc.remove(&proc);
                    if let Some(rank) = self.ranks.get_mut(&proc) {
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
            Action::Note(text) => DaemonEvent::Note(text),
            Action::Folder { path } => match make_folder(&path) {
                Ok(()) => return,
                Err(error) => {
                    DaemonEvent::Note(format!("cannot make the folder {}: {error}", path.display()))
                }
            },
            Action::Remove { path, recursive } => return remove(&path, recursive),
            Action::Output { by, bytes } => {
                let stream = rmpi_wire::msg::Stream::Stderr;
                DaemonEvent::Output { proc: by, stream, bytes, last: false }
            }
        };
        self.pending.push_back(event);
    }

    fn send_to(&self, conn: Conn, bytes: Bytes) {
        let proc = self.serving.conns.get(&conn);
        if let Some(requests) = proc.and_then(|p| self.ranks.get(p)).and_then(|r| r.requests.as_ref()) {
            requests.send(bytes.into());
        }
    }
}
