//! Host lists of resource managers: Slurm, PBS and Torque, LSF, Grid Engine, Cobalt, Flux, from the variables and
//! files they give a job, and the tool each has for starting a command on a host.

use crate::command::Sources;
use crate::error::CliError;
use rmpi_plan::hosts::{HostDialect, ParsedHosts, parse_host_list, parse_hostfile};
use rmpi_types::spec::{RankfileCpus, RankfileEntry, Slots};
use rmpi_types::{CpuSet, Rank};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Resource managers by name.
pub(crate) const KINDS: &[&str] = &["slurm", "pbs", "lsf", "sge", "cobalt", "flux"];

/// Step ids of Slurm that are no steps of a job's own: those of a batch script, of an interactive shell, of the
/// containers around them (`slurm.h`).
const NO_STEPS: [&str; 4] = ["4294967291", "4294967290", "4294967292", "4294967293"];

/// What a resource manager gave this job.
pub(crate) struct Allocation {
    pub(crate) hosts: ParsedHosts,
    /// Where it wants each rank, if it says.
    pub(crate) places: Vec<RankfileEntry>,
    /// Starts commands on them.
    pub(crate) tool: Option<&'static str>,
}

/// Looks at the variables; `only` names the resource manager, `user` none.
///
/// # Errors
/// One that was named and did not give this job any hosts, or lists that cannot be read.
pub(crate) fn find(only: Option<&str>, sources: &Sources<'_>) -> Result<Option<Allocation>, CliError> {
    let Some(only) = only else {
        for kind in KINDS {
            if let Some(found) = of(kind, sources)? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    };
    if only == "user" {
        return Ok(None);
    }
    let none = || CliError::new(format!("{only} has given this job no hosts: its variables are not set"));
    of(only, sources)?.ok_or_else(none).map(Some)
}

/// Whether this process is itself a task that a resource manager started as one rank of a job.
pub(crate) fn is_task(sources: &Sources<'_>) -> bool {
    let family =
        |prefix: &str| sources.env.keys().any(|n| n.as_encoded_bytes().starts_with(prefix.as_bytes()));
    variable(sources, "SLURM_PROCID").is_some() && (family("PMI_") || family("PMIX_"))
}

fn of(kind: &str, sources: &Sources<'_>) -> Result<Option<Allocation>, CliError> {
    let mut places = Vec::new();
    let (hosts, tool) = match kind {
        "slurm" => (slurm(sources)?, Some("srun")),
        "pbs" => (file(sources, &["PBS_JOBID", "PBS_ENVIRONMENT"], "PBS_NODEFILE")?, None),
        "lsf" => (lsf(sources)?, Some("blaunch")),
        "sge" => (sge(sources)?, Some("qrsh")),
        "cobalt" => (file(sources, &["COBALT_JOBID"], "COBALT_NODEFILE")?, None),
        _ => (flux(sources)?, None),
    };
    if let (Some(hosts), "lsf") = (&hosts, kind) {
        places = affinity(hosts, sources)?;
    }
    Ok(hosts.map(|hosts| Allocation { hosts, places, tool }))
}

fn variable<'a>(sources: &Sources<'a>, name: &str) -> Option<&'a str> {
    sources.env.get(OsStr::new(name)).and_then(|v| v.to_str()).map(str::trim).filter(|v| !v.is_empty())
}

/// Gives hosts their counts, in order; none for those beyond the list.
fn counted(list: &str, name: &str, counts: &[u32]) -> Result<ParsedHosts, CliError> {
    let mut hosts = parse_host_list(list, name, HostDialect::Default)?.into_hosts()?;
    for (i, host) in hosts.hosts.iter_mut().enumerate() {
        host.slots = counts.get(i).map_or(Slots::Auto, |&n| Slots::Count(n));
    }
    Ok(hosts)
}

