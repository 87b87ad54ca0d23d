//! A checkpoint: little endian `"RMPITRN1" | epoch u64 | parameters u64 | parameters f32... | velocity
//! f32...`. Written to a new file that then takes the name, so that a reader never sees half of one.

use crate::TrainError;
use std::io::Write;
use std::path::Path;

const MAGIC: &[u8; 8] = b"RMPITRN1";
const HEADER: usize = 24;

/// What is needed to go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// Epochs done.
    pub(crate) epoch: usize,
    /// The model's parameters.
    pub(crate) parameters: Vec<f32>,
    /// The optimiser's memory.
    pub(crate) velocity: Vec<f32>,
}

impl Checkpoint {
    /// Writes it.
    ///
    /// # Errors
    /// [`TrainError::Write`] naming the file.
    pub(crate) fn save(&self, file: &Path) -> Result<(), TrainError> {
        let part = file.with_extension("part");
        let write = || {
            let mut out = std::fs::File::create(&part)?;
            out.write_all(&self.encode())?;
            out.sync_all()?;
            std::fs::rename(&part, file)
        };
        write().map_err(|source| TrainError::Write { what: file.display().to_string(), source })
    }

    /// Reads one for a model of `parameters` parameters.
    ///
    /// # Errors
    /// [`TrainError::Input`] naming the file and what is wrong with it.
    pub(crate) fn load(file: &Path, parameters: usize) -> Result<Self, TrainError> {
        let bad = |text: String| TrainError::Input(format!("{}: {text}", file.display()));
        let bytes = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(bad("is not a checkpoint of train".into()));
        }
        let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        if word(16) != parameters as u64 {
            return Err(bad(format!(
                "is of a model with {} parameters, this one has {parameters}",
                word(16)
            )));
        }
        if bytes.len() != HEADER + 8 * parameters {
            return Err(bad(format!("has {} bytes instead of {}", bytes.len(), HEADER + 8 * parameters)));
        }
        let floats =
            bytes[HEADER..].chunks_exact(4).filter_map(|c| c.try_into().ok().map(f32::from_le_bytes));
        let mut parameters_read: Vec<f32> = floats.collect();
        let velocity = parameters_read.split_off(parameters);
        let epoch = usize::try_from(word(8)).map_err(|_| bad("has an impossible epoch".into()))?;
        Ok(Self { epoch, parameters: parameters_read, velocity })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend((self.epoch as u64).to_le_bytes());
        out.extend((self.parameters.len() as u64).to_le_bytes());
        out.extend(self.parameters.iter().chain(&self.velocity).flat_map(|f| f.to_le_bytes()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_strangers() {
        let dir = std::env::temp_dir().join(format!("train-checkpoint.{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("model.ckpt");
        let saved = Checkpoint { epoch: 3, parameters: vec![1.0, 2.0], velocity: vec![3.0, 4.0] };
        saved.save(&file).unwrap();
        assert_eq!(Checkpoint::load(&file, 2).unwrap(), saved);
        let error = |n| Checkpoint::load(&file, n).unwrap_err().to_string();
        assert!(error(3).ends_with("is of a model with 2 parameters, this one has 3"));
        std::fs::write(&file, &saved.encode()[..30]).unwrap();
        assert!(error(2).ends_with("has 30 bytes instead of 40"));
        std::fs::write(&file, "not this").unwrap();
        assert!(error(2).ends_with("is not a checkpoint of train"));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(error(2).contains("model.ckpt: "));
    }
}
