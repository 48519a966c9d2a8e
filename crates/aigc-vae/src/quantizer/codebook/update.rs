//! Updates of the codes with the vectors of a batch: moving averages (van den Oord et al. 2017,
//! <https://arxiv.org/abs/1711.00937>, app. A.1), and the revival of dead codes.

use super::VectorQuantizer;
use aigc_core::rng::Rng;
use burn::{
    module::Param,
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData},
};

/// The state after an update, off the autodiff graph.
pub(super) struct State {
    pub(super) codes: Tensor<2>,
    /// `None` without moving averages.
    pub(super) sums: Option<Tensor<2>>,
    pub(super) counts: Tensor<1>,
}

impl VectorQuantizer {
    /// Updates the state with `[n, dim]` vectors and the codes that they were assigned to, `[n]`,
    /// both off the autodiff graph.
    pub(in crate::quantizer) fn update_with(
        self,
        vectors: Tensor<2>,
        indices: Tensor<1, Int>,
        rng: &mut Rng,
    ) -> Self {
        if vectors.dims()[0] == 0 {
            return self;
        }
        let vectors = self.normalized(vectors);
        let state = if self.starts_next() {
            self.kmeans(vectors, rng)
        } else {
            let state = self.averaged(vectors.clone(), indices);
            self.revived(state, vectors, rng)
        };
        self.with_state(state)
    }

    /// The moving averages with the vectors of a batch, and the codes that follow them.
    fn averaged(&self, vectors: Tensor<2>, indices: Tensor<1, Int>) -> State {
        let decay = self.config.decay;
        let (count, sum) = assigned(vectors, indices, self.config.num_codes);
        let counts = self.counts.val().without_autodiff() * decay + count * (1.0 - decay);
        let codes = self.codes.val().without_autodiff();
        let Some(sums) = &self.sums else {
            return State {
                codes,
                sums: None,
                counts,
            };
        };
        let mut old = sums.val().without_autodiff();
        if !self.known.is_started() {
            // Before the first update, each code counts as the mean of one vector.
            let started: Tensor<1> = self.started.val().without_autodiff();
            let first: Tensor<2> = (started.neg() + 1.0).reshape([1, 1]);
            old = old + codes * first;
        }
        let sums = old * decay + sum * (1.0 - decay);
        let smoothed = smoothed(counts.clone(), self.config.epsilon);
        State {
            codes: sums.clone() / smoothed.unsqueeze_dim::<2>(1),
            sums: Some(sums),
            counts,
        }
    }

    /// Replaces dead codes by random vectors of the batch. They are given the mean use, so that
    /// they have time to be used.
    fn revived(&self, state: State, vectors: Tensor<2>, rng: &mut Rng) -> State {
        if self.config.revive_below == 0.0 {
            return state;
        }
        let (k, d) = (self.config.num_codes, self.config.dim);
        let n = vectors.dims()[0];
        let drawn: Vec<i32> = (0..k).map(|_| rng.random_index(n) as i32).collect();
        let drawn = Tensor::<1, Int>::from_data(TensorData::new(drawn, [k]), &vectors.device());
        let replacements = vectors.select(0, drawn);
        let mean = state.counts.clone().mean();
        let excess = state.counts.clone() - mean.clone() * self.config.revive_below;
        let is_dead = excess.lower_elem(0.0);
        let is_dead_row = is_dead.clone().unsqueeze_dim::<2>(1).expand([k, d]);
        let sums = state.sums.map(|sums| {
            let revived = replacements.clone() * mean.clone().reshape([1, 1]);
            sums.mask_where(is_dead_row.clone(), revived)
        });
        State {
            codes: state.codes.mask_where(is_dead_row, replacements),
            sums,
            counts: state.counts.mask_where(is_dead, mean.expand([k])),
        }
    }

