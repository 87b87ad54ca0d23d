//! What has been said so far: setters of the table write here, in ascending order of precedence, so that the
//! last one wins. Nothing here has been combined yet; `resolve` does that.

use crate::command::{Display, LogSettings, Show, SignalRules, Sources};
use rmpi_types::spec::{Env, Forward, HostKeys, JobSpec, Piece, Placement, Redirects};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Where an option came from, in ascending precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Built in.
    #[default]
    Default,
    /// The system's and the user's configuration files.
    Config,
    /// A tune file, an app file.
    File,
    /// Variables of other launchers.
    Foreign,
    /// `RMPIRUN_*`.
    Own,
    /// The command line.
    Line,
}

/// A list whose entries add up within one layer and are replaced by a higher one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layered<T> {
    layer: Layer,
    pub(crate) items: Vec<T>,
}

impl<T> Layered<T> {
    pub(crate) fn push(&mut self, layer: Layer, item: T) {
        if layer > self.layer {
            self.layer = layer;
            self.items.clear();
        }
        self.items.push(item);
    }
}

/// What the whole job was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobDraft {
    pub(crate) layer: Layer,
    /// Fields that need no combining are written in place.
    pub(crate) job: JobSpec,
    pub(crate) hostfile: Option<OsString>,
    /// The layer and program that gave the host file.
    pub(crate) hostfile_by: Option<(Layer, usize)>,
    pub(crate) default_hostfile: Option<OsString>,
    /// The user has said how long ranks have after SIGTERM.
    pub(crate) grace_said: bool,
    /// Slots of a host named without a count.
    pub(crate) default_slots: Option<u32>,
    /// `-launcher fork`: every host is this machine.
    pub(crate) fork: bool,
    /// `-launcher rsh`: only with a program of the user's.
    pub(crate) rsh: bool,
    pub(crate) agent: Option<OsString>,
    pub(crate) ssh_args: Option<OsString>,
    pub(crate) ssh_port: Option<u16>,
    pub(crate) identities: Layered<PathBuf>,
    pub(crate) host_keys: Option<HostKeys>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) connect_retries: Option<u32>,
    /// Interfaces of the launcher's own network in other launchers; used when no others are given.
    pub(crate) control_ifaces: Vec<String>,
    /// First port and number of ports (`btl_tcp_port_min_v4`, `btl_tcp_port_range_v4`).
    pub(crate) port_min: Option<u16>,
    pub(crate) port_count: Option<u16>,
    pub(crate) control_ports: Option<(u16, u16)>,
    /// `-genv` and its family.
    pub(crate) env: Env,
    pub(crate) stdin_given: bool,
    pub(crate) app_file: Option<OsString>,
    pub(crate) log: LogSettings,
    pub(crate) display: Display,
    pub(crate) show: Show,
    pub(crate) signals: SignalRules,
    /// Who gives the node list; `None` finds out.
    pub(crate) rmk: Option<String>,
    /// `-launcher ssh`: not the tool of the resource manager.
    pub(crate) ssh_asked: bool,
    /// `-launcher`, when it names the tool of a resource manager.
    pub(crate) tool: Option<&'static str>,
    /// A program that prints the hosts.
    pub(crate) discovery: Option<OsString>,
    /// What elastic jobs were told; none of it was said without [`JobDraft::elastic_asked`].
    pub(crate) elastic: rmpi_types::spec::Elastic,
    pub(crate) elastic_asked: bool,
    /// `--gloo` (true) or `--mpi`.
    pub(crate) gloo: Option<bool>,
    /// Mapping, ranking or binding was said, if only as it is anyway.
    pub(crate) placement_said: bool,
    /// Hydra's `-rankmap`: the node of each rank.
    pub(crate) rankmap: Option<Vec<u32>>,
    /// The program each rank is started by.
    pub(crate) wrap: Vec<OsString>,
    pub(crate) python: Python,
    pub(crate) torch: Torch,
    /// `-outfile-pattern`, `-errfile-pattern`.
    pub(crate) patterns: [Option<Vec<Piece>>; 2],
    pub(crate) tunes: Vec<OsString>,
    pub(crate) notes: Vec<String>,
    /// Launcher parameters nobody knows: one note for all.
    pub(crate) unknown_mca: BTreeSet<String>,
}

/// torchrun's way of starting a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Python {
    /// The program is a module's name.
    pub(crate) module: bool,
    /// The program is started as it is.
    pub(crate) no: bool,
    /// The program is run with `runpy`.
    pub(crate) run_path: bool,
}

/// What only torchrun has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Torch {
    pub(crate) nodes: Option<u32>,
    /// Workers a node: a number, or the things to count.
    pub(crate) workers: Option<Workers>,
    pub(crate) node_rank: u32,
    pub(crate) redirects: Redirects,
    pub(crate) tee: Redirects,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) run_id: Option<String>,
    pub(crate) role: Option<String>,
}

/// `--nproc-per-node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    Count(u32),
    Cpus,
    Gpus,
}

