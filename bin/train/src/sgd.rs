//! Stochastic gradient descent with momentum.

/// The optimiser and its memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sgd {
    lr: f32,
    momentum: f32,
    /// The last step of every parameter.
    pub(crate) velocity: Vec<f32>,
}

impl Sgd {
    /// For this many parameters.
    pub(crate) fn new(parameters: usize, lr: f32, momentum: f32) -> Self {
        Self { lr, momentum, velocity: vec![0.0; parameters] }
    }

    /// One step along the mean of a gradient summed over `batch` samples, for the parameters from `offset` on.
    pub(crate) fn step(&mut self, parameters: &mut [f32], offset: usize, gradient: &[f32], batch: f32) {
        let end = offset + gradient.len();
        let velocity = &mut self.velocity[offset..end];
        for ((p, v), g) in parameters[offset..end].iter_mut().zip(velocity).zip(gradient) {
            *v = self.momentum * *v + g / batch;
            *p -= self.lr * *v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_keeps_a_share_of_the_last_step() {
        let (mut sgd, mut parameters) = (Sgd::new(3, 0.5, 0.5), vec![1.0, 1.0, 1.0]);
        sgd.step(&mut parameters, 1, &[4.0], 2.0);
        assert_eq!(parameters, [1.0, 0.0, 1.0]);
        sgd.step(&mut parameters, 1, &[0.0], 2.0);
        assert_eq!(parameters, [1.0, -0.5, 1.0]);
    }
}
