//! Rows: how many ranks, on which hosts.

use crate::draft::Layer;
use crate::row::{Act, Row, Topic, row};
use rmpi_types::spec::{MapBy, Object};

const T: Topic = Topic::Hosts;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "np",
        &["n", "c"],
        "N",
        Act::Count(|t, n| {
            t.app.np = Some(n);
            Ok(())
        }),
        "Start N ranks of the program. Without it every slot gets one.",
    )
    .app(),
    row(
        T,
        "host",
        &["H"],
        "LIST",
        Act::Text(|t, list| {
            t.app.listed = false;
            t.app.hosts.push(t.job.layer, (t.spelled.to_owned(), list.to_owned()));
            Ok(())
        }),
        "Use these hosts: h1,h2:4,n[1-3]. A host without a count gives one slot, h:* all its cores. With a host \
         file it selects from that file; +n0 is the file's first host.",
    )
    .app(),
    row(
        T,
        "hosts",
        &["hostlist", "machine", "machines", "machinelist"],
        "LIST",
        Act::Text(|t, list| {
            t.app.listed = true;
            t.app.hosts.push(t.job.layer, (t.spelled.to_owned(), list.to_owned()));
            Ok(())
        }),
        "As --host, but order and repeats are places: n1,n2,n1 puts rank 2 on n1 (Hydra).",
    )
    .app(),
    row(
        T,
        "hostfile",
        &["machinefile", "f"],
        "FILE",
        Act::Os(|t, file| {
            let by = (t.job.layer, t.app.index);
            let other = t.job.hostfile.as_ref().is_some_and(|f| *f != file);
            if other && t.job.hostfile_by.is_some_and(|(l, i)| l >= Layer::File && i != by.1) {
                return Err("a job has one host file; select hosts of each program with --host".into());
            }
            t.job.hostfile_by = Some(by);
            t.job.hostfile = Some(file);
            Ok(())
        }),
        "Read the hosts from FILE, in the form of any launcher: 'n1 slots=4', 'n1:4', 'n1 4'. - is standard input.",
    ),
    row(
        T,
        "default-hostfile",
        &[],
        "FILE",
        Act::Os(|t, file| {
            t.job.default_hostfile = if file == "none" { None } else { Some(file) };
            Ok(())
        }),
        "The host file used when --hostfile is not given; 'none' for no such file.",
    ),
    row(
        T,
        "N",
        &["ppn", "perhost"],
        "N",
        Act::Count(|t, n| {
            t.app.place.spec.per_node = Some(n);
            Ok(())
        }),
        "Start N ranks on each host; with -np only that many, host by host.",
    )
    .placement(),
    row(
        T,
        "npernode",
        &[],
        "N",
        Act::Count(|t, n| {
            t.app.place.spec.map_by = MapBy::Ppr(n, Object::Node);
            Ok(())
        }),
        "As --map-by ppr:N:node.",
    )
    .placement(),
    row(
        T,
        "pernode",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.map_by = MapBy::Ppr(1, Object::Node);
            Ok(())
        }),
        "As --npernode 1.",
    )
    .placement(),
    row(
        T,
        "max-nodes",
        &["max-vm-size"],
        "N",
        Act::Count(|t, n| {
            t.app.place.spec.max_nodes = Some(n);
            Ok(())
        }),
        "Use at most N hosts.",
    )
    .placement(),
    row(
        T,
        "nolocal",
        &["skip-launch-node"],
        "",
        Act::Flag(|t| {
            t.app.place.spec.nolocal = true;
            Ok(())
        }),
        "No ranks on the launcher's own host.",
    )
    .placement(),
    row(
        T,
        "oversubscribe",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.oversubscribe = true;
            Ok(())
        }),
        "Allow more ranks than slots (max_slots of a host file still holds).",
    )
    .placement(),
    row(
        T,
        "nooversubscribe",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.oversubscribe = false;
            Ok(())
        }),
        "Do not allow more ranks than slots. The default.",
    )
    .placement(),
];
