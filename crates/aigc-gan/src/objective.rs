//! A step of training.

use crate::{
    Augment, CollapseMonitor, Discriminator, Gan, GanLoss, Generator, GradientPenalty, LeCam,
    SampleBatch, monitor::Watch, penalty::Anchors,
};
use aigc_core::{
    Error, Result,
    ops::cross_entropy,
    params::{ParamMapper, map_params},
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::{
    module::{Flag, Module, ModuleVisitor, Param},
    tensor::{Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// What the two players play for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GanObjectiveConfig {
    /// The game.
    pub loss: GanLoss,
    /// How much less than 1 a real sample counts as real.
    pub label_smoothing: f64,
    /// Penalties on the critic's slope.
    pub penalties: Vec<GradientPenalty>,
    /// Keeps the two sides' scores near each other.
    pub lecam: Option<LeCam>,
    /// Every weight of the critic is brought within ± this after each of its updates (Arjovsky et
    /// al. 2017).
    pub weight_clip: Option<f64>,
    /// Updates of the critic per update of the generator.
    pub discriminator_steps: usize,
    /// Augmentation of what the critic sees.
    pub augment: Augment,
    /// Weight of naming the right class, for a critic that is an auxiliary classifier.
    pub auxiliary_weight: f64,
    /// Watches for collapse.
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
    /// The game `loss`, plain.
    pub fn new(loss: GanLoss) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }

    /// R3GAN's: relativistic pairing with R1 and R2 of the same `γ` (Huang et al. 2024,
    /// <https://arxiv.org/abs/2501.05441>).
    pub fn r3gan(gamma: f64) -> Self {
        Self {
            penalties: vec![GradientPenalty::r1(gamma), GradientPenalty::r2(gamma)],
            ..Self::new(GanLoss::RelativisticPairing)
        }
    }

    /// WGAN-GP's: `λ = 10`, five updates of the critic for one of the generator (Gulrajani et al.
    /// 2017,
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
        if let Some(clip) = self
            .weight_clip
            .filter(|clip| !(*clip > 0.0 && clip.is_finite()))
        {
            return Err(Error::config(
                "weight_clip",
                clip,
                "a finite number above 0",
            ));
        }
        if !(1..=1000).contains(&self.discriminator_steps) {
            return Err(Error::config(
                "discriminator_steps",
                self.discriminator_steps,
                "1 to 1000",
            ));
        }
        if !(self.auxiliary_weight >= 0.0 && self.auxiliary_weight.is_finite()) {
            return Err(Error::config(
                "auxiliary_weight",
                self.auxiliary_weight,
                "a finite number from 0 on",
            ));
        }
        Ok(())
    }
}

/// The game of a generator and a critic, step by step.
///
/// The turns are called `critic` and `generator`. What the generator made for the critic's last
/// update is used again for its own: nothing of it has changed in between, so its forward pass runs
/// once.
#[derive(Debug)]
pub struct GanObjective<G, C, B> {
    config: GanObjectiveConfig,
    /// Made in the critic's turn, one for each accumulated batch.
    made: Vec<Option<Tensor<4>>>,
    memory: Memory,
    has_batch_norm: bool,
    players: PhantomData<fn(G, C, B)>,
}

/// What a resumed run needs to know.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// ADA's probability.
    augment: f64,
    anchors: Anchors,
    watch: Watch,
}

const CRITIC: usize = 0;

