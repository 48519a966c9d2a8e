//! The latents of a data set, for fitting a prior to them.

use crate::{Vae, check_batch};
use aigc_core::{
    Result,
    data::{DataLoader, InMemory, SampleBatch, SampleShape},
    encoder::Posterior,
    rng::Rng,
};
use burn::tensor::{Device, Tensor, TensorData};

/// A batch of latent vectors.
#[derive(Clone, Debug)]
pub struct LatentBatch {
    values: Vec<f32>,
    dim: usize,
}

/// Collates latent vectors into a batch.
///
/// # Panics
/// If the vectors differ in length.
pub fn collate_latents(latents: Vec<Vec<f32>>) -> LatentBatch {
    let dim = latents.first().map_or(0, Vec::len);
    assert!(
        latents.iter().all(|latent| latent.len() == dim),
        "latent vectors of a batch differ in length"
    );
    LatentBatch {
        values: latents.concat(),
        dim,
    }
}

impl SampleBatch<2> for LatentBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let shape = [self.len(), self.dim];
        Tensor::from_data(TensorData::new(self.values.clone(), shape), device)
    }

    fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[self.dim])
    }
}

/// Encodes every sample of `loader` once, and draws one latent from each posterior: a sample of the
/// distribution that a prior is fitted to after training (ex-post density estimation, Ghosh et al.
/// 2020, <https://arxiv.org/abs/1903.12436>). The draws are the same for the same `seed`.
///
/// # Errors
/// If a sample cannot be read or does not have the shape of the model's samples, or a conditional
/// model gets no labels or unknown ones.
pub fn encode_latents<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
) -> Result<InMemory<Vec<f32>>>
where
    V: Vae<X, 2>,
    B: SampleBatch<X>,
{
    let mut latents = Vec::new();
    for (index, batch) in loader.iter_once().enumerate() {
        let batch = batch?;
        check_batch(model, &batch)?;
        let condition = model.condition_kind().of_batch(&batch, device)?;
        let posterior = model.encode_with(batch.to_tensor(device), &condition);
        let z = posterior.sample(&mut Rng::stream(seed, "latents", index as u64));
        let dim = z.dims()[1];
        let values: Vec<f32> = z.into_data().iter::<f32>().collect();
        latents.extend(values.chunks_exact(dim).map(<[f32]>::to_vec));
    }
    Ok(InMemory(latents))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::MlpVaeConfig;
    use aigc_core::{
        data::{DataLoaderConfig, ImageShape},
        rng::InitWeights,
        testing::{assert_close, values},
    };

    /// Images of one pixel.
    struct Pixels(Vec<f32>);

    impl SampleBatch for Pixels {
        fn to_tensor(&self, device: &Device) -> Tensor<4> {
            Tensor::from_data(
                TensorData::new(self.0.clone(), [self.0.len(), 1, 1, 1]),
                device,
            )
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[1, 1, 1])
        }
    }

    #[test]
    fn every_sample_is_encoded_once_in_order() {
        let device = Device::flex();
        let pixels: Vec<f32> = (0..7).map(|k| k as f32 / 7.0).collect();
        let config = DataLoaderConfig {
            batch_size: 3,
            num_workers: 0,
            shuffle_seed: None,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(pixels.clone()), Pixels, config).unwrap();
        let config = MlpVaeConfig {
            hidden_dim: 4,
            latent_dim: 2,
            ..MlpVaeConfig::new(ImageShape::new(1, 1, 1))
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let latents = encode_latents(&model, &loader, &device, 3).unwrap().0;
        assert_eq!(latents.len(), 7);
        let first = model.encode(Pixels(pixels[..3].to_vec()).to_tensor(&device));
        let expected = values(first.sample(&mut Rng::stream(3, "latents", 0)));
        assert_close(&latents[..3].concat(), &expected, 1e-6);
        let again = encode_latents(&model, &loader, &device, 3).unwrap().0;
        assert_eq!(latents, again);
        let batch = collate_latents(latents.clone());
        assert_eq!(
            (batch.len(), batch.sample_shape()),
            (7, SampleShape::new(&[2]))
        );
        assert_eq!(values(batch.to_tensor(&device)), latents.concat());
    }
}
