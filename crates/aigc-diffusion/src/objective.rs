//! A step of training.

use crate::{
    coupling,
    denoiser::{Conditioning, Denoiser},
    prediction::PredictionType,
    process::{Coupling, Draws, ForwardProcess, Noised},
};
use aigc_core::{
    Error, Result,
    data::{ImageBatch, ImageShape, SampleShape},
    encoder::Autoencoder,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, rc::Rc};

/// What an error counts for, by the noise of the sample it was made at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// Errors of what the network says count the same (Ho et al. 2020, equation 14).
    #[default]
    Uniform,
    /// Those of the clean sample count by its signal-to-noise ratio, at most γ (Hang et al. 2023,
    /// <https://arxiv.org/abs/2303.09556>).
    MinSnr {
        /// 5 in the paper.
        gamma: f64,
    },
    /// Those of the clean sample count by `(s² + σ²)/(s·σ)²`, where `s` is the data's standard
    /// deviation (Karras et al. 2022, table 1). [`ForwardProcess::Edm`] has it with `Uniform`
    /// already.
    Edm {
        /// `s`; 0.5 in the paper.
        sigma_data: f64,
    },
}

impl LossWeighting {
    fn validate(self) -> Result<()> {
        let (field, value) = match self {
            LossWeighting::Uniform => return Ok(()),
            LossWeighting::MinSnr { gamma } => ("weighting.gamma", gamma),
            LossWeighting::Edm { sigma_data } => ("weighting.sigma_data", sigma_data),
        };
        if value > 0.0 && value.is_finite() {
            Ok(())
        } else {
            Err(Error::config(field, value, "more than 0"))
        }
    }

    /// Of the squared error of what the network says.
    fn of(self, noised: &Noised) -> f64 {
        let ratio = noised.level.sigma / noised.level.alpha;
        let of_x0 = match self {
            LossWeighting::Uniform => return 1.0,
            LossWeighting::MinSnr { gamma } => ratio.powi(-2).min(gamma),
            LossWeighting::Edm { sigma_data } => sigma_data.powi(-2) + ratio.powi(-2),
        };
        of_x0 * noised.reading.x0.1.powi(2)
    }
}

/// Configuration of a [`DiffusionObjective`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffusionObjectiveConfig {
    /// The forward process.
    pub process: ForwardProcess,
    /// What the network learns to say.
    pub prediction: PredictionType,
    /// What errors count for.
    pub weighting: LossWeighting,
    /// Share of samples whose class is hidden: they are told the network's last class, which stands
    /// for none. ClassifierFreeGuidance needs it (Ho & Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>).
    pub conditioning_dropout: f64,
    /// Share of batches in which the network sees beside the noisy sample what it made of it at
    /// first (Chen et al. 2023,
    /// <https://arxiv.org/abs/2208.04202>, section 3; a half there); it needs twice the channels for it.
    pub self_conditioning: f64,
}

impl Default for DiffusionObjectiveConfig {
    /// As in DDPM.
    fn default() -> Self {
        Self {
            process: ForwardProcess::default(),
            prediction: PredictionType::Epsilon,
            weighting: LossWeighting::Uniform,
            conditioning_dropout: 0.0,
            self_conditioning: 0.0,
        }
    }
}

/// Noise is added to images, and the network is to say what it is told to.
#[derive(Clone, Debug)]
pub struct DiffusionObjective<D> {
    config: DiffusionObjectiveConfig,
    draws: Draws,
    latent: Option<(Rc<dyn Autoencoder>, f64)>,
    model: PhantomData<D>,
}

impl<D: Denoiser> DiffusionObjective<D> {
    /// The objective of a configuration, for `network`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or one that the network has no place for.
    pub fn new(config: DiffusionObjectiveConfig, network: &D) -> Result<Self> {
        config.weighting.validate()?;
        if !(0.0..1.0).contains(&config.conditioning_dropout) {
            return Err(Error::config(
                "conditioning_dropout",
                config.conditioning_dropout,
                "0 or more, less than 1",
            ));
        }
        if config.conditioning_dropout > 0.0
            && network.num_classes().is_none_or(|classes| classes < 2)
        {
            return Err(Error::config(
                "conditioning_dropout",
                config.conditioning_dropout,
                "0, for a network without classes to hide",
            ));
        }
        if !(0.0..=1.0).contains(&config.self_conditioning) {
            return Err(Error::config(
                "self_conditioning",
                config.self_conditioning,
                "0 to 1",
            ));
        }
        let draws = Draws::new(&config.process, config.prediction)?;
        // Where sampling begins there is no signal, and so no weight: the first step would never be
        // learned.
        if matches!(
            config.process,
            ForwardProcess::Discrete {
                rescale_betas_zero_snr: true,
                ..
            }
        ) && matches!(config.weighting, LossWeighting::MinSnr { .. })
        {
            return Err(Error::config(
                "weighting",
                "min_snr",
                "uniform or edm, with rescale_betas_zero_snr",
            ));
        }
        Ok(Self {
            config,
            draws,
            latent: None,
            model: PhantomData,
        })
    }

