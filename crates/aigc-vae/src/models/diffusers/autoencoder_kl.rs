//! `AutoencoderKL`: the autoencoder of latent diffusion models (Rombach et al. 2022,
//! <https://arxiv.org/abs/2112.10752>, section 3.1 and appendix G).

use super::{
    blocks::{Decoder, Encoder},
    config::AutoencoderKlConfig,
    to_images, to_network,
};
use crate::{DiagonalGaussian, Likelihood, TileConfig, Vae};
use aigc_core::{
    CancelToken, Result,
    data::SampleShape,
    encoder::{Autoencoder, Posterior},
    nn::{Conv2d, Conv2dConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use std::path::Path;

/// Limits of the posterior's `log σ²`.
const LOGVAR_RANGE: [f64; 2] = [-30.0, 20.0];

impl AutoencoderKlConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKl> {
        let activation = self.validate()?;
        let architecture = self.architecture();
        let latent = self.latent_channels;
        let pointwise = |channels| Conv2dConfig::new([channels, channels], 1).init(device);
        Ok(AutoencoderKl {
            encoder: Encoder::new(architecture, activation, 2 * latent, device),
            decoder: Decoder::new(architecture, activation, device),
            quant_conv: self.use_quant_conv.then(|| pointwise(2 * latent)),
            post_quant_conv: self.use_post_quant_conv.then(|| pointwise(latent)),
            config: self.clone(),
        })
    }
}

/// A convolutional autoencoder whose latents are maps with a Gaussian posterior.
///
/// As a [`Vae`], images are in `[0, 1]` and latents are the encoder's. As an [`Autoencoder`], that
/// is as the first stage of latent diffusion, latents are shifted and scaled by
/// [`scale_latents`](Self::scale_latents), so that the scaling factor of a diffusion objective or
/// sampler is 1, and decoded images are clamped to `[0, 1]`. The model then has to be without
/// autodiff, as opened or trained models are.
///
/// Images of other sizes than `sample_size` can be encoded and decoded; their sides should be
/// divisible by 2 for each block but the last, or rows and columns are lost.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::{AutoencoderKl, Vae};
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let vae = AutoencoderKl::from_pretrained("stable-diffusion-v1-5/vae", &device)?;
/// let images = Tensor::<4>::full([1, 3, 512, 512], 0.5, &device);
/// let latents = vae.encode(images).mode(); // [1, 4, 64, 64]
/// let images = vae.decode(latents).mean();
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: AutoencoderKlConfig,
}

impl AutoencoderKl {
    /// Configuration of the model.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// The model with other factors for latent diffusion, which replace those of its
    /// configuration: `shift_factor` and `scaling_factor`, such as the mean of the latents and one
    /// over their standard deviation.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) unless both are finite and `scaling_factor` is
    /// above 0.
    pub fn with_latent_scaling(
        mut self,
        shift_factor: Option<f64>,
        scaling_factor: f64,
    ) -> Result<Self> {
        self.config = AutoencoderKlConfig {
            shift_factor,
            scaling_factor,
            latents_mean: None,
            latents_std: None,
            ..self.config
        };
        self.config.validate()?;
        Ok(self)
    }

    /// Latents of the encoder as latent diffusion models have them,
    /// `(z − shift_factor)·scaling_factor`; with `latents_mean` and `latents_std`
    /// `(z − latents_mean)·scaling_factor / latents_std`.
    ///
    /// # Shapes
    /// - z and output: `[batch, latent_channels, height, width]`
    pub fn scale_latents(&self, z: Tensor<4>) -> Tensor<4> {
        let [shift, factor] = self.latent_scaling(&z);
        (z - shift) * factor
    }

    /// The inverse of [`scale_latents`](Self::scale_latents).
    ///
    /// # Shapes
    /// - z and output: `[batch, latent_channels, height, width]`
    pub fn unscale_latents(&self, z: Tensor<4>) -> Tensor<4> {
        let [shift, factor] = self.latent_scaling(&z);
        z / factor + shift
    }

