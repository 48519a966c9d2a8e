//! A step: the updates of its phases.

use super::{Session, max_seconds};
use crate::{
    Result,
    data::BatchIter,
    rng::Rng,
    train::{
        Event, LossOutput, Objective, Phase, StepContext, StepReport,
        gradients::{grad_norm, scale_gradients},
        optimizer::learning_rates,
        readout::{GRAD_NORM, add, read},
        schedule::planned_steps,
    },
};
use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
};

/// The losses of an update, and the norm of its gradients if it was computed.
struct UpdateReport {
    losses: Vec<(String, f64)>,
    grad_norm: Option<f64>,
}

impl<M: Module + 'static> Session<'_, '_, M> {
    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64 {
        let (config, step) = (&self.trainer.config, self.state.step);
        let steps = match config.max_minutes {
            Some(_) => planned_steps(step, self.seconds(), config.max_steps, max_seconds(config)),
            None => config.max_steps,
        };
        config.learning_rate * config.lr_schedule.lr_factor(step, steps)
    }

    pub(super) fn step<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &mut BatchIter<O::Batch>,
    ) -> Result<StepReport> {
        let learning_rate = self.learning_rate();
        // Dropout draws from the backend's generator: reseeded, so that it draws the same numbers
        // whenever this step is run.
        let seed = Rng::stream(self.trainer.config.seed, "device", self.state.step as u64);
        self.device.seed({ seed }.next_u64());
        let mut drawn: Vec<O::Batch> = Vec::new();
        let (mut losses, mut largest_norm) = (Vec::new(), None::<f64>);
        let several = self.phases.len() > 1;
        for phase in 0..self.phases.len() {
            let Phase {
                name,
                repeat,
                same_batch,
                ..
            } = self.phases[phase].phase;
            let mut last = Vec::new();
            for repetition in 0..repeat.max(1) {
                if !same_batch || drawn.is_empty() {
                    self.draw(batches, &mut drawn)?;
                }
                let update = self.update(objective, &drawn, phase, repetition, learning_rate)?;
                largest_norm = [largest_norm, update.grad_norm]
                    .into_iter()
                    .flatten()
                    .reduce(f64::max);
                last = update.losses;
            }
            // For a repeated update, the losses of the last repetition are reported.
            losses.extend(
                last.into_iter()
                    .map(|(n, v)| (if several { format!("{name}.{n}") } else { n }, v)),
            );
        }
        if let (Some(ema), Some(model)) = (&mut self.ema, &self.model) {
            ema.update(model);
            self.state.ema_updates = ema.updates();
        }
        self.state.step += 1;
        self.state.objective = objective.state();
        Ok(StepReport {
            step: self.state.step,
            losses,
            grad_norm: largest_norm,
            learning_rate,
            elapsed: self.began.elapsed(),
        })
    }

    /// Replaces `drawn` by the batches of the next update.
    fn draw<B>(&mut self, batches: &mut BatchIter<B>, drawn: &mut Vec<B>) -> Result<()> {
        drawn.clear();
        for _ in 0..self.trainer.config.gradient_accumulation_steps {
            drawn.push(batches.next_batch()?);
        }
        self.state.batches = batches.position();
        Ok(())
    }

    /// Runs one update of one phase.
    fn update<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &[O::Batch],
        phase: usize,
        repetition: usize,
        learning_rate: f64,
    ) -> Result<UpdateReport> {
        let (mut losses, gradients) = self.accumulate(objective, batches, phase, repetition)?;
        let (gradients, grad_norm) = self.clip(gradients);
        losses.extend(grad_norm.map(|norm| (GRAD_NORM.to_string(), norm)));
        self.check_finite(&losses)?;
        losses.retain(|(name, _)| name != GRAD_NORM);
        let rates = learning_rates(learning_rate, &self.groups);
        let model = self
            .model
            .take()
            .expect("the model is only away during an update");
        let model = self.phases[phase].optimizer.step(rates, model, gradients);
        self.model = Some(objective.after_update(model, phase)?);
        Ok(UpdateReport { losses, grad_norm })
    }

    /// Mean losses and mean gradients over the batches of an update.
    fn accumulate<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &[O::Batch],
        phase: usize,
        repetition: usize,
    ) -> Result<(Vec<(String, f64)>, GradientsParams)> {
        let repeat = self.phases[phase].phase.repeat;
        let (step, accumulate) = (self.state.step, batches.len());
        let stream = self.phases[phase].phase.stream();
        let mut sums: Vec<(String, f64)> = Vec::new();
        let mut accumulated = GradientsAccumulator::new();
        let mut single = GradientsParams::new();
        for (micro_batch, batch) in batches.iter().enumerate() {
            let draw = (step * repeat.max(1) + repetition) * accumulate + micro_batch;
            let mut context = StepContext {
                step,
                steps: self.trainer.config.max_steps,
                phase,
                repetition,
                micro_batch,
                device: self.device.clone(),
                rng: Rng::stream(self.trainer.config.seed, &stream, draw as u64),
                alerts: Vec::new(),
            };
            let losses = objective.losses(self.model(), batch, &mut context)?;
            for (kind, text) in &context.alerts {
                self.emit(&Event::Alert { step, kind, text })?;
            }
            let gradients = self.gradients(phase, &losses, accumulate);
            if accumulate == 1 {
                single = gradients;
            } else {
                accumulated.accumulate(self.model(), gradients);
            }
            add(&mut sums, read(&losses)?, accumulate);
        }
        let gradients = if accumulate == 1 {
            single
        } else {
            accumulated.grads()
        };
        Ok((sums, gradients))
    }

    /// Gradients of the mean over accumulated batches, for the parameters of this phase.
    fn gradients(&self, phase: usize, losses: &LossOutput, accumulate: usize) -> GradientsParams {
        let mut gradients = if accumulate == 1 {
            losses.loss.backward()
        } else {
            (losses.loss.clone() / accumulate as f64).backward()
        };
        GradientsParams::from_params(&mut gradients, self.model(), &self.phases[phase].params)
    }

    /// Scales gradients down to the allowed norm, by the rule of PyTorch's `clip_grad_norm_`;
    /// returns the norm before, if this step needs it.
    fn clip(&self, gradients: GradientsParams) -> (GradientsParams, Option<f64>) {
        let (config, step) = (&self.trainer.config, self.state.step);
        let needed = config.max_grad_norm.is_some()
            || step.is_multiple_of(10)
            || Self::due(config.save_steps, step + 1)
            || Self::due(config.eval_steps, step + 1);
        let norm = needed
            .then(|| grad_norm(self.model(), &gradients))
            .flatten()
            .map(|norm| f64::from(norm.into_scalar::<f32>()));
        match (norm, config.max_grad_norm) {
            (Some(norm), Some(limit)) if norm > limit && norm.is_finite() => {
                let scaled = scale_gradients(self.model(), gradients, limit / (norm + 1e-6));
                (scaled, Some(norm))
            }
            _ => (gradients, norm),
        }
    }

    fn check_finite(&self, values: &[(String, f64)]) -> Result<()> {
        match values.iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step + 1, name.clone(), *value)),
        }
    }
}
