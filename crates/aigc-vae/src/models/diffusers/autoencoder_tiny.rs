//! `AutoencoderTiny`: a small convolutional autoencoder whose latents are those of a larger one,
//! as TAESD's (<https://github.com/madebyollin/taesd>). It decodes previews in a fraction of the
//! time.

use super::tiny_config::AutoencoderTinyConfig;
use crate::TileConfig;
use aigc_core::{
    CancelToken, Result,
    data::SampleShape,
    encoder::{Autoencoder, Deterministic, Posterior},
    nn::{Activation, Conv2d, Conv2dConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// The decoder bounds its latents smoothly by this number.
const LATENT_BOUND: f64 = 3.0;

impl AutoencoderTinyConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<AutoencoderTiny> {
        let activation = self.validate()?;
        Ok(AutoencoderTiny {
            encoder: encoder(self, activation, device),
            decoder: decoder(self, activation, device),
            config: self.clone(),
        })
    }
}

/// A 3×3 convolution of which the output has the size of the input.
fn conv(channels: [usize; 2]) -> Conv2dConfig {
    Conv2dConfig::new(channels, 3).with_padding(1)
}

fn encoder(config: &AutoencoderTinyConfig, activation: Activation, device: &Device) -> Sequence {
    let mut layers = vec![];
    let channels = &config.encoder_block_out_channels;
    for (level, blocks) in config.num_encoder_blocks.iter().enumerate() {
        let width = channels[level];
        let first = match level {
            0 => conv([config.in_channels, width]),
            _ => conv([width, width]).with_stride(2).with_bias(false),
        };
        layers.push(Layer::Conv(first.init(device)));
        layers.extend((0..*blocks).map(|_| block(width, activation, device)));
    }
    let last = [channels[channels.len() - 1], config.latent_channels];
    layers.push(Layer::Conv(conv(last).init(device)));
    Sequence { layers }
}

fn decoder(config: &AutoencoderTinyConfig, activation: Activation, device: &Device) -> Sequence {
    let channels = &config.decoder_block_out_channels;
    let first = conv([config.latent_channels, channels[0]]);
    let mut layers = vec![
        Layer::Conv(first.init(device)),
        Layer::Activate(Activate { activation }),
    ];
    let levels = channels.len();
    for (level, blocks) in config.num_decoder_blocks.iter().enumerate() {
        let width = channels[level];
        layers.extend((0..*blocks).map(|_| block(width, activation, device)));
        let last = if level + 1 < levels {
            let factor = config.upsampling_scaling_factor;
            layers.push(Layer::Upsample(Upsample { factor }));
            conv([width, width]).with_bias(false)
        } else {
            conv([width, config.out_channels])
        };
        layers.push(Layer::Conv(last.init(device)));
    }
    Sequence { layers }
}

fn block(channels: usize, activation: Activation, device: &Device) -> Layer {
    let conv = || conv([channels; 2]).init(device);
    let activate = || Activate { activation };
    Layer::Block(Block {
        conv: (conv(), activate(), conv(), activate(), conv()),
    })
}

/// An activation, which has a number of its own among the layers of diffusers.
#[derive(Module, Debug)]
struct Activate {
    #[module(skip)]
    activation: Activation,
}

/// Repeats pixels.
#[derive(Module, Debug)]
struct Upsample {
    factor: usize,
}

/// A residual block, `relu(x + conv(x))`.
#[derive(Module, Debug)]
struct Block {
    conv: (Conv2d, Activate, Conv2d, Activate, Conv2d),
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (first, activate, second, other, last) = &self.conv;
        let y = activate.activation.forward(first.forward(x.clone()));
        let y = other.activation.forward(second.forward(y));
        Activation::Relu.forward(x + last.forward(y))
    }
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has a few dozen.
enum Layer {
    Conv(Conv2d),
    Block(Block),
    Activate(Activate),
    Upsample(Upsample),
}

/// Layers one after the other.
#[derive(Module, Debug)]
struct Sequence {
    layers: Vec<Layer>,
}

impl Sequence {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, layer| match layer {
            Layer::Conv(conv) => conv.forward(x),
            Layer::Block(block) => block.forward(x),
            Layer::Activate(activate) => activate.activation.forward(x),
            Layer::Upsample(upsample) => ops::upsample_nearest2d(x, upsample.factor),
        })
    }
}

