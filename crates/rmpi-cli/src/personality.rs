//! Which launcher we are taken for. A personality changes defaults and the meaning of a few clashing options,
//! never the grammar.

use crate::error::CliError;
use std::ffi::OsStr;
use std::path::Path;

/// The launcher whose habits hold where they contradict each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Personality {
    /// The union of all options, Open MPI's meaning first.
    #[default]
    Default,
    /// MPICH's Hydra: one slot a host, wrapping round, not bound.
    Hydra,
}

/// Names that are known but belong to dialects with a grammar of their own.
const OTHERS: &[&str] = &["horovodrun", "torchrun"];

impl Personality {
    /// By the name the program was called with (`mpiexec.hydra`), any directory before it.
    ///
    /// # Errors
    /// `horovodrun` and `torchrun`: their options are not understood by this version.
    pub fn of_program(argv0: &OsStr) -> Result<Self, CliError> {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("mpiexec.hydra" | "hydra") => Ok(Self::Hydra),
            Some(name) if OTHERS.contains(&name) => Err(Self::refusal(name)),
            _ => Ok(Self::Default),
        }
    }

    /// By name (`--personality`, `RMPIRUN_PERSONALITY`). `None` for Open MPI's own lists (`ompi`, `prte`),
    /// which choose nothing here.
    ///
    /// # Errors
    /// An unknown name.
    pub fn of_name(name: &str) -> Result<Option<Self>, CliError> {
        match name {
            "default" | "mpirun" | "mpiexec" | "orterun" | "prterun" => Ok(Some(Self::Default)),
            "hydra" | "mpiexec.hydra" => Ok(Some(Self::Hydra)),
            _ if OTHERS.contains(&name) => Err(Self::refusal(name)),
            _ if name.split(',').all(|n| ["ompi", "ompi5", "prte", "pmix"].contains(&n)) => Ok(None),
            _ => Err(CliError::new(format!(
                "personality '{name}' is not known (there are 'default' and 'hydra')"
            ))),
        }
    }

    fn refusal(name: &str) -> CliError {
        CliError::new(format!(
            "options of {name} are not understood by this version; call rmpirun with options of mpirun or mpiexec"
        ))
    }
}
