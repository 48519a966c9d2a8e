//! One training loop for all families.
//!
//! An [`Objective`] computes the losses of a step; the [`Trainer`] does not depend on the model
//! family. It draws batches, computes losses and gradients, clips, updates, averages weights,
//! evaluates, previews, saves, and calls [`Callback`]s. An interrupted run
//! [resumes](StartFrom::Resume) exactly: every tensor ends with the same bits as without the
//! interruption (on Flex, with the same number of threads).

mod adam;
mod config;
mod diversity;
mod ema;
mod event;
mod gradients;
#[cfg(feature = "plot")]
mod loss_plot;
mod metrics_log;
mod objective;
mod optimizer;
#[cfg(feature = "progress")]
mod progress;
mod readout;
mod schedule;
mod session;
mod state;
mod survey;
mod trainer;

pub use adam::{Adam, AdamConfig};
pub use config::{EmaConfig, TrainerConfig};
pub use diversity::{DiversityWatch, batch_spread, nearest_distance};
pub use ema::Ema;
pub use event::{Callback, Event, StepReport, StopReason};
pub use gradients::{grad_norm, scale_gradients};
#[cfg(feature = "plot")]
pub use loss_plot::LossPlot;
pub use metrics_log::{MetricsLogger, MetricsRecord, read_metrics};
pub use objective::{LossOutput, Objective, Phase, StepContext};
pub use optimizer::{OptimizerConfig, ParamGroupConfig};
#[cfg(feature = "progress")]
pub use progress::ProgressBar;
pub use schedule::{LrDecay, LrSchedule};
pub(crate) use state::RunConfig;
pub use trainer::{Metrics, PreviewContext, StartFrom, TrainOutput, Trainer};
