//! Rows: interfaces, ports, and the rail of native ranks.

use crate::row::{Act, Row, Topic, row};
use crate::values;
use rmpi_types::UnknownTransport;

const T: Topic = Topic::Network;

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
        "Interfaces or networks that ranks may use: eth0,10.0.0.0/8. Without it all that work are used.",
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

/// `eth0,10.0.0.0/8`.
pub(crate) fn names(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    if names.is_empty() { Err("no interface is named".into()) } else { Ok(names) }
}
