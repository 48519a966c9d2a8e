//! Adversarial training of autoencoders: VAE-GAN, VQGAN, and the first stage of latent diffusion.
//!
//! | file | content |
//! |---|---|
//! | `config` | the terms of the loss and their weights |
//! | `judge` | discriminator and perceptual distance of decoded samples |
//! | `adaptive` | the adaptive weight |

mod adaptive;
mod config;
mod judge;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::{AdversarialVaeObjectiveConfig, AdversarialWeight, ReconstructionLoss};

use super::add_auxiliary;
use crate::{
    Condition, ConditionKind, Vae, check_batch,
    condition::{BatchCondition, condition_method},
};
use adaptive::{Linearized, Paths};
use aigc_core::{
    Error, Result,
    adversarial::{PerceptualDistance, SampleDiscriminator},
    data::{ImageBatch, SampleBatch},
    params::visit_params,
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};
use judge::{Decoded, Judge, logits};
use std::marker::PhantomData;

/// A VAE and the discriminator of its samples, as one module to train.
#[derive(Module, Debug)]
pub struct AdversarialVae<V: Module, C: Module> {
    /// The VAE.
    pub vae: V,
    /// The network that distinguishes samples from reconstructions.
    pub discriminator: C,
}

/// Trains a VAE `V` and a discriminator `C` of its reconstructions against each other.
///
/// A step has the phases `vae` and `discriminator` on the same batch. The loss of the VAE is
///
/// ```text
/// reconstruction + kl_weight·KL + perceptual + features + adversarial_weight·adversarial
/// ```
///
/// and the model's [auxiliary terms](Vae::auxiliary_losses), such as codebook losses, in the
/// [scale of the reconstruction](ReconstructionLoss): means over the batch. The discriminator is
/// trained on the samples and on the reconstructions of the phase `vae`, which are not computed
/// again. Images reach discriminator and perceptual distance in `[−1, 1]`. Each phase has its own
/// optimizer ([`Trainer::with_optimizer`](aigc_core::train::Trainer::with_optimizer)).
///
/// A class-conditional discriminator gets the classes of the VAE if both have as many, also those
/// that the function of [`with_condition`](Self::with_condition) returns, and otherwise the labels
/// of the batch.
///
/// Unlike in Larsen et al. 2016, the encoder also gets the gradient of the adversarial term.
///
/// Metrics of `vae`: `reconstruction`, `kl`, `perceptual` and `features` (weighted), `adversarial`,
/// `adversarial_weight`, and the auxiliary terms. Metrics of `discriminator`: `real` and `fake`
/// (mean logits), `accuracy`.
#[derive(Debug)]
pub struct AdversarialVaeObjective<V, C, B = ImageBatch, const X: usize = 4, const Z: usize = 2>
where
    V: Vae<X, Z>,
{
    config: AdversarialVaeObjectiveConfig,
    perceptual: Option<Box<dyn PerceptualDistance<X>>>,
    /// Decoded samples of the VAE's phase, for each accumulated batch.
    generated: Vec<Option<Generated<X>>>,
    /// Posteriors of the batches since the last update, of models with a codebook.
    posteriors: Vec<V::Posterior>,
    condition: BatchCondition<B>,
    types: PhantomData<fn(C)>,
}

/// What the discriminator's phase needs of the VAE's phase on the same batch.
#[derive(Clone, Debug)]
struct Generated<const X: usize> {
    /// Decoded samples, without gradients.
    samples: Tensor<X>,
    /// The classes of the batch, for a class-conditional discriminator.
    class: Option<Tensor<1, Int>>,
}

/// Index of the VAE's phase.
const VAE_PHASE: usize = 0;

