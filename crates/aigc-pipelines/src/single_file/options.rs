//! Options of opening a single file.

use aigc_diffusion::PredictionType;
use std::path::PathBuf;

/// How a single file is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SingleFileOptions {
    pub(super) configs: Option<PathBuf>,
    pub(super) averaged: bool,
    pub(super) prediction_type: Option<PredictionType>,
}

impl SingleFileOptions {
    /// The plain weights, with built-in configurations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes configurations from a directory in diffusers' layout (`unet/config.json`, …). It need
    /// not have weights.
    pub fn with_configs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.configs = Some(dir.into());
        self
    }

    /// Takes the averaged weights (`model_ema`) of the network.
    pub fn with_averaged_weights(mut self) -> Self {
        self.averaged = true;
        self
    }

    /// Sets what the network predicts, whatever the file or the configurations say.
    pub fn with_prediction_type(mut self, prediction_type: PredictionType) -> Self {
        self.prediction_type = Some(prediction_type);
        self
    }
}
