//! Options from the environment: variables that other launchers read, then our own `RMPIRUN_OPTION`. The command
//! line is above both.

use crate::command::Sources;
use crate::draft::{AppDraft, JobDraft, Layer, Target};
use crate::error::CliError;
use crate::mca::{self, Use};
use crate::personality::Personality;
use crate::row::{Act, Arity, Behaviour, Row, Set, Topic};
use crate::{table, typed, values};
use std::ffi::{OsStr, OsString};
use std::ops::Bound;

/// Variables of Hydra and its relatives, later ones above earlier ones.
const FOREIGN: &[(&str, Use)] = &[
    ("I_MPI_HYDRA_HOST_FILE", Use::Option("hostfile")),
    ("HYDRA_HOST_FILE", Use::Option("hostfile")),
    ("I_MPI_HYDRA_BOOTSTRAP", Use::Option("launcher")),
    ("HYDRA_BOOTSTRAP", Use::Option("launcher")),
    ("HYDRA_LAUNCHER", Use::Option("launcher")),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC", Use::Option("launch-exec")),
    ("HYDRA_BOOTSTRAP_EXEC", Use::Option("launch-exec")),
    ("HYDRA_LAUNCHER_EXEC", Use::Option("launch-exec")),
    ("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", Use::Option("ssh-args")),
    ("HYDRA_LAUNCH_EXTRA_ARGS", Use::Option("ssh-args")),
    ("HYDRA_LAUNCHER_EXTRA_ARGS", Use::Option("ssh-args")),
    ("HYDRA_IFACE", Use::Option("iface")),
    ("HYDRA_DEBUG", Use::Flag("verbose")),
    ("MPIR_CVAR_PORTRANGE", Use::Option("port-range")),
    ("MPIR_CVAR_CH3_PORT_RANGE", Use::Option("port-range")),
    ("MPICH_PORT_RANGE", Use::Option("port-range")),
    ("MPIEXEC_PORTRANGE", Use::Option("port-range")),
    ("MPIEXEC_PORT_RANGE", Use::Option("port-range")),
    ("HOROVOD_START_TIMEOUT", Use::Option("launch-timeout")),
    ("HYDRA_ENV", Use::Call(hydra_env)),
    ("HYDRA_BINDING", Use::Call(hydra_binding)),
    ("HYDRA_MAPPING", Use::Call(hydra_mapping)),
    ("HYDRA_RMK", Use::Option("rmk")),
    ("HYDRA_TOPO_DEBUG", Use::Flag("report-bindings")),
    ("MPIEXEC_UNIVERSE_SIZE", Use::Option("usize")),
    ("MPIEXEC_TIMEOUT", Use::Call(mpiexec_timeout)),
];

/// Hydra's `MPIEXEC_TIMEOUT`: 0 and -1 are no limit.
fn mpiexec_timeout(t: &mut Target<'_>, text: &str) -> Set {
    if !matches!(text.trim(), "0" | "-1") {
        t.job.job.limits.job = Some(values::limit(text)?);
    }
    Ok(())
}

/// `HYDRA_ENV=all`.
fn hydra_env(t: &mut Target<'_>, text: &str) -> Set {
    match text {
        "all" => crate::draft::env_mode(&mut t.job.env, "all"),
        "none" => crate::draft::env_mode(&mut t.job.env, "none"),
        _ => return Err(format!("'{text}' is not all or none")),
    }
    Ok(())
}

fn hydra_binding(t: &mut Target<'_>, text: &str) -> Set {
    crate::placement::hydra_bind_to(&mut t.app.place, text)
}

fn hydra_mapping(t: &mut Target<'_>, text: &str) -> Set {
    crate::placement::hydra_map_by(&mut t.app.place, text)
}

/// Options that have no variable: what they would do is done elsewhere, or the name means something else.
const NOT_OURS: &[&str] =
    &["help", "version", "personality", "hosts", "app", "x", "check-build", "completions", "man", "tune"];