    fn with_state(mut self, state: State) -> Self {
        self.codes = replaced(self.codes, state.codes);
        self.sums = match (self.sums, state.sums) {
            (Some(param), Some(sums)) => Some(replaced(param, sums)),
            (sums, _) => sums,
        };
        self.counts = replaced(self.counts, state.counts);
        if !self.known.is_started() {
            let ones = self.started.val().without_autodiff().ones_like();
            self.started = replaced(self.started, ones);
            self.known.set_started();
        }
        self
    }
}

/// The parameter with another value, off the autodiff graph; it is trained if it was before.
fn replaced<const D: usize>(param: Param<Tensor<D>>, value: Tensor<D>) -> Param<Tensor<D>> {
    param.map(|old| {
        let value = match old.is_autodiff() {
            true => Tensor::from_inner(value),
            false => value,
        };
        value.set_require_grad(old.is_require_grad())
    })
}

/// The number and the sum of the vectors of each code.
///
/// # Shapes
/// - vectors: `[n, dim]`, indices: `[n]`
/// - outputs: `[num_codes]` and `[num_codes, dim]`
pub(super) fn assigned(
    vectors: Tensor<2>,
    indices: Tensor<1, Int>,
    num_codes: usize,
) -> (Tensor<1>, Tensor<2>) {
    let ([n, dim], device) = (vectors.dims(), vectors.device());
    let add = IndexingUpdateOp::Add;
    let ones = Tensor::ones([n], &device);
    let count = Tensor::<1>::zeros([num_codes], &device);
    let sum = Tensor::<2>::zeros([num_codes, dim], &device);
    (
        count.select_assign(0, indices.clone(), ones, add),
        sum.select_assign(0, indices, vectors, add),
    )
}

