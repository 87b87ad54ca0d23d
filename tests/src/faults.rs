//! What a test does to the packets of a cluster's host, and what its interfaces have carried.
//!
//! Filters count what they meet, so that a test waits until a fault was met and never for a time.

use crate::cluster::Cluster;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Packets between ranks, by what carries them. Those of the launcher's host are left alone.
#[derive(Clone, Copy, Debug)]
pub enum Packets {
    /// Of QUIC.
    Udp,
    /// Of TCP and TLS.
    Tcp,
}

impl Packets {
    fn protocol(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The kernel's table of its sockets.
    fn table(self) -> &'static str {
        match self {
            Self::Udp => "/proc/net/udp",
            Self::Tcp => "/proc/net/tcp",
        }
    }
}

/// A packet filter of one host; it is lifted with the value.
#[derive(Debug)]
pub struct Filter<'a> {
    cluster: &'a Cluster,
    host: &'a str,
    table: String,
}

impl<'a> Filter<'a> {
    /// Whether packets can be filtered here at all.
    ///
    /// # Errors
    /// One line saying why not; the test counts as skipped.
    pub fn available() -> Result<(), String> {
        let tried = [
            lossy("probe", Packets::Udp),
            counted("probe", Packets::Udp),
            silent("probe", Packets::Tcp),
            detour("probe", Packets::Udp, "10.77.0.1", 7, 8),
        ];
        tried.iter().try_for_each(|rules| {
            let output = Command::new("unshare")
                .args(["-n", "nft", rules])
                .output()
                .map_err(|e| format!("unshare: {e}"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("it failed");
            if output.status.success() { Ok(()) } else { Err(format!("nft: {last}")) }
        })
    }

    /// What comes in is counted.
    #[must_use]
    pub fn counted(cluster: &'a Cluster, host: &'a str, packets: Packets) -> Self {
        Self::with(cluster, host, |table| counted(table, packets))
    }

    /// One packet in a hundred that comes in is lost, at random.
    #[must_use]
    pub fn lossy(cluster: &'a Cluster, host: &'a str, packets: Packets) -> Self {
        Self::with(cluster, host, |table| lossy(table, packets))
    }

    /// Nothing comes in or goes out, and nobody is told.
    #[must_use]
    pub fn silent(cluster: &'a Cluster, host: &'a str, packets: Packets) -> Self {
        Self::with(cluster, host, |table| silent(table, packets))
    }

    /// What this host sends to a port at an address reaches another port there.
    #[must_use]
    pub fn detour(
        cluster: &'a Cluster,
        host: &'a str,
        packets: Packets,
        address: &str,
        from: u16,
        to: u16,
    ) -> Self {
        Self::with(cluster, host, |table| detour(table, packets, address, from, to))
    }

    fn with(cluster: &'a Cluster, host: &'a str, rules: impl Fn(&str) -> String) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let table = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let filter = Self { cluster, host, table };
        filter.nft(&rules(&filter.table));
        filter
    }

    /// Packets it has met: all, lost ones, or for a detour the first packets of flows that took it.
    #[must_use]
    pub fn met(&self) -> u64 {
        let text = self.nft(&format!("list counter ip {} met", self.table));
        let mut words = text.split_whitespace().skip_while(|w| *w != "packets");
        words.nth(1).and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no count: {text}"))
    }

    fn nft(&self, rules: &str) -> String {
        let output = self.cluster.command(self.host, "nft").arg(rules).output().expect("nsenter starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft on {}: {rules}: {said}", self.host);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Filter<'_> {
    fn drop(&mut self) {
        // It fails on a host that is off, where nothing is left to lift.
        let _ =
            self.cluster.command(self.host, "nft").arg(format!("delete table ip {}", self.table)).output();
    }
}

fn ruled(table: &str, chains: &[(&str, &str)]) -> String {
    let mut text = format!("add table ip {table}; add counter ip {table} met");
    for (hook, rule) in chains {
        text += &format!("; add chain ip {table} {hook}");
        let (_, kind) = HOOKS.iter().find(|(name, _)| name == hook).expect("a known hook");
        text += &format!(" {{ {kind}; }}; add rule ip {table} {hook} {rule}");
    }
    text
}

/// Chains by their names.
const HOOKS: [(&str, &str); 3] = [
    ("arriving", "type filter hook input priority 0"),
    ("leaving", "type filter hook output priority 0"),
    ("turned", "type nat hook output priority -100"),
];

fn counted(table: &str, packets: Packets) -> String {
    ruled(table, &[("arriving", &format!("{} counter name met", between(packets)))])
}

const DROP: &str = "counter name met drop";

fn between(packets: Packets) -> String {
    const LAUNCHER: &str = "10.77.0.254";
    format!("ip saddr != {LAUNCHER} ip daddr != {LAUNCHER} meta l4proto {}", packets.protocol())
}

fn lossy(table: &str, packets: Packets) -> String {
    ruled(table, &[("arriving", &format!("{} numgen random mod 100 == 0 {DROP}", between(packets)))])
}

fn silent(table: &str, packets: Packets) -> String {
    let rule = format!("{} {DROP}", between(packets));
    ruled(table, &[("arriving", &rule), ("leaving", &rule)])
}

fn detour(table: &str, packets: Packets, address: &str, from: u16, to: u16) -> String {
    let kind = packets.protocol();
    let rule = format!("ip daddr {address} {kind} dport {from} counter name met dnat to :{to}");
    ruled(table, &[("turned", &rule)])
}

/// Bytes that an interface of a host has sent.
///
/// # Panics
/// When the host has no such interface.
#[must_use]
pub fn sent(cluster: &Cluster, host: &str, interface: &str) -> u64 {
    let text = shown(cluster, host, "/proc/net/dev");
    let numbers = text.lines().find_map(|l| l.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let bytes = numbers.and_then(|n| n.split_whitespace().nth(8)?.parse().ok());
    bytes.unwrap_or_else(|| panic!("no {interface} on {host}: {text}"))
}

/// Ports of a host at which ranks may be reached from others: bound ones of UDP, listening ones of TCP that are not
/// sshd's.
#[must_use]
pub fn ports(cluster: &Cluster, host: &str, packets: Packets) -> Vec<u16> {
    let mut found: Vec<u16> = ["", "6"]
        .iter()
        .flat_map(|family| {
            let text = shown(cluster, host, &format!("{}{family}", packets.table()));
            text.lines().filter_map(|line| open(line, packets)).collect::<Vec<_>>()
        })
        .filter(|port| *port != 22)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The host's own address, as the kernel's tables have it.
const LOOPBACK: &str = "0100007F";

/// The port of a line of such a table, if others may come to it.
fn open(line: &str, packets: Packets) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let wanted = match packets {
        // "Closed": without a peer.
        Packets::Udp => "07",
        Packets::Tcp => "0A",
    };
    let (address, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == wanted && address != LOOPBACK).then_some(port)
}

fn shown(cluster: &Cluster, host: &str, file: &str) -> String {
    let output = cluster.command(host, "cat").arg(file).output().expect("nsenter starts");
    assert!(output.status.success(), "{file} on {host}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_kernels_tables() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1"
            )
        };
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let tcp = |line: &str| open(line, Packets::Tcp);
        assert_eq!(tcp(&line("00000000:1F90", "0A")), Some(8080));
        assert_eq!(tcp(&line("00000000000000000000000000000000:1F90", "0A")), Some(8080));
        assert_eq!(tcp(&line("0100007F:1F90", "0A")), None, "others cannot come there");
        assert_eq!(tcp(&line("00000000:1F90", "01")), None, "connected");
        assert_eq!((tcp(head), tcp("")), (None, None));
        assert_eq!(open(&line("0100004D0A:0016", "07"), Packets::Udp), Some(22));
    }
}
