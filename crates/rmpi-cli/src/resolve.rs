//! From what was said to a [`rmpi_types::JobSpec`]: host files are read and combined, agents and ssh arguments
//! understood, environments merged. The last step; precedence has been settled before.

use crate::command::{Command, Sources};
use crate::draft::{AppDraft, JobDraft, PlaceDraft, PlaceFile};
use crate::error::CliError;
use crate::personality::Personality;
use crate::pod::{self, Pod};
use crate::values::truth;
use crate::{allocation, finish, ssh_args};
use rmpi_plan::hosts::{
    HostDialect, HostList, ParsedHosts, combine, parse_host_list, parse_hostfile, per_context, read_hostfile,
};
use rmpi_types::launch::EnvEdit;
use rmpi_types::spec::{
    App, Env, EnvMap, Horovod, Host, JobSpec, MapBy, Placement, RankfileEntry, Reach, Slots, Stdin,
};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Most places a host list with repeats may have.
const MAX_PLACES: usize = 1 << 20;

type Program = (Vec<OsString>, AppDraft);

/// Makes the job.
pub(crate) fn resolve(
    mut draft: JobDraft,
    mut programs: Vec<Program>,
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<Command, CliError> {
    finish::programs(&mut draft, &mut programs, personality, sources)?;
    finish::output(&mut draft, personality, sources)?;
    let (allocation, places) = allocated(&mut draft, &mut programs, sources)?.unzip();
    let placed = said_nothing(&draft, &programs).then_some(places).flatten().unwrap_or_default();
    let pod = pod::find(sources);
    let mut job: JobSpec = std::mem::take(&mut draft.job);
    job.reach = reach(&mut draft, std::mem::take(&mut job.reach), sources)?;
    job.reach.dial_back |=
        job.reach.agent.as_ref().and_then(|a| a.first()).is_some_and(|a| pod::is_kubexec(a));
    if pod.is_some() {
        job.reach.patient = true;
        job.reach.local_beside_agent = true;
        job.reach.own_names = pod::own_names(sources);
        job.limits.launch.get_or_insert(pod::WAIT);
    }
    if !draft.grace_said && (pod.is_some() || pod::is_one(sources)) {
        job.limits.pod_grace = Some(pod::GRACE);
    }
    network(&draft, &mut job);
    job.data.check(1).map_err(CliError::new)?;
    let (mut hosts, contexts) =
        hosts(&mut draft, &mut job, &programs, (allocation, pod), personality, sources)?;
    let discovers = matches!(&job.horovod, Horovod::Elastic(elastic) if elastic.script.is_some());
    if hosts.hosts.is_empty() && personality == Personality::Horovodrun && !discovers {
        hosts.hosts.push(finish::own_host(&programs));
    }
    job.placement = placement(&programs, &hosts, personality, sources)?;
    finish::placement(&draft, &mut job.placement, &mut hosts.hosts, &programs)?;
    if !placed.is_empty() {
        job.placement.map_by = MapBy::Rankfile(as_many(placed, &programs)?);
    }
    if let (Some(pod), false, [(_, app)]) = (pod, job.placement.oversubscribe, programs.as_slice()) {
        pod::enough(pod, &hosts.hosts, app.np, &job.placement.map_by)?;
    }
    job.hosts = hosts.hosts;
    let one = personality == Personality::Hydra && job.hosts.is_empty();
    for ((command, app), own) in programs.into_iter().zip(contexts) {
        job.apps.push(program(command, app, &draft.env, own));
    }
    if draft.fork {
        all_here(&mut job);
    }
    for app in job.apps.iter_mut().filter(|_| one) {
        app.np.get_or_insert(1);
    }
    draft.notes.extend(hosts.notes);
    if !draft.unknown_mca.is_empty() {
        let keys: Vec<&str> = draft.unknown_mca.iter().map(String::as_str).collect();
        draft.notes.push(format!("launcher parameters without a meaning here: {}", keys.join(" ")));
    }
    let notes_off = sources.env.get(OsStr::new("RMPIRUN_NOTES")).and_then(|v| v.to_str());
    if job.output.quiet || notes_off.is_some_and(|v| truth(v) == Ok(false)) {
        draft.notes.clear();
    }
    Ok(Command {
        job,
        log: draft.log,
        display: draft.display,
        show: draft.show,
        signals: draft.signals,
        notes: draft.notes,
        personality,
    })
}

/// The hosts a resource manager gave this job, and its tool as the way onto them.
fn allocated(
    draft: &mut JobDraft,
    programs: &mut [Program],
    sources: &Sources<'_>,
) -> Result<Option<(ParsedHosts, Vec<RankfileEntry>)>, CliError> {
    if draft.rmk.is_none() && allocation::is_task(sources) && programs.iter().all(|(_, app)| app.np.is_none())
    {
        // One of many tasks that srun started: each is a job of one rank.
        programs.iter_mut().for_each(|(_, app)| app.np = Some(1));
        return Ok(None);
    }
    let Some(found) = allocation::find(draft.rmk.as_deref(), sources)? else { return Ok(None) };
    let chosen = draft.agent.is_some() || draft.ssh_asked || draft.fork || draft.rsh || draft.tool.is_some();
    if let (Some(tool), false) = (found.tool, chosen) {
        if (sources.have)(tool) {
            draft.tool = Some(tool);
        } else if found.hosts.hosts.len() > 1 {
            draft.notes.push(format!("{tool} is not in PATH here; ssh is used"));
        }
    }
    Ok(Some((found.hosts, found.places)))
}

/// Whether the user has left hosts, mapping and binding to the resource manager.
fn said_nothing(draft: &JobDraft, programs: &[Program]) -> bool {
    let untold = |(_, app): &Program| app.place == PlaceDraft::default() && app.hosts.items.is_empty();
    let counted = programs.len() == 1 || programs.iter().all(|(_, app)| app.np.is_some());
    let files = draft.hostfile.is_some() || draft.default_hostfile.is_some() || draft.discovery.is_some();
    let others = draft.fork || draft.rankmap.is_some() || draft.torch.workers.is_some();
    counted && !files && !others && !draft.placement_said && programs.iter().all(untold)
}

/// The first places of a resource manager's list, as many as there are ranks.
fn as_many(mut places: Vec<RankfileEntry>, programs: &[Program]) -> Result<Vec<RankfileEntry>, CliError> {
    let Some(ranks) = programs.iter().map(|(_, app)| app.np).sum::<Option<u32>>() else { return Ok(places) };
    if ranks as usize > places.len() {
        return Err(CliError::new(format!(
            "{ranks} ranks asked for, LSB_AFFINITY_HOSTFILE has {} places (--rmk user, or --map-by, does without it)",
            places.len()
        )));
    }
    places.truncate(ranks as usize);
    Ok(places)
}

/// Reads a file the user named.
///
/// # Errors
/// `FILE: what the system said`.
pub(crate) fn read(file: &OsStr, what: &str, sources: &Sources<'_>) -> Result<Vec<u8>, CliError> {
    let shown = file.to_string_lossy();
    if file.is_empty() {
        let hint = "nearly always an empty shell variable";
        return Err(CliError::new(format!("the name of the {what} is empty ({hint})")));
    }
    let bytes =
        if file == "-" { (sources.read_stdin)() } else { (sources.read_file)(&sources.cwd.join(file)) };
    bytes.map_err(|e| {
        let text = e.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        CliError::new(format!("cannot read {what} '{shown}': {text}"))
    })
}

/// The pool, and for each program its hosts in it.
#[allow(clippy::type_complexity, reason = "the pair of `per_context`")]
fn hosts(
    draft: &mut JobDraft,
    job: &mut JobSpec,
    programs: &[Program],
    (allocation, pod): (Option<ParsedHosts>, Option<Pod>),
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(ParsedHosts, Vec<Option<Vec<usize>>>), CliError> {
    let dialect = dialect(personality);
    let file = draft.hostfile.take().or_else(|| draft.default_hostfile.take());
    let mut pool = allocation;
    if let Some(program) = draft.discovery.take() {
        let shown = program.to_string_lossy().into_owned();
        let output = (sources.run)(&[program.as_os_str()])
            .map_err(|e| CliError::new(format!("host discovery script {shown}: {e}")))?;
        let mut found = parse_hostfile(&output, &shown, dialect)?;
        let each = draft.default_slots.unwrap_or(1);
        found.hosts.iter_mut().filter(|h| h.slots == Slots::Auto).for_each(|h| h.slots = Slots::Count(each));
        pool = Some(found);
    }
    if let Some(file) = &file {
        if file == "-" {
            if draft.stdin_given && job.stdin != Stdin::None {
                return Err(CliError::new(
                    "standard input cannot be both the host file and the input of ranks",
                ));
            }
            job.stdin = Stdin::None;
        }
        let bytes = read(file, "host file", sources)?;
        let name = file.to_string_lossy();
        let mut parsed = match &pool {
            Some(pool) => combine(pool, &read_hostfile(&bytes, &name, dialect)?)?,
            None => parse_hostfile(&bytes, &name, dialect)?,
        };
        if let Some(n) = draft.default_slots {
            let bare = parsed.hosts.iter_mut().filter(|h| h.slots == Slots::Auto);
            bare.for_each(|h| h.slots = Slots::Count(n));
        }
        pool = Some(parsed);
    }
    let mut lists: Vec<Option<HostList>> = Vec::with_capacity(programs.len());
    for (_, app) in programs {
        let Some((spelled, _)) = app.hosts.items.first() else {
            lists.push(None);
            continue;
        };
        let all: Vec<&str> = app.hosts.items.iter().map(|(_, list)| list.as_str()).collect();
        lists.push(Some(parse_host_list(&all.join(","), spelled, dialect)?));
    }
    let discovers = matches!(&job.horovod, Horovod::Elastic(elastic) if elastic.script.is_some());
    if discovers && !draft.display.dry_run && lists.iter().all(Option::is_none) {
        // Hosts come from the script while the job runs.
        return Ok((ParsedHosts::default(), vec![None; programs.len()]));
    }
    if pool.is_none() && lists.iter().all(Option::is_none) && !draft.fork {
        pool = pod::hostfile(pod, dialect, sources)?;
    }
    if let (Some(pool), Some(_)) = (&mut pool, pod) {
        let perhost = sources.env.get(OsStr::new("I_MPI_PERHOST")).and_then(|v| v.to_str()?.parse().ok());
        draft.notes.extend(pod::slots(pool, draft.default_slots.or(perhost))?);
    }
    if pool.is_none() && lists.iter().all(Option::is_none) {
        return Ok((ParsedHosts::default(), vec![None; programs.len()]));
    }
    Ok(per_context(pool.as_ref(), &lists)?)
}

fn dialect(personality: Personality) -> HostDialect {
    match personality {
        Personality::Hydra => HostDialect::Hydra,
        Personality::Default | Personality::Horovodrun | Personality::Torchrun => HostDialect::Default,
    }
}

/// The job's placement: the first program's (all agree), with its files read.
fn placement(
    programs: &[Program],
    hosts: &ParsedHosts,
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<Placement, CliError> {
    let Some((_, first)) = programs.first() else { return Ok(Placement::default()) };
    let mut spec = first.place.spec.clone();
    let path = first.place.path.as_deref();
    match (first.place.file, path) {
        (PlaceFile::None, Some(path)) => {
            let shown = path.to_string_lossy();
            return Err(CliError::new(format!("--map-by: FILE={shown} goes with seq or rankfile")));
        }
        (PlaceFile::Rankfile, None) => {
            return Err(CliError::new(
                "--map-by rankfile needs a file: rankfile:FILE=PATH, or --rankfile PATH",
            ));
        }
        (PlaceFile::Rankfile, Some(path)) => {
            let bytes = read(path, "rank file", sources)?;
            let entries = rmpi_plan::rankfile::parse(&bytes, &path.to_string_lossy(), &hosts.hosts)?;
            spec.map_by = MapBy::Rankfile(entries);
        }
        (PlaceFile::Seq, path) => spec.map_by = MapBy::Seq(sequence(path, hosts, personality, sources)?),
        (PlaceFile::None, None) => {
            spec.listed_order |= first.listed;
            let repeats = hosts.listed.len() > hosts.hosts.len();
            let untouched = spec.map_by == MapBy::Slot && spec.per_node.is_none() && spec.rank_by.is_none();
            if spec.listed_order && repeats && untouched && programs.len() == 1 {
                spec.map_by = MapBy::Seq(hosts.places(MAX_PLACES));
            }
        }
    }
    Ok(spec)
}

/// The host lines of `--map-by seq[:FILE=path]`, as indices into the pool.
fn sequence(
    path: Option<&OsStr>,
    hosts: &ParsedHosts,
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<Vec<usize>, CliError> {
    if hosts.hosts.is_empty() {
        return Err(CliError::new("--map-by seq needs a host list: add --hostfile FILE or --host LIST"));
    }
    let Some(path) = path else { return Ok(hosts.listed.clone()) };
    let bytes = read(path, "host file", sources)?;
    let list = read_hostfile(&bytes, &path.to_string_lossy(), dialect(personality))?;
    let chosen = combine(hosts, &list)?;
    let same = |a: &Host, b: &Host| a.name.eq_ignore_ascii_case(&b.name) && a.port == b.port;
    let place = |h: &usize| hosts.hosts.iter().position(|p| same(p, &chosen.hosts[*h]));
    Ok(chosen.listed.iter().filter_map(place).collect())
}

/// Agents, ssh arguments and what overrides them.
fn reach(draft: &mut JobDraft, mut reach: Reach, sources: &Sources<'_>) -> Result<Reach, CliError> {
    let wrong = |what: &str, e: String| CliError::new(format!("{what}: {e}"));
    let agent = draft.agent.as_deref().unwrap_or_default();
    let mut agent = ssh_args::first_agent(agent).map_err(|e| wrong("launch agent", e))?;
    let args = draft.ssh_args.as_deref().unwrap_or_default();
    let mut args = ssh_args::split(args).map_err(|e| wrong("ssh arguments", e))?;
    if draft.rsh && agent.is_empty() {
        return Err(CliError::new(
            "rsh is not supported: it is neither authenticated nor encrypted; use ssh or --launch-exec CMD",
        ));
    }
    if let Some(tool) = draft.tool.filter(|_| agent.is_empty()) {
        reach.agent = Some(allocation::agent(tool, sources));
        reach.local_beside_agent = true;
        return Ok(reach);
    }
    if agent.first().is_some_and(|a| !ssh_args::is_ssh(a)) {
        agent.append(&mut args);
        reach.agent = Some(agent);
        args = Vec::new();
    } else {
        args.splice(0..0, agent.drain(..).skip(1));
    }
    let asked = ssh_args::read(&args).map_err(|e| wrong("ssh arguments", e))?;
    if let Some(foreign) = asked.foreign {
        draft
            .notes
            .push(format!("ssh argument '{foreign}' is not built in; the ssh program is used instead"));
        args.insert(0, "ssh".into());
        reach.agent = Some(args);
        return Ok(reach);
    }
    reach.ssh_port = draft.ssh_port.or(asked.port);
    reach.ssh_user = asked.user;
    let files = draft.identities.items.drain(..).chain(asked.identities);
    reach.identities = files.map(|p| home(p, sources.env)).collect();
    reach.ssh_config = reach.ssh_config.or(asked.config);
    reach.ssh_options = asked.options;
    reach.host_keys = draft.host_keys.or(asked.host_keys);
    if let Some(time) = draft.connect_timeout.or(asked.connect_timeout) {
        reach.connect_timeout = time;
    }
    if let Some(n) = draft.connect_retries.or(asked.attempts) {
        reach.connect_retries = n;
    }
    Ok(reach)
}

/// `~/x` inside a quoted argument, which no shell has expanded.
fn home(path: PathBuf, env: &EnvMap) -> PathBuf {
    match (path.strip_prefix("~"), env.get(OsStr::new("HOME"))) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => path,
    }
}

/// Interfaces and ports that were only given in Open MPI's words.
fn network(draft: &JobDraft, job: &mut JobSpec) {
    if job.ifaces.iter().all(|w| w.starts_with('^')) && !draft.control_ifaces.is_empty() {
        job.ifaces.extend(draft.control_ifaces.iter().cloned());
    }
    let count = draft.port_count.unwrap_or(u16::MAX);
    let from_min = draft.port_min.map(|lo| (lo, lo.saturating_add(count - 1)));
    job.port_range = job.port_range.or(from_min).or(draft.control_ports);
}

/// One program, with the job's environment rules under its own.
fn program(command: Vec<OsString>, draft: AppDraft, global: &Env, hosts: Option<Vec<usize>>) -> App {
    let mut env = draft.env;
    if !draft.env_given {
        (env.forward, env.merge) = (global.forward.clone(), global.merge);
    }
    env.export.extend(global.export.iter().cloned());
    env.edits.splice(0..0, global.edits.iter().cloned());
    let mut set = global.set.clone();
    if let Some(prefix) = draft.prefix {
        env.edits.extend([("PATH", "/bin"), ("LD_LIBRARY_PATH", "/lib")].map(|(name, sub)| {
            let mut value = prefix.clone();
            value.push(sub);
            EnvEdit { name: name.into(), value, separator: b':', front: true }
        }));
    }
    for (family, key, value) in draft.mca {
        let mut name = OsString::from(family);
        name.push(key);
        set.push((name, Some(value)));
    }
    set.append(&mut env.set);
    env.set = set;
    let mut words = command.into_iter();
    App {
        program: words.next().unwrap_or_default(),
        args: words.collect(),
        np: draft.np,
        wdir: draft.wdir,
        search: draft.search,
        env,
        hosts,
        pset: draft.pset,
        preload: draft.preload,
    }
}

/// `-launcher fork`: the hosts' slots, but all on this machine.
fn all_here(job: &mut JobSpec) {
    let counts = job.hosts.iter().map(|h| if let Slots::Count(n) = h.slots { Some(n) } else { None });
    let sum = counts.sum::<Option<u32>>().filter(|&n| n > 0);
    let here = Host {
        name: "localhost".into(),
        slots: sum.map_or(Slots::Auto, Slots::Count),
        origin: "-launcher fork".into(),
        ..Host::default()
    };
    if let MapBy::Seq(lines) = &mut job.placement.map_by {
        lines.fill(0);
    }
    if let MapBy::Rankfile(entries) = &mut job.placement.map_by {
        entries.iter_mut().for_each(|e| e.host = 0);
    }
    for app in &mut job.apps {
        app.hosts = None;
    }
    if !job.hosts.is_empty() {
        job.hosts = vec![here];
    }
}