/// Laplace smoothing of counts, which keeps their sum: `(N + ε) / (Σ N + K·ε) · Σ N`.
fn smoothed(counts: Tensor<1>, epsilon: f64) -> Tensor<1> {
    let k = counts.dims()[0];
    let total = counts.clone().sum();
    (counts + epsilon) * (total.clone() / (total + k as f64 * epsilon))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::super::{
        CodebookUpdate, VectorQuantizerConfig,
        testing::{config, output, quantizer},
    };
    use super::*;
    use crate::{CodeUsage, Quantizer};
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
        weights::{load_weights, save_weights},
    };
    use burn::{module::ParamId, tensor::Device};

    /// Two updates by app. A.1, in f64.
    #[test]
    fn moving_averages_match_their_definition() {
        let device = Device::flex();
        let config = VectorQuantizerConfig {
            decay: 0.8,
            epsilon: 0.01,
            ..config()
        };
        let mut found = quantizer(&config, &device);
        let batches: [&[[f32; 2]]; 2] = [
            &[[0.5, 0.25], [0.0, -1.0], [3.5, 1.0], [0.25, 0.25]],
            &[[4.0, 1.0], [3.0, 0.0], [0.0, 3.0]],
        ];
        let codes_of: [&[usize]; 2] = [&[0, 0, 1, 0], &[1, 1, 2]];
        let mut counts = [1.0f64; 3];
        let mut sums = [[0.0f64, 0.0], [4.0, 0.0], [0.0, 4.0]];
        for (batch, codes_of) in batches.iter().zip(codes_of) {
            let output = output(&found, batch);
            let codes: Vec<i64> = output.codes.clone().into_data().iter::<i64>().collect();
            let expected: Vec<i64> = codes_of.iter().map(|code| *code as i64).collect();
            assert_eq!(codes, expected);
            found = found.update(&[output]);

            counts = counts.map(|count| 0.8 * count);
            sums = sums.map(|sum| sum.map(|value| 0.8 * value));
            for (x, code) in batch.iter().zip(codes_of) {
                counts[*code] += 0.2;
                for (sum, x) in sums[*code].iter_mut().zip(x) {
                    *sum += 0.2 * f64::from(*x);
                }
            }
            let total: f64 = counts.iter().sum();
            let smooth = |count: f64| (count + 0.01) / (total + 0.03) * total;
            let codes: Vec<f32> = sums
                .iter()
                .zip(counts)
                .flat_map(|(sum, count)| sum.map(|value| (value / smooth(count)) as f32))
                .collect();
            assert_close(&values(found.codes.val()), &codes, 1e-5);
            assert_close(
                &values(found.counts.val()),
                &counts.map(|count| count as f32),
                1e-5,
            );
        }
    }

    /// Several outputs count as one batch.
    #[test]
    fn update_joins_accumulated_batches() {
        let device = Device::flex();
        let start = quantizer(&config(), &device);
        let x = [[0.5, 0.25], [0.0, -1.0], [3.5, 1.0], [0.25, 3.0]];
        let whole = start.clone().update(&[output(&start, &x)]);
        let parts = [output(&start, &x[..1]), output(&start, &x[1..])];
        let parts = start.update(&parts);
        assert_close(&values(parts.codes.val()), &values(whole.codes.val()), 1e-6);
    }

    #[test]
    fn dead_codes_are_revived_from_the_batch() {
        let device = Device::flex();
        for update in [CodebookUpdate::MovingAverage, CodebookUpdate::Gradient] {
            let config = VectorQuantizerConfig {
                num_codes: 16,
                update,
                kmeans_start: false,
                revive_below: 0.2,
                decay: 0.5,
                ..VectorQuantizerConfig::new(16, 2)
            };
            let mut quantizer = config.init(&device).unwrap().init_weights(3);
            // All codes but the first are far from the data, so that only the first is used.
            let far = Tensor::<2>::full([16, 2], 100.0, &device)
                .slice_assign([0..1, 0..2], Tensor::zeros([1, 2], &device));
            quantizer.codes = Param::initialized(ParamId::new(), far);
            let x: Tensor<3> = Rng::new(4).normal([8, 32, 2], &device);
            let used = |quantizer: &VectorQuantizer| {
                let mut usage = CodeUsage::new(1, 16).unwrap();
                usage.add(quantizer.quantize(x.clone()).codes).unwrap();
                usage.usage()
            };
            assert_eq!(used(&quantizer), 1.0 / 16.0);
            let mut rng = Rng::new(5);
            for _ in 0..12 {
                let output = quantizer.quantize_with(x.clone(), &mut rng);
                quantizer = quantizer.update(&[output]);
            }
            assert!(used(&quantizer) > 0.8, "{update:?}: {}", used(&quantizer));
            // Revived codes are vectors of the batch, or means of some.
            let largest = values(quantizer.codes.val()).into_iter().map(f32::abs);
            assert!(largest.fold(0.0, f32::max) < 5.0, "{update:?}");
        }
    }

    /// A quantiser whose state was saved and loaded continues bit for bit.
    #[test]
    fn state_is_saved_and_continues_exactly() {
        let device = Device::flex();
        let config = VectorQuantizerConfig {
            revive_below: 0.3,
            decay: 0.7,
            ..VectorQuantizerConfig::new(8, 4)
        };
        let step = |quantizer: VectorQuantizer, index: u64| {
            let mut rng = Rng::new(index);
            let x = rng.normal([4, 16, 4], &device);
            let output = quantizer.quantize_with(x, &mut rng);
            quantizer.update(&[output])
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let trained = (0..4).fold(config.init(&device).unwrap().init_weights(2), step);
        save_weights(&trained, &path).unwrap();
        let loaded = load_weights(config.init(&device).unwrap(), &path).unwrap();
        let [a, b] = [trained, loaded].map(|quantizer| (4..8).fold(quantizer, step));
        for (a, b) in [
            (values(a.codes.val()), values(b.codes.val())),
            (values(a.counts.val()), values(b.counts.val())),
            (values(a.sums.unwrap().val()), values(b.sums.unwrap().val())),
        ] {
            assert_eq!(a, b);
        }
    }
}
