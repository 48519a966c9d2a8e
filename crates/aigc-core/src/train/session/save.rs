//! Checkpoints, and the model that a run ends with.

use super::Session;
use crate::{
    Result,
    checkpoint::save_optimizer,
    train::{
        Ema, Event,
        state::{EMA, MODEL, STATE, TIME, TimeSpent, optimizer_file},
        survey::not_finite,
    },
    weights::{load_weights_with_mapping, save_weights},
};
use burn::module::Module;

impl<M: Module + 'static> Session<'_, '_, M> {
    /// Fails if a weight is not finite: a run could not resume from its checkpoint.
    fn check_weights(&self, live: &M) -> Result<()> {
        let average = self.ema.as_ref().map(Ema::model);
        let models: Vec<&M> = std::iter::once(live).chain(average).collect();
        match not_finite(&models) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step, name, value)),
        }
    }

    pub(super) fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        if self.last_saved == Some(step) {
            return Ok(());
        }
        // `valid` includes the last update of the running statistics, which saving the live model
        // would miss.
        let live = self.model().valid();
        self.check_weights(&live)?;
        let writer = self.run.write_checkpoint(step)?;
        writer.write_json(STATE, &self.state)?;
        let seconds = self.seconds();
        writer.write_json(TIME, &TimeSpent { seconds })?;
        save_weights(&live, &writer.path(MODEL))?;
        if let Some(ema) = &self.ema {
            save_weights(ema.model(), &writer.path(EMA))?;
        }
        for phase in &self.phases {
            save_optimizer(
                &phase.optimizer,
                &writer.path(&optimizer_file(&phase.phase)),
            )?;
        }
        let dir = writer.commit(step)?;
        self.last_saved = Some(step);
        let best = self
            .state
            .best
            .filter(|_| self.trainer.config.load_best_model_at_end)
            .map(|(step, _)| step);
        self.run
            .prune(self.trainer.config.save_total_limit, best.as_slice())?;
        self.emit(&Event::Saved { step, dir: &dir })
    }

    pub(super) fn final_model(&mut self) -> Result<M> {
        let best = self
            .state
            .best
            .map(|(step, _)| step)
            .filter(|step| *step != self.state.step);
        match best.filter(|_| self.trainer.config.load_best_model_at_end) {
            None => Ok(self.evaluated_model()),
            Some(step) if !self.run.checkpoint_steps()?.contains(&step) => {
                let text = format!(
                    "the checkpoint of the best model, of step {step}, was not kept; the last model is used instead"
                );
                self.emit(&Event::Warning(&text))?;
                Ok(self.evaluated_model())
            }
            Some(step) => {
                let file = if self.ema.is_some() { EMA } else { MODEL };
                let path = self.run.checkpoint(step)?.path(file);
                load_weights_with_mapping(self.model().valid(), &path, &self.renamed)
            }
        }
    }
}
