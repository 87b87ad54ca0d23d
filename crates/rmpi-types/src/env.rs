//! Which variables of the launcher's environment travel to the ranks. Pure: the environment is an argument.
//! Two lists come out: what is *forwarded* (meets the node's own values as [`crate::launch::EnvMerge`] says)
//! and what the user *named* (always wins). Values are bytes and are never looked at.

use crate::spec::{Env, EnvMap, Forward};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Describes the launcher's own machine, session or process.
const DENY: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "HOSTNAME",
    "HOST",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "TERM",
    "DISPLAY",
    "XAUTHORITY",
    "TMPDIR",
    "MAIL",
    "LS_COLORS",
    // per task of a resource manager; the job's own variables (SLURM_JOB_ID) do travel
    "SLURMD_NODENAME",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_TASK_PID",
    "SLURM_GTIDS",
    "SLURM_STEPID",
    "SLURM_UMASK",
    "SLURM_DISTRIBUTION",
    "PBS_TASKNUM",
    "PBS_NODENUM",
    "PBS_VNODENUM",
    "PBS_MOMPORT",
    "LSF_PM_TASKID",
    "LS_JOBPID",
    // our own, per job or rank
    "RMPIRUN_JOB_ID",
    "RMPIRUN_RANK",
    "RMPIRUN_SIZE",
    "RMPIRUN_LOCAL_RANK",
    "RMPIRUN_NODE_RANK",
    "RMPIRUN_NNODES",
    "RMPIRUN_HOSTS",
    "RMPIRUN_RESTART",
    // of the launcher pod alone
    "K_MPI_JOB_ROLE",
    "JOB_COMPLETION_INDEX",
    "_HOROVOD_SECRET_KEY",
];

/// Families with the same reasons as [`DENY`]. `PMIX_MCA_*` are parameters and do travel.
const DENY_PREFIX: &[&str] = &[
    "SSH_",
    "XDG_",
    "DBUS_",
    "GPG_",
    "KUBERNETES_",
    "OMPI_COMM_WORLD_",
    "PMI_",
    "PMIX_",
    "SLURM_STEP_",
    "SLURM_CPU_BIND",
    "SLURM_MEM_BIND",
    "SLURM_SRUN_",
    "SLURM_LAUNCH_",
    "SLURM_PTY_",
    "SLURM_TOPOLOGY_",
];

/// Set for each rank; when we were started by a rank of another job these are that rank's, not the user's.
const OUTER_RANK: &[&str] = &[
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_USE_AGENT_STORE",
    "JAX_COORDINATOR_ADDRESS",
    "OMPI_MCA_orte_hnp_uri",
    "TF_CONFIG",
    "HOROVOD_RANK",
    "HOROVOD_SIZE",
    "HOROVOD_LOCAL_RANK",
    "HOROVOD_LOCAL_SIZE",
    "HOROVOD_CROSS_RANK",
    "HOROVOD_CROSS_SIZE",
    "HOROVOD_HOSTNAME",
    "HOROVOD_CONTROLLER",
    "HOROVOD_CPU_OPERATIONS",
    "HOROVOD_ELASTIC",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR",
    "HOROVOD_GLOO_RENDEZVOUS_PORT",
    "HOROVOD_GLOO_IFACE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
    "OMPI_UNIVERSE_SIZE",
    "OMPI_NUM_APP_CTX",
    "OMPI_FIRST_RANKS",
    "OMPI_APP_CTX_NUM_PROCS",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "RMPIRUN_IFACE",
];

/// Families forwarded by [`Forward::MpiOnly`].
const MPI_PREFIX: &[&str] = &["OMPI_", "PMIX_", "RMPI_", "RMPIRUN_"];

