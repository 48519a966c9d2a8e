//! The objective of adversarial training.

use crate::{
    Augment, CollapseMonitor, Discriminator, Gan, GanLoss, Generator, GradientPenalty, LeCam,
    batch_dependence::BatchDependence, lecam::Anchors, models::DISCRIMINATOR, monitor::Watch,
    weight_clip::clip_weights,
};
use aigc_core::{
    Error, Result, check,
    data::{ImageBatch, SampleBatch, label_tensor},
    ops::cross_entropy,
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// Configuration of a [`GanObjective`]: losses, penalties and augmentation of both networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GanObjectiveConfig {
    /// Loss of both networks.
    pub loss: GanLoss,
    /// `ε` of one-sided label smoothing: targets of real samples are `1 − ε`.
    pub label_smoothing: f64,
    /// Penalties on the norm of the discriminator's gradient.
    pub penalties: Vec<GradientPenalty>,
    /// LeCam regularisation of the discriminator.
    pub lecam: Option<LeCam>,
    /// Bound `c` of weight clipping: after each of its updates, the discriminator's weights are
    /// clamped to `[−c, c]` (Arjovsky et al. 2017).
    pub weight_clip: Option<f64>,
    /// Updates of the discriminator per update of the generator.
    #[serde(alias = "critic_steps")]
    pub discriminator_steps: usize,
    /// Augmentation of real and generated samples before they reach the discriminator.
    pub augment: Augment,
    /// Weight of the classification loss if the discriminator is an auxiliary classifier.
    pub auxiliary_weight: f64,
    /// Detection of mode collapse; `None` turns it off.
    pub monitor: Option<CollapseMonitor>,
}

impl Default for GanObjectiveConfig {
    fn default() -> Self {
        Self {
            loss: GanLoss::NonSaturating,
            label_smoothing: 0.0,
            penalties: Vec::new(),
            lecam: None,
            weight_clip: None,
            discriminator_steps: 1,
            augment: Augment::None,
            auxiliary_weight: 1.0,
            monitor: Some(CollapseMonitor::default()),
        }
    }
}

impl GanObjectiveConfig {
    /// The given loss, with defaults for all other fields.
    pub fn new(loss: GanLoss) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }

    /// The objective of R3GAN: relativistic pairing with R1 and R2 of the same `γ` (Huang et al.
    /// 2024, <https://arxiv.org/abs/2501.05441>).
    pub fn r3gan(gamma: f64) -> Self {
        Self {
            penalties: vec![GradientPenalty::r1(gamma), GradientPenalty::r2(gamma)],
            ..Self::new(GanLoss::RelativisticPairing)
        }
    }

    /// The objective of WGAN-GP: the Wasserstein loss, the gradient penalty with `λ = 10`, and five
    /// updates of the discriminator per update of the generator (Gulrajani et al. 2017,
    /// <https://arxiv.org/abs/1704.00028>).
    pub fn wgan_gp() -> Self {
        Self {
            penalties: vec![GradientPenalty::wgan_gp(10.0)],
            discriminator_steps: 5,
            ..Self::new(GanLoss::Wasserstein)
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        self.loss.validate(self.label_smoothing)?;
        self.penalties
            .iter()
            .try_for_each(GradientPenalty::validate)?;
        self.lecam.iter().try_for_each(LeCam::validate)?;
        self.monitor
            .iter()
            .try_for_each(CollapseMonitor::validate)?;
        self.augment.validate()?;
        if let Some(bound) = self.weight_clip {
            check::positive("weight_clip", bound)?;
        }
        check::in_range("discriminator_steps", self.discriminator_steps, 1..=1000)?;
        check::non_negative("auxiliary_weight", self.auxiliary_weight)
    }
}

/// Trains a generator `G` and a discriminator `C` against each other, on batches `B` of samples.
/// `D` is the rank of a batch.
///
/// A step has the phases `discriminator` and `generator`. The generator's update uses the samples
/// that were generated for the last update of the discriminator: the generator has not changed
/// since, so its forward pass is not repeated.
#[derive(Debug)]
pub struct GanObjective<G, C, B = ImageBatch, const D: usize = 4> {
    config: GanObjectiveConfig,
    /// Samples generated in the discriminator's phase, one batch per accumulated batch.
    generated: Vec<Option<Tensor<D>>>,
    memory: Memory,
    has_batch_norm: bool,
    networks: PhantomData<fn(G, C, B)>,
}

/// State of the objective in a checkpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// ADA's augmentation probability.
    augment: f64,
    anchors: Anchors,
    watch: Watch,
}

/// Index of the discriminator's phase.
const DISCRIMINATOR_PHASE: usize = 0;

