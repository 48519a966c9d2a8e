//! Options of every run: length, seed, device, directory.

use aigc_core::{
    CancelToken, Error, Result,
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
    /// Minutes of training after which to stop even if steps are left; the learning rate follows
    /// whichever ends first.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// The same seed gives the same weights, order and noise, and so the same pictures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Steps between checkpoints.
    #[arg(long, alias = "checkpoint-every", value_name = "STEPS")]
    pub save_steps: Option<usize>,
    /// Directory of the run; the next free number below `runs/` by default.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Resume the run in --out, or the newest one, exactly where it stopped. Lengths may change;
    /// other options must be as before, or left out.
    #[arg(long)]
    pub resume: bool,
    /// Resume from an older checkpoint, if the newest is damaged.
    #[arg(long, value_name = "STEP")]
    pub resume_at: Option<usize>,
}

impl RunOptions {
    /// The device of `--device`.
    ///
    /// # Errors
    /// If there is no such device, or this program was built without its backend.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }

    /// Fails if `--seed` is given and is not the seed with which a resumed run began.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn check_seed(&self, saved: u64) -> Result<()> {
        // Its default is not distinguished from a given value in the field.
        let given = std::env::args()
            .any(|argument| argument == "--seed" || argument.starts_with("--seed="));
        if given && self.seed != saved {
            let expected = format!("{saved}, with which the run began");
            return Err(Error::argument("--seed", self.seed, expected));
        }
        Ok(())
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

    /// A trainer with a progress bar, a log with a line every `log` steps, and a plot of the
    /// losses, that starts as `--resume` and `--resume-at` say.
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

    /// The directory of the run. Call it last: a mistake elsewhere then leaves none behind.
    ///
    /// # Errors
    /// [`Error::Run`] if there is no run to resume, or one where a new one would be.
    pub fn run(&self, name: &str) -> Result<RunDir> {
        match &self.out {
            _ if self.start() != StartFrom::Fresh => self.existing_run(name),
            Some(out) => RunDir::create(out),
            None => RunDir::create_next(Path::new("runs").join(name)),
        }
    }
}
