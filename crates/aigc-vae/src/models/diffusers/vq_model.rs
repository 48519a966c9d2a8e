//! `VQModel`: an autoencoder whose latents are the codes of a codebook (van den Oord et al. 2017,
//! <https://arxiv.org/abs/1711.00937>; Rombach et al. 2022, <https://arxiv.org/abs/2112.10752>,
//! section 3.1).

use super::{
    architecture::likelihood_std,
    blocks::{Decoder, Encoder},
    codebook::{BETA, Codebook, QuantizedLatents, uniform_entropy},
    config::VqModelConfig,
    to_images, to_network,
};
use crate::{CodeShape, Condition, DiscreteVae, Likelihood, Vae};
use aigc_core::{
    Result,
    data::SampleShape,
    encoder::{Autoencoder, Deterministic, Posterior},
    nn::{Conv2d, Conv2dConfig, diffusers::diffusers_key},
    rng::Rng,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use std::path::Path;

impl VqModelConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<VqModel> {
        let activation = self.validate()?;
        let architecture = self.architecture();
        let (latent, dim) = (self.latent_channels, self.embed_dim());
        let pointwise = |channels| Conv2dConfig::new(channels, 1).init(device);
        Ok(VqModel {
            encoder: Encoder::new(architecture, activation, latent, device),
            quant_conv: pointwise([latent, dim]),
            quantize: Codebook::new(self.num_vq_embeddings, dim, device),
            post_quant_conv: pointwise([dim, latent]),
            decoder: Decoder::new(architecture, activation, device),
            config: self.clone(),
        })
    }
}

/// A convolutional autoencoder whose latents are maps of codes.
///
/// As a [`Vae`], images are in `[0, 1]`, the posterior is [`QuantizedLatents`], the prior is
/// uniform over the codes, and the [auxiliary losses](Vae::auxiliary_losses) are those of
/// diffusers. As a [`DiscreteVae`], the model works with [`CodePrior`](crate::CodePrior) and
/// [`VqSampler`](crate::VqSampler). As an [`Autoencoder`], that is as the first stage of latent
/// diffusion, latents are the encoder's, not quantised, times `scaling_factor`; decoding quantises
/// them, and clamps images to `[0, 1]`. The model then has to be without autodiff, as opened or
/// trained models are.
///
/// Images of other sizes than `sample_size` can be encoded and decoded; their sides should be
/// divisible by 2 for each block but the last, or rows and columns are lost.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::{DiscreteVae, VqModel};
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let model = VqModel::from_pretrained("ldm-celebahq-256/vqvae", &device)?;
/// let images = Tensor::<4>::full([1, 3, 256, 256], 0.5, &device);
/// let codes = model.encode_codes(images); // one level, [1, 64·64, 1]
/// let images = model.decode_codes(&codes).mean();
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct VqModel {
    encoder: Encoder,
    quant_conv: Conv2d,
    quantize: Codebook,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    #[module(skip)]
    config: VqModelConfig,
}

impl VqModel {
    /// Configuration of the model.
    pub fn config(&self) -> &VqModelConfig {
        &self.config
    }

    /// The model with another `scaling_factor` for latent diffusion, such as one over the standard
    /// deviation of the latents.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) unless it is above 0.
    pub fn with_scaling_factor(mut self, scaling_factor: f64) -> Result<Self> {
        self.config.scaling_factor = scaling_factor;
        self.config.validate()?;
        Ok(self)
    }

    /// The encoder's output, not quantised; the `latents` of diffusers.
    ///
    /// # Shapes
    /// - images: `[batch, in_channels, height, width]`, in `[0, 1]`
    /// - output: `[batch, vq_embed_dim, height / factor, width / factor]`
    ///
    /// # Panics
    /// If the images do not have `in_channels` channels.
    pub fn latents(&self, images: Tensor<4>) -> Tensor<4> {
        self.quant_conv
            .forward(self.encoder.forward(to_network(images)))
    }

