//! Rows: environment, working directory, program, parameters.

use crate::draft::{env_mode, variable};
use crate::mca;
use crate::output::absolute;
use crate::row::{Act, Arity, Row, Set, Topic, row};
use rmpi_types::launch::{EnvEdit, EnvMerge};
use rmpi_types::spec::{Env, Forward};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

const T: Topic = Topic::Environment;

/// Only these variables of ours (`-genvlist`): nothing else is forwarded.
fn only(env: &mut Env, list: &OsStr) -> Set {
    env.forward = Forward::Nothing;
    for name in list.as_bytes().split(|&b| b == b',').filter(|n| !n.is_empty()) {
        env.export.push(variable(OsStr::from_bytes(name))?);
    }
    Ok(())
}

fn set(env: &mut Env, name: &OsStr, value: OsString) -> Set {
    env.set.push((variable(name)?, Some(value)));
    Ok(())
}

fn nothing(env: &mut Env) {
    (env.forward, env.merge) = (Forward::Nothing, EnvMerge::Clear);
}

fn everything(env: &mut Env) {
    (env.forward, env.merge) = (Forward::Most, EnvMerge::Fill);
}

/// `NAME` or `NAME[;]`, and what is added.
fn edit(env: &mut Env, name: &OsStr, value: OsString, front: bool) -> Set {
    let bytes = name.as_bytes();
    let (name, separator) = match bytes {
        [name @ .., b'[', separator, b']'] => (name, *separator),
        _ => (bytes, b':'),
    };
    env.edits.push(EnvEdit { name: variable(OsStr::from_bytes(name))?, value, separator, front });
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "tf-config",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.rank_vars = rmpi_types::launch::RankVars::Tensorflow;
            Ok(())
        }),
        "Sets TF_CONFIG for TensorFlow's MultiWorkerMirroredStrategy: every rank is a worker with a port of its own.",
    ),
    row(
        T,
        "x",
        &[],
        "VAR[=VALUE]",
        Act::Os(|t, item| t.export(&item)),
        "Give the ranks this variable: ours, or with the value given. 'PREFIX*' stands for all that begin so. It \
         overwrites what the node has and is never held back.",
    )
    .app(),
    row(
        T,
        "env",
        &[],
        "NAME VALUE | MODE",
        Act::Pair(|t, name, value| {
            if name.is_empty() {
                t.app.env_given = true;
                env_mode(&mut t.app.env, &value.to_string_lossy());
                return Ok(());
            }
            set(&mut t.app.env, &name, value)
        }),
        "Set a variable for this program (also NAME=VALUE). As --env MODE: what is forwarded of our environment: fill \
         (the default: everything but what describes this machine or looks like a secret, where the node has no value of \
         its own), openmpi (only OMPI_*, PMIX_* and RMPIRUN_*), all (overwriting), none.",
    )
    .arity(Arity::PairOrMode)
    .app(),
    row(
        T,
        "genv",
        &[],
        "NAME VALUE",
        Act::Pair(|t, name, value| set(&mut t.job.env, &name, value)),
        "Set a variable for every program (also NAME=VALUE).",
    ),
    row(
        T,
        "genvlist",
        &[],
        "NAMES",
        Act::Os(|t, list| only(&mut t.job.env, &list)),
        "Forward only these variables, to every program.",
    ),
    row(
        T,
        "envlist",
        &[],
        "NAMES",
        Act::Os(|t, list| {
            t.app.env_given = true;
            only(&mut t.app.env, &list)
        }),
        "Forward only these variables, to this program.",
    )
    .app(),
    row(
        T,
        "genvall",
        &[],
        "",
        Act::Flag(|t| {
            everything(&mut t.job.env);
            Ok(())
        }),
        "Forward everything, to every program. The default.",
    ),
    row(
        T,
        "envall",
        &[],
        "",
        Act::Flag(|t| {
            t.app.env_given = true;
            everything(&mut t.app.env);
            Ok(())
        }),
        "Forward everything, to this program.",
    )
    .app(),
    row(
        T,
        "genvnone",
        &[],
        "",
        Act::Flag(|t| {
            nothing(&mut t.job.env);
            Ok(())
        }),
        "Forward nothing: ranks see what rmpirun sets, PATH, HOME and USER.",
    ),
    row(
        T,
        "envnone",
        &[],
        "",
        Act::Flag(|t| {
            t.app.env_given = true;
            nothing(&mut t.app.env);
            Ok(())
        }),
        "As --genvnone, for this program.",
    )
    .app(),
    row(
        T,
        "set-env",
        &[],
        "NAME=VALUE",
        Act::Os(|t, item| match item.as_bytes().iter().position(|&b| b == b'=') {
            Some(_) => t.export(&item),
            None => Err(format!("'{}' is not NAME=VALUE", item.to_string_lossy())),
        }),
        "Set a variable for this program.",
    )
    .app(),
    row(
        T,
        "unset-env",
        &[],
        "NAME",
        Act::Os(|t, name| {
            t.app.env.set.push((variable(&name)?, None));
            Ok(())
        }),
        "Take a variable away from this program.",
    )
    .app(),
    row(
        T,
        "prepend-env",
        &[],
        "NAME[SEP] VALUE",
        Act::Pair(|t, name, value| edit(&mut t.app.env, &name, value, true)),
        "Put VALUE before what the node has in a list variable; NAME[:] names the separator, ':' unless given.",
    )
    .app(),
    row(
        T,
        "append-env",
        &[],
        "NAME[SEP] VALUE",
        Act::Pair(|t, name, value| edit(&mut t.app.env, &name, value, false)),
        "Put VALUE after what the node has in a list variable.",
    )
    .app(),
    row(
        T,
        "wrap",
        &[],
        "CMD",
        Act::Os(|t, cmd| {
            t.job.wrap = crate::ssh_args::split(&cmd)?;
            Ok(())
        }),
        "Start each rank as 'CMD PROGRAM ARGUMENTS' (Open MPI's orte_fork_agent): a tracer, a profiler.",
    ),
    row(
        T,
        "preload-binary",
        &["s"],
        "",
        Act::Flag(|t| {
            t.app.preload = true;
            Ok(())
        }),
        "Copy this program from here to every host, for the time of the job.",
    )
    .app(),
    row(
        T,
        "preload-files",
        &[],
        "FILES",
        Act::Os(|t, files| {
            for file in files.as_bytes().split(|&b| b == b',').filter(|f| !f.is_empty()) {
                let file = absolute(t, &OsStr::from_bytes(file).to_owned())?;
                t.job.job.preload.push(file);
            }
            Ok(())
        }),
        "Copy these files (a comma list) from here into the ranks' working directory on every host, for the time of the job. \
         One that is there already with the same content stays.",
    ),
    row(
        T,
        "set-cwd-to-session-dir",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.in_session = true;
            Ok(())
        }),
        "Start the ranks in a folder of the job's own on each host, which is removed at the end.",
    ),
    row(
        T,
        "pset",
        &[],
        "NAME",
        Act::Text(|t, name| {
            t.app.pset = Some(name.to_owned());
            Ok(())
        }),
        "Name of the process set of this program's ranks.",
    )
    .app(),
    row(
        T,
        "memory-alloc-kinds",
        &[],
        "LIST",
        Act::Text(|t, list| t.publish("PMI_mpi_memory_alloc_kinds", list)),
        "Kinds of memory the program wants of MPI, passed on to its library.",
    ),
    row(
        T,
        "initial-errhandler",
        &[],
        "NAME",
        Act::Text(|t, name| t.publish("PMI_mpi_initial_errhandler", name)),
        "The error handler the program begins with, passed on to its library.",
    ),
    row(
        T,
        "tune",
        &["am", "amca"],
        "FILES",
        Act::Os(|t, files| {
            for file in files.as_bytes().split(|&b| b == b',').filter(|f| !f.is_empty()) {
                t.job.tunes.push(OsStr::from_bytes(file).to_owned());
            }
            Ok(())
        }),
        "Read parameters from files, separated by commas: lines 'key = value', '-x NAME=VALUE', '--mca KEY VALUE'.",
    ),
    row(
        T,
        "wdir",
        &["wd"],
        "DIR",
        Act::Os(|t, dir| {
            t.app.wdir = Some(absolute(t, &dir)?);
            Ok(())
        }),
        "Start the ranks in DIR (relative to ours); it must exist on every host.",
    )
    .app(),
    row(
        T,
        "path",
        &[],
        "DIRS",
        Act::Os(|t, dirs| {
            let dirs = dirs.as_bytes().split(|&b| b == b':').filter(|d| !d.is_empty());
            t.app.search = dirs.map(|d| OsStr::from_bytes(d).to_owned()).collect();
            Ok(())
        }),
        "Look for the program in these directories first.",
    )
    .app(),
    row(
        T,
        "prefix",
        &[],
        "DIR",
        Act::Os(|t, dir| {
            t.app.prefix = Some(absolute(t, &dir)?.into_os_string());
            Ok(())
        }),
        "Put DIR/bin before PATH and DIR/lib before LD_LIBRARY_PATH of the ranks.",
    )
    .app(),
    row(
        T,
        "noprefix",
        &[],
        "",
        Act::Flag(|t| {
            t.app.prefix = None;
            Ok(())
        }),
        "Undo --prefix.",
    )
    .app(),
    row(
        T,
        "app",
        &["configfile"],
        "FILE",
        Act::Os(|t, file| {
            t.job.app_file = Some(file);
            Ok(())
        }),
        "Read the programs from FILE: options, program and arguments of one on each line.",
    ),
    row(
        T,
        "mca",
        &["omca"],
        "KEY VALUE",
        Act::Pair(|t, k, v| mca::set(t, "OMPI_MCA_", &k, &v)),
        "An Open MPI parameter for this program (also KEY=VALUE). What concerns the launcher is done, everything is \
         passed to the ranks as OMPI_MCA_KEY.",
    )
    .app(),
    row(
        T,
        "gmca",
        &["gomca"],
        "KEY VALUE",
        Act::Pair(|t, k, v| mca::set_global(t, "OMPI_MCA_", &k, &v)),
        "As --mca, for every program.",
    ),
    row(
        T,
        "prtemca",
        &[],
        "KEY VALUE",
        Act::Pair(|t, k, v| mca::set_global(t, "PRTE_MCA_", &k, &v)),
        "A parameter of Open MPI 5's launcher.",
    ),
    row(
        T,
        "pmixmca",
        &["gpmixmca"],
        "KEY VALUE",
        Act::Pair(|t, k, v| mca::set_global(t, "PMIX_MCA_", &k, &v)),
        "A PMIx parameter, passed to the ranks as PMIX_MCA_KEY.",
    ),
];
