//! From reports to what each node is told to start: the planner's placement, the forwarded environment, the
//! job's id and key. Two names of one node become one node whose slots add up; its second daemon is told to
//! finish.

use crate::hosts;
use crate::input::Input;
use crate::job::Config;
use crate::reach::Target;
use crate::view::PlanView;
use ring::rand::{SecureRandom as _, SystemRandom};
use rmpi_control::PlanFault;
use rmpi_types::env::{explicit_env, forward_env};
use rmpi_types::launch::{AppLaunch, EnvMerge, Extras, Mpi, NodeFiles, StdioKind};
use rmpi_types::spec::{App, EnvMap, Host, JobSpec, Shown, Slots, Stdin, Universe};
use rmpi_types::{
    JobId, NodeId, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankLaunch, RankSet, Topology,
};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::IpAddr;

/// Output bytes of all streams that may be on their way at once, shared among the streams.
const OUTPUT_IN_FLIGHT: u32 = 64 << 20;
/// Least of it a stream gets: two of the longest lines that are kept whole.
const OUTPUT_CREDIT_MIN: u32 = 128 << 10;
/// Most of it a stream gets.
const OUTPUT_CREDIT_MAX: u32 = 1 << 20;

/// A placed job.
pub(crate) struct Planned {
    /// What each used host starts.
    pub(crate) launches: Vec<(NodeIdx, NodeLaunch)>,
    /// Ranks a host.
    pub(crate) placement: Vec<(NodeIdx, RankSet)>,
    /// Ranks in all.
    pub(crate) size: u32,
    /// For display.
    pub(crate) view: PlanView,
}

/// The plan as far as it can be made without asking any other host: one of unknown size counts as one slot for
/// each rank its line promises, else as one.
///
/// # Errors
/// The planner's words.
pub fn preview(spec: &JobSpec) -> Result<PlanView, String> {
    let local = |host: Option<&Host>| host.is_none_or(|h| hosts::is_this_machine(h, &spec.reach));
    let topology = |host: Option<&Host>| match host.map(|h| h.slots) {
        _ if local(host) => rmpi_daemon::topology(),
        Some(Slots::Count(n)) => Topology::flat(n.max(1)),
        _ => Topology::flat(1),
    };
    let indices = 0..spec.hosts.len().max(1);
    let facts = indices.map(|i| rmpi_plan::NodeFacts {
        hosts: vec![i],
        local: local(spec.hosts.get(i)),
        topology: topology(spec.hosts.get(i)),
    });
    let facts: Vec<rmpi_plan::NodeFacts> = facts.collect();
    let plan = rmpi_plan::place(spec, &facts).map_err(|e| e.to_string())?;
    let names = match spec.hosts.as_slice() {
        [] => vec![hosts::own_name()],
        hosts => hosts.iter().map(|h| h.name.clone()).collect(),
    };
    let nodes = names.into_iter().zip(facts).map(|(name, fact)| (name, 0, fact.topology)).collect();
    Ok(PlanView::new(&plan, nodes))
}

/// How each host of a job would be reached, in words.
#[must_use]
pub fn ways(spec: &JobSpec) -> Vec<(String, String)> {
    let way = |host: &Host| {
        if hosts::is_this_machine(host, &spec.reach) {
            return "this machine".to_owned();
        }
        if let Some(agent) = &spec.reach.agent {
            let words: Vec<_> = agent.iter().map(|w| w.to_string_lossy()).collect();
            return format!("agent {}", words.join(" "));
        }
        let user =
            host.user.as_ref().or(spec.reach.ssh_user.as_ref()).map(|u| format!("{u}@")).unwrap_or_default();
        let port = host.port.or(spec.reach.ssh_port).map(|p| format!(" port {p}")).unwrap_or_default();
        format!("ssh {user}{}{port}", host.name)
    };
    spec.hosts.iter().map(|h| (h.name.clone(), way(h))).collect()
}