/// Applies all variables, lowest precedence first.
///
/// # Errors
/// A value that the option it stands for does not take; the message begins with the variable.
pub(crate) fn apply(
    job: &mut JobDraft,
    app: &mut AppDraft,
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    job.layer = Layer::Foreign;
    for prefix in ["OMPI_MCA_", "PRTE_MCA_"] {
        for (name, value) in beginning(sources, prefix).filter(|(_, v)| !v.is_empty()) {
            let what = name.to_str().and_then(|n| mca::find(&n[prefix.len()..]));
            if let Some(what) = what {
                foreign(job, app, sources, name, what, value)?;
            }
        }
    }
    for &(name, what) in FOREIGN {
        if let Some(value) = given(sources, name) {
            foreign(job, app, sources, OsStr::new(name), what, value)?;
        }
    }
    if personality == Personality::Torchrun {
        for row in table::rows().filter(|r| r.topic == Topic::Torch || r.name == "max-restarts") {
            torch(row, job, app, sources)?;
        }
    }
    job.layer = Layer::Own;
    let nested = sources.env.contains_key(OsStr::new("RMPIRUN_RANK"));
    if beginning(sources, "RMPIRUN_").next().is_none() {
        return Ok(());
    }
    for row in table::rows().filter(|r| own(r) && !(nested && r.name == "iface")) {
        let name = variable_of(row);
        if let (Some(value), Some(act)) = (given(sources, &name), row.act) {
            set(job, app, sources, act, &name, value).map_err(|e| CliError::new(format!("{name}: {e}")))?;
        }
    }
    Ok(())
}

/// torchrun's `PET_NNODES` and its like.
fn torch(row: &Row, job: &mut JobDraft, app: &mut AppDraft, sources: &Sources<'_>) -> Result<(), CliError> {
    let name = format!("PET_{}", row.name.replace('-', "_").to_ascii_uppercase());
    if let (Some(value), Some(act)) = (given(sources, &name), row.act) {
        set(job, app, sources, act, &name, value).map_err(|e| CliError::new(format!("{name}: {e}")))?;
    }
    Ok(())
}

/// Whether an option can be given as a variable.
pub(crate) fn own(row: &Row) -> bool {
    row.behaviour == Behaviour::Active
        && row.only.is_none()
        && row.name.len() > 1
        && !matches!(row.topic, Topic::Horovod | Topic::Torch)
        && matches!(row.arity, Arity::Flag | Arity::One)
        && !NOT_OURS.contains(&row.name)
}

/// `RMPIRUN_CONNECT_TIMEOUT` for `connect-timeout`.
pub(crate) fn variable_of(row: &Row) -> String {
    format!("RMPIRUN_{}", row.name.replace('-', "_").to_ascii_uppercase())
}

/// Does what a row does with one value; a flag's value is a truth.
pub(crate) fn set(
    job: &mut JobDraft,
    app: &mut AppDraft,
    sources: &Sources<'_>,
    act: Act,
    spelled: &str,
    value: &OsString,
) -> Result<(), String> {
    let mut target = Target { job, app, sources, spelled };
    match act {
        Act::Flag(_) => {
            let text = value.to_str().ok_or("the value is not valid UTF-8")?;
            if values::truth(text)? { typed::call(act, &mut target, Vec::new()) } else { Ok(()) }
        }
        _ => {
            let value = typed::read(act, value)?;
            typed::call(act, &mut target, vec![value])
        }
    }
}

fn foreign(
    job: &mut JobDraft,
    app: &mut AppDraft,
    sources: &Sources<'_>,
    name: &OsStr,
    what: Use,
    value: &OsStr,
) -> Result<(), CliError> {
    let spelled = name.to_string_lossy();
    let mut target = Target { job, app, sources, spelled: &spelled };
    mca::act(&mut target, what, value).map_err(|e| CliError::new(format!("{spelled}: {e}")))
}

/// A variable's value. Container images set variables empty to switch them off.
fn given<'a>(sources: &Sources<'a>, name: &str) -> Option<&'a OsString> {
    sources.env.get(OsStr::new(name)).filter(|v| !v.is_empty())
}

fn beginning<'a>(
    sources: &Sources<'a>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a OsString, &'a OsString)> {
    let from = (Bound::Included(OsStr::new(prefix)), Bound::Unbounded);
    let range = sources.env.range::<OsStr, _>(from);
    range.take_while(move |(n, _)| n.as_encoded_bytes().starts_with(prefix.as_bytes()))
}
