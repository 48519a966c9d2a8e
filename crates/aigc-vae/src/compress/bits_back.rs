//! Bits-back coding (Townsend et al. 2019, <https://arxiv.org/abs/1901.04866>).
//!
//! To push an image `x`, the encoder
//!
//! 1. pops latents `z` with the frequencies of `q(z|x)`, which takes bits from the stack;
//! 2. pushes `x` with the frequencies of `p(x|z)`;
//! 3. pushes `z` with those of `p(z)`.
//!
//! The decoder pops `z`, then `x`, and then pushes `z` with the frequencies of `q(z|x)`, which
//! gives the bits of step 1 back. An image needs `−log p(x|z) − log p(z) + log q(z|x)`, whose mean
//! is −ELBO. The latents of the first image are drawn by random bits, which remain in the file.
//!
//! The mean is −ELBO if the bits that draw the latents are equally probable. Those of the images
//! before are only if the model is the true distribution of the images. Therefore, before step 1,
//! the encoder inverts bits on top of the stack by a pseudorandom pattern that follows from the
//! image ([`Rans::mask`]), and the decoder inverts them again at the end.

use super::{
    Codec, Fingerprint, LatentBins, Method, PRECISION, PixelTables, Rans, container::crc32,
    image_tensor, shape_of_images,
};
use crate::{DiagonalGaussian, Likelihood, Vae};
use aigc_core::{Error, Result, data::ImageShape};
use burn::tensor::{Device, Tensor, TensorData};

/// Chooses the latents of a group by the means and `log σ²` of its posterior.
pub type ChooseLatents<'a> = dyn FnMut(&[f32], &[f32]) -> Result<Vec<f32>> + 'a;

/// A model with Gaussian latents, in one or more groups, which under the prior are independent and
/// standard normal.
///
/// Every [`Vae`] with a [`DiagonalGaussian`] posterior is one. If it has another prior, images are
/// restored all the same, but need more bits than with that prior. The methods take no condition,
/// and the codecs refuse models that have one. A model whose prior of a group
/// depends on the groups before is one in units of the prior: with `z = μ_p + σ_p·w`, the latents
/// `w` are standard normal.
pub trait GaussianLatents<const Z: usize = 2>: Vae<4, Z> {
    /// Runs the encoder for one image. Calls `choose` for each group of latents in the order in
    /// which they depend on each other, with the means and `log σ²` of the posterior, and goes on
    /// with the latents that it returns, of which there are as many.
    ///
    /// # Shapes
    /// - x: `[1, channels, height, width]`, in `[0, 1]`
    ///
    /// # Errors
    /// Errors of `choose`.
    fn encode_latents(&self, x: Tensor<4>, choose: &mut ChooseLatents<'_>) -> Result<()>;

    /// The likelihood for the latents of all groups, one group after the other, of one image.
    ///
    /// # Panics
    /// If the number of latents is not [`Vae::latent_dim`].
    fn decode_latents(&self, latents: &[f32], device: &Device) -> Likelihood;
}

impl<V, const Z: usize> GaussianLatents<Z> for V
where
    V: Vae<4, Z, Posterior = DiagonalGaussian<Z>>,
{
    fn encode_latents(&self, x: Tensor<4>, choose: &mut ChooseLatents<'_>) -> Result<()> {
        let DiagonalGaussian { mean, logvar } = self.encode(x);
        let values = |x: Tensor<Z>| x.into_data().iter::<f32>().collect::<Vec<f32>>();
        choose(&values(mean), &values(logvar)).map(drop)
    }

    fn decode_latents(&self, latents: &[f32], device: &Device) -> Likelihood {
        let shape: [usize; Z] = self.latent_shape().batched(1);
        let latents = TensorData::new(latents.to_vec(), shape);
        self.decode(Tensor::from_data(latents, device))
    }
}

/// Lossless compression by bits-back coding. A chain of many images needs close to −ELBO for each,
/// the first up to [`latent_bits`](Codec::latent_bits) for each latent more.
#[derive(Clone, Debug)]
pub struct BitsBack<M, const Z: usize = 2> {
    model: M,
    device: Device,
    bins: LatentBins,
    shape: ImageShape,
    fingerprint: Fingerprint,
}

impl<M: GaussianLatents<Z>, const Z: usize> BitsBack<M, Z> {
    /// Compresses with `model`, whose weights lie on `device`, and 10 bits per latent: bins that
    /// are fine enough for posteriors with a 200th of the prior's standard deviation.
    ///
    /// # Errors
    /// [`Error::Config`] if the samples of the model are not images, or it has a condition.
    pub fn new(model: &M, device: &Device) -> Result<Self> {
        Ok(Self {
            shape: shape_of_images::<M, Z>(model)?,
            model: model.valid(),
            device: device.clone(),
            bins: LatentBins::new(10)?,
            fingerprint: Fingerprint::of(model),
        })
    }

