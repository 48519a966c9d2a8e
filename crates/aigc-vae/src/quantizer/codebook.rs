//! Vector quantisation with a table of codes (van den Oord et al. 2017,
//! <https://arxiv.org/abs/1711.00937>).

use super::{
    MAX_DIM, Quantizer, QuantizerOutput, check_codebooks, check_dim, check_num_codes, join,
    mean_square_norm, straight_through, update_seed,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    nn::Initializer,
    ops,
    rng::Rng,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Steps of Lloyd's algorithm that start a codebook.
const LLOYD_STEPS: usize = 10;
/// Distances that are computed at a time; a block of them stays in the cache of a processor.
const BLOCK: usize = 1 << 18;
/// Fewest vectors of a block, so that a large table is not read for every single one.
const BLOCK_VECTORS: usize = 16;

/// How the codes of a [`VectorQuantizer`] follow the vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookUpdate {
    /// By the optimizer: the `codebook` loss `‖sg[x] − c‖²` (van den Oord et al. 2017, eq. 3).
    Gradient,
    /// As moving averages of the vectors assigned to each code (van den Oord et al. 2017,
    /// app. A.1).
    #[default]
    MovingAverage,
}

/// Configuration to create a [`VectorQuantizer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorQuantizerConfig {
    /// Number of codes, 2 to 2²⁰.
    pub num_codes: usize,
    /// Number of dimensions of a code.
    pub dim: usize,
    /// How the codes follow the vectors.
    pub update: CodebookUpdate,
    /// Weight of the past in the moving averages, below 1.
    pub decay: f64,
    /// Constant of Laplace smoothing that is added to the moving average of a code's use.
    pub epsilon: f64,
    /// Weight β of the `commitment` loss `‖x − sg[c]‖²`.
    pub commitment_weight: f64,
    /// Weight of the `codebook` loss, with [`CodebookUpdate::Gradient`].
    pub codebook_weight: f64,
    /// Whether the first update sets the codes to the k-means of its vectors.
    pub kmeans_start: bool,
    /// A code is dead if the moving average of its use is below this share of the mean use of all
    /// codes, and is replaced by a random vector of the batch; 0 to keep dead codes.
    pub revive_below: f64,
    /// Whether vectors and codes are normalised, so that the nearest code has the largest cosine
    /// similarity (Yu et al. 2022, <https://arxiv.org/abs/2110.04627>, §3.2).
    pub cosine: bool,
}

impl VectorQuantizerConfig {
    /// `num_codes` codes of `dim` dimensions that follow moving averages with a decay of 0.99,
    /// commitment weight 0.25, started by k-means, dead below 3 % of the mean use.
    pub fn new(num_codes: usize, dim: usize) -> Self {
        Self {
            num_codes,
            dim,
            update: CodebookUpdate::MovingAverage,
            decay: 0.99,
            epsilon: 1e-5,
            commitment_weight: 0.25,
            codebook_weight: 1.0,
            kmeans_start: true,
            revive_below: 0.03,
            cosine: false,
        }
    }

    /// Number of dimensions of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check_num_codes("num_codes", self.num_codes)?;
        check::sizes(&[("dim", self.dim, MAX_DIM)])?;
        check::in_range("num_codes", self.num_codes, 2..=(1 << 28) / self.dim)?;
        ensure(
            (0.0..1.0).contains(&self.decay),
            "decay",
            self.decay,
            "a number from 0 to below 1",
        )?;
        check::positive("epsilon", self.epsilon)?;
        check::non_negative("commitment_weight", self.commitment_weight)?;
        check::non_negative("codebook_weight", self.codebook_weight)?;
        ensure(
            (0.0..1.0).contains(&self.revive_below),
            "revive_below",
            self.revive_below,
            "a number from 0 to below 1",
        )
    }

    /// Creates the quantiser on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<VectorQuantizer> {
        self.validate()?;
        let (k, d) = (self.num_codes, self.dim);
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: 1.0 / (d as f64).sqrt(),
        };
        let averages = self.update == CodebookUpdate::MovingAverage;
        Ok(VectorQuantizer {
            codes: initializer
                .param([k, d], d, d, device)
                .set_require_grad(!averages),
            sums: averages.then(|| state(Initializer::ZEROS, [k, d], device)),
            counts: state(Initializer::ONES, [k], device),
            started: state(Initializer::ZEROS, [1], device),
            is_started: false,
            config: self.clone(),
        })
    }
}