    /// Learns the latent maps of images, times `scale`, instead of the images (Rombach et al. 2022,
    /// <https://arxiv.org/abs/2112.10752>). A scale of one over their standard deviation brings them to that of the noise.
    ///
    /// # Errors
    /// [`Error::Config`] unless the scale is more than 0.
    pub fn with_autoencoder(
        self,
        autoencoder: impl Autoencoder + 'static,
        scale: f64,
    ) -> Result<Self> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::config("scale", scale, "more than 0"));
        }
        Ok(Self {
            latent: Some((Rc::new(autoencoder), scale)),
            ..self
        })
    }

    /// Classes as they are told, some of them hidden.
    fn classes(
        &self,
        network: &D,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<Option<Vec<i32>>> {
        let Some(classes) = network.num_classes() else {
            return Ok(None);
        };
        let Some(labels) = batch.labels() else {
            return Err(Error::config(
                "labels",
                "missing",
                "the class of every image, for a network with classes",
            ));
        };
        // The last stands for none, where some are hidden.
        let hidden = (self.config.conditioning_dropout > 0.0).then_some(classes - 1);
        let known = hidden.unwrap_or(classes);
        if let Some(label) = labels.iter().find(|label| **label as usize >= known) {
            return Err(Error::config(
                "labels",
                label,
                format!("below {known}, the network's classes"),
            ));
        }
        let told = |label: &u32| match hidden {
            Some(none)
                if f64::from(context.rng.uniform_vec(1, 0.0, 1.0)[0])
                    < self.config.conditioning_dropout =>
            {
                none as i32
            }
            _ => *label as i32,
        };
        Ok(Some(labels.iter().map(told).collect()))
    }

    /// Noise for each image, and the noise that goes with it where the process says so.
    fn noise(
        &self,
        x0: &Tensor<4>,
        labels: Option<&[u32]>,
        context: &mut StepContext,
    ) -> Tensor<4> {
        let dims = x0.dims();
        let ForwardProcess::FlowMatching {
            coupling: Coupling::OptimalTransport,
            ..
        } = self.config.process
        else {
            return context.rng.normal(dims, &context.device);
        };
        let noise = context.rng.normal(dims, &context.device);
        // ‖x − ε‖² without what does not depend on the pairing.
        let flat = |x: &Tensor<4>| x.clone().inner().flatten::<2>(1, 3);
        let costs: Vec<f64> = flat(x0)
            .matmul(flat(&noise).transpose())
            .neg()
            .into_data()
            .iter::<f64>()
            .collect();
        let order: Vec<i32> = coupling::optimal(&costs, labels)
            .into_iter()
            .map(|j| j as i32)
            .collect();
        let count = order.len();
        noise.select(
            0,
            Tensor::from_data(TensorData::new(order, [count]), &context.device),
        )
    }
}

/// `a·x + b·y` with a number for each sample; what all are 0 or 1 of costs nothing.
pub(crate) fn combine(x: &Tensor<4>, a: &[f64], y: &Tensor<4>, b: &[f64]) -> Tensor<4> {
    let term = |tensor: &Tensor<4>, weights: &[f64]| {
        let all = |value: f64| weights.iter().all(|weight| (weight - value).abs() < 1e-12);
        if all(0.0) {
            None
        } else if all(1.0) {
            Some(tensor.clone())
        } else {
            Some(tensor.clone() * each(weights, tensor))
        }
    };
    match (term(x, a), term(y, b)) {
        (Some(x), Some(y)) => x + y,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => x.zeros_like(),
    }
}

