//! A prior for each class.

use super::{GaussianMixture, GaussianMixtureConfig, ModelPrior, em::EmConfig};
use crate::{Condition, Vae, math::log_sum_exp};
use aigc_core::{Error, Result, check::ensure_argument, data::label_tensor, rng::Rng};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use std::collections::BTreeMap;

/// A prior for each class of a class-conditional model, `p(z|c)` (Sohn et al. 2015,
/// <https://papers.nips.cc/paper/5775>). The latents of a class fill a part of the prior that all
/// classes have in common; samples from elsewhere belong to other classes or to none.
///
/// Without classes in the [`Condition`], it is the mixture of the priors with equal weights. Labels
/// are read on the host, once per call.
///
/// ```no_run
/// # use aigc_core::{Result, data::{ClassLabels, DataLoader, ImageBatch}, device::device};
/// # use aigc_vae::{
/// #     AnyVae, ClassConditionalPrior, EmConfig, GaussianMixtureConfig, VaeSampler, WithPrior,
/// #     encode_latents_by_class,
/// # };
/// # fn sample(model: AnyVae, train: &DataLoader<ImageBatch>) -> Result<()> {
/// let device = device("flex")?;
/// let latents = encode_latents_by_class(&model, train, &device, 0)?;
/// let mixture = GaussianMixtureConfig::new(10);
/// let prior = ClassConditionalPrior::fit(&mixture, &latents, &EmConfig::default(), &device)?;
/// let model = WithPrior::new(model, prior)?;
/// let sampler = VaeSampler::new(&model, &device).with_classes(ClassLabels::All(3));
/// let samples = sampler.sample(64, 7)?;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct ClassConditionalPrior<P> {
    /// The prior of each class.
    pub priors: Vec<P>,
}

impl<P> ClassConditionalPrior<P> {
    /// One prior for each class, in the order of the classes.
    pub fn new(priors: Vec<P>) -> Self {
        Self { priors }
    }
}

impl ClassConditionalPrior<GaussianMixture> {
    /// Fits a mixture to the latents of each class, which
    /// [`encode_latents_by_class`](super::encode_latents_by_class) returns. For the reports of the
    /// fits, call [`GaussianMixtureConfig::fit`] for each class, and [`new`](Self::new).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no classes, or a class has fewer latents than the
    /// mixture has components; errors of [`GaussianMixtureConfig::fit`].
    pub fn fit(
        config: &GaussianMixtureConfig,
        latents: &[Vec<Vec<f32>>],
        em: &EmConfig,
        device: &Device,
    ) -> Result<Self> {
        ensure_argument(
            !latents.is_empty(),
            "latents",
            "empty",
            "those of at least one class",
        )?;
        for (class, latents) in latents.iter().enumerate() {
            ensure_argument(
                latents.len() >= config.n_components,
                &format!("latents[{class}]"),
                latents.len(),
                &format!("at least {}, the number of components", config.n_components),
            )?;
        }
        let fit = |latents: &Vec<Vec<f32>>| Ok(config.fit(latents, em, device)?.prior);
        let priors = latents.iter().map(fit).collect::<Result<_>>()?;
        Ok(Self::new(priors))
    }
}

impl<P> ClassConditionalPrior<P> {
    /// The class of each row.
    ///
    /// # Panics
    /// If there are not `rows` labels, or one is not a class.
    fn classes(&self, labels: &Tensor<1, Int>, rows: usize) -> Vec<usize> {
        let (labels, count) = (labels.clone().into_data(), self.priors.len());
        let class = |label: i64| match usize::try_from(label) {
            Ok(class) if class < count => class,
            _ => panic!(
                "`class_labels` has the value {label}, expected 0 to {}",
                count - 1
            ),
        };
        let classes: Vec<_> = labels.iter::<i64>().map(class).collect();
        assert_eq!(classes.len(), rows, "labels and latents of a batch");
        classes
    }

    /// The density of the mixture of all classes.
    fn marginal_log_prob<V, const X: usize>(
        &self,
        model: &V,
        z: Tensor<2>,
        condition: &Condition,
    ) -> Tensor<1>
    where
        P: ModelPrior<V, X>,
    {
        let densities = self.priors.iter().map(|prior| {
            let density = prior.log_prob_with(model, z.clone(), condition);
            density.unsqueeze_dim::<2>(1)
        });
        let densities = Tensor::cat(densities.collect(), 1);
        log_sum_exp(densities, 1).squeeze_dim::<1>(1) - (self.priors.len() as f64).ln()
    }
}

