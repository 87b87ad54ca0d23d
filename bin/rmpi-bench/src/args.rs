//! The options of `rmpi-bench`, from words.

use rmpi::Transport;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
rmpi-bench [--transport NAME] MODE [BYTES]: micro-benchmarks between the ranks of a job

  latency         ping-pong of ranks 0 and 1, one way
  bw              stream of windows of 32 messages, rank 0 to rank 1
  rate            the same with messages of BYTES (8) only
  allreduce       f32 sum over all ranks, with other input and output buffers
  bcast           from rank 0
  allgather       BYTES from every rank
  reduce_scatter  f32 sum, BYTES of input on every rank
  alltoall        BYTES from every rank to every rank
  barrier
  sum             f32 sum of two arrays by each rank alone, without messages
  overlap         non-blocking allreduce under computation of the same length; `hidden` is the part of the
                  shorter of the two that the other hid; --looks no: without a look at it meanwhile
  soak            random messages and collectives for --seconds S (60), every byte checked; --seed N (1) gives
                  the same work again; --until PATH ends it early, as soon as rank 0 finds such a file; `longest_gap` is the longest time, in seconds, in which a rank finished nothing
  init            time in World::init of the slowest rank

  BYTES           largest message (as the usual MPI benchmarks: 4 MiB to 64 MiB by mode)
  --transport     auto (what the launcher was told, else the fastest) or tcp
  --buffers       ordinary, or shared: allreduce in place on buffers in the node's memory (World::alloc)
  --progress-thread  a thread of each rank makes progress while it computes (for overlap)
";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Ping-pong.
    Latency,
    /// One-way stream.
    Bw,
    /// One-way stream of one size.
    Rate,
    /// Sum to all.
    Allreduce,
    /// Copy to all.
    Bcast,
    /// Collect at all.
    Allgather,
    /// Sum, a block each.
    ReduceScatter,
    /// Exchange of blocks.
    Alltoall,
    /// Sum on one core.
    Sum,
    /// Meeting.
    Barrier,
    /// Sum to all under computation.
    Overlap,
    /// Start of a rank.
    Init,
    /// Random work.
    Soak,
}

impl Mode {
    const ALL: [(&'static str, Self); 13] = [
        ("latency", Self::Latency),
        ("bw", Self::Bw),
        ("rate", Self::Rate),
        ("allreduce", Self::Allreduce),
        ("bcast", Self::Bcast),
        ("allgather", Self::Allgather),
        ("reduce_scatter", Self::ReduceScatter),
        ("alltoall", Self::Alltoall),
        ("barrier", Self::Barrier),
        ("sum", Self::Sum),
        ("overlap", Self::Overlap),
        ("init", Self::Init),
        ("soak", Self::Soak),
    ];

    /// Whether it takes a pair of ranks.
    pub(crate) fn of_two(self) -> bool {
        matches!(self, Self::Latency | Self::Bw | Self::Rate)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, m)| m == self).map_or("", |(name, _)| name))
    }
}

/// One run.
#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) bytes: Option<usize>,
    pub(crate) transport: Transport,
    pub(crate) seconds: Duration,
    pub(crate) seed: u64,
    /// A file that ends `soak` early, looked for by rank 0.
    pub(crate) until: Option<PathBuf>,
    /// Buffers of `World::alloc`.
    pub(crate) shared: bool,
    pub(crate) progress_thread: bool,
    /// Whether `overlap` looks at its request while it computes.
    pub(crate) looks: bool,
}

/// What the words ask for.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    Help,
    Run(Args),
}

