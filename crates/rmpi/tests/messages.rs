//! The typed message API over real connections between threads that act as ranks.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use common::ranks;
use rmpi::{ANY_SOURCE, ANY_TAG, Error, World, f16, wait_all, wait_any};

#[test]
fn a_program_without_a_launcher_is_rank_0_of_1() {
    let world = World::init().unwrap();
    assert_eq!((world.rank(), world.size(), world.nodes()), (0, 1, 1));
    assert_eq!((world.local_rank(), world.local_size(), world.rail(0)), (0, 1, Some("self")));
    let comm = world.comm();
    let request = comm.irecv::<i16>(3, 0, 1).unwrap();
    comm.send(&[1i16, 2, 3], 0, 1).unwrap();
    assert_eq!(request.wait().unwrap(), [1, 2, 3]);
    assert!(matches!(comm.send(&[0u8], 1, 0), Err(Error::NoSuchRank { rank: 1, size: 1 })));
    assert!(matches!(comm.send(&[0u8], 0, -1), Err(Error::BadTag(-1))));
    world.put("k", b"v").unwrap();
    world.fence().unwrap();
    assert_eq!(world.get(0, "k", std::time::Duration::ZERO).unwrap().unwrap(), b"v");
    world.finalize().unwrap();
}

#[test]
fn the_boot_block_says_where_everybody_is() {
    ranks(5, |world| {
        assert_eq!((world.nodes(), world.size()), (3, 5));
        assert_eq!(world.local_rank(), world.rank() % 2);
        assert_eq!(world.local_size(), if world.rank() == 4 { 1 } else { 2 });
        assert_eq!((world.node_of(3), world.host_of(3).as_deref()), (Some(1), Some("node1")));
        assert_eq!((world.node_of(5), world.rail(5)), (None, None));
        // Ranks of one node share memory, and no others.
        for peer in (0..5).filter(|&p| p != world.rank()) {
            let want = if world.node_of(peer) == world.node_of(world.rank()) { "shm" } else { "tcp" };
            assert_eq!(world.rail(peer), Some(want));
        }
    });
}

#[test]
fn every_way_to_send_and_receive() {
    ranks(3, |world| {
        let comm = world.comm();
        let (me, n) = (comm.rank(), comm.size());
        let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
        let mut got = [0u32; 2];
        let status = comm.sendrecv(&[me, me], next, 1, &mut got, previous, 1).unwrap();
        assert_eq!((got, status.source, status.count::<u32>()), ([previous; 2], previous, 2));

        let sends: Vec<_> = (0..50).map(|i| comm.isend(vec![f64::from(i); 100], next, i).unwrap()).collect();
        let mut receives: Vec<_> =
            (0..50).rev().map(|i| comm.irecv::<f64>(200, previous, i).unwrap()).collect();
        let mut seen = Vec::new();
        while let Some((_, result)) = wait_any(&mut receives) {
            let data = result.unwrap();
            assert_eq!(data.len(), 100);
            seen.push(data[0] as i32);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert_eq!(wait_all(sends).unwrap().len(), 50);

        comm.send(&[f16::from_f32(1.5)], next, 2).unwrap();
        let (data, status) = comm.recv_vec::<f16>(ANY_SOURCE, ANY_TAG).unwrap();
        assert_eq!((data[0].to_f32(), status.source, status.tag), (1.5, previous, 2));

        let (out, mut into) = (vec![me; 500_000], vec![0; 500_000]);
        comm.scope(|s| {
            let receive = s.irecv(&mut into, previous, 3).unwrap();
            let send = s.isend(&out, next, 3).unwrap();
            receive.wait().unwrap();
            send.wait().unwrap();
        });
        assert!(into.iter().all(|&x| x == previous));

        comm.barrier().unwrap();
        assert_eq!(comm.iprobe(ANY_SOURCE, ANY_TAG).unwrap(), None);
        world.finalize().unwrap();
    });
}

#[test]
fn types_and_lengths_are_checked() {
    ranks(2, |world| {
        let comm = world.comm();
        if comm.rank() == 0 {
            comm.send(&[1.0f32; 4], 1, 1).unwrap();
            comm.send(&[1.0f32; 4], 1, 2).unwrap();
        } else {
            let e = comm.recv(&mut [0i32; 4], 0, 1).unwrap_err();
            assert_eq!(e.to_string(), "rank 0 sent f32 with tag 1 where i32 is received");
            let e = comm.recv(&mut [0f32; 2], 0, 2).unwrap_err();
            assert!(matches!(e, Error::Truncated { rank: 0, tag: 2, sent: 16, capacity: 8 }), "{e}");
        }
        comm.barrier().unwrap();
        world.finalize().unwrap();
    });
}

#[test]
fn dropped_and_cancelled_requests_do_no_harm() {
    ranks(2, |world| {
        let comm = world.comm();
        let peer = 1 - comm.rank();
        drop(comm.isend(vec![7u8; 1_000_000], peer, 1).unwrap());
        drop(comm.irecv::<u8>(10, peer, 9).unwrap());
        let mut never = comm.irecv::<u8>(10, peer, 9).unwrap();
        assert!(never.cancel());
        assert_eq!(never.wait().unwrap_err(), Error::Cancelled);
        std::mem::forget(comm.irecv::<u8>(1_000, peer, 8).unwrap());
        let (data, _) = comm.recv_vec::<u8>(peer, 1).unwrap();
        assert!(data.len() == 1_000_000 && data.iter().all(|&b| b == 7));
        comm.send(&[1u8; 500], peer, 8).unwrap();
        comm.barrier().unwrap();
        world.finalize().unwrap();
    });
}

#[test]
fn communicators_keep_their_messages_apart() {
    ranks(6, |world| {
        let comm = world.comm();
        let me = comm.rank();
        let dup = comm.dup().unwrap();
        if me == 0 {
            comm.send(&[1u8], 1, 5).unwrap();
            dup.send(&[2u8], 1, 5).unwrap();
        } else if me == 1 {
            let mut got = [0u8];
            dup.recv(&mut got, 0, 5).unwrap();
            assert_eq!(got, [2]);
            comm.recv(&mut got, 0, 5).unwrap();
            assert_eq!(got, [1]);
        }
        // Odd and even ranks, each in reverse order; rank 5 stays out.
        let part = comm.split((me != 5).then_some(me % 2), -(me as i32)).unwrap();
        if me == 5 {
            assert!(part.is_none());
        } else {
            let part = part.unwrap();
            let members: &[u32] = if me % 2 == 0 { &[4, 2, 0] } else { &[3, 1] };
            assert_eq!(part.size() as usize, members.len());
            assert_eq!(part.world_rank(part.rank()), Ok(me));
            let mut all = vec![0u32; members.len()];
            part.allgather(&[me], &mut all).unwrap();
            assert_eq!(all, members);
            let (n, r) = (part.size(), part.rank());
            let mut got = [0u32];
            let s = part.sendrecv(&[me], (r + 1) % n, 0, &mut got, ANY_SOURCE, ANY_TAG).unwrap();
            assert_eq!((s.source, got[0]), ((r + n - 1) % n, members[((r + n - 1) % n) as usize]));
        }
        comm.barrier().unwrap();
        world.finalize().unwrap();
    });
}
