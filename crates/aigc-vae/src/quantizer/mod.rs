//! Quantisers: maps from vectors to the nearest of finitely many codes.
//!
//! | quantiser | codes |
//! |---|---|
//! | [`VectorQuantizer`] | rows of a table that follows the vectors |
//! | [`ResidualQuantizer`] | sums of rows of several such tables |
//! | [`FiniteScalarQuantizer`] | points of a fixed grid |
//! | [`LookupFreeQuantizer`] | corners of a cube: the signs of the vector |
//!
//! [`CodeUsage`] counts codes over a data set; [`code_counts`] and [`perplexity`] do so for a batch
//! without moving it to the host.

mod codebook;
mod fsq;
mod lfq;
mod posterior;
mod residual;
mod usage;

pub use codebook::{CodebookUpdate, VectorQuantizer, VectorQuantizerConfig};
pub use fsq::{FiniteScalarQuantizer, FiniteScalarQuantizerConfig};
pub use lfq::{LookupFreeQuantizer, LookupFreeQuantizerConfig};
pub use posterior::{CodeShape, Quantized};
pub use residual::{ResidualQuantizer, ResidualQuantizerConfig};
pub use usage::{CodeUsage, code_counts, perplexity};

pub(crate) use codebook::nearest_rows;

use aigc_core::{Result, check, rng::Rng};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Most codes of a codebook. A size from a file decides how much memory is allocated.
const MAX_CODES: usize = 1 << 20;
/// Most dimensions of a vector, and most codebooks.
const MAX_DIM: usize = 1 << 14;

/// Replaces vectors by codes.
pub trait Quantizer: Module {
    /// Number of dimensions of the vectors.
    fn dim(&self) -> usize;

    /// Number of codes of each codebook.
    fn num_codes(&self) -> usize;

    /// Number of codes that a vector is replaced by, each of another codebook.
    fn codebooks(&self) -> usize;

    /// Quantises vectors, without random numbers.
    ///
    /// # Shapes
    /// - x: `[batch, positions, dim]`
    ///
    /// # Panics
    /// If the last axis is not [`dim`](Self::dim).
    fn quantize(&self, x: Tensor<3>) -> QuantizerOutput;

    /// [`quantize`](Self::quantize) in training, with random numbers for quantiser dropout and for
    /// [`update`](Self::update).
    fn quantize_with(&self, x: Tensor<3>, rng: &mut Rng) -> QuantizerOutput {
        let seed = Some(rng.next_u64());
        QuantizerOutput {
            seed,
            ..self.quantize(x)
        }
    }

    /// The values of codes.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]`
    /// - output: `[batch, positions, dim]`
    ///
    /// # Panics
    /// If there is not one code per codebook, or one is not below [`num_codes`](Self::num_codes).
    /// The panic for the latter depends on the backend.
    fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3>;

    /// Called after an update of the weights with the outputs of its batches, as
    /// [`QuantizerOutput::for_update`] leaves them; returns the quantiser to continue with.
    /// By default it is unchanged.
    fn update(self, outputs: &[QuantizerOutput]) -> Self {
        let _ = outputs;
        self
    }

    /// Quantises a map whose second axis has the dimensions of the vectors.
    ///
    /// # Shapes
    /// - x and the first output: `[batch, dim, …]`
    ///
    /// # Panics
    /// If the second axis is not [`dim`](Self::dim).
    fn quantize_map<const D: usize>(
        &self,
        x: Tensor<D>,
        rng: Option<&mut Rng>,
    ) -> (Tensor<D>, QuantizerOutput) {
        let dims = x.dims();
        let vectors = flatten_positions(x);
        let output = match rng {
            Some(rng) => self.quantize_with(vectors, rng),
            None => self.quantize(vectors),
        };
        (unflatten_positions(output.values.clone(), dims), output)
    }
}

