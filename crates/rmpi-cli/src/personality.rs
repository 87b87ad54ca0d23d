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
    /// Horovod's launcher.
    Horovodrun,
    /// PyTorch's launcher: programs are Python scripts.
    Torchrun,
}

impl Personality {
    /// By the name the program was called with (`mpiexec.hydra`), any directory before it.
    #[must_use]
    pub fn of_program(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("mpiexec.hydra" | "hydra") => Self::Hydra,
            Some("horovodrun") => Self::Horovodrun,
            Some("torchrun") => Self::Torchrun,
            _ => Self::Default,
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
            "horovodrun" | "horovod" => Ok(Some(Self::Horovodrun)),
            "torchrun" | "torch" => Ok(Some(Self::Torchrun)),
            _ if name.split(',').all(|n| ["ompi", "ompi5", "prte", "pmix"].contains(&n)) => Ok(None),
            _ => Err(CliError::new(format!(
                "personality '{name}' is not known (there are default, hydra, horovodrun and torchrun)"
            ))),
        }
    }

    /// Whether a unique beginning of an option's name stands for it, as argparse has it.
    pub(crate) fn abbreviates(self) -> bool {
        matches!(self, Self::Horovodrun | Self::Torchrun)
    }
}
