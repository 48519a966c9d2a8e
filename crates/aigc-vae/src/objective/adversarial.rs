//! Adversarial training of autoencoders: VAE-GAN, VQGAN, and the first stage of latent diffusion.

use super::iwae::add_auxiliary;
use crate::{Condition, ConditionKind, Likelihood, Vae, check_batch};
use aigc_core::{
    Error, Result,
    adversarial::{AdversarialLoss, PerceptualDistance, SampleDiscriminator, feature_distance},
    check,
    data::{ImageBatch, SampleBatch, ValueRange},
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::{
    module::{Module, ModuleDisplay, Param},
    tensor::{Gradients, Int, Tensor},
};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// How a reconstruction is compared with the sample, besides the discriminator.
///
/// The model's [auxiliary losses](Vae::auxiliary_losses), such as those of a codebook, are brought
/// to its scale. For samples of `n` values:
///
/// | | reconstruction | auxiliary losses |
/// |---|---|---|
/// | `NegativeLogLikelihood` | a sum over values, in nats | those of the model, in nats |
/// | `L1`, `L2` | a mean over values | those of the model, divided by `n / (8σ²)` or `n` |
///
/// `L1` and `L2` compare values in the range of the batch, `[0, 1]` for images.
///
/// For a Gaussian likelihood with a fixed standard deviation σ, `n / (8σ²)` is the factor by which a
/// [`VqModel`](crate::VqModel) multiplies its losses. Divided by it, they are means over the values
/// of the latents, as in VQGAN (Esser et al. 2021, <https://arxiv.org/abs/2012.09841>). VQGAN
/// compares images in `[−1, 1]`: beside values in `[0, 1]`, where `L1` is half and `L2` a quarter of
/// that, the losses of the codes have twice and four times the paper's weight. The divisor is `n`
/// for other likelihoods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReconstructionLoss {
    /// `−log p(x|z)` in nats, the sum over the values of a sample.
    #[default]
    NegativeLogLikelihood,
    /// The absolute difference of the mean of `p(x|z)`, averaged over the values of a sample; that
    /// of VQGAN.
    L1,
    /// The squared difference of the mean of `p(x|z)`, averaged over the values of a sample.
    L2,
}

impl ReconstructionLoss {
    /// The loss, averaged over the batch, `[1]`. `mean` is that of the likelihood.
    fn compare<const X: usize>(
        self,
        likelihood: &Likelihood<X>,
        mean: &Tensor<X>,
        x: &Tensor<X>,
    ) -> Tensor<1> {
        match self {
            ReconstructionLoss::NegativeLogLikelihood => -likelihood.log_prob(x.clone()).mean(),
            ReconstructionLoss::L1 => (mean.clone() - x.clone()).abs().mean(),
            ReconstructionLoss::L2 => {
                let difference = mean.clone() - x.clone();
                (difference.clone() * difference).mean()
            }
        }
    }

    /// The factor of auxiliary losses, for samples of `values` values.
    fn auxiliary_scale<const X: usize>(self, likelihood: &Likelihood<X>, values: usize) -> f64 {
        match (self, likelihood) {
            (ReconstructionLoss::NegativeLogLikelihood, _) => 1.0,
            (_, Likelihood::Gaussian { std, .. }) => 8.0 * std * std / values as f64,
            _ => 1.0 / values as f64,
        }
    }
}

/// Weight of the adversarial term in the loss of the VAE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdversarialWeight {
    /// This weight.
    Fixed(
        /// The weight.
        f64,
    ),
    /// `factor·λ` with `λ = ‖∇R‖ / (‖∇A‖ + 10⁻⁴)`, at most 10⁴: the ratio of the norms of the
    /// gradients, with respect to the weight of the last layer of the decoder, of the
    /// reconstruction terms (with the perceptual ones) and of the adversarial term (VQGAN, Esser
    /// et al. 2021, <https://arxiv.org/abs/2012.09841>, eq. 7).
    ///
    /// It costs two more passes of the decoder per step, without a graph before the last layer:
    /// burn frees a graph with its first backward pass. Discriminator and perceptual distance have
    /// no more passes than with a fixed weight: one of the perceptual distance, one of the
    /// discriminator for its logits, and those for its features, where they have a weight. Batch
    /// normalisation in the decoder sees the latents three times.
    Adaptive {
        /// Path of the weight in the VAE, as in weight files, such as `decoder.conv_out.weight`.
        last_layer: String,
        /// Factor of the ratio.
        factor: f64,
    },
}

