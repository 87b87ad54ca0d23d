//! Launcher pods: which operator made the pod this process runs in, told by the variables and files it gave, and
//! what follows for hosts, slots and ways. Kubeflow's mpi-operator (v1, v2beta1), training-operator, Trainer, Flyte
//! (through the training-operator), Volcano.

use crate::command::Sources;
use crate::error::CliError;
use crate::resolve::read;
use rmpi_plan::hosts::{HostDialect, ParsedHosts, parse_hostfile};
use rmpi_types::spec::{Host, MapBy, Slots};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// Where every operator puts the host list.
pub(crate) const HOSTFILE: &str = "/etc/mpi/hostfile";
/// How long pods may take to come: large images take minutes.
pub(crate) const WAIT: Duration = Duration::from_secs(300);
/// What a pod has from SIGTERM to SIGKILL unless its manifest says otherwise.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// The agent of operators that reach workers by `kubectl exec`.
const KUBEXEC: &str = "kubexec.sh";

/// The operator whose launcher pod this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pod {
    /// mpi-operator v1alpha2 and v1, training-operator: workers are reached by `kubectl exec`.
    Kubexec,
    /// mpi-operator v2beta1.
    MpiOperator,
    /// Trainer v2.
    Trainer,
    /// Volcano.
    Volcano,
}

/// Looks at the environment.
pub(crate) fn find(sources: &Sources<'_>) -> Option<Pod> {
    let given = |name: &str| sources.env.get(OsStr::new(name)).filter(|v| !v.is_empty());
    let agent = given("OMPI_MCA_plm_rsh_agent");
    if agent.is_some_and(|a| is_kubexec(a)) {
        return Some(Pod::Kubexec);
    }
    if given("K_MPI_JOB_ROLE").is_some_and(|role| role == "launcher") {
        return Some(Pod::MpiOperator);
    }
    let in_pod = is_one(sources) || given("JOB_COMPLETION_INDEX").is_some();
    let operators = given("OMPI_MCA_orte_default_hostfile").is_some_and(|f| f == HOSTFILE);
    if operators
        && (in_pod || given("OMPI_MCA_plm_rsh_args").is_some_and(|a| a == "-o ConnectionAttempts=10"))
    {
        return Some(Pod::Trainer);
    }
    let volcano = |name: &OsString| {
        name.to_str().is_some_and(|n| n.strip_prefix("VC_").is_some_and(|n| n.ends_with("_HOSTS")))
    };
    sources.env.keys().any(volcano).then_some(Pod::Volcano)
}

/// Whether this is a pod, whoever made it.
pub(crate) fn is_one(sources: &Sources<'_>) -> bool {
    sources.env.get(OsStr::new("KUBERNETES_SERVICE_HOST")).is_some_and(|v| !v.is_empty())
}

/// Whether an agent is the script of operators, which passes no standard input on.
pub(crate) fn is_kubexec(agent: &OsStr) -> bool {
    let first = agent.to_string_lossy();
    let first = first.split_whitespace().next().unwrap_or_default();
    Path::new(first).file_name().is_some_and(|name| name == KUBEXEC)
}

