//! Rows: interfaces and ports.

use crate::row::{Act, Row, Topic, row};
use crate::values;

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
];

/// `eth0,10.0.0.0/8`.
pub(crate) fn names(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    if names.is_empty() { Err("no interface is named".into()) } else { Ok(names) }
}