/// The result of quantising a batch.
#[derive(Clone, Debug)]
pub struct QuantizerOutput {
    /// The vectors before quantisation, `[batch, positions, dim]`.
    pub inputs: Tensor<3>,
    /// The values of the codes, with the gradient of the inputs (straight-through estimator,
    /// Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>), `[batch, positions, dim]`.
    pub values: Tensor<3>,
    /// Indices of the codes, `[batch, positions, codebooks]`.
    pub codes: Tensor<3, Int>,
    /// Losses by name, each `[1]` and already multiplied by its weight: `commitment`, `codebook`,
    /// `entropy`. They are means over the batch of sums over positions and dimensions, so that
    /// they have the scale of a reconstruction term in nats per sample.
    pub losses: Vec<(&'static str, Tensor<1>)>,
    /// Seed of the random numbers of [`Quantizer::update`].
    pub seed: Option<u64>,
}

impl QuantizerOutput {
    /// What [`Quantizer::update`] needs, off the autodiff graph: inputs, codes and seed. The values
    /// are replaced by one zero, and there are no losses.
    pub fn for_update(self) -> Self {
        let inputs = self.inputs.without_autodiff();
        Self {
            values: Tensor::zeros([1, 1, 1], &inputs.device()),
            inputs,
            codes: self.codes.without_autodiff(),
            losses: Vec::new(),
            seed: self.seed,
        }
    }
}

/// The axes after the second as one: `[batch, dim, …]` to `[batch, positions, dim]`. The last of
/// those axes is the fastest.
pub fn flatten_positions<const D: usize>(x: Tensor<D>) -> Tensor<3> {
    let dims = x.dims();
    let (batch, dim, positions) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
    let transposed = x.reshape([batch, dim, positions]).swap_dims(1, 2);
    // The reshape copies the transposed view: quantisers read the vectors several times.
    transposed.reshape([batch, positions, dim])
}

/// The inverse of [`flatten_positions`]; `dims` is the shape of the map.
pub fn unflatten_positions<const D: usize>(values: Tensor<3>, dims: [usize; D]) -> Tensor<D> {
    values.swap_dims(1, 2).reshape::<D, _>(dims)
}

/// `quantized` with the gradient of `x`. The values are exactly those of `quantized`.
pub(crate) fn straight_through<const D: usize>(x: Tensor<D>, quantized: Tensor<D>) -> Tensor<D> {
    if !x.is_autodiff() {
        return quantized;
    }
    quantized.detach() + (x.clone() - x.detach())
}

/// The mean over the batch of the sum of squares, times `weight`, `[1]`.
fn mean_square_norm(gap: Tensor<3>, weight: f64) -> Tensor<1> {
    let batch = gap.dims()[0].max(1);
    (gap.clone() * gap).sum() * (weight / batch as f64)
}

/// The inputs of several outputs as one batch of vectors, `[n, dim]`, and their codes,
/// `[n, codebooks]`, off the autodiff graph.
fn join(outputs: &[QuantizerOutput]) -> (Tensor<2>, Tensor<2, Int>) {
    let part = |output: &QuantizerOutput| {
        let inputs = output.inputs.clone().without_autodiff();
        let codes = output.codes.clone().without_autodiff();
        (inputs.flatten::<2>(0, 1), codes.flatten::<2>(0, 1))
    };
    let (inputs, codes): (Vec<_>, Vec<_>) = outputs.iter().map(part).unzip();
    (Tensor::cat(inputs, 0), Tensor::cat(codes, 0))
}

/// The seed of an update. Outputs of [`Quantizer::quantize`] have none; their batches differ
/// anyway.
fn update_seed(outputs: &[QuantizerOutput]) -> u64 {
    outputs
        .iter()
        .find_map(|output| output.seed)
        .unwrap_or_default()
}

#[track_caller]
fn check_dim(x: &Tensor<3>, dim: usize) {
    assert_eq!(
        x.dims()[2],
        dim,
        "last axis of the input of a quantiser of {dim} dimensions"
    );
}

#[track_caller]
fn check_codebooks(codes: &Tensor<3, Int>, codebooks: usize) {
    assert_eq!(
        codes.dims()[2],
        codebooks,
        "codes per position of a quantiser of {codebooks} codebooks"
    );
}

/// Checks a number of codes, which is from 2 to a limit.
fn check_num_codes(field: &str, num_codes: usize) -> Result<()> {
    check::in_range(field, num_codes, 2..=MAX_CODES)
}

/// Defines [`QuantizerConfig`] and [`AnyQuantizer`] from a table.
macro_rules! quantizers {
    ($($(#[$doc:meta])* $kind:ident: $config:ident => $quantizer:ident,)+) => {
        /// Configuration of any quantiser, as in `config.json`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum QuantizerConfig {
            $($(#[$doc])* $kind($config),)+
        }

        impl QuantizerConfig {
            /// Fails unless all values are in their ranges.
            ///
            /// # Errors
            /// [`Error::Config`](aigc_core::Error::Config) naming the field.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(QuantizerConfig::$kind(config) => config.validate(),)+
                }
            }

            /// Number of dimensions of the vectors.
            pub fn dim(&self) -> usize {
                match self {
                    $(QuantizerConfig::$kind(config) => config.dim(),)+
                }
            }

            /// Creates the quantiser on `device`.
            ///
            /// # Errors
            /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
            pub fn init(&self, device: &Device) -> Result<AnyQuantizer> {
                Ok(match self {
                    $(QuantizerConfig::$kind(config) => {
                        AnyQuantizer::$kind(config.init(device)?)
                    })+
                })
            }
        }

        /// Any quantiser.
        #[derive(Module, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant)] // A model has one or two.
        pub enum AnyQuantizer {
            $($(#[$doc])* $kind($quantizer),)+
        }

        impl Quantizer for AnyQuantizer {
            fn dim(&self) -> usize {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.dim(),)+
                }
            }

            fn num_codes(&self) -> usize {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.num_codes(),)+
                }
            }

            fn codebooks(&self) -> usize {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.codebooks(),)+
                }
            }