    /// The nearest code of each position.
    ///
    /// # Shapes
    /// - latents: `[batch, vq_embed_dim, height, width]`
    ///
    /// # Panics
    /// If the latents do not have `vq_embed_dim` channels.
    pub fn quantize(&self, latents: Tensor<4>) -> QuantizedLatents {
        let indices = self.quantize.nearest(latents.clone());
        let [_, _, height, width] = latents.dims();
        QuantizedLatents {
            quantized: self.quantize.lookup(indices.clone(), [height, width]),
            latents,
            indices,
            num_embeddings: self.config.num_vq_embeddings,
        }
    }

    /// Decodes maps of indices of codes, of any size; [`DiscreteVae::decode_codes`] decodes codes
    /// of images of `sample_size`.
    ///
    /// # Shapes
    /// - indices: `[batch, height, width]`, below `num_vq_embeddings`
    /// - output: a distribution over images `[batch, out_channels, factor·height, factor·width]`
    ///
    /// # Panics
    /// If an index is not below `num_vq_embeddings`.
    pub fn decode_indices(&self, indices: Tensor<3, Int>) -> Likelihood<4> {
        let [batch, height, width] = indices.dims();
        let indices = indices.reshape([batch, height * width, 1]);
        self.likelihood(self.quantize.lookup(indices, [height, width]))
    }

    /// The distribution of images, of codes.
    fn likelihood(&self, codes: Tensor<4>) -> Likelihood<4> {
        Likelihood::new(self.config.likelihood, self.images(codes))
    }

    /// Images in `[0, 1]` and around it, of codes.
    fn images(&self, codes: Tensor<4>) -> Tensor<4> {
        to_images(self.decoder.forward(self.post_quant_conv.forward(codes)))
    }

    diffusers_methods!(VqModelConfig);

    /// Factor that the losses of the codes have beside a log-likelihood in nats. With it, the whole
    /// loss is that of diffusers, the mean squared error of images in `[−1, 1]` plus the loss of
    /// the codes, but for a factor and a constant: `−log p(x|z)` of n values in `[0, 1]` is
    /// `n / (2σ²)` times their mean squared error, which is a quarter of that in `[−1, 1]`.
    fn loss_weight(&self) -> f64 {
        let values = self.config.sample_shape().numel() as f64;
        values / (8.0 * likelihood_std(self.config.likelihood).powi(2))
    }
}

impl Vae<4, 4> for VqModel {
    type Posterior = QuantizedLatents;

    fn encode(&self, x: Tensor<4>) -> QuantizedLatents {
        self.quantize(self.latents(x))
    }

    /// Decodes codes; latents that are no codes are not quantised.
    fn decode(&self, z: Tensor<4>) -> Likelihood<4> {
        self.likelihood(z)
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

    fn has_deterministic_posterior(&self) -> bool {
        true
    }

    fn prior_log_prob(&self, z: Tensor<4>, _condition: &Condition) -> Tensor<1> {
        let [batch, _, height, width] = z.dims();
        let entropy = uniform_entropy(height * width, self.config.num_vq_embeddings);
        Tensor::full([batch], -entropy, &z.device())
    }

    /// The terms of [`QuantizedLatents::loss`], times `n / (8σ²)` for images of n values and a
    /// likelihood with standard deviation σ. The loss of a [`VaeObjective`](crate::VaeObjective) is
    /// then, but for a factor and a constant, the mean squared error of images in `[−1, 1]` plus
    /// that loss.
    fn auxiliary_losses(&self, posterior: &QuantizedLatents) -> Vec<(&'static str, Tensor<1>)> {
        let weight = self.loss_weight();
        vec![
            ("commitment", posterior.commitment_loss() * weight),
            ("codebook", posterior.codebook_loss() * (BETA * weight)),
        ]
    }

    /// The latents of codes that are drawn uniformly, at any temperature.
    fn sample_prior(
        &self,
        n: usize,
        _condition: &Condition,
        _temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<4> {
        let codes = self.config.code_shape();
        let indices = codes.sample_uniform(n, rng, device);
        self.quantize.lookup(indices, [codes.height, codes.width])
    }
}

impl DiscreteVae for VqModel {
    fn input_shape(&self) -> SampleShape {
        self.config.sample_shape()
    }

    fn code_shapes(&self) -> Vec<CodeShape> {
        vec![self.config.code_shape()]
    }

    fn encode_codes(&self, x: Tensor<4>) -> Vec<Tensor<3, Int>> {
        vec![self.quantize.nearest(self.latents(x))]
    }

    fn decode_codes(&self, codes: &[Tensor<3, Int>]) -> Likelihood<4> {
        assert_eq!(codes.len(), 1, "levels of codes of a VqModel");
        let CodeShape { height, width, .. } = self.config.code_shape();
        let codes = self.quantize.lookup(codes[0].clone(), [height, width]);
        self.likelihood(codes)
    }
}

impl Autoencoder for VqModel {
    fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
        Box::new(Deterministic(self.latents(x) * self.config.scaling_factor))
    }

    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        let codes = self.quantize(z / self.config.scaling_factor).quantized;
        self.images(codes).clamp(0.0, 1.0)
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
    use crate::{
        CodePriorConfig, VqSampler,
        compress::{self, CodeCodec, DiscreteCodes, PriorCodes},
    };
    use aigc_core::{
        data::{Image, ImageShape, collate_images, digits},
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::TensorData};

    fn tiny(dim: usize, codes: usize, device: &Device) -> VqModel {
        let config = VqModelConfig {
            block_out_channels: vec![4, 8],
            norm_num_groups: 2,
            vq_embed_dim: Some(dim),
            num_vq_embeddings: codes,
            ..VqModelConfig::new(ImageShape::new(1, 8, 8))
        };
        config.init(device).unwrap().init_weights(1)
    }

    fn codes(model: &mut VqModel, codes: Vec<f32>, device: &Device) {
        let shape = model.quantize.embedding.weight.val().dims();
        let codes = Tensor::from_data(TensorData::new(codes, shape), device);
        model.quantize.embedding.weight = Param::from_tensor(codes);
    }

    fn map(latents: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(latents, shape), device)
    }

