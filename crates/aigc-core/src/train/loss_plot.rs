//! A callback that plots the losses.

use super::{Callback, Event, read_metrics};
use crate::{Result, output::plot_losses};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Draws the run's `loss.svg` from its `metrics.jsonl` at checkpoints and at the end. Add it after
/// the [`MetricsLogger`](super::MetricsLogger).
///
/// Drawing the log of a long run takes time: the plot is redrawn only after 20 times the duration
/// of the last drawing.
#[derive(Debug, Default)]
pub struct LossPlot {
    paths: Option<(PathBuf, PathBuf)>,
    /// When the last drawing ended, and its duration.
    last: Option<(Instant, Duration)>,
}

impl LossPlot {
    /// A plot of the run's losses.
    pub fn new() -> Self {
        Self::default()
    }

    fn draw(&mut self) -> Result<()> {
        let began = Instant::now();
        if let Some((metrics, plot)) = &self.paths
            && metrics.exists()
        {
            plot_losses(&read_metrics(metrics)?, plot)?;
        }
        self.last = Some((Instant::now(), began.elapsed()));
        Ok(())
    }
}

impl Callback for LossPlot {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started { run, .. } => self.paths = Some((run.metrics_path(), run.plot_path())),
            Event::Saved { .. }
                if self
                    .last
                    .is_none_or(|(ended, took)| ended.elapsed() > took * 20) =>
            {
                self.draw()?
            }
            Event::Finished { .. } => self.draw()?,
            _ => {}
        }
        Ok(())
    }
}
