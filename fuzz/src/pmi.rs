//! Clients of PMI-1 and PMI-2: whatever they send, their server stands, answers each question at most once, and
//! never speaks on a stream that it closed.

use crate::{Input, service};
use bytes::Bytes;
use rmpi_pmi::api::{Action, Conn, Event, Gathered, Server, Token};
use rmpi_pmi::pmi::PmiServer;
use rmpi_types::{JobId, ProcId, Rank, RankSet};
use rmpi_wire::service::{GatherKey, Space, SpaceApp, SpaceNode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const RANKS: u32 = 3;

fn space() -> Space {
    let node = |node, lo, hi| SpaceNode { node, host: format!("n{node}"), ranks: RankSet::range(lo, hi) };
    let app =
        SpaceApp { ranks: RankSet::range(0, RANKS), program: "a".into(), args: Vec::new(), wdir: "/".into() };
    Space {
        job: JobId([1; 16]),
        id: ProcId::default(),
        size: RANKS + 1,
        universe: 8,
        parent: Some(ProcId::first(1)),
        nodes: vec![node(0, 0, RANKS - 1), node(1, RANKS, RANKS)],
        apps: vec![app],
        preputs: vec![(b"k".to_vec(), b"v".to_vec())],
    }
}

struct Driver {
    server: PmiServer,
    closed: BTreeSet<Conn>,
    joins: Vec<(Token, GatherKey)>,
    requests: Vec<Token>,
}

impl Driver {
    fn on(&mut self, event: Event) {
        let mut out = Vec::new();
        self.server.on(Duration::ZERO, event, &mut out);
        for action in out {
            match action {
                Action::Send { conn, bytes } => {
                    assert!(!self.closed.contains(&conn), "speaks on a closed stream");
                    assert!(!bytes.is_empty());
                }
                Action::Close { conn, why } => {
                    assert!(self.closed.insert(conn) && why.is_some_and(|w| !w.is_empty()));
                }
                Action::Join { token, by, key, .. } => {
                    assert!(key.group.contains(by));
                    self.joins.push((token, key));
                }
                Action::Request { token, .. } => self.requests.push(token),
                Action::Hello { proc } | Action::Finalized { proc } => assert!(proc.rank.0 < RANKS),
                Action::Abort { by, .. } => assert!(by.rank.0 < RANKS),
                Action::Answer { .. } | Action::Note(_) => {}
                other @ (Action::Folder { .. } | Action::Remove { .. } | Action::Output { .. }) => {
                    panic!("only PMIx asks for {other:?}")
                }
            }
        }
    }

    fn bytes(&mut self, conn: Conn, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.on(Event::Bytes { conn, bytes: Bytes::copy_from_slice(bytes) });
        }
    }
}

/// A script: which stream says what, and when what is open is answered how. With an even first byte the rest is
/// what one client says, cut into reads of that size.
pub fn pmi_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let mut driver = Driver {
        server: PmiServer::default(),
        closed: BTreeSet::new(),
        joins: Vec::new(),
        requests: Vec::new(),
    };
    driver.on(Event::Space(Arc::new(space())));
    for rank in 0..RANKS {
        driver.on(Event::Opened { conn: Conn(rank.into()), proc: ProcId::first(rank) });
    }
    driver.server.expect(7, ProcId::first(0));
    driver.on(Event::Accepted { conn: Conn(9), uid: Some(0) });
    let first = input.u8();
    if first & 1 == 0 {
        for piece in input.rest().chunks(usize::from(first) + 1) {
            driver.bytes(Conn(0), piece);
        }
        return;
    }
    while !input.is_empty() {
        match input.below(8) {
            0..=4 => {
                let conn = [0, 1, 2, 9][usize::from(input.below(4))];
                let piece = input.piece().to_vec();
                driver.bytes(Conn(conn), &piece);
            }
            5 if !driver.joins.is_empty() => {
                let (token, key) = driver.joins.remove(0);
                let data = Bytes::copy_from_slice(input.piece());
                let lost = input.one_in(4).then_some(ProcId::first(3));
                let result = lost.map_or(Ok(Gathered { data, serial: 1 }), Err);
                driver.on(Event::Gathered { key, tokens: vec![token], result });
            }
            6 if !driver.requests.is_empty() => {
                let token = driver.requests.remove(0);
                let answer = service::answer(&mut input);
                let payload = Bytes::copy_from_slice(input.piece());
                driver.on(Event::Answered { token, answer, payload });
            }
            _ => {
                let proc = ProcId { rank: Rank(u32::from(input.below(3))), ..ProcId::default() };
                driver.on(Event::RankEnded { proc, end: rmpi_types::RankEnd::Exited(0) });
            }
        }
    }
}