    /// Sets the number of bits per latent. With more, images come closer to −ELBO, and the first
    /// image takes more.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless it is 1 to [`MAX_LATENT_BITS`](super::MAX_LATENT_BITS).
    pub fn with_latent_bits(self, latent_bits: u8) -> Result<Self> {
        let bins = LatentBins::new(latent_bits)?;
        Ok(Self { bins, ..self })
    }

    /// The distributions of the pixels given the bins of the latents.
    fn pixels(&self, bins: &[usize]) -> Result<PixelTables> {
        let latents: Vec<f32> = bins.iter().map(|bin| self.bins.median(*bin)).collect();
        PixelTables::new(&self.model.decode_latents(&latents, &self.device))
    }

    /// Inverts the bits that the latents of an image are drawn by, or inverts them again.
    fn mask(&self, key: u32, rans: &mut Rans) {
        let bits = self.model.latent_dim() * PRECISION as usize;
        rans.mask(u64::from(key), bits.div_ceil(32));
    }

    /// Fails unless the encoder has as many latents as the decoder.
    fn check_latents(&self, found: usize) -> Result<()> {
        let expected = self.model.latent_dim();
        if found == expected {
            return Ok(());
        }
        let expected = format!("{expected}, as of the decoder");
        Err(Error::argument("latents of the encoder", found, expected))
    }
}

impl<M: GaussianLatents<Z>, const Z: usize> Codec for BitsBack<M, Z> {
    fn method(&self) -> Method {
        Method::BitsBack
    }

    fn latent_bits(&self) -> u8 {
        self.bins.bits()
    }

