//! Rows: interfaces, ports, and the rail of native ranks.

use crate::row::{Act, Row, Set, Topic, row};
use crate::values;
use rmpi_types::launch::{IpFamily, PmiKind};
use rmpi_types::transport::{MAX_STREAMS, STREAMS_VARIABLE};
use rmpi_types::{BadTuning, Tuning, UnknownTransport};

const T: Topic = Topic::Network;

/// `--advertise`.
pub(super) fn advertise(t: &mut crate::draft::Target<'_>, address: &str) -> Set {
    if address.is_empty() {
        return Err("the address is empty (nearly always an empty shell variable)".into());
    }
    t.job.job.advertise = Some(address.to_owned());
    Ok(())
}

/// `--streams`.
fn streams(t: &mut crate::draft::Target<'_>, text: &str) -> Set {
    let n: u32 = text
        .parse()
        .ok()
        .filter(|n| (1..=MAX_STREAMS).contains(n))
        .ok_or_else(|| format!("'{text}' is not a number of connections from 1 to {MAX_STREAMS}"))?;
    t.publish(STREAMS_VARIABLE, &n.to_string())
}

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "iface",
        &["network-interface", "network-interfaces"],
        "LIST",
        Act::Text(|t, list| {
            t.job.job.ifaces = names(list)?;
            Ok(())
        }),
        "Interfaces or networks that ranks may use: eth0,10.0.0.0/8; ^docker0 leaves one out. Without it all that work \
         are used.",
    ),
    row(
        T,
        "control-iface",
        &[],
        "LIST",
        Act::Text(|t, list| {
            t.job.control_ifaces = names(list)?;
            Ok(())
        }),
        "Interfaces or networks of the launcher's own traffic. It travels on the connection that reached the host, so this \
         only stands in for --iface where that is not given.",
    ),
    row(
        T,
        "advertise",
        &["localhost"],
        "ADDRESS",
        Act::Text(advertise),
        "The name or address by which other hosts reach ranks on the launcher's own host.",
    ),
    row(
        T,
        "ip",
        &[],
        "VERSION",
        Act::Text(|t, version| {
            t.job.job.ip = Some(match version {
                "4" => IpFamily::V4,
                "6" => IpFamily::V6,
                _ => return Err(format!("'{version}' is not 4 or 6")),
            });
            Ok(())
        }),
        "Ranks use only addresses of this version of the Internet protocol.",
    ),
    row(
        T,
        "port-range",
        &[],
        "LO:HI",
        Act::Text(|t, text| {
            t.job.job.port_range = Some(values::port_range(text)?);
            Ok(())
        }),
        "Ports our listeners may use, both ends included.",
    ),
    row(
        T,
        "transport",
        &[],
        "RAIL",
        Act::Text(|t, name| {
            t.job.job.data.transport = name.parse().map_err(|e: UnknownTransport| e.to_string())?;
            Ok(())
        }),
        "What carries messages of ranks that use the rmpi library: auto (the default: shared memory inside a node, \
         TCP or, with --encrypt, TLS between nodes), or for all pairs shm, tcp, tls or quic (one UDP port a rank).",
    ),
    row(
        T,
        "streams",
        &[],
        "N",
        Act::Text(streams),
        "Connections between two ranks that use the rmpi library over TCP or TLS, from 1 (the default) to 16: pieces of large \
         messages are spread over them. Each goes to another address of the host, so that several interfaces carry one \
         message; over one interface more than one is rarely faster.",
    ),
    row(
        T,
        "costs",
        &[],
        "TABLE",
        Act::Text(|t, table| {
            let tuning: Tuning = table.parse().map_err(|e: BadTuning| e.to_string())?;
            t.publish(Tuning::VARIABLE, &tuning.to_string())
        }),
        "What messages cost here and from which sizes on they go another way, for ranks that use the rmpi library: \
         'inside=500,0.1 between=10000,0.33 reduce=0.1' is assumed (nanoseconds; nanoseconds a byte), and thresholds such as \
         eager=65536 may follow (bytes; docs/tuning.md has all). `cargo xtask tune` measures it; the place for it is the \
         configuration file: costs = inside=... .",
    ),
    row(
        T,
        "pmi",
        &[],
        "PROTOCOL",
        Act::Text(|t, name| {
            t.job.job.pmi = pmi(name)?;
            Ok(())
        }),
        "What programs linked with another MPI library are offered: auto (the default: PMI-1, PMI-2 and PMIx, each \
         library finds its own), pmi1, pmi2, pmix, or none (they run as if each were alone).",
    ),
    row(
        T,
        "pmi-port",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.pmi_port = true;
            Ok(())
        }),
        "Offer PMI-1 and PMI-2 on a TCP port of each host (PMI_PORT, PMI_ID) instead of an inherited descriptor (PMI_FD).",
    ),
    row(
        T,
        "encrypt",
        &["encrypt-data"],
        "",
        Act::Flag(|t| {
            t.job.job.data.encrypt = true;
            Ok(())
        }),
        "Encrypt what those ranks send from node to node: each gets a key pair, and both ends of a connection prove \
         who they are.",
    ),
];

fn pmi(name: &str) -> Result<PmiKind, String> {
    match name.to_ascii_lowercase().as_str() {
        "auto" => Ok(PmiKind::Auto),
        "pmi1" => Ok(PmiKind::Pmi1),
        "pmi2" => Ok(PmiKind::Pmi2),
        "pmix" => Ok(PmiKind::Pmix),
        "none" => Ok(PmiKind::None),
        _ => Err("neither auto, pmi1, pmi2, pmix nor none".into()),
    }
}

/// `eth0,10.0.0.0/8`.
pub(crate) fn names(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    if names.is_empty() { Err("no interface is named".into()) } else { Ok(names) }
}