/// Configuration of an [`AdversarialVaeObjective`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdversarialVaeObjectiveConfig {
    /// Comparison of reconstructions with samples.
    pub reconstruction: ReconstructionLoss,
    /// Weight of the divergence in nats, the sum over the latents of a sample.
    pub kl_weight: f64,
    /// Weight of the [perceptual distance](AdversarialVaeObjective::with_perceptual), if there is
    /// one.
    pub perceptual_weight: f64,
    /// Weight of the distance between the discriminator's
    /// [features](SampleDiscriminator::features) of reconstructions and of samples (VAE-GAN, Larsen
    /// et al. 2016, <https://arxiv.org/abs/1512.09300>).
    pub feature_weight: f64,
    /// Losses of the discriminator, and of the VAE against it.
    pub loss: AdversarialLoss,
    /// Weight of the adversarial term.
    pub adversarial_weight: AdversarialWeight,
    /// Whether the discriminator also judges samples that are decoded from the prior (Larsen et al.
    /// 2016), as many as reconstructions. It costs a pass of the decoder.
    pub prior_samples: bool,
    /// First step with a discriminator. Before it, the VAE is trained without one, and the
    /// discriminator is not trained.
    pub start_step: usize,
}

impl Default for AdversarialVaeObjectiveConfig {
    /// The ELBO and the non-saturating loss, with weight 1 each, from the first step on.
    fn default() -> Self {
        Self {
            reconstruction: ReconstructionLoss::NegativeLogLikelihood,
            kl_weight: 1.0,
            perceptual_weight: 1.0,
            feature_weight: 0.0,
            loss: AdversarialLoss::NonSaturating,
            adversarial_weight: AdversarialWeight::Fixed(1.0),
            prior_samples: false,
            start_step: 0,
        }
    }
}

impl AdversarialVaeObjectiveConfig {
    /// The objective of VQGAN: L1 and a perceptual distance, no divergence (quantised latents have
    /// a constant one), the hinge loss, and the adaptive weight with a factor of 0.8 (Esser et al.
    /// 2021). L1 compares images in `[0, 1]`, where it is half of the paper's for `[−1, 1]`; the
    /// perceptual distance has images in `[−1, 1]`, and codebook and commitment losses are
    /// [means](ReconstructionLoss) over the values of the latents, both as in the paper.
    /// `last_layer` is the path of the weight of the decoder's last layer.
    pub fn vqgan(last_layer: impl Into<String>, start_step: usize) -> Self {
        Self {
            reconstruction: ReconstructionLoss::L1,
            kl_weight: 0.0,
            loss: AdversarialLoss::Hinge,
            adversarial_weight: AdversarialWeight::Adaptive {
                last_layer: last_layer.into(),
                factor: 0.8,
            },
            start_step,
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("kl_weight", self.kl_weight)?;
        check::non_negative("perceptual_weight", self.perceptual_weight)?;
        check::non_negative("feature_weight", self.feature_weight)?;
        match self.adversarial_weight {
            AdversarialWeight::Fixed(weight) => check::non_negative("adversarial_weight", weight),
            AdversarialWeight::Adaptive { factor, .. } => {
                check::non_negative("adversarial_weight.factor", factor)
            }
        }
    }
}

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
    /// Decoded samples of the VAE's phase, one tensor per accumulated batch.
    generated: Vec<Option<Tensor<X>>>,
    /// Posteriors of the batches since the last update, of models with a codebook.
    posteriors: Vec<V::Posterior>,
    types: PhantomData<fn(C, B)>,
}

/// Index of the VAE's phase.
const VAE_PHASE: usize = 0;

