//! Horovod over Gloo: the store its workers meet in, served for as long as the job runs, and what they find it by.

pub mod elastic;
mod output;
mod outside;
mod server;

pub(crate) use server::Rendezvous;

use crate::job::Config;
use crate::reach::Target;
use rmpi_types::launch::horovod_label;
use rmpi_types::spec::{Horovod, JobSpec};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Seconds that workers wait for each other when the user says nothing: Horovod's own.
const TIMEOUT: &str = "30";
/// In elastic jobs, where newcomers import their framework meanwhile.
const ELASTIC_TIMEOUT: &str = "60";

/// Opens the store, where the job wants one. [`Rendezvous::serve`] is the caller's to poll.
///
/// # Errors
/// A text: no address, or no port.
pub(crate) fn open(
    config: &Config,
    targets: &[Target],
) -> Result<Option<(Arc<Rendezvous>, TcpListener)>, String> {
    if config.spec.horovod != Horovod::Gloo {
        return Ok(None);
    }
    let here = |t: &Target| t.local || t.host.name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let ip = address(&config.spec, targets.iter().all(here))?;
    let (store, listener) = Rendezvous::open(ip, config.spec.port_range, None)
        .map_err(|e| format!("Horovod's store cannot listen on {ip}: {e}"))?;
    let _ = config.rendezvous.set(Arc::clone(&store));
    Ok(Some((store, listener)))
}

/// The address of the store: an IPv4 one, as Horovod's client knows no other. `here`: all ranks are on this machine.
pub(crate) fn address(spec: &JobSpec, here: bool) -> Result<IpAddr, String> {
    if here && spec.ifaces.is_empty() {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    if let Some(ip) = spec.advertise.as_deref().and_then(crate::hosts::resolve).filter(IpAddr::is_ipv4) {
        return Ok(ip);
    }
    let own = rmpi_daemon::own_addresses(&spec.ifaces, Some(rmpi_types::launch::IpFamily::V4));
    let own = own.map_err(|fault| fault.to_string())?;
    own.into_iter().find(IpAddr::is_ipv4).ok_or_else(|| {
        "Horovod's workers need an IPv4 address of this machine and there is none: use --mpi".to_owned()
    })
}

/// Tells the store how large its scopes are, once ranks have their places: hosts and their ranks, in order.
pub(crate) fn placed<'a>(config: &Config, hosts: impl Iterator<Item = (&'a str, usize)>) {
    let Some(store) = config.rendezvous.get() else { return };
    let ranks = |n| u32::try_from(n).unwrap_or(u32::MAX);
    let hosts: Vec<(String, u32)> = hosts.map(|(host, n)| (horovod_label(host), ranks(n))).collect();
    store.begin(rmpi_horovod::assign::scopes(&rmpi_horovod::assign(&hosts, u32::MAX)));
}

type Set = Vec<(OsString, Option<OsString>)>;

/// Adds what workers find the store by to what the user has set, which stays.
pub(crate) fn variables(config: &Config, mut set: Set) -> Set {
    let Some(store) = config.rendezvous.get() else { return set };
    for (name, value) in store_variables(store.address(), false, &config.spec.ifaces) {
        add(&mut set, config.env(), name, value);
    }
    set
}

fn add(set: &mut Set, env: &rmpi_types::spec::EnvMap, name: &str, value: String) {
    let said = set.iter().any(|(n, _)| n == name) || env.contains_key(OsStr::new(name));
    if !said {
        set.push((name.into(), Some(value.into())));
    }
}

/// What all workers of a job get, whatever their rank.
pub(crate) fn store_variables(
    address: std::net::SocketAddr,
    elastic: bool,
    ifaces: &[String],
) -> Vec<(&'static str, String)> {
    let mut vars = vec![
        ("HOROVOD_CONTROLLER", "gloo".to_owned()),
        ("HOROVOD_CPU_OPERATIONS", "gloo".to_owned()),
        ("HOROVOD_GLOO_RENDEZVOUS_ADDR", address.ip().to_string()),
        ("HOROVOD_GLOO_RENDEZVOUS_PORT", address.port().to_string()),
        ("HOROVOD_GLOO_TIMEOUT_SECONDS", if elastic { ELASTIC_TIMEOUT } else { TIMEOUT }.to_owned()),
    ];
    if elastic {
        vars.push(("HOROVOD_ELASTIC", "1".to_owned()));
    }
    // One interface, by its name; networks and exclusions Gloo does not understand.
    let names: Vec<&str> =
        ifaces.iter().map(String::as_str).filter(|w| !w.contains(['/', '^', ':', '.'])).collect();
    if let Some(first) = names.first() {
        vars.push(("HOROVOD_GLOO_IFACE", (*first).to_owned()));
        vars.push(("NCCL_SOCKET_IFNAME", names.join(",")));
    }
    vars
}
