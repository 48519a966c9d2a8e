//! A step of training.

use crate::{
    denoiser::{Condition, Denoiser},
    prediction::{Level, Prediction},
    schedule::NoiseConfig,
};
use aigc_core::{
    Error, Result,
    data::ImageBatch,
    train::{Losses, Objective, StepContext},
};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// What an error counts for, by the noise of the sample it was made at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All the same (Ho et al. 2020, equation 14).
    #[default]
    Uniform,
    /// That of the clean sample by its signal-to-noise ratio, at most γ (Hang et al. 2023,
    /// <https://arxiv.org/abs/2303.09556>).
    MinSnr {
        /// 5 in the paper.
        gamma: f64,
    },
}

/// Configuration of a [`DiffusionObjective`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffusionObjectiveConfig {
    /// The forward process.
    pub noise: NoiseConfig,
    /// End the forward process in pure noise.
    pub rescale_betas_zero_snr: bool,
    /// What the network learns to say.
    pub prediction: Prediction,
    /// What errors count for.
    pub weighting: Weighting,
    /// Share of samples whose class is hidden: they are told the network's last class, which stands for none. Guidance needs it
    /// (Ho & Salimans 2022, <https://arxiv.org/abs/2207.12598>).
    pub class_dropout: f64,
}

impl Default for DiffusionObjectiveConfig {
    /// As in DDPM.
    fn default() -> Self {
        Self {
            noise: NoiseConfig::default(),
            rescale_betas_zero_snr: false,
            prediction: Prediction::Epsilon,
            weighting: Weighting::Uniform,
            class_dropout: 0.0,
        }
    }
}

/// Noise of a random time is added to images, and the network is to say what it is told to.
#[derive(Clone, Debug)]
pub struct DiffusionObjective<D> {
    config: DiffusionObjectiveConfig,
    /// `α`, `σ` and weight at each time.
    times: Vec<(Level, f64)>,
    model: PhantomData<D>,
}

impl<D: Denoiser> DiffusionObjective<D> {
    /// The objective of a configuration, for `network`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or one that the network has no place for.
    pub fn new(config: DiffusionObjectiveConfig, network: &D) -> Result<Self> {
        if config.prediction == Prediction::Flow {
            return Err(Error::config("prediction", "flow_prediction", "epsilon, sample or v_prediction"));
        }
        if let Weighting::MinSnr { gamma } = config.weighting
            && !(gamma > 0.0 && gamma.is_finite())
        {
            return Err(Error::config("weighting.gamma", gamma, "more than 0"));
        }
        if !(0.0..1.0).contains(&config.class_dropout) {
            return Err(Error::config("class_dropout", config.class_dropout, "0 or more, less than 1"));
        }
        if config.class_dropout > 0.0 && network.classes().is_none_or(|classes| classes < 2) {
            return Err(Error::config(
                "class_dropout",
                config.class_dropout,
                "0, for a network without classes to hide",
            ));
        }
        let noise = &config.noise;
        let alphas =
            if config.rescale_betas_zero_snr { noise.alphas_cumprod_zero_snr()? } else { noise.alphas_cumprod()? };
        let levels: Vec<Level> = alphas.into_iter().map(Level::preserving).collect();
        // Without any signal, ε says nothing about the image: sampling could not begin.
        if config.prediction == Prediction::Epsilon && config.rescale_betas_zero_snr {
            return Err(Error::config("prediction", "epsilon", "v_prediction or sample, with rescale_betas_zero_snr"));
        }
        let times = levels.into_iter().map(|level| (level, config.weight(level))).collect();
        Ok(Self { config, times, model: PhantomData })
    }
}

impl DiffusionObjectiveConfig {
    fn weight(&self, level: Level) -> f64 {
        let Weighting::MinSnr { gamma } = self.weighting else { return 1.0 };
        let snr = (level.alpha / level.sigma).powi(2);
        match self.prediction {
            Prediction::Sample => snr.min(gamma),
            Prediction::Epsilon | Prediction::Flow => (gamma / snr).min(1.0),
            Prediction::V => snr.min(gamma) / (snr + 1.0),
        }
    }
}

/// A number for each sample, to be multiplied with images.
fn each(values: Vec<f64>, like: &Tensor<4>) -> Tensor<4> {
    let batch = values.len();
    Tensor::from_data(TensorData::new(values, [batch, 1, 1, 1]), (&like.device(), like.dtype()))
}

