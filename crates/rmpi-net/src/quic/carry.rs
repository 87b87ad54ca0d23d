//! One connection on the QUIC thread: units to streams, streams to units, the end.

use super::config::{BULK_STREAMS, KEEP_ALIVE};
use super::pipe::{End, LANES, MAX_UNIT, Pipe};
use bytes::{Buf as _, Bytes};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// Chunks taken from a stream at once.
const CHUNKS: usize = 64;
/// Close code of an end in good order.
pub(super) const FINISHED: VarInt = VarInt::from_u32(0);
/// Close code of a rank that has given the connection up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);
/// Close code for a peer that sends what no rank sends.
const MALFORMED: VarInt = VarInt::from_u32(2);

/// What a connection's end means, in words for people.
pub(super) fn told(error: &ConnectionError) -> End {
    let what = match error {
        ConnectionError::ApplicationClosed(c) if c.error_code == FINISHED => return End::Finished,
        ConnectionError::LocallyClosed => return End::Finished,
        ConnectionError::ApplicationClosed(c) if c.error_code == MALFORMED => {
            "it found malformed units in this rank's streams".to_owned()
        }
        ConnectionError::ApplicationClosed(_) => "it gave the connection up".to_owned(),
        ConnectionError::TransportError(e) if e.reason.contains("ApplicationVerificationFailure") => {
            "its key is not the one in the job's table".to_owned()
        }
        ConnectionError::ConnectionClosed(c) if c.error_code == quinn::TransportErrorCode::crypto(49) => {
            "it says that this rank's key is not the one in the job's table".to_owned()
        }
        other => format!("QUIC: {other}"),
    };
    End::Lost(what)
}

/// Carries one connection to its end.
pub(super) async fn carry(connection: Connection, pipe: Arc<Pipe>, send: SendStream, recv: RecvStream) {
    // Small messages first, whatever waits in the others.
    let _ = send.set_priority(1);
    let mut writers = JoinSet::new();
    pipe.opened();
    writers.spawn(write(send, pipe.clone(), 0));
    for lane in 1..LANES {
        writers.spawn(write_bulk(connection.clone(), pipe.clone(), lane));
    }
    let mut readers = JoinSet::new();
    readers.spawn(read(recv, pipe.clone()));
    readers.spawn(read_bulk(connection.clone(), pipe.clone()));
    let watch = tokio::spawn(watch(connection.clone(), pipe.clone()));
    let dropper = async {
        pipe.gone.notified().await;
        let (_, finished) = pipe.is_dropped();
        connection.close(if finished { FINISHED } else { GIVEN_UP }, b"");
    };
    let reading = async {
        let mut bad = None;
        while let Some(result) = readers.join_next().await {
            if let Ok(Err(Malformed)) = result {
                connection.close(MALFORMED, b"");
                bad = Some(End::Lost("it sent a malformed unit".to_owned()));
            }
        }
        // Readers end at the end of their streams; what comes now is the connection's own end.
        let end = connection.closed().await;
        pipe.ended(bad.unwrap_or_else(|| told(&end)));
    };
    tokio::join!(
        async {
            tokio::select! { () = dropper => {}, _ = connection.closed() => {} }
        },
        reading
    );
    watch.abort();
    writers.shutdown().await;
}

