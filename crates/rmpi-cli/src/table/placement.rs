//! Rows: mapping, ranking, binding.

use crate::personality::Personality;
use crate::placement;
use crate::row::{Act, Row, Topic, row};
use rmpi_types::CpuSet;
use rmpi_types::launch::{GpusPerRank, MemoryPolicy};
use rmpi_types::spec::{BindTo, MapBy, Object, RankBy};

const T: Topic = Topic::Placement;

/// A number of GPUs, or `auto`.
fn gpus(text: &str) -> Result<GpusPerRank, String> {
    match text {
        "auto" => Ok(GpusPerRank::Auto),
        n => crate::values::count(n).map(GpusPerRank::Count),
    }
}

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "map-by",
        &[],
        "POLICY",
        Act::Text(|t, p| placement::map_by(&mut t.app.place, p)),
        "Where ranks go: slot (fill a host, then the next; the default), node (deal over hosts), hwthread, core, \
         l1cache, l2cache, l3cache, numa, package, ppr:N:OBJECT, seq, rankfile, pe-list=CPUS. Modifiers after colons: \
         PE=N, SPAN, OVERSUBSCRIBE, NOOVERSUBSCRIBE, NOLOCAL, HWTCPUS, ORDERED, FILE=PATH.",
    )
    .placement(),
    row(
        T,
        "map-by",
        &[],
        "OBJECT",
        Act::Text(|t, p| placement::hydra_map_by(&mut t.app.place, p)),
        "Hydra's form: the order in which the ranks of a node take the objects they are bound to.",
    )
    .placement()
    .only(Personality::Hydra),
    row(
        T,
        "ppr",
        &[],
        "N:OBJECT",
        Act::Text(|t, p| placement::ppr(&mut t.app.place, p)),
        "As --map-by ppr:N:OBJECT.",
    )
    .placement(),
    row(
        T,
        "npersocket",
        &[],
        "N",
        Act::Count(|t, n| {
            t.app.place.spec.map_by = MapBy::Ppr(n, Object::Package);
            t.app.place.spec.bind_to = BindTo::Object(Object::Package);
            Ok(())
        }),
        "As --map-by ppr:N:package --bind-to package.",
    )
    .placement(),
    row(
        T,
        "bynode",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.map_by = MapBy::Object(Object::Node);
            t.app.place.spec.rank_by = Some(RankBy::Node);
            Ok(())
        }),
        "Map and rank by node.",
    )
    .placement(),
    row(
        T,
        "byslot",
        &["rr"],
        "",
        Act::Flag(|t| {
            t.app.place.spec.map_by = MapBy::Slot;
            t.app.place.spec.rank_by = Some(RankBy::Slot);
            Ok(())
        }),
        "Map and rank by slot.",
    )
    .placement(),
    row(
        T,
        "bycore",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.map_by = MapBy::Object(Object::Core);
            t.app.place.spec.rank_by = Some(RankBy::Object(Object::Core));
            Ok(())
        }),
        "Map and rank by core.",
    )
    .placement(),
    row(
        T,
        "rank-by",
        &[],
        "POLICY",
        Act::Text(|t, p| placement::rank_by(&mut t.app.place, p)),
        "How mapped places are numbered: slot, node, fill, span or an object.",
    )
    .placement(),
    row(
        T,
        "rankfile",
        &["rf"],
        "FILE",
        Act::Os(|t, file| {
            t.app.place.file = crate::draft::PlaceFile::Rankfile;
            t.app.place.path = Some(file);
            Ok(())
        }),
        "Place each rank as FILE says: 'rank N=HOST slot=LIST'.",
    )
    .placement(),
    row(
        T,
        "bind-to",
        &["binding"],
        "POLICY",
        Act::Text(|t, p| placement::bind_to(&mut t.app.place, p)),
        "CPUs of a rank: none, hwthread, core, l1cache, l2cache, l3cache, numa, package; share (the default) gives \
         each rank of a node an equal part of the usable CPUs; default-openmpi is Open MPI's rule; cpu-list[:ordered] \
         binds to those of --cpu-list, gpu to those near the rank's GPU. ':overload-allowed' lets ranks share CPUs.",
    )
    .placement(),
    row(
        T,
        "bind-to",
        &["binding"],
        "POLICY",
        Act::Text(|t, p| placement::hydra_bind_to(&mut t.app.place, p)),
        "Hydra's form: none (the default), rr, user:LIST, gpu, or OBJECT[:N].",
    )
    .placement()
    .only(Personality::Hydra),
    row(
        T,
        "bind-to-core",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.bind_to = BindTo::Object(Object::Core);
            Ok(())
        }),
        "As --bind-to core.",
    )
    .placement(),
    row(
        T,
        "bind-to-socket",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.bind_to = BindTo::Object(Object::Package);
            Ok(())
        }),
        "As --bind-to package.",
    )
    .placement(),
    row(
        T,
        "cpus-per-proc",
        &["cpus-per-rank"],
        "N",
        Act::Count(|t, n| {
            t.app.place.spec.pe = Some(n);
            Ok(())
        }),
        "As the modifier PE=N of --map-by: N CPUs a rank.",
    )
    .placement(),
    row(
        T,
        "cpu-set",
        &["cpu-list"],
        "LIST",
        Act::Text(|t, list| {
            let set = CpuSet::parse_list(list).filter(|s| !s.is_empty());
            let set = set.ok_or_else(|| format!("'{list}' is not a list of CPUs (0-3,8)"))?;
            t.app.place.spec.cpu_set = Some(set);
            Ok(())
        }),
        "Use only these logical CPUs of each node.",
    )
    .placement(),
    row(
        T,
        "membind",
        &[],
        "POLICY",
        Act::Text(|t, policy| {
            match policy {
                "local" | "firsttouch" => t.job.job.memory = Some(MemoryPolicy::Local),
                "interleave" => t.job.job.memory = Some(MemoryPolicy::Interleave),
                "none" => t.job.job.memory = None,
                other => t.note(format!("{}: '{other}' is not used (there are local and interleave)", t.spelled)),
            }
            Ok(())
        }),
        "Where ranks' memory comes from: local (the NUMA node that uses it first) or interleave (all in turn).",
    ),
    row(
        T,
        "gpus-per-proc",
        &["g"],
        "N",
        Act::Text(|t, n| {
            t.job.job.gpus_per_rank = Some(gpus(n)?);
            t.job.job.gpu_parts = false;
            Ok(())
        }),
        "GPUs each rank sees: a number, or auto to deal those of the node evenly.",
    ),
    row(
        T,
        "gpu-subdevs-per-proc",
        &[],
        "N",
        Act::Text(|t, n| {
            t.job.job.gpus_per_rank = Some(gpus(n)?);
            t.job.job.gpu_parts = true;
            Ok(())
        }),
        "As --gpus-per-proc, but parts (tiles) of GPUs are dealt; a GPU that has none is one part.",
    ),
    row(
        T,
        "use-hwthread-cpus",
        &[],
        "",
        Act::Flag(|t| {
            t.app.place.spec.use_hwthreads = true;
            Ok(())
        }),
        "Slots and CPUs are hardware threads, not cores.",
    )
    .placement(),
];
