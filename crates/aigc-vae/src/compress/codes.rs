//! Coding of discrete latents: codes under their prior, and pixels under the likelihood given the
//! codes.

use super::{
    Codec, Fingerprint, FrequencyTable, GaussianLatents, LatentBins, Method, PRECISION,
    PixelTables, Rans, container::crc32, image_tensor, shape_of_images, tables::ensure_finite,
};
use crate::{CodePrior, CodeShape, DiscreteVae, Likelihood, PriorCondition, Vae};
use aigc_core::{Error, Result, data::ImageShape};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use std::borrow::Cow;

/// A model of images with a fixed number of discrete latents, the codes, and a prior over them: a
/// VQ-VAE and an autoregressive model of its codes, or a VAE whose latents are divided into bins
/// ([`GaussianCodes`]).
pub trait CodeModel {
    /// Shape of an image.
    fn image_shape(&self) -> ImageShape;

    /// Number of codes of an image.
    fn num_codes(&self) -> usize;

    /// Bits of the bins of a latent, if the codes are numbers of [`LatentBins`].
    fn latent_bits(&self) -> u8 {
        0
    }

    /// Identifies the weights of encoder, decoder and prior.
    fn fingerprint(&self) -> Fingerprint;

    /// The codes of one image.
    ///
    /// # Shapes
    /// - x: `[1, channels, height, width]`, in `[0, 1]`
    ///
    /// # Errors
    /// If the encoder fails.
    fn encode_codes(&self, x: Tensor<4>) -> Result<Vec<u32>>;

    /// The likelihood of one image given its codes. Any codes below the numbers of symbols of the
    /// prior are valid.
    ///
    /// # Errors
    /// If the decoder fails.
    ///
    /// # Panics
    /// If there are not [`num_codes`](Self::num_codes) of them.
    fn decode_codes(&self, codes: &[u32], device: &Device) -> Result<Likelihood>;

    /// Starts with an image: the function computes the frequencies of one code after the other.
    fn start_codes<'a>(&'a self, device: &'a Device) -> NextCode<'a>;
}

/// Computes the frequencies of the next code of an image, or borrows a table that the model keeps;
/// gets the code before it, and `None` for the first. What it computes must depend on the codes
/// before only, in values and in shapes, so that the decoder computes the same.
pub type NextCode<'a> = Box<dyn FnMut(Option<u32>) -> Result<Cow<'a, FrequencyTable>> + 'a>;

/// The latents of a Gaussian model as codes: the bin that the mean of the posterior lies in, with
/// equally probable bins. Single images are smaller than by bits-back coding, which needs random
/// bits; with a few bits per latent, latents near to the mean describe an image as well.
#[derive(Clone, Debug)]
pub struct GaussianCodes<M, const Z: usize = 2> {
    model: M,
    bins: LatentBins,
    frequencies: FrequencyTable,
    shape: ImageShape,
    fingerprint: Fingerprint,
}

impl<M: GaussianLatents<Z>, const Z: usize> GaussianCodes<M, Z> {
    /// A code for each latent of `model`, of 4 bits.
    ///
    /// # Errors
    /// [`Error::Config`] if the samples of the model are not images, or it has a condition.
    pub fn new(model: &M) -> Result<Self> {
        let bins = LatentBins::new(4)?;
        Ok(Self {
            shape: shape_of_images::<M, Z>(model)?,
            model: model.valid(),
            frequencies: FrequencyTable::uniform(1 << bins.bits())?,
            bins,
            fingerprint: Fingerprint::of(model),
        })
    }

    /// Sets the number of bits per latent. With fewer, the codes are smaller, and pixels given the
    /// codes are larger. To compare several numbers, set them on clones: the fingerprint of the
    /// weights is computed by [`new`](Self::new) alone.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless it is 1 to [`MAX_LATENT_BITS`](super::MAX_LATENT_BITS).
    pub fn with_latent_bits(self, latent_bits: u8) -> Result<Self> {
        let bins = LatentBins::new(latent_bits)?;
        Ok(Self {
            frequencies: FrequencyTable::uniform(1 << bins.bits())?,
            bins,
            ..self
        })
    }
}