/// A tensor that is saved and never trained.
fn state<const D: usize>(
    initializer: Initializer,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    initializer
        .param(shape, 1, 1, device)
        .set_require_grad(false)
}

/// Replaces vectors by the nearest row of a table of codes.
///
/// All state is in parameters, those that are not trained without gradients, so that a resumed run
/// continues exactly.
#[derive(Module, Debug)]
pub struct VectorQuantizer {
    /// The codes, `[num_codes, dim]`.
    pub codes: Param<Tensor<2>>,
    /// Moving averages of the sums of the vectors of each code, `[num_codes, dim]`; zeros before
    /// the first update.
    pub sums: Option<Param<Tensor<2>>>,
    /// Moving averages of the number of vectors of each code, `[num_codes]`.
    pub counts: Param<Tensor<1>>,
    /// 0 before the first update and 1 after it, `[1]`.
    pub started: Param<Tensor<1>>,
    /// Whether `started` is known to be 1, so that it need not be read.
    is_started: bool,
    #[module(skip)]
    config: VectorQuantizerConfig,
}

/// Vectors with their nearest codes.
pub(super) struct Nearest {
    /// The vectors; normalised, for cosine similarity.
    pub(super) inputs: Tensor<3>,
    /// Values of the codes, `[batch, positions, dim]`.
    pub(super) values: Tensor<3>,
    /// Indices of the codes, `[batch, positions, 1]`.
    pub(super) codes: Tensor<3, Int>,
}

impl Nearest {
    /// The vectors minus their codes, with the gradient of the vectors, `[batch, positions, dim]`.
    pub(super) fn gap(&self) -> Tensor<3> {
        self.inputs.clone() - self.values.clone().detach()
    }
}

impl VectorQuantizer {
    /// Configuration of the quantiser.
    pub fn config(&self) -> &VectorQuantizerConfig {
        &self.config
    }

    /// The values that vectors are replaced by, `[num_codes, dim]`.
    pub fn table(&self) -> Tensor<2> {
        self.normalized(self.codes.val())
    }

