//! Vector quantisation with a table of codes (van den Oord et al. 2017,
//! <https://arxiv.org/abs/1711.00937>).
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `nearest` | the nearest rows of a table |
//! | `update` | moving averages, and the revival of dead codes |
//! | `kmeans` | the codes that a codebook starts with |
//! | `started` | whether a codebook has been updated |

mod config;
mod kmeans;
mod nearest;
mod started;
#[cfg(all(test, feature = "flex"))]
mod testing;
mod update;

pub use config::{CodebookUpdate, VectorQuantizerConfig};

pub(crate) use nearest::nearest_rows;

use super::{
    Quantizer, QuantizerOutput, check_codebooks, check_dim, join, mean_square_norm,
    straight_through, update_seed,
};
use aigc_core::rng::Rng;
use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor},
};
use started::KnownStarted;

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
    /// 0 before the first update and 1 after it, `[1]`. Change it by loading weights alone: the
    /// next update does not notice other assignments.
    pub started: Param<Tensor<1>>,
    /// What is known of `started`, so that it is not read from the device at every update.
    #[module(skip)]
    known: KnownStarted,
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
            && !self.known.is_started()
            && self.started.val().into_scalar::<f32>() == 0.0
    }
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::{
        testing::{config, output, quantizer},
        *,
    };
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::{module::ParamId, tensor::Device};

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
}