impl<M: GaussianLatents<Z>, const Z: usize> CodeModel for GaussianCodes<M, Z> {
    fn image_shape(&self) -> ImageShape {
        self.shape
    }

    fn num_codes(&self) -> usize {
        self.model.latent_dim()
    }

    fn latent_bits(&self) -> u8 {
        self.bins.bits()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn encode_codes(&self, x: Tensor<4>) -> Result<Vec<u32>> {
        let mut codes = Vec::with_capacity(self.num_codes());
        self.model.encode_latents(x, &mut |mean, _| {
            ensure_finite("mean", mean)?;
            let bins = mean.iter().map(|mean| self.bins.bin(*mean));
            let group: Vec<usize> = bins.collect();
            codes.extend(group.iter().map(|bin| *bin as u32));
            Ok(group.into_iter().map(|bin| self.bins.median(bin)).collect())
        })?;
        Ok(codes)
    }

    fn decode_codes(&self, codes: &[u32], device: &Device) -> Result<Likelihood> {
        let median = |code: &u32| self.bins.median(*code as usize);
        let latents: Vec<f32> = codes.iter().map(median).collect();
        Ok(self.model.decode_latents(&latents, device))
    }

    fn start_codes<'a>(&'a self, _device: &'a Device) -> NextCode<'a> {
        Box::new(move |_| Ok(Cow::Borrowed(&self.frequencies)))
    }
}

/// A prior over the codes of an image, in the order of [`DiscreteCodes`].
pub trait CodeFrequencies {
    /// The levels of codes.
    fn code_shapes(&self) -> Vec<CodeShape>;

    /// Identifies the weights of the prior, if it has any.
    fn fingerprint(&self) -> Option<Fingerprint>;

    /// Starts with an image, as [`CodeModel::start_codes`].
    fn start<'a>(&'a self, device: &'a Device) -> NextCode<'a>;
}

/// The error of a request for more codes than an image has.
fn no_more_codes<T>() -> Result<T> {
    let expected = "one of the codes of an image";
    Err(Error::argument("code", "after the last one", expected))
}

/// Codes that are equally probable.
#[derive(Clone, Debug)]
pub struct UniformCodes {
    /// The codes of each level and their frequencies.
    levels: Vec<(CodeShape, FrequencyTable)>,
}

impl UniformCodes {
    /// A prior over codes on these levels.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a codebook has no codes, or more than
    /// [`MAX_SYMBOLS`](super::MAX_SYMBOLS).
    pub fn new(codes: &[CodeShape]) -> Result<Self> {
        let level = |codes: &CodeShape| -> Result<_> {
            Ok((*codes, FrequencyTable::uniform(codes.num_codes)?))
        };
        let levels = codes.iter().map(level).collect::<Result<_>>()?;
        Ok(Self { levels })
    }
}

impl CodeFrequencies for UniformCodes {
    fn code_shapes(&self) -> Vec<CodeShape> {
        self.levels.iter().map(|(shape, _)| *shape).collect()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    fn start<'a>(&'a self, _device: &'a Device) -> NextCode<'a> {
        let levels = self.levels.iter();
        let mut tables =
            levels.flat_map(|(shape, table)| std::iter::repeat_n(table, shape.num_indices()));
        Box::new(move |_| match tables.next() {
            Some(table) => Ok(Cow::Borrowed(table)),
            None => no_more_codes(),
        })
    }
}

/// Codes under trained priors, one for each level. Priors with classes work without a class.
#[derive(Clone, Debug)]
pub struct PriorCodes {
    levels: Vec<CodePrior>,
    fingerprint: Fingerprint,
}

impl PriorCodes {
    /// The priors of the levels, coarsest first. A prior that is conditioned on the codes of the
    /// level above gets those of the level before it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no prior, or one is conditioned on other codes than
    /// those of the level before it.
    pub fn new(levels: &[&CodePrior]) -> Result<Self> {
        let fingerprints = levels.iter().map(|level| Fingerprint::of(*level));
        let Some(fingerprint) = fingerprints.reduce(Fingerprint::and) else {
            return Err(Error::argument("levels", "empty", "at least one prior"));
        };
        let mut before = None;
        for level in levels {
            let config = level.config();
            if config.above.is_some() && config.above != before {
                let before =
                    before.map_or("none".to_string(), |codes: CodeShape| codes.to_string());
                let expected = format!("{before}, the codes of the level before");
                let above = config
                    .above
                    .map_or(String::new(), |codes| codes.to_string());
                return Err(Error::argument("above", above, expected));
            }
            before = Some(config.codes);
        }
        Ok(Self {
            levels: levels.iter().map(|level| level.valid()).collect(),
            fingerprint,
        })
    }
}

impl CodeFrequencies for PriorCodes {
    fn code_shapes(&self) -> Vec<CodeShape> {
        let levels = self.levels.iter();
        levels.map(|level| level.config().codes).collect()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.fingerprint)
    }