/// A number for each sample, to be multiplied with images.
fn each(values: &[f64], like: &Tensor<4>) -> Tensor<4> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len(), 1, 1, 1]),
        (&like.device(), like.dtype()),
    )
}

fn times(noised: &[Noised], device: &Device) -> Tensor<1> {
    let told: Vec<f32> = noised.iter().map(|noised| noised.time as f32).collect();
    Tensor::from_data(TensorData::new(told, [noised.len()]), device)
}

/// The shape of a latent map as that of an image.
fn map_shape(shape: SampleShape) -> ImageShape {
    shape.as_image().unwrap_or(ImageShape::new(0, 0, 0))
}

impl<D: Denoiser + 'static> Objective for DiffusionObjective<D> {
    type Model = D;
    type Batch = ImageBatch;

    fn losses(
        &mut self,
        network: &D,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let shape = self.latent.as_ref().map_or(batch.shape(), |(latent, _)| {
            map_shape(latent.latent_shape())
        });
        network.check_trainable(shape)?;
        if let Some((autoencoder, _)) = self
            .latent
            .as_ref()
            .filter(|(a, _)| a.sample_shape() != batch.shape())
        {
            let expected = format!("{}, the autoencoder's", autoencoder.sample_shape());
            return Err(Error::config("images", batch.shape(), expected));
        }
        let looks_back = network.supports_self_conditioning(shape.channels);
        if self.config.self_conditioning > 0.0 && !looks_back {
            let expected = "0, for a network without channels for what it made before";
            return Err(Error::config(
                "self_conditioning",
                self.config.self_conditioning,
                expected,
            ));
        }
        let class = self.classes(network, batch, context)?.map(|classes| {
            let count = classes.len();
            Tensor::from_data(TensorData::new(classes, [count]), &context.device)
        });
        let x0 = match &self.latent {
            None => batch.to_tensor(&context.device) * 2.0 - 1.0,
            Some((autoencoder, scale)) => {
                let plain = context.device.clone().without_autodiff();
                (autoencoder.encode(batch.to_tensor(&plain)).mode() * *scale).autodiff()
            }
        };
        let noise = self.noise(&x0, network.num_classes().and(batch.labels()), context);
        let noised: Vec<Noised> = (0..batch.len())
            .map(|_| self.draws.draw(&mut context.rng))
            .collect();
        let of = |number: &dyn Fn(&Noised) -> f64| noised.iter().map(number).collect::<Vec<f64>>();
        let noisy = combine(
            &x0,
            &of(&|n| n.level.alpha),
            &noise,
            &of(&|n| n.level.sigma),
        );
        let target = combine(&x0, &of(&|n| n.target().0), &noise, &of(&|n| n.target().1));
        let seen = combine(&noisy, &of(&|n| n.input), &noisy, &[0.0]);
        let time = times(&noised, &context.device);
        let mut condition = Conditioning {
            class_labels: class,
            ..Conditioning::default()
        };
        if looks_back
            && f64::from(context.rng.uniform_vec(1, 0.0, 1.0)[0]) < self.config.self_conditioning
        {
            let plain = Conditioning {
                class_labels: condition.class_labels.clone().map(Tensor::inner),
                ..Conditioning::default()
            };
            let output =
                network
                    .valid()
                    .predict(seen.clone().inner(), time.clone().inner(), &plain);
            let made = combine(
                &noisy.clone().inner(),
                &of(&|n| n.reading.x0.0),
                &output,
                &of(&|n| n.reading.x0.1),
            );
            condition.self_cond = Some(made.autodiff());
        }
        let error = network.predict(seen, time, &condition) - target;
        let square = error.clone() * error;
        let square = match self.config.weighting {
            LossWeighting::Uniform => square,
            weighting => square * each(&of(&|n| weighting.of(n)), &noise),
        };
        Ok(LossOutput::new(square.mean()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{models::UNet2dConfig, prediction::NoiseLevel, schedule::NoiseScheduleConfig};
    use aigc_core::encoder::{Deterministic, Posterior};
    use aigc_core::{
        data::{Image, ImageShape, collate_images},
        device::device,
        rng::{InitWeights, Rng},
    };
    use burn::{module::Module, tensor::Device};

    /// Says the same whatever it sees.
    #[derive(Module, Debug)]
    struct Says {
        value: f32,
        classes: Option<usize>,
    }

    impl Denoiser for Says {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
            assert_eq!(condition.class_labels.is_some(), self.classes.is_some());
            x.zeros_like() + self.value
        }

        fn check_trainable(&self, _shape: ImageShape) -> Result<()> {
            Ok(())
        }

        fn num_classes(&self) -> Option<usize> {
            self.classes
        }
    }

    fn batch(value: u8, n: usize) -> ImageBatch {
        let shape = ImageShape::new(1, 4, 4);
        collate_images(
            (0..n)
                .map(|i| Image {
                    shape,
                    pixels: vec![value; 16],
                    label: Some(i as u32 % 3),
                })
                .collect(),
        )
    }

    fn loss(config: DiffusionObjectiveConfig, network: &Says, flex: &Device) -> f64 {
        let mut objective = DiffusionObjective::new(config, network).unwrap();
        let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
        let losses = objective
            .losses(network, &batch(255, 4096), &mut context)
            .unwrap();
        losses.loss.into_scalar::<f64>()
    }

    /// Of white images, x₀ = 1 everywhere: the mean squares of the targets are known.
    #[test]
    fn losses_are_the_mean_squares_of_their_targets() {
        let flex = device("flex").unwrap();
        let says = |value| Says {
            value,
            classes: None,
        };
        let of = |prediction| DiffusionObjectiveConfig {
            prediction,
            ..DiffusionObjectiveConfig::default()
        };
        assert!((loss(of(PredictionType::Epsilon), &says(0.0), &flex) - 1.0).abs() < 0.03);
        assert!(loss(of(PredictionType::Sample), &says(1.0), &flex) < 1e-9);
        assert!((loss(of(PredictionType::Sample), &says(-1.0), &flex) - 4.0).abs() < 1e-4);
        // E[v²] = α² + σ² = 1.
        assert!((loss(of(PredictionType::V), &says(0.0), &flex) - 1.0).abs() < 0.03);
        // The mean of min(SNR, γ), by the table.
        let config = DiffusionObjectiveConfig {
            weighting: LossWeighting::MinSnr { gamma: 5.0 },
            ..of(PredictionType::Sample)
        };
        let alphas = NoiseScheduleConfig::default().alphas_cumprod().unwrap();
        let expected = alphas
            .iter()
            .map(|alpha| (alpha / (1.0 - alpha)).min(5.0))
            .sum::<f64>()
            / 1000.0;
        assert!((loss(config, &says(0.0), &flex) / expected - 1.0).abs() < 0.05);
    }

    /// The same error of the clean sample costs the same, whatever is predicted.
    #[test]
    fn weights_are_alike_for_every_prediction() {
        for weighting in [
            LossWeighting::MinSnr { gamma: 5.0 },
            LossWeighting::Edm { sigma_data: 0.5 },
        ] {
            for alpha in [0.999, 0.7, 0.01] {
                let level = NoiseLevel::variance_preserving(alpha);
                let cost = |prediction: PredictionType| {
                    let reading = prediction.coefficients(level).unwrap();
                    // Errors of x₀ and of the output differ by the output's weight in x₀.
                    weighting.of(&Noised {
                        level,
                        time: 0.0,
                        input: 1.0,
                        reading,
                    }) / reading.x0.1.powi(2)
                };
                let [a, b, c] = [
                    PredictionType::Sample,
                    PredictionType::Epsilon,
                    PredictionType::V,
                ]
                .map(cost);
                assert!(
                    (a / b - 1.0).abs() < 1e-9 && (a / c - 1.0).abs() < 1e-9,
                    "{alpha}: {a} {b} {c}"
                );
            }
        }
        // EDM's own process: its weighting makes every error of what the network says count the
        // same.
        let draws = Draws::new(&ForwardProcess::edm(), PredictionType::Epsilon).unwrap();
        let noised = draws.draw(&mut Rng::new(0));
        assert!((LossWeighting::Edm { sigma_data: 0.5 }.of(&noised) - 1.0).abs() < 1e-9);
    }

    /// The velocity of white images is ε − 1, whichever noise goes with which.
    #[test]
    fn flows_learn_the_velocity() {
        let flex = device("flex").unwrap();
        for coupling in [Coupling::Independent, Coupling::OptimalTransport] {
            let process = ForwardProcess::FlowMatching {
                draw: Default::default(),
                num_train_timesteps: 1000,
                coupling,
            };
            let config = DiffusionObjectiveConfig {
                process,
                prediction: PredictionType::Flow,
                ..DiffusionObjectiveConfig::default()
            };
            let mut objective = DiffusionObjective::new(
                config,
                &Says {
                    value: -1.0,
                    classes: None,
                },
            )
            .unwrap();
            let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
            let losses = objective
                .losses(
                    &Says {
                        value: -1.0,
                        classes: None,
                    },
                    &batch(255, 256),
                    &mut context,
                )
                .unwrap();
            let loss = losses.loss.into_scalar::<f64>();
            assert!((loss - 1.0).abs() < 0.1, "{coupling:?}: {loss}");
        }
    }

    /// Says half more than it said before.
    #[derive(Module, Debug)]
    struct LooksBack {
        looks: bool,
    }

    impl Denoiser for LooksBack {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
            condition
                .self_cond
                .clone()
                .unwrap_or_else(|| x.zeros_like())
                + 0.5
        }

        fn check_trainable(&self, _shape: ImageShape) -> Result<()> {
            Ok(())
        }

        fn supports_self_conditioning(&self, channels: usize) -> bool {
            assert_eq!(channels, 1);
            self.looks
        }
    }

    #[test]
    fn a_network_that_looks_back_sees_what_it_made() {
        let flex = device("flex").unwrap();
        let loss = |self_conditioning: f64, looks: bool| {
            let config = DiffusionObjectiveConfig {
                prediction: PredictionType::Sample,
                self_conditioning,
                ..DiffusionObjectiveConfig::default()
            };
            let network = LooksBack { looks };
            let mut objective = DiffusionObjective::new(config, &network).unwrap();
            let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
            let losses = objective.losses(&network, &batch(255, 4), &mut context)?;
            Ok::<_, Error>(losses.loss.into_scalar::<f64>())
        };
        // White images, x₀ = 1.
        assert!((loss(0.0, true).unwrap() - 0.25).abs() < 1e-6);
        assert!(loss(1.0, true).unwrap() < 1e-9);
        let message = loss(0.5, false).unwrap_err().to_string();
        assert!(
            message.contains("`self_conditioning` is 0.5, expected 0"),
            "{message}"
        );
    }

    /// A corner of each image.
    #[derive(Debug)]
    struct Corner;

    impl Autoencoder for Corner {
        fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
            Box::new(Deterministic(x.narrow(2, 0, 2).narrow(3, 0, 2)))
        }

        fn decode(&self, z: Tensor<4>) -> Tensor<4> {
            z.repeat_dim(2, 2).repeat_dim(3, 2)
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[1, 4, 4])
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[1, 2, 2])
        }
    }

    /// Learning and sampling in a latent space, there and back.
    #[test]
    fn latent_maps_take_the_place_of_images() {
        let flex = device("flex").unwrap();
        let config = DiffusionObjectiveConfig {
            prediction: PredictionType::Sample,
            ..DiffusionObjectiveConfig::default()
        };
        let network = Says {
            value: 3.0,
            classes: None,
        };
        let objective = DiffusionObjective::new(config, &network).unwrap();
        let mut objective = objective.with_autoencoder(Corner, 3.0).unwrap();
        let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
        let loss = objective
            .losses(&network, &batch(255, 4), &mut context)
            .unwrap()
            .loss
            .into_scalar::<f64>();
        assert!(loss < 1e-9, "{loss}");
        let scheduler = crate::DdimScheduler {
            prediction_type: PredictionType::Sample,
            clipping: crate::Clipping::NONE,
            ..crate::DdimScheduler::default()
        };
        let sampler =
            crate::DiffusionSampler::new(&network, &scheduler, 5, ImageShape::new(1, 2, 2), &flex)
                .unwrap();
        let images = sampler
            .with_autoencoder(&Corner, 3.0)
            .unwrap()
            .sample(2, 0)
            .unwrap()
            .images;
        assert_eq!(images.dims(), [2, 1, 4, 4]);
        assert!((images - 1.0).abs().max().into_scalar::<f32>() < 1e-5);
        let small =
            crate::DiffusionSampler::new(&network, &scheduler, 5, ImageShape::new(1, 4, 4), &flex)
                .unwrap();
        let message = small
            .with_autoencoder(&Corner, 3.0)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`shape` is 1×4×4, expected 1×2×2"),
            "{message}"
        );
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
        let network = config.init(&auto).unwrap().init_weights(0);
        let config = DiffusionObjectiveConfig {
            conditioning_dropout: 0.3,
            ..DiffusionObjectiveConfig::default()
        };
        let mut objective = DiffusionObjective::new(config, &network).unwrap();
        let mut context = StepContext::new(0, 1, auto, Rng::new(1));
        let losses = objective
            .losses(&network, &batch(0, 8), &mut context)
            .unwrap();
        let gradients = losses.loss.backward();
        let bias = network
            .conv_out_bias()
            .grad(&gradients)
            .expect("a gradient");
        assert!(bias.abs().sum().into_scalar::<f64>() > 1e-4);
    }

    #[test]
    fn mistakes_are_told_at_the_door() {
        let flex = device("flex").unwrap();
        let ok = DiffusionObjectiveConfig::default();
        let says = |classes| Says {
            value: 0.0,
            classes,
        };
        let zero_snr = ForwardProcess::Discrete {
            noise: NoiseScheduleConfig::default(),
            rescale_betas_zero_snr: true,
        };
        for (config, classes, expected) in [
            (
                DiffusionObjectiveConfig {
                    prediction: PredictionType::Flow,
                    ..ok.clone()
                },
                None,
                "`prediction`",
            ),
            (
                DiffusionObjectiveConfig {
                    conditioning_dropout: 1.0,
                    ..ok.clone()
                },
                Some(4),
                "`conditioning_dropout` is 1",
            ),
            (
                DiffusionObjectiveConfig {
                    conditioning_dropout: 0.1,
                    ..ok.clone()
                },
                None,
                "`conditioning_dropout` is 0.1",
            ),
            (
                DiffusionObjectiveConfig {
                    process: zero_snr,
                    ..ok.clone()
                },
                None,
                "`prediction` is epsilon",
            ),
            (
                DiffusionObjectiveConfig {
                    process: ForwardProcess::flow(),
                    ..ok.clone()
                },
                None,
                "`prediction` is Epsilon",
            ),
            (
                DiffusionObjectiveConfig {
                    self_conditioning: 1.5,
                    ..ok.clone()
                },
                None,
                "`self_conditioning` is 1.5",
            ),
            (
                DiffusionObjectiveConfig {
                    process: ForwardProcess::Edm {
                        mean: 0.0,
                        deviation: -1.0,
                        sigma_data: 0.5,
                    },
                    ..ok.clone()
                },
                None,
                "`process.deviation` is -1",
            ),
            (
                DiffusionObjectiveConfig {
                    process: ForwardProcess::Discrete {
                        noise: NoiseScheduleConfig::default(),
                        rescale_betas_zero_snr: true,
                    },
                    prediction: PredictionType::V,
                    weighting: LossWeighting::MinSnr { gamma: 5.0 },
                    ..ok.clone()
                },
                None,
                "`weighting` is min_snr",
            ),
            (
                DiffusionObjectiveConfig {
                    process: ForwardProcess::edm(),
                    prediction: PredictionType::Sample,
                    ..ok.clone()
                },
                None,
                "`prediction` is Sample",
            ),
            (
                DiffusionObjectiveConfig {
                    weighting: LossWeighting::MinSnr { gamma: 0.0 },
                    ..ok.clone()
                },
                None,
                "`weighting.gamma` is 0",
            ),
        ] {
            let message = DiffusionObjective::new(config, &says(classes))
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
        }
        let network = says(Some(2));
        let mut objective = DiffusionObjective::new(ok, &network).unwrap();
        let mut context = StepContext::new(0, 1, flex, Rng::new(0));
        let message = objective
            .losses(&network, &batch(0, 3), &mut context)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`labels` is 2, expected below 2"),
            "{message}"
        );
        // Images that a network cannot halve, or of other channels.
        for (channels, side, expected) in [
            (1, 9, "sides that are multiples of 2"),
            (3, 8, "`in_channels` is 1"),
        ] {
            let shape = ImageShape::new(channels, side, side);
            let image = Image {
                shape,
                pixels: vec![0; shape.numel()],
                label: None,
            };
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
            let mut objective =
                DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network).unwrap();
            let message = objective
                .losses(&network, &collate_images(vec![image]), &mut context)
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
