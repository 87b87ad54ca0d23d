//! A multi-layer perceptron: fully connected layers with ReLU between them and softmax cross-entropy at the
//! end. Gradients are *sums* over samples, so that shares of a batch add up exactly like the batch.

/// A seeded generator (xorshift64*, Vigna 2016): the same on every rank and machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From any seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in -1..1.
    fn signed(&mut self) -> f32 {
        let bits = u16::try_from(self.next() >> 48).unwrap_or(0);
        f32::from(bits) / 32_768.0 - 1.0
    }

    /// Uniform in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n as u64).max(1)).unwrap_or(0)
    }
}

/// One layer's place in the parameters: `outputs x inputs` weights row by row, then `outputs` biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    inputs: usize,
    outputs: usize,
    offset: usize,
}

impl Layer {
    /// Number of parameters.
    pub(crate) fn len(self) -> usize {
        self.outputs * (self.inputs + 1)
    }
}

/// The network and its parameters in one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    layers: Vec<Layer>,
    /// All parameters, layer by layer.
    pub(crate) parameters: Vec<f32>,
}

/// Memory of one pass, kept between steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    /// What each layer put out for the current sample.
    outputs: Vec<Vec<f32>>,
    /// The error at each layer's output, per sample of the batch: `errors[layer][sample]`.
    errors: Vec<Vec<f32>>,
    /// What each layer got, per sample.
    inputs: Vec<Vec<f32>>,
}

/// The outcome of a pass over some samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    /// Sum of the losses (nats).
    pub(crate) loss: f64,
    /// How many labels were right.
    pub(crate) right: usize,
}

impl Model {
    /// Layers of these widths, input first, with He-uniform weights.
    pub(crate) fn new(widths: &[usize], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (mut layers, mut parameters) = (Vec::new(), Vec::new());
        for pair in widths.windows(2) {
            let layer = Layer { inputs: pair[0], outputs: pair[1], offset: parameters.len() };
            let limit = (6.0 / to_f32(layer.inputs)).sqrt();
            parameters.extend((0..layer.inputs * layer.outputs).map(|_| random.signed() * limit));
            parameters.extend(std::iter::repeat_n(0.0, layer.outputs));
            layers.push(layer);
        }
        Self { layers, parameters }
    }

    /// The layers, first to last.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Loss and predictions of these samples, without learning.
    pub(crate) fn score<'a>(&self, samples: impl Iterator<Item = (&'a [f32], u8)>) -> Score {
        let mut scratch = Scratch::default();
        let mut score = Score::default();
        for (image, label) in samples {
            self.forward(image, &mut scratch);
            self.judge(label, &mut scratch, &mut score);
        }
        score
    }

    /// One pass forward and back over a share of a batch. `ready` gets each layer's summed gradient as soon
    /// as it is complete, last layer first, while earlier layers are still to be computed.
    pub(crate) fn learn<'a, E>(
        &self,
        samples: impl Iterator<Item = (&'a [f32], u8)>,
        scratch: &mut Scratch,
        mut ready: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<Score, E> {
        let depth = self.layers.len();
        scratch.errors.resize_with(depth, Vec::new);
        scratch.inputs.resize_with(depth, Vec::new);
        scratch.errors.iter_mut().chain(&mut scratch.inputs).for_each(Vec::clear);
        let mut score = Score::default();
        let mut count = 0;
        for (image, label) in samples {
            self.forward(image, scratch);
            for layer in 0..depth {
                let input: &[f32] = if layer == 0 { image } else { &scratch.outputs[layer - 1] };
                scratch.inputs[layer].extend_from_slice(input);
            }
            self.judge(label, scratch, &mut score);
            count += 1;
        }
        let mut gradient = Vec::new();
        for index in (0..depth).rev() {
            self.gradient(index, count, scratch, &mut gradient);
            ready(index, &gradient)?;
            if index > 0 {
                self.back(index, count, scratch);
            }
        }
        Ok(score)
    }

    fn weights(&self, layer: Layer) -> (&[f32], &[f32]) {
        self.parameters[layer.offset..layer.offset + layer.len()].split_at(layer.inputs * layer.outputs)
    }

    fn forward(&self, image: &[f32], scratch: &mut Scratch) {
        scratch.outputs.resize_with(self.layers.len(), Vec::new);
        for (index, &layer) in self.layers.iter().enumerate() {
            let (done, rest) = scratch.outputs.split_at_mut(index);
            let input = done.last().map_or(image, |o| o.as_slice());
            let (weights, biases) = self.weights(layer);
            let last = index + 1 == self.layers.len();
            rest[0].clear();
            rest[0].extend(weights.chunks_exact(layer.inputs).zip(biases).map(|(row, bias)| {
                let sum = dot(row, input) + bias;
                if last { sum } else { sum.max(0.0) }
            }));
        }
    }

    /// Softmax and its loss for the sample just passed forward; appends the error at the last layer.
    fn judge(&self, label: u8, scratch: &mut Scratch, score: &mut Score) {
        let Some(logits) = scratch.outputs.last() else { return };
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = logits.iter().map(|l| (l - highest).exp()).sum();
        let label = usize::from(label);
        let own = logits.get(label).copied().unwrap_or(f32::NEG_INFINITY);
        score.loss += f64::from(total.ln() + highest - own);
        score.right += usize::from(logits.iter().position(|&l| l >= highest) == Some(label));
        if let Some(errors) = scratch.errors.last_mut() {
            let softmax = logits.iter().map(|l| (l - highest).exp() / total);
            errors.extend(softmax.enumerate().map(|(i, p)| if i == label { p - 1.0 } else { p }));
        }
    }

    /// Sums the gradient of one layer over the batch's samples.
    fn gradient(&self, index: usize, count: usize, scratch: &Scratch, gradient: &mut Vec<f32>) {
        let layer = self.layers[index];
        gradient.clear();
        gradient.resize(layer.len(), 0.0);
        let (weights, biases) = gradient.split_at_mut(layer.inputs * layer.outputs);
        for sample in 0..count {
            let input = &scratch.inputs[index][sample * layer.inputs..(sample + 1) * layer.inputs];
            let error = &scratch.errors[index][sample * layer.outputs..(sample + 1) * layer.outputs];
            for ((row, bias), &e) in weights.chunks_exact_mut(layer.inputs).zip(&mut *biases).zip(error) {
                *bias += e;
                if e != 0.0 {
                    row.iter_mut().zip(input).for_each(|(w, x)| *w += e * x);
                }
            }
        }
    }

    /// Carries the errors of layer `index` back to the outputs of the one before.
    fn back(&self, index: usize, count: usize, scratch: &mut Scratch) {
        let layer = self.layers[index];
        let (weights, _) = self.weights(layer);
        let (before, after) = scratch.errors.split_at_mut(index);
        let (errors, target) = (&after[0], &mut before[index - 1]);
        target.resize(count * layer.inputs, 0.0);
        for sample in 0..count {
            let error = &errors[sample * layer.outputs..(sample + 1) * layer.outputs];
            let out = &mut target[sample * layer.inputs..(sample + 1) * layer.inputs];
            for (row, &e) in weights.chunks_exact(layer.inputs).zip(error) {
                out.iter_mut().zip(row).for_each(|(o, w)| *o += e * w);
            }
            // ReLU: nothing flows back where nothing went forward.
            let passed = &scratch.inputs[index][sample * layer.inputs..(sample + 1) * layer.inputs];
            out.iter_mut().zip(passed).filter(|(_, x)| **x <= 0.0).for_each(|(o, _)| *o = 0.0);
        }
    }
}