    fn start<'a>(&'a self, device: &'a Device) -> NextCode<'a> {
        let mut levels = self.levels.iter();
        let mut condition = PriorCondition::default();
        // The decoder of the current level, its codes so far, and how many there are in all.
        let (mut decoder, mut known, mut count) = (None, Vec::<u32>::new(), 0);
        let mut shape = None;
        Box::new(move |before: Option<u32>| {
            known.extend(before);
            if known.len() == count {
                // The codes of a level are complete; before the first code, of none.
                condition.above = shape.map(|shape| codes_tensor(&known, shape, device));
                let Some(prior) = levels.next() else {
                    return no_more_codes();
                };
                decoder = Some(prior.decoder(1, &condition));
                shape = Some(prior.config().codes);
                count = prior.config().codes.num_indices();
                known.clear();
            }
            let before = known.last().map(|code| {
                let code = TensorData::new(vec![*code as i32], [1]);
                Tensor::<1, Int>::from_data(code, device)
            });
            let Some(decoder) = &mut decoder else {
                return no_more_codes();
            };
            let logits = decoder.next_logits(before).into_data();
            let logits: Vec<f32> = logits.iter::<f32>().collect();
            FrequencyTable::from_logits(&logits).map(Cow::Owned)
        })
    }
}

/// The codes of a level as a tensor, `[1, positions, codebooks]`.
fn codes_tensor(codes: &[u32], shape: CodeShape, device: &Device) -> Tensor<3, Int> {
    let codes: Vec<i32> = codes.iter().map(|code| *code as i32).collect();
    let dims = [1, shape.positions(), shape.codebooks];
    Tensor::from_data(TensorData::new(codes, dims), device)
}

/// The codes of a model with codebooks, in the order of its levels, on each level in the order of
/// the positions, and at each position in the order of the codebooks.
#[derive(Clone, Debug)]
pub struct DiscreteCodes<V, P = UniformCodes> {
    model: V,
    prior: P,
    levels: Vec<CodeShape>,
    shape: ImageShape,
    fingerprint: Fingerprint,
}

impl<V: DiscreteVae> DiscreteCodes<V> {
    /// The codes of `model`, of which all are equally probable.
    ///
    /// # Errors
    /// [`Error::Config`] if the samples of the model are not images, or it has a condition;
    /// [`Error::InvalidArgument`] if a codebook has more codes than
    /// [`MAX_SYMBOLS`](super::MAX_SYMBOLS).
    pub fn new<const Z: usize>(model: &V) -> Result<Self>
    where
        V: Vae<4, Z>,
    {
        let levels = model.code_shapes();
        Ok(Self {
            prior: UniformCodes::new(&levels)?,
            levels,
            shape: shape_of_images::<V, Z>(model)?,
            fingerprint: Fingerprint::of(model),
            model: model.valid(),
        })
    }

