//! All servers of one node behind one door: streams go to the server that understands their first bytes, answers
//! to the one that asked. A server comes into being with its first client: a node without clients has none.

use crate::api::{Action, Conn, Event, Server};
use crate::pmi::PmiServer;
use crate::pmix::server::PmixServer;
use rmpi_types::ProcId;
use rmpi_wire::service::{Domain, Space};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The servers of a node.
#[derive(Default)]
pub struct Servers {
    spaces: Vec<Arc<Space>>,
    pmi: Option<PmiServer>,
    pmix: Option<PmixServer>,
    /// The file with the node's topology, for clients of PMI.
    topology: Option<String>,
    conns: HashMap<Conn, Domain>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").field("spaces", &self.spaces.len()).field("pmi", &self.pmi).finish()
    }
}

impl Servers {
    /// A namespace came into being; told again, nothing happens.
    pub fn space(&mut self, now: Duration, space: Arc<Space>, out: &mut Vec<Action>) {
        if self.spaces.iter().any(|known| known.id == space.id) {
            return;
        }
        if let Some(pmi) = &mut self.pmi {
            pmi.on(now, Event::Space(Arc::clone(&space)), out);
        }
        if let Some(pmix) = &mut self.pmix {
            pmix.on(now, Event::Space(Arc::clone(&space)), out);
        }
        self.spaces.push(space);
    }

    /// Ranks that start from now on may dial in and speak PMIx with this server.
    pub fn offer_pmix(&mut self, mut server: PmixServer) {
        for space in &self.spaces {
            server.on(Duration::ZERO, Event::Space(Arc::clone(space)), &mut Vec::new());
        }
        self.pmix = Some(server);
    }

    /// The PMIx server, for the variables its clients find it by.
    #[must_use]
    pub fn pmix(&self) -> Option<&PmixServer> {
        self.pmix.as_ref()
    }

    /// Clients of PMI may read the node's topology from this file, in hwloc's XML: before the first of them is heard.
    pub fn pmi_topology(&mut self, path: String) {
        self.topology = Some(path);
    }

    /// An inherited stream has said its first bytes, which are PMI's.
    pub fn pmi_opened(&mut self, now: Duration, conn: Conn, proc: ProcId, out: &mut Vec<Action>) {
        self.conns.insert(conn, Domain::Pmi);
        self.pmi_server(now, out).on(now, Event::Opened { conn, proc }, out);
    }

    /// Somebody dialled in at the port for PMI, and is to say who it is: by `initack` for PMI-1, by `fullinit` for PMI-2.
    pub fn pmi_accepted(&mut self, now: Duration, conn: Conn, out: &mut Vec<Action>) {
        self.conns.insert(conn, Domain::Pmi);
        self.pmi_server(now, out).on(now, Event::Accepted { conn, uid: None }, out);
    }

    /// This process may dial in there, and say it is this number.
    pub fn pmi_expect(&mut self, now: Duration, id: u32, proc: ProcId, out: &mut Vec<Action>) {
        self.pmi_server(now, out).expect(id, proc);
    }

    /// The process behind a stream of PMI, once it has said who it is.
    #[must_use]
    pub fn pmi_proc(&self, conn: Conn) -> Option<ProcId> {
        self.pmi.as_ref()?.proc(conn).ok()
    }

    fn pmi_server(&mut self, now: Duration, out: &mut Vec<Action>) -> &mut PmiServer {
        self.pmi.get_or_insert_with(|| {
            let mut server = PmiServer::default();
            if let Some(path) = &self.topology {
                server.topology(path);
            }
            for space in &self.spaces {
                server.on(now, Event::Space(Arc::clone(space)), out);
            }
            server
        })
    }

    /// Takes one event for the server it concerns; those that concern all go to all.
    pub fn on(&mut self, now: Duration, event: Event, out: &mut Vec<Action>) {
        let domain = match &event {
            Event::Space(space) => return self.space(now, Arc::clone(space), out),
            Event::Bytes { conn, .. } => self.conns.get(conn).copied(),
            Event::Eof { conn } => self.conns.remove(conn),
            Event::Answered { token, .. } => Some(token.domain()),
            Event::Gathered { key, .. } => Some(key.domain),
            Event::Accepted { conn, .. } => {
                self.conns.insert(*conn, Domain::Pmix);
                Some(Domain::Pmix)
            }
            // Whose it is must be said: see `on_of`.
            Event::Asked { .. } | Event::Notified { .. } => Some(Domain::Native),
            Event::Opened { .. } | Event::RankEnded { .. } | Event::Ended { .. } | Event::Tick => None,
        };
        self.route(domain, now, event, out);
    }

    /// Takes an event that is for the server of one domain.
    pub fn on_of(&mut self, domain: Domain, now: Duration, event: Event, out: &mut Vec<Action>) {
        self.route(Some(domain), now, event, out);
    }

    fn route(&mut self, domain: Option<Domain>, now: Duration, event: Event, out: &mut Vec<Action>) {
        match domain {
            Some(Domain::Pmi) => self.pmi.iter_mut().for_each(|pmi| pmi.on(now, event.clone(), out)),
            Some(Domain::Pmix) => self.pmix.iter_mut().for_each(|pmix| pmix.on(now, event.clone(), out)),
            Some(Domain::Native) => {}
            None => {
                self.pmi.iter_mut().for_each(|pmi| pmi.on(now, event.clone(), out));
                self.pmix.iter_mut().for_each(|pmix| pmix.on(now, event.clone(), out));
            }
        }
    }

    /// When the next [`Event::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Duration> {
        let pmi = self.pmi.as_ref().and_then(Server::next_timer);
        let pmix = self.pmix.as_ref().and_then(Server::next_timer);
        pmi.into_iter().chain(pmix).min()
    }
}
