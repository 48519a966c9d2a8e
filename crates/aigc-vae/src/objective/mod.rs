//! The objective of a variational autoencoder.
//!
//! | file | content |
//! |---|---|
//! | `adversarial` | VAE-GAN and VQGAN |
//! | `factor` | FactorVAE |
//! | `iwae` | importance-weighted bounds and their gradient estimators |
//! | `kl` | the weight or the capacity of the divergence |
//! | `mmd` | the mean discrepancy of latents and prior (InfoVAE, WAE-MMD) |
//! | `total_correlation` | β-TCVAE |

mod adversarial;
mod factor;
mod iwae;
mod kl;
mod mmd;
mod total_correlation;
#[cfg(all(test, feature = "flex"))]
pub(crate) mod toy;

pub use adversarial::{
    AdversarialVae, AdversarialVaeObjective, AdversarialVaeObjectiveConfig, AdversarialWeight,
    ReconstructionLoss,
};
pub use factor::{
    FactorVae, FactorVaeObjective, FactorVaeObjectiveConfig, LatentDiscriminator,
    LatentDiscriminatorConfig, permute_dims,
};
pub use iwae::{GradientEstimator, IwaeObjective, IwaeObjectiveConfig, ReparameterizedPosterior};
pub use kl::{KlCycle, KlTerm, KlWeight};
pub use mmd::{Mmd, MmdKernel};
pub use total_correlation::{
    BetaTcVaeObjective, BetaTcVaeObjectiveConfig, KlDecomposition, MinibatchEstimator,
};

use crate::{
    Vae, VaeOutput, check_batch,
    condition::{BatchCondition, condition_method},
};
use aigc_core::{
    Result, check,
    data::{ImageBatch, SampleBatch},
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::Tensor;
use std::fmt;

/// Minimises `−E_q[log p(x|z)] + β·KL(q(z|x) ‖ p(z))` and the [auxiliary
/// terms](Vae::auxiliary_losses) of a [`Vae`].
///
/// Optional settings change the terms: [`with_kl_term`](Self::with_kl_term),
/// [`with_free_bits`](Self::with_free_bits) and [`with_mmd`](Self::with_mmd), in any order.
///
/// The metrics are means over the batch: `reconstruction` (`−log p(x|z)`) and `kl` in nats, both
/// without weights, the latter not [where it has no effect](Self::with_mmd), `mmd` where it is set,
/// and the auxiliary terms.
pub struct VaeObjective<V, B = ImageBatch, const X: usize = 4, const Z: usize = 2>
where
    V: Vae<X, Z>,
{
    kl: KlTerm,
    free_bits: f64,
    mmd: Option<Mmd>,
    condition: BatchCondition<B>,
    /// Posteriors of the batches since the last update, of models with a codebook.
    posteriors: Vec<V::Posterior>,
}

impl<V: Vae<X, Z>, B, const X: usize, const Z: usize> fmt::Debug for VaeObjective<V, B, X, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaeObjective")
            .field("kl", &self.kl)
            .field("free_bits", &self.free_bits)
            .field("mmd", &self.mmd)
            .field("condition", &self.condition)
            .finish_non_exhaustive()
    }
}

impl<V: Vae<X, Z>, B, const X: usize, const Z: usize> VaeObjective<V, B, X, Z> {
    /// An objective with this weight of the divergence.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the weight is out of range.
    pub fn new(beta: KlWeight) -> Result<Self> {
        beta.validate()?;
        Ok(Self {
            kl: beta.into(),
            free_bits: 0.0,
            mmd: None,
            condition: BatchCondition::default(),
            posteriors: Vec::new(),
        })
    }

    /// Sets how the divergence enters the loss, in place of its weight.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if a value is out of range.
    pub fn with_kl_term(mut self, term: impl Into<KlTerm>) -> Result<Self> {
        self.kl = term.into();
        self.kl.validate()?;
        Ok(self)
    }