    fn normalized<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !self.config.cosine {
            return x;
        }
        let norm = (x.clone() * x.clone()).sum_dim(D - 1);
        x / (norm + 1e-12).sqrt()
    }

    /// Finds the nearest code of every vector, `[batch, positions, dim]`.
    pub(super) fn nearest(&self, x: Tensor<3>) -> Nearest {
        check_dim(&x, self.config.dim);
        let [batch, positions, dim] = x.dims();
        let (inputs, table) = (self.normalized(x), self.table());
        let vectors = inputs.clone().without_autodiff();
        let indices = nearest_rows(
            vectors.reshape([batch * positions, dim]),
            table.clone().without_autodiff(),
        );
        Nearest {
            inputs,
            values: table
                .select(0, indices.clone())
                .reshape([batch, positions, dim]),
            codes: indices.reshape([batch, positions, 1]),
        }
    }

    /// The losses of vectors, their codes and the [gap](Nearest::gap) between them. `mask` is 0
    /// where a vector is left out.
    ///
    /// # Shapes
    /// - gap: `[batch, positions, dim]`, mask: `[batch, 1, 1]`
    pub(super) fn losses(
        &self,
        nearest: &Nearest,
        gap: Tensor<3>,
        mask: Option<&Tensor<3>>,
    ) -> Vec<(&'static str, Tensor<1>)> {
        let loss = |gap: Tensor<3>, weight| match mask {
            Some(mask) => mean_square_norm(gap * mask.clone(), weight),
            None => mean_square_norm(gap, weight),
        };
        let mut losses = vec![("commitment", loss(gap, self.config.commitment_weight))];
        if self.config.update == CodebookUpdate::Gradient {
            let gap = nearest.values.clone() - nearest.inputs.clone().detach();
            losses.push(("codebook", loss(gap, self.config.codebook_weight)));
        }
        losses
    }

    /// Whether the next update sets the codes to the k-means of its vectors.
    pub(super) fn starts_next(&self) -> bool {
        self.config.kmeans_start
            && !self.is_started
            && self.started.val().into_scalar::<f32>() == 0.0
    }

    /// Updates the state with `[n, dim]` vectors and the codes that they were assigned to, `[n]`,
    /// both off the autodiff graph.
    pub(super) fn update_with(
        self,
        vectors: Tensor<2>,
        indices: Tensor<1, Int>,
        rng: &mut Rng,
    ) -> Self {
        if vectors.dims()[0] == 0 {
            return self;
        }
        let vectors = self.normalized(vectors);
        if self.starts_next() {
            let clusters = self.kmeans(vectors, rng);
            return self.with_state(clusters);
        }
        let (k, decay) = (self.config.num_codes, self.config.decay);
        let (count, sum) = assigned(vectors.clone(), indices, k);
        let mix = |old: Tensor<1>, new: Tensor<1>| old * decay + new * (1.0 - decay);
        let counts = mix(self.counts.val().without_autodiff(), count);
        let codes = self.codes.val().without_autodiff();
        let mut state = match &self.sums {
            None => State {
                codes,
                sums: None,
                counts,
            },
            Some(sums) => {
                let mut old = sums.val().without_autodiff();
                if !self.is_started {
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
        };
        if self.config.revive_below > 0.0 {
            state = self.revive(state, vectors, rng);
        }
        self.with_state(state)
    }

    /// Replaces dead codes by random vectors. They are given the mean use, so that they have time
    /// to be used.
    fn revive(&self, state: State, vectors: Tensor<2>, rng: &mut Rng) -> State {
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

    /// Clusters of `[n, dim]` vectors by Lloyd's algorithm, started from distinct random vectors.
    fn kmeans(&self, vectors: Tensor<2>, rng: &mut Rng) -> State {
        let (k, d) = (self.config.num_codes, self.config.dim);
        let mut codes = distinct_rows(&vectors, k, rng);
        let mut counts = Tensor::zeros([k], &vectors.device());
        for _ in 0..LLOYD_STEPS {
            let indices = nearest_rows(vectors.clone(), self.normalized(codes.clone()));
            let (count, sum) = assigned(vectors.clone(), indices, k);
            let mean = sum / count.clone().clamp_min(1.0).unsqueeze_dim::<2>(1);
            let is_used = count.clone().greater_elem(0.5);
            let is_used = is_used.unsqueeze_dim::<2>(1).expand([k, d]);
            (codes, counts) = (codes.mask_where(is_used, mean), count);
        }
        let counts = counts.clamp_min(1.0);
        State {
            sums: Some(codes.clone() * counts.clone().unsqueeze_dim::<2>(1)),
            codes,
            counts,
        }
    }

    fn with_state(mut self, state: State) -> Self {
        self.codes = replaced(self.codes, state.codes);
        self.sums = match (self.sums, state.sums) {
            (Some(param), Some(sums)) => Some(replaced(param, sums)),
            (sums, _) => sums,
        };
        self.counts = replaced(self.counts, state.counts);
        if !self.is_started {
            let ones = self.started.val().without_autodiff().ones_like();
            self.started = replaced(self.started, ones);
            self.is_started = true;
        }
        self
    }
}

/// The state after an update, off the autodiff graph.
struct State {
    codes: Tensor<2>,
    sums: Option<Tensor<2>>,
    counts: Tensor<1>,
}

impl Quantizer for VectorQuantizer {
    fn dim(&self) -> usize {
        self.config.dim
    }

    fn num_codes(&self) -> usize {
        self.config.num_codes
    }

    fn codebooks(&self) -> usize {
        1
    }

    fn quantize(&self, x: Tensor<3>) -> QuantizerOutput {
        let nearest = self.nearest(x.clone());
        let losses = self.losses(&nearest, nearest.gap(), None);
        QuantizerOutput {
            inputs: x,
            values: straight_through(nearest.inputs, nearest.values),
            codes: nearest.codes,
            losses,
            seed: None,
        }
    }

    fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3> {
        check_codebooks(&codes, 1);
        let [batch, positions, _] = codes.dims();
        self.table()
            .select(0, codes.reshape([batch * positions]))
            .reshape([batch, positions, self.config.dim])
    }

    fn update(self, outputs: &[QuantizerOutput]) -> Self {
        if outputs.is_empty() {
            return self;
        }
        let (vectors, codes) = join(outputs);
        let mut rng = Rng::stream(update_seed(outputs), "codebook", 0);
        self.update_with(vectors, codes.squeeze_dim(1), &mut rng)
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

/// The index of the nearest row of `table` for each vector. The squared distance
/// `|x|² − 2·x·c + |c|²` is a matrix product; `|x|²` does not change its minimum.
///
/// # Shapes
/// - vectors: `[n, dim]`, table: `[rows, dim]`
/// - output: `[n]`
pub(crate) fn nearest_rows(vectors: Tensor<2>, table: Tensor<2>) -> Tensor<1, Int> {
    let rows = table.dims()[0];
    nearest_rows_by(vectors, table, (BLOCK / rows).max(BLOCK_VECTORS))
}

/// [`nearest_rows`] of `block` vectors at a time.
fn nearest_rows_by(vectors: Tensor<2>, table: Tensor<2>, block: usize) -> Tensor<1, Int> {
    let n = vectors.dims()[0];
    let norms = (table.clone() * table.clone())
        .sum_dim(1)
        .squeeze_dim::<1>(1);
    let weight = table.transpose() * -2.0;
    let nearest = |vectors: Tensor<2>| {
        ops::linear(vectors, weight.clone(), Some(norms.clone()))
            .argmin(1)
            .squeeze_dim::<1>(1)
    };
    if n <= block {
        return nearest(vectors);
    }
    let parts = (0..n).step_by(block).map(|start| {
        let part = vectors.clone().narrow(0, start, block.min(n - start));
        nearest(part)
    });
    Tensor::cat(parts.collect(), 0)
}

/// The number and the sum of the vectors of each code.
///
/// # Shapes
/// - vectors: `[n, dim]`, indices: `[n]`
/// - outputs: `[num_codes]` and `[num_codes, dim]`
fn assigned(
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

/// Draws `count` rows with different values; if there are fewer of them, rows are repeated to fill up.
fn distinct_rows(vectors: &Tensor<2>, count: usize, rng: &mut Rng) -> Tensor<2> {
    let [n, dim] = vectors.dims();
    let values: Vec<f32> = vectors.to_data().iter::<f32>().collect();
    let bits = |row: usize| -> Vec<u32> {
        let row = &values[row * dim..][..dim];
        row.iter().map(|value| value.to_bits()).collect()
    };
    let order = rng.permutation(n);
    let mut seen = HashSet::new();
    let distinct = order.iter().copied().filter(|row| seen.insert(bits(*row)));
    let mut rows: Vec<usize> = distinct.take(count).collect();
    rows.extend(order.into_iter().cycle().take(count - rows.len()));
    let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &vectors.device());
    vectors.clone().select(0, rows)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::quantizer::CodeUsage;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
        weights::{load_weights, save_weights},
    };
    use burn::module::ParamId;

    fn config() -> VectorQuantizerConfig {
        VectorQuantizerConfig {
            kmeans_start: false,
            revive_below: 0.0,
            ..VectorQuantizerConfig::new(3, 2)
        }
    }

    /// A quantiser with the codes (0, 0), (4, 0) and (0, 4).
    fn quantizer(config: &VectorQuantizerConfig, device: &Device) -> VectorQuantizer {
        let mut quantizer = config.init(device).unwrap().init_weights(1);
        let codes = Tensor::<2>::from_floats([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], device);
        quantizer.codes = Param::initialized(ParamId::new(), codes);
        if config.update == CodebookUpdate::Gradient {
            quantizer.codes = quantizer.codes.set_require_grad(true);
        }
        quantizer
    }

    fn output(quantizer: &VectorQuantizer, x: &[[f32; 2]]) -> QuantizerOutput {
        let device = quantizer.codes.device();
        let data = TensorData::new(x.concat(), [1, x.len(), 2]);
        quantizer.quantize(Tensor::from_data(data, &device))
    }

    /// Values are those of the codes bit for bit, and gradients pass unchanged; the losses have
    /// their closed-form gradients.
    #[test]
    fn straight_through_gradient_is_exact() {
        let device = Device::flex().autodiff();
        let config = VectorQuantizerConfig {
            update: CodebookUpdate::Gradient,
            commitment_weight: 0.25,
            codebook_weight: 0.5,
            ..config()
        };
        let quantizer = quantizer(&config, &device);
        let x = Tensor::<3>::from_floats(
            [[[0.1, -0.3], [3.7, 0.3]], [[0.25, 5.0], [3.0, 1.0]]],
            &device,
        )
        .require_grad();
        let weight = Tensor::<3>::from_floats(
            [[[1.0, 2.0], [-3.0, 0.7]], [[0.1, 0.0], [5.0, -6.0]]],
            &device,
        );
        let output = quantizer.quantize(x.clone());
        assert_eq!(
            values(output.values.clone()),
            [0.0, 0.0, 4.0, 0.0, 0.0, 4.0, 4.0, 0.0]
        );
        let grads = (output.values * weight.clone()).sum().backward();
        assert_eq!(values(x.grad(&grads).unwrap()), values(weight));
        assert!(
            quantizer
                .codes
                .val()
                .grad(&grads)
                .is_none_or(|grad| values(grad).iter().all(|g| *g == 0.0))
        );

        let output = quantizer.quantize(x.clone());
        let names: Vec<_> = output.losses.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["commitment", "codebook"]);
        // Squared distances: 0.1, 0.18, 1.0625, 2; the batch has 2 samples.
        let losses: Vec<f32> = output
            .losses
            .iter()
            .map(|(_, loss)| values(loss.clone())[0])
            .collect();
        let total = 0.1 + 0.18 + 1.0625 + 2.0;
        assert_close(&losses, &[0.25 * total / 2.0, 0.5 * total / 2.0], 1e-5);
        let loss = output.losses.into_iter().map(|(_, loss)| loss);
        let grads = loss.reduce(|a, b| a + b).unwrap().backward();
        // 2·β·(x − c) / batch, and 2·w·Σ (c − x) / batch.
        let expected = [0.1, -0.3, -0.3, 0.3, 0.25, 1.0, -1.0, 1.0].map(|gap: f32| 0.25 * gap);
        assert_close(&values(x.grad(&grads).unwrap()), &expected, 1e-6);
        let expected = [-0.1, 0.3, 1.3, -1.3, -0.25, -1.0].map(|gap: f32| 0.5 * gap);
        let found = quantizer.codes.val().grad(&grads).unwrap();
        assert_close(&values(found), &expected, 1e-6);
    }

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

    #[test]
    fn kmeans_start_finds_separate_clusters() {
        let device = Device::flex();
        let config = VectorQuantizerConfig {
            kmeans_start: true,
            ..config()
        };
        let quantizer = config.init(&device).unwrap().init_weights(1);
        let centres = [[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0f32]];
        let noise = Rng::new(1).normal_vec(2 * 300);
        let x: Vec<f32> = (0..600)
            .map(|i| centres[i / 2 % 3][i % 2] + 0.1 * noise[i])
            .collect();
        let x = Tensor::<3>::from_data(TensorData::new(x, [3, 100, 2]), &device);
        // Lloyd's algorithm may end in another minimum for some starts, not for all.
        let found = (0..40).any(|seed| {
            let output = quantizer.quantize_with(x.clone(), &mut Rng::new(seed));
            let started = quantizer.clone().update(&[output]);
            let codes = values(started.codes.val());
            centres.iter().all(|centre| {
                codes.chunks(2).any(|code| {
                    // Five standard errors of the mean of 100 vectors.
                    (code[0] - centre[0]).abs() < 0.05 && (code[1] - centre[1]).abs() < 0.05
                })
            })
        });
        assert!(found);
        // The second update follows the moving averages.
        let started = quantizer.clone().update(&[quantizer.quantize(x.clone())]);
        let next = started.clone().update(&[started.quantize(x)]);
        assert_close(
            &values(next.codes.val()),
            &values(started.codes.val()),
            0.01,
        );
    }

    #[test]
    fn cosine_similarity_ignores_lengths() {
        let device = Device::flex();
        let config = VectorQuantizerConfig {
            cosine: true,
            ..config()
        };
        let mut quantizer = config.init(&device).unwrap().init_weights(1);
        let codes = Tensor::<2>::from_floats([[3.0, 0.0], [0.0, 0.1], [-1.0, -1.0]], &device);
        quantizer.codes = Param::initialized(ParamId::new(), codes);
        let output = output(&quantizer, &[[0.01, 0.1], [7.0, 6.9], [-2.0, -0.1]]);
        let codes: Vec<i64> = output.codes.into_data().iter::<i64>().collect();
        assert_eq!(codes, [1, 0, 2]);
        let root = 0.5f32.sqrt();
        assert_close(
            &values(output.values),
            &[0.0, 1.0, 1.0, 0.0, -root, -root],
            1e-5,
        );
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

    #[test]
    fn nearest_rows_have_the_least_distance() {
        let device = Device::flex();
        let mut rng = Rng::new(8);
        let (vectors, table) = (rng.normal([50, 3], &device), rng.normal([7, 3], &device));
        let found: Vec<i64> = nearest_rows_by(vectors.clone(), table.clone(), 8)
            .into_data()
            .iter::<i64>()
            .collect();
        let (vectors, table) = (values(vectors), values(table));
        let distance = |x: &[f32], c: &[f32]| -> f64 {
            let terms = x.iter().zip(c).map(|(x, c)| f64::from(x - c).powi(2));
            terms.sum()
        };
        for (x, code) in vectors.chunks(3).zip(found) {
            let all: Vec<f64> = table.chunks(3).map(|c| distance(x, c)).collect();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(all[code as usize] <= least + 1e-5);
        }
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = VectorQuantizerConfig::new(8, 4);
        for (config, expected) in [
            (
                VectorQuantizerConfig {
                    num_codes: 0,
                    ..good.clone()
                },
                "`num_codes` is 0, expected 2 to",
            ),
            (
                VectorQuantizerConfig {
                    dim: 0,
                    ..good.clone()
                },
                "`dim` is 0, expected 1 to",
            ),
            (
                VectorQuantizerConfig {
                    num_codes: 1 << 20,
                    dim: 1 << 14,
                    ..good.clone()
                },
                "`num_codes` is 1048576",
            ),
            (
                VectorQuantizerConfig {
                    decay: 1.0,
                    ..good.clone()
                },
                "`decay` is 1",
            ),
            (
                VectorQuantizerConfig {
                    revive_below: f64::NAN,
                    ..good.clone()
                },
                "`revive_below` is NaN",
            ),
            (
                VectorQuantizerConfig {
                    epsilon: 0.0,
                    ..good
                },
                "`epsilon` is 0",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