impl<V, C, B, const X: usize, const Z: usize> AdversarialVaeObjective<V, C, B, X, Z>
where
    V: Vae<X, Z>,
    C: SampleDiscriminator<X>,
    B: SampleBatch<X>,
{
    /// The objective with this configuration, checked against the networks of `model`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or if the VAE has no parameter with the path of
    /// the last layer.
    pub fn new(
        config: AdversarialVaeObjectiveConfig,
        model: &AdversarialVae<V, C>,
    ) -> Result<Self> {
        config.validate()?;
        if let AdversarialWeight::Adaptive { last_layer, .. } = &config.adversarial_weight {
            let mut paths = Paths::default();
            visit_params(&model.vae, &mut paths);
            if !paths.0.contains(last_layer) {
                let last = paths.0.last().map_or("", String::as_str);
                let expected = format!("the path of a parameter of the VAE, such as `{last}`");
                let field = "adversarial_weight.last_layer";
                return Err(Error::config(field, format!("`{last_layer}`"), expected));
            }
        }
        Ok(Self {
            config,
            perceptual: None,
            generated: Vec::new(),
            posteriors: Vec::new(),
            condition: BatchCondition::default(),
            types: PhantomData,
        })
    }

    condition_method!();

    /// Adds the perceptual distance of reconstructions to samples to the loss of the VAE.
    pub fn with_perceptual(mut self, distance: impl PerceptualDistance<X> + 'static) -> Self {
        self.perceptual = Some(Box::new(distance));
        self
    }

    /// Configuration of the objective.
    pub fn config(&self) -> &AdversarialVaeObjectiveConfig {
        &self.config
    }

    fn vae_losses(
        &mut self,
        model: &AdversarialVae<V, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let config = &self.config;
        let started = context.step >= config.start_step;
        let kind = model.vae.condition_kind();
        let condition = self.condition.of(kind, batch, &context.device)?;
        let range = batch.value_range();
        let x = batch.to_tensor(&context.device);
        let output = model.vae.forward(x.clone(), &condition, &mut context.rng);
        output.likelihood.check_range(range)?;
        let mean = output.likelihood.mean();
        let reconstruction = config.reconstruction.compare(&output.likelihood, &mean, &x);
        let values = model.vae.sample_shape().numel();
        let scale = config
            .reconstruction
            .auxiliary_scale(&output.likelihood, values);
        let kl = output.kl.into_iter().reduce(|sum, kl| sum + kl);
        let kl = kl.map_or_else(|| reconstruction.zeros_like(), |kl| kl.mean());
        let mut loss = reconstruction.clone() + kl.clone() * config.kl_weight;
        let mut metrics = vec![("reconstruction", reconstruction), ("kl", kl)];
        let class = classes(&model.discriminator, kind, &condition, batch, context)?;
        let judge = Judge {
            config,
            perceptual: self.perceptual.as_deref(),
            // Gradients flow through the discriminator, but not to its weights.
            discriminator: started.then(|| model.discriminator.clone().no_grad()),
            x: range.normalize(x.clone()),
            class: class.clone(),
            range,
        };
        let mut decoded = Decoded {
            z: output.z,
            condition,
            mean,
        };
        if !started {
            let similarity = judge.similarity(decoded.mean)?;
            loss = total(loss, &similarity);
            metrics.extend(similarity);
            self.keep(context.micro_batch, None);
        } else {
            let reconstructed = decoded.mean.clone();
            if config.prior_samples {
                let (condition, rng) = (&decoded.condition, &mut context.rng);
                let z = model
                    .vae
                    .sample_prior(batch.len(), condition, 1.0, rng, &context.device);
                decoded = decoded.and_prior(&model.vae, z);
            }
            match &config.adversarial_weight {
                AdversarialWeight::Fixed(weight) => {
                    let similarity = judge.similarity(reconstructed)?;
                    loss = total(loss, &similarity);
                    metrics.extend(similarity);
                    let adversarial = judge.adversarial(decoded.mean.clone());
                    loss = loss + adversarial.clone() * *weight;
                    metrics.push(("adversarial", adversarial));
                }
                AdversarialWeight::Adaptive { last_layer, factor } => {
                    let mut terms = Vec::new();
                    let similarity = Linearized::new(reconstructed, |mean| {
                        terms = judge.similarity(mean)?;
                        Ok(total(loss.zeros_like(), &terms))
                    })?;
                    metrics.append(&mut terms);
                    let adversarial =
                        Linearized::new(decoded.mean.clone(), |mean| Ok(judge.adversarial(mean)))?;
                    let weight = config.reconstruction.adaptive_weight(
                        &model.vae,
                        last_layer,
                        &x,
                        &decoded,
                        [&similarity.gradient, &adversarial.gradient],
                    ) * *factor;
                    metrics.push(("adversarial", adversarial.value.clone()));
                    metrics.push(("adversarial_weight", weight.clone()));
                    loss = loss + similarity.term() + adversarial.term() * weight;
                }
            }
            let samples = decoded.mean.detach();
            self.keep(context.micro_batch, Some(Generated { samples, class }));
        }
        let auxiliary = model.vae.auxiliary_losses(&output.posterior).into_iter();
        let auxiliary = auxiliary.map(|(name, term)| (name, term * scale)).collect();
        let kept = model.vae.codebook_posterior(output.posterior);
        self.posteriors.extend(kept);
        Ok(add_auxiliary(LossOutput { loss, metrics }, auxiliary))
    }

    /// Keeps the decoded samples of an accumulated batch for the discriminator's phase.
    fn keep(&mut self, slot: usize, generated: Option<Generated<X>>) {
        self.generated
            .resize(self.generated.len().max(slot + 1), None);
        self.generated[slot] = generated;
    }

    fn discriminator_losses(
        &mut self,
        model: &AdversarialVae<V, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        if context.step < self.config.start_step {
            // A loss that no weight has a gradient of.
            let constant = Tensor::<1>::zeros([1], &context.device).require_grad();
            return Ok(LossOutput::new(constant * 1.0));
        }
        let x = batch.to_tensor(&context.device);
        let slot = self.generated.get_mut(context.micro_batch);
        let generated = match slot.and_then(Option::take) {
            Some(generated) => generated,
            None => {
                let kind = model.vae.condition_kind();
                let condition = self.condition.of(kind, batch, &context.device)?;
                let vae = model.vae.clone().no_grad();
                let output = vae.forward(x.clone(), &condition, &mut context.rng);
                Generated {
                    samples: output.likelihood.mean().detach(),
                    class: classes(&model.discriminator, kind, &condition, batch, context)?,
                }
            }
        };
        let Generated {
            samples: fake,
            class,
        } = generated;
        let range = batch.value_range();
        let [real, fake] =
            [x, fake].map(|x| logits(&model.discriminator, range.normalize(x), class.as_ref()));
        let loss = self.config.loss;
        let total = loss.discriminator_loss(real.clone(), fake.clone());
        Ok(LossOutput::new(total)
            .with_metric("real", real.clone().detach().mean())
            .with_metric("fake", fake.clone().detach().mean())
            .with_metric("accuracy", loss.accuracy(real, fake)))
    }
}

