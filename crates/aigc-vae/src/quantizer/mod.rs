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
mod residual;

pub use codebook::{CodebookUpdate, VectorQuantizer, VectorQuantizerConfig};
pub use fsq::{FiniteScalarQuantizer, FiniteScalarQuantizerConfig};
pub use lfq::{LookupFreeQuantizer, LookupFreeQuantizerConfig};
pub use residual::{ResidualQuantizer, ResidualQuantizerConfig};

pub(crate) use codebook::nearest_rows;

use aigc_core::{Error, Result, check, encoder::Posterior, rng::Rng};
use burn::{
    module::Module,
    tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData},
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

    /// Called after an update of the weights with the outputs of its batches, off the autodiff
    /// graph; returns the quantiser to continue with. By default it is unchanged.
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
    /// The output off the autodiff graph and without losses, for [`Quantizer::update`].
    pub fn without_autodiff(self) -> Self {
        Self {
            inputs: self.inputs.without_autodiff(),
            values: self.values.without_autodiff(),
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
fn straight_through<const D: usize>(x: Tensor<D>, quantized: Tensor<D>) -> Tensor<D> {
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
            /// [`Error::Config`] naming the field.
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
            /// [`Error::Config`] for values out of range.
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

/// The codes of a sample: a map of positions with one code per codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeShape {
    /// Rows of positions.
    pub height: usize,
    /// Columns of positions.
    pub width: usize,
    /// Codes per position.
    pub codebooks: usize,
    /// Number of codes of each codebook.
    pub num_codes: usize,
}

impl CodeShape {
    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Number of codes of a sample.
    pub fn num_indices(&self) -> usize {
        self.positions() * self.codebooks
    }

    /// The logarithm of the number of possible samples, in nats: the entropy of uniform codes.
    pub fn max_entropy(&self) -> f64 {
        self.num_indices() as f64 * (self.num_codes as f64).ln()
    }

    /// Codes of `n` samples, drawn uniformly.
    ///
    /// # Shapes
    /// - output: `[n, positions, codebooks]`
    pub fn sample_uniform(&self, n: usize, rng: &mut Rng, device: &Device) -> Tensor<3, Int> {
        let count = n * self.num_indices();
        let codes: Vec<i32> = (0..count)
            .map(|_| rng.random_index(self.num_codes) as i32)
            .collect();
        let shape = [n, self.positions(), self.codebooks];
        Tensor::from_data(TensorData::new(codes, shape), device)
    }
}

impl std::fmt::Display for CodeShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}×{}×{} codes of {}",
            self.height, self.width, self.codebooks, self.num_codes
        )
    }
}

/// The posterior of quantised latents, which has no uncertainty. `Z` is the rank of a batch of
/// latents.
#[derive(Clone, Debug)]
pub struct Quantized<const Z: usize = 4> {
    /// The latents, with the gradient of the encoder's output, `[batch, …]`.
    pub values: Tensor<Z>,
    /// The output of the quantiser of each level, coarsest first.
    pub levels: Vec<QuantizerOutput>,
    max_entropy: f64,
}

impl<const Z: usize> Quantized<Z> {
    /// The posterior of latents `values` from the outputs of quantisers. `max_entropy` is the
    /// entropy of uniform codes in nats ([`CodeShape::max_entropy`]), summed over the levels.
    pub fn new(values: Tensor<Z>, levels: Vec<QuantizerOutput>, max_entropy: f64) -> Self {
        Self {
            values,
            levels,
            max_entropy,
        }
    }

    /// The codes of each level, `[batch, positions, codebooks]`.
    pub fn codes(&self) -> Vec<Tensor<3, Int>> {
        let levels = self.levels.iter();
        levels.map(|level| level.codes.clone()).collect()
    }

    /// The losses of all quantisers; those of one name are added.
    pub fn losses(&self) -> Vec<(&'static str, Tensor<1>)> {
        let mut sums: Vec<(&'static str, Tensor<1>)> = Vec::new();
        for (name, loss) in self.levels.iter().flat_map(|level| &level.losses) {
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum = sum.clone() + loss.clone(),
                None => sums.push((name, loss.clone())),
            }
        }
        sums
    }

    /// The posterior off the autodiff graph, for [`Vae::update_codebook`](crate::Vae).
    pub fn without_autodiff(self) -> Self {
        let levels = self.levels.into_iter();
        Self {
            values: self.values.without_autodiff(),
            levels: levels.map(QuantizerOutput::without_autodiff).collect(),
            max_entropy: self.max_entropy,
        }
    }
}

impl<const Z: usize> Posterior<Z> for Quantized<Z> {
    fn sample(&self, _rng: &mut Rng) -> Tensor<Z> {
        self.values.clone()
    }

