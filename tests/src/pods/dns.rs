//! A name server that knows the ready pods of one Service, and answers that anything else does not exist. It lives in
//! the switch's network namespace.

use super::Shared;
use super::server::Server;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::PoisonError;

/// Listens at `ip` port 53 in the namespace of `switch`. Without a service nothing has a name.
pub(super) fn start(
    switch: u32,
    ip: Ipv4Addr,
    service: Option<String>,
    pods: Shared,
) -> Result<Server, String> {
    let mut buffer = [0; 512];
    let ready = move |socket: &UdpSocket| {
        let Ok((n, from)) = socket.recv_from(&mut buffer) else { return };
        let lookup = |name: &str| {
            let domain = format!(".{}.default.svc.cluster.local", service.as_deref()?);
            let pod = name.strip_suffix(&domain)?;
            Some(pods.lock().unwrap_or_else(PoisonError::into_inner).get(pod)?.ip)
        };
        if let Some(answer) = answer(&buffer[..n], lookup) {
            let _ = socket.send_to(&answer, from);
        }
    };
    Server::start(switch, move || UdpSocket::bind((ip, 53)), ready).map_err(|e| format!("name server: {e}"))
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
