//! The training loop: shares of each global batch, gradients summed over the ranks in buckets while the backward
//! pass goes on, one line an epoch.

use crate::TrainError;
use crate::args::Options;
use crate::checkpoint::Checkpoint;
use crate::data::{self, Data};
use crate::model::{Model, Random, Score, Scratch, to_f32};
use crate::ranks::{Job, Ranks};
use crate::sgd::Sgd;
use std::io::Write;
use std::ops::Range;
use std::time::Instant;

/// Trains as the options say, on the ranks this process belongs to.
///
/// # Errors
/// Unusable data or checkpoint, lost ranks, results that cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), TrainError> {
    let data = options.data.as_deref().map_or_else(|| Ok(data::digits()), data::load)?;
    let mut job = Job::join(options.shared)?;
    let mut out = std::io::stdout().lock();
    train(options, &data, &mut job, &mut out)?;
    job.leave()
}

/// The loop itself, on any ranks; `out` gets rank 0's lines.
pub(crate) fn train<R: Ranks>(
    options: &Options,
    data: &Data,
    ranks: &mut R,
    out: &mut impl Write,
) -> Result<Vec<f64>, TrainError> {
    let started = Instant::now();
    let widths: Vec<usize> =
        [data.width].iter().chain(&options.hidden).chain(&[data.classes]).copied().collect();
    let mut state = State::start(options, Model::new(&widths, options.seed), ranks)?;
    let first = ranks.rank() == 0;
    let mut say = |line: String| if first { tell(out, &line) } else { Ok(()) };
    say(format!(
        "train: ranks={} {} parameters={} samples={} batch={}",
        ranks.size(),
        ranks.describe(),
        state.model.parameters.len(),
        data.train.len(),
        options.batch
    ))?;
    let (mut losses, mut accuracy) = (Vec::new(), state.accuracy(data, ranks)?);
    let first_epoch = state.epoch;
    while state.epoch < options.epochs {
        let start = Instant::now();
        let score = state.pass(options, data, ranks)?;
        state.epoch += 1;
        accuracy = state.accuracy(data, ranks)?;
        let samples = to_f64(data.train.len());
        losses.push(score.loss / samples);
        say(format!(
            "epoch {}/{} loss={:.6} train_accuracy={:.4} accuracy={accuracy:.4} seconds={:.3}",
            state.epoch,
            options.epochs,
            score.loss / samples,
            to_f64(score.right) / samples,
            start.elapsed().as_secs_f64()
        ))?;
        if first {
            state.save(options, first_epoch, &losses)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = to_f64(data.train.len() * losses.len()) / seconds;
    say(format!(
        "train: done ranks={} epochs={} accuracy={accuracy:.2} seconds={seconds:.2} samples_per_s={rate:.0}",
        ranks.size(),
        options.epochs
    ))?;
    Ok(losses)
}

fn tell(out: &mut impl Write, line: &str) -> Result<(), TrainError> {
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|source| TrainError::Write { what: "standard output".into(), source })
}

/// What changes while training.
struct State {
    epoch: usize,
    model: Model,
    sgd: Sgd,
    scratch: Scratch,
}

/// Gradients on their way: the sums of the parameters from `offset` on.
struct Bucket<S> {
    offset: usize,
    sum: S,
}

impl State {
    /// The same start on every rank: rank 0's weights, or those of the checkpoint it resumes.
    fn start<R: Ranks>(options: &Options, mut model: Model, ranks: &mut R) -> Result<Self, TrainError> {
        let mut sgd = Sgd::new(model.parameters.len(), options.lr, options.momentum);
        let mut epoch = [0.0];
        if let Some(file) = options.resume.as_deref().filter(|_| ranks.rank() == 0) {
            let checkpoint = Checkpoint::load(file, model.parameters.len())?;
            epoch = [to_f64(checkpoint.epoch)];
            model.parameters = checkpoint.parameters;
            sgd.velocity = checkpoint.velocity;
        }
        ranks.share(&mut model.parameters)?;
        ranks.share(&mut sgd.velocity)?;
        // Only rank 0 has counted anything: the sum is its count.
        ranks.sum(&mut epoch)?;
        Ok(Self { epoch: to_count(epoch[0]), model, sgd, scratch: Scratch::default() })
    }

    /// One epoch; the score is of all ranks.
    fn pass<R: Ranks>(&mut self, options: &Options, data: &Data, ranks: &mut R) -> Result<Score, TrainError> {
        let order = shuffled(data.train.len(), options.seed.wrapping_add(1 + self.epoch as u64));
        let mut score = Score::default();
        for batch in order.chunks(options.batch) {
            let own = &batch[share(batch.len(), ranks.rank(), ranks.size())];
            let part = self.step(options, data, own, batch.len(), ranks)?;
            score.loss += part.loss;
            score.right += part.right;
        }
        let mut sums = [score.loss, to_f64(score.right)];
        ranks.sum(&mut sums)?;
        Ok(Score { loss: sums[0], right: to_count(sums[1]) })
    }

    /// One step on this rank's share of a batch of `batch` samples.
    fn step<R: Ranks>(
        &mut self,
        options: &Options,
        data: &Data,
        own: &[usize],
        batch: usize,
        ranks: &mut R,
    ) -> Result<Score, TrainError> {
        let samples = own.iter().map(|&i| (data.train.image(i, data.width), data.train.labels[i]));
        let layers = self.model.layers();
        let mut offset = self.model.parameters.len();
        let (mut waiting, mut started): (Vec<f32>, Vec<Bucket<R::Sum>>) = (Vec::new(), Vec::new());
        let score = self.model.learn(samples, &mut self.scratch, |layer, gradient| {
            // Layers come last first: a bucket grows to the front.
            offset -= layers[layer].len();
            waiting.splice(0..0, gradient.iter().copied());
            if waiting.len() >= options.bucket || layer == 0 {
                started.push(Bucket { offset, sum: ranks.start_sum(std::mem::take(&mut waiting))? });
            }
            started.iter_mut().try_for_each(|bucket| ranks.progress(&mut bucket.sum))
        })?;
        for bucket in started {
            let gradient = ranks.finish_sum(bucket.sum)?;
            self.sgd.step(&mut self.model.parameters, bucket.offset, &gradient, to_f32(batch));
        }
        Ok(score)
    }

    /// Accuracy on the test set, each rank judging its share.
    fn accuracy<R: Ranks>(&self, data: &Data, ranks: &mut R) -> Result<f64, TrainError> {
        let own = share(data.test.len(), ranks.rank(), ranks.size());
        let score = self.model.score(own.map(|i| (data.test.image(i, data.width), data.test.labels[i])));
        let mut right = [to_f64(score.right)];
        ranks.sum(&mut right)?;
        Ok(right[0] / to_f64(data.test.len()).max(1.0))
    }

    /// The files rank 0 writes after an epoch.
    fn save(&self, options: &Options, first_epoch: usize, losses: &[f64]) -> Result<(), TrainError> {
        if let Some(file) = &options.checkpoint {
            let (parameters, velocity) = (self.model.parameters.clone(), self.sgd.velocity.clone());
            Checkpoint { epoch: self.epoch, parameters, velocity }.save(file)?;
        }
        if let Some(file) = &options.log_loss {
            let lines = losses.iter().enumerate().map(|(i, l)| format!("{} {l:.9}\n", first_epoch + i + 1));
            let written = std::fs::write(file, lines.collect::<String>());
            written.map_err(|source| TrainError::Write { what: file.display().to_string(), source })?;
        }
        Ok(())
    }
}

/// `0..n` in an order that depends on the seed only (Fisher-Yates).
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    (1..n).rev().for_each(|i| order.swap(i, random.below(i + 1)));
    order
}