    /// Sets the free bits `λ`: nats per group of latents that the divergence does not count, so
    /// that the latents carry at least so much information. In the loss, the divergence of each
    /// group, averaged over the batch, is `max(λ, KL)` (Kingma et al. 2016,
    /// <https://arxiv.org/abs/1606.04934>). The groups are those of [`Vae::kl`]: a model with one
    /// group has one limit for all its latent dimensions together. 0, the default, turns it off.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) unless `nats` is finite and at least 0.
    pub fn with_free_bits(mut self, nats: f64) -> Result<Self> {
        check::non_negative("free_bits", nats)?;
        self.free_bits = nats;
        Ok(self)
    }

    /// Adds the mean discrepancy between the latents of a batch and the prior, and multiplies the
    /// term of the divergence by `1 − α` (InfoVAE, WAE-MMD). With a weight of 0, the divergence is
    /// not a metric either: it may be infinite.
    ///
    /// The term trains the encoder, and a learned prior where a drawn latent is a differentiable
    /// function of the prior's weights: flows, the means and standard deviations of a mixture with
    /// diagonal covariances, and the VampPrior. It does not train the weights of a mixture's
    /// components, nor mixtures with full covariances.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if a value is out of range.
    pub fn with_mmd(mut self, mmd: Mmd) -> Result<Self> {
        mmd.validate()?;
        self.mmd = Some(mmd);
        Ok(self)
    }

    condition_method!();
}

impl<V, B, const X: usize, const Z: usize> Objective for VaeObjective<V, B, X, Z>
where
    V: Vae<X, Z> + 'static,
    B: SampleBatch<X>,
{
    type Model = V;
    type Batch = B;

    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the samples do not have the shape of the
    /// model's samples, the likelihood is not one of values in their range, or a batch is too small
    /// for the mean discrepancy; [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if a
    /// conditional model gets no labels or unknown ones, or vectors or hidden states are missing or
    /// do not fit the model; errors of the function of
    /// [`with_condition`](Self::with_condition).
    fn losses(&mut self, model: &V, batch: &B, context: &mut StepContext) -> Result<LossOutput> {
        check_batch(model, batch)?;
        self.mmd
            .iter()
            .try_for_each(|mmd| mmd.check_batch(batch.len()))?;
        let device = &context.device;
        let x = batch.to_tensor(device);
        let condition = self.condition.of(model.condition_kind(), batch, device)?;
        let output = model.forward(x.clone(), &condition, &mut context.rng);
        let VaeOutput {
            posterior,
            z,
            likelihood,
            kl,
        } = output;
        likelihood.check_range(batch.value_range())?;

        let reconstruction = -likelihood.log_prob(x).mean();
        let groups: Vec<Tensor<1>> = kl.into_iter().map(Tensor::mean).collect();
        let kl = sum(groups.iter().cloned(), &reconstruction);
        let counted = match self.free_bits > 0.0 {
            true => sum(
                groups.into_iter().map(|kl| kl.clamp_min(self.free_bits)),
                &reconstruction,
            ),
            false => kl.clone(),
        };
        let kl_loss = self.kl.loss(counted, context.step);
        let mut metrics = vec![("reconstruction", reconstruction.clone())];
        // Without a weight, the divergence may be infinite; metrics have to be finite.
        if self.mmd.as_ref().is_none_or(|mmd| mmd.kl_weight() > 0.0) {
            metrics.push(("kl", kl));
        }
        let mut loss = reconstruction;
        match &self.mmd {
            None => loss = loss + kl_loss,
            Some(mmd) => {
                if mmd.kl_weight() > 0.0 {
                    loss = loss + kl_loss * mmd.kl_weight();
                }
                let rng = &mut context.rng;
                let prior = model.sample_prior(z.dims()[0], &condition, 1.0, rng, device);
                let distance = mmd.estimate(z.flatten(1, Z - 1), prior.flatten(1, Z - 1));
                loss = loss + distance.clone() * mmd.weight();
                metrics.push(("mmd", distance));
            }
        }
        let auxiliary = model.auxiliary_losses(&posterior);
        self.posteriors.extend(model.codebook_posterior(posterior));
        Ok(add_auxiliary(LossOutput { loss, metrics }, auxiliary))
    }

    fn after_update(&mut self, model: V, _phase: usize) -> Result<V> {
        Ok(model.update_codebook(&std::mem::take(&mut self.posteriors)))
    }
}