            fn quantize(&self, x: Tensor<3>) -> QuantizerOutput {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.quantize(x),)+
                }
            }

            fn quantize_with(&self, x: Tensor<3>, rng: &mut Rng) -> QuantizerOutput {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.quantize_with(x, rng),)+
                }
            }

            fn decode_codes(&self, codes: Tensor<3, Int>) -> Tensor<3> {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => quantizer.decode_codes(codes),)+
                }
            }

            fn update(self, outputs: &[QuantizerOutput]) -> Self {
                match self {
                    $(AnyQuantizer::$kind(quantizer) => {
                        AnyQuantizer::$kind(quantizer.update(outputs))
                    })+
                }
            }
        }

        $(
            impl From<$config> for QuantizerConfig {
                fn from(config: $config) -> Self {
                    QuantizerConfig::$kind(config)
                }
            }

            impl From<$quantizer> for AnyQuantizer {
                fn from(quantizer: $quantizer) -> Self {
                    AnyQuantizer::$kind(quantizer)
                }
            }
        )+
    };
}

quantizers! {
    /// The nearest row of a table (VQ).
    Vector: VectorQuantizerConfig => VectorQuantizer,
    /// A sum of rows of several tables (RVQ).
    Residual: ResidualQuantizerConfig => ResidualQuantizer,
    /// The nearest point of a grid (FSQ).
    FiniteScalar: FiniteScalarQuantizerConfig => FiniteScalarQuantizer,
    /// The signs of the vector (LFQ).
    LookupFree: LookupFreeQuantizerConfig => LookupFreeQuantizer,
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn positions_are_flattened_in_order() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(1).normal([2, 3, 4, 5], &device);
        let flat = flatten_positions(x.clone());
        assert_eq!(flat.dims(), [2, 20, 3]);
        let (map, rows) = (values(x.clone()), values(flat.clone()));
        // Sample 1, channel 2, row 3, column 4.
        assert_eq!(rows[60 + (3 * 5 + 4) * 3 + 2], map[60 + 2 * 20 + 3 * 5 + 4]);
        assert_eq!(values(unflatten_positions(flat, [2, 3, 4, 5])), map);
        let vectors: Tensor<2> = Rng::new(2).normal([2, 3], &device);
        assert_eq!(flatten_positions(vectors).dims(), [2, 1, 3]);
    }

    /// Every quantiser reproduces its values from its codes.
    #[test]
    fn codes_decode_to_the_quantized_values() {
        let device = Device::flex();
        let table = VectorQuantizerConfig::new(16, 3);
        let configs: [QuantizerConfig; 5] = [
            table.clone().into(),
            VectorQuantizerConfig {
                cosine: true,
                ..table.clone()
            }
            .into(),
            ResidualQuantizerConfig::new(3, table).into(),
            FiniteScalarQuantizerConfig::new(&[5, 4, 2]).into(),
            LookupFreeQuantizerConfig::new(3).into(),
        ];
        for config in configs {
            let quantizer =
                aigc_core::rng::InitWeights::init_weights(config.init(&device).unwrap(), 5);
            let x: Tensor<4> = Rng::new(6).normal([2, 3, 4, 4], &device);
            let (map, output) = quantizer.quantize_map(x, None);
            assert_eq!(map.dims(), [2, 3, 4, 4]);
            let codes = output.codes.clone();
            assert_eq!(codes.dims(), [2, 16, quantizer.codebooks()], "{config:?}");
            let decoded = values(quantizer.decode_codes(codes));
            let apart = values(output.values).into_iter().zip(decoded);
            let worst = apart.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{config:?}: {worst}");
            let json = to_value(&config).unwrap();
            assert_eq!(from_value::<QuantizerConfig>(json).unwrap(), config);
        }
    }

    #[test]
    fn quantizer_configurations_are_tagged() {
        let config = QuantizerConfig::from(FiniteScalarQuantizerConfig::new(&[8, 5]));
        let json = json!({"kind": "finite_scalar", "levels": [8, 5]});
        assert_eq!(to_value(&config).unwrap(), json);
        assert_eq!(config.dim(), 2);
    }
}