impl<G, C, B, const D: usize> GanObjective<G, C, B, D>
where
    G: Generator<D> + 'static,
    C: Discriminator<D> + 'static,
    B: SampleBatch<D>,
{
    /// The objective with this configuration, checked against the networks of `gan`.
    ///
    /// # Errors
    /// [`Error::Config`]
    /// - for values out of range;
    /// - for a penalty on a discriminator with batch normalisation, whose logits depend on the
    ///   whole batch, or with dropout, whose logits are random;
    /// - if the discriminator and the generator have different numbers of classes.
    ///
    /// [`Error::Unsupported`] for augmentation of samples that are not images.
    pub fn new(config: GanObjectiveConfig, gan: &Gan<G, C>) -> Result<Self> {
        config.validate()?;
        if D != 4 && config.augment != Augment::None {
            return Err(Error::unsupported(
                format!(
                    "augmentation of samples of shape {}",
                    gan.generator.sample_shape()
                ),
                "GanObjective",
                "only images are augmented; use `Augment::None`",
            ));
        }
        let (of_discriminator, of_generator) =
            (gan.discriminator.num_classes(), gan.generator.num_classes());
        if of_discriminator.is_some() && of_discriminator != of_generator {
            let [value, expected] =
                [of_discriminator, of_generator].map(|classes| classes.unwrap_or(0));
            return Err(Error::config(
                "classes",
                format!("{value} for the discriminator"),
                format!("{expected}, the number of the generator's classes"),
            ));
        }
        let discriminator = BatchDependence::of(&gan.discriminator);
        let reason = if discriminator.draws_at_random() {
            Some(
                "draws random numbers (such as dropout), but a penalty needs the same logit for the \
                 same sample",
            )
        } else if discriminator.has_batch_norm() {
            Some(
                "has batch normalisation, but a penalty needs logits that do not depend on the \
                 rest of the batch; use spectral normalisation or none",
            )
        } else {
            None
        };
        if let (Some(penalty), Some(reason)) = (config.penalties.first(), reason) {
            return Err(Error::config(
                "penalties",
                format!("{:?}", penalty.kind),
                format!("none: the discriminator {reason}"),
            ));
        }
        let has_batch_norm = BatchDependence::of(gan).has_batch_norm();
        Ok(Self {
            config,
            generated: Vec::new(),
            memory: Memory::default(),
            has_batch_norm,
            networks: PhantomData,
        })
    }

    /// Configuration of the objective.
    pub fn config(&self) -> &GanObjectiveConfig {
        &self.config
    }

    /// Current augmentation probability of ADA.
    pub fn augment_probability(&self) -> f64 {
        self.memory.augment
    }

    fn check(&self, generator: &G, batch: &B) -> Result<()> {
        if batch.sample_shape() != generator.sample_shape() {
            let expected = format!(
                "{}, the shape of the generator's samples",
                generator.sample_shape()
            );
            return Err(Error::config("samples", batch.sample_shape(), expected));
        }
        let (of_data, of_generator) = (batch.value_range(), generator.value_range());
        if of_data != of_generator {
            return Err(Error::config(
                "value_range",
                format!("{of_data:?}"),
                format!("{of_generator:?}, the range of the generator's samples"),
            ));
        }
        let least = if self.has_batch_norm { 2 } else { 1 };
        if batch.len() < least {
            let why = if least == 2 {
                ", since batch normalisation has no statistics of one sample"
            } else {
                ""
            };
            return Err(Error::config(
                "batch_size",
                batch.len(),
                format!("at least {least}{why}"),
            ));
        }
        let Some(classes) = generator.num_classes() else {
            return Ok(());
        };
        let Some(labels) = batch.labels() else {
            return Err(Error::argument(
                "labels",
                "missing",
                "the class of every sample, for a generator with classes",
            ));
        };
        match labels.iter().find(|label| **label as usize >= classes) {
            Some(label) => Err(Error::argument(
                "labels",
                label,
                format!("below {classes}, the number of the generator's classes"),
            )),
            None => Ok(()),
        }
    }

    fn discriminator_losses(
        &mut self,
        gan: &Gan<G, C>,
        real: Tensor<D>,
        class: Option<Tensor<1, Int>>,
        context: &mut StepContext,
    ) -> LossOutput {
        let config = &self.config;
        let z = context.rng.normal(
            [real.dims()[0], gan.generator.latent_dim()],
            &context.device,
        );
        let keep = context.repetition + 1 == config.discriminator_steps;
        let fake = if keep {
            let fake = gan.generator.generate(z, class.clone());
            self.generated
                .resize(self.generated.len().max(context.micro_batch + 1), None);
            self.generated[context.micro_batch] = Some(fake.clone());
            fake.detach()
        } else {
            gan.generator.clone().no_grad().generate(z, class.clone())
        };
        let first = keep && context.micro_batch == 0;
        let monitor = config
            .monitor
            .filter(|monitor| first && context.step.is_multiple_of(monitor.interval));
        let monitored = monitor.map(|_| {
            let one_hot = |classes| Tensor::<2>::eye(classes, &context.device);
            let class = gan
                .generator
                .num_classes()
                .map(one_hot)
                .zip(class.clone())
                .map(|(rows, c)| rows.select(0, c));
            let flat = |x: &Tensor<D>| x.clone().flatten::<2>(1, D - 1);
            (flat(&real), flat(&fake), class)
        });
        let real = config
            .augment
            .apply(real, self.memory.augment, &mut context.rng);
        let fake = config
            .augment
            .apply(fake, self.memory.augment, &mut context.rng);
        let of_real = gan
            .discriminator
            .forward_with_classes(real.clone(), class.clone());
        let of_fake = gan
            .discriminator
            .forward_with_classes(fake.clone(), class.clone());
        let mut total = config.loss.discriminator_loss(
            of_real.logits.clone(),
            of_fake.logits.clone(),
            config.label_smoothing,
        );
        let mut parts = Vec::new();
        let due: Vec<_> = config
            .penalties
            .iter()
            .filter(|penalty| penalty.is_due(context.step))
            .collect();
        let penalty = due
            .iter()
            .map(|penalty| {
                let measured = penalty.loss(
                    &gan.discriminator,
                    &real,
                    &fake,
                    class.as_ref(),
                    &mut context.rng,
                );
                measured * penalty.weight_at(context.step, context.steps)
            })
            .reduce(|a, b| a + b);
        if let Some(penalty) = penalty {
            parts.push(("penalty", penalty.clone()));
            total = total + penalty;
        }
        if let Some(lecam) = &config.lecam {
            total = total + lecam.loss(&of_real.logits, &of_fake.logits, &mut self.memory.anchors);
        }
        if let (Some(a), Some(b), Some(class)) = (of_real.class_logits, of_fake.class_logits, class)
        {
            let classification =
                cross_entropy(a, class.clone()).mean() + cross_entropy(b, class).mean();
            total = total + classification.clone() * config.auxiliary_weight;
            parts.push(("aux_classification", classification));
        }
        if let Augment::Adaptive(ada) = &config.augment {
            let sign = config.loss.real_sign(
                of_real.logits.clone().detach(),
                of_fake.logits.clone().detach(),
            );
            let sign = f64::from(sign.into_scalar::<f32>());
            self.memory.augment = ada.adjust(self.memory.augment, sign, of_real.logits.dims()[0]);
        }
        let accuracy = config.loss.accuracy(
            of_real.logits.clone().detach(),
            of_fake.logits.clone().detach(),
        );
        if let (Some(monitor), Some((real, fake, class))) = (monitor, monitored) {
            for (kind, text) in monitor.observe(
                &mut self.memory.watch,
                &real,
                &fake,
                class.as_ref(),
                &accuracy,
            ) {
                context.alert(kind, text);
            }
        }
        let losses = LossOutput::new(total)
            .with_metric("real", of_real.logits.mean())
            .with_metric("fake", of_fake.logits.mean());
        let losses = losses.with_metric("accuracy", accuracy);
        parts.into_iter().fold(losses, |losses, (name, value)| {
            losses.with_metric(name, value)
        })
    }

    fn generator_losses(
        &mut self,
        gan: &Gan<G, C>,
        batch: &B,
        class: Option<Tensor<1, Int>>,
        context: &mut StepContext,
    ) -> LossOutput {
        let config = &self.config;
        let fake = self
            .generated
            .get_mut(context.micro_batch)
            .and_then(Option::take)
            .unwrap_or_else(|| {
                let z = context
                    .rng
                    .normal([batch.len(), gan.generator.latent_dim()], &context.device);
                gan.generator.generate(z, class.clone())
            });
        // Gradients flow through the discriminator, but not to its weights.
        let discriminator = gan.discriminator.clone().no_grad();
        let of_real = config.loss.is_relativistic().then(|| {
            let real = config.augment.apply(
                batch.normalized(&context.device),
                self.memory.augment,
                &mut context.rng,
            );
            discriminator.forward(real, class.clone())
        });
        let fake = config
            .augment
            .apply(fake, self.memory.augment, &mut context.rng);
        let of_fake = discriminator.forward_with_classes(fake, class.clone());
        let mut total = config.loss.generator_loss(of_fake.logits, of_real);
        if let (Some(classes), Some(class)) = (of_fake.class_logits, class) {
            total = total + cross_entropy(classes, class).mean() * config.auxiliary_weight;
        }
        LossOutput::new(total)
    }
}

