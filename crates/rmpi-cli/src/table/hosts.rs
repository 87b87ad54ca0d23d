//! Rows: how many ranks, on which hosts.

use crate::draft::Layer;
use crate::row::{Act, Row, Topic, row};
use rmpi_types::spec::{MapBy, Object, Universe};

const T: Topic = Topic::Hosts;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "np",
        &["n", "c", "num-proc"],
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
            let given = |l: Layer| matches!(l, Layer::File | Layer::Line);
            if other && t.job.hostfile_by.is_some_and(|(l, i)| given(l) && i != by.1) {
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
        "hosts-from",
        &[],
        "WHERE",
        Act::Text(|t, text| {
            match text.split_once(':') {
                Some(("file", path)) => t.job.hostfile = Some(path.into()),
                Some(("script", program)) => t.job.discovery = Some(program.into()),
                None if crate::allocation::KINDS.contains(&text) => t.job.rmk = Some(text.to_owned()),
                None if text == "env" => t.job.rmk = None,
                _ => {
                    return Err(format!(
                        "'{text}' is not file:PATH, script:PROGRAM, env, or one of {}",
                        crate::allocation::KINDS.join(" ")
                    ));
                }
            }
            Ok(())
        }),
        "Where the hosts come from: file:PATH, script:PROGRAM, env (a resource manager's variables, the default), or \
         one resource manager by name.",
    ),
    row(
        T,
        "rmk",
        &[],
        "NAME",
        Act::Text(|t, name| {
            if name != "user" && !crate::allocation::KINDS.contains(&name) {
                return Err(format!("'{name}' is not known (there are: user {})", crate::allocation::KINDS.join(" ")));
            }
            t.job.rmk = Some(name.to_owned());
            Ok(())
        }),
        "The resource manager whose host list is used: user (none), slurm, pbs, lsf, sge, cobalt, flux.",
    ),
    row(
        T,
        "host-discovery-script",
        &[],
        "PROGRAM",
        Act::Os(|t, program| {
            t.job.discovery = Some(program);
            Ok(())
        }),
        "A program that prints the hosts, 'host' or 'host:slots' a line.",
    ),
    row(
        T,
        "slots-per-host",
        &[],
        "N",
        Act::Count(|t, n| {
            t.job.default_slots = Some(n);
            Ok(())
        }),
        "Slots of a host that is listed without a count.",
    ),
    row(
        T,
        "slots",
        &[],
        "WHAT",
        Act::Text(|t, what| {
            t.app.place.spec.slots_by_gpu = match what {
                "gpu" => true,
                "cpu" => false,
                _ => return Err(format!("'{what}' is not cpu or gpu")),
            };
            Ok(())
        }),
        "What a slot is on a host that is listed without a count: cpu (a core, the default) or gpu.",
    )
    .placement(),
    row(
        T,
        "usize",
        &[],
        "SIZE",
        Act::Text(|t, text| {
            t.job.job.universe = match text.to_ascii_uppercase().as_str() {
                "SYSTEM" => Universe::Slots,
                "INFINITE" => Universe::Infinite,
                _ => Universe::Count(crate::values::count(text)?),
            };
            Ok(())
        }),
        "MPI's universe size: SYSTEM (the slots, the default), INFINITE, or a number.",
    ),
    row(
        T,
        "rankmap",
        &[],
        "LIST",
        Act::Text(|t, text| {
            let list = text.trim_start_matches("(vector,").trim_matches(['(', ')']);
            let bad = || format!("'{text}' is not a list of host numbers from 0 (0,1,1,0)");
            t.job.rankmap =
                Some(list.split(',').map(|n| n.trim().parse().map_err(|_| bad())).collect::<Result<_, _>>()?);
            Ok(())
        }),
        "The host of each rank by its place in the host list, from 0: 0,1,1,0.",
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
