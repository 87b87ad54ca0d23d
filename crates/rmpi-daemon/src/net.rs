//! This node's addresses: which there are, which of them other nodes should try and in which order, and the
//! listening sockets of ranks. Interfaces come from the kernel, never from a name service.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, bind,
    getsockname, listen, setsockopt, socket, sockopt,
};
use rmpi_types::launch::IpFamily;
use rmpi_types::{LaunchFault, NodeLaunch, Rank, Stage};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Addresses offered at most (the boot block has room for as many).
const MAX: usize = rmpi_wire::boot::MAX_ADDRESSES;

/// One address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The address.
    ip: IpAddr,
    /// Length of the network prefix in bits.
    prefix: u8,
    /// Interface name, `eth0`.
    iface: String,
    /// Whether the interface is a software bridge (docker0, virbr0): tried last.
    bridge: bool,
}

/// All addresses of interfaces that are up, loopback included; link-local IPv6 ones left out, as they mean
/// nothing without an interface number.
pub(crate) fn interfaces() -> Vec<Address> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    all.filter(|i| i.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|i| {
            let ip = ip_of(&i.address?)?;
            let prefix = i.netmask.as_ref().and_then(ip_of).map_or(0, ones);
            let bridge = Path::new("/sys/class/net").join(&i.interface_name).join("bridge").exists();
            Some(Address { ip, prefix, iface: i.interface_name, bridge })
        })
        .filter(|a| !matches!(a.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
        .collect()
}

/// The name of the interface with this address.
pub(crate) fn carrier(ip: IpAddr) -> Option<String> {
    let all = interfaces();
    let has = |a: &&Address| a.ip == ip;
    // Any address of 127.0.0.0/8 is the loopback interface's.
    let loopback = |a: &&Address| ip.is_loopback() && a.ip.is_loopback();
    all.iter().find(has).or_else(|| all.iter().find(loopback)).map(|a| a.iface.clone())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip())),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())),
        _ => None,
    }
}

fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(m) => u32::from(m).leading_ones(),
        IpAddr::V6(m) => u128::from(m).leading_ones(),
    };
    u8::try_from(ones).unwrap_or(0)
}