    /// Sets the prior over the codes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is a prior over other codes.
    pub fn with_prior<P: CodeFrequencies>(self, prior: P) -> Result<DiscreteCodes<V, P>> {
        let listed = |levels: &[CodeShape]| {
            let levels: Vec<String> = levels.iter().map(CodeShape::to_string).collect();
            levels.join(", ")
        };
        let levels = prior.code_shapes();
        if levels != self.levels {
            let expected = format!("over {}, the codes of the model", listed(&self.levels));
            let found = format!("over {}", listed(&levels));
            return Err(Error::argument("prior", found, expected));
        }
        Ok(DiscreteCodes {
            fingerprint: match prior.fingerprint() {
                Some(fingerprint) => self.fingerprint.and(fingerprint),
                None => self.fingerprint,
            },
            model: self.model,
            prior,
            levels,
            shape: self.shape,
        })
    }
}

impl<V: DiscreteVae, P: CodeFrequencies> CodeModel for DiscreteCodes<V, P> {
    fn image_shape(&self) -> ImageShape {
        self.shape
    }

    fn num_codes(&self) -> usize {
        self.levels.iter().map(CodeShape::num_indices).sum()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn encode_codes(&self, x: Tensor<4>) -> Result<Vec<u32>> {
        let mut codes = Vec::with_capacity(self.num_codes());
        for level in self.model.encode_codes(x) {
            codes.extend(level.into_data().iter::<i64>().map(|code| code as u32));
        }
        Ok(codes)
    }

    fn decode_codes(&self, codes: &[u32], device: &Device) -> Result<Likelihood> {
        let (mut levels, mut rest) = (Vec::new(), codes);
        for shape in &self.levels {
            let (level, after) = rest.split_at(shape.num_indices());
            levels.push(codes_tensor(level, *shape, device));
            rest = after;
        }
        Ok(self.model.decode_codes(&levels))
    }

    fn start_codes<'a>(&'a self, device: &'a Device) -> NextCode<'a> {
        self.prior.start(device)
    }
}

/// Compression with a [`CodeModel`]. Every image is coded on its own, without initial bits.
#[derive(Clone, Debug)]
pub struct CodeCodec<M> {
    model: M,
    device: Device,
    method: Method,
}

impl<M: CodeModel> CodeCodec<M> {
    /// Lossless: codes, and pixels given the codes. The weights of `model` lie on `device`.
    pub fn lossless(model: M, device: &Device) -> Self {
        Self {
            model,
            device: device.clone(),
            method: Method::Lossless,
        }
    }

    /// Lossy: only codes. Images are decoded to the means of the likelihood.
    pub fn lossy(model: M, device: &Device) -> Self {
        Self {
            method: Method::Lossy,
            ..Self::lossless(model, device)
        }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    fn push_codes(&self, codes: &[u32], rans: &mut Rans) -> Result<()> {
        let expected = self.model.num_codes();
        if codes.len() != expected {
            let expected = format!("{expected}, as of the decoder");
            return Err(Error::argument("number of codes", codes.len(), expected));
        }
        let mut next = self.model.start_codes(&self.device);
        let (mut before, mut intervals) = (None, Vec::with_capacity(codes.len()));
        for code in codes {
            let table = next(before)?;
            if *code as usize >= table.len() {
                let expected = format!("below {}, the symbols of the prior", table.len());
                return Err(Error::argument("code", code, expected));
            }
            intervals.push(table.interval(*code as usize));
            before = Some(*code);
        }
        for interval in intervals.into_iter().rev() {
            rans.push(interval, PRECISION);
        }
        Ok(())
    }

    fn pop_codes(&self, rans: &mut Rans) -> Result<Vec<u32>> {
        let mut next = self.model.start_codes(&self.device);
        let mut codes = Vec::with_capacity(self.model.num_codes());
        while codes.len() < self.model.num_codes() {
            let table = next(codes.last().copied())?;
            codes.push(table.pop(rans) as u32);
        }
        Ok(codes)
    }
}

impl<M: CodeModel> Codec for CodeCodec<M> {
    fn method(&self) -> Method {
        self.method
    }

    fn latent_bits(&self) -> u8 {
        self.model.latent_bits()
    }

    fn image_shape(&self) -> ImageShape {
        self.model.image_shape()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.model.fingerprint()
    }

