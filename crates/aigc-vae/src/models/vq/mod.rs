//! Autoencoders of images with quantised latent maps.
//!
//! | file | content |
//! |---|---|
//! | `vq_vae` | one map (VQ-VAE) |
//! | `vq_vae2` | two levels of maps (VQ-VAE-2) |
//! | `layers` | the convolutions, which both models share |
//! | `checks` | the checks of their configurations |

mod checks;
mod layers;
mod vq_vae;
mod vq_vae2;

pub use vq_vae::{VqVae, VqVaeConfig};
pub use vq_vae2::{VqVae2, VqVae2Config};

use crate::{AnyQuantizer, CodeShape, Likelihood, Quantized, Quantizer, Vae, VaeOutput};
use aigc_core::{
    data::{ImageShape, SampleShape},
    encoder::Posterior,
};
use burn::{
    module::Module,
    tensor::{Int, Tensor},
};

/// An autoencoder whose latents are integer codes, on one map or on several.
pub trait DiscreteVae<const X: usize = 4>: Module {
    /// Shape of a sample, without the batch axis.
    fn input_shape(&self) -> SampleShape;

    /// The codes of each level of maps, coarsest first.
    fn code_shapes(&self) -> Vec<CodeShape>;

    /// The codes of samples on each level.
    ///
    /// # Shapes
    /// - x: `[batch, …]` of [`input_shape`](Self::input_shape); images in `[0, 1]`
    /// - outputs: `[batch, positions, codebooks]` of [`code_shapes`](Self::code_shapes)
    ///
    /// # Panics
    /// If the samples do not have the model's shape.
    fn encode_codes(&self, x: Tensor<X>) -> Vec<Tensor<3, Int>>;

    /// Decodes the codes of each level to the likelihood `p(x|z)`.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]` of [`code_shapes`](Self::code_shapes)
    ///
    /// # Panics
    /// If the codes do not have these shapes.
    fn decode_codes(&self, codes: &[Tensor<3, Int>]) -> Likelihood<X>;
}

/// The codes of images of `shape`, whose sides the encoder divides by `factor`.
fn code_shape(quantizer: &AnyQuantizer, shape: ImageShape, factor: usize) -> CodeShape {
    CodeShape {
        height: shape.height / factor,
        width: shape.width / factor,
        codebooks: quantizer.codebooks(),
        num_codes: quantizer.num_codes(),
    }
}

/// The pass of a batch with this posterior, whose latents are certain.
fn pass<V, const Z: usize>(model: &V, posterior: Quantized<Z>) -> VaeOutput<Quantized<Z>, 4, Z>
where
    V: Vae<4, Z, Posterior = Quantized<Z>>,
{
    let z = posterior.values.clone();
    VaeOutput {
        likelihood: model.decode(z.clone()),
        kl: vec![posterior.kl()],
        posterior,
        z,
    }
}
