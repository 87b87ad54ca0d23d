//! What personalities and options with a meaning of their own make of the drafts before they become a job.

use crate::command::{CompatText, Sources};
use crate::draft::{AppDraft, JobDraft, Workers};
use crate::error::CliError;
use crate::personality::Personality;
use rmpi_types::launch::RankVars;
use rmpi_types::spec::{
    BindTo, CpuList, Elastic, FileLayout, Files, Horovod, Host, MapBy, Object, Placement, Slots, Tag,
};
use std::ffi::{OsStr, OsString};

type Program = (Vec<OsString>, AppDraft);

/// Before hosts are read: programs and variables.
pub(crate) fn programs(
    draft: &mut JobDraft,
    programs: &mut [Program],
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    match personality {
        Personality::Torchrun => torch(draft, programs, sources),
        Personality::Horovodrun => horovod(draft, programs)?,
        Personality::Default | Personality::Hydra => {}
    }
    controller(draft, programs, personality, sources)?;
    if !draft.wrap.is_empty() {
        programs.iter_mut().for_each(|(words, _)| drop(words.splice(0..0, draft.wrap.iter().cloned())));
    }
    draft.show.compat = match sources.env.get(OsStr::new("RMPIRUN_COMPAT_TEXT")).and_then(|v| v.to_str()) {
        Some("openmpi") => CompatText::OpenMpi,
        Some("mpich") => CompatText::Mpich,
        _ => CompatText::None,
    };
    Ok(())
}

fn torch(draft: &mut JobDraft, programs: &mut [Program], sources: &Sources<'_>) {
    draft.job.rank_vars = RankVars::Torch;
    draft.torch.workers.get_or_insert(Workers::Count(1));
    let role = draft.torch.role.clone().unwrap_or_else(|| "default".into());
    let id = draft.torch.run_id.clone().unwrap_or_else(|| "none".into());
    let mut set = vec![
        ("ROLE_NAME", role),
        ("TORCHELASTIC_RUN_ID", id),
        ("TORCHELASTIC_USE_AGENT_STORE", "False".into()),
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1".into()),
    ];
    if draft.torch.workers != Some(Workers::Count(1))
        && !sources.env.contains_key(OsStr::new("OMP_NUM_THREADS"))
    {
        set.push(("OMP_NUM_THREADS", "1".into()));
    }
    let set = set.into_iter().map(|(name, value)| (name.into(), Some(value.into())));
    draft.env.set.splice(0..0, set);
    if draft.python.no {
        return;
    }
    let python = sources.env.get(OsStr::new("PYTHON_EXEC")).filter(|v| !v.is_empty());
    let python = python.cloned().unwrap_or_else(|| "python3".into());
    let mut start: Vec<OsString> = vec![python, "-u".into()];
    if draft.python.module {
        start.push("-m".into());
    } else if draft.python.run_path {
        start.extend(
            ["-c", "import runpy,sys;sys.argv=sys.argv[1:];runpy.run_path(sys.argv[0],run_name='__main__')"]
                .map(OsString::from),
        );
    }
    programs.iter_mut().for_each(|(words, _)| drop(words.splice(0..0, start.iter().cloned())));
}

fn horovod(draft: &mut JobDraft, programs: &mut [Program]) -> Result<(), CliError> {
    draft.job.rank_vars = RankVars::Horovod;
    if draft.job.output.tag == Tag::None {
        draft.job.output.tag = Tag::Horovod;
    }
    draft.env.set.insert(0, ("PYTHONUNBUFFERED".into(), Some("1".into())));
    if programs.iter().any(|(_, app)| app.np.is_none()) {
        return Err(CliError::new("-np is missing: horovodrun needs the number of ranks"));
    }
    Ok(())
}

/// How Horovod's workers meet, and whether the job is elastic.
fn controller(
    draft: &mut JobDraft,
    programs: &[Program],
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    let horovodrun = personality == Personality::Horovodrun;
    let elastic = draft.elastic_asked || (horovodrun && draft.discovery.is_some());
    let idle = draft.elastic != Elastic::default();
    if !elastic && idle {
        return Err(CliError::new(
            "elastic options without --min-np or --host-discovery-script: nothing would use them",
        ));
    }
    let gloo = draft.gloo.unwrap_or(horovodrun || elastic);
    if elastic && !gloo {
        return Err(CliError::new("--mpi: elastic jobs need Gloo: leave --mpi out"));
    }
    if gloo {
        draft.job.rank_vars = RankVars::Horovod;
        unmixed(draft, programs, sources)?;
    }
    draft.job.horovod = match (gloo, elastic) {
        (false, _) => Horovod::Mpi,
        (true, false) => Horovod::Gloo,
        (true, true) => Horovod::Elastic(elastic_spec(draft, programs)?),
    };
    Ok(())
}

fn elastic_spec(draft: &mut JobDraft, programs: &[Program]) -> Result<Elastic, CliError> {
    let [(_, app)] = programs else { return Err(CliError::new("an elastic job has one program")) };
    let mut spec = std::mem::take(&mut draft.elastic);
    spec.slots_per_host = draft.default_slots;
    // A plan that is only shown is made for the hosts of now; a job asks when it runs.
    spec.script = if draft.display.dry_run { draft.discovery.clone() } else { draft.discovery.take() };
    let np = app.np.unwrap_or(1);
    let (min, max) = (spec.min_np.unwrap_or(np), spec.max_np.unwrap_or(u32::MAX));
    if min == 0 || min > np || np > max {
        let max = spec.max_np.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
        return Err(CliError::new(format!(
            "--min-np {min}, -np {np}, --max-np {max} do not follow one another"
        )));
    }
    Ok(spec)
}

