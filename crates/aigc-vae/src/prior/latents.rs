//! The latents of a data set, for fitting a prior to them.

use crate::{
    Condition, Vae, check_batch,
    condition::{Encode, condition_of, known_labels},
};
use aigc_core::{
    Error, Result,
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
    encode_all(model, loader, device, seed, None)
}

/// [`encode_latents`] under the vectors and encoder hidden states that `encode` returns for a
/// batch, as of [`VaeObjective::with_condition`](crate::VaeObjective::with_condition).
///
/// # Errors
/// As [`encode_latents`]; if what `encode` returns does not fit the model; errors of `encode`.
pub fn encode_latents_with_condition<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
    encode: impl Fn(&B, &Device) -> Result<Condition>,
) -> Result<InMemory<Vec<f32>>>
where
    V: Vae<X, 2>,
    B: SampleBatch<X>,
{
    encode_all(model, loader, device, seed, Some(&encode))
}

fn encode_all<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
    encode: Option<&Encode<'_, B>>,
) -> Result<InMemory<Vec<f32>>>
where
    V: Vae<X, 2>,
    B: SampleBatch<X>,
{
    let mut latents = Vec::new();
    encode_each(model, loader, device, seed, encode, |_, z| {
        latents.extend(z);
        Ok(())
    })?;
    Ok(InMemory(latents))
}

/// [`encode_latents`] of a class-conditional model, the latents of each class for themselves: what
/// the priors of a [`ClassConditionalPrior`](super::ClassConditionalPrior) are fitted to.
///
/// # Errors
/// [`Error::Config`] if the model is not class-conditional; errors of [`encode_latents`].
pub fn encode_latents_by_class<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
) -> Result<Vec<Vec<Vec<f32>>>>
where
    V: Vae<X, 2>,
    B: SampleBatch<X>,
{
    let Some(num_classes) = model.condition_kind().num_classes else {
        let expected = "the number of classes, of a class-conditional model";
        return Err(Error::config("condition.num_classes", "none", expected));
    };
    let mut latents = vec![Vec::new(); num_classes];
    encode_each(model, loader, device, seed, None, |batch, z| {
        let labels = known_labels(batch.labels(), num_classes)?;
        for (label, z) in labels.iter().zip(z) {
            latents[*label as usize].push(z);
        }
        Ok(())
    })?;
    Ok(latents)
}

/// Calls `of_batch` with every batch and a latent of each of its samples.
fn encode_each<V, B, const X: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
    encode: Option<&Encode<'_, B>>,
    mut of_batch: impl FnMut(&B, Vec<Vec<f32>>) -> Result<()>,
) -> Result<()>
where
    V: Vae<X, 2>,
    B: SampleBatch<X>,
{
    for (index, batch) in loader.iter_once().enumerate() {
        let batch = batch?;
        check_batch(model, &batch)?;
        let condition = condition_of(encode, model.condition_kind(), &batch, device)?;
        let posterior = model.encode_with(batch.to_tensor(device), &condition);
        let z = posterior.sample(&mut Rng::stream(seed, "latents", index as u64));
        let dim = z.dims()[1];
        let values: Vec<f32> = z.into_data().iter::<f32>().collect();
        of_batch(
            &batch,
            values.chunks_exact(dim).map(<[f32]>::to_vec).collect(),
        )?;
    }
    Ok(())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{ConditionKind, MlpVaeConfig};
    use aigc_core::{
        data::{DataLoaderConfig, Image, ImageShape, collate_images},
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

    /// Of a model with vectors, the latents are those under the vectors of their batches.
    #[test]
    fn latents_are_those_under_the_condition() {
        let device = Device::flex();
        let pixels = vec![0.1, 0.9];
        let config = DataLoaderConfig {
            batch_size: 2,
            num_workers: 0,
            shuffle_seed: None,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(pixels.clone()), Pixels, config).unwrap();
        let config = MlpVaeConfig {
            hidden_dim: 4,
            latent_dim: 2,
            condition: ConditionKind {
                vector_dim: Some(1),
                ..ConditionKind::default()
            },
            ..MlpVaeConfig::new(ImageShape::new(1, 1, 1))
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let double = |batch: &Pixels, device: &Device| {
            let pixels = batch.to_tensor(device).reshape([batch.len(), 1]);
            Ok(Condition::vectors(pixels * 2.0))
        };
        let found = encode_latents_with_condition(&model, &loader, &device, 3, double).unwrap();
        let vectors = Tensor::from_floats([[0.2], [1.8]], &device);
        let x = Pixels(pixels).to_tensor(&device);
        let posterior = model.encode_with(x, &Condition::vectors(vectors));
        let expected = values(posterior.sample(&mut Rng::stream(3, "latents", 0)));
        assert_close(&found.0.concat(), &expected, 1e-6);
        let missing = encode_latents(&model, &loader, &device, 3).unwrap_err();
        let message = missing.to_string();
        assert!(message.contains("`vectors` is missing"), "{message}");
    }

    /// The latents of each class are those of its samples, in order.
    #[test]
    fn latents_are_divided_by_class() {
        let device = Device::flex();
        let labels = [2, 0, 0, 2, 0];
        let image = |(index, label): (usize, &u32)| Image {
            shape: ImageShape::new(1, 1, 1),
            pixels: vec![40 * index as u8],
            label: Some(*label),
        };
        let images: Vec<_> = labels.iter().enumerate().map(image).collect();
        let config = DataLoaderConfig {
            batch_size: 2,
            num_workers: 0,
            shuffle_seed: None,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(images), collate_images, config).unwrap();
        let model = |num_classes| {
            let config = MlpVaeConfig {
                hidden_dim: 4,
                latent_dim: 2,
                condition: ConditionKind {
                    num_classes,
                    ..ConditionKind::default()
                },
                ..MlpVaeConfig::new(ImageShape::new(1, 1, 1))
            };
            config.init(&device).unwrap().init_weights(1)
        };
        let all = encode_latents(&model(Some(3)), &loader, &device, 3)
            .unwrap()
            .0;
        let by_class = encode_latents_by_class(&model(Some(3)), &loader, &device, 3).unwrap();
        let rows = |indices: &[usize]| indices.iter().map(|row| all[*row].clone()).collect();
        let expected: [Vec<Vec<f32>>; 3] = [rows(&[1, 2, 4]), Vec::new(), rows(&[0, 3])];
        assert_eq!(by_class, expected);
        let message = encode_latents_by_class(&model(None), &loader, &device, 3);
        let message = message.unwrap_err().to_string();
        assert!(
            message.contains("`condition.num_classes` is none"),
            "{message}"
        );
    }
}