    fn sample_with_log_prob(&self, _rng: &mut Rng) -> (Tensor<Z>, Tensor<1>) {
        let log_prob = Tensor::zeros([self.values.dims()[0]], &self.values.device());
        (self.values.clone(), log_prob)
    }

    fn mode(&self) -> Tensor<Z> {
        self.values.clone()
    }

    /// The divergence from uniform codes: the logarithm of the number of possible codes.
    fn kl(&self) -> Tensor<1> {
        let batch = self.values.dims()[0];
        Tensor::full([batch], self.max_entropy, &self.values.device())
    }
}

/// How often each code occurs in a batch.
///
/// # Shapes
/// - codes: `[batch, positions, codebooks]`
/// - output: `[codebooks, num_codes]`
pub fn code_counts(codes: Tensor<3, Int>, num_codes: usize) -> Tensor<2> {
    let [batch, positions, codebooks] = codes.dims();
    let device = codes.device();
    // Each codebook counts in a range of its own.
    let first = Tensor::<1, Int>::arange(0..codebooks as i64, &device) * num_codes as i64;
    let places = codes + first.reshape([1, 1, codebooks]);
    let total = batch * positions * codebooks;
    Tensor::<1>::zeros([codebooks * num_codes], &device)
        .select_assign(
            0,
            places.reshape([total]),
            Tensor::ones([total], &device),
            IndexingUpdateOp::Add,
        )
        .reshape([codebooks, num_codes])
}

/// The perplexity `exp(−Σ p·ln p)` of the codes of each codebook: the number of codes that uniform
/// use would need for the same entropy.
///
/// # Shapes
/// - counts: `[codebooks, num_codes]` ([`code_counts`])
/// - output: `[codebooks]`
pub fn perplexity(counts: Tensor<2>) -> Tensor<1> {
    let total = counts.clone().sum_dim(1).clamp_min(1.0);
    let p = counts / total;
    let terms = p.clone() * p.clamp_min(f64::from(f32::MIN_POSITIVE)).log();
    terms.sum_dim(1).squeeze_dim::<1>(1).neg().exp()
}

/// Counts the codes of a data set exactly.
///
/// ```
/// # use aigc_vae::CodeUsage;
/// # fn main() -> aigc_core::Result<()> {
/// let mut usage = CodeUsage::new(1, 8)?;
/// usage.add_indices(&[0, 1, 2, 3, 0, 1, 2, 3])?;
/// assert_eq!(usage.usage(), 0.5);
/// assert!((usage.perplexity() - 4.0).abs() < 1e-12);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeUsage {
    /// Counts of the codes of each codebook.
    counts: Vec<Vec<u64>>,
}

impl CodeUsage {
    /// A counter for `codebooks` codebooks of `num_codes` codes.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are from 1 to 2¹⁴ codebooks and from 2 to 2²⁰ codes, and at
    /// most 2²⁴ codes in all.
    pub fn new(codebooks: usize, num_codes: usize) -> Result<Self> {
        check::in_range("codebooks", codebooks, 1..=MAX_DIM)?;
        check_num_codes("num_codes", num_codes)?;
        check::in_range("num_codes", num_codes, 2..=(1 << 24) / codebooks)?;
        Ok(Self {
            counts: vec![vec![0; num_codes]; codebooks],
        })
    }

    /// Counts the codes of a batch.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the codes are of another number of codebooks, or out of range;
    /// nothing is counted then.
    pub fn add(&mut self, codes: Tensor<3, Int>) -> Result<()> {
        let [.., codebooks] = codes.dims();
        if codebooks != self.counts.len() {
            let expected = format!("{} codebooks", self.counts.len());
            return Err(Error::argument("codes", codebooks, expected));
        }
        let codes: Vec<i64> = codes.into_data().iter::<i64>().collect();
        self.add_indices(&codes)
    }

