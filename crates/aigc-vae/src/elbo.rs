//! The evidence lower bound.

use crate::{
    Condition, Likelihood, Vae, check_batch,
    condition::{Encode, condition_of},
};
use aigc_core::{
    Result,
    data::{DataLoader, SampleBatch},
    encoder::Posterior,
    rng::Rng,
    train::Metrics,
};
use burn::tensor::{Device, Tensor};

/// The two terms of the evidence lower bound, per sample, in nats.
#[derive(Clone, Debug)]
pub struct Elbo {
    /// Reconstruction term `E_q[log p(x|z)]`, estimated with one `z`, `[batch]`.
    pub log_likelihood: Tensor<1>,
    /// Divergence `KL(q(z|x) ‖ p(z))` of the posterior from the prior, `[batch]`.
    pub kl: Tensor<1>,
}

/// Computes the evidence lower bound `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x)` (Kingma and
/// Welling 2014, eq. 3). `likelihood` is that of one `z` drawn from `posterior`.
///
/// # Shapes
/// - x: `[batch, …]`; images in `[0, 1]`
pub fn elbo<P: Posterior<Z>, const X: usize, const Z: usize>(
    x: Tensor<X>,
    posterior: &P,
    likelihood: &Likelihood<X>,
) -> Elbo {
    Elbo {
        log_likelihood: likelihood.log_prob(x),
        kl: posterior.kl(),
    }
}

impl Elbo {
    /// The loss `−E_q[log p(x|z)] + β·KL`, averaged over the batch, `[1]`: −ELBO for β = 1, the
    /// loss of the β-VAE (Higgins et al. 2017) for other values.
    pub fn loss(&self, beta: f64) -> Tensor<1> {
        (self.kl.clone() * beta - self.log_likelihood.clone()).mean()
    }
}

/// Evaluates `model` on every sample of `loader`, with the labels as conditions if the model has
/// classes.
///
/// Returns `nelbo` (−ELBO, an upper bound on `−log p(x)`), `reconstruction` and `kl`, then `kl/0`,
/// `kl/1`, … for the groups of latents if there are more than one, and the model's [auxiliary
/// terms](Vae::auxiliary_losses): means per sample, in nats. One `z` is drawn per sample, always
/// the same for the same `seed`.
///
/// For the optimal Gaussian, whose variance is fitted to each batch, `nelbo` and `reconstruction`
/// are the training loss, and no bound.
///
/// # Errors
/// If a sample cannot be read, does not have the shape of the model's samples or not the range of
/// the likelihood, or has no label that a conditional model knows, or if the model takes vectors or
/// encoder hidden states: see [`evaluate_with_condition`].
pub fn evaluate<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
) -> Result<Metrics>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    evaluate_batches(model, loader, device, seed, None)
}

/// [`evaluate`] under the vectors and encoder hidden states that `encode` returns for a batch, as
/// of [`VaeObjective::with_condition`](crate::VaeObjective::with_condition).
///
/// # Errors
/// As [`evaluate`]; if what `encode` returns does not fit the model; errors of `encode`.
pub fn evaluate_with_condition<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
    encode: impl Fn(&B, &Device) -> Result<Condition>,
) -> Result<Metrics>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    evaluate_batches(model, loader, device, seed, Some(&encode))
}