    fn push(&self, pixels: &[u8], rans: &mut Rans) -> Result<u32> {
        let x = image_tensor(pixels, self.image_shape(), &self.device);
        let codes = self.model.encode_codes(x)?;
        if self.method == Method::Lossy {
            self.push_codes(&codes, rans)?;
            return Ok(checksum_of_codes(&codes));
        }
        let likelihood = self.model.decode_codes(&codes, &self.device)?;
        PixelTables::new(&likelihood)?.push(pixels, rans)?;
        self.push_codes(&codes, rans)?;
        Ok(crc32(pixels))
    }

    fn pop(&self, rans: &mut Rans) -> Result<(Vec<u8>, u32)> {
        let codes = self.pop_codes(rans)?;
        let likelihood = self.model.decode_codes(&codes, &self.device)?;
        if self.method == Method::Lossy {
            let mean: Vec<f32> = likelihood.mean().into_data().iter().collect();
            ensure_finite("mean", &mean)?;
            let level = |x: &f32| (x * 255.0).round() as u8;
            let pixels = mean.iter().map(level).collect();
            return Ok((pixels, checksum_of_codes(&codes)));
        }
        let pixels = PixelTables::new(&likelihood)?.pop(rans)?;
        let checksum = crc32(&pixels);
        Ok((pixels, checksum))
    }
}

fn checksum_of_codes(codes: &[u32]) -> u32 {
    let bytes: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
    crc32(&bytes)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        CodePriorConfig, LikelihoodKind, MlpVae, MlpVaeConfig, VectorQuantizerConfig, VqVae,
        VqVae2, VqVae2Config, VqVaeConfig,
        compress::{decode, encode},
    };
    use aigc_core::{
        data::{Image, digits},
        params::{ParamMapper, map_params},
        rng::InitWeights,
        testing::values,
    };
    use burn::module::Param;

