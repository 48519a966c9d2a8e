//! What the examples of autoencoders share: bounds, reconstructions, and the labels of samples.

use crate::Images;
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::{Binarize, DataLoader, ImageBatch},
    train::Metrics,
};
use aigc_vae::{EvaluationOptions, Vae, VaeSampler, evaluate, rate_distortion};

/// Most rows of originals of [`reconstruction_rows`].
const ROWS: usize = 5;
/// Images in a row.
const COLUMNS: usize = 10;

/// The terms of the ELBO on held-out images that `binarize` makes binary; `nelbo` is their sum.
///
/// # Errors
/// Errors of [`evaluate`] and [`rate_distortion`].
pub fn evaluate_binarized<V: Vae<4, Z>, const Z: usize>(
    model: &V,
    held_out: &DataLoader<ImageBatch>,
    binarize: Binarize,
    device: &Device,
) -> Result<Metrics> {
    if binarize == Binarize::None {
        return evaluate(model, held_out, device, 0);
    }
    let options = EvaluationOptions::new().with_binarize(binarize);
    let found = rate_distortion(model, held_out, &options, device)?;
    let terms = [
        ("nelbo", found.loss(1.0)),
        ("reconstruction", found.distortion),
        ("kl", found.rate),
    ];
    Ok(terms.map(|(name, nats)| (name.to_string(), nats)).to_vec())
}

/// Rows of ten of the first images, and below each row their reconstructions.
///
/// # Errors
/// [`Error::Config`] without images; errors of reading, and of [`VaeSampler::reconstruct_batch`].
pub fn reconstruction_rows<V: Vae<4, Z>, const Z: usize>(
    model: &V,
    images: &DataLoader<ImageBatch>,
    device: &Device,
) -> Result<Tensor<4>> {
    let first = images.iter_once().next();
    let first = first.ok_or_else(|| Error::config("images", 0, "at least 1"))??;
    let batch = first.take(ROWS * COLUMNS);
    let reconstructed = VaeSampler::new(model, device).reconstruct_batch(&batch)?;
    let originals = batch.to_tensor(device);
    let n = batch.len();
    // A last row that is not full would shift the rows after it.
    let rows = (n / COLUMNS).max(1);
    let row = |x: &Tensor<4>, r: usize| {
        let start = COLUMNS * r;
        x.clone().narrow(0, start, COLUMNS.min(n - start))
    };
    let both = (0..rows).flat_map(|r| [row(&originals, r), row(&reconstructed, r)]);
    Ok(Tensor::cat(both.collect(), 0))
}

/// Mean square of the difference between a value of a held-out image and its reconstruction.
///
/// # Errors
/// [`Error::Cancelled`] if `stop` is cancelled; errors of reading, and of
/// [`VaeSampler::reconstruct_batch`].
pub fn reconstruction_error<V: Vae<4, Z>, const Z: usize>(
    model: &V,
    images: &Images,
    device: &Device,
    stop: &CancelToken,
) -> Result<f64> {
    let sampler = VaeSampler::new(model, device);
    images.evaluate(stop, |held_out| {
        let (mut sum, mut values) = (0.0, 0);
        for batch in held_out.iter_once() {
            let batch = batch?;
            let gap = sampler.reconstruct_batch(&batch)? - batch.to_tensor(device);
            sum += f64::from((gap.clone() * gap).sum().into_scalar::<f32>());
            values += batch.len() * batch.shape().numel();
        }
        Ok(sum / values as f64)
    })
}

/// `n` labels of each of `classes` classes, class by class.
pub fn labels_by_class(classes: usize, n: usize) -> Vec<u32> {
    (0..classes as u32)
        .flat_map(|class| vec![class; n])
        .collect()
}

/// `n` labels of `classes` classes in turn.
pub fn labels_in_turn(classes: usize, n: usize) -> Vec<u32> {
    (0..n).map(|index| (index % classes) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_their_order() {
        assert_eq!(labels_by_class(3, 2), [0, 0, 1, 1, 2, 2]);
        assert_eq!(labels_in_turn(3, 5), [0, 1, 2, 0, 1]);
    }
}
