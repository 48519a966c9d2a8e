//! What every run is told: how long, from which seed, on what, and where to.

use aigc_core::{
    CancelToken, Result,
    burn::{module::Module, tensor::Device},
    checkpoint::RunDir,
    device::device,
    train::{LossPlot, MetricsLogger, ProgressBar, StartFrom, Trainer, TrainerConfig},
};
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of a program that trains.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Updates to make; of a GAN, of its generator.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Minutes after which to stop even so.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// The same seed gives the same weights, order and noise, and so the same pictures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Steps between checkpoints.
    #[arg(long, value_name = "STEPS")]
    pub save_steps: Option<usize>,
    /// Where to leave everything; the next free number below `runs/` by default.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest one, exactly where it stopped; give the
    /// other options as before.
    #[arg(long)]
    pub resume: bool,
    /// Go on from an older checkpoint, when the newest is damaged.
    #[arg(long, value_name = "STEP")]
    pub resume_at: Option<usize>,
}

impl RunOptions {
    /// The device that was named.
    ///
    /// # Errors
    /// If it is none, or this program was built without it.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }

    /// Where training starts.
    pub fn start(&self) -> StartFrom {
        match (self.resume_at, self.resume) {
            (Some(step), _) => StartFrom::ResumeAt(step),
            (None, true) => StartFrom::Resume,
            (None, false) => StartFrom::Fresh,
        }
    }

    /// `config` with the lengths and cadences that were asked for.
    ///
    /// # Errors
    /// Names a field that is out of range.
    pub fn config(&self, config: TrainerConfig) -> Result<TrainerConfig> {
        let config = TrainerConfig {
            max_steps: self.steps.unwrap_or(config.max_steps),
            max_minutes: self.minutes.or(config.max_minutes),
            save_steps: self.save_steps.unwrap_or(config.save_steps),
            ..config
        };
        config.validate()?;
        Ok(config)
    }

    /// A trainer that starts where it was asked to, and shows and keeps how it goes; a line of
    /// metrics every `log` steps.
    pub fn trainer<'a, M: Module + 'static>(
        &self,
        config: TrainerConfig,
        stop: CancelToken,
        log: usize,
    ) -> Trainer<'a, M> {
        Trainer::new(config)
            .with_start(self.start())
            .with_cancel(stop)
            .with_callback(ProgressBar::new())
            .with_callback(MetricsLogger::new(log))
            .with_callback(LossPlot::new())
    }

    /// The run to resume: --out, or the newest of `runs/name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn existing_run(&self, name: &str) -> Result<RunDir> {
        match &self.out {
            Some(out) => RunDir::open(out),
            None => RunDir::open_latest(Path::new("runs").join(name)),
        }
    }

    /// The folder of the run that is asked for. Make it last, so that a mistake elsewhere leaves
    /// none behind.
    ///
    /// # Errors
    /// If there is none to resume, or one where a new one is to be.
    pub fn run(&self, name: &str) -> Result<RunDir> {
        match &self.out {
            _ if self.start() != StartFrom::Fresh => self.existing_run(name),
            Some(out) => RunDir::create(out),
            None => RunDir::create_next(Path::new("runs").join(name)),
        }
    }
}