/// Number added to the norm in the denominator of the adaptive weight, and largest ratio.
const ADAPTIVE: [f64; 2] = [1e-4, 1e4];

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
            types: PhantomData,
        })
    }

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
        let condition = kind.of_batch(batch, &context.device)?;
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
        let judge = Judge {
            config,
            perceptual: self.perceptual.as_deref(),
            // Gradients flow through the discriminator, but not to its weights.
            discriminator: started.then(|| model.discriminator.clone().no_grad()),
            x: range.normalize(x.clone()),
            class: classes(&model.discriminator, batch, context)?,
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
            self.keep(context.micro_batch, Some(decoded.mean.detach()));
        }
        let auxiliary = model.vae.auxiliary_losses(&output.posterior).into_iter();
        let auxiliary = auxiliary.map(|(name, term)| (name, term * scale)).collect();
        let kept = model.vae.codebook_posterior(output.posterior);
        self.posteriors.extend(kept);
        Ok(add_auxiliary(LossOutput { loss, metrics }, auxiliary))
    }

    /// Keeps the decoded samples of an accumulated batch for the discriminator's phase.
    fn keep(&mut self, slot: usize, decoded: Option<Tensor<X>>) {
        self.generated
            .resize(self.generated.len().max(slot + 1), None);
        self.generated[slot] = decoded;
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
        let fake = match slot.and_then(Option::take) {
            Some(fake) => fake,
            None => {
                let kind = model.vae.condition_kind();
                let condition = kind.of_batch(batch, &context.device)?;
                let vae = model.vae.clone().no_grad();
                let output = vae.forward(x.clone(), &condition, &mut context.rng);
                output.likelihood.mean().detach()
            }
        };
        let class = classes(&model.discriminator, batch, context)?;
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

/// The classes of a batch, for a class-conditional discriminator.
fn classes<C: SampleDiscriminator<X>, const X: usize>(
    discriminator: &C,
    batch: &impl SampleBatch<X>,
    context: &StepContext,
) -> Result<Option<Tensor<1, Int>>> {
    let kind = ConditionKind {
        num_classes: discriminator.num_classes(),
        ..ConditionKind::default()
    };
    Ok(kind.of_batch(batch, &context.device)?.class_labels)
}

/// Logits of one or more samples for each class, one batch after the other.
fn logits<C: SampleDiscriminator<X>, const X: usize>(
    discriminator: &C,
    x: Tensor<X>,
    class: Option<&Tensor<1, Int>>,
) -> Tensor<2> {
    let rows = x.dims()[0];
    let class = class.map(|class| match rows / class.dims()[0] {
        0 | 1 => class.clone(),
        copies => class.clone().repeat_dim(0, copies),
    });
    discriminator.logits(x, class)
}

/// `loss` and all terms.
fn total(loss: Tensor<1>, terms: &[(&'static str, Tensor<1>)]) -> Tensor<1> {
    (terms.iter()).fold(loss, |loss, (_, term)| loss + term.clone())
}

/// Samples that were decoded from latents: first reconstructions, then samples of the prior.
struct Decoded<const X: usize, const Z: usize> {
    z: Tensor<Z>,
    condition: Condition,
    /// Means of `p(x|z)`.
    mean: Tensor<X>,
}

impl<const X: usize, const Z: usize> Decoded<X, Z> {
    /// These samples, then as many decoded from the latents `z`.
    fn and_prior<V: Vae<X, Z>>(self, vae: &V, z: Tensor<Z>) -> Self {
        let mean = vae.decode_with(z.clone(), &self.condition).mean();
        Self {
            z: Tensor::cat(vec![self.z, z], 0),
            condition: self.condition.repeat(2),
            mean: Tensor::cat(vec![self.mean, mean], 0),
        }
    }
}

/// What the decoded samples of a batch are judged by, besides the reconstruction loss.
struct Judge<'a, C, const X: usize> {
    config: &'a AdversarialVaeObjectiveConfig,
    perceptual: Option<&'a dyn PerceptualDistance<X>>,
    /// Without gradients of its weights; `None` before the first step with a discriminator.
    discriminator: Option<C>,
    /// The samples, normalised.
    x: Tensor<X>,
    class: Option<Tensor<1, Int>>,
    range: ValueRange,
}

impl<C: SampleDiscriminator<X>, const X: usize> Judge<'_, C, X> {
    /// The weighted perceptual terms of reconstructions, by name.
    fn similarity(&self, mean: Tensor<X>) -> Result<Vec<(&'static str, Tensor<1>)>> {
        let mut terms = Vec::new();
        let mean = self.range.normalize(mean);
        let weight = self.config.perceptual_weight;
        if let Some(distance) = self.perceptual.filter(|_| weight > 0.0) {
            let distance = distance.distance(mean.clone(), self.x.clone());
            terms.push(("perceptual", distance.mean() * weight));
        }
        let weight = self.config.feature_weight;
        if let Some(discriminator) = self.discriminator.as_ref().filter(|_| weight > 0.0) {
            let [mean, x] =
                [mean, self.x.clone()].map(|x| discriminator.features(x, self.class.clone()));
            let Some(distance) = feature_distance(mean, x) else {
                let expected = "0: the discriminator has no features";
                return Err(Error::config("feature_weight", weight, expected));
            };
            terms.push(("features", distance.mean() * weight));
        }
        Ok(terms)
    }

    /// The adversarial term of decoded samples, without its weight; 0 without a discriminator.
    fn adversarial(&self, decoded: Tensor<X>) -> Tensor<1> {
        let decoded = self.range.normalize(decoded);
        match &self.discriminator {
            Some(discriminator) => {
                let logits = logits(discriminator, decoded, self.class.as_ref());
                self.config.loss.generator_loss(logits)
            }
            None => Tensor::zeros([1], &decoded.device()),
        }
    }
}

/// A function of decoded samples, replaced by its value and its gradient: a backward pass through
/// [`term`](Self::term) does not pass the function again.
struct Linearized<const D: usize> {
    x: Tensor<D>,
    /// The value, `[1]`, off the graph.
    value: Tensor<1>,
    /// The gradient with respect to `x`, off the graph.
    gradient: Tensor<D>,
}

impl<const D: usize> Linearized<D> {
    fn new(x: Tensor<D>, function: impl FnOnce(Tensor<D>) -> Result<Tensor<1>>) -> Result<Self> {
        let point = x.clone().detach().require_grad();
        let value = function(point.clone())?;
        let gradient = match value.is_tracked() {
            true => point.grad(&value.backward()),
            // A function that ignores the samples.
            false => None,
        };
        Ok(Self {
            gradient: gradient.map_or_else(|| x.zeros_like(), Tensor::from_inner),
            value: value.detach(),
            x,
        })
    }

    /// The value, with the gradient of the function.
    fn term(self) -> Tensor<1> {
        let product = (self.x * self.gradient).sum();
        product.clone() - product.detach() + self.value
    }
}

impl ReconstructionLoss {
    /// The ratio `λ` of [`AdversarialWeight::Adaptive`], `[1]`, for the samples `x`. `gradients`
    /// are those of the perceptual terms with respect to the reconstructions, and of the
    /// adversarial term with respect to all decoded samples.
    fn adaptive_weight<V: Vae<X, Z>, const X: usize, const Z: usize>(
        self,
        vae: &V,
        last_layer: &str,
        x: &Tensor<X>,
        decoded: &Decoded<X, Z>,
        gradients: [&Tensor<X>; 2],
    ) -> Tensor<1> {
        let only = &mut Only(last_layer);
        let vae = map_params(vae.clone().no_grad(), only);
        let [of_similarity, of_adversarial] = gradients.map(Tensor::clone);
        let rows = x.dims()[0];
        let z = decoded.z.clone().detach();
        let condition = decoded.condition.narrow(0, rows);
        let likelihood = vae.decode_with(z.clone().narrow(0, 0, rows), &condition);
        let mean = likelihood.mean();
        let reconstruction = self.compare(&likelihood, &mean, x) + (mean * of_similarity).sum();
        let reconstruction = norm_of_gradient(&vae, last_layer, reconstruction);
        let mean = vae.decode_with(z, &decoded.condition).mean();
        let adversarial = norm_of_gradient(&vae, last_layer, (mean * of_adversarial).sum());
        let [epsilon, largest] = ADAPTIVE;
        (reconstruction / (adversarial + epsilon)).clamp_max(largest)
    }
}

/// The norm of the gradient of `loss` with respect to the parameter at `path`, `[1]`.
fn norm_of_gradient<M: Module>(model: &M, path: &str, loss: Tensor<1>) -> Tensor<1> {
    let mut norm = Norm {
        path,
        gradients: loss.is_tracked().then(|| loss.backward()),
        norm: None,
    };
    visit_params(model, &mut norm);
    match norm.norm {
        Some(norm) => Tensor::from_inner(norm),
        None => loss.zeros_like().detach(),
    }
}

struct Norm<'a> {
    path: &'a str,
    gradients: Option<Gradients>,
    norm: Option<Tensor<1>>,
}

