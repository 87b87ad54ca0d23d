//! A name server that knows the ready pods of one Service, and answers that anything else does not exist. It lives in
//! the switch's network namespace.

use super::Shared;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stops with the value.
#[derive(Debug)]
pub(crate) struct Dns {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Enters the network namespace of a process, with this thread alone.
pub(super) fn enter(pid: u32) -> io::Result<()> {
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    Ok(nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?)
}

impl Dns {
    /// Listens at `ip` port 53 in the namespace of `switch`. Without a service nothing has a name.
    pub(crate) fn start(
        switch: u32,
        ip: Ipv4Addr,
        service: Option<String>,
        pods: Shared,
    ) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let socket = enter(switch).and_then(|()| UdpSocket::bind((ip, 53)));
            let socket = match socket {
                Ok(socket) => socket,
                Err(e) => return drop(tell.send(Err(format!("name server: {e}")))),
            };
            let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = tell.send(Ok(()));
            let mut buffer = [0; 512];
            while !theirs.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                let lookup = |name: &str| {
                    let domain = format!(".{}.default.svc.cluster.local", service.as_deref()?);
                    let pod = name.strip_suffix(&domain)?;
                    Some(pods.lock().unwrap_or_else(PoisonError::into_inner).get(pod)?.ip)
                };
                if let Some(answer) = answer(&buffer[..n], lookup) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        told.recv().unwrap_or_else(|_| Err("the name server ended".into()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// RFC 1035: one question; an address, an empty answer for other types, or NXDOMAIN.
fn answer(query: &[u8], lookup: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let question = query.get(12..at + 5)?;
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let found = lookup(&labels.join("."));
    let record = found.filter(|_| kind == 1);
    let mut out = query.get(..2)?.to_vec();
    // Response, recursion available; NXDOMAIN when there is no such name.
    out.extend_from_slice(&[
        0x81,
        if found.is_some() { 0x80 } else { 0x83 },
        0,
        1,
        0,
        u8::from(record.is_some()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(question);
    if let Some(ip) = record {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend_from_slice(&ip.octets());
    }
    Some(out)
}
