//! The networks of this crate, and their configurations.

/// Methods of [`Generator`] that depend only on the configuration.
macro_rules! described_by_config {
    () => {
        fn latent_dim(&self) -> usize {
            self.config.latent_dim
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::from(self.config.shape)
        }

        fn num_classes(&self) -> Option<usize> {
            self.config
                .classes
                .as_ref()
                .map(|classes| classes.num_classes)
        }
    };
}

/// Methods of [`Discriminator`] of rank `$rank`, for a network with a `head` on its `features`.
macro_rules! head_on_features {
    ($rank:expr) => {
        fn num_classes(&self) -> Option<usize> {
            self.head.num_classes()
        }

        fn forward(&self, x: Tensor<{ $rank }>, class: Option<Tensor<1, Int>>) -> Tensor<1> {
            self.forward_with_classes(x, class).logits
        }

        fn forward_with_classes(
            &self,
            x: Tensor<{ $rank }>,
            class: Option<Tensor<1, Int>>,
        ) -> DiscriminatorOutput {
            let features = self.features(x, class.as_ref());
            self.head.forward(features, class.as_ref())
        }
    };
}

mod any;
mod classes;
mod dcgan;
mod mlp;
mod r3gan;
mod resnet;

pub use any::{AnyDiscriminator, AnyGan, AnyGenerator, GanConfig};
pub use classes::{ClassConditioning, DiscriminatorConditioning, GeneratorConditioning};
pub use dcgan::{DcganConfig, DcganDiscriminator, DcganGenerator, DiscriminatorNorm};
pub use mlp::{MlpDiscriminator, MlpGanConfig, MlpGenerator};
pub use r3gan::{R3ganConfig, R3ganDiscriminator, R3ganGenerator};
pub use resnet::{ResnetDiscriminator, ResnetGanConfig, ResnetGenerator, SelfAttention2d};

use aigc_core::{
    Error, Result,
    check::{self, ensure},
    data::ImageShape,
    weights::RenamedField,
};
use burn::module::Module;

/// A generator and a discriminator, as one module to train.
#[derive(Module, Debug)]
pub struct Gan<G: Module, C: Module> {
    /// The network that generates samples.
    pub generator: G,
    /// The network that distinguishes real samples from generated ones.
    pub discriminator: C,
}

/// The field `discriminator` of [`Gan`], which is called `critic` in files of earlier versions.
pub(crate) const DISCRIMINATOR: RenamedField = RenamedField {
    name: "discriminator",
    former: "critic",
};

/// Limit on sizes read from a file, which decide how much memory is allocated.
const MAX_SIZE: usize = 1 << 14;

fn check_image_shape(shape: ImageShape, latent_dim: usize) -> Result<()> {
    check::sizes(&[
        ("shape.channels", shape.channels, MAX_SIZE),
        ("shape.height", shape.height, MAX_SIZE),
        ("shape.width", shape.width, MAX_SIZE),
        ("latent_dim", latent_dim, MAX_SIZE),
    ])?;
    check_numel(shape.numel(), &shape)
}

/// Sides within their limits can still have a product beyond the memory.
fn check_numel(numel: usize, shape: &dyn ToString) -> Result<()> {
    const MAX_NUMEL: usize = 1 << 24;
    let expected = format!("at most {MAX_NUMEL} values");
    ensure(numel <= MAX_NUMEL, "shape", shape.to_string(), &expected)
}

/// Checks that both sides of an image are multiples of `factor`, and returns the quotients.
fn divide_sides(shape: ImageShape, factor: usize, reason: &str) -> Result<[usize; 2]> {
    let expected = format!("a multiple of {factor}, for {reason}");
    for (field, side) in [("shape.height", shape.height), ("shape.width", shape.width)] {
        ensure(side.is_multiple_of(factor), field, side, &expected)?;
    }
    Ok([shape.height / factor, shape.width / factor])
}

/// Checks the number of weights of a layer: sizes within their limits can still have a product
/// beyond the memory.
fn check_layer_size(field: &str, factors: &[usize]) -> Result<()> {
    const MAX_WEIGHTS: usize = 1 << 28;
    let weights = factors
        .iter()
        .fold(1usize, |product, factor| product.saturating_mul(*factor));
    if weights <= MAX_WEIGHTS {
        return Ok(());
    }
    let product: Vec<String> = factors.iter().map(usize::to_string).collect();
    Err(Error::config(
        field,
        product.join("·"),
        format!("a layer of at most {MAX_WEIGHTS} weights"),
    ))
}

fn check_widths(field: &str, widths: &[usize]) -> Result<()> {
    match widths.iter().find(|width| !(1..=4096).contains(*width)) {
        Some(width) => Err(Error::config(field, width, "1 to 4096 each")),
        None => Ok(()),
    }
}

/// Fails if a discriminator without batch normalisation is configured to use it.
fn reject_batch_norm(norm: DiscriminatorNorm) -> Result<()> {
    ensure(
        norm != DiscriminatorNorm::Batch,
        "norm",
        "batch",
        "none or spectral: this discriminator has no batch normalisation",
    )
}