impl<P, V, const X: usize> ModelPrior<V, X> for ClassConditionalPrior<P>
where
    P: ModelPrior<V, X>,
    V: Vae<X, 2>,
{
    fn check_model(&self, model: &V) -> Result<()> {
        let (found, expected) = (self.priors.len(), model.condition_kind().num_classes);
        if expected != Some(found) {
            let expected = match expected {
                Some(classes) => format!("{classes}, the number of classes of the model"),
                None => "none, since the model is not class-conditional".to_string(),
            };
            return Err(Error::config("prior.priors", found, expected));
        }
        self.priors
            .iter()
            .try_for_each(|prior| prior.check_model(model))
    }

    /// # Panics
    /// Unless the condition has as many labels as there are latents, or none; if a label is not a
    /// class.
    fn log_prob_with(&self, model: &V, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
        let Some(labels) = &condition.class_labels else {
            return self.marginal_log_prob(model, z, condition);
        };
        let classes = self.classes(labels, z.dims()[0]);
        by_class(&classes, &z.device(), |class: usize, rows| {
            let (z, condition) = (z.clone().select(0, rows.clone()), condition.select(rows));
            self.priors[class].log_prob_with(model, z, &condition)
        })
    }

    /// # Panics
    /// Unless the condition has `n` labels or none; if a label is not a class.
    fn sample_with(
        &self,
        model: &V,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        let classes = match &condition.class_labels {
            Some(labels) => self.classes(labels, n),
            None => (0..n)
                .map(|_| rng.random_index(self.priors.len()))
                .collect(),
        };
        by_class(&classes, device, |class: usize, rows| {
            let (n, condition) = (rows.dims()[0], condition.select(rows));
            self.priors[class].sample_with(model, n, &condition, temperature, rng, device)
        })
    }
}