fn slurm(sources: &Sources<'_>) -> Result<Option<ParsedHosts>, CliError> {
    if variable(sources, "SLURM_JOB_ID").or_else(|| variable(sources, "SLURM_JOBID")).is_none() {
        return Ok(None);
    }
    let step = variable(sources, "SLURM_STEP_ID").or_else(|| variable(sources, "SLURM_STEPID"));
    let in_step = step.is_some_and(|id| !NO_STEPS.contains(&id));
    let lists: &[(&str, &str)] = &[
        ("SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"),
        ("SLURM_JOB_NODELIST", "SLURM_TASKS_PER_NODE"),
        ("SLURM_NODELIST", "SLURM_TASKS_PER_NODE"),
    ];
    for &(name, tasks) in &lists[usize::from(!in_step)..] {
        let Some(list) = variable(sources, name) else { continue };
        let wrong =
            |what: &str, text: &str| CliError::new(format!("{what}: '{text}' is not a list of counts"));
        if let Some(text) = variable(sources, tasks) {
            let counts = repeated(text).ok_or_else(|| wrong(tasks, text))?;
            return counted(list, name, &counts).map(Some);
        }
        let cpus = "SLURM_JOB_CPUS_PER_NODE";
        let each: u32 = variable(sources, "SLURM_CPUS_PER_TASK").and_then(|n| n.parse().ok()).unwrap_or(1);
        let mut counts = Vec::new();
        if let Some(text) = variable(sources, cpus) {
            counts = repeated(text).ok_or_else(|| wrong(cpus, text))?;
        }
        counts.iter_mut().for_each(|n| *n = (*n / each.max(1)).max(1));
        return counted(list, name, &counts).map(Some);
    }
    Ok(None)
}

/// Slurm's `2(x3),1` as `2,2,2,1`.
fn repeated(text: &str) -> Option<Vec<u32>> {
    let mut counts = Vec::new();
    for part in text.split(',') {
        let (count, times) = match part.split_once('(') {
            Some((count, times)) => (count, times.strip_prefix('x')?.strip_suffix(')')?.parse().ok()?),
            None => (part, 1usize),
        };
        let count: u32 = count.trim().parse().ok()?;
        if counts.len() + times > rmpi_plan::hosts::MAX_HOSTS {
            return None;
        }
        counts.extend(std::iter::repeat_n(count, times));
    }
    Some(counts)
}

/// A host file that a variable names, one line a slot.
fn file(sources: &Sources<'_>, signs: &[&str], name: &str) -> Result<Option<ParsedHosts>, CliError> {
    let Some(path) = variable(sources, name) else { return Ok(None) };
    if signs.iter().all(|s| variable(sources, s).is_none()) {
        return Ok(None);
    }
    let bytes = (sources.read_file)(Path::new(path)).map_err(|e| unread(name, path, &e))?;
    let mut lines = String::new();
    for host in String::from_utf8_lossy(&bytes).lines().filter_map(|l| l.split_whitespace().next()) {
        lines.push_str(host);
        lines.push_str(" slots=1\n");
    }
    summed(&lines, path).map(Some)
}

/// Lines `host slots=N`, counts of one host added up without a word about it.
fn summed(lines: &str, name: &str) -> Result<ParsedHosts, CliError> {
    let mut hosts = parse_hostfile(lines.as_bytes(), name, HostDialect::Default)?;
    hosts.notes.clear();
    Ok(hosts)
}

fn unread(name: &str, path: &str, error: &std::io::Error) -> CliError {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    CliError::new(format!("{name}: cannot read '{path}': {text} (--rmk user does without it)"))
}

fn lsf(sources: &Sources<'_>) -> Result<Option<ParsedHosts>, CliError> {
    if variable(sources, "LSB_JOBID").is_none() {
        return Ok(None);
    }
    if let Some(text) = variable(sources, "LSB_MCPU_HOSTS") {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut lines = String::new();
        for pair in words.chunks(2) {
            let [host, slots] = pair else {
                return Err(CliError::new(format!(
                    "LSB_MCPU_HOSTS: '{text}' is not pairs of host and slots"
                )));
            };
            lines.push_str(&format!("{host} slots={slots}\n"));
        }
        return summed(&lines, "LSB_MCPU_HOSTS").map(Some);
    }
    if variable(sources, "LSB_DJOB_HOSTFILE").is_some() {
        return file(sources, &["LSB_JOBID"], "LSB_DJOB_HOSTFILE");
    }
    let Some(text) = variable(sources, "LSB_HOSTS") else { return Ok(None) };
    let lines: String = text.split_whitespace().map(|h| format!("{h} slots=1\n")).collect();
    summed(&lines, "LSB_HOSTS").map(Some)
}