/// Widths and counts fit f32 exactly up to 2^24, far above any layer here.
#[expect(clippy::cast_precision_loss, reason = "layer widths and batch sizes are far below 2^24")]
pub(crate) fn to_f32(n: usize) -> f32 {
    n as f32
}

/// Eight sums at once, so that the compiler may use vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    let (a_rest, b_rest) = (a.chunks_exact(LANES).remainder(), b.chunks_exact(LANES).remainder());
    for (x, y) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        (0..LANES).for_each(|i| sums[i] += x[i] * y[i]);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Central differences against the computed gradient, for every parameter of a small network.
    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut model = Model::new(&[5, 7, 4, 3], 3);
        let mut random = Random::new(9);
        let images: Vec<Vec<f32>> = (0..6).map(|_| (0..5).map(|_| random.signed()).collect()).collect();
        let samples = || images.iter().zip(0u8..).map(|(i, l)| (i.as_slice(), l % 3));
        let mut gradient = vec![0.0; model.parameters.len()];
        let offsets: Vec<usize> = model.layers.iter().map(|l| l.offset).collect();
        let mut order = Vec::new();
        let taken = model.learn(samples(), &mut Scratch::default(), |layer, part| {
            order.push(layer);
            gradient[offsets[layer]..offsets[layer] + part.len()].copy_from_slice(part);
            Ok::<_, Infallible>(())
        });
        assert!(taken.is_ok());
        assert_eq!(order, [2, 1, 0], "the last layer is ready first");
        const STEP: f32 = 1e-3;
        for (i, computed) in gradient.into_iter().enumerate() {
            let kept = model.parameters[i];
            let mut loss_at = |p: f32| {
                model.parameters[i] = p;
                model.score(samples()).loss
            };
            let slope = (loss_at(kept + STEP) - loss_at(kept - STEP)) / (2.0 * f64::from(STEP));
            model.parameters[i] = kept;
            assert!((slope - f64::from(computed)).abs() < 2e-2, "parameter {i}: {slope} not {computed}");
        }
    }

    #[test]
    fn shares_of_a_batch_add_up_to_the_batch() {
        let model = Model::new(&[4, 6, 2], 5);
        let mut random = Random::new(2);
        let images: Vec<Vec<f32>> = (0..9).map(|_| (0..4).map(|_| random.signed()).collect()).collect();
        let sum = |range: std::ops::Range<usize>| {
            let mut all = vec![Vec::new(); 2];
            let samples = images[range].iter().map(|i| (i.as_slice(), 1u8));
            let done = model.learn(samples, &mut Scratch::default(), |layer, part| {
                all[layer] = part.to_vec();
                Ok::<_, Infallible>(())
            });
            assert!(done.is_ok());
            all.concat()
        };
        let parts: Vec<f32> = sum(0..4).iter().zip(sum(4..9)).map(|(a, b)| a + b).collect();
        assert!(sum(0..9).iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(sum(0..0).iter().all(|g| *g == 0.0), "a rank without samples adds nothing");
    }
}