/// Refuses a controller of the user's that does not go with Gloo: Horovod would abort, or crash later.
fn unmixed(draft: &JobDraft, programs: &[Program], sources: &Sources<'_>) -> Result<(), CliError> {
    for name in ["HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"] {
        let mut sets = programs.iter().flat_map(|(_, app)| &app.env.set).chain(&draft.env.set);
        let set = sets.find(|(n, _)| n == name).and_then(|(_, value)| value.clone());
        let said = set.or_else(|| sources.env.get(OsStr::new(name)).cloned());
        if let Some(value) = said.filter(|v| !v.is_empty() && !v.eq_ignore_ascii_case("gloo")) {
            return Err(CliError::new(format!(
                "{name}={}: HOROVOD_CONTROLLER and HOROVOD_CPU_OPERATIONS are both gloo here; unset it, or use --mpi",
                value.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// horovodrun's hosts where none are named: as many slots here as there are ranks.
pub(crate) fn own_host(programs: &[Program]) -> Host {
    let slots = programs.iter().map(|(_, app)| app.np.unwrap_or(1)).sum();
    Host { name: "localhost".into(), slots: Slots::Count(slots), origin: "-np".into(), ..Host::default() }
}

/// What is known once the hosts are.
pub(crate) fn placement(
    draft: &JobDraft,
    spec: &mut Placement,
    hosts: &mut [Host],
    programs: &[Program],
) -> Result<(), CliError> {
    if let Some(nodes) = draft.torch.nodes {
        let have = hosts.len().max(1);
        if nodes as usize > have || draft.torch.node_rank > 0 {
            let s = if have == 1 { "" } else { "s" };
            return Err(CliError::new(format!(
                "--nnodes {nodes}: {have} host{s} known; rmpirun starts all nodes itself: name them with --host or \
                 --hostfile and call it once (meeting of one launcher a node is not supported by this version)"
            )));
        }
        spec.max_nodes = Some(nodes);
    }
    if programs.iter().all(|(_, app)| app.np.is_none()) {
        match draft.torch.workers {
            Some(Workers::Count(n)) => spec.map_by = MapBy::Ppr(n, Object::Node),
            Some(workers) => {
                spec.slots_by_gpu = workers == Workers::Gpus;
                hosts.iter_mut().for_each(|h| h.slots = Slots::Auto);
            }
            None => {}
        }
        if let Some(Workers::Count(n)) = draft.torch.workers {
            // The slots of a host are no limit to what was asked of each.
            for host in hosts.iter_mut() {
                host.slots = match host.slots {
                    Slots::Count(have) => Slots::Count(have.max(n)),
                    Slots::Auto => Slots::Count(n),
                };
            }
            spec.oversubscribe |= hosts.is_empty();
        }
    }
    if let Some(list) = &draft.rankmap {
        let beyond = list.iter().find(|&&n| n as usize >= hosts.len());
        if let Some(n) = beyond {
            return Err(CliError::new(format!(
                "-rankmap: there is no host {n}; the host list has {}",
                hosts.len()
            )));
        }
        spec.map_by = MapBy::Seq(list.iter().map(|&n| n as usize).collect());
    }
    match (&mut spec.bind_to, &spec.cpu_set) {
        (BindTo::List(list), Some(set)) if list.entries.is_empty() => {
            list.entries = set.iter().map(|cpu| std::iter::once(cpu).collect()).collect();
        }
        (BindTo::List(CpuList { entries, .. }), None) if entries.is_empty() => {
            return Err(CliError::new("--bind-to cpu-list needs the list: add --cpu-list CPUS"));
        }
        _ => {}
    }
    Ok(())
}

/// Output files that several options name together.
pub(crate) fn output(
    draft: &mut JobDraft,
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    if draft.job.output.on_nodes && matches!(draft.job.horovod, Horovod::Elastic(_)) {
        return Err(CliError::new(
            "--output-where node: the ranks of an elastic job move between nodes; leave it out",
        ));
    }
    let [out, err] = std::mem::take(&mut draft.patterns);
    if out.is_some() || err.is_some() {
        draft.job.output.files = Some(Files { layout: FileLayout::Patterns { out, err }, nocopy: false });
    }
    let torch = &draft.torch;
    if torch.redirects.is_empty() && torch.tee.is_empty() && torch.log_dir.is_none() {
        return Ok(());
    }
    if torch.redirects.is_empty() && torch.tee.is_empty() && personality != Personality::Torchrun {
        return Err(CliError::new("--log-dir needs --redirects or --tee: what is to be written there"));
    }
    let role = torch.role.clone().unwrap_or_else(|| "default".into());
    if !torch.tee.is_empty() && draft.job.output.tag == Tag::None {
        draft.job.output.tag = Tag::Torch(role);
    }
    let dir = torch.log_dir.clone().unwrap_or_else(|| sources.cwd.join("torchelastic_logs"));
    let layout = FileLayout::Torch { dir, redirects: torch.redirects.clone(), tee: torch.tee.clone() };
    draft.job.output.files = Some(Files { layout, nocopy: false });
    Ok(())
}