/// What one program was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppDraft {
    /// Which program, from 0.
    pub(crate) index: usize,
    pub(crate) np: Option<u32>,
    pub(crate) wdir: Option<PathBuf>,
    pub(crate) search: Vec<OsString>,
    pub(crate) prefix: Option<OsString>,
    pub(crate) env: Env,
    /// Whether this program was told what to forward.
    pub(crate) env_given: bool,
    /// Host lists with the option that gave them.
    pub(crate) hosts: Layered<(String, String)>,
    /// Order and repeats of the host list count (Hydra's `-hosts`).
    pub(crate) listed: bool,
    pub(crate) place: PlaceDraft,
    pub(crate) pset: Option<String>,
    pub(crate) preload: bool,
    /// Parameters exported to the ranks, with their variable's prefix.
    pub(crate) mca: Vec<(&'static str, OsString, OsString)>,
}

/// Placement before host files are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PlaceDraft {
    pub(crate) spec: Placement,
    pub(crate) file: PlaceFile,
    /// `FILE=` of `--map-by`, or `--rankfile`.
    pub(crate) path: Option<OsString>,
}

/// Policies that need a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PlaceFile {
    #[default]
    None,
    Seq,
    Rankfile,
}

/// What a setter may write to, and where it stands.
pub(crate) struct Target<'a> {
    pub(crate) job: &'a mut JobDraft,
    pub(crate) app: &'a mut AppDraft,
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) spelled: &'a str,
}

impl Target<'_> {
    /// A note for the user, once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.job.notes.contains(&text) {
            self.job.notes.push(text);
        }
    }

    /// A variable for all ranks.
    pub(crate) fn publish(&mut self, name: &str, value: &str) -> Result<(), String> {
        if value.contains('\0') {
            return Err("a variable cannot hold a zero byte".into());
        }
        self.job.env.set.push((name.into(), Some(value.into())));
        Ok(())
    }

    /// Hosts are reached by this tool of a resource manager, or by ssh when a site's settings ask for one that this
    /// machine does not have.
    pub(crate) fn tool(&mut self, tool: &'static str) -> Result<(), String> {
        (self.job.fork, self.job.rsh, self.job.tool) = (false, false, None);
        if (self.sources.have)(tool) {
            self.job.tool = Some(tool);
            return Ok(());
        }
        if self.job.layer == Layer::Line {
            return Err(format!("{tool} is not in PATH here; use ssh or --launch-exec CMD"));
        }
        self.note(format!("{}: {tool} is not in PATH here; ssh is used", self.spelled));
        Ok(())
    }

    /// Options in one word, as of the default personality.
    pub(crate) fn options(&mut self, words: &OsStr) -> Result<(), String> {
        let words = crate::ssh_args::split(words)?;
        let segment = crate::prepass::segment(&words, crate::Personality::Default).map_err(|e| e.message)?;
        if let Some(word) = segment.command.first() {
            return Err(format!("'{}' is not an option", word.to_string_lossy()));
        }
        let values = crate::typed::check(&segment.options).map_err(|e| e.message)?;
        for (option, values) in segment.options.iter().zip(values) {
            let mut target = Target {
                job: &mut *self.job,
                app: &mut *self.app,
                sources: self.sources,
                spelled: &option.spelled,
            };
            crate::parse::apply(option, values, &mut target).map_err(|e| e.message)?;
        }
        Ok(())
    }

    /// `-x`: `NAME`, `NAME=VALUE` or `PREFIX*`, for this program.
    pub(crate) fn export(&mut self, item: &OsStr) -> Result<(), String> {
        let bytes = item.as_bytes();
        if let Some(at) = bytes.iter().position(|&b| b == b'=') {
            let (name, value) = (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
            let name = variable(name)?;
            self.app.env.set.push((name, Some(value.to_owned())));
            return Ok(());
        }
        variable(item)?;
        let matching = |(n, _): &(&OsString, &OsString)| rmpi_types::env::pattern_matches(item, n);
        let found: Vec<_> = self.sources.env.iter().filter(matching).collect();
        if found.is_empty() {
            self.note(format!("could not find environment variable \"{}\"", item.to_string_lossy()));
        }
        self.app.env.set.extend(found.into_iter().map(|(n, v)| (n.clone(), Some(v.clone()))));
        Ok(())
    }
}

/// Sets what is forwarded by the name of the mode (`--env`).
pub(crate) fn env_mode(env: &mut Env, mode: &str) {
    use rmpi_types::launch::EnvMerge;
    (env.forward, env.merge) = match mode {
        "openmpi" => (Forward::MpiOnly, EnvMerge::Fill),
        "all" => (Forward::Most, EnvMerge::Overwrite),
        "none" => (Forward::Nothing, EnvMerge::Clear),
        _ => (Forward::Most, EnvMerge::Fill),
    };
}

/// A name that an environment can hold.
pub(crate) fn variable(name: &OsStr) -> Result<OsString, String> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err("the name of the variable is empty".into());
    }
    if bytes.contains(&b'=') || bytes.contains(&0) {
        return Err(format!("'{}' is not a name of a variable", name.to_string_lossy()));
    }
    Ok(name.to_owned())
}