/// `LSB_AFFINITY_HOSTFILE`: a line a rank, `host CPUs [NUMA nodes [memory policy]]`, the CPUs by the operating system's
/// numbers. An empty file says that no affinity was asked for.
fn affinity(hosts: &ParsedHosts, sources: &Sources<'_>) -> Result<Vec<RankfileEntry>, CliError> {
    const NAME: &str = "LSB_AFFINITY_HOSTFILE";
    let Some(path) = variable(sources, NAME) else { return Ok(Vec::new()) };
    let bytes = (sources.read_file)(Path::new(path)).map_err(|e| unread(NAME, path, &e))?;
    let mut places = Vec::new();
    for (line, text) in (1..).zip(String::from_utf8_lossy(&bytes).lines()) {
        let mut words = text.split_whitespace();
        let Some(name) = words.next() else { continue };
        let origin = format!("{path}:{line}");
        let wrong = |what: String| CliError::new(format!("{origin}: {what} (--rmk user does without it)"));
        let host = hosts.hosts.iter().position(|h| h.name.eq_ignore_ascii_case(name));
        let host = host.ok_or_else(|| wrong(format!("'{name}' is none of this job's hosts")))?;
        let cpus = match words.next() {
            None | Some("-") => None,
            Some(list) => {
                let set = CpuSet::parse_list(list).filter(|set| !set.is_empty());
                let set = set.ok_or_else(|| wrong(format!("'{list}' is not a list of CPUs")))?;
                Some(RankfileCpus::Os(set))
            }
        };
        let rank = Rank(u32::try_from(places.len()).unwrap_or(u32::MAX));
        places.push(RankfileEntry { rank, host, cpus, origin });
    }
    Ok(places)
}

fn sge(sources: &Sources<'_>) -> Result<Option<ParsedHosts>, CliError> {
    let given = ["SGE_ROOT", "ARC", "JOB_ID"].iter().all(|n| variable(sources, n).is_some());
    let Some(path) = variable(sources, "PE_HOSTFILE").filter(|_| given) else { return Ok(None) };
    let bytes = (sources.read_file)(Path::new(path)).map_err(|e| unread("PE_HOSTFILE", path, &e))?;
    let mut lines = String::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut words = line.split_whitespace();
        if let (Some(host), Some(slots)) = (words.next(), words.next()) {
            lines.push_str(&format!("{host} slots={slots}\n"));
        }
    }
    summed(&lines, path).map(Some)
}

fn flux(sources: &Sources<'_>) -> Result<Option<ParsedHosts>, CliError> {
    if variable(sources, "FLUX_JOB_ID").is_none() || variable(sources, "FLUX_URI").is_none() {
        return Ok(None);
    }
    let words = ["flux", "hostlist", "local"].map(OsStr::new);
    let output = (sources.run)(&words)
        .map_err(|e| CliError::new(format!("flux hostlist local: {e} (--rmk user does without it)")))?;
    let list = String::from_utf8_lossy(&output);
    let nodes: Option<u32> = variable(sources, "FLUX_JOB_NNODES").and_then(|n| n.parse().ok());
    let tasks: Option<u32> = variable(sources, "FLUX_JOB_SIZE").and_then(|n| n.parse().ok());
    let each = match (tasks, nodes) {
        (Some(tasks), Some(nodes @ 1..)) => vec![tasks.div_ceil(nodes); nodes as usize],
        _ => Vec::new(),
    };
    counted(list.trim(), "flux hostlist local", &each).map(Some)
}

/// The agent command of a tool; `{host}` stands for the host.
pub(crate) fn agent(tool: &str, sources: &Sources<'_>) -> Vec<OsString> {
    let words: Vec<&str> = match tool {
        "srun" => {
            // Binding is switched off by the variable: the option's spelling has changed between releases. A count
            // of CPUs a task would confine the daemon to as many.
            let start = "env -u SLURM_CPUS_PER_TASK -u SRUN_CPUS_PER_TASK -u SLURM_NTASKS SLURM_CPU_BIND=none srun \
                         --nodes=1 --ntasks=1 --unbuffered --mpi=none";
            let overlap = slurm_version(sources) >= Some((20, 11));
            start
                .split_whitespace()
                .chain(overlap.then_some("--overlap"))
                .chain(["--nodelist={host}", "sh", "-c"])
                .collect()
        }
        "qrsh" => vec!["qrsh", "-inherit", "-V", "{host}"],
        other => vec![other, "{host}"],
    };
    words.into_iter().map(OsString::from).collect()
}

/// `slurm 22.05.8` as (22, 5).
fn slurm_version(sources: &Sources<'_>) -> Option<(u32, u32)> {
    let text = (sources.run)(&["srun", "--version"].map(OsStr::new)).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut numbers = text.split_whitespace().nth(1)?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurm_counts() {
        assert_eq!(repeated("2(x3),1"), Some(vec![2, 2, 2, 1]));
        for bad in ["", "x", "2(3)", "2(x", "1(x99999999)"] {
            assert_eq!(repeated(bad), None, "{bad}");
        }
    }
}
