//! Rows: what only horovodrun has. Its tuning options become variables of the ranks, as there.

use crate::personality::Personality;
use crate::row::{Act, Row, Set, Topic, row};
use crate::values;
use rmpi_types::spec::{FileLayout, Files};

const T: Topic = Topic::Horovod;

/// Options of other chapters that horovodrun's own parser has too: what abbreviations may mean.
pub(super) const SHARED: &[&str] = &[
    "num-proc",
    "hosts",
    "hostfile",
    "host-discovery-script",
    "slots-per-host",
    "start-timeout",
    "verbose",
    "network-interfaces",
    "output-filename",
    "ssh-port",
    "ssh-identity-file",
    "disable-cache",
    "gloo",
    "mpi",
    "jsrun",
    "tcp",
    "version",
    "help",
    "min-np",
    "max-np",
    "elastic-timeout",
    "reset-limit",
];

/// An option whose value is a variable of the ranks.
macro_rules! variable {
    ($name:literal, $variable:literal) => {
        row(
            T,
            $name,
            &[],
            "VALUE",
            Act::Text(|t, value| t.publish($variable, value)),
            concat!("Sets ", $variable, " for the ranks."),
        )
    };
}

/// An option that sets a variable of the ranks to a fixed value.
macro_rules! switch {
    ($name:literal, $variable:literal, $value:literal) => {
        row(
            T,
            $name,
            &[],
            "",
            Act::Flag(|t| t.publish($variable, $value)),
            concat!("Sets ", $variable, "=", $value, " for the ranks."),
        )
    };
}

