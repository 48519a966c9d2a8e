//! Options of training runs: length, seed, device, directory.

use aigc_core::{
    CancelToken, Error, Result,
    burn::{module::Module, tensor::Device},
    checkpoint::RunDir,
    device::device,
    train::{LossPlot, MetricsLogger, ProgressBar, StartFrom, Trainer, TrainerConfig},
};
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of a training program.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Number of training steps; for a GAN, updates of the generator.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Time limit in minutes; training ends even if steps are left. The learning-rate schedule is
    /// scaled to the limit that is reached first. The limit of `digits --model diffusion` includes
    /// the evaluation at the end; a model with codes and the prior over them have half of it each.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Random seed; the same seed gives the same weights, order and noise, and therefore the same
    /// images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Steps between checkpoints.
    #[arg(long, alias = "checkpoint-every", value_name = "STEPS")]
    pub save_steps: Option<usize>,
    /// Run directory; by default the next free number below `runs/`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Resume the run in --out, or the newest one, exactly where it stopped. Lengths may change;
    /// other options must be the same or left out.
    #[arg(long)]
    pub resume: bool,
    /// Resume from an older checkpoint, if the newest is damaged.
    #[arg(long, value_name = "STEP")]
    pub resume_at: Option<usize>,
}

impl RunOptions {
    /// The device named by `--device`.
    ///
    /// # Errors
    /// If the device does not exist, or its backend was not compiled in.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }

    /// Fails if `--seed` is given and differs from the seed of the resumed run.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn check_seed(&self, saved: u64) -> Result<()> {
        // The field does not show whether its value was given.
        let given = std::env::args()
            .any(|argument| argument == "--seed" || argument.starts_with("--seed="));
        if given && self.seed != saved {
            let expected = format!("{saved}, with which the run began");
            return Err(Error::argument("--seed", self.seed, expected));
        }
        Ok(())
    }

    /// These options with `share` of the time limit, for one of several trainings.
    pub fn with_share_of_time(&self, share: f64) -> Self {
        Self {
            minutes: self.minutes.map(|minutes| share * minutes),
            ..self.clone()
        }
    }

    /// Where training starts.
    pub fn start(&self) -> StartFrom {
        match (self.resume_at, self.resume) {
            (Some(step), _) => StartFrom::ResumeAt(step),
            (None, true) => StartFrom::Resume,
            (None, false) => StartFrom::Fresh,
        }
    }

    /// `config` with the lengths and intervals of the command line.
    ///
    /// # Errors
    /// [`Error::Config`] naming a field that is out of range.
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

    /// A trainer with a progress bar, a log with one line per `log` steps, and a plot of the
    /// losses. It starts as selected by `--resume` and `--resume-at`.
    pub fn trainer<'a, M: Module + 'static>(
        &self,
        config: TrainerConfig,
        cancel: CancelToken,
        log: usize,
    ) -> Trainer<'a, M> {
        Trainer::new(config)
            .with_start(self.start())
            .with_cancel(cancel)
            .with_callback(ProgressBar::new())
            .with_callback(MetricsLogger::new(log))
            .with_callback(LossPlot::new())
    }

    /// The run to resume: --out, or the newest of `runs/name`.
    ///
    /// # Errors
    /// [`Error::Run`] if there is none.
    pub fn existing_run(&self, name: &str) -> Result<RunDir> {
        match &self.out {
            Some(out) => RunDir::open(out),
            None => RunDir::open_latest(Path::new("runs").join(name)),
        }
    }

    /// The run directory. Call this last, so that an earlier error leaves no directory behind.
    ///
    /// # Errors
    /// [`Error::Run`] if there is no run to resume, or a new run would overwrite one.
    pub fn run(&self, name: &str) -> Result<RunDir> {
        match &self.out {
            _ if self.start() != StartFrom::Fresh => self.existing_run(name),
            Some(out) => RunDir::create(out),
            None => RunDir::create_next(Path::new("runs").join(name)),
        }
    }
}