/// Why the words are not usable.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("unknown mode {0:?}; see --help")]
    Mode(String),
    #[error("no mode given; see --help")]
    NoMode,
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} needs a whole number")]
    Number(&'static str),
    #[error("{0} is {1} or {2}, not {3:?}")]
    Choice(&'static str, &'static str, &'static str, String),
    #[error("{0:?} is not a number of bytes, at least 4")]
    Bytes(String),
    #[error("{0:?} is too much; see --help")]
    Extra(String),
    #[error(transparent)]
    Transport(#[from] rmpi::UnknownTransport),
}

fn number(option: &'static str, word: Option<String>) -> Result<u64, ArgsError> {
    word.ok_or(ArgsError::NoValue(option))?.parse().map_err(|_| ArgsError::Number(option))
}

/// Whether the second of two words was given.
fn second(option: &'static str, words: [&'static str; 2], word: Option<String>) -> Result<bool, ArgsError> {
    let word = word.ok_or(ArgsError::NoValue(option))?;
    let found = words.iter().position(|w| *w == word);
    found.map(|at| at == 1).ok_or(ArgsError::Choice(option, words[0], words[1], word))
}

/// Reads the words after the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Parsed, ArgsError> {
    let (mut mode, mut bytes, mut transport) = (None, None, Transport::Auto);
    let (mut seconds, mut seed, mut until) = (Duration::from_mins(1), 1, None);
    let (mut shared, mut progress_thread, mut looks) = (false, false, true);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--transport" => {
                transport = words.next().ok_or(ArgsError::NoValue("--transport"))?.parse()?;
            }
            "--seconds" => seconds = Duration::from_secs(number("--seconds", words.next())?),
            "--seed" => seed = number("--seed", words.next())?,
            "--until" => until = Some(words.next().ok_or(ArgsError::NoValue("--until"))?.into()),
            "--buffers" => shared = second("--buffers", ["ordinary", "shared"], words.next())?,
            "--looks" => looks = second("--looks", ["no", "yes"], words.next())?,
            "--progress-thread" => progress_thread = true,
            _ if mode.is_none() => {
                let found = Mode::ALL.iter().find(|(name, _)| *name == word);
                mode = Some(found.ok_or(ArgsError::Mode(word))?.1);
            }
            _ if bytes.is_none() => {
                let number = word.parse().ok().filter(|n| *n >= 4);
                bytes = Some(number.ok_or(ArgsError::Bytes(word))?);
            }
            _ => return Err(ArgsError::Extra(word)),
        }
    }
    let mode = mode.ok_or(ArgsError::NoMode)?;
    if shared && mode != Mode::Allreduce {
        return Err(ArgsError::Extra("--buffers shared".into()));
    }
    Ok(Parsed::Run(Args { mode, bytes, transport, seconds, seed, until, shared, progress_thread, looks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Parsed, ArgsError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn soak_of_a_minute() -> Args {
        let (seconds, transport) = (Duration::from_mins(1), Transport::Auto);
        let (shared, progress_thread, looks) = (false, false, true);
        let (seed, until) = (1, None);
        Args {
            mode: Mode::Soak,
            bytes: None,
            transport,
            seconds,
            seed,
            until,
            shared,
            progress_thread,
            looks,
        }
    }

    #[test]
    fn lines_are_read() {
        let run =
            |mode, bytes, transport| Ok(Parsed::Run(Args { mode, bytes, transport, ..soak_of_a_minute() }));
        assert_eq!(words("latency"), run(Mode::Latency, None, Transport::Auto));
        assert_eq!(words("--transport tcp bw 4096"), run(Mode::Bw, Some(4096), Transport::Tcp));
        let soak = Args { seconds: Duration::from_secs(5), seed: 9, ..soak_of_a_minute() };
        assert_eq!(words("soak --seconds 5 --seed 9"), Ok(Parsed::Run(soak)));
        let until = Args { until: Some("/a/b".into()), ..soak_of_a_minute() };
        assert_eq!(words("soak --until /a/b"), Ok(Parsed::Run(until)));
        assert_eq!(words("--help"), Ok(Parsed::Help));
        let (mode, shared) = (Mode::Allreduce, true);
        assert_eq!(
            words("allreduce --buffers shared"),
            Ok(Parsed::Run(Args { mode, shared, ..soak_of_a_minute() }))
        );
        let (mode, progress_thread, looks) = (Mode::Overlap, true, false);
        let overlap = Args { mode, progress_thread, looks, ..soak_of_a_minute() };
        assert_eq!(words("overlap --progress-thread --looks no"), Ok(Parsed::Run(overlap)));
        assert!(Mode::ALL.iter().all(|(name, _)| HELP.contains(name)));
    }

    #[test]
    fn unusable_lines_say_why() {
        for (line, want) in [
            ("", "no mode given"),
            ("ping", "unknown mode \"ping\""),
            ("latency x", "\"x\" is not a number of bytes"),
            ("latency 3", "at least 4"),
            ("latency 8 9", "\"9\" is too much"),
            ("--transport", "--transport needs a value"),
            ("soak --until", "--until needs a value"),
            ("soak --seconds x", "--seconds needs a whole number"),
            ("allreduce --buffers big", "--buffers is ordinary or shared, not \"big\""),
            ("latency --buffers shared", "\"--buffers shared\" is too much"),
            ("--transport ib latency", "unknown transport 'ib'"),
        ] {
            let error = words(line).unwrap_err().to_string();
            assert!(error.contains(want), "{line}: {error}");
        }
    }
}
