//! A VAE of images with two levels of quantised latent maps (VQ-VAE-2, Razavi et al. 2019,
//! <https://arxiv.org/abs/1906.00446>).

use super::{
    DiscreteVae,
    checks::{check_divides, check_image, check_residual, check_stack, check_weights},
    code_shape,
    layers::{ConvDecoder, ConvEncoder, Stack},
    pass,
};
use crate::{
    AnyQuantizer, CodeShape, Condition, Likelihood, LikelihoodKind, Quantized, Quantizer,
    QuantizerConfig, QuantizerOutput, Vae, VaeOutput, VectorQuantizerConfig,
    quantizer::unflatten_positions,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    nn::{Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`VqVae2`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VqVae2Config {
    /// Shape of an image.
    pub shape: ImageShape,
    /// Strides from the image to the bottom map; the product of all strides must divide the sides
    /// of the image.
    pub bottom_strides: Vec<usize>,
    /// Strides from the bottom map to the top map.
    pub top_strides: Vec<usize>,
    /// Channels of all feature maps.
    pub channels: usize,
    /// Number of residual blocks of each encoder and decoder.
    pub residual_blocks: usize,
    /// Channels between the two convolutions of a residual block.
    pub residual_channels: usize,
    /// The quantiser of the top map.
    pub top: QuantizerConfig,
    /// The quantiser of the bottom map.
    pub bottom: QuantizerConfig,
    /// Type of the distribution that the decoder outputs.
    pub likelihood: LikelihoodKind,
    /// Activation before the convolutions.
    pub activation: Activation,
}

impl VqVae2Config {
    /// A bottom map of half the sides and a top map of a quarter, 128 channels, two residual blocks
    /// of 32 channels, 256 codes of 64 dimensions on each map, Bernoulli pixels, ReLU.
    pub fn new(shape: ImageShape) -> Self {
        let quantizer = QuantizerConfig::from(VectorQuantizerConfig::new(256, 64));
        Self {
            shape,
            bottom_strides: vec![2],
            top_strides: vec![2],
            channels: 128,
            residual_blocks: 2,
            residual_channels: 32,
            top: quantizer.clone(),
            bottom: quantizer,
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
        check::in_range("channels", self.channels, 1..=4096)?;
        let [top_channels, bottom_channels] = self.stack_channels();
        let (top, bottom) = (&self.top_strides, &self.bottom_strides);
        check_stack("bottom_strides", bottom, &bottom_channels, self.shape)?;
        check_stack("top_strides", top, &top_channels, self.shape)?;
        check_residual(self.residual_blocks, self.residual_channels)?;
        check_divides("bottom_strides", &self.bottom_strides, self.shape)?;
        let strides = [&self.bottom_strides[..], &self.top_strides[..]].concat();
        check_divides("bottom_strides` and `top_strides", &strides, self.shape)?;
        let factor: usize = self.top_strides.iter().product();
        let expected = "a product of at least 2; the top map is smaller than the bottom map";
        ensure(factor >= 2, "top_strides", factor, expected)?;
        self.top.validate()?;
        self.bottom.validate()?;
        let top_stack = self.stack(&self.top_strides, &top_channels);
        let bottom_stack = self.stack(&self.bottom_strides, &bottom_channels);
        let (images, top_dim, bottom_dim) =
            (self.shape.channels, self.top.dim(), self.bottom.dim());
        let outputs = self.likelihood.outputs(images);
        check_weights(
            bottom_stack.encoder_weights(images)
                + bottom_stack.decoder_weights(top_dim + bottom_dim, outputs)
                + top_stack.encoder_weights(self.channels)
                + top_stack.decoder_weights(top_dim, self.channels)
                + (top_dim * factor) as u128 * (top_dim * factor) as u128,
            &[self.channels],
        )
    }

    /// Channels after each stride of the top and the bottom maps.
    fn stack_channels(&self) -> [Vec<usize>; 2] {
        [&self.top_strides, &self.bottom_strides].map(|strides| vec![self.channels; strides.len()])
    }

    fn stack<'a>(&self, strides: &'a [usize], channels: &'a [usize]) -> Stack<'a> {
        Stack {
            strides,
            channels,
            residual_blocks: self.residual_blocks,
            residual_channels: self.residual_channels,
            activation: self.activation,
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<VqVae2> {
        self.validate()?;
        let width = self.channels;
        let [top_channels, bottom_channels] = self.stack_channels();
        let top_stack = self.stack(&self.top_strides, &top_channels);
        let bottom_stack = self.stack(&self.bottom_strides, &bottom_channels);
        let (top, bottom) = (self.top.init(device)?, self.bottom.init(device)?);
        let bottom_factor: usize = self.bottom_strides.iter().product();
        let top_factor: usize = self.top_strides.iter().product();
        let codes = [
            code_shape(&top, self.shape, bottom_factor * top_factor),
            code_shape(&bottom, self.shape, bottom_factor),
        ];
        let (top_dim, bottom_dim) = (top.dim(), bottom.dim());
        let outputs = self.likelihood.outputs(self.shape.channels);
        Ok(VqVae2 {
            bottom_encoder: bottom_stack.encoder(self.shape.channels, device),
            top_encoder: top_stack.encoder(width, device),
            top_project: Conv2dConfig::new([width, top_dim], 1).init(device),
            top,
            top_decoder: top_stack.decoder(top_dim, width, device),
            bottom_project: Conv2dConfig::new([2 * width, bottom_dim], 1).init(device),
            bottom,
            // Each value of the top map becomes a block of the bottom map's size.
            upsample: ConvTranspose2dConfig::new([top_dim, top_dim], top_factor)
                .with_stride(top_factor)
                .init(device),
            decoder: bottom_stack.decoder(top_dim + bottom_dim, outputs, device),
            codes,
            config: self.clone(),
        })
    }
}

/// A VAE with two levels of quantised latent maps: the top map holds the global content, the bottom
/// map, whose encoder sees the codes of the top map, the details.
///
/// The latents of both maps are one vector, the top map before the bottom map.
#[derive(Module, Debug)]
pub struct VqVae2 {
    bottom_encoder: ConvEncoder,
    top_encoder: ConvEncoder,
    top_project: Conv2d,
    /// The quantiser of the top map.
    pub top: AnyQuantizer,
    /// From the top codes to the features that the bottom map's projection sees.
    top_decoder: ConvDecoder,
    bottom_project: Conv2d,
    /// The quantiser of the bottom map.
    pub bottom: AnyQuantizer,
    /// From the top codes to the size of the bottom map.
    upsample: ConvTranspose2d,
    decoder: ConvDecoder,
    /// Codes of the top and the bottom map.
    #[module(skip)]
    codes: [CodeShape; 2],
    #[module(skip)]
    config: VqVae2Config,
}

impl VqVae2 {
    /// Configuration of the model.
    pub fn config(&self) -> &VqVae2Config {
        &self.config
    }

    aigc_core::pretrained_methods!(VqVae2Config, config: Self::config);

    fn max_entropy(&self) -> f64 {
        self.codes.iter().map(CodeShape::max_entropy).sum()
    }

    /// Shape of a batch of top and of bottom maps.
    fn map_dims(&self, batch: usize) -> [[usize; 4]; 2] {
        let dims = [self.top.dim(), self.bottom.dim()];
        [0, 1].map(|level| {
            let CodeShape { height, width, .. } = self.codes[level];
            [batch, dims[level], height, width]
        })
    }

    /// Quantises both maps: the values as maps, and the outputs of the quantisers, top first.
    fn quantize(
        &self,
        x: Tensor<4>,
        mut rng: Option<&mut Rng>,
    ) -> ([Tensor<4>; 2], Vec<QuantizerOutput>) {
        let features = self.bottom_encoder.forward(x);
        let top = self.top_encoder.forward(features.clone());
        let top = self.top_project.forward(top);
        let (top, top_output) = self.top.quantize_map(top, rng.as_deref_mut());
        let seen = Tensor::cat(vec![self.top_decoder.forward(top.clone()), features], 1);
        let bottom = self.bottom_project.forward(seen);
        let (bottom, bottom_output) = self.bottom.quantize_map(bottom, rng);
        ([top, bottom], vec![top_output, bottom_output])
    }

    fn posterior(&self, x: Tensor<4>, rng: Option<&mut Rng>) -> Quantized<2> {
        let (maps, levels) = self.quantize(x, rng);
        Quantized::new(join(maps), levels, self.max_entropy())
    }

    /// The latents of codes, `[batch, latent_dim]`.
    fn latents(&self, codes: [Tensor<3, Int>; 2]) -> Tensor<2> {
        let [top, bottom] = codes;
        let [top_dims, bottom_dims] = self.map_dims(top.dims()[0]);
        join([
            unflatten_positions(self.top.decode_codes(top), top_dims),
            unflatten_positions(self.bottom.decode_codes(bottom), bottom_dims),
        ])
    }
}

/// Two maps as one vector per sample.
fn join(maps: [Tensor<4>; 2]) -> Tensor<2> {
    Tensor::cat(maps.map(|map| map.flatten::<2>(1, 3)).into(), 1)
}

impl Vae<4, 2> for VqVae2 {
    type Posterior = Quantized<2>;

    fn encode(&self, x: Tensor<4>) -> Quantized<2> {
        self.posterior(x, None)
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        let [top_dims, bottom_dims] = self.map_dims(z.dims()[0]);
        let [top_len, bottom_len] =
            [top_dims, bottom_dims].map(|dims| dims[1..].iter().product::<usize>());
        let top = z.clone().narrow(1, 0, top_len).reshape(top_dims);
        let bottom = z.narrow(1, top_len, bottom_len).reshape(bottom_dims);
        let both = Tensor::cat(vec![self.upsample.forward(top), bottom], 1);
        Likelihood::new(self.config.likelihood, self.decoder.forward(both))
    }

    fn latent_shape(&self) -> SampleShape {
        let maps = self.map_dims(1);
        let lengths = maps.map(|dims| dims.iter().product::<usize>());
        SampleShape::new(&[lengths[0] + lengths[1]])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn has_deterministic_posterior(&self) -> bool {
        true
    }

    /// The quantisers draw from `rng`.
    fn forward(
        &self,
        x: Tensor<4>,
        _condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<Quantized<2>, 4, 2> {
        pass(self, self.posterior(x, Some(rng)))
    }

    /// The logarithm of the probability of uniform codes. The latents must be those of codes.
    fn prior_log_prob(&self, z: Tensor<2>, _condition: &Condition) -> Tensor<1> {
        Tensor::full([z.dims()[0]], -self.max_entropy(), &z.device())
    }

    fn auxiliary_losses(&self, posterior: &Quantized<2>) -> Vec<(&'static str, Tensor<1>)> {
        posterior.losses()
    }

    fn codebook_posterior(&self, posterior: Quantized<2>) -> Option<Quantized<2>> {
        // A quantiser without parameters has nothing to update.
        let is_updated = self.top.num_params() + self.bottom.num_params() > 0;
        is_updated.then(|| posterior.for_update())
    }

    fn update_codebook(mut self, posteriors: &[Quantized<2>]) -> Self {
        let outputs = |level: usize| -> Vec<QuantizerOutput> {
            let posteriors = posteriors.iter();
            posteriors.map(|p| p.levels[level].clone()).collect()
        };
        self.top = self.top.update(&outputs(0));
        self.bottom = self.bottom.update(&outputs(1));
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
    ) -> Tensor<2> {
        let codes = self.codes.map(|codes| codes.sample_uniform(n, rng, device));
        self.latents(codes)
    }
}

impl DiscreteVae for VqVae2 {
    fn input_shape(&self) -> SampleShape {
        self.config.shape.into()
    }

    fn code_shapes(&self) -> Vec<CodeShape> {
        self.codes.to_vec()
    }

    fn encode_codes(&self, x: Tensor<4>) -> Vec<Tensor<3, Int>> {
        let (_, levels) = self.quantize(x, None);
        levels.into_iter().map(|level| level.codes).collect()
    }

    fn decode_codes(&self, codes: &[Tensor<3, Int>]) -> Likelihood {
        let [top, bottom] = codes else {
            panic!("{} levels of codes of a VQ-VAE-2, which has 2", codes.len());
        };
        self.decode(self.latents([top.clone(), bottom.clone()]))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{FiniteScalarQuantizerConfig, KlWeight, VaeObjective};
    use aigc_core::{
        data::{DataLoader, DataLoaderConfig, Image, ImageBatch, InMemory, collate_images},
        encoder::Posterior,
        rng::InitWeights,
        testing::{assert_close, temp_run, values},
        train::{Event, Trainer, TrainerConfig},
    };

    fn tiny() -> VqVae2Config {
        let table = |num_codes| VectorQuantizerConfig {
            revive_below: 0.1,
            decay: 0.9,
            ..VectorQuantizerConfig::new(num_codes, 4)
        };
        VqVae2Config {
            channels: 8,
            residual_blocks: 1,
            residual_channels: 4,
            top: table(4).into(),
            bottom: table(8).into(),
            ..VqVae2Config::new(ImageShape::new(1, 8, 8))
        }
    }

    /// Images with one white quarter.
    fn quarters(count: usize) -> Vec<Image> {
        let is_white = |index: usize, at: usize| {
            let (row, column) = (at / 8, at % 8);
            (row < 4) == (index % 4 < 2) && (column < 4) == index.is_multiple_of(2)
        };
        let image = |index| Image {
            shape: ImageShape::new(1, 8, 8),
            pixels: (0..64)
                .map(|at| 255 * u8::from(is_white(index, at)))
                .collect(),
            label: None,
        };
        (0..count).map(image).collect()
    }

    #[test]
    fn both_levels_train_and_decode_from_codes() {
        let device = Device::flex();
        let config = DataLoaderConfig {
            batch_size: 16,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(quarters(64)), collate_images, config).unwrap();
        let run = temp_run().unwrap();
        let mut losses = Vec::new();
        let trained = Trainer::new(TrainerConfig {
            learning_rate: 1e-2,
            ..TrainerConfig::new(150)
        })
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses.clone());
            }
        })
        .fit(
            VaeObjective::<VqVae2, ImageBatch, 4, 2>::new(KlWeight::default()).unwrap(),
            tiny().init(&device).unwrap(),
            &loader,
            &run,
        )
        .unwrap()
        .model;
        let value = |step: usize, name: &str| {
            let found = losses[step].iter().find(|(known, _)| known == name);
            found
                .unwrap_or_else(|| panic!("{name}: {:?}", losses[step]))
                .1
        };
        // 4 codes of 4 and 16 of 8.
        let nats = 4.0 * 4f64.ln() + 16.0 * 8f64.ln();
        assert!((value(0, "kl") - nats).abs() < 1e-3);
        let sum = value(0, "reconstruction") + nats + value(0, "commitment");
        assert!((value(0, "loss") - sum).abs() < 1e-2);
        let (first, last) = (value(0, "reconstruction"), value(149, "reconstruction"));
        assert!(last < 0.3 * first, "{first} {last}");

        let images = collate_images(quarters(4)).to_tensor(&device);
        let codes = trained.encode_codes(images.clone());
        let shapes = trained.code_shapes();
        let dims: Vec<_> = codes.iter().map(Tensor::dims).collect();
        assert_eq!(dims, [[4, 4, 1], [4, 16, 1]]);
        assert_eq!([shapes[0].num_indices(), shapes[1].num_indices()], [4, 16]);
        let posterior = trained.encode(images);
        let direct = trained.decode(posterior.mode()).mean();
        let decoded = trained.decode_codes(&codes).mean();
        assert_close(&values(decoded), &values(direct), 1e-5);
    }

    /// The bottom codes see the top codes: another top quantiser changes them, and the decoder uses
    /// both.
    #[test]
    fn top_level_conditions_the_bottom_level() {
        let device = Device::flex();
        let config = VqVae2Config {
            top: FiniteScalarQuantizerConfig::new(&[3, 3]).into(),
            bottom: FiniteScalarQuantizerConfig::new(&[256, 256]).into(),
            ..tiny()
        };
        let model = config.init(&device).unwrap().init_weights(4);
        let x = Rng::new(1).uniform([2, 1, 8, 8], 0.0, 1.0, &device);
        let (_, levels) = model.quantize(x.clone(), None);
        // The top level rounds to other values after a shift of its inputs.
        let mut shifted = model.clone();
        shifted.top_project.bias = shifted
            .top_project
            .bias
            .map(|bias| bias.map(|bias| bias + 2.0));
        let (_, others) = shifted.quantize(x, None);
        assert_ne!(
            values(levels[0].values.clone()),
            values(others[0].values.clone())
        );
        assert_ne!(
            values(levels[1].inputs.clone()),
            values(others[1].inputs.clone())
        );
        // Features of the image are the same; only the top codes differ.
        let z = model.latents([levels[0].codes.clone(), levels[1].codes.clone()]);
        let other_top = model.latents([others[0].codes.clone(), levels[1].codes.clone()]);
        let other_bottom = model.latents([levels[0].codes.clone(), others[1].codes.clone()]);
        let [a, b, c] = [z, other_top, other_bottom].map(|z| values(model.decode(z).mean()));
        assert!(a != b && a != c);
    }

    #[test]
    fn prior_draws_codes_of_both_levels() {
        let device = Device::flex();
        let model = tiny().init(&device).unwrap().init_weights(1);
        let z = model.sample_prior(3, &Condition::none(), 1.0, &mut Rng::new(2), &device);
        assert_eq!(z.dims(), [3, 4 * 4 + 4 * 16]);
        assert_eq!(model.latent_dim(), 80);
        assert_eq!(model.decode(z.clone()).mean().dims(), [3, 1, 8, 8]);
        let log_prob = values(model.prior_log_prob(z, &Condition::none()));
        let nats = 4.0 * 4f32.ln() + 16.0 * 8f32.ln();
        assert_close(&log_prob, &[-nats; 3], 1e-3);
    }

    #[test]
    fn pretrained_models_open_with_their_codes() {
        let device = Device::flex();
        let model = tiny().init(&device).unwrap().init_weights(3);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let loaded = VqVae2::from_pretrained(dir.path(), &device).unwrap();
        assert!(loaded.warnings().is_empty(), "{loaded}");
        let file = |name: &str| dir.path().join(name);
        std::fs::rename(file("model.safetensors"), file("model.fp16.safetensors")).unwrap();
        let fp16 = VqVae2::from_pretrained_with_variant(dir.path(), "fp16", &device).unwrap();
        let x = collate_images(quarters(2)).to_tensor(&device);
        let [a, b, c] = [&model, &*loaded, &*fp16].map(|model| model.encode(x.clone()).values);
        let (a, b, c) = (values(a), values(b), values(c));
        assert_eq!((&a, &a), (&b, &c));
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        for (config, expected) in [
            (
                VqVae2Config {
                    bottom_strides: vec![3],
                    ..tiny()
                },
                "`shape.height` is 8, expected a multiple of 3, the product of `bottom_strides`",
            ),
            (
                VqVae2Config {
                    top_strides: vec![8],
                    ..tiny()
                },
                "a multiple of 16, the product of `bottom_strides` and `top_strides`",
            ),
            (
                VqVae2Config {
                    top_strides: vec![1],
                    ..tiny()
                },
                "`top_strides` is 1",
            ),
            (
                VqVae2Config {
                    channels: 0,
                    ..tiny()
                },
                "`channels` is 0",
            ),
            (
                VqVae2Config {
                    bottom: FiniteScalarQuantizerConfig::new(&[1]).into(),
                    ..tiny()
                },
                "`levels[0]` is 1",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
