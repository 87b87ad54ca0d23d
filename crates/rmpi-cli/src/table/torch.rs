//! Rows: what only torchrun has.

use crate::draft::Workers;
use crate::personality::Personality;
use crate::row::{Act, Arity, Behaviour, Row, Topic, idle, row};
use crate::{output, values};
use rmpi_types::spec::{BindTo, Object, Shown};

const T: Topic = Topic::Torch;

/// Options of other chapters that torchrun's own parser has too: what abbreviations may mean.
pub(super) const SHARED: &[&str] = &["max-restarts", "help", "start-method", "monitor-interval"];

const ETCD: &str =
    "rendezvous backend 'etcd-v2' is not built in; rmpirun's own rendezvous is used with --rdzv-backend c10d";

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "nnodes",
        &[],
        "N",
        Act::Text(|t, text| {
            let (min, max) = text.split_once(':').unwrap_or((text, text));
            let (min, max) = (values::count(min)?, values::count(max)?);
            if min != max {
                return Err(format!(
                    "{text}: elastic jobs are not supported by this version; give one number of nodes"
                ));
            }
            t.job.torch.nodes = Some(max);
            Ok(())
        }),
        "Use the first N hosts.",
    ),
    row(
        T,
        "nproc-per-node",
        &[],
        "N",
        Act::Text(|t, text| {
            t.job.torch.workers = Some(match text {
                "cpu" => Workers::Cpus,
                "gpu" | "xpu" => Workers::Gpus,
                "auto" if (t.sources.have)("nvidia-smi") || (t.sources.have)("rocm-smi") => Workers::Gpus,
                "auto" => Workers::Cpus,
                n => Workers::Count(values::count(n)?),
            });
            Ok(())
        }),
        "Ranks a node: a number, cpu (one a core), gpu (one a GPU) or auto.",
    ),
    row(
        T,
        "node-rank",
        &[],
        "N",
        Act::Text(|t, text| {
            t.job.torch.node_rank = text.trim().parse().map_err(|_| format!("'{text}' is not a number"))?;
            Ok(())
        }),
        "The number of this node where one launcher is started on each; only 0, as rmpirun starts all nodes itself.",
    ),
    row(
        T,
        "master-addr",
        &[],
        "ADDR",
        Act::Text(|t, text| t.publish("MASTER_ADDR", text)),
        "Sets MASTER_ADDR for the ranks, instead of rank 0's address.",
    ),
    row(
        T,
        "master-port",
        &[],
        "PORT",
        Act::Text(|t, text| {
            values::port(text)?;
            t.publish("MASTER_PORT", text.trim())
        }),
        "Sets MASTER_PORT for the ranks, instead of a free port.",
    ),
    row(
        T,
        "local-addr",
        &[],
        "ADDR",
        Act::Text(super::network::advertise),
        "The address by which other hosts reach ranks on this one: torchrun's word for --advertise.",
    ),
    row(
        T,
        "rdzv-backend",
        &[],
        "NAME",
        Act::Text(|t, name| match name {
            "static" | "c10d" => {
                t.job.torch.run_id.get_or_insert_with(|| "none".into());
                Ok(())
            }
            "etcd" | "etcd-v2" => Err(ETCD.replace("etcd-v2", name)),
            _ => Err(format!("'{name}' is not known (there are static and c10d)")),
        }),
        "static or c10d: both mean our own way of bringing the ranks together.",
    ),
    row(
        T,
        "rdzv-endpoint",
        &[],
        "HOST[:PORT]",
        Act::Text(|t, text| {
            if t.job.torch.node_rank > 0 {
                return Ok(());
            }
            let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
            if !host.is_empty() && !["localhost", "127.0.0.1"].contains(&host) {
                t.publish("MASTER_ADDR", host)?;
            }
            if port.is_empty() || port == "0" {
                return Ok(());
            }
            values::port(port)?;
            t.publish("MASTER_PORT", port)
        }),
        "Sets MASTER_ADDR and MASTER_PORT for the ranks.",
    ),
    row(
        T,
        "rdzv-id",
        &[],
        "NAME",
        Act::Text(|t, name| {
            t.job.torch.run_id = Some(name.to_owned());
            Ok(())
        }),
        "Name of the run, TORCHELASTIC_RUN_ID of the ranks.",
    ),
    row(
        T,
        "role",
        &[],
        "NAME",
        Act::Text(|t, name| {
            t.job.torch.role = Some(name.to_owned());
            Ok(())
        }),
        "ROLE_NAME of the ranks, and the word in their tags.",
    ),
    row(
        T,
        "module",
        &[],
        "",
        Act::Flag(|t| {
            t.job.python.module = true;
            Ok(())
        }),
        "The program is the name of a Python module (torchrun personality).",
    ),
    row(
        T,
        "module",
        &["m"],
        "",
        Act::Flag(|t| {
            t.job.python.module = true;
            Ok(())
        }),
        "The program is the name of a Python module.",
    )
    .only(Personality::Torchrun),
    row(
        T,
        "no-python",
        &[],
        "",
        Act::Flag(|t| {
            t.job.python.no = true;
            Ok(())
        }),
        "Start the program as it is, not by 'python -u' (torchrun personality).",
    ),
    row(
        T,
        "run-path",
        &[],
        "",
        Act::Flag(|t| {
            t.job.python.run_path = true;
            Ok(())
        }),
        "Run the script with runpy.run_path (torchrun personality).",
    ),
    row(
        T,
        "log-dir",
        &[],
        "DIR",
        Act::Os(|t, dir| {
            t.job.torch.log_dir = Some(output::absolute(t, &dir)?);
            Ok(())
        }),
        "Where redirected streams are written: DIR/ID/attempt_0/LOCAL_RANK/stdout.log.",
    ),
    row(
        T,
        "redirects",
        &[],
        "STREAMS",
        Act::Text(|t, text| {
            t.job.torch.redirects = output::redirects(text)?;
            Ok(())
        }),
        "Streams that go to files only: 0 none, 1 stdout, 2 stderr, 3 both, or by local rank: 0:1,1:3.",
    ),
    row(
        T,
        "redirects",
        &["r"],
        "STREAMS",
        Act::Text(|t, text| {
            t.job.torch.redirects = output::redirects(text)?;
            Ok(())
        }),
        "Streams that go to files only.",
    )
    .only(Personality::Torchrun),
    row(
        T,
        "tee",
        &[],
        "STREAMS",
        Act::Text(|t, text| {
            t.job.torch.tee = output::redirects(text)?;
            Ok(())
        }),
        "As --redirects, but tagged on the console too.",
    ),
    row(
        T,
        "tee",
        &["t"],
        "STREAMS",
        Act::Text(|t, text| {
            t.job.torch.tee = output::redirects(text)?;
            Ok(())
        }),
        "As --redirects, but tagged on the console too.",
    )
    .only(Personality::Torchrun),
    row(
        T,
        "local-ranks-filter",
        &[],
        "LIST",
        Act::Text(|t, list| {
            t.job.job.output.shown = Shown::Local(values::ranks(list)?);
            Ok(())
        }),
        "Show output only of ranks with these numbers on their nodes.",
    ),
    row(
        T,
        "numa-binding",
        &[],
        "KIND",
        Act::Text(|t, kind| {
            const KINDS: [&str; 4] = ["node", "socket", "exclusive", "core-complex"];
            t.app.place.spec.bind_to = match KINDS[values::abbreviated("kind", kind, &KINDS)?] {
                "node" => BindTo::Gpu,
                "socket" => BindTo::Object(Object::Package),
                "exclusive" => BindTo::Share,
                _ => BindTo::Object(Object::L3),
            };
            t.app.place.spec.overload = true;
            Ok(())
        }),
        "CPUs of each rank: node (those near its GPU), socket, exclusive (an equal part) or core-complex.",
    )
    .placement(),
    row(
        T,
        "signals-to-handle",
        &[],
        "LIST",
        Act::Text(|t, list| {
            t.job.signals.handle = Some(crate::signal::list(list)?);
            Ok(())
        }),
        "Signals that end the job (SIGTERM,SIGINT,SIGHUP,SIGQUIT in torchrun).",
    ),
    torch(idle("standalone", &[], Arity::Flag, Behaviour::Ignored)),
    torch(idle("rdzv-conf", &[], Arity::One, Behaviour::Ignored)),
    torch(idle(
        "logs-specs",
        &[],
        Arity::One,
        Behaviour::Refused("python plug-ins are not loaded; use --log-dir"),
    )),
    torch(idle(
        "event-log-handler",
        &[],
        Arity::One,
        Behaviour::Noted("events are written by --events FILE"),
    )),
];

const fn torch(mut row: Row) -> Row {
    row.topic = T;
    row
}
