//! A progress bar.

use super::{Callback, Event, StopReason};
use crate::Result;
use indicatif::{ProgressBar as Bar, ProgressStyle};

/// Shows steps, speed, remaining time and losses in the terminal; prints nothing without a
/// terminal.
#[derive(Debug, Default)]
pub struct ProgressBar {
    bar: Option<Bar>,
    evaluation: String,
}

impl ProgressBar {
    /// A bar that appears when training starts.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Callback for ProgressBar {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Started {
            from_step, steps, ..
        } = event
        {
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} ETA {eta} {msg}");
            let bar = Bar::new(*steps as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(*from_step as u64);
            bar.reset_eta();
            self.bar = Some(bar);
        }
        let Some(bar) = &self.bar else { return Ok(()) };
        match event {
            Event::Step(report) => {
                let losses: Vec<_> = report
                    .losses
                    .iter()
                    .map(|(name, value)| format!("{name} {value:.4}"))
                    .collect();
                bar.set_message(format!("{}{}", losses.join(" "), self.evaluation));
                bar.set_position(report.step as u64);
            }
            Event::Evaluated { metrics, .. } => {
                self.evaluation = metrics
                    .iter()
                    .map(|(name, value)| format!(" | {name} {value:.4}"))
                    .collect();
            }
            Event::Warning(text) => bar.println(*text),
            Event::Alert { step, text, .. } => bar.println(format!("step {step}: {text}")),
            Event::Finished {
                reason: StopReason::Completed,
                ..
            } => bar.finish(),
            Event::Finished { .. } => bar.abandon(),
            _ => {}
        }
        Ok(())
    }
}