impl<D: Denoiser + 'static> Objective for DiffusionObjective<D> {
    type Model = D;
    type Batch = ImageBatch;

    fn losses(&mut self, network: &D, batch: &ImageBatch, context: &mut StepContext) -> Result<Losses> {
        network.fits(batch.shape())?;
        let class = match network.classes() {
            None => None,
            Some(classes) => {
                let Some(labels) = batch.label_values() else {
                    return Err(Error::config(
                        "labels",
                        "missing",
                        "the class of every image, for a network with classes",
                    ));
                };
                // The last stands for none, where some are hidden.
                let hidden = (self.config.class_dropout > 0.0).then_some(classes - 1);
                let known = hidden.unwrap_or(classes);
                if let Some(label) = labels.iter().find(|label| **label as usize >= known) {
                    return Err(Error::config("labels", label, format!("below {known}, the network's classes")));
                }
                let told = |label: &u32| match hidden {
                    Some(none) if f64::from(context.rng.uniforms(1, 0.0, 1.0)[0]) < self.config.class_dropout => {
                        none as i32
                    }
                    _ => *label as i32,
                };
                let told: Vec<i32> = labels.iter().map(told).collect();
                Some(Tensor::from_data(TensorData::new(told, [labels.len()]), &context.device))
            }
        };
        let x0 = batch.images(&context.device) * 2.0 - 1.0;
        let noise = context.rng.normal(x0.dims(), &context.device);
        let times: Vec<usize> = (0..batch.len()).map(|_| context.rng.below(self.times.len())).collect();
        let of =
            |number: fn(&(Level, f64)) -> f64| each(times.iter().map(|time| number(&self.times[*time])).collect(), &x0);
        let (alpha, sigma) = (of(|(level, _)| level.alpha), of(|(level, _)| level.sigma));
        let noisy = x0.clone() * alpha.clone() + noise.clone() * sigma.clone();
        let target = match self.config.prediction {
            Prediction::Epsilon | Prediction::Flow => noise,
            Prediction::Sample => x0.clone(),
            Prediction::V => noise * alpha - x0.clone() * sigma,
        };
        let told: Vec<f32> = times.iter().map(|time| *time as f32).collect();
        let time = Tensor::from_data(TensorData::new(told, [times.len()]), &context.device);
        let output = network.predict(noisy, time, &Condition { class, tokens: None });
        let error = output - target;
        let square = error.clone() * error;
        let square =
            if self.config.weighting == Weighting::Uniform { square } else { square * of(|(_, weight)| *weight) };
        Ok(Losses::new(square.mean()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::UNet2dConfig;
    use aigc_core::{
        data::{Image, ImageShape, collate_images},
        device::device,
        rng::{Rng, Seeded},
    };
    use burn::{module::Module, tensor::Device};

    /// Says the same whatever it sees.
    #[derive(Module, Debug)]
    struct Says {
        value: f32,
        classes: Option<usize>,
    }

    impl Denoiser for Says {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Condition) -> Tensor<4> {
            assert_eq!(condition.class.is_some(), self.classes.is_some());
            x.zeros_like() + self.value
        }

        fn fits(&self, _shape: ImageShape) -> Result<()> {
            Ok(())
        }

        fn classes(&self) -> Option<usize> {
            self.classes
        }
    }

    fn batch(value: u8, n: usize) -> ImageBatch {
        let shape = ImageShape::new(1, 4, 4);
        collate_images((0..n).map(|i| Image { shape, pixels: vec![value; 16], label: Some(i as u32 % 3) }).collect())
    }

    fn loss(config: DiffusionObjectiveConfig, network: &Says, flex: &Device) -> f64 {
        let mut objective = DiffusionObjective::new(config, network).unwrap();
        let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
        let losses = objective.losses(network, &batch(255, 4096), &mut context).unwrap();
        losses.total.into_scalar::<f64>()
    }

    /// Of white images, x₀ = 1 everywhere: the mean squares of the targets are known.
    #[test]
    fn losses_are_the_mean_squares_of_their_targets() {
        let flex = device("flex").unwrap();
        let says = |value| Says { value, classes: None };
        let of = |prediction| DiffusionObjectiveConfig { prediction, ..DiffusionObjectiveConfig::default() };
        assert!((loss(of(Prediction::Epsilon), &says(0.0), &flex) - 1.0).abs() < 0.03);
        assert!(loss(of(Prediction::Sample), &says(1.0), &flex) < 1e-9);
        assert!((loss(of(Prediction::Sample), &says(-1.0), &flex) - 4.0).abs() < 1e-4);
        // E[v²] = α² + σ² = 1.
        assert!((loss(of(Prediction::V), &says(0.0), &flex) - 1.0).abs() < 0.03);
        // The mean of min(SNR, γ), by the table.
        let config = DiffusionObjectiveConfig { weighting: Weighting::MinSnr { gamma: 5.0 }, ..of(Prediction::Sample) };
        let alphas = config.noise.alphas_cumprod().unwrap();
        let expected = alphas.iter().map(|alpha| (alpha / (1.0 - alpha)).min(5.0)).sum::<f64>() / 1000.0;
        assert!((loss(config, &says(0.0), &flex) / expected - 1.0).abs() < 0.05);
    }

    /// The same error of the clean sample costs the same, whatever is predicted.
    #[test]
    fn min_snr_weighs_every_prediction_alike() {
        let weighting = Weighting::MinSnr { gamma: 5.0 };
        for alpha in [0.999, 0.7, 0.01] {
            let level = Level::preserving(alpha);
            let cost = |prediction: Prediction| {
                let config = DiffusionObjectiveConfig { prediction, weighting, ..DiffusionObjectiveConfig::default() };
                // Errors of x₀ and of the output differ by the output's weight in x₀.
                config.weight(level) / prediction.read(level).unwrap().x0.1.powi(2)
            };
            let [a, b, c] = [Prediction::Sample, Prediction::Epsilon, Prediction::V].map(cost);
            assert!((a / b - 1.0).abs() < 1e-9 && (a / c - 1.0).abs() < 1e-9, "{alpha}: {a} {b} {c}");
        }
    }

    #[test]
    fn gradients_reach_the_network() {
        let auto = device("flex").unwrap().autodiff();
        let config = UNet2dConfig {
            in_channels: 1,
            out_channels: 1,
            down_block_types: vec![crate::models::DownBlockType::DownBlock2D],
            up_block_types: vec![crate::models::UpBlockType::UpBlock2D],
            block_out_channels: vec![8],
            layers_per_block: 1,
            norm_num_groups: 4,
            num_class_embeds: Some(4),
            ..UNet2dConfig::default()
        };
        let network = config.init(&auto).unwrap().seeded(0);
        let config = DiffusionObjectiveConfig { class_dropout: 0.3, ..DiffusionObjectiveConfig::default() };
        let mut objective = DiffusionObjective::new(config, &network).unwrap();
        let mut context = StepContext::new(0, 1, auto, Rng::new(1));
        let losses = objective.losses(&network, &batch(0, 8), &mut context).unwrap();
        let gradients = losses.total.backward();
        let bias = network.conv_out_bias().grad(&gradients).expect("a gradient");
        assert!(bias.abs().sum().into_scalar::<f64>() > 1e-4);
    }

    #[test]
    fn mistakes_are_told_at_the_door() {
        let flex = device("flex").unwrap();
        let ok = DiffusionObjectiveConfig::default();
        let says = |classes| Says { value: 0.0, classes };
        for (config, classes, expected) in [
            (DiffusionObjectiveConfig { prediction: Prediction::Flow, ..ok.clone() }, None, "`prediction`"),
            (DiffusionObjectiveConfig { class_dropout: 1.0, ..ok.clone() }, Some(4), "`class_dropout` is 1"),
            (DiffusionObjectiveConfig { class_dropout: 0.1, ..ok.clone() }, None, "`class_dropout` is 0.1"),
            (DiffusionObjectiveConfig { rescale_betas_zero_snr: true, ..ok.clone() }, None, "`prediction` is epsilon"),
            (
                DiffusionObjectiveConfig { weighting: Weighting::MinSnr { gamma: 0.0 }, ..ok.clone() },
                None,
                "`weighting.gamma` is 0",
            ),
        ] {
            let message = DiffusionObjective::new(config, &says(classes)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let network = says(Some(2));
        let mut objective = DiffusionObjective::new(ok, &network).unwrap();
        let mut context = StepContext::new(0, 1, flex, Rng::new(0));
        let message = objective.losses(&network, &batch(0, 3), &mut context).unwrap_err().to_string();
        assert!(message.contains("`labels` is 2, expected below 2"), "{message}");
        // Images that a network cannot halve, or of other channels.
        for (channels, side, expected) in [(1, 9, "sides that are multiples of 2"), (3, 8, "`in_channels` is 1")] {
            let shape = ImageShape::new(channels, side, side);
            let image = Image { shape, pixels: vec![0; shape.numel()], label: None };
            let config = UNet2dConfig {
                in_channels: 1,
                out_channels: 1,
                down_block_types: vec![crate::models::DownBlockType::DownBlock2D; 2],
                up_block_types: vec![crate::models::UpBlockType::UpBlock2D; 2],
                block_out_channels: vec![8, 8],
                norm_num_groups: 4,
                ..UNet2dConfig::default()
            };
            let network = config.init(&context.device).unwrap();
            let mut objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network).unwrap();
            let message =
                objective.losses(&network, &collate_images(vec![image]), &mut context).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