/// What is forwarded from the environment `env` of the launcher under `rules`, in the order of names: by
/// [`Env::forward`], minus the deny list, plus what [`Env::export`] names. A variable that [`Env::set`] sets or
/// unsets is left out, as that wins anyway.
#[must_use]
pub fn forward_env(env: &EnvMap, rules: &Env) -> Vec<(OsString, OsString)> {
    let nested = env.contains_key(OsStr::new("RMPIRUN_RANK"));
    let decided = |name: &OsStr| rules.set.iter().any(|(n, _)| n == name);
    let passes = |name: &OsStr, value: &OsStr| {
        exported(name, rules) || (wanted(name, &rules.forward) && !denied(name, value, nested))
    };
    let kept = env.iter().filter(|(n, v)| legal(n) && !decided(n) && passes(n, v));
    kept.map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// What the user named and so overwrites the node's values: the variables of `env` that [`Env::export`] names,
/// then [`Env::set`] in order, of repeated names only the last; `None` unsets.
#[must_use]
pub fn explicit_env(env: &EnvMap, rules: &Env) -> Vec<(OsString, Option<OsString>)> {
    let decided = |name: &OsStr| rules.set.iter().any(|(n, _)| n == name);
    let exports = env.iter().filter(|(n, _)| legal(n) && exported(n, rules) && !decided(n));
    let mut out: Vec<_> = exports.map(|(n, v)| (n.clone(), Some(v.clone()))).collect();
    for (i, (name, value)) in rules.set.iter().enumerate() {
        if !rules.set[i + 1..].iter().any(|(n, _)| n == name) {
            out.push((name.clone(), value.clone()));
        }
    }
    out
}

/// Variables that stay behind although [`Env::forward`] asked for them: for `--dry-run`, so that nobody wonders.
#[must_use]
pub fn withheld(env: &EnvMap, rules: &Env) -> Vec<OsString> {
    let nested = env.contains_key(OsStr::new("RMPIRUN_RANK"));
    let decided = |name: &OsStr| rules.set.iter().any(|(n, _)| n == name);
    let held = |name: &OsStr, value: &OsStr| {
        wanted(name, &rules.forward)
            && denied(name, value, nested)
            && !exported(name, rules)
            && !decided(name)
    };
    env.iter().filter(|(n, v)| held(n, v)).map(|(n, _)| n.clone()).collect()
}

/// Whether a pattern of `-x` (`NAME` or `PREFIX*`) names this variable.
#[must_use]
pub fn pattern_matches(pattern: &OsStr, name: &OsStr) -> bool {
    match pattern.as_bytes().split_last() {
        Some((b'*', prefix)) => name.as_bytes().starts_with(prefix),
        _ => pattern == name,
    }
}

fn exported(name: &OsStr, rules: &Env) -> bool {
    rules.export.iter().any(|p| pattern_matches(p, name))
}

fn legal(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().contains(&b'=')
}

fn wanted(name: &OsStr, forward: &Forward) -> bool {
    match forward {
        Forward::Most => true,
        Forward::MpiOnly => MPI_PREFIX.iter().any(|p| name.as_bytes().starts_with(p.as_bytes())),
        Forward::Nothing => false,
    }
}

/// Whether the deny list has it.
fn denied(name: &OsStr, value: &OsStr, nested: bool) -> bool {
    let bytes = name.as_bytes();
    let is = |list: &[&str]| list.iter().any(|n| n.as_bytes() == bytes);
    let begins = |list: &[&str]| list.iter().any(|p| bytes.starts_with(p.as_bytes()));
    if is(DENY) || (nested && is(OUTER_RANK)) {
        return true;
    }
    if begins(DENY_PREFIX) {
        return !bytes.starts_with(b"PMIX_MCA_");
    }
    // Empty in a launcher pod: it says that the launcher has no GPU, which is not for the others.
    let no_gpu = is(&["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"]) && value.is_empty();
    no_gpu || service_link(bytes) || secret(bytes)
}

/// `FOO_PORT_80_TCP*`: links to the services around one pod.
fn service_link(name: &[u8]) -> bool {
    find(name, b"_PORT_").is_some_and(|at| find(&name[at + 6..], b"_TCP").is_some())
}

/// Names that look like secrets. `TOKENIZERS_PARALLELISM` and its like are not.
fn secret(name: &[u8]) -> bool {
    let upper = name.to_ascii_uppercase();
    let token = find(&upper, b"TOKEN").is_some() && find(&upper, b"TOKENIZ").is_none();
    token
        || find(&upper, b"SECRET").is_some()
        || find(&upper, b"PASSWORD").is_some()
        || upper.ends_with(b"_KEY")
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> EnvMap {
        pairs.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect()
    }

    fn names(list: &[(OsString, OsString)]) -> Vec<&str> {
        list.iter().filter_map(|(n, _)| n.to_str()).collect()
    }

    #[test]
    fn most_travels_and_the_deny_list_stays() {
        let all = env(&[
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("A_PORT_80_TCP_ADDR", "x"),
            ("FOO", "1"),
            ("GITHUB_TOKEN", "x"),
            ("HOME", "/root"),
            ("KUBERNETES_SERVICE_HOST", "x"),
            ("MASTER_ADDR", "n1"),
            ("MY_PORT_RANGE", "1:2"),
            ("NVIDIA_VISIBLE_DEVICES", ""),
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_MCA_btl", "tcp"),
            ("PATH", "/bin"),
            ("PMIX_MCA_gds", "hash"),
            ("PMIX_RANK", "3"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_PROCID", "0"),
            ("SSH_AUTH_SOCK", "x"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("db_password", "x"),
        ]);
        let travels = [
            "FOO",
            "MASTER_ADDR",
            "MY_PORT_RANGE",
            "OMPI_MCA_btl",
            "PATH",
            "PMIX_MCA_gds",
            "SLURM_JOB_ID",
            "TOKENIZERS_PARALLELISM",
        ];
        assert_eq!(names(&forward_env(&all, &Env::default())), travels);
        assert_eq!(withheld(&all, &Env::default()).len(), all.len() - travels.len());
        let mpi = Env { forward: Forward::MpiOnly, ..Env::default() };
        assert_eq!(names(&forward_env(&all, &mpi)), ["OMPI_MCA_btl", "PMIX_MCA_gds"]);
        let none = Env { forward: Forward::Nothing, ..Env::default() };
        assert!(forward_env(&all, &none).is_empty() && withheld(&all, &none).is_empty());
    }

    #[test]
    fn exports_beat_the_deny_list_and_settings_beat_both() {
        let all = env(&[("GITHUB_TOKEN", "t"), ("PRE_A", "1"), ("PRE_B", "2"), ("Z", "3")]);
        let rules = Env {
            forward: Forward::Nothing,
            export: vec!["GITHUB_TOKEN".into(), "PRE_*".into()],
            set: vec![("PRE_B".into(), Some("old".into())), ("PRE_B".into(), Some("new".into()))],
            ..Env::default()
        };
        assert_eq!(names(&forward_env(&all, &rules)), ["GITHUB_TOKEN", "PRE_A"]);
        let explicit = explicit_env(&all, &rules);
        let want = [("GITHUB_TOKEN", "t"), ("PRE_A", "1"), ("PRE_B", "new")];
        assert_eq!(explicit, want.map(|(n, v)| (OsString::from(n), Some(OsString::from(v)))));
    }

    #[test]
    fn a_job_inside_a_rank_drops_the_outer_ranks_variables() {
        let inner = env(&[("MASTER_ADDR", "n1"), ("RANK", "2"), ("RMPIRUN_RANK", "2"), ("X", "1")]);
        assert_eq!(names(&forward_env(&inner, &Env::default())), ["X"]);
    }
}