/// Adds the auxiliary terms of a model to the loss, and as metrics.
fn add_auxiliary(mut output: LossOutput, terms: Vec<(&'static str, Tensor<1>)>) -> LossOutput {
    for (name, term) in terms {
        output.loss = output.loss + term.clone();
        output.metrics.push((name, term));
    }
    output
}

/// The sum of the terms, `[1]`; 0 without terms, on the device of `like`.
fn sum(terms: impl Iterator<Item = Tensor<1>>, like: &Tensor<1>) -> Tensor<1> {
    terms
        .reduce(|sum, term| sum + term)
        .unwrap_or_else(|| Tensor::zeros([1], &like.device()))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::{
        toy::{POINTS, Points, Toy},
        *,
    };
    use crate::{Condition, ConditionKind, Likelihood, LikelihoodKind, MlpVae, MlpVaeConfig};
    use aigc_core::{
        adversarial::{PatchDiscriminator, PatchDiscriminatorConfig},
        checkpoint::RunDir,
        data::{
            DataLoader, DataLoaderConfig, Image, ImageShape, InMemory, SampleShape, collate_images,
        },
        encoder::Posterior,
        nn::{Linear, LinearConfig},
        rng::{InitWeights, Rng},
        train::{Event, Trainer, TrainerConfig},
    };
    use burn::{
        module::{Module, Param},
        tensor::{Device, TensorData},
    };

    const CODES: usize = 4;

    /// A model of two-dimensional samples with a codebook, whose codes follow the means of the
    /// latents assigned to them.
    #[derive(Module, Debug)]
    struct Quantising {
        encoder: Linear,
        decoder: Linear,
        codes: Param<Tensor<2>>,
    }

    /// The posterior: the nearest codes in place of the encoder's outputs.
    #[derive(Clone, Debug)]
    struct Quantised {
        encoded: Tensor<2>,
        one_hot: Tensor<2>,
        codes: Tensor<2>,
    }

    impl Posterior<2> for Quantised {
        /// Straight-through estimator: the value of the code, and the gradient of the encoder's
        /// output.
        fn sample(&self, _rng: &mut Rng) -> Tensor<2> {
            self.encoded.clone() + (self.codes.clone() - self.encoded.clone()).detach()
        }

        /// The codes are functions of the sample.
        fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<2>, Tensor<1>) {
            let batch = self.encoded.dims()[0];
            (
                self.sample(rng),
                Tensor::zeros([batch], &self.encoded.device()),
            )
        }

        fn mode(&self) -> Tensor<2> {
            self.codes.clone()
        }

        fn kl(&self) -> Tensor<1> {
            let batch = self.encoded.dims()[0];
            Tensor::full([batch], (CODES as f64).ln(), &self.encoded.device())
        }
    }

    impl Vae<2, 2> for Quantising {
        type Posterior = Quantised;

        fn encode(&self, x: Tensor<2>) -> Quantised {
            let encoded = self.encoder.forward(x);
            let codes = self.codes.val();
            let distance = (encoded.clone() - codes.clone().transpose()).abs();
            let nearest = distance.argmin(1).squeeze_dim::<1>(1);
            let one_hot = Tensor::eye(CODES, &encoded.device()).select(0, nearest);
            Quantised {
                codes: one_hot.clone().matmul(codes),
                encoded,
                one_hot,
            }
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            Likelihood::new(LikelihoodKind::Gaussian(0.5), self.decoder.forward(z))
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[1])
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[2])
        }

        fn auxiliary_losses(&self, posterior: &Quantised) -> Vec<(&'static str, Tensor<1>)> {
            let gap = posterior.encoded.clone() - posterior.codes.clone().detach();
            vec![("commitment", (gap.clone() * gap).mean() * 0.25)]
        }

        fn codebook_posterior(&self, posterior: Quantised) -> Option<Quantised> {
            Some(Quantised {
                encoded: posterior.encoded.inner(),
                one_hot: posterior.one_hot.inner(),
                codes: posterior.codes.inner(),
            })
        }

        fn update_codebook(mut self, posteriors: &[Quantised]) -> Self {
            for posterior in posteriors {
                let assigned = posterior.one_hot.clone();
                let count = assigned.clone().sum_dim(0).transpose();
                let sums = assigned.transpose().matmul(posterior.encoded.clone());
                let used = count.clone().greater_elem(0.5);
                self.codes = self.codes.map(|codes| {
                    let old = codes.inner();
                    let mean = sums / count.clamp_min(1.0);
                    let moved = old.clone() * 0.9 + mean * 0.1;
                    Tensor::from_inner(old.mask_where(used, moved))
                });
            }
            self
        }
    }

    #[test]
    fn quantised_posterior_trains_with_codebook_updates() {
        let device = Device::flex();
        let codes = TensorData::new(vec![-1.5f32, -0.5, 0.5, 1.5], [CODES, 1]);
        let model = Quantising {
            encoder: LinearConfig::new(2, 1).init(&device),
            decoder: LinearConfig::new(1, 2).init(&device),
            codes: Param::from_tensor(Tensor::from_data(codes, &device)).no_grad(),
        };
        let before: Vec<f32> = model.codes.val().into_data().iter().collect();
        let points = (0..64).map(|i| match i % 2 {
            0 => [1.0, 1.0],
            _ => [-1.0, -1.0],
        });
        let config = DataLoaderConfig {
            batch_size: 16,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(points.collect()), Points, config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let mut reports = Vec::new();
        let trained = Trainer::new(TrainerConfig {
            learning_rate: 2e-2,
            ..TrainerConfig::new(150)
        })
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                reports.push(report.losses.clone());
            }
        })
        .fit(
            VaeObjective::new(KlWeight::default()).unwrap(),
            model,
            &loader,
            &run,
        )
        .unwrap();
        let value = |step: usize, name: &str| {
            let found = reports[step].iter().find(|(n, _)| n == name);
            found
                .unwrap_or_else(|| panic!("{name}: {:?}", reports[step]))
                .1
        };
        let sum = value(0, "reconstruction") + value(0, "kl") + value(0, "commitment");
        assert!((value(0, "loss") - sum).abs() < 1e-5, "{:?}", reports[0]);
        assert!((value(0, "kl") - (CODES as f64).ln()).abs() < 1e-6);
        let last = reports.len() - 1;
        // Both points are reconstructed exactly: `½·2·ln(2π·σ²)` per sample.
        let best = (2.0 * std::f64::consts::PI * 0.25).ln();
        let reconstruction = value(last, "reconstruction");
        assert!(reconstruction < best + 0.3, "{reconstruction} {best}");
        let after: Vec<f32> = trained.model.codes.val().into_data().iter().collect();
        assert!(before != after, "{after:?}");
    }

    type ToyObjective = VaeObjective<Toy, Points, 2, 2>;

    fn objective(beta: f64) -> ToyObjective {
        VaeObjective::new(KlWeight::new(beta)).unwrap()
    }

    /// The loss and the metrics of [`POINTS`] in a step.
    fn losses(objective: &mut ToyObjective, model: &Toy, step: usize) -> LossOutput {
        let mut context = context(step);
        let batch = Points(POINTS.to_vec());
        objective.losses(model, &batch, &mut context).unwrap()
    }

    fn context(step: usize) -> StepContext {
        StepContext::new(step, 100, Device::flex().autodiff(), Rng::new(3))
    }

    fn metric(output: &LossOutput, name: &str) -> f64 {
        let found = output.metrics.iter().find(|(known, _)| *known == name);
        value(&found.unwrap_or_else(|| panic!("no {name}")).1)
    }

    fn value(x: &Tensor<1>) -> f64 {
        f64::from(x.clone().into_scalar::<f32>())
    }

    /// The gradient of the loss with respect to the model's only weight.
    fn gradient(output: &LossOutput, model: &Toy) -> f64 {
        let gradients = output.loss.backward();
        value(&model.scale.val().grad(&gradients).unwrap())
    }

    #[test]
    fn loss_is_reconstruction_and_weighted_kl() {
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), 2);
        let output = losses(&mut objective(0.3), &model, 0);
        let kl: f64 = Toy::group_kl().iter().sum();
        assert!((metric(&output, "kl") - kl).abs() < 1e-6);
        let expected = metric(&output, "reconstruction") + 0.3 * kl;
        assert!((value(&output.loss) - expected).abs() < 1e-5);
        assert_eq!(output.metrics.len(), 2);
    }

    /// Each group counts with at least the free bits; the reported divergence is the true one.
    #[test]
    fn free_bits_limit_the_kl_of_each_group() {
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), 2);
        let [first, second] = Toy::group_kl();
        let between = 0.5 * (first + second);
        let mut limited = objective(2.0).with_free_bits(between).unwrap();
        let output = losses(&mut limited, &model, 0);
        assert!((metric(&output, "kl") - first - second).abs() < 1e-6);
        let counted = between.max(first) + between.max(second);
        let expected = metric(&output, "reconstruction") + 2.0 * counted;
        assert!((value(&output.loss) - expected).abs() < 1e-5);
        // One group has one limit.
        let single = Toy::new(LikelihoodKind::Gaussian(0.5), 1);
        let output = losses(&mut limited, &single, 0);
        let expected = metric(&output, "reconstruction") + 2.0 * (first + second);
        assert!((value(&output.loss) - expected).abs() < 1e-5);
        // Below the limit, the divergence has no gradient.
        let mut unlimited = objective(2.0).with_free_bits(100.0).unwrap();
        let none = gradient(&losses(&mut objective(0.0), &model, 0), &model);
        let found = gradient(&losses(&mut unlimited, &model, 0), &model);
        assert!(
            (found - none).abs() < 1e-5 * none.abs().max(1.0),
            "{found} {none}"
        );
    }

    #[test]
    fn capacity_holds_the_kl_at_a_rising_value() {
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), 2);
        let kl: f64 = Toy::group_kl().iter().sum();
        let mut held = objective(1.0)
            .with_kl_term(KlTerm::Capacity {
                gamma: 10.0,
                max_nats: 2.0 * kl,
                steps: 4,
            })
            .unwrap();
        for (step, capacity) in [(0, 0.5 * kl), (1, kl), (3, 2.0 * kl), (99, 2.0 * kl)] {
            let output = losses(&mut held, &model, step);
            let expected = metric(&output, "reconstruction") + 10.0 * (kl - capacity).abs();
            assert!((value(&output.loss) - expected).abs() < 2e-5, "step {step}");
        }
    }

    #[test]
    fn mmd_adds_to_a_smaller_kl() {
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), 1);
        for (alpha, lambda) in [(0.0, 5.0), (0.25, 2.0), (-1.0, 3.0), (1.0, 7.0)] {
            let mut info = objective(1.0).with_mmd(Mmd::new(alpha, lambda)).unwrap();
            let output = losses(&mut info, &model, 0);
            let named = |name: &str| output.metrics.iter().any(|(known, _)| *known == name);
            assert_eq!(named("kl"), alpha < 1.0);
            let kl = if alpha < 1.0 {
                metric(&output, "kl")
            } else {
                0.0
            };
            let expected = metric(&output, "reconstruction")
                + (1.0 - alpha) * kl
                + (alpha + lambda - 1.0) * metric(&output, "mmd");
            assert!(
                (value(&output.loss) - expected).abs() < 1e-5,
                "{alpha} {lambda}"
            );
        }
        let batch = Points(vec![[0.1, 0.2]]);
        let mut wae = objective(1.0).with_mmd(Mmd::wae(1.0)).unwrap();
        let refused = wae.losses(&model, &batch, &mut context(0)).unwrap_err();
        assert!(
            refused.to_string().contains("`batch_size` is 1"),
            "{refused}"
        );
    }

    #[test]
    fn settings_commute() {
        let model = Toy::new(LikelihoodKind::Gaussian(0.5), 2);
        let term = KlTerm::Capacity {
            gamma: 3.0,
            max_nats: 1.0,
            steps: 0,
        };
        let mmd = || Mmd::new(0.5, 2.0);
        let mut one = (objective(1.0).with_kl_term(term))
            .and_then(|o| o.with_free_bits(0.2))
            .and_then(|o| o.with_mmd(mmd()))
            .unwrap();
        let mut other = (objective(9.0).with_mmd(mmd()))
            .and_then(|o| o.with_free_bits(0.2))
            .and_then(|o| o.with_kl_term(term))
            .unwrap();
        let [a, b] = [&mut one, &mut other].map(|o| value(&losses(o, &model, 0).loss));
        assert_eq!(a, b);
        let refused = objective(1.0).with_free_bits(-1.0).unwrap_err().to_string();
        assert!(refused.contains("`free_bits` is -1"), "{refused}");
        assert!(objective(1.0).with_kl_term(KlWeight::new(-1.0)).is_err());
        assert!(objective(1.0).with_mmd(Mmd::new(2.0, 1.0)).is_err());
    }

    const SHAPE: ImageShape = ImageShape {
        channels: 1,
        height: 6,
        width: 6,
    };

    fn mlp(condition: ConditionKind) -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            condition,
            ..MlpVaeConfig::new(SHAPE)
        };
        let model = config.init(&Device::flex().autodiff()).unwrap();
        model.init_weights(1)
    }

    /// Two images with these labels.
    fn images(labels: [Option<u32>; 2]) -> ImageBatch {
        let image = |(value, label): (u8, Option<u32>)| Image {
            shape: SHAPE,
            pixels: vec![value; SHAPE.numel()],
            label,
        };
        collate_images([20, 200].into_iter().zip(labels).map(image).collect())
    }

    /// The loss of the first step.
    fn loss<O: Objective>(mut objective: O, model: &O::Model, batch: &O::Batch) -> Result<f64> {
        let output = objective.losses(model, batch, &mut context(0))?;
        Ok(value(&output.loss))
    }

    /// A vector of two values and `tokens` vectors of five for each of two samples.
    fn condition(
        tokens: usize,
        scale: f64,
    ) -> impl Fn(&ImageBatch, &Device) -> Result<Condition> + Send + Sync + 'static {
        move |_: &ImageBatch, device: &Device| {
            assert!(!device.is_autodiff());
            Ok(Condition {
                vectors: Some(Rng::new(5).normal([2, 2], device) * scale),
                encoder_hidden_states: Some(Rng::new(4).normal([2, tokens, 5], device) * scale),
                ..Condition::none()
            })
        }
    }

    /// Every objective conditions its model on what the function returns for a batch.
    #[test]
    fn conditions_of_batches_are_passed_on() {
        let device = Device::flex().autodiff();
        let model = mlp(ConditionKind {
            vector_dim: Some(2),
            cross_attention_dim: Some(5),
            ..ConditionKind::default()
        });
        let factor = FactorVae {
            vae: model.clone(),
            discriminator: LatentDiscriminatorConfig {
                hidden_dim: 8,
                num_layers: 1,
                ..LatentDiscriminatorConfig::new(3)
            }
            .init(&device)
            .unwrap()
            .init_weights(2),
        };
        let adversarial = AdversarialVae {
            vae: model.clone(),
            discriminator: PatchDiscriminatorConfig {
                channels: 4,
                num_layers: 1,
                ..PatchDiscriminatorConfig::new(SHAPE)
            }
            .init(&device)
            .unwrap()
            .init_weights(2),
        };
        let batch = images([None; 2]);
        let elbo = || VaeObjective::<MlpVae>::new(KlWeight::default()).unwrap();
        let losses = |scale: f64| {
            let iwae = IwaeObjective::<MlpVae>::new(IwaeObjectiveConfig::new(2)).unwrap();
            let total_correlation = BetaTcVaeObjectiveConfig::new(10);
            let total_correlation = BetaTcVaeObjective::<MlpVae>::new(total_correlation).unwrap();
            let of_factor = FactorVaeObjectiveConfig::new(1.0);
            let of_factor = FactorVaeObjective::<MlpVae>::new(of_factor, &factor).unwrap();
            let of_adversarial = AdversarialVaeObjective::<MlpVae, PatchDiscriminator>::new(
                AdversarialVaeObjectiveConfig {
                    start_step: 1000,
                    ..AdversarialVaeObjectiveConfig::default()
                },
                &adversarial,
            )
            .unwrap();
            let condition = || condition(4, scale);
            [
                loss(elbo().with_condition(condition()), &model, &batch),
                loss(iwae.with_condition(condition()), &model, &batch),
                loss(
                    total_correlation.with_condition(condition()),
                    &model,
                    &batch,
                ),
                loss(of_factor.with_condition(condition()), &factor, &batch),
                loss(
                    of_adversarial.with_condition(condition()),
                    &adversarial,
                    &batch,
                ),
            ]
            .map(Result::unwrap)
        };
        let (zeros, ones) = (losses(0.0), losses(1.0));
        for (index, (zeros, ones)) in zeros.iter().zip(&ones).enumerate() {
            assert!((zeros - ones).abs() > 1e-4, "{index}: {zeros} {ones}");
        }
        // The null condition is zeros.
        let x = batch.to_tensor(&device);
        let output = model.forward(x.clone(), &Condition::none(), &mut context(0).rng);
        let without = value(&output.elbo(x).loss(1.0));
        assert!((zeros[0] - without).abs() < 1e-4, "{} {without}", zeros[0]);
    }

    /// A model would work without what is missing or does not fit.
    #[test]
    fn conditions_that_do_not_fit_are_named() {
        let of_kind = |kind: ConditionKind, set: bool, labels| {
            let objective = VaeObjective::<MlpVae>::new(KlWeight::default()).unwrap();
            let objective = match set {
                true => objective.with_condition(|_: &ImageBatch, device: &Device| {
                    let states = Rng::new(4).normal([2, 1, 5], device);
                    Ok(Condition::hidden_states(states))
                }),
                false => objective,
            };
            let found = loss(objective, &mlp(kind), &images(labels));
            found.unwrap_err().to_string()
        };
        let attention = |width| ConditionKind {
            cross_attention_dim: Some(width),
            ..ConditionKind::default()
        };
        let classes = ConditionKind {
            num_classes: Some(3),
            ..ConditionKind::default()
        };
        for (found, expected) in [
            (
                of_kind(attention(5), false, [None; 2]),
                "`encoder_hidden_states` is missing, expected of width 5: call `with_condition`",
            ),
            (
                of_kind(attention(4), true, [None; 2]),
                "`encoder_hidden_states` is [2, 1, 5], expected [2, tokens, 4]",
            ),
            (
                of_kind(ConditionKind::default(), true, [None; 2]),
                "`encoder_hidden_states` is given, expected none, since the model has no \
                 `cross_attention_dim`",
            ),
            (
                of_kind(classes, false, [Some(1), None]),
                "`labels` is missing",
            ),
            (
                of_kind(classes, false, [Some(1), Some(3)]),
                "`labels` is 3, expected below 3, the number of classes of the model",
            ),
        ] {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn likelihood_of_other_values_is_refused() {
        let model = Toy::new(LikelihoodKind::Bernoulli, 2);
        let batch = Points(POINTS.to_vec());
        let refused = objective(1.0)
            .losses(&model, &batch, &mut context(0))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("`likelihood` is bernoulli"), "{refused}");
    }
}