    /// What is subtracted from latents and what they are then multiplied by, each
    /// `[1, latent_channels, 1, 1]`, in the type of the latents.
    fn latent_scaling(&self, latents: &Tensor<4>) -> [Tensor<4>; 2] {
        let (shift, factor) = self.config.latent_scaling();
        [shift, factor].map(|values| {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            let shape = [1, values.len(), 1, 1];
            let data = TensorData::new(values, shape);
            let values = Tensor::from_data(data, &latents.device());
            ops::cast(values, latents.dtype())
        })
    }

    diffusers_methods!(AutoencoderKlConfig);

    /// Tiles of the size that the model was made for, of which a quarter overlaps, as diffusers'
    /// `enable_tiling` chooses them.
    pub fn tiles(&self) -> TileConfig {
        let [height, width] = self.config.sample_size.sides();
        TileConfig::new(height.min(width))
    }

    /// The posterior of large images, tile by tile.
    ///
    /// # Shapes
    /// - images: `[batch, in_channels, height, width]`, in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for tiles out of range;
    /// [`Error::Cancelled`](aigc_core::Error::Cancelled) if `cancel` was cancelled before the last
    /// tile.
    ///
    /// # Panics
    /// If the images do not have `in_channels` channels.
    pub fn encode_tiled(
        &self,
        images: Tensor<4>,
        tiles: &TileConfig,
        cancel: &CancelToken,
    ) -> Result<DiagonalGaussian<4>> {
        let moments = tiles.encode(images, self.factor(), cancel, |x| self.moments(x))?;
        Ok(self.gaussian(moments))
    }

    /// The images of large maps of latents of the encoder, tile by tile.
    ///
    /// # Shapes
    /// - z: `[batch, latent_channels, height, width]`
    /// - output: `[batch, out_channels, factor·height, factor·width]`, in `[0, 1]` and around it
    ///
    /// # Errors
    /// As [`encode_tiled`](Self::encode_tiled).
    ///
    /// # Panics
    /// If the latents do not have `latent_channels` channels.
    pub fn decode_tiled(
        &self,
        z: Tensor<4>,
        tiles: &TileConfig,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        tiles.decode(z, self.factor(), cancel, |z| self.images(z))
    }

    /// Pixels in height and width that a latent stands for.
    fn factor(&self) -> usize {
        1 << (self.config.block_out_channels.len() - 1)
    }

    /// The posterior of images in `[0, 1]`.
    fn posterior(&self, images: Tensor<4>) -> DiagonalGaussian<4> {
        self.gaussian(self.moments(images))
    }

    /// Means and log-variances of images in `[0, 1]`, `[batch, 2·latent_channels, …]`.
    fn moments(&self, images: Tensor<4>) -> Tensor<4> {
        let moments = self.encoder.forward(to_network(images));
        match &self.quant_conv {
            Some(conv) => conv.forward(moments),
            None => moments,
        }
    }

    fn gaussian(&self, moments: Tensor<4>) -> DiagonalGaussian<4> {
        let latent = self.config.latent_channels;
        let [low, high] = LOGVAR_RANGE;
        DiagonalGaussian {
            mean: moments.clone().narrow(1, 0, latent),
            logvar: moments.narrow(1, latent, latent).clamp(low, high),
        }
    }

    /// Images in `[0, 1]` and around it, of latents of the encoder.
    fn images(&self, z: Tensor<4>) -> Tensor<4> {
        let z = match &self.post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        };
        to_images(self.decoder.forward(z))
    }
}

impl Vae<4, 4> for AutoencoderKl {
    type Posterior = DiagonalGaussian<4>;

    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian<4> {
        self.posterior(x)
    }

    fn decode(&self, z: Tensor<4>) -> Likelihood<4> {
        Likelihood::new(self.config.likelihood, self.images(z))
    }

    fn latent_shape(&self) -> SampleShape {
        self.config.latent_shape()
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.sample_shape()
    }