    fn image_shape(&self) -> ImageShape {
        self.shape
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn push(&self, pixels: &[u8], rans: &mut Rans) -> Result<u32> {
        let mut bins = Vec::with_capacity(self.model.latent_dim());
        let checksum = crc32(pixels);
        self.mask(checksum, rans);
        let x = image_tensor(pixels, self.shape, &self.device);
        self.model.encode_latents(x, &mut |mean, logvar| {
            let first = bins.len();
            for (mean, logvar) in mean.iter().zip(logvar) {
                bins.push(self.bins.posterior(*mean, *logvar)?.pop(rans));
            }
            Ok(bins[first..]
                .iter()
                .map(|bin| self.bins.median(*bin))
                .collect())
        })?;
        self.check_latents(bins.len())?;
        self.pixels(&bins)?.push(pixels, rans)?;
        for bin in bins.iter().rev() {
            rans.push_bits(*bin as u32, u32::from(self.bins.bits()));
        }
        Ok(checksum)
    }

    fn pop(&self, rans: &mut Rans) -> Result<(Vec<u8>, u32)> {
        let bits = u32::from(self.bins.bits());
        let bins: Vec<usize> = (0..self.model.latent_dim())
            .map(|_| rans.pop_bits(bits) as usize)
            .collect();
        let pixels = self.pixels(&bins)?.pop(rans)?;
        let mut tables = Vec::with_capacity(bins.len());
        let x = image_tensor(&pixels, self.shape, &self.device);
        self.model.encode_latents(x, &mut |mean, logvar| {
            let first = tables.len();
            for (mean, logvar) in mean.iter().zip(logvar) {
                tables.push(self.bins.posterior(*mean, *logvar)?);
            }
            let group = bins.get(first..tables.len()).unwrap_or(&[]);
            Ok(group.iter().map(|bin| self.bins.median(*bin)).collect())
        })?;
        self.check_latents(tables.len())?;
        // The encoder popped them from first to last.
        for (table, bin) in tables.iter().zip(&bins).rev() {
            table.push(*bin, rans);
        }
        let checksum = crc32(&pixels);
        // Initial bits that this image used are inverted too; no image before it has them.
        self.mask(checksum, rans);
        Ok((pixels, checksum))
    }

    fn stack(&self) -> Rans {
        Rans::with_initial_bits(0)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        Condition, LikelihoodKind, MlpVae, MlpVaeConfig,
        compress::{decode, encode},
    };
    use aigc_core::{
        data::{Image, SampleShape, digits},
        encoder::Deterministic,
        nn::{Linear, LinearConfig},
        params::{ParamMapper, map_params},
        rng::{InitWeights, Rng},
        testing::values,
    };
    use burn::module::{Module, Param};

    /// A random model whose posteriors differ from the prior: all weights are multiplied by 2, and
    /// the logarithms of the variances are lowered by 2.5.
    fn vae(likelihood: LikelihoodKind) -> MlpVae {
        struct Edit;

        impl ParamMapper for Edit {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                let of_variances = path.contains("var");
                param.map(|weights| match (of_variances, D) {
                    (true, 1) => weights - 2.5,
                    (true, _) => weights,
                    _ => weights * 2.0,
                })
            }
        }

        let config = MlpVaeConfig {
            hidden_dim: 32,
            latent_dim: 6,
            likelihood,
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        let model = config.init(&Device::flex()).unwrap().init_weights(1);
        map_params(model, &mut Edit)
    }

    fn images(n: usize, binary: bool) -> Vec<Image> {
        let mut images: Vec<Image> = digits::load().0.into_iter().take(n).collect();
        if binary {
            for pixel in images.iter_mut().flat_map(|image| &mut image.pixels) {
                *pixel = if *pixel < 128 { 0 } else { 255 };
            }
        }
        images
    }

    fn same(a: &[Image], b: &[Image]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.pixels == b.pixels)
    }

    #[test]
    fn chains_of_images_are_restored() {
        let device = Device::flex();
        for likelihood in [
            LikelihoodKind::Bernoulli,
            LikelihoodKind::Gaussian(0.2),
            LikelihoodKind::LearnedGaussian,
            LikelihoodKind::LogisticMixture { components: 2 },
        ] {
            let codec = BitsBack::new(&vae(likelihood), &device).unwrap();
            for n in [1, 12] {
                let images = images(n, likelihood == LikelihoodKind::Bernoulli);
                let file = encode(&codec, &images).unwrap();
                let decoded = decode(&codec, &file).unwrap();
                assert!(same(&decoded, &images), "{likelihood:?} {n}");
            }
        }
    }

    /// Popped in reverse, a chain leaves the random bits that the first latents were drawn by.
    #[test]
    fn popping_a_chain_restores_the_initial_bits() {
        let device = Device::flex();
        let codec = BitsBack::new(&vae(LikelihoodKind::Bernoulli), &device).unwrap();
        let images = images(25, true);
        let mut rans = codec.stack();
        for image in &images {
            codec.push(&image.pixels, &mut rans).unwrap();
        }
        let initial = rans.initial_bits();
        assert!(initial > 32, "{initial}");
        let mut read = Rans::from_bytes(&rans.to_bytes()).unwrap();
        for image in images.iter().rev() {
            assert_eq!(codec.pop(&mut read).unwrap().0, image.pixels);
        }
        let left = read.bits() - initial as f64;
        assert!((0.0..1.0).contains(&left), "{left}");
    }

