//! The settings of a run, which a resumed run uses.

use crate::{Args, spectra::spectra};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    data::effects::EffectKind,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{DiffusionObjectiveConfig, UNet2dConfig};
use aigc_examples_sound::MelImageConfig;
use serde::{Deserialize, Serialize};

/// What the network learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EffectsConfig {
    /// The spectra, as images.
    pub(crate) spectra: MelImageConfig,
    /// Number of sounds.
    pub(crate) clips: usize,
}

/// The `config.json` of a run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings {
    pub(crate) model: UNet2dConfig,
    pub(crate) trainer: TrainerConfig,
    pub(crate) objective: DiffusionObjectiveConfig,
    pub(crate) data: EffectsConfig,
}

impl Settings {
    /// The settings of a new run.
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let size = args.size.unwrap_or(32);
        ensure_argument(matches!(size, 16 | 32 | 64), "--size", size, "16, 32 or 64")?;
        let width = args.width.unwrap_or(32);
        ensure_argument(
            width.is_multiple_of(8) && (8..=1024).contains(&width),
            "--width",
            width,
            "a multiple of 8, at most 1024",
        )?;
        let spectra = spectra(size);
        let small = UNet2dConfig::small(spectra.shape(), Some(EffectKind::ALL.len()));
        let levels = small.block_out_channels.len();
        let model = UNet2dConfig {
            block_out_channels: [width, 2 * width, 2 * width][..levels].to_vec(),
            ..small.with_null_class()
        };
        let trainer = TrainerConfig {
            seed: args.run.seed,
            learning_rate: 1e-3,
            lr_schedule: LrSchedule::cosine(100),
            optimizer: OptimizerConfig::adam(0.9, 0.99),
            max_grad_norm: Some(1.0),
            ema: Some(EmaConfig::new(0.998)),
            preview_steps: 500,
            save_steps: 250,
            ..TrainerConfig::new(1500)
        };
        let objective = DiffusionObjectiveConfig {
            conditioning_dropout: 0.1,
            ..DiffusionObjectiveConfig::default()
        };
        let data = EffectsConfig {
            spectra,
            clips: args.clips.map_or(4096, |clips| clips as usize),
        };
        Ok(Self {
            model,
            trainer,
            objective,
            data,
        })
    }

    /// Fails if an option is given that is not what the run began with.
    pub(crate) fn check(&self, args: &Args) -> Result<()> {
        let width = self.model.block_out_channels.first().copied();
        let clips = args.clips.map(|clips| clips as usize);
        for (option, given, saved) in [
            ("--size", args.size, Some(self.data.spectra.frames)),
            ("--width", args.width, width),
            ("--clips", clips, Some(self.data.clips)),
        ] {
            if let (Some(given), Some(saved)) = (given, saved)
                && given != saved
            {
                let expected = format!("{saved}, with which the run began");
                return Err(Error::argument(option, given, expected));
            }
        }
        Ok(())
    }
}
