//! The options of `train`, from words.

use crate::TrainError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
train: data-parallel training of a small image classifier

  --epochs N         passes over the training set (20)
  --batch N          global batch, shared by all ranks (64)
  --lr X             learning rate (0.05)
  --momentum X       momentum of the gradient (0.9)
  --hidden A,B,..    widths of the hidden layers (128,64)
  --seed N           of initial weights and shuffling (1)
  --bucket KIB       gradients are summed in buckets of at least this size (64)
  --buffers KIND     where gradients are summed: own memory (ordinary), or the node's (shared)
  --data DIR         MNIST-format IDX files instead of the built-in digits
  --checkpoint FILE  written by rank 0 after every epoch
  --resume FILE      go on from a checkpoint
  --log-loss FILE    one line an epoch, written by rank 0: epoch and mean loss
";

/// What to train and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Passes over the training set.
    pub(crate) epochs: usize,
    /// Samples of one step over all ranks.
    pub(crate) batch: usize,
    /// Step size.
    pub(crate) lr: f32,
    /// Share of the last step that is kept.
    pub(crate) momentum: f32,
    /// Hidden layers.
    pub(crate) hidden: Vec<usize>,
    /// Of weights and shuffling.
    pub(crate) seed: u64,
    /// Least gradient elements of one allreduce.
    pub(crate) bucket: usize,
    /// Gradients are summed in the node's memory.
    pub(crate) shared: bool,
    /// IDX files; `None` for the digits.
    pub(crate) data: Option<PathBuf>,
    /// Where rank 0 saves.
    pub(crate) checkpoint: Option<PathBuf>,
    /// Where to start from.
    pub(crate) resume: Option<PathBuf>,
    /// Where rank 0 writes the loss curve.
    pub(crate) log_loss: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 64,
            lr: 0.05,
            momentum: 0.9,
            hidden: vec![128, 64],
            seed: 1,
            bucket: 64 * 256,
            shared: false,
            data: None,
            checkpoint: None,
            resume: None,
            log_loss: None,
        }
    }
}

/// What the words ask for.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// Train.
    Train(Options),
    /// Print the help.
    Help,
}

/// Reads the words after the program's name.
///
/// # Errors
/// [`TrainError::Input`] naming the word.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Parsed, TrainError> {
    let mut options = Options::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let name = word.to_string_lossy().into_owned();
        if name == "--help" || name == "-h" {
            return Ok(Parsed::Help);
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (name, None),
        };
        let mut value =
            || value.clone().or_else(|| words.next()).ok_or_else(|| input(format!("{name} needs a value")));
        match name.as_str() {
            "--epochs" => options.epochs = number(&name, value()?, 0..=1_000_000)?,
            "--batch" => options.batch = number(&name, value()?, 1..=1_000_000)?,
            "--lr" => options.lr = rate(&name, value()?)?,
            "--momentum" => options.momentum = rate(&name, value()?)?,
            "--hidden" => options.hidden = widths(&name, &value()?)?,
            "--seed" => options.seed = number(&name, value()?, 0..=u64::MAX)?,
            "--bucket" => options.bucket = number(&name, value()?, 1..=1_000_000usize)? * 256,
            "--buffers" => options.shared = is_shared(&name, &value()?)?,
            "--data" => options.data = Some(value()?.into()),
            "--checkpoint" => options.checkpoint = Some(value()?.into()),
            "--resume" => options.resume = Some(value()?.into()),
            "--log-loss" => options.log_loss = Some(value()?.into()),
            _ => return Err(input(format!("unknown option '{name}' (train --help lists them)"))),
        }
    }
    Ok(Parsed::Train(options))
}

fn input(text: String) -> TrainError {
    TrainError::Input(text)
}

fn number<T>(name: &str, value: OsString, allowed: std::ops::RangeInclusive<T>) -> Result<T, TrainError>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let text = value.to_string_lossy();
    let parsed = text.parse().ok().filter(|n| allowed.contains(n));
    parsed.ok_or_else(|| {
        input(format!("{name}: '{text}' is not a number from {} to {}", allowed.start(), allowed.end()))
    })
}

fn is_shared(name: &str, value: &OsString) -> Result<bool, TrainError> {
    match value.to_string_lossy().as_ref() {
        "ordinary" => Ok(false),
        "shared" => Ok(true),
        other => Err(input(format!("{name}: '{other}' is neither ordinary nor shared"))),
    }
}

fn rate(name: &str, value: OsString) -> Result<f32, TrainError> {
    number(name, value, 0.0..=1000.0)
}

fn widths(name: &str, value: &OsString) -> Result<Vec<usize>, TrainError> {
    let text = value.to_string_lossy();
    let widths: Option<Vec<usize>> =
        text.split(',').map(|w| w.parse().ok().filter(|w| (1..=65_536).contains(w))).collect();
    widths.ok_or_else(|| input(format!("{name}: '{text}' is not a list of layer widths like 128,64")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Parsed, TrainError> {
        parse(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn both_spellings_of_a_value() {
        let Ok(Parsed::Train(options)) = of(&["--epochs", "3", "--lr=0.5", "--hidden", "7"]) else {
            panic!()
        };
        assert_eq!((options.epochs, options.lr, options.hidden), (3, 0.5, vec![7]));
        let Ok(Parsed::Train(options)) = of(&["--buffers=shared"]) else { panic!() };
        assert!(options.shared);
        assert_eq!(of(&["--batch", "1", "-h"]).unwrap(), Parsed::Help);
    }

    #[test]
    fn bad_words_are_named() {
        for (words, text) in [
            (&["--epoch", "1"][..], "unknown option '--epoch'"),
            (&["--epochs"][..], "--epochs needs a value"),
            (&["--buffers", "fast"][..], "--buffers: 'fast' is neither"),
            (&["--batch", "0"][..], "--batch: '0' is not a number from 1"),
            (&["--lr", "fast"][..], "--lr: 'fast'"),
            (&["--lr", "NaN"][..], "--lr: 'NaN'"),
            (&["--hidden", "8,,8"][..], "--hidden: '8,,8'"),
        ] {
            let error = of(words).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