/// Whether `address` is on an interface, in a network or the very address the user's word names.
fn matches(address: &Address, word: &str) -> bool {
    let Some((net, bits)) = word.split_once('/') else {
        return address.iface == word || word.parse() == Ok(address.ip);
    };
    match (net.parse(), bits.parse::<u32>(), address.ip) {
        (Ok(IpAddr::V4(net)), Ok(bits @ 0..=32), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(net) & mask == u32::from(ip) & mask
        }
        (Ok(IpAddr::V6(net)), Ok(bits @ 0..=128), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(net) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

/// The addresses to offer, best first; `all` is asked only where the choice depends on it.
///
/// # Errors
/// When the user's choice of interfaces leaves none, naming what there is.
pub(crate) fn offer(
    launch: &NodeLaunch,
    all: impl FnOnce() -> Vec<Address>,
) -> Result<Vec<IpAddr>, LaunchFault> {
    if let Some(ip) = launch.reached_at.filter(IpAddr::is_loopback) {
        return Ok(vec![ip]);
    }
    if let Some(ip) = launch.extras.advertise {
        return Ok(vec![ip]);
    }
    if launch.nodes == 1 && launch.ifaces.is_empty() {
        let loopback =
            all().iter().map(|a| a.ip).filter(|ip| family(launch.extras.ip)(*ip)).find(IpAddr::is_loopback);
        return Ok(vec![loopback.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))]);
    }
    choose(all(), &launch.ifaces, launch.extras.ip, launch.reached_at)
}

/// Whether an address is of the only family that may be used.
fn family(only: Option<IpFamily>) -> impl Fn(IpAddr) -> bool {
    move |ip| only.is_none_or(|family| ip.is_ipv4() == (family == IpFamily::V4))
}

/// This machine's addresses for others, best first: not loopback while there are others, bridges last; `ifaces` and
/// `only` as the user limits them.
///
/// # Errors
/// No interface is left by what the user named.
pub fn own_addresses(ifaces: &[String], only: Option<IpFamily>) -> Result<Vec<IpAddr>, LaunchFault> {
    choose(interfaces(), ifaces, only, None)
}

fn choose(
    mut all: Vec<Address>,
    ifaces: &[String],
    only_family: Option<IpFamily>,
    reached_at: Option<IpAddr>,
) -> Result<Vec<IpAddr>, LaunchFault> {
    all.retain(|a| family(only_family)(a.ip));
    // `^word` leaves out; with nothing but such words all others are chosen.
    let (out, only): (Vec<&str>, Vec<&str>) =
        ifaces.iter().map(String::as_str).partition(|w| w.starts_with('^'));
    let chosen = |a: &&Address| {
        (only.is_empty() || only.iter().any(|w| matches(a, w))) && !out.iter().any(|w| matches(a, &w[1..]))
    };
    let mut found: Vec<&Address> = all.iter().filter(chosen).collect();
    if found.is_empty() && !ifaces.is_empty() {
        let have: Vec<String> = all.iter().map(|a| format!("{} {}/{}", a.iface, a.ip, a.prefix)).collect();
        let what = format!("no interface or network {} here", ifaces.join(","));
        return Err(LaunchFault::fatal(Stage::Wire, what).hint(format!("there are {}", have.join(", "))));
    }
    if found.iter().any(|a| !a.ip.is_loopback()) {
        found.retain(|a| !a.ip.is_loopback());
    }
    found.sort_by_key(|a| {
        let last_resort = matches!(a.ip, IpAddr::V4(ip) if ip.is_link_local());
        (a.bridge, last_resort, Some(a.ip) != reached_at, a.ip.is_ipv6())
    });
    let mut ips: Vec<IpAddr> = found.into_iter().map(|a| a.ip).collect();
    ips.truncate(MAX);
    Ok(if ips.is_empty() { vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { ips })
}

/// Where to bind for these addresses: the only one, or all of a family.
fn bind_address(addresses: &[IpAddr]) -> IpAddr {
    match addresses {
        [only] => *only,
        several if several.iter().any(IpAddr::is_ipv6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Hands out listening sockets.
#[derive(Debug)]
pub(crate) struct Ports {
    address: IpAddr,
    range: Option<(u16, u16)>,
    next: u16,
    backlog: i32,
}

impl Ports {
    /// For a node that offers `addresses`; `range` as the user limits ports; as many connections may wait as
    /// there are ranks.
    pub(crate) fn new(addresses: &[IpAddr], range: Option<(u16, u16)>, size: u32) -> Self {
        let backlog = i32::try_from(size.clamp(16, 4096)).unwrap_or(4096);
        Self { address: bind_address(addresses), range, next: range.map_or(0, |r| r.0), backlog }
    }

    /// A listening socket and its port.
    ///
    /// # Errors
    /// No port is free, or the address cannot be bound.
    pub(crate) fn listener(&mut self, rank: Rank) -> Result<(OwnedFd, u16), LaunchFault> {
        let fail = |e: nix::Error| {
            let what =
                format!("cannot listen on {} for rank {rank}: {}", self.address, e.desc().to_lowercase());
            let fault = LaunchFault::fatal(Stage::Wire, what);
            if e == nix::Error::EMFILE {
                fault.hint("raise the limit of open files (ulimit -Hn)")
            } else {
                fault
            }
        };
        let Some((low, high)) = self.range else {
            return open(self.address, 0, self.backlog, false).map_err(fail);
        };
        while (low..=high).contains(&self.next) {
            let port = self.next;
            self.next = self.next.checked_add(1).unwrap_or(0);
            match open(self.address, port, self.backlog, true) {
                Err(nix::Error::EADDRINUSE | nix::Error::EACCES) => {}
                result => return result.map_err(fail),
            }
        }
        Err(self.exhausted(low, high, rank))
    }

    fn exhausted(&self, low: u16, high: u16, rank: Rank) -> LaunchFault {
        let what = format!("no free port in {low}-{high} on {} for rank {rank}", self.address);
        LaunchFault::passing(Stage::Wire, what).hint("choose a larger range")
    }

    /// A UDP socket for the rank's QUIC rail and its port: the number of its TCP port where that is free.
    ///
    /// # Errors
    /// No port is free, or the address cannot be bound.
    pub(crate) fn udp(&self, rank: Rank, tcp: u16) -> Result<(OwnedFd, u16), LaunchFault> {
        let others = match self.range {
            Some((low, high)) => low..=high,
            None => 0..=0,
        };
        for port in std::iter::once(tcp).chain(others) {
            match open_udp(self.address, port) {
                Err(nix::Error::EADDRINUSE | nix::Error::EACCES) => {}
                Err(e) => {
                    let what = format!(
                        "cannot bind UDP on {} for rank {rank}: {}",
                        self.address,
                        e.desc().to_lowercase()
                    );
                    return Err(LaunchFault::fatal(Stage::Wire, what));
                }
                Ok(bound) => return Ok(bound),
            }
        }
        let (low, high) = self.range.unwrap_or((1, u16::MAX));
        Err(self.exhausted(low, high, rank))
    }

    /// A port that is free now, for a program's own rendezvous.
    pub(crate) fn spare(&mut self) -> Option<u16> {
        self.listener(Rank(0)).ok().map(|(_, port)| port)
    }
}

fn open(ip: IpAddr, port: u16, backlog: i32, reuse: bool) -> nix::Result<(OwnedFd, u16)> {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if reuse {
        // A given port may have connections of an earlier job in TIME_WAIT; two listeners stay impossible.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind_to(&fd, ip, port)?;
    listen(&fd, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))?;
    let port = port_of(&fd)?;
    Ok((fd, port))
}

fn open_udp(ip: IpAddr, port: u16) -> nix::Result<(OwnedFd, u16)> {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bind_to(&fd, ip, port)?;
    let port = port_of(&fd)?;
    Ok((fd, port))
}

fn bind_to(fd: &OwnedFd, ip: IpAddr, port: u16) -> nix::Result<()> {
    match SocketAddr::new(ip, port) {
        SocketAddr::V4(a) => bind(fd.as_raw_fd(), &SockaddrIn::from(a)),
        SocketAddr::V6(a) => {
            setsockopt(fd, sockopt::Ipv6V6Only, &!ip.is_unspecified())?;
            bind(fd.as_raw_fd(), &SockaddrIn6::from(a))
        }
    }
}

fn port_of(fd: &OwnedFd) -> nix::Result<u16> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(a), _) => Ok(a.port()),
        (None, Some(a)) => Ok(a.port()),
        (None, None) => Err(nix::Error::EAFNOSUPPORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, prefix: u8, iface: &str, bridge: bool) -> Address {
        Address { ip: ip.parse().unwrap(), prefix, iface: iface.into(), bridge }
    }

    fn node(nodes: u32, reached_at: Option<&str>, ifaces: &[&str]) -> NodeLaunch {
        NodeLaunch {
            nodes,
            reached_at: reached_at.map(|a| a.parse().unwrap()),
            ifaces: ifaces.iter().map(|i| (*i).to_owned()).collect(),
            ..crate::testing::launch(vec![], 1)
        }
    }

    #[test]
    fn offers() {
        let all = [
            address("127.0.0.1", 8, "lo", false),
            address("172.17.0.1", 16, "docker0", true),
            address("169.254.3.4", 16, "usb0", false),
            address("2001:db8::1", 64, "eth0", false),
            address("10.0.0.1", 24, "eth0", false),
            address("10.1.0.1", 24, "ib0", false),
        ];
        let everything = ["10.0.0.1", "10.1.0.1", "2001:db8::1", "169.254.3.4", "172.17.0.1"];
        let reached = ["10.1.0.1", "10.0.0.1", "2001:db8::1", "169.254.3.4", "172.17.0.1"];
        let table: Vec<(NodeLaunch, &[&str])> = vec![
            (node(1, None, &[]), &["127.0.0.1"]),
            (node(2, Some("127.0.0.3"), &[]), &["127.0.0.3"]),
            (node(2, None, &[]), &everything),
            (node(2, Some("10.1.0.1"), &[]), &reached),
            (node(2, None, &["ib0"]), &["10.1.0.1"]),
            (node(2, None, &["10.0.0.0/8"]), &["10.0.0.1", "10.1.0.1"]),
            (node(2, None, &["2001:db8::/32", "docker0"]), &["2001:db8::1", "172.17.0.1"]),
            (node(1, None, &["eth0"]), &["10.0.0.1", "2001:db8::1"]),
            (node(2, None, &["lo"]), &["127.0.0.1"]),
        ];
        for (launch, expected) in table {
            let got: Vec<String> =
                offer(&launch, || all.to_vec()).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(got, expected, "{:?} {:?}", launch.reached_at, launch.ifaces);
        }
        let fault = offer(&node(2, None, &["ib7", "10.9.0.0/16"]), || all.to_vec()).unwrap_err();
        assert_eq!(fault.what, "no interface or network ib7,10.9.0.0/16 here");
        assert!(fault.hint.unwrap().contains("eth0 10.0.0.1/24"));
        assert_eq!(offer(&node(2, None, &[]), || all[..1].to_vec()).unwrap(), [all[0].ip]);
    }

    #[test]
    fn listeners_and_ranges() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let mut ports = Ports::new(&[local], None, 4);
        let (_first, taken) = ports.listener(Rank(0)).unwrap();
        assert_ne!(taken, 0);
        let mut one = Ports::new(&[local], Some((taken, taken)), 4);
        let fault = one.listener(Rank(3)).unwrap_err();
        assert_eq!(fault.what, format!("no free port in {taken}-{taken} on 127.0.0.1 for rank 3"));
        assert!(ports.spare().is_some());
        let (_udp, same) = ports.udp(Rank(0), taken).unwrap();
        assert_eq!(same, taken, "TCP and UDP ports of one number are two ports");
        let (_udp, other) = ports.udp(Rank(1), taken).unwrap();
        assert_ne!(other, taken);
        let fault = one.udp(Rank(3), taken).unwrap_err();
        assert_eq!(fault.what, format!("no free port in {taken}-{taken} on 127.0.0.1 for rank 3"));
        assert!(interfaces().iter().any(|a| a.ip.is_loopback()));
    }

    #[test]
    fn several_addresses_share_one_socket() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(bind_address(&[ip("10.0.0.1"), ip("10.0.0.2")]), ip("0.0.0.0"));
        assert_eq!(bind_address(&[ip("10.0.0.1"), ip("2001:db8::1")]), ip("::"));
    }
}