    fn accepts(&self, shape: SampleShape) -> bool {
        self.config.architecture().accepts(shape)
    }
}

impl Autoencoder for AutoencoderKl {
    fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
        let DiagonalGaussian { mean, logvar } = self.posterior(x);
        let [_, factor] = self.latent_scaling(&mean);
        Box::new(DiagonalGaussian {
            mean: self.scale_latents(mean),
            logvar: logvar + factor.log() * 2.0,
        })
    }

    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.images(self.unscale_latents(z)).clamp(0.0, 1.0)
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.sample_shape()
    }

    fn latent_shape(&self) -> SampleShape {
        self.config.latent_shape()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        data::ImageShape,
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::FloatDType};

    fn tiny(config: AutoencoderKlConfig) -> AutoencoderKl {
        let config = AutoencoderKlConfig {
            block_out_channels: vec![4, 8],
            norm_num_groups: 2,
            latent_channels: 2,
            ..config
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn base() -> AutoencoderKlConfig {
        AutoencoderKlConfig::new(ImageShape::new(1, 8, 8))
    }

    fn parameter<const D: usize>(shape: [usize; D], data: Vec<f32>) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(data, shape),
            &Device::flex(),
        ))
    }

    #[test]
    fn log_variance_is_clamped() {
        let mut model = tiny(base());
        let conv = model.quant_conv.as_mut().unwrap();
        conv.weight = parameter([4, 4, 1, 1], vec![0.0; 16]);
        conv.bias = Some(parameter([4], vec![50.0, -0.5, 50.0, -50.0]));
        let posterior = model.posterior(Tensor::ones([1, 1, 8, 8], &Device::flex()));
        let channels = |x: Tensor<4>| values(x.mean_dim(2).mean_dim(3));
        assert_close(&channels(posterior.mean), &[50.0, -0.5], 1e-5);
        assert_close(&channels(posterior.logvar), &[20.0, -30.0], 1e-5);
    }

    /// The decoder's output is in the range of the network; only the first stage of latent
    /// diffusion clamps it.
    #[test]
    fn decoded_images_are_mapped_to_unit_range() {
        let mut model = tiny(base());
        let z: Tensor<4> = Rng::new(1).normal([1, 2, 4, 4], &Device::flex());
        for (output, mean, clamped) in [(0.5, 0.75, 0.75), (3.0, 2.0, 1.0), (-2.0, -0.5, 0.0)] {
            model.decoder.conv_out.weight = parameter([1, 4, 3, 3], vec![0.0; 36]);
            model.decoder.conv_out.bias = Some(parameter([1], vec![output]));
            let decoded = Vae::<4, 4>::decode(&model, z.clone()).mean();
            assert_close(&values(decoded), &[mean; 64], 1e-6);
            let first_stage: &dyn Autoencoder = &model;
            assert_close(&values(first_stage.decode(z.clone())), &[clamped; 64], 1e-6);
        }
    }

    /// `(mean + σ·ε − shift)·scale`, for factors and for statistics of each channel.
    #[test]
    fn first_stage_scales_samples_of_the_posterior() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(3).uniform([2, 1, 8, 8], 0.0, 1.0, &device);
        let factors = AutoencoderKlConfig {
            shift_factor: Some(0.1),
            scaling_factor: 3.0,
            ..base()
        };
        let statistics = AutoencoderKlConfig {
            latents_mean: Some(vec![0.2, -0.3]),
            latents_std: Some(vec![0.5, 2.0]),
            scaling_factor: 3.0,
            ..base()
        };
        for (config, shift, factor) in [
            (factors, [0.1, 0.1], [3.0, 3.0]),
            (statistics, [0.2, -0.3], [6.0, 1.5]),
        ] {
            let model = tiny(config);
            let first_stage: &dyn Autoencoder = &model;
            let z = Vae::<4, 4>::encode(&model, x.clone()).sample(&mut Rng::new(5));
            let scaled = first_stage.encode(x.clone()).sample(&mut Rng::new(5));
            // 16 values in each of two channels.
            let expected = values(z.clone()).into_iter().enumerate().map(|(i, z)| {
                let channel = i / 16 % 2;
                (z - shift[channel]) * factor[channel]
            });
            assert_close(&values(scaled.clone()), &expected.collect::<Vec<_>>(), 1e-4);
            assert_close(&values(model.unscale_latents(scaled)), &values(z), 1e-4);
        }
        let model = tiny(base()).with_latent_scaling(Some(0.1), 3.0).unwrap();
        assert_eq!(model.config().scaling_factor, 3.0);
        let message = model
            .with_latent_scaling(None, 0.0)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`scaling_factor` is 0"), "{message}");
    }

    /// Latents in half precision are computed with in half precision, where the decoder can
    /// overflow; the same latents in 32 bits do not.
    #[test]
    fn half_precision_overflows_and_whole_precision_does_not() {
        let mut model = tiny(AutoencoderKlConfig {
            shift_factor: Some(0.1),
            scaling_factor: 0.5,
            ..base()
        });
        let z: Tensor<4> = Rng::new(1).normal([1, 2, 4, 4], &Device::flex());
        let half = z.clone().cast(FloatDType::F16);
        let decode = |model: &AutoencoderKl, z: &Tensor<4>| {
            let images = Vae::<4, 4>::decode(model, model.unscale_latents(z.clone())).mean();
            assert_eq!(images.dtype(), z.dtype());
            values(images.cast(FloatDType::F32))
        };
        assert_close(&decode(&model, &half), &decode(&model, &z), 0.05);
        let scaled = values(model.scale_latents(half.clone()).cast(FloatDType::F32));
        assert_close(&scaled, &values(model.scale_latents(z.clone())), 0.01);
        let conv = &mut model.decoder.conv_out;
        let weight = conv.weight.val() * 1e6;
        conv.weight = Param::from_tensor(weight);
        assert!(decode(&model, &half).iter().any(|x| !x.is_finite()));
        assert!(decode(&model, &z).iter().all(|x| x.is_finite()));
        let stage: &dyn Autoencoder = &model;
        let images = Rng::new(2).uniform([1, 1, 8, 8], 0.0, 1.0, &Device::flex());
        let images: Tensor<4> = images.cast(FloatDType::F16);
        let latents = stage.encode(images).mode();
        assert_eq!(latents.dtype(), half.dtype());
    }

    /// Tiles change the statistics of the norms; the whole image is one tile if it is not larger.
    #[test]
    fn tiles_cover_images_of_any_size() {
        let (model, cancel) = (tiny(base()), CancelToken::new());
        let x: Tensor<4> = Rng::new(4).uniform([2, 1, 22, 12], 0.0, 1.0, &Device::flex());
        let whole = Vae::<4, 4>::encode(&model, x.clone());
        assert_eq!(model.tiles(), TileConfig::new(8));
        let tiled = model
            .encode_tiled(x.clone(), &model.tiles(), &cancel)
            .unwrap();
        assert_eq!(tiled.mean.dims(), [2, 2, 11, 6]);
        let apart = values((tiled.mean - whole.mean.clone()).abs());
        assert!(apart.iter().any(|x| *x > 0.0));
        let one = TileConfig::new(22);
        let tiled = model.encode_tiled(x, &one, &cancel).unwrap();
        assert_eq!(values(tiled.mean), values(whole.mean.clone()));
        let decoded = Vae::<4, 4>::decode(&model, whole.mean.clone()).mean();
        let tiled = model
            .decode_tiled(whole.mean.clone(), &one, &cancel)
            .unwrap();
        assert_eq!(values(tiled), values(decoded.clone()));
        let tiled = model
            .decode_tiled(whole.mean, &model.tiles(), &cancel)
            .unwrap();
        assert_eq!(tiled.dims(), decoded.dims());
    }
}
