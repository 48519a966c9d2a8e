//! What a trained model can show.
//!
//! All images are means of `p(x|z)`, `[n, channels, height, width]`. Noise comes from a [`Rng`], so
//! a seed is a picture.

use crate::Vae;
use aigc_core::{Error, Result, latent::slerp, rng::Rng};
use burn::tensor::{Device, Tensor, TensorData};

/// Images decoded at once: bounds the memory of large requests.
const AT_ONCE: usize = 256;

/// `n` images for latent vectors drawn from the prior. A `temperature` below 1 draws them closer to
/// the middle, where images are more typical and less varied.
///
/// # Errors
/// [`Error::Config`] if `n` is 0, or the temperature negative or not finite.
pub fn sample<V: Vae>(
    model: &V,
    n: usize,
    temperature: f64,
    rng: &mut Rng,
    device: &Device,
) -> Result<Tensor<4>> {
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return Err(Error::config(
            "temperature",
            temperature,
            "a finite number from 0 on",
        ));
    }
    decode_all(
        model,
        rng.normal([n, model.latent_dim()], device) * temperature,
    )
}

/// The model's rendering of `x`: the mean image of the most probable latent vector.
///
/// # Shapes
/// - x and output: `[batch, channels, height, width]` in `[0, 1]`
///
/// # Panics
/// If the images are not of the model's shape.
pub fn reconstruct<V: Vae>(model: &V, x: Tensor<4>) -> Tensor<4> {
    model.decode(model.encode(x).mode()).mean()
}

/// `frames` images on the way from each image of `from` to its counterpart in `to`, ends included.
/// Latent vectors move along the great arc between the two (Shoemake 1985), because the prior's
/// mass lies on a shell.
///
/// # Shapes
/// - from and to: `[batch, channels, height, width]` in `[0, 1]`
/// - output: `frames` tensors of that shape
///
/// # Errors
/// [`Error::Config`] if there are fewer than two frames, or the two batches differ in size.
///
/// # Panics
/// If the images are not of the model's shape.
pub fn interpolate<V: Vae>(
    model: &V,
    from: Tensor<4>,
    to: Tensor<4>,
    frames: usize,
) -> Result<Vec<Tensor<4>>> {
    if frames < 2 {
        return Err(Error::config("frames", frames, "at least 2"));
    }
    if from.dims() != to.dims() {
        return Err(Error::config(
            "to",
            format!("{:?}", to.dims()),
            format!("{:?}, like `from`", from.dims()),
        ));
    }
    let (a, b) = (model.encode(from).mode(), model.encode(to).mode());
    let at = |k: usize| k as f64 / (frames - 1) as f64;
    (0..frames)
        .map(|k| decode_all(model, slerp(a.clone(), b.clone(), at(k))))
        .collect()
}

/// A map of two latent dimensions: `side × side` images, row by row, whose dimensions `axes` run
/// through the middle 90 % of the prior while the others stay 0.
///
/// # Shapes
/// - output: `[side², channels, height, width]`
///
/// # Errors
/// [`Error::Config`] if the side is below 2 or an axis is not a latent dimension.
pub fn latent_grid<V: Vae>(
    model: &V,
    axes: [usize; 2],
    side: usize,
    device: &Device,
) -> Result<Tensor<4>> {
    let latent = model.latent_dim();
    if !(2..=1024).contains(&side) {
        return Err(Error::config("side", side, "2 to 1024"));
    }
    if let Some(axis) = axes.iter().find(|axis| **axis >= latent) {
        return Err(Error::config(
            "axes",
            axis,
            format!("below {latent}, the number of latent dimensions"),
        ));
    }
    let at = |k: usize| 1.645 * (2.0 * k as f32 / (side - 1) as f32 - 1.0);
    let mut z = vec![0.0; side * side * latent];
    for (index, point) in z.chunks_exact_mut(latent).enumerate() {
        point[axes[0]] = at(index / side);
        point[axes[1]] = at(index % side);
    }
    decode_all(
        model,
        Tensor::from_data(TensorData::new(z, [side * side, latent]), device),
    )
}

fn decode_all<V: Vae>(model: &V, z: Tensor<2>) -> Result<Tensor<4>> {
    let n = z.dims()[0];
    if n == 0 {
        return Err(Error::config("n", n, "at least 1"));
    }
    let parts = (0..n).step_by(AT_ONCE).map(|start| {
        let z = z.clone().narrow(0, start, AT_ONCE.min(n - start));
        model.decode(z).mean()
    });
    Ok(Tensor::cat(parts.collect(), 0))
}
