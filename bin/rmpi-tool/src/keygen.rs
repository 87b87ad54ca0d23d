//! `rmpi keygen`: a key pair without `ssh-keygen`.

use clap::Args;
use rmpi_ssh::KeyPair;
use std::path::PathBuf;

/// Options of `rmpi keygen`.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The private key's file; must not exist
    file: PathBuf,
    /// Comment in the public key's file
    #[arg(long, short = 'C', default_value = "rmpi")]
    comment: String,
}

impl Keygen {
    /// Makes and writes the pair.
    ///
    /// # Errors
    /// A line saying what could not be written.
    pub(crate) fn run(&self) -> Result<(), String> {
        let pair = KeyPair::generate().map_err(|e| e.to_string())?;
        pair.write(&self.file, &self.comment).map_err(|e| e.to_string())
    }
}
