//! A VAE of images with quantised latent maps (VQ-VAE, van den Oord et al. 2017,
//! <https://arxiv.org/abs/1711.00937>).

use super::{
    DiscreteVae,
    checks::{check_divides, check_image, check_residual, check_stack, check_weights},
    code_shape,
    layers::{ConvDecoder, ConvEncoder, Stack},
    pass,
};
use crate::{
    AnyQuantizer, CodeShape, Condition, Likelihood, LikelihoodKind, Quantized, Quantizer,
    QuantizerConfig, Vae, VaeOutput, VectorQuantizerConfig,
    quantizer::{flatten_positions, unflatten_positions},
};
use aigc_core::{
    Result,
    data::{ImageShape, SampleShape},
    nn::{Activation, Conv2d, Conv2dConfig},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`VqVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VqVaeConfig {
    /// Shape of an image.
    pub shape: ImageShape,
    /// Strides of the encoder's convolutions; their product must divide the sides of the image.
    pub strides: Vec<usize>,
    /// Channels after each of these convolutions; the decoder has them in reverse.
    pub channels: Vec<usize>,
    /// Number of residual blocks of the encoder, and of the decoder, on the smallest maps.
    pub residual_blocks: usize,
    /// Channels between the two convolutions of a residual block.
    pub residual_channels: usize,
    /// The quantiser of the latent map.
    pub quantizer: QuantizerConfig,
    /// Type of the distribution that the decoder outputs.
    pub likelihood: LikelihoodKind,
    /// Activation before the convolutions.
    pub activation: Activation,
}

impl VqVaeConfig {
    /// Two halvings to 64 and 128 channels, two residual blocks of 32 channels, 256 codes of 64
    /// dimensions, Bernoulli pixels, ReLU.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            strides: vec![2, 2],
            channels: vec![64, 128],
            residual_blocks: 2,
            residual_channels: 32,
            quantizer: VectorQuantizerConfig::new(256, 64).into(),
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Relu,
        }
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check_image(self.shape, self.likelihood)?;
        check_stack("strides", &self.strides, &self.channels, self.shape)?;
        check_residual(self.residual_blocks, self.residual_channels)?;
        check_divides("strides", &self.strides, self.shape)?;
        self.quantizer.validate()?;
        let (dim, shape) = (self.quantizer.dim(), self.shape);
        let stack = self.stack();
        check_weights(
            stack.encoder_weights(shape.channels)
                + stack.decoder_weights(dim, self.likelihood.outputs(shape.channels)),
            &self.channels,
        )
    }

    fn stack(&self) -> Stack<'_> {
        Stack {
            strides: &self.strides,
            channels: &self.channels,
            residual_blocks: self.residual_blocks,
            residual_channels: self.residual_channels,
            activation: self.activation,
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<VqVae> {
        self.validate()?;
        let stack = self.stack();
        let width = stack.width();
        let quantizer = self.quantizer.init(device)?;
        let codes = code_shape(&quantizer, self.shape, self.strides.iter().product());
        let (dim, outputs) = (
            quantizer.dim(),
            self.likelihood.outputs(self.shape.channels),
        );
        Ok(VqVae {
            encoder: stack.encoder(self.shape.channels, device),
            project: Conv2dConfig::new([width, dim], 1).init(device),
            quantizer,
            decoder: stack.decoder(dim, outputs, device),
            codes,
            config: self.clone(),
        })
    }
}

/// A VAE of residual convolutions whose latents are quantised.
///
/// The posterior has no uncertainty, and the prior is uniform over the codes until a prior over
/// codes is trained ([`CodePrior`](crate::CodePrior)), so that the divergence is constant.
#[derive(Module, Debug)]
pub struct VqVae {
    encoder: ConvEncoder,
    /// Projection to the dimensions of the codes.
    project: Conv2d,
    /// The quantiser of the latent map.
    pub quantizer: AnyQuantizer,
    decoder: ConvDecoder,
    #[module(skip)]
    codes: CodeShape,
    #[module(skip)]
    config: VqVaeConfig,
}

impl VqVae {
    /// Configuration of the model.
    pub fn config(&self) -> &VqVaeConfig {
        &self.config
    }

    aigc_core::pretrained_methods!(VqVaeConfig, config: Self::config);

    fn posterior(&self, x: Tensor<4>, rng: Option<&mut Rng>) -> Quantized {
        let latents = self.project.forward(self.encoder.forward(x));
        let (values, output) = self.quantizer.quantize_map(latents, rng);
        Quantized::new(values, vec![output], self.codes.max_entropy())
    }

    /// The latent map of codes, `[batch, dim, height, width]`.
    fn latents(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        let values = self.quantizer.decode_codes(codes);
        let dims = self.latent_shape().batched(values.dims()[0]);
        unflatten_positions(values, dims)
    }
}

impl Vae<4, 4> for VqVae {
    type Posterior = Quantized;

    fn encode(&self, x: Tensor<4>) -> Quantized {
        self.posterior(x, None)
    }

    fn decode(&self, z: Tensor<4>) -> Likelihood {
        Likelihood::new(self.config.likelihood, self.decoder.forward(z))
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[self.quantizer.dim(), self.codes.height, self.codes.width])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn has_deterministic_posterior(&self) -> bool {
        true
    }

    /// The quantiser draws from `rng`.
    fn forward(
        &self,
        x: Tensor<4>,
        _condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<Quantized, 4, 4> {
        pass(self, self.posterior(x, Some(rng)))
    }

    /// The logarithm of the probability of uniform codes. The latents must be those of codes.
    fn prior_log_prob(&self, z: Tensor<4>, _condition: &Condition) -> Tensor<1> {
        Tensor::full([z.dims()[0]], -self.codes.max_entropy(), &z.device())
    }

    fn auxiliary_losses(&self, posterior: &Quantized) -> Vec<(&'static str, Tensor<1>)> {
        posterior.losses()
    }

    fn codebook_posterior(&self, posterior: Quantized) -> Option<Quantized> {
        // A quantiser without parameters has nothing to update.
        (self.quantizer.num_params() > 0).then(|| posterior.for_update())
    }

    fn update_codebook(mut self, posteriors: &[Quantized]) -> Self {
        let outputs: Vec<_> = posteriors
            .iter()
            .map(|posterior| posterior.levels[0].clone())
            .collect();
        self.quantizer = self.quantizer.update(&outputs);
        self
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
        self.latents(self.codes.sample_uniform(n, rng, device))
    }
}

impl DiscreteVae for VqVae {
    fn input_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn code_shapes(&self) -> Vec<CodeShape> {
        vec![self.codes]
    }

    fn encode_codes(&self, x: Tensor<4>) -> Vec<Tensor<3, Int>> {
        let latents = self.project.forward(self.encoder.forward(x));
        vec![self.quantizer.quantize(flatten_positions(latents)).codes]
    }

    fn decode_codes(&self, codes: &[Tensor<3, Int>]) -> Likelihood {
        assert_eq!(codes.len(), 1, "levels of codes of a VQ-VAE");
        self.decode(self.latents(codes[0].clone()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        FiniteScalarQuantizerConfig, KlWeight, LookupFreeQuantizerConfig, ResidualQuantizerConfig,
        VaeObjective,
    };
    use aigc_core::{
        data::{DataLoader, DataLoaderConfig, Image, ImageBatch, InMemory, collate_images},
        encoder::Posterior,
        rng::InitWeights,
        testing::{assert_close, temp_run, values},
        train::{StartFrom, Trainer, TrainerConfig},
    };

    fn tiny(quantizer: impl Into<QuantizerConfig>) -> VqVaeConfig {
        VqVaeConfig {
            strides: vec![2],
            channels: vec![16],
            residual_blocks: 1,
            residual_channels: 8,
            quantizer: quantizer.into(),
            ..VqVaeConfig::new(ImageShape::new(1, 4, 4))
        }
    }

    fn table(num_codes: usize) -> VectorQuantizerConfig {
        VectorQuantizerConfig {
            revive_below: 0.1,
            decay: 0.9,
            ..VectorQuantizerConfig::new(num_codes, 4)
        }
    }

    /// Images with a white left half or a white upper half.
    fn patterns(count: usize) -> Vec<Image> {
        let white = |index: usize, at: usize| match index % 2 {
            0 => at % 4 < 2,
            _ => at < 8,
        };
        let image = |index| Image {
            shape: ImageShape::new(1, 4, 4),
            pixels: (0..16)
                .map(|at| if white(index, at) { 255 } else { 0 })
                .collect(),
            label: Some(index as u32 % 2),
        };
        (0..count).map(image).collect()
    }

    fn loader() -> DataLoader<ImageBatch> {
        let config = DataLoaderConfig {
            batch_size: 16,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        DataLoader::new(InMemory(patterns(32)), collate_images, config).unwrap()
    }

    fn trainer<'a>(steps: usize) -> Trainer<'a, VqVae> {
        Trainer::new(TrainerConfig {
            learning_rate: 1e-2,
            ..TrainerConfig::new(steps)
        })
    }

    fn objective() -> VaeObjective<VqVae, ImageBatch, 4, 4> {
        VaeObjective::new(KlWeight::default()).unwrap()
    }

    #[test]
    fn two_patterns_are_learned_exactly() {
        let device = Device::flex();
        let images = collate_images(patterns(2)).to_tensor(&device);
        let quantizers: [QuantizerConfig; 3] = [
            table(8).into(),
            FiniteScalarQuantizerConfig::new(&[5, 5]).into(),
            LookupFreeQuantizerConfig::new(4).into(),
        ];
        for quantizer in quantizers {
            let model = tiny(quantizer.clone()).init(&device).unwrap();
            let run = temp_run().unwrap();
            let trained = trainer(250)
                .fit(objective(), model, &loader(), &run)
                .unwrap()
                .model;
            let codes = trained.encode_codes(images.clone());
            let shape = trained.code_shapes()[0];
            assert_eq!(codes[0].dims(), [2, 4, 1]);
            let likelihood = trained.decode_codes(&codes);
            assert_eq!(
                values(likelihood.mode()),
                values(images.clone()),
                "{quantizer:?}"
            );
            // Nearly certain, and as precise from the codes as from the latents.
            let log_prob = values(likelihood.log_prob(images.clone()));
            assert!(
                log_prob.iter().all(|nats| *nats > -2.0),
                "{quantizer:?}: {log_prob:?}"
            );
            let posterior = trained.encode(images.clone());
            let direct = trained.decode(posterior.mode()).log_prob(images.clone());
            assert_close(&values(direct), &log_prob, 1e-4);
            let nats = 4.0 * (shape.num_codes as f32).ln();
            assert_close(&values(posterior.kl()), &[nats; 2], 1e-4);
        }
    }

    /// A resumed run ends with the weights and codes of an uninterrupted one, bit for bit.
    #[test]
    fn resumed_runs_continue_exactly() {
        let device = Device::flex();
        let quantizer = ResidualQuantizerConfig {
            dropout: 0.5,
            ..ResidualQuantizerConfig::new(2, table(4))
        };
        let model = || tiny(quantizer.clone()).init(&device).unwrap();
        let (whole, parts) = (temp_run().unwrap(), temp_run().unwrap());
        let expected = trainer(8).fit(objective(), model(), &loader(), &whole);
        trainer(5)
            .fit(objective(), model(), &loader(), &parts)
            .unwrap();
        let resumed =
            trainer(8)
                .with_start(StartFrom::Resume)
                .fit(objective(), model(), &loader(), &parts);
        let [expected, resumed] = [expected, resumed].map(|output| output.unwrap().model);
        let x = collate_images(patterns(2)).to_tensor(&device);
        let of = |model: &VqVae| {
            let posterior = model.encode(x.clone());
            let mean = model.decode(posterior.values.clone()).mean();
            (values(posterior.values), values(mean))
        };
        assert_eq!(of(&expected), of(&resumed));
    }

    /// The gradient of the latents reaches the encoder unchanged, and the losses have gradients.
    #[test]
    fn gradients_reach_the_encoder() {
        let device = Device::flex().autodiff();
        let model = tiny(table(4)).init(&device).unwrap().init_weights(1);
        let x = collate_images(patterns(2)).to_tensor(&device);
        let posterior = model.encode(x.clone());
        let grads = model
            .decode(posterior.values.clone())
            .log_prob(x)
            .sum()
            .backward();
        let gradient = model.encoder.conv.weight.val().grad(&grads).unwrap();
        assert!(values(gradient).iter().any(|g| g.abs() > 1e-8));
        let names: Vec<_> = posterior
            .losses()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["commitment"]);
    }

    /// Inputs and codes are enough for the update of a table; quantisers without parameters are
    /// not updated.
    #[test]
    fn only_what_the_update_needs_is_kept() {
        let device = Device::flex().autodiff();
        let x = collate_images(patterns(2)).to_tensor(&device);
        let model = tiny(table(4)).init(&device).unwrap().init_weights(1);
        let whole = model.encode(x.clone());
        let kept = model.codebook_posterior(whole.clone()).unwrap();
        let level = &kept.levels[0];
        assert!(!kept.values.is_autodiff() && !level.inputs.is_autodiff());
        assert!(kept.losses().is_empty());
        assert_eq!(kept.values.dims(), [1; 4]);
        assert_eq!(level.values.dims(), [1; 3]);
        let [a, b] = [kept, whole].map(|posterior| {
            let updated = model.clone().update_codebook(&[posterior]);
            values(updated.encode(x.clone()).values)
        });
        assert_eq!(a, b);

        let fixed = tiny(FiniteScalarQuantizerConfig::new(&[5, 5]));
        let fixed = fixed.init(&device).unwrap().init_weights(1);
        let posterior = fixed.encode(x);
        assert!(fixed.codebook_posterior(posterior).is_none());
    }

    /// Codes that are drawn uniformly give latents of the codebook.
    #[test]
    fn prior_draws_codes() {
        let device = Device::flex();
        let model = tiny(FiniteScalarQuantizerConfig::new(&[3, 3]))
            .init(&device)
            .unwrap()
            .init_weights(1);
        let z = model.sample_prior(50, &Condition::none(), 1.0, &mut Rng::new(2), &device);
        assert_eq!(z.dims(), [50, 2, 2, 2]);
        let drawn = values(z.clone());
        for level in [-1.0, 0.0, 1.0] {
            assert!(drawn.contains(&level));
        }
        assert!(drawn.iter().all(|v| [-1.0, 0.0, 1.0].contains(v)));
        let log_prob = values(model.prior_log_prob(z, &Condition::none()));
        assert_close(&log_prob, &[-4.0 * 9f32.ln(); 50], 1e-4);
    }

    /// Any stride divides the sides exactly, and the decoder restores them.
    #[test]
    fn strides_divide_and_multiply_the_sides() {
        let device = Device::flex();
        for (strides, side) in [
            (vec![1], 5),
            (vec![3], 9),
            (vec![2, 3], 12),
            (vec![4], 8),
            (vec![5, 2], 10),
        ] {
            let factor: usize = strides.iter().product();
            let config = VqVaeConfig {
                channels: vec![4; strides.len()],
                strides: strides.clone(),
                likelihood: LikelihoodKind::LearnedGaussian,
                ..tiny(table(4))
            };
            let config = VqVaeConfig {
                shape: ImageShape::new(3, side, side),
                ..config
            };
            let model = config.init(&device).unwrap().init_weights(1);
            let x = Tensor::<4>::ones([2, 3, side, side], &device);
            let z = model.encode(x.clone()).values;
            assert_eq!(
                z.dims(),
                [2, 4, side / factor, side / factor],
                "{strides:?}"
            );
            let log_prob = model.decode(z).log_prob(x);
            assert!(values(log_prob).iter().all(|nats| nats.is_finite()));
        }
    }

    #[test]
    fn pretrained_models_open_with_their_codes() {
        let device = Device::flex();
        let model = tiny(table(4)).init(&device).unwrap().init_weights(3);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let loaded = VqVae::from_pretrained(dir.path(), &device).unwrap();
        assert!(loaded.warnings().is_empty(), "{loaded}");
        let file = |name: &str| dir.path().join(name);
        std::fs::rename(file("model.safetensors"), file("model.fp16.safetensors")).unwrap();
        let fp16 = VqVae::from_pretrained_with_variant(dir.path(), "fp16", &device).unwrap();
        assert_eq!(loaded.config(), model.config());
        let x = collate_images(patterns(2)).to_tensor(&device);
        let [a, b, c] = [&model, &*loaded, &*fp16].map(|model| model.encode(x.clone()).values);
        let (a, b, c) = (values(a), values(b), values(c));
        assert_eq!((&a, &a), (&b, &c));
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = tiny(table(4));
        for (config, expected) in [
            (
                VqVaeConfig {
                    strides: vec![3],
                    ..good.clone()
                },
                "`shape.height` is 4, expected a multiple of 3, the product of `strides`",
            ),
            (
                VqVaeConfig {
                    strides: vec![],
                    ..good.clone()
                },
                "`strides` is [], expected 1 to 8 numbers from 1 to 16",
            ),
            (
                VqVaeConfig {
                    channels: vec![4, 4],
                    ..good.clone()
                },
                "`channels` is [4, 4], expected a number from 1 to 4096 for each of 1 strides",
            ),
            (
                VqVaeConfig {
                    residual_channels: 0,
                    ..good.clone()
                },
                "`residual_channels` is 0",
            ),
            (
                VqVaeConfig {
                    quantizer: VectorQuantizerConfig::new(0, 4).into(),
                    ..good.clone()
                },
                "`num_codes` is 0",
            ),
            (
                VqVaeConfig {
                    likelihood: LikelihoodKind::Gaussian(0.0),
                    ..good.clone()
                },
                "`likelihood.gaussian` is 0",
            ),
            (
                VqVaeConfig {
                    shape: ImageShape::new(1, 1 << 14, 1 << 14),
                    ..good
                },
                "`channels` is [16], expected at most 8",
            ),
            (
                VqVaeConfig {
                    shape: ImageShape::new(1, 16, 16),
                    strides: vec![1, 16],
                    channels: vec![4096, 4096],
                    ..tiny(table(4))
                },
                "fewer or smaller layers",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
