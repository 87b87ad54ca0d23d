//! From a name to a byte stream: resolving, trying every address, proxy commands.

use super::handler::io_text;
use crate::auth::within;
use crate::config::{Family, HostConfig};
use crate::names;
use rmpi_types::{LaunchFault, Stage};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Addresses of the host, in the resolver's order.
pub(crate) async fn resolve(config: &HostConfig, deadline: Instant) -> Result<Vec<SocketAddr>, LaunchFault> {
    let name = config.hostname.as_str();
    let found = match within(deadline, names::lookup(name, config.port)).await {
        Some(Ok(found)) => found,
        Some(Err(e)) => {
            return Err(LaunchFault::passing(
                Stage::Name,
                format!("name not known: {name} ({})", resolver_text(&e)),
            ));
        }
        None => return Err(LaunchFault::passing(Stage::Name, format!("no answer about the name {name}"))),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        let wanted = match config.family {
            Family::Any => true,
            Family::Inet => address.is_ipv4(),
            Family::Inet6 => address.is_ipv6(),
        };
        if wanted && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let family = if config.family == Family::Inet { "IPv4 " } else { "IPv6 " };
        let family = if config.family == Family::Any { "" } else { family };
        return Err(LaunchFault::fatal(Stage::Name, format!("{name} has no {family}address")));
    }
    Ok(addresses)
}

/// The resolver's words without the library's preface.
fn resolver_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit("information: ").next().unwrap_or(&text);
    super::handler::tame(&text.to_lowercase())
}

/// Connects to the first address that answers; each gets a fair part of the time left.
pub(crate) async fn tcp(
    addresses: &[SocketAddr],
    config: &HostConfig,
    deadline: Instant,
    limit: Duration,
) -> Result<(TcpStream, IpAddr), LaunchFault> {
    let mut failures: Vec<(String, SocketAddr)> = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - n).unwrap_or(1);
        match tokio::time::timeout(share, connect(*address, config.bind_address.as_deref())).await {
            Ok(Ok(stream)) => return Ok((stream, address.ip())),
            Ok(Err(e)) => failures.push((tcp_text(&e), *address)),
            Err(_) => failures.push((format!("no answer within {} s", limit.as_secs_f32()), *address)),
        }
    }
    let refused = failures.iter().any(|(why, _)| why == "connection refused");
    let what = match failures.as_slice() {
        [(why, address)] if address.ip().to_string() == config.hostname && address.port() == 22 => {
            why.clone()
        }
        several => several.iter().map(|(why, a)| format!("{why} ({a})")).collect::<Vec<_>>().join(", "),
    };
    let fault = LaunchFault::passing(Stage::Tcp, what);
    Err(if refused { fault.hint(format!("is sshd running there on port {}?", config.port)) } else { fault })
}

async fn connect(address: SocketAddr, bind: Option<&str>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = bind {
        let local: IpAddr =
            local.parse().map_err(|_| io::Error::other(format!("BindAddress {local} is not an address")))?;
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

fn tcp_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "no answer (connection timed out)".into(),
        _ => io_text(error),
    }
}

/// A proxy command and its pipes as one stream. The command ends with the stream.
pub(crate) type ProxyStream = tokio::io::Join<ChildStdout, ChildStdin>;

/// Starts a `ProxyCommand` through the shell, as OpenSSH does; its complaints go to our standard error.
pub(crate) fn proxy(command: &str) -> Result<(ProxyStream, Child), LaunchFault> {
    let failed =
        |e: String| LaunchFault::fatal(Stage::Tcp, format!("ProxyCommand {command:?} does not start: {e}"));
    let mut child = tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("exec {command}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(io_text(&e)))?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(out), Some(input)) => Ok((tokio::io::join(out, input), child)),
        _ => Err(failed("it has no pipes".into())),
    }
}