/// Calls `of_class` with each class that occurs and the indices of its rows. Row `i` of the result
/// is of `classes[i]`.
fn by_class<C: Copy + Ord, const D: usize>(
    classes: &[C],
    device: &Device,
    mut of_class: impl FnMut(C, Tensor<1, Int>) -> Tensor<D>,
) -> Tensor<D> {
    let mut rows: BTreeMap<C, Vec<u32>> = BTreeMap::new();
    for (row, class) in classes.iter().enumerate() {
        rows.entry(*class).or_default().push(row as u32);
    }
    let mut places = vec![0; classes.len()];
    for (place, row) in rows.values().flatten().enumerate() {
        places[*row as usize] = place as u32;
    }
    let parts = rows
        .iter()
        .map(|(class, rows)| of_class(*class, label_tensor(rows, device)));
    Tensor::cat(parts.collect(), 0).select(0, label_tensor(&places, device))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        ConditionKind, MlpVae, MlpVaeConfig, StandardNormal, VaeSampler, WithPrior,
        standard_normal_log_prob,
    };
    use aigc_core::{
        data::{ClassLabels, ImageShape},
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::TensorData};

    /// The mean of the prior of each class.
    const MEANS: [[f32; 2]; 3] = [[-10.0, 0.0], [0.0, 20.0], [30.0, 5.0]];
    const LABELS: [u32; 5] = [2, 0, 2, 1, 0];

    fn model(num_classes: Option<usize>) -> MlpVae {
        let condition = ConditionKind {
            num_classes,
            ..ConditionKind::default()
        };
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 2,
            condition,
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    /// Gaussians of standard deviation 1 around [`MEANS`].
    fn prior() -> ClassConditionalPrior<GaussianMixture> {
        let device = Device::flex();
        let around = |mean: [f32; 2]| {
            let mut prior = GaussianMixtureConfig::new(1).init(2, &device).unwrap();
            prior.mean = Param::from_tensor(Tensor::from_floats([mean], &device));
            prior
        };
        ClassConditionalPrior::new(MEANS.map(around).to_vec())
    }

    fn means(labels: &[u32]) -> Vec<f32> {
        let means = labels.iter().map(|label| MEANS[*label as usize]);
        means.flatten().collect()
    }

    #[test]
    fn densities_are_those_of_the_class() {
        let (model, prior, device) = (model(Some(3)), prior(), Device::flex());
        let z: Tensor<2> = Rng::new(3).normal([5, 2], &device) * 10.0;
        let log_prob = |condition| values(prior.log_prob_with(&model, z.clone(), &condition));
        let by_hand = |z: &[f32], mean: [f32; 2]| {
            let squares = (z[0] - mean[0]).powi(2) + (z[1] - mean[1]).powi(2);
            -0.5 * f64::from(squares) - (2.0 * std::f64::consts::PI).ln()
        };
        let rows = values(z.clone());
        let rows: Vec<&[f32]> = rows.chunks(2).collect();
        let of_class = |(z, label): (&&[f32], &u32)| by_hand(z, MEANS[*label as usize]) as f32;
        let expected: Vec<f32> = rows.iter().zip(&LABELS).map(of_class).collect();
        assert_close(
            &log_prob(Condition::classes(&LABELS, &device)),
            &expected,
            1e-4,
        );
        // Without classes, the mixture of all.
        let of_any = |z: &&[f32]| {
            let densities = MEANS.map(|mean| by_hand(z, mean));
            let largest = densities.into_iter().fold(f64::MIN, f64::max);
            let sum: f64 = densities.iter().map(|x| (x - largest).exp()).sum();
            (largest + (sum / 3.0).ln()) as f32
        };
        let expected: Vec<f32> = rows.iter().map(of_any).collect();
        assert_close(&log_prob(Condition::none()), &expected, 1e-4);
    }

    #[test]
    #[should_panic(expected = "`class_labels` has the value 3, expected 0 to 2")]
    fn labels_that_are_not_classes_are_named() {
        let (model, device) = (model(Some(3)), Device::flex());
        let condition = Condition::classes(&[2, 3], &device);
        prior().log_prob_with(&model, Tensor::zeros([2, 2], &device), &condition);
    }

    /// Its density is the label and a hundredth of the first number of the latent; its samples are
    /// the label.
    #[derive(Module, Debug)]
    struct Labels {
        dim: usize,
    }

    impl<V> ModelPrior<V> for Labels {
        fn check_model(&self, _: &V) -> Result<()> {
            Ok(())
        }

        fn log_prob_with(&self, _: &V, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
            let labels = condition.class_labels.clone().unwrap().float();
            labels + z.narrow(1, 0, 1).squeeze_dim::<1>(1) * 0.01
        }

        fn sample_with(
            &self,
            _: &V,
            n: usize,
            condition: &Condition,
            _: f64,
            _: &mut Rng,
            _: &Device,
        ) -> Tensor<2> {
            let labels = condition.class_labels.clone().unwrap().float();
            labels.reshape([n, 1]).repeat_dim(1, self.dim)
        }
    }

    /// The condition reaches the prior of each class, in the order of its rows, from every method
    /// of a model that uses the prior.
    #[test]
    fn conditions_are_passed_on() {
        let device = Device::flex();
        let labels = || Labels { dim: 2 };
        let prior = ClassConditionalPrior::new(vec![labels(), labels(), labels()]);
        let model = WithPrior::new(model(Some(3)), prior).unwrap();
        let condition = Condition::classes(&LABELS, &device);
        let z: Tensor<2> = Rng::new(3).normal([5, 2], &device);
        let first = values(z.clone().narrow(1, 0, 1));
        let density = |(label, z): (&u32, &f32)| *label as f32 + 0.01 * z;
        let densities: Vec<f32> = LABELS.iter().zip(&first).map(density).collect();
        let found = values(model.prior_log_prob(z.clone(), &condition));
        assert_close(&found, &densities, 1e-5);
        let drawn = model.sample_prior(5, &condition, 1.0, &mut Rng::new(1), &device);
        assert_eq!(values(drawn.narrow(1, 1, 1)), LABELS.map(|x| x as f32));

        let x = Rng::new(0).uniform([5, 1, 2, 2], 0.0, 1.0, &device);
        let posterior = model.encode_with(x, &condition);
        let own = model.model.kl(&posterior, z.clone(), &condition)[0].clone();
        let own = values(own + standard_normal_log_prob(z.clone()));
        let expected: Vec<f32> = own.iter().zip(&densities).map(|(kl, p)| kl - p).collect();
        let kl = model.kl(&posterior, z, &condition)[0].clone();
        assert_close(&values(kl), &expected, 1e-4);
    }

    #[test]
    fn samples_are_those_of_the_class() {
        let (model, device) = (model(Some(3)), Device::flex());
        let condition = Condition::classes(&LABELS, &device);
        let draw = |condition: &Condition, n| {
            let rng = &mut Rng::new(4);
            let z = prior().sample_with(&model, n, condition, 1.0, rng, &device);
            values(z)
        };
        let z = draw(&condition, 5);
        for (x, mean) in z.iter().zip(means(&LABELS)) {
            // Five standard deviations.
            assert!((x - mean).abs() < 5.0 && x != &mean, "{z:?}");
        }
        // Without classes, each is as likely: 200 of 600 samples, and five standard deviations.
        let z = draw(&Condition::none(), 600);
        for mean in MEANS {
            let near = |z: &&[f32]| (z[0] - mean[0]).hypot(z[1] - mean[1]) < 8.0;
            let count = z.chunks(2).filter(near).count() as f64;
            assert!(
                (count - 200.0).abs() < 5.0 * (600f64 * 2.0 / 9.0).sqrt(),
                "{count}"
            );
        }
        // The sampler passes the classes to the prior and to the decoder.
        let with_prior = WithPrior::new(model.clone(), prior()).unwrap();
        let sampler = VaeSampler::new(&with_prior, &device).with_temperature(0.0);
        let sampler = sampler.with_classes(ClassLabels::PerSample(LABELS.to_vec()));
        let drawn = sampler.with_batch_size(2).sample(5, 1).unwrap();
        let z = Tensor::from_data(TensorData::new(means(&LABELS), [5, 2]), &device);
        let expected = model.decode_with(z, &condition).mean();
        assert_close(&values(drawn.values), &values(expected), 1e-6);
    }

    /// The bound trains the priors of the classes in the batch.
    #[test]
    fn gradients_reach_the_priors_of_the_given_classes() {
        let device = Device::flex().autodiff();
        let model = WithPrior::new(model(Some(3)), prior()).unwrap().train();
        let x = Rng::new(0).uniform([4, 1, 2, 2], 0.0, 1.0, &device);
        let condition = Condition::classes(&[0, 2, 2, 0], &device);
        let output = model.forward(x.clone(), &condition, &mut Rng::new(3));
        let gradients = output.elbo(x).loss(1.0).backward();
        let trained = model.prior.priors.iter().map(|prior| {
            let gradient = prior.mean.val().grad(&gradients);
            gradient.is_some_and(|gradient| values(gradient).iter().all(|g| *g != 0.0))
        });
        assert_eq!(trained.collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn each_class_is_fitted_to_its_latents() {
        let device = Device::flex();
        let near = |(class, mean): (usize, &[f32; 2])| -> Vec<Vec<f32>> {
            let noise = Rng::new(class as u64).normal_vec(400);
            let latent = |noise: &[f32]| vec![mean[0] + noise[0], mean[1] + noise[1]];
            noise.chunks(2).map(latent).collect()
        };
        let mut latents: Vec<_> = MEANS.iter().enumerate().map(near).collect();
        let (config, em) = (GaussianMixtureConfig::new(1), EmConfig::default());
        let fit = |latents: &[_]| ClassConditionalPrior::fit(&config, latents, &em, &device);
        let found = fit(&latents).unwrap();
        for (prior, mean) in found.priors.iter().zip(MEANS) {
            // Five standard errors of 200 latents.
            assert_close(&values(prior.mean.val()), &mean, 5.0 / 200f32.sqrt());
        }
        assert!(fit(&[]).is_err());
        latents[1].clear();
        let message = fit(&latents).unwrap_err().to_string();
        assert!(
            message.contains("`latents[1]` is 0, expected at least 1"),
            "{message}"
        );
    }

    #[test]
    fn priors_of_other_models_are_rejected() {
        let normal = |dim| StandardNormal::new(dim).unwrap();
        for (classes, dims, expected) in [
            (Some(2), vec![2; 3], "`prior.priors` is 3, expected 2"),
            (None, vec![2], "`prior.priors` is 1, expected none"),
            (Some(2), vec![2, 4], "`prior.dim` is 4, expected 2"),
        ] {
            let prior = ClassConditionalPrior::new(dims.into_iter().map(normal).collect());
            let message = WithPrior::new(model(classes), prior).unwrap_err();
            let message = message.to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