/// Nodes that reported, each with the hosts that are names of it; the first host has the daemon we keep.
fn nodes(reports: &[(NodeIdx, NodeReport)]) -> Vec<(Vec<NodeIdx>, &NodeReport)> {
    let mut at: HashMap<&NodeId, usize> = HashMap::new();
    let mut nodes: Vec<(Vec<NodeIdx>, &NodeReport)> = Vec::new();
    for (host, report) in reports {
        let i = *at.entry(&report.id).or_insert_with(|| {
            nodes.push((Vec::new(), report));
            nodes.len() - 1
        });
        nodes[i].0.push(*host);
    }
    nodes
}

/// Indices of the hosts that the job needs, in the order of the list: those that can get ranks, where that
/// does not depend on what hosts report, else all. `local` are those that are this machine.
///
/// # Errors
/// The planner's words when the job cannot fit whatever hosts report.
pub(crate) fn hosts_needed(spec: &JobSpec, local: &[usize]) -> Result<Vec<usize>, String> {
    rmpi_plan::hosts_needed(spec, local).map_err(|e| e.to_string())
}

/// Places the job on the hosts that reported.
///
/// # Errors
/// [`PlanFault`] when it does not fit, or the system gives no random bytes.
pub(crate) fn make(
    config: &Config,
    targets: &[Target],
    reports: &[(NodeIdx, NodeReport)],
    reached_at: &HashMap<NodeIdx, Option<IpAddr>>,
) -> Result<Planned, PlanFault> {
    let nodes = nodes(reports);
    let target = |host: &NodeIdx| &targets[host.0 as usize];
    let facts = |(hosts, report): &(Vec<NodeIdx>, &NodeReport)| rmpi_plan::NodeFacts {
        hosts: hosts.iter().map(|h| target(h).index).collect(),
        local: hosts.iter().any(|h| target(h).local),
        topology: report.topology.clone(),
    };
    let facts: Vec<rmpi_plan::NodeFacts> = nodes.iter().map(facts).collect();
    let plan = rmpi_plan::place(&config.spec, &facts)
        .map_err(|e| PlanFault { code: rmpi_types::exit::USAGE, message: e.to_string() })?;
    let internal =
        || PlanFault { code: rmpi_types::exit::INTERNAL, message: "the system gives no random bytes".into() };
    let (mut job, mut key) = ([0; 16], [0; 32]);
    let random = SystemRandom::new();
    random.fill(&mut job).and_then(|()| random.fill(&mut key)).map_err(|_| internal())?;

    let size = u32::try_from(plan.ranks.len()).unwrap_or(u32::MAX);
    named_ranks_exist(&config.spec, size)
        .map_err(|message| PlanFault { code: rmpi_types::exit::USAGE, message })?;
    let mut placed: Vec<Vec<&rmpi_plan::PlacedRank>> = vec![Vec::new(); nodes.len()];
    for rank in &plan.ranks {
        placed[rank.node.0 as usize].push(rank);
    }
    let used: Vec<usize> = (0..nodes.len()).filter(|&n| !placed[n].is_empty()).collect();
    config
        .spec
        .data
        .check(used.len())
        .map_err(|message| PlanFault { code: rmpi_types::exit::USAGE, message })?;
    let mpi = mpi(config, &plan);
    let host_of = |n: &usize| target(&nodes[*n].0[0]).host.name.as_str();
    crate::horovod::placed(config, used.iter().map(|n| (host_of(n), placed[*n].len())));
    let layout = run_lengths(used.iter().map(|&n| placed[n].len()));
    let apps: Vec<AppLaunch> = config.spec.apps.iter().map(|app| app_launch(app, config)).collect();
    let mut launches = Vec::with_capacity(used.len());
    let mut placement = Vec::with_capacity(used.len());
    for (dense, &n) in (0u32..).zip(&used) {
        let host = nodes[n].0[0];
        placement.push((host, placed[n].iter().map(|r| r.rank).collect()));
        let launch = NodeLaunch {
            job: JobId(job),
            ns: ProcId::default(),
            node: NodeIdx(dense),
            nodes: u32::try_from(used.len()).unwrap_or(u32::MAX),
            size,
            universe: match config.spec.universe {
                Universe::Slots => plan.universe,
                Universe::Infinite => 0,
                Universe::Count(n) => n,
            },
            host: target(&host).host.name.clone(),
            apps: apps.clone(),
            ranks: placed[n].iter().map(|r| rank_launch(r, config)).collect(),
            layout: layout.clone(),
            mpi: mpi.clone(),
            reached_at: reached_at.get(&host).copied().flatten(),
            ifaces: config.spec.ifaces.clone(),
            port_range: config.spec.port_range,
            key,
            data: config.spec.data,
            oversubscribed: plan.nodes[n].oversubscribed,
            stdio: stdio(config),
            kill_grace_ms: millis(config.spec.limits.kill_grace),
            drain_ms: millis(config.spec.limits.drain),
            extras: extras(config, nodes[n].0.iter().any(|h| target(h).local)),
            output_credit: (OUTPUT_IN_FLIGHT / size.saturating_mul(2).max(1))
                .clamp(OUTPUT_CREDIT_MIN, OUTPUT_CREDIT_MAX),
        };
        launches.push((host, launch));
    }
    let seen = |(hosts, report): &(Vec<NodeIdx>, &NodeReport)| {
        (target(&hosts[0]).host.name.clone(), report.pid, report.topology.clone())
    };
    let view = PlanView::new(&plan, nodes.iter().map(seen).collect());
    Ok(Planned { launches, placement, size, view })
}