impl<V, C, B, const X: usize, const Z: usize> Objective for AdversarialVaeObjective<V, C, B, X, Z>
where
    V: Vae<X, Z> + ModuleDisplay + 'static,
    C: SampleDiscriminator<X> + 'static,
    B: SampleBatch<X>,
{
    type Model = AdversarialVae<V, C>;
    type Batch = B;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("vae").for_field("vae"),
            Phase::new("discriminator")
                .for_field("discriminator")
                .reuse_batch(),
        ]
    }

    fn losses(
        &mut self,
        model: &AdversarialVae<V, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        check_batch(&model.vae, batch)?;
        match context.phase {
            VAE_PHASE => self.vae_losses(model, batch, context),
            _ => self.discriminator_losses(model, batch, context),
        }
    }

    fn after_update(
        &mut self,
        model: AdversarialVae<V, C>,
        phase: usize,
    ) -> Result<AdversarialVae<V, C>> {
        if phase != VAE_PHASE {
            return Ok(model);
        }
        let posteriors = std::mem::take(&mut self.posteriors);
        Ok(AdversarialVae {
            vae: model.vae.update_codebook(&posteriors),
            ..model
        })
    }
}

/// The classes of a batch, for a class-conditional discriminator: those of the condition of a VAE
/// that takes conditions of `kind`, if it has as many classes, or else the labels of the batch.
fn classes<C: SampleDiscriminator<X>, const X: usize>(
    discriminator: &C,
    kind: ConditionKind,
    condition: &Condition,
    batch: &impl SampleBatch<X>,
    context: &StepContext,
) -> Result<Option<Tensor<1, Int>>> {
    let num_classes = discriminator.num_classes();
    if condition.class_labels.is_some() && kind.num_classes == num_classes {
        return Ok(condition.class_labels.clone());
    }
    let kind = ConditionKind {
        num_classes,
        ..ConditionKind::default()
    };
    Ok(kind.of_batch(batch, &context.device)?.class_labels)
}

/// `loss` and all terms.
fn total(loss: Tensor<1>, terms: &[(&'static str, Tensor<1>)]) -> Tensor<1> {
    (terms.iter()).fold(loss, |loss, (_, term)| loss + term.clone())
}