    /// The mean length is −ELBO. One draw of the latents per image is compared with 16: the lengths
    /// may differ by 5 standard deviations, and by 0.5 % for the bins and the grids.
    #[test]
    fn rate_approaches_the_bound() {
        const DRAWS: usize = 16;
        let device = Device::flex();
        let model = vae(LikelihoodKind::Bernoulli);
        let codec = BitsBack::new(&model, &device).unwrap();
        let images = images(600, true);
        let mut rans = codec.stack();
        for image in &images {
            codec.push(&image.pixels, &mut rans).unwrap();
        }
        let length = rans.bits() - rans.initial_bits() as f64;
        let pixels = images.iter().flat_map(|image| &image.pixels);
        let pixels: Vec<f32> = pixels.map(|pixel| f32::from(*pixel) / 255.0).collect();
        let dims = digits::SHAPE;
        let dims = [images.len(), dims.channels, dims.height, dims.width];
        let x = Tensor::<4>::from_data(TensorData::new(pixels, dims), &device);
        // log p(x|z) + log p(z) − log q(z|x) of each draw.
        let (posterior, condition) = (model.encode(x.clone()), Condition::none());
        let divergence = values(posterior.kl()).iter().sum::<f32>();
        let weights = model.log_weights(&posterior, x, &condition, DRAWS, &mut Rng::new(0));
        let bits = values(-weights / std::f64::consts::LN_2);
        let (mut expected, mut variance) = (0.0, 0.0);
        for draws in bits.chunks_exact(DRAWS) {
            let mean = draws.iter().copied().map(f64::from).sum::<f64>() / DRAWS as f64;
            let squares = draws.iter().map(|bits| (f64::from(*bits) - mean).powi(2));
            expected += mean;
            variance += squares.sum::<f64>() / (DRAWS - 1) as f64;
        }
        let tolerance = 5.0 * (variance * (1.0 + 1.0 / DRAWS as f64)).sqrt() + 0.005 * expected;
        // The bits that come back are many times the tolerance.
        assert!(
            f64::from(divergence) > 3.0 * tolerance,
            "{divergence} {tolerance}"
        );
        assert!(
            (length - expected).abs() < tolerance,
            "{length} {expected} {tolerance}"
        );
    }

    /// Two groups of latents, of which the second depends on the first.
    #[derive(Module, Debug)]
    struct TwoGroups {
        encoder: Linear,
        between: Linear,
        decoder: Linear,
    }

    impl Vae for TwoGroups {
        type Posterior = Deterministic<2>;

        fn encode(&self, x: Tensor<4>) -> Deterministic<2> {
            Deterministic(self.encoder.forward(x.flatten::<2>(1, 3)))
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood {
            let logits = self.decoder.forward(z);
            let shape: [usize; 4] = self.sample_shape().batched(logits.dims()[0]);
            Likelihood::Bernoulli {
                logits: logits.reshape(shape),
            }
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[8])
        }

        fn sample_shape(&self) -> SampleShape {
            digits::SHAPE.into()
        }
    }

    impl GaussianLatents<2> for TwoGroups {
        fn encode_latents(&self, x: Tensor<4>, choose: &mut ChooseLatents<'_>) -> Result<()> {
            let device = x.device();
            let Deterministic(hidden) = self.encode(x);
            let hidden = values(hidden);
            let first = choose(&hidden[..3], &[-2.0; 3])?;
            let first = Tensor::from_data(TensorData::new(first, [1, 3]), &device);
            let means = values(self.between.forward::<2>(first));
            let means: Vec<f32> = means.iter().zip(&hidden[3..]).map(|(a, b)| a + b).collect();
            choose(&means, &[-3.0; 5]).map(drop)
        }

        fn decode_latents(&self, latents: &[f32], device: &Device) -> Likelihood {
            let z = TensorData::new(latents.to_vec(), [1, 8]);
            self.decode(Tensor::from_data(z, device))
        }
    }

    #[test]
    fn groups_of_latents_are_chosen_one_after_the_other() {
        let device = Device::flex();
        let linear = |i, o| LinearConfig::new(i, o).init(&device);
        let model = TwoGroups {
            encoder: linear(64, 8),
            between: linear(3, 5),
            decoder: linear(8, 64),
        };
        let model = model.init_weights(3);
        let images = images(10, true);
        let codec: BitsBack<_, 2> = BitsBack::new(&model, &device).unwrap();
        let codec = codec.with_latent_bits(7).unwrap();
        let file = encode(&codec, &images).unwrap();
        assert!(same(&decode(&codec, &file).unwrap(), &images));
        assert!(codec.with_latent_bits(13).is_err());
    }
}