    #[test]
    fn nearest_codes_are_found_in_all_dimensions() {
        let device = Device::flex();
        let mut model = tiny(2, 3, &device);
        codes(&mut model, vec![0.0, 0.0, 4.0, 4.0, 4.0, -4.0], &device);
        // Two rows of one column; channels are planes.
        let latents = map(vec![3.0, 1.0, -3.0, 0.5], [1, 2, 2, 1], &device);
        let posterior = model.quantize(latents);
        let indices: Vec<i64> = posterior.indices.clone().into_data().iter().collect();
        assert_eq!(indices, [2, 0]);
        assert_eq!(values(posterior.quantized.clone()), [4.0, 0.0, -4.0, 0.0]);
        let decoded = model.decode_indices(posterior.indices.reshape([1, 2, 1]));
        let decoded = decoded.mean();
        let expected = Vae::<4, 4>::decode(&model, posterior.quantized).mean();
        assert_eq!(values(decoded), values(expected));
    }

    /// By hand: of the codes −1, 1, 3, the latents 0.2 and 2.5 have the second and the third.
    #[test]
    fn losses_and_gradients_are_those_of_diffusers() {
        let device = Device::flex().autodiff();
        let mut model = tiny(1, 3, &device);
        codes(&mut model, vec![-1.0, 1.0, 3.0], &device);
        let latents = map(vec![0.2, 2.5], [1, 1, 1, 2], &device).require_grad();
        let posterior = model.quantize(latents.clone());
        assert_close(&values(posterior.loss().inner()), &[1.25 * 0.445], 1e-6);
        let gradients = |loss: Tensor<1>| {
            let gradients = loss.backward();
            let codes = model.quantize.embedding.weight.val();
            [
                latents.grad(&gradients).map(values),
                codes.grad(&gradients).map(values),
            ]
        };
        let [encoder, codebook] = gradients(posterior.loss());
        assert_close(&encoder.unwrap(), &[-0.8, -0.5], 1e-6);
        assert_close(&codebook.unwrap(), &[0.0, 0.25 * 0.8, 0.25 * 0.5], 1e-6);
        // The straight-through estimator: the gradient of the codes is the encoder's.
        let weight = map(vec![2.0, -3.0], [1, 1, 1, 2], &device);
        let z = posterior.sample(&mut Rng::new(0));
        assert_close(&values(z.clone().inner()), &[1.0, 3.0], 1e-6);
        let [encoder, codebook] = gradients((z * weight).sum());
        assert_close(&encoder.unwrap(), &[2.0, -3.0], 1e-6);
        assert!(codebook.is_none_or(|values| values == [0.0; 3]));
    }

