//! Ranks as processes, started as the daemon starts them: inherited boot block, listener and daemon stream.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rmpi_wire::rank::{RankReply, RankRequest, Reply, Request, decode, encode};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The example of this name, which `cargo test` has built.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

fn keep_on_exec(fd: impl AsFd) {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
}

/// Answers `Hello` and `Finalize` until the rank is gone; the requests seen.
fn daemon(mut stream: UnixStream) -> Vec<RankRequest> {
    let (mut buffer, mut chunk, mut seen) = (Vec::new(), [0; 4096], Vec::new());
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return seen,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
        while let Some((Request { id, request }, _)) = decode::<Request>(&mut buffer).unwrap() {
            let mut out = Vec::new();
            encode(&Reply { id, reply: RankReply::Done }, &[], &mut out).unwrap();
            seen.push(request);
            if stream.write_all(&out).is_err() {
                return seen;
            }
        }
    }
}

#[test]
fn a_ring_of_processes() {
    const N: u32 = 4;
    let (boot, listeners) = common::wire_up(N);
    let memory: OwnedFd = memfd_create(c"boot", MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(memory.try_clone().unwrap()).write_all(&boot).unwrap();
    keep_on_exec(&memory);
    let mut children: Vec<(Child, UnixStream)> = Vec::new();
    for (rank, listener) in (0..N).zip(listeners) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        keep_on_exec(&listener);
        keep_on_exec(&theirs);
        let fds =
            format!("boot={},listen={},kvs={}", memory.as_raw_fd(), listener.as_raw_fd(), theirs.as_raw_fd());
        let child = Command::new(example("ring"))
            .env("RMPIRUN_FDS", fds)
            .env("RMPIRUN_RANK", rank.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        children.push((child, ours));
    }
    for (rank, (child, stream)) in children.into_iter().enumerate() {
        let serve = std::thread::spawn(move || daemon(stream));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "rank {rank}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let want = "ring: token 4 went through 4 ranks on 2 nodes, rail=tcp\n";
        assert_eq!(text, if rank == 0 { want } else { "" });
        assert_eq!(serve.join().unwrap(), [RankRequest::Hello, RankRequest::Finalize]);
    }
}

#[test]
fn broken_inheritance_is_a_clear_error() {
    for (fds, rank, want) in [
        ("boot=3", "0", "without `boot` or `listen`"),
        ("boot=97,listen=98", "0", "cannot be used"),
        ("nonsense", "0", "RMPIRUN_FDS"),
    ] {
        let output =
            Command::new(example("ring")).env("RMPIRUN_FDS", fds).env("RMPIRUN_RANK", rank).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(want) || text.contains("Descriptor"), "{fds}: {text}");
    }
}