impl<G: Generator + 'static, C: Discriminator + 'static, B: SampleBatch> GanObjective<G, C, B> {
    /// The objective for these players.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, and for a penalty on a critic with batch
    /// normalisation, whose scores depend on the whole batch, or with dropout, whose scores depend
    /// on chance; for a critic with other classes than the generator's.
    pub fn new(config: GanObjectiveConfig, gan: &Gan<G, C>) -> Result<Self> {
        config.validate()?;
        let (of_critic, of_generator) =
            (gan.discriminator.num_classes(), gan.generator.num_classes());
        if of_critic.is_some() && of_critic != of_generator {
            let [value, expected] = [of_critic, of_generator].map(|classes| classes.unwrap_or(0));
            return Err(Error::config(
                "classes",
                format!("{value} of the critic"),
                format!("{expected}, the generator's"),
            ));
        }
        let critic = Survey::of(&gan.discriminator);
        if let Some(penalty) = config
            .penalties
            .first()
            .filter(|_| critic.draws_at_random())
        {
            let expected = "none: the critic draws at random (dropout), and a penalty needs the same score for the same sample";
            return Err(Error::config(
                "penalties",
                format!("{:?}", penalty.kind),
                expected,
            ));
        }
        if let Some(penalty) = config.penalties.first().filter(|_| critic.has_batch_norm()) {
            let expected = "none: the critic has batch normalisation, and a penalty needs scores that do not depend on \
                            the rest of the batch; use spectral normalisation or none";
            return Err(Error::config(
                "penalties",
                format!("{:?}", penalty.kind),
                expected,
            ));
        }
        let has_batch_norm = Survey::of(gan).has_batch_norm();
        Ok(Self {
            config,
            made: Vec::new(),
            memory: Memory::default(),
            has_batch_norm,
            players: PhantomData,
        })
    }

    /// The settings.
    pub fn config(&self) -> &GanObjectiveConfig {
        &self.config
    }

    /// ADA's present probability.
    pub fn augment_probability(&self) -> f64 {
        self.memory.augment
    }

    fn check(&self, generator: &G, batch: &B) -> Result<()> {
        if batch.sample_shape() != generator.sample_shape() {
            let expected = format!("{}, which the generator makes", generator.sample_shape());
            return Err(Error::config("images", batch.sample_shape(), expected));
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
            return Err(Error::config(
                "labels",
                "missing",
                "the class of every sample, for a generator with classes",
            ));
        };
        match labels.iter().find(|label| **label as usize >= classes) {
            Some(label) => Err(Error::config(
                "labels",
                label,
                format!("below {classes}, the generator's classes"),
            )),
            None => Ok(()),
        }
    }