    /// The codes are those of the posterior; a prior, samples and files work with them.
    #[test]
    fn codes_have_priors_samples_and_files() {
        let device = Device::flex();
        let model = tiny(2, 7, &device);
        let images: Vec<Image> = digits::load().0.into_iter().take(3).collect();
        let x = collate_images(images.clone()).to_tensor(&device);
        let codes = model.encode_codes(x.clone());
        assert_eq!(codes[0].dims(), [3, 16, 1]);
        let posterior = Vae::<4, 4>::encode(&model, x);
        let indices = |codes: Tensor<3, Int>| codes.into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(indices(codes[0].clone()), indices(posterior.indices));
        let decoded = model.decode_codes(&codes).mean();
        let expected = Vae::<4, 4>::decode(&model, posterior.quantized).mean();
        assert_eq!(values(decoded), values(expected));

        let prior = CodePriorConfig {
            d_model: 8,
            n_layer: 1,
            n_head: 2,
            ..CodePriorConfig::new(model.code_shapes()[0])
        };
        let prior = prior.init(&device).unwrap().init_weights(2);
        let sampler = VqSampler::new(&model, &[&prior], &device).unwrap();
        assert_eq!(sampler.sample(2, 3).unwrap().values.dims(), [2, 1, 8, 8]);

        let codes = DiscreteCodes::new(&model).unwrap();
        let codes = codes.with_prior(PriorCodes::new(&[&prior]).unwrap());
        let codec = CodeCodec::lossless(codes.unwrap(), &device);
        let file = compress::encode(&codec, &images).unwrap();
        let restored = compress::decode(&codec, &file).unwrap();
        assert_eq!(restored.len(), 3);
        let mut pairs = restored.iter().zip(&images);
        assert!(pairs.all(|(restored, image)| restored.pixels == image.pixels));
    }

    #[test]
    fn prior_is_uniform_over_codes() {
        let device = Device::flex();
        let model = tiny(2, 5, &device);
        let none = Condition::none();
        let z: Tensor<4> = model.sample_prior(40, &none, 1.0, &mut Rng::new(2), &device);
        assert_eq!(z.dims(), [40, 2, 4, 4]);
        // All samples are codes, and all codes occur as often: 640 draws of 5 codes, χ² with 4
        // degrees of freedom, whose 99.9 % point is 18.5.
        let posterior = model.quantize(z.clone());
        assert_close(
            &values(posterior.quantized.clone()),
            &values(z.clone()),
            0.0,
        );
        let mut counts = [0.0f64; 5];
        for index in posterior.indices.clone().into_data().iter::<i64>() {
            counts[index as usize] += 1.0;
        }
        let chi2: f64 = counts.iter().map(|n| (n - 128.0).powi(2) / 128.0).sum();
        assert!(chi2 < 18.5, "{counts:?}");
        let nats = (16.0 * 5f64.ln()) as f32;
        assert_close(&values(posterior.kl()), &[nats; 40], 1e-5);
        assert_close(&values(model.prior_log_prob(z, &none)), &[-nats; 40], 1e-5);
    }

    /// Latent diffusion works on latents that are not quantised; decoding quantises them.
    #[test]
    fn first_stage_scales_latents_and_quantises_them_again() {
        let device = Device::flex();
        let model = tiny(2, 7, &device).with_scaling_factor(4.0).unwrap();
        let x: Tensor<4> = Rng::new(3).uniform([2, 1, 8, 8], 0.0, 1.0, &device);
        let first_stage: &dyn Autoencoder = &model;
        let z = first_stage.encode(x.clone()).mode();
        assert_close(
            &values(z.clone()),
            &values(model.latents(x.clone()) * 4.0),
            1e-6,
        );
        let codes = Vae::<4, 4>::encode(&model, x).quantized;
        let expected = Vae::<4, 4>::decode(&model, codes).mean().clamp(0.0, 1.0);
        assert_close(&values(first_stage.decode(z)), &values(expected), 1e-6);
    }
}