/// Refuses options that name a rank which the job does not have: they would silently do nothing.
fn named_ranks_exist(spec: &JobSpec, size: u32) -> Result<(), String> {
    let none = |option: &str, rank: u32| {
        Err(format!("{option}: there is no rank {rank}; the job's ranks are 0 to {}", size.saturating_sub(1)))
    };
    if let Stdin::Rank(rank) = spec.stdin
        && rank.0 >= size
    {
        return none("--stdin", rank.0);
    }
    match &spec.output.shown {
        Shown::Ranks(set) => match set.ranges().last() {
            Some(&(_, last)) if last >= size => none("--ranks-shown", last),
            _ => Ok(()),
        },
        Shown::All | Shown::Local(_) | Shown::Failed => Ok(()),
    }
}

/// What programs of other MPI libraries get to know.
fn mpi(config: &Config, plan: &rmpi_plan::Plan) -> Mpi {
    let mut apps = vec![RankSet::default(); config.spec.apps.len()];
    for rank in &plan.ranks {
        if let Some(app) = apps.get_mut(rank.app as usize) {
            app.insert(rank.rank);
        }
    }
    Mpi { pmi: config.spec.pmi, apps, ..Mpi::default() }
}

fn rank_launch(placed: &rmpi_plan::PlacedRank, config: &Config) -> RankLaunch {
    let stdin = config.spec.stdin.read_by(placed.rank);
    RankLaunch {
        rank: placed.rank,
        app: placed.app,
        local_rank: placed.local_rank,
        cpus: placed.cpus.clone(),
        stdin: stdin && config.input != Input::Null && own_stdin(config).is_none(),
    }
}

/// Whether the ranks get our environment as it is, being started by this very process: sending it would change
/// nothing.
fn at_home(app: &App, config: &Config) -> bool {
    config.front.is_some() && config.own_env && app.env.merge != EnvMerge::Clear
}

pub(crate) fn app_launch(app: &App, config: &Config) -> AppLaunch {
    const NOTHING: &EnvMap = &EnvMap::new();
    let wdir = app.wdir.as_ref().unwrap_or(&config.cwd);
    let exported = if app.env.export.is_empty() { NOTHING } else { config.env() };
    AppLaunch {
        program: app.program.clone(),
        args: app.args.clone(),
        wdir: config.cwd.join(wdir).into(),
        wdir_explicit: app.wdir.is_some(),
        search: app.search.iter().map(|dir| OsString::from(config.cwd.join(dir))).collect(),
        merge: app.env.merge,
        env: if at_home(app, config) { Vec::new() } else { forward_env(config.env(), &app.env) },
        set: crate::horovod::variables(config, explicit_env(exported, &app.env)),
        edits: app.env.edits.clone(),
    }
}

/// The rank that can be given our standard input itself: this process is its daemon. What it does not read stays there,
/// and nothing is copied.
pub(crate) fn own_stdin(config: &Config) -> Option<Rank> {
    match config.spec.stdin {
        Stdin::Rank(rank) if config.front.is_some() && config.input == Input::Inherit => Some(rank),
        Stdin::Rank(_) | Stdin::None | Stdin::All => None,
    }
}