    fn vae() -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 16,
            latent_dim: 3,
            likelihood: LikelihoodKind::LogisticMixture { components: 2 },
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn vq_vae() -> VqVae {
        let config = VqVaeConfig {
            strides: vec![2],
            channels: vec![8],
            residual_blocks: 1,
            residual_channels: 4,
            quantizer: VectorQuantizerConfig::new(11, 4).into(),
            likelihood: LikelihoodKind::LogisticMixture { components: 2 },
            ..VqVaeConfig::new(digits::SHAPE)
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn vq_vae_2() -> VqVae2 {
        let config = VqVae2Config {
            channels: 8,
            residual_blocks: 1,
            residual_channels: 4,
            top: VectorQuantizerConfig::new(7, 3).into(),
            bottom: VectorQuantizerConfig::new(11, 4).into(),
            likelihood: LikelihoodKind::LogisticMixture { components: 2 },
            ..VqVae2Config::new(digits::SHAPE)
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn prior_over(codes: CodeShape, above: Option<CodeShape>) -> CodePrior {
        let config = CodePriorConfig {
            above,
            d_model: 8,
            n_layer: 1,
            n_head: 2,
            ..CodePriorConfig::new(codes)
        };
        config.init(&Device::flex()).unwrap().init_weights(2)
    }

    fn prior(model: &VqVae) -> CodePrior {
        prior_over(model.code_shapes()[0], None)
    }

    fn images(n: usize) -> Vec<Image> {
        digits::load().0.into_iter().take(n).collect()
    }

    fn restored(codec: &dyn Codec, images: &[Image]) -> bool {
        let file = encode(codec, images).unwrap();
        let decoded = decode(codec, &file).unwrap();
        let same = decoded
            .iter()
            .zip(images)
            .all(|(a, b)| a.pixels == b.pixels);
        same && decoded.len() == images.len()
    }

    /// The pixels of an image decoded from its codes.
    fn reconstructed(model: &impl DiscreteVae, image: &Image) -> Vec<u8> {
        let x = image_tensor(&image.pixels, image.shape, &Device::flex());
        let mean = values(model.decode_codes(&model.encode_codes(x)).mean());
        mean.iter().map(|x| (x * 255.0).round() as u8).collect()
    }

    #[test]
    fn lossless_codes_restore_images() {
        let device = Device::flex();
        let gaussian = GaussianCodes::new(&vae()).unwrap();
        let discrete = DiscreteCodes::new(&vq_vae()).unwrap();
        let prior = PriorCodes::new(&[&prior(&vq_vae())]).unwrap();
        let learned = discrete.clone().with_prior(prior).unwrap();
        assert_ne!(discrete.fingerprint(), learned.fingerprint());
        for n in [1, 5] {
            let images = images(n);
            assert!(restored(
                &CodeCodec::lossless(gaussian.clone(), &device),
                &images
            ));
            assert!(restored(
                &CodeCodec::lossless(discrete.clone(), &device),
                &images
            ));
            assert!(restored(
                &CodeCodec::lossless(learned.clone(), &device),
                &images
            ));
        }
    }

    /// A lossy file is decoded to the reconstructions from the same codes.
    #[test]
    fn lossy_codes_restore_reconstructions() {
        let device = Device::flex();
        let images = images(4);
        let model = vq_vae();
        let lossy = CodeCodec::lossy(DiscreteCodes::new(&model).unwrap(), &device);
        let file = encode(&lossy, &images).unwrap();
        // 16 codes of 11 symbols, and a mark, for each image.
        let bits = 4.0 * (16.0 * 11f64.log2() + 1.0);
        let found = 8.0 * file.payload.len() as f64;
        assert!((found - bits).abs() < 40.0, "{found} {bits}");
        let decoded = decode(&lossy, &file).unwrap();
        for (image, decoded) in images.iter().zip(&decoded) {
            assert_eq!(decoded.pixels, reconstructed(&model, image));
        }
        // Latents of three bits.
        let codes = GaussianCodes::new(&vae()).unwrap().with_latent_bits(3);
        let lossy = CodeCodec::lossy(codes.unwrap(), &device);
        let file = encode(&lossy, &images).unwrap();
        assert!(file.payload.len() <= (4 * (3 * 3 + 1) + 24) / 8 + 1);
        assert_eq!(decode(&lossy, &file).unwrap().len(), 4);
    }

    /// Equally probable codes of both maps, and codes under a prior of each map; that of the bottom
    /// map is given the codes of the top map.
    #[test]
    fn two_levels_of_codes_restore_images() {
        let device = Device::flex();
        let model = vq_vae_2();
        let [top, bottom] = model.code_shapes()[..] else {
            panic!("{:?}", model.code_shapes());
        };
        let (of_top, of_bottom) = (prior_over(top, None), prior_over(bottom, Some(top)));
        let uniform = DiscreteCodes::new(&model).unwrap();
        let priors = PriorCodes::new(&[&of_top, &of_bottom]).unwrap();
        let learned = uniform.clone().with_prior(priors).unwrap();
        assert_eq!(uniform.num_codes(), 4 + 16);
        let images = images(5);
        assert!(restored(&CodeCodec::lossless(uniform, &device), &images));
        let lossy = CodeCodec::lossy(learned.clone(), &device);
        assert!(restored(&CodeCodec::lossless(learned, &device), &images));
        let decoded = decode(&lossy, &encode(&lossy, &images).unwrap()).unwrap();
        for (image, decoded) in images.iter().zip(&decoded) {
            assert_eq!(decoded.pixels, reconstructed(&model, image));
        }
        let swapped = PriorCodes::new(&[&of_bottom, &of_top]).unwrap_err();
        assert!(swapped.to_string().contains("`above`"), "{swapped}");
    }

    /// Lossy files have no pixels to check: NaN would pass as black.
    #[test]
    fn outputs_that_are_not_finite_are_refused() {
        struct Nan(&'static str);

        impl ParamMapper for Nan {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                match path == self.0 {
                    true => param.map(|value| value * f32::NAN),
                    false => param,
                }
            }
        }

        let device = Device::flex();
        let config = MlpVaeConfig {
            hidden_dim: 16,
            latent_dim: 3,
            likelihood: LikelihoodKind::Bernoulli,
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let lossy = |path| {
            let damaged = map_params(model.clone(), &mut Nan(path));
            CodeCodec::lossy(GaussianCodes::new(&damaged).unwrap(), &device)
        };
        let refused = |message: String| {
            assert!(message.contains("`mean` is NaN"), "{message}");
            assert!(
                message.contains("a finite output of the network"),
                "{message}"
            );
        };
        refused(
            encode(&lossy("mean.bias"), &images(1))
                .unwrap_err()
                .to_string(),
        );
        let codec = lossy("output.bias");
        let file = encode(&codec, &images(1)).unwrap();
        refused(decode(&codec, &file).unwrap_err().to_string());
    }

    /// The codes need as many bits as their log-probability under the prior says.
    #[test]
    fn prior_determines_the_length_of_codes() {
        let device = Device::flex();
        let (model, prior) = (vq_vae(), prior(&vq_vae()));
        let codes = DiscreteCodes::new(&model).unwrap();
        let codes = codes
            .with_prior(PriorCodes::new(&[&prior]).unwrap())
            .unwrap();
        let codec = CodeCodec::lossy(codes, &device);
        let (mut rans, mut nats) = (Rans::new(), 0.0);
        for image in images(20) {
            codec.push(&image.pixels, &mut rans).unwrap();
            let x = image_tensor(&image.pixels, image.shape, &device);
            let codes = model.encode_codes(x).remove(0);
            let log_prob = prior.log_prob(codes, &PriorCondition::default());
            nats -= f64::from(log_prob.into_scalar::<f32>());
        }
        let expected = nats / std::f64::consts::LN_2;
        // 24 bits for the first code, and the rounding of the logits of 320 codes.
        assert!(
            (rans.bits() - expected).abs() < 40.0,
            "{} {expected}",
            rans.bits()
        );
    }

    /// A prior under which a code is most probably the code before it.
    #[derive(Debug)]
    struct Repeating(Vec<CodeShape>);

    impl CodeFrequencies for Repeating {
        fn code_shapes(&self) -> Vec<CodeShape> {
            self.0.clone()
        }

        fn fingerprint(&self) -> Option<Fingerprint> {
            None
        }

        fn start<'a>(&'a self, _device: &'a Device) -> NextCode<'a> {
            let symbols = self.0[0].num_codes;
            Box::new(move |before: Option<u32>| {
                let mut logits = vec![0.0; symbols];
                if let Some(before) = before {
                    logits[before as usize] = 6.0;
                }
                FrequencyTable::from_logits(&logits).map(Cow::Owned)
            })
        }
    }

    #[test]
    fn codes_are_coded_given_those_before() {
        let device = Device::flex();
        let codes = DiscreteCodes::new(&vq_vae()).unwrap();
        let shapes = codes.prior.code_shapes();
        let codes = codes.with_prior(Repeating(shapes.clone())).unwrap();
        let codec = CodeCodec::lossless(codes, &device);
        let mut rans = Rans::new();
        let (equal, alternating) = ([7; 16], [[3, 9]; 8].concat());
        codec.push_codes(&equal, &mut rans).unwrap();
        let short = rans.bits();
        codec.push_codes(&alternating, &mut rans).unwrap();
        let long = rans.bits() - short;
        // ln(10 + e⁶) − 6 nats for a repeated code, 6 more for another one.
        assert!(short < 30.0 && long > 15.0 * 8.0, "{short} {long}");
        assert_eq!(codec.pop_codes(&mut rans).unwrap(), alternating);
        assert_eq!(codec.pop_codes(&mut rans).unwrap(), equal);
        for wrong in [&[7; 15][..], &[11; 16]] {
            assert!(codec.push_codes(wrong, &mut rans).is_err());
        }
        assert!(restored(&codec, &images(2)));
        let other = CodeShape {
            num_codes: 12,
            ..shapes[0]
        };
        let codes = DiscreteCodes::new(&vq_vae()).unwrap();
        let message = codes.with_prior(Repeating(vec![other])).unwrap_err();
        assert!(message.to_string().contains("`prior`"), "{message}");
    }
}
