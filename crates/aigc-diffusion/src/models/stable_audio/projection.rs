//! `StableAudioProjectionModel`: the conditions of a prompt and of times in seconds.

use super::StableAudioProjectionConfig;
use crate::models::files::network_methods;
use aigc_core::{
    Result,
    nn::{Initializer, Linear, LinearConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use std::{f64::consts::TAU, path::Path};

/// How many sines and cosines of a number there are. The number itself is one more feature.
const FEATURES: usize = 256;

/// A number, and sines and cosines of it with frequencies that are learned.
#[derive(Module, Debug)]
struct NumberFeatures {
    /// `[FEATURES / 2]`.
    weights: Param<Tensor<1>>,
}

/// The condition of a time in seconds.
#[derive(Module, Debug)]
struct NumberConditioner {
    time_positional_embedding: (NumberFeatures, Linear),
}

impl NumberConditioner {
    fn new(width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let half = FEATURES / 2;
        let features = NumberFeatures {
            weights: normal.param([half], half, half, device),
        };
        let linear = LinearConfig::new(FEATURES + 1, width).init(device);
        Self {
            time_positional_embedding: (features, linear),
        }
    }

    /// # Shapes
    /// - numbers: `[batch]`, from 0 to 1
    /// - output: `[batch, 1, width]`
    fn forward(&self, numbers: Tensor<1>) -> Tensor<3> {
        let (features, linear) = &self.time_positional_embedding;
        let numbers = numbers.reshape([-1, 1]);
        let weights = ops::cast(features.weights.val(), numbers.dtype()).unsqueeze::<2>();
        let angles = numbers.clone() * weights * TAU;
        let all = vec![numbers, angles.clone().sin(), angles.cos()];
        linear.forward(Tensor::cat(all, 1)).unsqueeze_dim(1)
    }
}

impl StableAudioProjectionConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<StableAudioProjectionModel> {
        self.validate()?;
        let (text, width) = (self.text_encoder_dim, self.conditioning_dim);
        let projection = || LinearConfig::new(text, width).init(device);
        Ok(StableAudioProjectionModel {
            text_projection: (text != width).then(projection),
            start_number_conditioner: NumberConditioner::new(width, device),
            end_number_conditioner: NumberConditioner::new(width, device),
            config: self.clone(),
        })
    }
}

/// Projects text, start and end to the width of the conditions of a
/// [`StableAudioDitModel`](super::StableAudioDitModel).
#[derive(Module, Debug)]
pub struct StableAudioProjectionModel {
    text_projection: Option<Linear>,
    start_number_conditioner: NumberConditioner,
    end_number_conditioner: NumberConditioner,
    #[module(skip)]
    config: StableAudioProjectionConfig,
}

impl StableAudioProjectionModel {
    network_methods!(StableAudioProjectionConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &StableAudioProjectionConfig {
        &self.config
    }

    /// The conditions of the vectors of a text encoder, as they are if the widths are equal.
    ///
    /// # Shapes
    /// - text: `[batch, tokens, text_encoder_dim]`
    /// - output: `[batch, tokens, conditioning_dim]`
    ///
    /// # Panics
    /// If the widths do not fit.
    pub fn text(&self, text: Tensor<3>) -> Tensor<3> {
        match &self.text_projection {
            Some(linear) => linear.forward(text),
            None => text,
        }
    }

    /// The conditions of the start and of the end of sounds, in seconds; numbers out of the range
    /// of the configuration count as its nearest end.
    ///
    /// # Shapes
    /// - start and end: one for each sound
    /// - output: `[batch, 1, conditioning_dim]` each
    ///
    /// # Panics
    /// If there are none.
    pub fn seconds(&self, start: &[f64], end: &[f64], device: &Device) -> [Tensor<3>; 2] {
        let (min, max) = (self.config.min_value, self.config.max_value);
        let numbers = |seconds: &[f64]| {
            let share = |s: &f64| ((s.clamp(min, max) - min) / (max - min)) as f32;
            let values: Vec<f32> = seconds.iter().map(share).collect();
            Tensor::<1>::from_data(TensorData::new(values, [seconds.len()]), device)
        };
        [
            self.start_number_conditioner.forward(numbers(start)),
            self.end_number_conditioner.forward(numbers(end)),
        ]
    }
}