/// The part of `n` things that rank `rank` of `size` takes: contiguous, none twice, sizes differing by one.
fn share(n: usize, rank: usize, size: usize) -> Range<usize> {
    n * rank / size..n * (rank + 1) / size
}

#[expect(clippy::cast_precision_loss, reason = "sample counts are far below 2^53")]
fn to_f64(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sums of counts, exact in f64")]
fn to_count(n: f64) -> usize {
    n as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::tests::in_threads;

    fn quick(epochs: usize) -> Options {
        Options { epochs, ..Options::default() }
    }

    #[test]
    fn the_digits_are_learnt() {
        let (curve, out) = in_threads(1, |ranks| {
            let mut out = Vec::new();
            (train(&quick(20), &data::digits(), ranks, &mut out).unwrap(), out)
        })
        .remove(0);
        assert!(curve.windows(2).filter(|w| w[1] > w[0]).count() < 5, "{curve:?}");
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().last().unwrap();
        let word =
            |name: &str| last.split_whitespace().find_map(|w| w.strip_prefix(name)).unwrap().to_owned();
        assert!(last.starts_with("train: done ranks=1 epochs=20 "), "{last}");
        assert!(word("accuracy=").parse::<f64>().unwrap() >= 0.96, "{last}");
    }

    #[test]
    fn the_loss_curve_does_not_depend_on_the_number_of_ranks() {
        // 7 does not divide the batch, and 61 samples a batch leave ranks with unequal shares.
        let options = Options { batch: 61, ..quick(3) };
        let curve = |size| {
            in_threads(size, |ranks| train(&options, &data::digits(), ranks, &mut Vec::new()).unwrap())
        };
        let reference = curve(1).remove(0);
        for size in [2, 4, 7, 8] {
            for curve in curve(size) {
                let close = curve.iter().zip(&reference).all(|(a, b)| (a - b).abs() < 1e-3 * b);
                assert!(close && curve.len() == 3, "{size} ranks: {curve:?} not {reference:?}");
            }
        }
    }

    #[test]
    fn a_resumed_run_goes_on_where_the_other_stopped() {
        let dir = std::env::temp_dir().join(format!("train-resume.{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = Some(dir.join("c"));
        let run = |options: Options| {
            in_threads(2, |ranks| train(&options, &data::digits(), ranks, &mut Vec::new()).unwrap()).remove(0)
        };
        let whole = run(quick(4));
        run(Options { checkpoint: file.clone(), ..quick(2) });
        let rest = run(Options { resume: file, ..quick(4) });
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(rest, whole[2..]);
    }

    #[test]
    fn shares_cover_a_batch_once() {
        for (n, size) in [(64, 8), (61, 7), (3, 8), (0, 2)] {
            let all: Vec<usize> = (0..size).flat_map(|r| share(n, r, size)).collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