/// Counts seconds without a packet. Seconds of this thread: while the process is stopped none pass.
async fn watch(connection: Connection, pipe: Arc<Pipe>) {
    let mut seen = 0;
    let mut tick = tokio::time::interval(KEEP_ALIVE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = connection.stats().udp_rx.datagrams;
        let silent = if now == seen { pipe.silent.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        pipe.silent.store(silent, Ordering::Relaxed);
        seen = now;
    }
}

/// Sends a lane's units until its end, and waits until the peer's host has them.
async fn write(mut stream: SendStream, pipe: Arc<Pipe>, lane: usize) {
    loop {
        let (mut units, over) = pipe.next(lane);
        if units.is_empty() {
            if over {
                break;
            }
            pipe.work[lane].notified().await;
        } else if stream.write_all_chunks(&mut units).await.is_err() {
            return;
        }
    }
    if stream.finish().is_ok() && matches!(stream.stopped().await, Ok(None)) {
        pipe.acknowledged();
    }
}

/// The same for a lane that is opened once it has something.
async fn write_bulk(connection: Connection, pipe: Arc<Pipe>, lane: usize) {
    pipe.work[lane].notified().await;
    if pipe.is_idle(lane) {
        return;
    }
    pipe.opened();
    if let Ok(stream) = connection.open_uni().await {
        write(stream, pipe, lane).await;
    }
}

/// A peer's stream that is none.
pub(super) struct Malformed;

/// Reads the peer's streams for pieces.
async fn read_bulk(connection: Connection, pipe: Arc<Pipe>) -> Result<(), Malformed> {
    let mut streams = JoinSet::new();
    for _ in 0..BULK_STREAMS {
        let Ok(stream) = connection.accept_uni().await else { break };
        streams.spawn(read(stream, pipe.clone()));
    }
    while let Some(result) = streams.join_next().await {
        if let Ok(Err(Malformed)) = result {
            return Err(Malformed);
        }
    }
    Ok(())
}

/// Cuts a stream into units.
async fn read(mut stream: RecvStream, pipe: Arc<Pipe>) -> Result<(), Malformed> {
    let mut cutter = Cutter::default();
    let mut chunks = vec![Bytes::new(); CHUNKS];
    loop {
        while !pipe.has_room() {
            // Asked again after it is certain that the ring is heard.
            let room = pipe.room.notified();
            if pipe.has_room() {
                break;
            }
            room.await;
        }
        match stream.read_chunks(&mut chunks).await {
            Ok(Some(n)) => {
                for chunk in &mut chunks[..n] {
                    cutter.take(std::mem::take(chunk), &pipe)?;
                }
            }
            Ok(None) => return if cutter.is_between() { Ok(()) } else { Err(Malformed) },
            // How the connection ended is told once for all streams.
            Err(ReadError::ConnectionLost(_)) => return Ok(()),
            Err(_) => return Err(Malformed),
        }
    }
}

/// Where in a stream of units the next byte stands.
#[derive(Default)]
pub(super) struct Cutter {
    prefix: [u8; 4],
    have: usize,
    /// Bytes of the unit that are missing.
    left: usize,
    length: usize,
    unit: Vec<Bytes>,
}

impl Cutter {
    pub(super) fn is_between(&self) -> bool {
        self.have == 0
    }

    pub(super) fn take(&mut self, mut chunk: Bytes, pipe: &Pipe) -> Result<(), Malformed> {
        while !chunk.is_empty() {
            if self.have < self.prefix.len() {
                self.prefix[self.have] = chunk.get_u8();
                self.have += 1;
                if self.have == self.prefix.len() {
                    self.length = u32::from_le_bytes(self.prefix) as usize;
                    self.left = self.length;
                    if self.length == 0 || self.length > MAX_UNIT {
                        return Err(Malformed);
                    }
                }
                continue;
            }
            let piece = chunk.split_to(self.left.min(chunk.len()));
            self.left -= piece.len();
            self.unit.push(piece);
            if self.left == 0 {
                self.have = 0;
                pipe.deliver(&mut self.unit, self.length);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn units_come_whole_however_the_stream_is_cut(
            units in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 1..20),
            cuts in proptest::collection::vec(1usize..70, 1..20),
        ) {
            let mut stream = Vec::new();
            for unit in &units {
                stream.extend_from_slice(&(unit.len() as u32).to_le_bytes());
                stream.extend_from_slice(unit);
            }
            let pipe = Pipe::new().unwrap();
            let mut cutter = Cutter::default();
            let (mut rest, mut got) = (Bytes::from(stream), Vec::new());
            for cut in cuts.iter().cycle() {
                let piece = rest.split_to((*cut).min(rest.len()));
                prop_assert!(cutter.take(piece, &pipe).is_ok());
                if let Ok(taken) = pipe.take() {
                    got.extend(taken);
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(cutter.is_between());
            prop_assert_eq!(got.concat(), units.concat());
        }

        #[test]
        fn any_bytes_are_units_or_refused_and_memory_stays_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let pipe = Pipe::new().unwrap();
            let mut cutter = Cutter::default();
            let _ = cutter.take(bytes.into(), &pipe);
            prop_assert!(cutter.length <= MAX_UNIT || cutter.unit.is_empty());
        }
    }
}