/// Megabytes as bytes.
fn threshold(t: &mut crate::draft::Target<'_>, value: &str) -> Set {
    let mb: u64 = value.trim().parse().map_err(|_| format!("'{value}' is not a number"))?;
    let bytes = mb.checked_mul(1 << 20).ok_or_else(|| format!("{value} is out of range"))?;
    t.publish("HOROVOD_FUSION_THRESHOLD", &bytes.to_string())
}

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "fusion-threshold-mb",
        &[],
        "MB",
        Act::Text(threshold),
        "Sets HOROVOD_FUSION_THRESHOLD, in bytes, for the ranks.",
    ),
    variable!("cycle-time-ms", "HOROVOD_CYCLE_TIME"),
    variable!("cache-capacity", "HOROVOD_CACHE_CAPACITY"),
    switch!("hierarchical-allreduce", "HOROVOD_HIERARCHICAL_ALLREDUCE", "1"),
    switch!("no-hierarchical-allreduce", "HOROVOD_HIERARCHICAL_ALLREDUCE", "0"),
    switch!("hierarchical-allgather", "HOROVOD_HIERARCHICAL_ALLGATHER", "1"),
    switch!("no-hierarchical-allgather", "HOROVOD_HIERARCHICAL_ALLGATHER", "0"),
    switch!("torus-allreduce", "HOROVOD_TORUS_ALLREDUCE", "1"),
    switch!("no-torus-allreduce", "HOROVOD_TORUS_ALLREDUCE", "0"),
    switch!("autotune", "HOROVOD_AUTOTUNE", "1"),
    switch!("no-autotune", "HOROVOD_AUTOTUNE", "0"),
    variable!("autotune-log-file", "HOROVOD_AUTOTUNE_LOG"),
    variable!("autotune-warmup-samples", "HOROVOD_AUTOTUNE_WARMUP_SAMPLES"),
    variable!("autotune-steps-per-sample", "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE"),
    variable!("autotune-bayes-opt-max-samples", "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES"),
    variable!("autotune-gaussian-process-noise", "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE"),
    row(
        T,
        "timeline-filename",
        &[],
        "FILE",
        Act::Text(|t, file| {
            t.job.show.timeline.get_or_insert_with(|| t.sources.cwd.join(format!("{file}.rmpirun.json")));
            t.publish("HOROVOD_TIMELINE", file)
        }),
        "Sets HOROVOD_TIMELINE for the ranks; the launch is written to FILE.rmpirun.json in the same form.",
    ),
    switch!("timeline-mark-cycles", "HOROVOD_TIMELINE_MARK_CYCLES", "1"),
    switch!("no-timeline-mark-cycles", "HOROVOD_TIMELINE_MARK_CYCLES", "0"),
    switch!("stall-check", "HOROVOD_STALL_CHECK_DISABLE", "0"),
    switch!("no-stall-check", "HOROVOD_STALL_CHECK_DISABLE", "1"),
    variable!("stall-check-warning-time-seconds", "HOROVOD_STALL_CHECK_TIME_SECONDS"),
    variable!("stall-check-shutdown-time-seconds", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"),
    switch!("mpi-threads-disable", "HOROVOD_MPI_THREADS_DISABLE", "1"),
    switch!("no-mpi-threads-disable", "HOROVOD_MPI_THREADS_DISABLE", "0"),
    variable!("num-nccl-streams", "HOROVOD_NUM_NCCL_STREAMS"),
    variable!("thread-affinity", "HOROVOD_THREAD_AFFINITY"),
    variable!("gloo-timeout-seconds", "HOROVOD_GLOO_TIMEOUT_SECONDS"),
    variable!("log-level", "HOROVOD_LOG_LEVEL"),
    switch!("log-with-timestamp", "HOROVOD_LOG_HIDE_TIME", "0"),
    switch!("log-without-timestamp", "HOROVOD_LOG_HIDE_TIME", "1"),
    switch!("log-hide-timestamp", "HOROVOD_LOG_HIDE_TIME", "1"),
    switch!("no-log-hide-timestamp", "HOROVOD_LOG_HIDE_TIME", "0"),
    row(T, "mpi-args", &[], "ARGS", Act::Os(|t, args| t.options(&args)), "Options of mpirun in one word.")
        .app(),
    row(
        T,
        "binding-args",
        &[],
        "ARGS",
        Act::Os(|t, args| t.options(&args)),
        "Options about binding in one word: '--bind-to none --map-by slot'.",
    )
    .placement(),
    row(
        T,
        "prefix-output-with-timestamp",
        &["prefix-timestamp"],
        "",
        Act::Flag(|t| {
            t.job.job.output.timestamp = true;
            Ok(())
        }),
        "The time before the tag of each line.",
    ),
    switch!("tcp", "NCCL_IB_DISABLE", "1"),
    row(
        T,
        "gloo",
        &[],
        "",
        Act::Flag(|t| {
            t.job.gloo = Some(true);
            Ok(())
        }),
        "Horovod's workers meet in a store that the launcher serves: the default of horovodrun.",
    ),
    row(
        T,
        "mpi",
        &[],
        "",
        Act::Flag(|t| {
            t.job.gloo = Some(false);
            Ok(())
        }),
        "Horovod's workers meet by MPI.",
    ),
    row(
        T,
        "min-np",
        &["min-num-proc"],
        "N",
        Act::Count(|t, n| {
            (t.job.elastic.min_np, t.job.elastic_asked) = (Some(n), true);
            Ok(())
        }),
        "An elastic job: goes on with as few as N ranks when hosts are lost.",
    ),
    row(
        T,
        "max-np",
        &["max-num-proc"],
        "N",
        Act::Count(|t, n| {
            t.job.elastic.max_np = Some(n);
            Ok(())
        }),
        "Most ranks of an elastic job (no limit).",
    ),
    row(
        T,
        "elastic-timeout",
        &[],
        "TIME",
        Act::Text(|t, text| {
            t.job.elastic.timeout = Some(values::limit(text)?);
            Ok(())
        }),
        "Longest wait of an elastic job for enough slots, each time (600 s).",
    ),
    row(
        T,
        "reset-limit",
        &[],
        "N",
        Act::Count(|t, n| {
            t.job.elastic.reset_limit = Some(n);
            Ok(())
        }),
        "More changes of an elastic job than N end it (no limit).",
    ),
    row(
        T,
        "blacklist-cooldown-range",
        &[],
        "LOW HIGH",
        Act::Pair(|t, low, high| {
            let time = |text: &std::ffi::OsStr| values::limit(text.to_str().ok_or("it is not valid UTF-8")?);
            let (low, high) = (time(&low)?, time(&high)?);
            if low > high
                || low < std::time::Duration::from_secs(1)
                || high > std::time::Duration::from_secs(3600)
            {
                return Err("it wants two times, the smaller first, from 1 s to 3600 s".into());
            }
            t.job.elastic.cooldown = Some((low, high));
            Ok(())
        }),
        "Lets hosts of an elastic job that failed return after a pause between LOW and HIGH (never).",
    ),
    row(
        T,
        "config-file",
        &[],
        "FILE",
        Act::Os(|t, file| crate::horovod_config::apply(t, &file)),
        "Reads settings from horovodrun's YAML file; options after it win.",
    ),
    row(T, "check-build", &["cb"], "", Act::Flag(|_| Ok(())), "Say what is built in."),
    row(T, "version", &["v"], "", Act::Flag(|_| Ok(())), "The version.").only(Personality::Horovodrun),
    row(
        T,
        "ssh-port",
        &["p"],
        "PORT",
        Act::Text(|t, text| {
            t.job.ssh_port = Some(values::port(text)?);
            Ok(())
        }),
        "SSH port of hosts that give none.",
    )
    .only(Personality::Horovodrun),
    row(
        T,
        "ssh-identity-file",
        &["i"],
        "FILE",
        Act::Os(|t, file| {
            let path = crate::output::absolute(t, &file)?;
            t.job.identities.push(t.job.layer, path);
            Ok(())
        }),
        "Try this private key first.",
    )
    .only(Personality::Horovodrun),
    row(
        T,
        "hosts",
        &["H"],
        "LIST",
        Act::Text(|t, list| {
            let bare =
                list.split(',').find(|h| h.rsplit_once(':').is_none_or(|(_, n)| n.parse::<u32>().is_err()));
            if let Some(bare) = bare {
                return Err(format!("'{bare}' has no number of slots; write {bare}:N"));
            }
            t.app.hosts.push(t.job.layer, (t.spelled.to_owned(), list.to_owned()));
            Ok(())
        }),
        "Hosts with their slots: h1:2,h2:4.",
    )
    .app()
    .only(Personality::Horovodrun),
    row(
        T,
        "output-filename",
        &[],
        "DIR",
        Act::Os(|t, dir| {
            let dir = crate::output::absolute(t, &dir)?;
            t.job.job.output.files = Some(Files { layout: FileLayout::Horovod(dir), nocopy: false });
            Ok(())
        }),
        "Also write DIR/rank.N/stdout and stderr.",
    )
    .only(Personality::Horovodrun),
];