impl<G, C, B, const D: usize> Objective for GanObjective<G, C, B, D>
where
    G: Generator<D> + 'static,
    C: Discriminator<D> + 'static,
    B: SampleBatch<D>,
{
    type Model = Gan<G, C>;
    type Batch = B;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new(DISCRIMINATOR.name)
                .for_field(DISCRIMINATOR.name)
                .with_former_name(DISCRIMINATOR.former)
                .with_repeats(self.config.discriminator_steps),
            Phase::new("generator").for_field("generator").reuse_batch(),
        ]
    }

    fn losses(
        &mut self,
        gan: &Gan<G, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        self.check(&gan.generator, batch)?;
        let class = gan
            .generator
            .num_classes()
            .and(batch.labels())
            .map(|labels| label_tensor(labels, &context.device));
        Ok(match context.phase {
            DISCRIMINATOR_PHASE => {
                let real = batch.normalized(&context.device);
                self.discriminator_losses(gan, real, class, context)
            }
            _ => self.generator_losses(gan, batch, class, context),
        })
    }

    fn after_update(&mut self, gan: Gan<G, C>, phase: usize) -> Result<Gan<G, C>> {
        let clip = self.config.weight_clip;
        let Some(bound) = clip.filter(|_| phase == DISCRIMINATOR_PHASE) else {
            return Ok(gan);
        };
        Ok(Gan {
            discriminator: clip_weights(gan.discriminator, bound),
            ..gan
        })
    }

    fn state(&self) -> serde_json::Value {
        serde_json::to_value(self.memory).unwrap_or_default()
    }

    fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        let text = state.to_string();
        self.memory = serde_json::from_value(state).map_err(|error| {
            Error::config(
                "state.objective",
                text,
                format!("the state of a GAN objective: {error}"),
            )
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    /// Fields and values of run directories of earlier versions.
    #[test]
    fn configurations_with_former_names_are_read() {
        let former = json!({
            "loss": "relativistic_pairing",
            "label_smoothing": 0.125,
            "penalties": [{
                "kind": "wgan_gp", "weight": 2.0, "weight_at_end": 0.5, "every": 4, "reach": 0.25,
            }],
            "lecam": {"weight": 0.25, "decay": 0.5},
            "weight_clip": 0.25,
            "critic_steps": 3,
            "augment": {"diff": {"color": false, "translation": 0.25, "cutout": 0.0}},
            "auxiliary_weight": 0.5,
            "monitor": {
                "every": 7, "patience": 8, "spread": 0.25, "nearest": 0.5, "accuracy": 0.75,
            },
        });
        let mut current = json!({
            "loss": "relativistic_pairing",
            "label_smoothing": 0.125,
            "penalties": [{
                "kind": "wgan_gp", "weight": 2.0, "final_weight": 0.5, "interval": 4,
                "fd_step": 0.25,
            }],
            "lecam": {"weight": 0.25, "decay": 0.5},
            "weight_clip": 0.25,
            "discriminator_steps": 3,
            "augment": {"diff_augment": {"color": false, "translation": 0.25, "cutout": 0.0}},
            "auxiliary_weight": 0.5,
            "monitor": {
                "interval": 7, "patience": 8, "min_diversity": 0.25, "min_nn_ratio": 0.5,
                "max_accuracy": 0.75,
            },
        });
        let mut config: GanObjectiveConfig = from_value(former).unwrap();
        assert_eq!(to_value(&config).unwrap(), current);
        assert_eq!(
            from_value::<GanObjectiveConfig>(current.clone()).unwrap(),
            config
        );
        config.augment = from_value(json!({
            "adaptive": {"target": 0.5, "speed": 100.0, "most": 0.75, "flips": false, "color": true},
        }))
        .unwrap();
        current["augment"] = json!({
            "adaptive": {
                "target": 0.5, "adjustment_samples": 100.0, "max_probability": 0.75,
                "flips_and_rotations": false, "color": true,
            },
        });
        assert_eq!(to_value(&config).unwrap(), current);
    }

    #[test]
    fn state_with_former_names_is_read() {
        let former = json!({
            "augment": 0.5,
            "anchors": {"real": 1.0, "fake": -1.0, "begun": true},
            "watch": {
                "looks": 3, "spread": 0.5, "nearest": 0.25, "accuracy": 0.75, "collapsed": false,
                "critic_won": true,
            },
        });
        let mut current = former.clone();
        current["watch"] = json!({
            "observations": 3, "spread": 0.5, "nearest": 0.25, "accuracy": 0.75,
            "collapsed": false, "discriminator_won": true,
        });
        let memory: Memory = from_value(former).unwrap();
        assert_eq!(to_value(memory).unwrap(), current);
    }
}
