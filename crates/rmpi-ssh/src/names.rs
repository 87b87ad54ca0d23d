//! Addresses of names, as the machine's own configuration has them. What can be had without waiting is: an address
//! as such, and `/etc/hosts` where `nsswitch.conf` begins with it. Everything else is for the C library's
//! resolver. A dynamically linked program calls it; a static one must not, because the resolver's plug-ins are of
//! one version of the C library only, and asks `getent`, which is that library's command.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The addresses of a host, in the order to try them. Waits for name servers on a thread of its own.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when nobody knows the name; what hinders the look-up.
pub(crate) async fn lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let with_port = |ips: Vec<IpAddr>| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if let Some(here) = at_hand(name) {
        return Ok(with_port(here));
    }
    if is_static() {
        let name = name.to_owned();
        let asked = tokio::task::spawn_blocking(move || getent(&name)).await.map_err(io::Error::other)?;
        return asked.map(with_port);
    }
    tokio::net::lookup_host((name, port)).await.map(Iterator::collect)
}

/// The addresses of a host, in the order to try them; may wait for name servers.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when nobody knows the name; what hinders the look-up.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(here) = at_hand(name) {
        return Ok(here);
    }
    if is_static() {
        return getent(name);
    }
    Ok((name, 0).to_socket_addrs()?.map(|a| a.ip()).collect())
}

/// What is known without asking anybody.
fn at_hand(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(ip) = name.parse() {
        return Some(vec![ip]);
    }
    let order = std::fs::read_to_string("/etc/nsswitch.conf").ok()?;
    if !files_first(&order) {
        return None;
    }
    let found = in_hosts(&std::fs::read("/etc/hosts").ok()?, name);
    (!found.is_empty()).then_some(found)
}

/// Whether `/etc/hosts` is asked first and its answer is final (`nsswitch.conf(5)`).
fn files_first(order: &str) -> bool {
    let line = order.lines().find_map(|l| l.trim_start().strip_prefix("hosts:"));
    let mut words = line.unwrap_or_default().split('#').next().unwrap_or_default().split_ascii_whitespace();
    words.next() == Some("files") && !words.next().is_some_and(|word| word.starts_with('['))
}

/// The addresses that a hosts file (`hosts(5)`) has for a name, in its order.
fn in_hosts(file: &[u8], name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(file).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// Asks the C library's own command.
fn getent(name: &str) -> io::Result<Vec<IpAddr>> {
    if name.starts_with('-') {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut command = Command::new("getent");
    command.args(["ahosts", name]).stdin(Stdio::null()).stderr(Stdio::null());
    let said = command
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("getent, which looks names up, cannot be run: {e}")))?;
    let found = listed(&said.stdout);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "name or service not known"));
    }
    Ok(found)
}

/// The addresses of `getent ahosts`: one a line and socket type, the same ones several times.
fn listed(text: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(text).lines() {
        if let Some(Ok(ip)) = line.split_ascii_whitespace().next().map(str::parse)
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// Whether this program has no dynamic loader, and so no C library beside it.
fn is_static() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| std::fs::read("/proc/self/auxv").is_ok_and(|vector| no_loader(&vector)))
}

/// Reads the kernel's word on where the loader is (`getauxval(3)`, `AT_BASE`).
fn no_loader(vector: &[u8]) -> bool {
    const AT_BASE: usize = 7;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, usize::from_ne_bytes);
    let (pairs, half) = (vector.chunks_exact(2 * size_of::<usize>()), size_of::<usize>());
    pairs.into_iter().any(|pair| word(&pair[..half]) == AT_BASE && word(&pair[half..]) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn the_systems_order_decides_whether_the_file_is_final() {
        for (order, want) in [
            ("hosts: files dns\n", true),
            ("passwd: files\n  hosts:\tfiles\n", true),
            ("hosts: files # dns\n", true),
            ("hosts: files [SUCCESS=merge] dns\n", false),
            ("hosts: dns files\n", false),
            ("hosts: mymachines files\n", false),
            ("hosts:\n", false),
            ("passwd: files\n", false),
        ] {
            assert_eq!(files_first(order), want, "{order:?}");
        }
    }

    #[test]
    fn hosts_files_are_read_as_they_are_written() {
        let file = b"127.0.0.1 localhost\n::1 localhost ip6-localhost # n1\n10.0.0.1\tn1.site  N1\nbroken n1\n10.0.0.1 n1\n\xff n2\n";
        assert_eq!(in_hosts(file, "n1"), ips(&["10.0.0.1"]));
        assert_eq!(in_hosts(file, "localhost"), ips(&["127.0.0.1", "::1"]));
        assert!(in_hosts(file, "n2").is_empty());
    }

    #[test]
    fn the_command_answers_as_the_library_does() {
        let listing = b"::1             STREAM localhost\n::1             DGRAM\n127.0.0.1  STREAM\n";
        assert_eq!(listed(listing), ips(&["::1", "127.0.0.1"]));
        let asked = getent("localhost").unwrap();
        let library: Vec<IpAddr> = ("localhost", 0).to_socket_addrs().unwrap().map(|a| a.ip()).collect();
        assert!(library.iter().all(|ip| asked.contains(ip)), "{asked:?} {library:?}");
        assert_eq!(getent("nosuchhost.invalid").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(getent("-h").is_err());
    }

    #[test]
    fn a_loader_is_seen_in_the_auxiliary_vector() {
        let vector = |base: usize| [6usize, 4096, 7, base, 0, 0].map(usize::to_ne_bytes).concat();
        assert!(no_loader(&vector(0)) && !no_loader(&vector(0x7f00_0000)) && !no_loader(b""));
    }

    #[test]
    fn addresses_need_no_look_up() {
        assert_eq!(addresses("192.0.2.7").unwrap(), ips(&["192.0.2.7"]));
        assert_eq!(addresses("::1").unwrap(), ips(&["::1"]));
        assert!(!addresses("localhost").unwrap().is_empty());
    }
}