impl ParamVisitor for Norm<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if path != self.path {
            return;
        }
        let gradients = self.gradients.as_ref();
        let gradient = gradients.and_then(|gradients| param.val().grad(gradients));
        self.norm = gradient.map(|gradient| (gradient.clone() * gradient).sum().sqrt());
    }
}

/// Sets the gradient of the parameter with this path.
struct Only<'a>(&'a str);

impl ParamMapper for Only<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path == self.0 {
            true => param.set_require_grad(true),
            false => param,
        }
    }
}

/// The paths of all parameters.
#[derive(Default)]
struct Paths(Vec<String>);

impl ParamVisitor for Paths {
    fn visit<const D: usize>(&mut self, path: &str, _param: &Param<Tensor<D>>) {
        self.0.push(path.to_string());
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{VqModel, VqModelConfig};
    use aigc_core::{
        adversarial::{FeatureDistance, PatchDiscriminator, PatchDiscriminatorConfig},
        data::{DataLoader, DataLoaderConfig, InMemory, SampleShape, collate_images, digits},
        encoder::Deterministic,
        nn::{Activation, Linear, LinearConfig},
        rng::{InitWeights, Rng},
        testing::{assert_close, temp_run, values},
        train::{Event, Trainer, TrainerConfig},
    };
    use burn::tensor::{Device, TensorData};

    /// An autoencoder of three values with two latents and a hidden layer in the decoder.
    #[derive(Module, Debug)]
    struct Small {
        encoder: Linear,
        hidden: Linear,
        output: Linear,
    }

    impl Vae<2, 2> for Small {
        type Posterior = Deterministic<2>;

        fn encode(&self, x: Tensor<2>) -> Deterministic<2> {
            Deterministic(self.encoder.forward(x))
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            let hidden = Activation::Tanh.forward(self.hidden.forward(z));
            Likelihood::Gaussian {
                mean: self.output.forward(hidden),
                std: 0.7,
            }
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[2])
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[3])
        }
    }

    /// A discriminator with two patches per sample, whose hidden layer is its features.
    #[derive(Module, Debug)]
    struct Patches {
        hidden: Linear,
        output: Linear,
        #[module(skip)]
        classes: Option<usize>,
    }

    impl SampleDiscriminator<2> for Patches {
        fn logits(&self, x: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
            assert_eq!(class.is_some(), self.classes.is_some());
            if let Some(class) = &class {
                assert_eq!(class.dims()[0], x.dims()[0]);
            }
            let hidden = self.features(x, class).remove(0);
            self.output.forward(hidden)
        }

        fn num_classes(&self) -> Option<usize> {
            self.classes
        }

        fn features(&self, x: Tensor<2>, _class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
            vec![Activation::Tanh.forward(self.hidden.forward(x))]
        }
    }

    type Model = AdversarialVae<Small, Patches>;
    type TestObjective = AdversarialVaeObjective<Small, Patches, Rows, 2, 2>;

    fn model(device: &Device) -> Model {
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        let model = AdversarialVae {
            vae: Small {
                encoder: linear(3, 2),
                hidden: linear(2, 4),
                output: linear(4, 3),
            },
            discriminator: Patches {
                hidden: linear(3, 5),
                output: linear(5, 2),
                classes: None,
            },
        };
        model.init_weights(8)
    }

    #[derive(Debug)]
    struct Rows(Vec<[f32; 3]>, Option<Vec<u32>>);

    impl SampleBatch<2> for Rows {
        fn to_tensor(&self, device: &Device) -> Tensor<2> {
            Tensor::from_data(TensorData::new(self.0.concat(), [self.0.len(), 3]), device)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[3])
        }

        fn value_range(&self) -> ValueRange {
            ValueRange::Unit
        }

        fn labels(&self) -> Option<&[u32]> {
            self.1.as_deref()
        }
    }

    fn rows() -> Rows {
        let rows = vec![
            [0.1, 0.9, 0.4],
            [0.8, 0.3, 0.6],
            [0.5, 0.0, 1.0],
            [0.2, 0.7, 0.7],
        ];
        Rows(rows, None)
    }

    fn distance() -> FeatureDistance<impl Fn(Tensor<2>) -> Vec<Tensor<2>>> {
        FeatureDistance::new(|x: Tensor<2>| vec![x.clone() * x])
    }

    /// The losses of the first update of a step.
    fn first_phase(config: &AdversarialVaeObjectiveConfig, model: &Model) -> LossOutput {
        let device = Device::flex().autodiff();
        let mut objective = TestObjective::new(config.clone(), model)
            .unwrap()
            .with_perceptual(distance());
        let mut context = StepContext::new(0, 1, device, Rng::new(4));
        objective.losses(model, &rows(), &mut context).unwrap()
    }

    /// Gradients of all parameters of the VAE, one after the other.
    fn gradients(vae: &Small, loss: &Tensor<1>) -> Vec<f32> {
        let gradients = loss.backward();
        let layer = |layer: &Linear| {
            let bias = layer.bias.as_ref().unwrap().val();
            [
                values(layer.weight.val().grad(&gradients).unwrap()),
                values(bias.grad(&gradients).unwrap()),
            ]
            .concat()
        };
        [&vae.encoder, &vae.hidden, &vae.output].map(layer).concat()
    }

    fn metric(output: &LossOutput, name: &str) -> f32 {
        let found = output.metrics.iter().find(|(n, _)| *n == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no {name}: {:?}", output.metrics));
        values(value.clone())[0]
    }

    fn normalize(x: Tensor<2>) -> Tensor<2> {
        x * 2.0 - 1.0
    }

    /// The terms, each with a graph of its own: reconstruction with the perceptual ones, and
    /// adversarial.
    fn naive(config: &AdversarialVaeObjectiveConfig, model: &Model) -> [Tensor<1>; 2] {
        let device = Device::flex().autodiff();
        let x = rows().to_tensor(&device);
        let discriminator = model.discriminator.clone().no_grad();
        [0, 1].map(|term| {
            let z = model.vae.encoder.forward(x.clone());
            let likelihood = model.vae.decode(z);
            let mean = likelihood.mean();
            if term == 0 {
                let difference = mean.clone() - x.clone();
                let reconstruction = match config.reconstruction {
                    ReconstructionLoss::NegativeLogLikelihood => {
                        -likelihood.log_prob(x.clone()).mean()
                    }
                    ReconstructionLoss::L1 => difference.abs().mean(),
                    ReconstructionLoss::L2 => (difference.clone() * difference).mean(),
                };
                let [mean, x] = [mean, x.clone()].map(normalize);
                let perceptual = mean.clone() * mean.clone() - x.clone() * x.clone();
                let features = discriminator.features(mean, None).remove(0)
                    - discriminator.features(x, None).remove(0);
                return reconstruction
                    + (perceptual.clone() * perceptual).mean() * config.perceptual_weight
                    + (features.clone() * features).mean() * config.feature_weight;
            }
            let mean = match config.prior_samples {
                true => {
                    let z = Rng::new(4).normal([4, 2], &device);
                    Tensor::cat(vec![mean, model.vae.decode(z).mean()], 0)
                }
                false => mean,
            };
            let logits = discriminator.logits(normalize(mean), None);
            match config.loss {
                AdversarialLoss::Hinge => -logits.mean(),
                _ => ((-logits).exp() + 1.0).log().mean(),
            }
        })
    }

    fn configurations() -> Vec<AdversarialVaeObjectiveConfig> {
        let adaptive = AdversarialVaeObjectiveConfig::vqgan("output.weight", 0);
        vec![
            adaptive.clone(),
            AdversarialVaeObjectiveConfig {
                reconstruction: ReconstructionLoss::NegativeLogLikelihood,
                feature_weight: 0.5,
                prior_samples: true,
                ..adaptive.clone()
            },
            AdversarialVaeObjectiveConfig {
                adversarial_weight: AdversarialWeight::Fixed(0.3),
                ..adaptive
            },
            AdversarialVaeObjectiveConfig {
                reconstruction: ReconstructionLoss::L2,
                perceptual_weight: 2.0,
                feature_weight: 0.7,
                prior_samples: true,
                ..AdversarialVaeObjectiveConfig::default()
            },
        ]
    }

    /// Losses, weights and gradients are those of separate passes for every term.
    #[test]
    fn losses_match_separate_passes() {
        let model = model(&Device::flex().autodiff());
        for config in configurations() {
            let found = first_phase(&config, &model);
            let norm = |loss: Tensor<1>| {
                let gradients = loss.backward();
                let gradient = model.vae.output.weight.val().grad(&gradients).unwrap();
                values((gradient.clone() * gradient).sum().sqrt())[0]
            };
            let weight = match config.adversarial_weight {
                AdversarialWeight::Fixed(weight) => weight,
                AdversarialWeight::Adaptive { factor, .. } => {
                    let [reconstruction, adversarial] = naive(&config, &model).map(norm);
                    let weight = f64::from(reconstruction / (adversarial + 1e-4)) * factor;
                    assert_close(
                        &[metric(&found, "adversarial_weight")],
                        &[weight as f32],
                        1e-4 * weight as f32,
                    );
                    weight
                }
            };
            let [reconstruction, adversarial] = naive(&config, &model);
            assert_close(
                &[metric(&found, "adversarial")],
                &values(adversarial.clone()),
                1e-5,
            );
            let expected = reconstruction + adversarial * weight;
            let scale = 1e-5 * values(expected.clone())[0].abs().max(1.0);
            assert_close(
                &values(found.loss.clone()),
                &values(expected.clone()),
                scale,
            );
            let [found, expected] = [found.loss, expected].map(|l| gradients(&model.vae, &l));
            let largest = expected.iter().fold(1.0f32, |most, g| most.max(g.abs()));
            assert_close(&found, &expected, 2e-5 * largest);
        }
    }

    #[test]
    fn discriminator_is_trained_on_the_reconstructions_of_the_first_phase() {
        let device = Device::flex().autodiff();
        let model = model(&device);
        let x = rows().to_tensor(&device);
        let reconstructed = model
            .vae
            .decode(model.vae.encoder.forward(x.clone()))
            .mean();
        for config in configurations() {
            let loss = config.loss;
            let prior = config.prior_samples;
            let mut objective = TestObjective::new(config, &model).unwrap();
            let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
            objective.losses(&model, &rows(), &mut context).unwrap();
            context.phase = 1;
            let found = objective.losses(&model, &rows(), &mut context).unwrap();
            let z = Rng::new(4).normal([4, 2], &device);
            let fake = match prior {
                true => Tensor::cat(vec![reconstructed.clone(), model.vae.decode(z).mean()], 0),
                false => reconstructed.clone(),
            };
            let [real, fake] =
                [x.clone(), fake].map(|x| model.discriminator.logits(normalize(x), None));
            let expected = loss.discriminator_loss(real, fake);
            assert_close(&values(found.loss.clone()), &values(expected), 1e-6);
            let gradients = found.loss.backward();
            let weight = model.discriminator.hidden.weight.val();
            assert!(weight.grad(&gradients).is_some());
            assert!(model.vae.output.weight.val().grad(&gradients).is_none());
        }
    }

    /// A class-conditional discriminator gets the classes of samples, and twice as many with
    /// samples of the prior.
    #[test]
    fn discriminator_gets_the_classes_of_the_batch() {
        let device = Device::flex().autodiff();
        let mut model = model(&device);
        model.discriminator.classes = Some(3);
        for config in configurations() {
            let mut objective = TestObjective::new(config, &model).unwrap();
            let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
            let without = objective.losses(&model, &rows(), &mut context);
            assert!(
                without
                    .unwrap_err()
                    .to_string()
                    .contains("`labels` is missing")
            );
            let batch = Rows(rows().0, Some(vec![0, 2, 1, 1]));
            for phase in 0..2 {
                context.phase = phase;
                objective.losses(&model, &batch, &mut context).unwrap();
            }
        }
    }

    #[test]
    fn discriminator_starts_at_its_step() {
        let device = Device::flex();
        let config = DataLoaderConfig {
            batch_size: 4,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let collate = |rows: Vec<[f32; 3]>| Rows(rows, None);
        let loader = DataLoader::new(InMemory(rows().0), collate, config).unwrap();
        let initial = model(&device);
        let weights = |model: &Model| {
            [&model.vae.output, &model.discriminator.output].map(|l| values(l.weight.val()))
        };
        let train = |start_step: usize| {
            let run = temp_run().unwrap();
            let config = AdversarialVaeObjectiveConfig::vqgan("output.weight", start_step);
            let mut names = Vec::new();
            let trained = Trainer::new(TrainerConfig::new(2))
                .with_callback(|event: &Event<'_>| {
                    if let Event::Step(report) = event {
                        let adversarial = |(name, _): &(String, f64)| name == "vae.adversarial";
                        names.push(report.losses.iter().any(adversarial));
                    }
                })
                .fit(
                    TestObjective::new(config, &initial).unwrap(),
                    initial.clone(),
                    &loader,
                    &run,
                )
                .unwrap();
            (names, weights(&trained.model))
        };
        let [vae, discriminator] = weights(&initial);
        for (start, expected) in [(0, [true, true]), (1, [false, true]), (2, [false, false])] {
            let (names, [new_vae, new_discriminator]) = train(start);
            assert_eq!(names, expected);
            assert_ne!(new_vae, vae);
            assert_eq!(new_discriminator != discriminator, start < 2);
        }
    }

    /// Beside a mean over the values of a sample, the losses of the codes are means over those of
    /// the latents, as in VQGAN; beside a sum in nats, they are those of the model.
    #[test]
    fn codebook_losses_have_the_scale_of_the_reconstruction() {
        type Vqgan = AdversarialVaeObjective<VqModel, PatchDiscriminator, ImageBatch, 4, 4>;
        let device = Device::flex().autodiff();
        let vae = VqModelConfig {
            block_out_channels: vec![4, 8],
            norm_num_groups: 2,
            ..VqModelConfig::new(digits::SHAPE)
        };
        let discriminator = PatchDiscriminatorConfig {
            channels: 4,
            num_layers: 1,
            ..PatchDiscriminatorConfig::new(digits::SHAPE)
        };
        let model = AdversarialVae {
            vae: vae.init(&device).unwrap(),
            discriminator: discriminator.init(&device).unwrap(),
        };
        let model = model.init_weights(3);
        let batch = collate_images(digits::load().0.into_iter().take(4).collect());
        let posterior = model.vae.encode(batch.to_tensor(&device));
        let means = [
            values(posterior.commitment_loss())[0],
            0.25 * values(posterior.codebook_loss())[0],
        ];
        let vqgan = AdversarialVaeObjectiveConfig::vqgan("decoder.conv_out.weight", 1);
        // 64 values with a standard deviation of 0.1.
        for (reconstruction, scale) in [
            (ReconstructionLoss::L1, 1.0),
            (ReconstructionLoss::L2, 1.0),
            (ReconstructionLoss::NegativeLogLikelihood, 64.0 / 0.08),
        ] {
            let config = AdversarialVaeObjectiveConfig {
                reconstruction,
                ..vqgan.clone()
            };
            let mut context = StepContext::new(0, 1, device.clone(), Rng::new(4));
            let mut objective = Vqgan::new(config, &model).unwrap();
            let found = objective.losses(&model, &batch, &mut context).unwrap();
            let metric = |name| metric(&found, name);
            let terms = ["commitment", "codebook"].map(metric);
            let expected = means.map(|mean| scale * mean);
            assert_close(&terms, &expected, 1e-4 * expected[0]);
            let loss = metric("reconstruction") + expected[0] + expected[1];
            assert_close(&values(found.loss.clone()), &[loss], 1e-4 * loss.abs());
        }
    }

    #[test]
    fn configuration_is_checked() {
        let device = Device::flex().autodiff();
        let model = model(&device);
        let message = |config| TestObjective::new(config, &model).unwrap_err().to_string();
        let text = message(AdversarialVaeObjectiveConfig::vqgan("decoder.weight", 0));
        assert!(
            text.contains("`adversarial_weight.last_layer` is `decoder.weight`"),
            "{text}"
        );
        let text = message(AdversarialVaeObjectiveConfig {
            adversarial_weight: AdversarialWeight::Fixed(f64::NAN),
            ..AdversarialVaeObjectiveConfig::default()
        });
        assert!(text.contains("`adversarial_weight` is NaN"), "{text}");
        let text = message(AdversarialVaeObjectiveConfig {
            kl_weight: -1.0,
            ..AdversarialVaeObjectiveConfig::default()
        });
        assert!(text.contains("`kl_weight` is -1"), "{text}");
        let json = serde_json::json!({
            "loss": "hinge",
            "adversarial_weight": {"adaptive": {"last_layer": "output.weight", "factor": 0.8}},
        });
        let config: AdversarialVaeObjectiveConfig = serde_json::from_value(json).unwrap();
        assert!(TestObjective::new(config, &model).is_ok());
    }

    #[test]
    fn linearized_function_keeps_value_and_gradient() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_floats([[0.5, -2.0]], &device).require_grad();
        let cube = |x: Tensor<2>| Ok((x.clone() * x.clone() * x).sum());
        let linear = Linearized::new(x.clone() * 2.0, cube).unwrap();
        let term = linear.term() * 3.0;
        assert_close(&values(term.clone()), &[3.0 * (1.0 - 64.0)], 1e-4);
        let gradients = term.backward();
        // 3·3·(2x)²·2.
        assert_close(&values(x.grad(&gradients).unwrap()), &[18.0, 288.0], 1e-4);
        let constant = |_| Ok(Tensor::<1>::from_floats([7.0], &device));
        let linear = Linearized::new(x, constant).unwrap();
        assert_eq!(values(linear.gradient), [0.0, 0.0]);
    }
}
