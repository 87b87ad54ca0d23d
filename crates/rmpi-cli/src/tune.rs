//! Files of settings: configuration of the system and the user, and what `--tune` names. Lines are `key = value`,
//! where a key is an option's long name or an MCA parameter, or options as on a command line.

use crate::command::Sources;
use crate::draft::{AppDraft, JobDraft, Layer, Target};
use crate::error::CliError;
use crate::mca;
use crate::personality::Personality;
use crate::prepass::Segment;
use crate::row::{Behaviour, Set};
use crate::{resolve, table, vars};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Largest file in bytes.
const MAX_FILE: usize = 4 << 20;

/// Configuration files, lowest precedence first; what is missing is not missed.
///
/// # Errors
/// With file and line: what an option does not take.
pub(crate) fn config_files(
    job: &mut JobDraft,
    app: &mut AppDraft,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    let variable = |name: &str| sources.env.get(OsStr::new(name)).filter(|v| !v.is_empty());
    if variable("RMPIRUN_CONFIG").is_some_and(|v| v == "none") {
        return Ok(());
    }
    let home = variable("HOME").map(PathBuf::from);
    let user =
        variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
    job.layer = Layer::Config;
    let system = PathBuf::from("/etc/rmpirun.conf");
    let own = variable("RMPIRUN_CONFIG").map(PathBuf::from).or_else(|| Some(user?.join("rmpirun.conf")));
    let open_mpi = home.map(|h| h.join(".openmpi/mca-params.conf"));
    let files = [(open_mpi, true), (Some(system), false), (own, false)];
    for (file, params) in files.into_iter().filter_map(|(file, params)| Some((file?, params))) {
        if let Ok(bytes) = (sources.read_file)(&file) {
            apply(&bytes, &file.to_string_lossy(), params, job, app, sources)?;
        }
    }
    Ok(())
}

/// The files of `--tune`, and of the variable that stands for it.
///
/// # Errors
/// A file that cannot be read, and what its lines say wrong.
pub(crate) fn files(
    segments: &[Segment],
    job: &mut JobDraft,
    app: &mut AppDraft,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    let given = segments.iter().flat_map(|s| &s.options).filter(|o| o.row.name == "tune");
    let mut lists: Vec<&OsStr> = given.filter_map(|o| o.values.first()).map(OsString::as_os_str).collect();
    let variable = sources.env.get(OsStr::new("OMPI_MCA_mca_base_envar_file_prefix"));
    lists.splice(0..0, variable.map(OsString::as_os_str));
    job.layer = Layer::File;
    for file in lists.iter().flat_map(|l| l.as_bytes().split(|&b| b == b',')).filter(|f| !f.is_empty()) {
        let file = OsStr::from_bytes(file);
        let bytes = resolve::read(file, "tune file", sources)?;
        apply(&bytes, &file.to_string_lossy(), false, job, app, sources)?;
    }
    Ok(())
}

/// Applies every line; with `params` keys are parameters only.
fn apply(
    bytes: &[u8],
    name: &str,
    params: bool,
    job: &mut JobDraft,
    app: &mut AppDraft,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    if bytes.len() > MAX_FILE {
        return Err(CliError::new(format!("{name}: larger than {MAX_FILE} bytes")));
    }
    for (number, line) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        one(line, params, job, app, sources).map_err(|e| CliError::new(format!("{name}:{number}: {e}")))?;
    }
    Ok(())
}

fn one(line: &[u8], params: bool, job: &mut JobDraft, app: &mut AppDraft, sources: &Sources<'_>) -> Set {
    if line.starts_with(b"-") {
        let mut target = Target { job, app, sources, spelled: "" };
        return target.options(OsStr::from_bytes(line));
    }
    let at = line.iter().position(|&b| b == b'=').ok_or("not 'key = value'")?;
    let key = std::str::from_utf8(line[..at].trim_ascii()).map_err(|_| "the key is not valid UTF-8")?;
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        return Err(format!("'{key}' is not the name of an option or parameter"));
    }
    let value = unquoted(line[at + 1..].trim_ascii());
    let row = table::find(&key.replace('_', "-"), Personality::Default);
    let row = row.filter(|r| !params && r.behaviour == Behaviour::Active && r.name.len() > 1);
    if let Some(act) = row.and_then(|r| r.act) {
        return vars::set(job, app, sources, act, key, &value.to_owned()).map_err(|e| format!("{key}: {e}"));
    }
    let mut target = Target { job, app, sources, spelled: key };
    if params {
        // The ranks' library reads that file itself.
        return mca::find(key).map_or(Ok(()), |what| mca::act(&mut target, what, value));
    }
    mca::set_global(&mut target, "OMPI_MCA_", OsStr::new(key), value)
}

fn unquoted(value: &[u8]) -> &OsStr {
    let inner = [b'"', b'\''].iter().find_map(|&q| value.strip_prefix(&[q])?.strip_suffix(&[q]));
    OsStr::from_bytes(inner.unwrap_or(value))
}