    /// Counts codes, those of a position side by side.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_indices(&mut self, codes: &[i64]) -> Result<()> {
        let (codebooks, num_codes) = (self.counts.len(), self.counts[0].len());
        if !codes.len().is_multiple_of(codebooks) {
            let expected = format!("a multiple of {codebooks}, the number of codebooks");
            return Err(Error::argument("codes", codes.len(), expected));
        }
        let is_wrong = |code: &&i64| !(0..num_codes as i64).contains(*code);
        if let Some(code) = codes.iter().find(is_wrong) {
            let expected = format!("0 to {}", num_codes - 1);
            return Err(Error::argument("codes", code, expected));
        }
        for (index, code) in codes.iter().enumerate() {
            self.counts[index % codebooks][*code as usize] += 1;
        }
        Ok(())
    }

    /// Counts of the codes of a codebook.
    ///
    /// # Panics
    /// If there is no such codebook.
    pub fn counts(&self, codebook: usize) -> &[u64] {
        &self.counts[codebook]
    }

    /// The share of codes that occur, 0 to 1, over all codebooks.
    pub fn usage(&self) -> f64 {
        let used = self.counts.iter().flatten().filter(|count| **count > 0);
        used.count() as f64 / (self.counts.len() * self.counts[0].len()) as f64
    }

    /// The entropy of the codes of a codebook in nats; 0 without codes.
    ///
    /// # Panics
    /// If there is no such codebook.
    pub fn entropy(&self, codebook: usize) -> f64 {
        let counts = &self.counts[codebook];
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let used = counts.iter().filter(|count| **count > 0);
        let terms = used.map(|count| *count as f64 / total);
        -terms.map(|p| p * p.ln()).sum::<f64>()
    }

    /// The perplexity `exp(−Σ p·ln p)` of the codes, from 1 to the number of codes; the geometric
    /// mean over the codebooks.
    pub fn perplexity(&self) -> f64 {
        let entropies = (0..self.counts.len()).map(|codebook| self.entropy(codebook));
        (entropies.sum::<f64>() / self.counts.len() as f64).exp()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn perplexity_has_its_closed_forms() {
        let device = Device::flex();
        // The first codebook uses 4 of 8 codes uniformly, the second only one.
        let codes: Vec<i32> = (0..32).flat_map(|i| [2 * (i % 4), 5]).collect();
        let codes = Tensor::<3, Int>::from_data(TensorData::new(codes, [4, 8, 2]), &device);
        let counts = code_counts(codes.clone(), 8);
        assert_eq!(
            values(counts.clone()),
            [
                8.0, 0.0, 8.0, 0.0, 8.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 32.0, 0.0, 0.0
            ]
        );
        let found = values(perplexity(counts));
        assert!(
            (found[0] - 4.0).abs() < 1e-5 && (found[1] - 1.0).abs() < 1e-6,
            "{found:?}"
        );
        let mut usage = CodeUsage::new(2, 8).unwrap();
        usage.add(codes).unwrap();
        assert_eq!(usage.usage(), 5.0 / 16.0);
        assert!((usage.entropy(0) - 4f64.ln()).abs() < 1e-12 && usage.entropy(1).abs() < 1e-12);
        assert!((usage.perplexity() - 2.0).abs() < 1e-12);

        // Of a geometric distribution p(k) = 2^−(k+1) and a remainder: Σ (k+1)/2^(k+1) bits.
        let mut usage = CodeUsage::new(1, 4).unwrap();
        usage.add_indices(&[0, 0, 0, 0, 1, 1, 2, 3]).unwrap();
        let bits = 0.5 + 0.5 + 0.375 + 0.375;
        assert!((usage.perplexity() - 2f64.powf(bits)).abs() < 1e-12);
    }

    #[test]
    fn code_usage_names_codes_out_of_range() {
        let mut usage = CodeUsage::new(2, 4).unwrap();
        for (codes, expected) in [
            (&[0i64, 4][..], "`codes` is 4, expected 0 to 3"),
            (&[0, -1], "`codes` is -1"),
            (&[0], "a multiple of 2"),
        ] {
            let message = usage.add_indices(codes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(usage.usage(), 0.0);
        assert!(CodeUsage::new(0, 4).is_err() && CodeUsage::new(1, 1).is_err());
        assert!(CodeUsage::new(1 << 14, 1 << 20).is_err());
    }

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

    /// Uniform codes have the entropy `ln num_codes` each.
    #[test]
    fn quantized_posterior_is_compared_with_uniform_codes() {
        let device = Device::flex();
        let shape = CodeShape {
            height: 2,
            width: 3,
            codebooks: 2,
            num_codes: 5,
        };
        let values_of = Tensor::<2>::zeros([4, 1], &device);
        let posterior = Quantized::new(values_of, Vec::new(), shape.max_entropy());
        let expected = (12.0 * 5f64.ln()) as f32;
        assert_eq!(values(posterior.kl()), [expected; 4]);
        let (_, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(0));
        assert_eq!(values(log_prob), [0.0; 4]);

        let codes = shape.sample_uniform(1000, &mut Rng::new(1), &device);
        assert_eq!(codes.dims(), [1000, 6, 2]);
        // Each code of each codebook occurs 1200 ± 5·√(6000·0.2·0.8) times.
        let counts = values(code_counts(codes, 5));
        assert!(
            counts.iter().all(|count| (count - 1200.0).abs() < 155.0),
            "{counts:?}"
        );
    }
}
