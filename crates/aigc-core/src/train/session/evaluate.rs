//! Evaluations and previews.

use super::Session;
use crate::{
    Error, Result,
    train::{Event, PreviewContext},
};
use burn::module::Module;

impl<M: Module + 'static> Session<'_, '_, M> {
    /// The model for evaluations and previews, without autodiff.
    pub(super) fn evaluated_model(&self) -> M {
        self.ema
            .as_ref()
            .map_or_else(|| self.model().valid(), |ema| ema.model().clone())
    }

    /// Evaluates the model; returns whether it is the best so far.
    pub(super) fn evaluate(&mut self) -> Result<bool> {
        let (step, model) = (self.state.step, self.evaluated_model());
        let Some(evaluate) = &mut self.trainer.evaluate else {
            return Ok(false);
        };
        self.last_evaluated = Some(step);
        let metrics = evaluate(&model)?;
        let value = self.deciding_metric(&metrics)?;
        let better = |value: f64, best: f64| {
            if self.trainer.config.greater_is_better {
                value > best
            } else {
                value < best
            }
        };
        let best = value.is_some_and(|v| {
            v.is_finite() && self.state.best.is_none_or(|(_, best)| better(v, best))
        });
        if let (true, Some(value)) = (best, value) {
            self.state.best = Some((step, value));
            self.state.since_best = 0;
        } else {
            self.state.since_best += 1;
        }
        self.state.metrics = metrics
            .iter()
            .map(|(n, v)| (n.clone(), Some(*v).filter(|v| v.is_finite())))
            .collect();
        self.emit(&Event::Evaluated {
            step,
            metrics: &metrics,
            best,
        })?;
        Ok(best)
    }

    /// The value of the metric that decides which model is best.
    fn deciding_metric(&self, metrics: &[(String, f64)]) -> Result<Option<f64>> {
        // An evaluation that was interrupted has no metrics.
        if metrics.is_empty() {
            return Ok(None);
        }
        let Some(name) = &self.trainer.config.metric_for_best_model else {
            return Ok(metrics.first().map(|(_, value)| *value));
        };
        match metrics.iter().find(|(metric, _)| metric == name) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = metrics.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::config(
                    "metric_for_best_model",
                    name,
                    format!("a metric of the evaluation: {}", names.join(", ")),
                ))
            }
        }
    }

    pub(super) fn preview(&mut self) -> Result<()> {
        let (step, model, run) = (self.state.step, self.evaluated_model(), self.run);
        let Some(preview) = &mut self.trainer.preview else {
            return Ok(());
        };
        self.last_previewed = Some(step);
        preview(&model, &PreviewContext { step, run })?;
        self.emit(&Event::Previewed { step })
    }
}