/// A small convolutional autoencoder, without uncertainty about the latents.
///
/// Images are in `[0, 1]`. As an [`Autoencoder`], that is as the first stage of latent diffusion,
/// latents are shifted and scaled by `shift_factor` and `scaling_factor`, and decoded images are
/// clamped to `[0, 1]`. The model then has to be without autodiff, as opened models are.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::AutoencoderTiny;
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let taesd = AutoencoderTiny::from_pretrained("taesd", &device)?;
/// let images = Tensor::<4>::full([1, 3, 512, 512], 0.5, &device);
/// let latents = taesd.latents(images); // [1, 4, 64, 64]
/// let images = taesd.images(latents);
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct AutoencoderTiny {
    encoder: Sequence,
    decoder: Sequence,
    #[module(skip)]
    config: AutoencoderTinyConfig,
}

impl AutoencoderTiny {
    /// Configuration of the model.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// The latents of images.
    ///
    /// # Shapes
    /// - images: `[batch, in_channels, height, width]`, in `[0, 1]`
    /// - output: `[batch, latent_channels, height / factor, width / factor]`
    ///
    /// # Panics
    /// If the images do not have `in_channels` channels.
    pub fn latents(&self, images: Tensor<4>) -> Tensor<4> {
        self.encoder.forward(images)
    }

    /// The images of latents.
    ///
    /// # Shapes
    /// - latents: `[batch, latent_channels, height, width]`
    /// - output: `[batch, out_channels, factor·height, factor·width]`, in `[0, 1]` and around it
    ///
    /// # Panics
    /// If the latents do not have `latent_channels` channels.
    pub fn images(&self, latents: Tensor<4>) -> Tensor<4> {
        let bounded = Activation::SoftClamp(LATENT_BOUND).forward(latents);
        self.decoder.forward(bounded)
    }

    /// Tiles of `sample_size`, of which a quarter overlaps.
    pub fn tiles(&self) -> TileConfig {
        let [height, width] = self.config.sample_size.sides();
        TileConfig::new(height.min(width))
    }

    /// [`latents`](Self::latents) of large images, tile by tile.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for tiles out of range;
    /// [`Error::Cancelled`](aigc_core::Error::Cancelled) if `cancel` was cancelled before the last
    /// tile.
    ///
    /// # Panics
    /// As [`latents`](Self::latents).
    pub fn latents_tiled(
        &self,
        images: Tensor<4>,
        tiles: &TileConfig,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        tiles.encode(images, self.config.factor(), cancel, |x| self.latents(x))
    }

    /// [`images`](Self::images) of large maps of latents, tile by tile.
    ///
    /// # Errors
    /// As [`latents_tiled`](Self::latents_tiled).
    ///
    /// # Panics
    /// As [`images`](Self::images).
    pub fn images_tiled(
        &self,
        latents: Tensor<4>,
        tiles: &TileConfig,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        tiles.decode(latents, self.config.factor(), cancel, |z| self.images(z))
    }

    /// Latents as values of images, `z / (2·latent_magnitude) + latent_shift`, clamped to `[0, 1]`.
    pub fn scale_latents(&self, latents: Tensor<4>) -> Tensor<4> {
        let scaled = latents / (2.0 * self.config.latent_magnitude) + self.config.latent_shift;
        scaled.clamp(0.0, 1.0)
    }

    /// The inverse of [`scale_latents`](Self::scale_latents), for latents that it did not clamp.
    pub fn unscale_latents(&self, scaled: Tensor<4>) -> Tensor<4> {
        (scaled - self.config.latent_shift) * (2.0 * self.config.latent_magnitude)
    }

    diffusers_methods!(AutoencoderTinyConfig);
}