/// What is seldom asked for; `local`: the node is the launcher's own.
fn extras(config: &Config, local: bool) -> Extras {
    let spec = &config.spec;
    let advertise = spec.advertise.as_ref().filter(|_| local);
    Extras {
        rank_vars: spec.rank_vars,
        restart: config.restart,
        restarts: spec.restarts,
        gpus_per_rank: spec.gpus_per_rank,
        gpu_parts: spec.gpu_parts,
        memory: spec.memory,
        ip: spec.ip,
        advertise: advertise.and_then(|name| hosts::resolve(name)),
        files: config.staged.files.clone(),
        in_session: spec.in_session,
        stop_on_exec: spec.stop_on_exec,
        pmi_port: spec.pmi_port,
        own_stdin: own_stdin(config),
        window: rmpi_daemon::window(),
        output: node_files(config),
        unfinished_ok: spec.unfinished_ok,
        signal_direct: spec.signal_direct,
    }
}

/// The job's name in paths and tags.
pub(crate) fn namespace() -> String {
    format!("rmpirun-{}-{}@1", hosts::own_name(), std::process::id())
}

/// Output files that nodes write themselves.
fn node_files(config: &Config) -> Option<NodeFiles> {
    let output = &config.spec.output;
    let files = output.files.as_ref().filter(|_| output.on_nodes)?;
    Some(NodeFiles {
        layout: files.layout.clone(),
        merge: output.merge_stderr,
        copy: !files.nocopy || config.delivery == crate::Delivery::Events,
        namespace: namespace(),
    })
}

/// A terminal for ranks where we have one ourselves, unless the user says otherwise.
fn stdio(config: &Config) -> StdioKind {
    let ours = || config.delivery == crate::Delivery::Inherit && std::io::stdout().is_terminal();
    if config.spec.output.pty.unwrap_or_else(ours) { StdioKind::Pty } else { StdioKind::Pipe }
}

fn millis(limit: std::time::Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}

/// `[2, 2, 3]` as `[(2, 2), (3, 1)]`: count, then how many nodes have it.
fn run_lengths(counts: impl Iterator<Item = usize>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for count in counts.map(|n| u32::try_from(n).unwrap_or(u32::MAX)) {
        match runs.last_mut() {
            Some((last, nodes)) if *last == count => *nodes += 1,
            _ => runs.push((count, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_run_length_coded() {
        assert_eq!(run_lengths([2, 2, 3, 2].into_iter()), [(2, 2), (3, 1), (2, 1)]);
        assert_eq!(run_lengths(std::iter::empty()), []);
    }

    #[test]
    fn options_may_name_only_ranks_that_exist() {
        let mut spec = JobSpec::default();
        assert_eq!(named_ranks_exist(&spec, 1), Ok(()));
        spec.stdin = Stdin::Rank(rmpi_types::Rank(2));
        let error = named_ranks_exist(&spec, 2).unwrap_err();
        assert_eq!(error, "--stdin: there is no rank 2; the job's ranks are 0 to 1");
        assert_eq!(named_ranks_exist(&spec, 3), Ok(()));
        spec.output.shown = Shown::Ranks(rmpi_types::RankSet::from_ranges(vec![(0, 0), (3, 4)]).unwrap());
        assert!(
            named_ranks_exist(&spec, 4).is_err_and(|e| e.starts_with("--ranks-shown: there is no rank 4"))
        );
        assert_eq!(named_ranks_exist(&spec, 5), Ok(()));
    }

    #[test]
    fn two_names_of_one_node_are_one_node() {
        let report = |id: &str| NodeReport {
            id: NodeId(id.into()),
            hostname: "h".into(),
            pid: 1,
            topology: rmpi_types::Topology::flat(2),
            home: OsString::new(),
            nofile: 1024,
            wall_us: 0,
        };
        let reports = [(NodeIdx(0), report("a")), (NodeIdx(1), report("b")), (NodeIdx(2), report("a"))];
        let names: Vec<Vec<NodeIdx>> = nodes(&reports).into_iter().map(|(names, _)| names).collect();
        assert_eq!(names, [vec![NodeIdx(0), NodeIdx(2)], vec![NodeIdx(1)]]);
    }
}
