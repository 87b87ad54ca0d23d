//! The key-value space against a daemon that keeps everything in one map.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use rmpi::{Error, Wiring, World};
use rmpi_types::Rank;
use rmpi_wire::rank::{RankReply, RankRequest, Reply, Request, decode, encode};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

type Store = Arc<Mutex<HashMap<(u32, String), Vec<u8>>>>;

/// Serves one rank until it is gone.
fn serve(rank: u32, mut stream: UnixStream, store: &Store, fence: &Barrier) {
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..n]);
        while let Some((Request { id, request }, payload)) = decode::<Request>(&mut buffer).unwrap() {
            let mut value = Vec::new();
            let reply = match request {
                RankRequest::Put { key } => {
                    store.lock().unwrap().insert((rank, key), payload);
                    RankReply::Done
                }
                RankRequest::Get { rank: Rank(7), .. } => RankReply::Lost(Rank(7)),
                RankRequest::Get { rank: Rank(of), key, .. } => match store.lock().unwrap().get(&(of, key)) {
                    Some(v) => {
                        value.clone_from(v);
                        RankReply::Value
                    }
                    None => RankReply::Missing,
                },
                RankRequest::Fence => {
                    fence.wait();
                    RankReply::Done
                }
                RankRequest::Abort { .. } => return,
                RankRequest::Hello | RankRequest::Finalize => RankReply::Done,
            };
            let mut out = Vec::new();
            encode(&Reply { id, reply }, &value, &mut out).unwrap();
            stream.write_all(&out).unwrap();
        }
    }
}

#[test]
fn put_fence_get() {
    const N: u32 = 8;
    let (boot, listeners) = common::wire_up(N);
    let boot: Arc<[u8]> = boot.into();
    let (store, fence) = (Store::default(), Arc::new(Barrier::new(N as usize)));
    let threads: Vec<_> = (0..N)
        .zip(listeners)
        .map(|(rank, listener)| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (store, fence, boot) = (store.clone(), fence.clone(), boot.clone());
            std::thread::spawn(move || serve(rank, ours, &store, &fence));
            std::thread::spawn(move || {
                let world =
                    World::with_wiring(Wiring { daemon: Some(theirs), ..Wiring::new(rank, boot, listener) })
                        .unwrap();
                let large = vec![rank as u8; 3 << 20];
                world.put("name", format!("rank {rank}").as_bytes()).unwrap();
                world.put("large", &large).unwrap();
                world.fence().unwrap();
                let next = (rank + 1) % N;
                if next != 7 {
                    let name = world.get(next, "name", Duration::from_secs(60)).unwrap().unwrap();
                    assert_eq!(name, format!("rank {next}").as_bytes());
                    let got = world.get(next, "large", Duration::from_secs(60)).unwrap().unwrap();
                    assert!(got.len() == 3 << 20 && got.iter().all(|&b| u32::from(b) == next));
                } else {
                    let e = world.get(7, "name", Duration::ZERO).unwrap_err();
                    assert!(matches!(&e, Error::Kvs(w) if w == "rank 7 is lost"), "{e}");
                }
                assert_eq!(world.get(0, "nothing", Duration::ZERO).unwrap(), None);
                assert!(matches!(world.get(N, "x", Duration::ZERO), Err(Error::NoSuchRank { .. })));
                assert!(matches!(world.put(&"k".repeat(513), b""), Err(Error::Kvs(_))));
                world.fence().unwrap();
                world.finalize().unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn a_dead_daemon_is_an_error() {
    let (boot, listeners) = common::wire_up(1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let listener = listeners.into_iter().next().unwrap();
    let wiring = Wiring { daemon: Some(theirs), ..Wiring::new(0, boot.into(), listener) };
    let world = World::with_wiring(wiring).unwrap();
    drop(ours);
    assert!(matches!(world.fence(), Err(Error::Kvs(_))));
    assert!(matches!(world.put("a", b"b"), Err(Error::Kvs(_))));
}