/// The operators' host file where nobody has named one: none of their variables need be there.
///
/// # Errors
/// It is there and cannot be read or understood; a launcher pod without any host list.
pub(crate) fn hostfile(
    pod: Option<Pod>,
    dialect: HostDialect,
    sources: &Sources<'_>,
) -> Result<Option<ParsedHosts>, CliError> {
    match (sources.read_file)(Path::new(HOSTFILE)) {
        Ok(bytes) => Ok(Some(parse_hostfile(&bytes, HOSTFILE, dialect)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match pod {
            None => Ok(None),
            Some(_) => Err(CliError::new(format!(
                "this is a launcher pod, but it has no host list: there is no {HOSTFILE}, and no --hostfile or --host\n  \
                 (ranks in the launcher alone: --host localhost:N)"
            ))),
        },
        Err(_) => read(OsStr::new(HOSTFILE), "host file", sources).map(|_| None),
    }
}

/// What the slots of an operator's host file mean: a bare name has one, as nobody has asked that machine; hosts
/// without slots are left out.
///
/// # Errors
/// No host has a slot.
pub(crate) fn slots(hosts: &mut ParsedHosts, default: Option<u32>) -> Result<Vec<String>, CliError> {
    for host in hosts.hosts.iter_mut().filter(|h| h.slots == Slots::Auto) {
        host.slots = Slots::Count(default.unwrap_or(1));
    }
    let empty: Vec<String> =
        hosts.hosts.iter().filter(|h| h.slots == Slots::Count(0)).map(|h| h.name.clone()).collect();
    if empty.is_empty() {
        return Ok(Vec::new());
    }
    if empty.len() == hosts.hosts.len() {
        let origin = hosts.hosts.first().map_or("the host list", |h| h.origin.as_str());
        return Err(CliError::new(format!(
            "{origin}: no host has a slot: slotsPerWorker of the job is 0 (numProcPerNode in a TrainJob)"
        )));
    }
    let kept: Vec<usize> =
        (0..hosts.hosts.len()).filter(|&i| hosts.hosts[i].slots != Slots::Count(0)).collect();
    let places: Vec<(usize, u32)> = hosts
        .listed
        .iter()
        .zip(&hosts.listed_slots)
        .filter_map(|(h, &n)| kept.iter().position(|k| k == h).map(|at| (at, n)))
        .collect();
    (hosts.listed, hosts.listed_slots) = places.into_iter().unzip();
    hosts.hosts.retain(|h| h.slots != Slots::Count(0));
    Ok(vec![format!("{} has no slots (slots=0) and gets no ranks", empty.join(", "))])
}

/// Too few slots where an operator wrote the counts, with what people run into.
///
/// # Errors
/// More ranks than slots, with the cause.
pub(crate) fn enough(pod: Pod, hosts: &[Host], ranks: Option<u32>, map_by: &MapBy) -> Result<(), CliError> {
    let counts = hosts.iter().map(|h| if let Slots::Count(n) = h.slots { Some(n) } else { None });
    let (Some(ranks), Some(slots)) = (ranks, counts.sum::<Option<u32>>()) else { return Ok(()) };
    if ranks <= slots || hosts.is_empty() || *map_by != MapBy::Slot || pod != Pod::Kubexec {
        return Ok(());
    }
    let each = ranks.div_ceil(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
    Err(CliError::new(format!(
        "{ranks} ranks, {slots} slots: the host file says slots={} per worker\n  (slotsPerWorker of the MPIJob; Flyte \
         drops MPIJob(slots=...) on its way; add --oversubscribe or --map-by ppr:{each}:node)",
        slots / u32::try_from(hosts.len()).unwrap_or(1).max(1)
    )))
}

/// This pod's qualified names, from its own line of `/etc/hosts`: they need no name server. In lower case.
pub(crate) fn own_names(sources: &Sources<'_>) -> Vec<String> {
    let hostname = sources.env.get(OsStr::new("HOSTNAME")).and_then(|v| v.to_str());
    let kernel = (sources.read_file)(Path::new("/proc/sys/kernel/hostname")).ok();
    let kernel = kernel.as_deref().map(|b| String::from_utf8_lossy(b).trim().to_owned());
    let Some(own) = kernel.as_deref().filter(|n| !n.is_empty()).or(hostname) else { return Vec::new() };
    let bytes = (sources.read_file)(Path::new("/etc/hosts")).unwrap_or_default();
    names_of(own, &String::from_utf8_lossy(&bytes))
}

/// All forms of a pod's name that its line allows: `pi-launcher.pi`, `pi-launcher.pi.ns`, ... up to the whole.
fn names_of(own: &str, hosts: &str) -> Vec<String> {
    let own = own.to_ascii_lowercase();
    let mut names = Vec::new();
    for line in hosts.lines().map(|l| l.split('#').next().unwrap_or_default()) {
        let words: Vec<String> = line.split_whitespace().skip(1).map(str::to_ascii_lowercase).collect();
        if !words.contains(&own) {
            continue;
        }
        for word in words {
            let Some(rest) = word.strip_prefix(&own).and_then(|r| r.strip_prefix('.')) else { continue };
            let labels: Vec<&str> = rest.split('.').collect();
            names.extend((1..=labels.len()).map(|n| format!("{own}.{}", labels[..n].join("."))));
        }
    }
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_names_without_a_name_server() {
        let hosts =
            "127.0.0.1 localhost\n10.244.0.9\tpi-launcher.pi.default.svc.cluster.local\tpi-launcher\n";
        let names = names_of("pi-launcher", hosts);
        assert_eq!(names.first().map(String::as_str), Some("pi-launcher.pi"));
        assert!(names.contains(&"pi-launcher.pi.default.svc".to_owned()), "{names:?}");
        assert_eq!(names.last().map(String::as_str), Some("pi-launcher.pi.default.svc.cluster.local"));
        assert!(names_of("pi-worker-0", hosts).is_empty());
    }

    #[test]
    fn the_agents_of_operators_are_known_by_their_script() {
        for (agent, is) in
            [("/etc/mpi/kubexec.sh", true), ("kubexec.sh -v", true), ("ssh", false), ("", false)]
        {
            assert_eq!(is_kubexec(OsStr::new(agent)), is, "{agent}");
        }
    }
}