fn evaluate_batches<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    device: &Device,
    seed: u64,
    encode: Option<&Encode<'_, B>>,
) -> Result<Metrics>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    let first = ["reconstruction", "kl"];
    let mut sums: Metrics = first.map(|name| (name.to_string(), 0.0)).to_vec();
    let mut samples = 0.0;
    for (index, batch) in loader.iter_once().enumerate() {
        let batch = batch?;
        check_batch(model, &batch)?;
        let x = batch.to_tensor(device);
        let count = x.dims()[0] as f64;
        let condition = condition_of(encode, model.condition_kind(), &batch, device)?;
        let mut rng = Rng::stream(seed, "held-out", index as u64);
        let output = model.forward(x.clone(), &condition, &mut rng);
        output.likelihood.check_range(batch.value_range())?;
        let bound = output.elbo(x);
        let mut terms = vec![
            ("reconstruction".to_string(), -bound.log_likelihood.mean()),
            ("kl".to_string(), bound.kl.mean()),
        ];
        if output.kl.len() > 1 {
            let groups = output.kl.into_iter().enumerate();
            terms.extend(groups.map(|(group, kl)| (format!("kl/{group}"), kl.mean())));
        }
        let auxiliary = model.auxiliary_losses(&output.posterior).into_iter();
        terms.extend(auxiliary.map(|(name, term)| (name.to_string(), term)));
        let (names, terms): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
        // One transfer for all of them.
        let terms = Tensor::cat(terms, 0).into_data();
        for (name, term) in names.into_iter().zip(terms.iter::<f64>()) {
            let term = term * count;
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += term,
                None => sums.push((name, term)),
            }
        }
        samples += count;
    }
    let means = sums.into_iter().map(|(name, sum)| (name, sum / samples));
    let means: Metrics = means.collect();
    let nelbo = means[0].1 + means[1].1;
    Ok([vec![("nelbo".to_string(), nelbo)], means].concat())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        ConditionKind, LikelihoodKind, MlpVaeConfig,
        objective::toy::{POINTS, Points, Toy},
    };
    use aigc_core::{
        data::{DataLoaderConfig, ImageBatch, InMemory, collate_images, digits},
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn metrics(groups: usize) -> Metrics {
        let config = DataLoaderConfig {
            batch_size: 3,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(POINTS.to_vec()), Points, config).unwrap();
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), groups);
        evaluate(&model, &loader, &Device::flex().autodiff(), 4).unwrap()
    }

    /// Means over all samples, for batches of different sizes.
    #[test]
    fn evaluation_reports_the_kl_of_each_group() {
        let two = metrics(2);
        let value = |name: &str| {
            let found = two.iter().find(|(known, _)| known == name);
            found.unwrap_or_else(|| panic!("no {name}: {two:?}")).1
        };
        let [first, second] = Toy::group_kl();
        assert!((value("kl/0") - first).abs() < 1e-6, "{two:?}");
        assert!((value("kl/1") - second).abs() < 1e-6, "{two:?}");
        assert!((value("kl") - first - second).abs() < 1e-6, "{two:?}");
        assert_eq!(value("nelbo"), value("reconstruction") + value("kl"));
        let names = |metrics: &Metrics| -> Vec<String> {
            metrics.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(
            names(&two),
            ["nelbo", "reconstruction", "kl", "kl/0", "kl/1"]
        );
        assert_eq!(names(&metrics(1)), ["nelbo", "reconstruction", "kl"]);
    }

    /// Of a model with vectors, the terms are those under the vectors of the batch, which the
    /// function may borrow.
    #[test]
    fn evaluation_is_that_under_the_condition() {
        let device = Device::flex();
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            condition: ConditionKind {
                vector_dim: Some(2),
                ..ConditionKind::default()
            },
            ..MlpVaeConfig::new(digits::SHAPE)
        };
        let model = config.init(&device).unwrap().init_weights(1);
        let images: Vec<_> = digits::load().0.into_iter().take(3).collect();
        let x = collate_images(images.clone()).to_tensor(&device);
        let config = DataLoaderConfig {
            batch_size: 3,
            num_workers: 0,
            shuffle_seed: None,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(images), collate_images, config).unwrap();
        let vectors: Tensor<2> = Rng::new(2).normal([3, 2], &device);
        let encode = |batch: &ImageBatch, _: &Device| {
            assert_eq!(batch.len(), 3);
            Ok(Condition::vectors(vectors.clone()))
        };
        let found = evaluate_with_condition(&model, &loader, &device, 4, encode).unwrap();
        let nelbo = |condition: &Condition| {
            let mut rng = Rng::stream(4, "held-out", 0);
            let output = model.forward(x.clone(), condition, &mut rng);
            values(output.elbo(x.clone()).loss(1.0))[0]
        };
        let expected = nelbo(&Condition::vectors(vectors.clone()));
        assert_eq!(found[0].0, "nelbo");
        assert_close(&[found[0].1 as f32], &[expected], 1e-5 * expected.abs());
        assert!((nelbo(&Condition::none()) - expected).abs() > 1e-4 * expected.abs());

        let missing = evaluate(&model, &loader, &device, 4).unwrap_err();
        let message = missing.to_string();
        assert!(message.contains("`vectors` is missing"), "{message}");
    }
}
