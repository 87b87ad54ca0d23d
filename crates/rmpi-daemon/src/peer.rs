//! Who is on the other end of a loopback connection: the kernel's word for it, asked for one socket
//! (`sock_diag`, see `linux/inet_diag.h`), or read from its table of all where that is not to be had.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// Length of a netlink header.
const HEADER: usize = 16;
/// Where the user id is in an answer: after the header, four bytes, the socket's id and three counters.
const UID_AT: usize = HEADER + 4 + 48 + 12;

/// The user whose process made the socket at `peer` that is connected to `ours`, both on this machine; `None`
/// when the kernel does not tell.
pub(crate) fn user(peer: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let (SocketAddr::V4(peer), SocketAddr::V4(ours)) = (peer, ours) else { return None };
    asked(peer, ours).or_else(|| listed(&std::fs::read_to_string("/proc/net/tcp").ok()?, peer, ours))
}

fn asked(peer: SocketAddrV4, ours: SocketAddrV4) -> Option<u32> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag).ok()?;
    let mut request = Vec::with_capacity(72);
    request.extend_from_slice(&72u32.to_ne_bytes());
    request.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes()); // NLM_F_REQUEST
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[2, 6, 0, 0]); // AF_INET, IPPROTO_TCP
    request.extend_from_slice(&u32::MAX.to_ne_bytes()); // any state
    request.extend_from_slice(&peer.port().to_be_bytes());
    request.extend_from_slice(&ours.port().to_be_bytes());
    for address in [peer, ours] {
        request.extend_from_slice(&address.ip().octets());
        request.extend_from_slice(&[0; 12]);
    }
    request.extend_from_slice(&[0; 4]); // any interface
    request.extend_from_slice(&[0xff; 8]); // any incarnation
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
    let mut answer = [0; 1024];
    // The kernel answers before the sending call returns.
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
    let answer = answer.get(..length)?;
    let kind = u16::from_ne_bytes([*answer.get(4)?, *answer.get(5)?]);
    let uid = answer.get(UID_AT..UID_AT + 4)?;
    (kind == BY_FAMILY).then(|| u32::from_ne_bytes([uid[0], uid[1], uid[2], uid[3]]))
}

/// The same from the text of `/proc/net/tcp`.
fn listed(table: &str, peer: SocketAddrV4, ours: SocketAddrV4) -> Option<u32> {
    let written = |address: SocketAddrV4| {
        let mut text = String::new();
        let _ = write!(text, "{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
        text
    };
    let (peer, ours) = (written(peer), written(ours));
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let same = words.next() == Some(&peer) && words.next() == Some(&ours);
        if same { words.nth(4)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_peers_user_is_ours() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, ours) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let me = nix::unistd::geteuid().as_raw();
        assert_eq!(user(peer, ours), Some(me));
        let (SocketAddr::V4(p), SocketAddr::V4(o)) = (peer, ours) else { panic!() };
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert_eq!(listed(&table, p, o), Some(me));
        assert_eq!(listed(&table, o, o), None);
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(user(nobody, ours), None);
    }
}