impl Autoencoder for AutoencoderTiny {
    fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
        let latents = self.latents(x) - self.config.shift_factor;
        Box::new(Deterministic(latents * self.config.scaling_factor))
    }

    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        let latents = z / self.config.scaling_factor + self.config.shift_factor;
        self.images(latents).clamp(0.0, 1.0)
    }

    fn sample_shape(&self) -> SampleShape {
        let [height, width] = self.config.sample_size.sides();
        SampleShape::new(&[self.config.in_channels, height, width])
    }

    fn latent_shape(&self) -> SampleShape {
        let sides = self.config.sample_size.sides();
        let [height, width] = sides.map(|side| side / self.config.factor());
        SampleShape::new(&[self.config.latent_channels, height, width])
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn tiny() -> AutoencoderTiny {
        let config = AutoencoderTinyConfig {
            encoder_block_out_channels: vec![4; 2],
            decoder_block_out_channels: vec![4; 2],
            num_encoder_blocks: vec![1, 1],
            num_decoder_blocks: vec![1, 1],
            latent_channels: 2,
            scaling_factor: 2.0,
            shift_factor: 0.25,
            sample_size: 16.into(),
            ..AutoencoderTinyConfig::default()
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    #[test]
    fn first_stage_shifts_and_scales_latents() {
        let model = tiny();
        let x = Rng::new(2).uniform([2, 3, 16, 16], 0.0, 1.0, &Device::flex());
        let latents = model.latents(x.clone());
        assert_eq!(latents.dims(), [2, 2, 8, 8]);
        let stage: &dyn Autoencoder = &model;
        assert_eq!(stage.latent_shape(), SampleShape::new(&[2, 8, 8]));
        let z = stage.encode(x).mode();
        let expected = (latents.clone() - 0.25) * 2.0;
        assert_close(&values(z.clone()), &values(expected), 1e-6);
        let images = model.images(latents).clamp(0.0, 1.0);
        assert_close(&values(stage.decode(z)), &values(images), 1e-5);
    }

    #[test]
    fn scaled_latents_are_values_of_images() {
        let model = tiny();
        let z = Tensor::<1>::from_floats([-9.0, -3.0, 0.0, 1.5, 4.0], &Device::flex());
        let scaled = model.scale_latents(z.reshape([1, 1, 1, 5]));
        assert_close(&values(scaled.clone()), &[0.0, 0.0, 0.5, 0.75, 1.0], 1e-6);
        let back = model.unscale_latents(scaled);
        assert_close(&values(back), &[-3.0, -3.0, 0.0, 1.5, 3.0], 1e-5);
    }

    /// The network has no norms, and sees at most 7 latents around a pixel. Where tiles overlap by
    /// twice that, the weight of what a tile does not see is at most a half, and falls to 0.
    #[test]
    fn tiles_match_the_whole_image_within_their_reach() {
        let (model, cancel) = (tiny(), CancelToken::new());
        let z: Tensor<4> = Rng::new(3).normal([1, 2, 40, 23], &Device::flex());
        let whole = model.images(z.clone());
        let tiles = TileConfig::new(56).with_overlap(0.5);
        let found = model.images_tiled(z.clone(), &tiles, &cancel).unwrap();
        assert_eq!(found.dims(), whole.dims());
        let apart = values((found - whole.clone()).abs());
        let mean = apart.iter().sum::<f32>() / apart.len() as f32;
        let worst = apart.iter().copied().fold(0.0, f32::max);
        let (_, std) = aigc_core::testing::moments(&whole);
        assert!(f64::from(worst) < 0.3 * std, "{worst} of {std}");
        assert!(mean < 0.1 * worst, "{mean} of {worst}");
        // Before the first seam nothing differs.
        let first = tiles.size / 2 / 2;
        let before = apart[..first * 46].iter().copied().fold(0.0, f32::max);
        assert!(before < 1e-5, "{before}");
        let latents = model.latents(whole.clone());
        let tiled = model.latents_tiled(whole, &tiles, &cancel).unwrap();
        let worst = values((latents - tiled).abs());
        assert!(worst.into_iter().fold(0.0, f32::max) < 0.05, "latents");
    }
}