    fn critic_losses(
        &mut self,
        gan: &Gan<G, C>,
        real: Tensor<4>,
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
            self.made
                .resize(self.made.len().max(context.micro_batch + 1), None);
            self.made[context.micro_batch] = Some(fake.clone());
            fake.detach()
        } else {
            gan.generator.clone().no_grad().generate(z, class.clone())
        };
        let look = keep && context.micro_batch == 0;
        let alarm = config
            .monitor
            .filter(|monitor| look && context.step.is_multiple_of(monitor.interval));
        let looked_at = alarm.map(|_| {
            let one_hot = |classes| Tensor::<2>::eye(classes, &context.device);
            let class = gan
                .generator
                .num_classes()
                .map(one_hot)
                .zip(class.clone())
                .map(|(rows, c)| rows.select(0, c));
            (real.clone(), fake.clone(), class)
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
            total =
                total + lecam.measure(&of_real.logits, &of_fake.logits, &mut self.memory.anchors);
        }
        if let (Some(a), Some(b), Some(class)) = (of_real.class_logits, of_fake.class_logits, class)
        {
            let naming = cross_entropy(a, class.clone()).mean() + cross_entropy(b, class).mean();
            total = total + naming.clone() * config.auxiliary_weight;
            parts.push(("naming", naming));
        }
        if let Augment::Adaptive(ada) = &config.augment {
            let sure = config.loss.real_sign(
                of_real.logits.clone().detach(),
                of_fake.logits.clone().detach(),
            );
            let sure = f64::from(sure.into_scalar::<f32>());
            self.memory.augment = ada.adjust(self.memory.augment, sure, of_real.logits.dims()[0]);
        }
        let accuracy = config.loss.accuracy(
            of_real.logits.clone().detach(),
            of_fake.logits.clone().detach(),
        );
        if let (Some(monitor), Some((real, fake, class))) = (alarm, looked_at) {
            for (kind, text) in monitor.look(
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
            .made
            .get_mut(context.micro_batch)
            .and_then(Option::take)
            .unwrap_or_else(|| {
                let z = context
                    .rng
                    .normal([batch.len(), gan.generator.latent_dim()], &context.device);
                gan.generator.generate(z, class.clone())
            });
        // The critic is only looked through: nobody wants its gradients now.
        let critic = gan.discriminator.clone().no_grad();
        let of_real = config.loss.is_relativistic().then(|| {
            let real = config.augment.apply(
                batch.to_tensor(&context.device),
                self.memory.augment,
                &mut context.rng,
            );
            critic.score(real, class.clone())
        });
        let fake = config
            .augment
            .apply(fake, self.memory.augment, &mut context.rng);
        let of_fake = critic.forward_with_classes(fake, class.clone());
        let mut total = config.loss.generator_loss(of_fake.logits, of_real);
        if let (Some(classes), Some(class)) = (of_fake.class_logits, class) {
            total = total + cross_entropy(classes, class).mean() * config.auxiliary_weight;
        }
        LossOutput::new(total)
    }
}

impl<G: Generator + 'static, C: Discriminator + 'static, B: SampleBatch> Objective
    for GanObjective<G, C, B>
{
    type Model = Gan<G, C>;
    type Batch = B;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("discriminator")
                .for_field("discriminator")
                .with_repeats(self.config.discriminator_steps),
            Phase::new("generator_loss")
                .for_field("generator_loss")
                .reuse_batch(),
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
            .map(|labels| {
                let labels: Vec<i32> = labels.iter().map(|label| *label as i32).collect();
                let count = labels.len();
                Tensor::from_data(TensorData::new(labels, [count]), &context.device)
            });
        Ok(match context.phase {
            CRITIC => self.critic_losses(gan, batch.to_tensor(&context.device), class, context),
            _ => self.generator_losses(gan, batch, class, context),
        })
    }

    fn after_update(&mut self, gan: Gan<G, C>, phase: usize) -> Result<Gan<G, C>> {
        let Some(within) = self.config.weight_clip.filter(|_| phase == CRITIC) else {
            return Ok(gan);
        };
        Ok(Gan {
            discriminator: map_params(gan.discriminator, &mut Clip { within }),
            ..gan
        })
    }

    fn state(&self) -> serde_json::Value {
        serde_json::to_value(self.memory).unwrap_or_default()
    }

    fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        let text = state.to_string();
        self.memory = serde_json::from_value(state)
            .map_err(|error| Error::config("state.objective", text, format!("a GAN's: {error}")))?;
        Ok(())
    }
}

/// Brings trained weights within their bounds.
struct Clip {
    within: f64,
}

impl ParamMapper for Clip {
    fn map<const D: usize>(&mut self, _path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            let clipped = tensor.without_autodiff().clamp(-self.within, self.within);
            Tensor::from_inner(clipped).require_grad()
        })
    }
}

/// What in a model makes a sample's score depend on more than the sample: the paths of batch
/// normalisation, and of whatever holds a flag that is on in training, such as dropout.
#[derive(Default)]
struct Survey {
    path: Vec<String>,
    norms: Vec<String>,
    flags: Vec<String>,
}

impl Survey {
    fn of<M: Module>(model: &M) -> Self {
        let mut survey = Self::default();
        model.visit(&mut survey);
        survey
    }

    fn has_batch_norm(&self) -> bool {
        !self.norms.is_empty()
    }

    fn draws_at_random(&self) -> bool {
        self.flags.iter().any(|holder| !self.norms.contains(holder))
    }

    /// What holds the field that is being visited.
    fn holder(&self) -> String {
        self.path[..self.path.len().saturating_sub(1)].join(".")
    }
}

impl ModuleVisitor for Survey {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        if flag.is_enabled() {
            self.flags.push(self.holder());
        }
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|name| name == "running_mean") {
            self.norms.push(self.holder());
        }
    }
}
