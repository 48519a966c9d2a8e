//! A step of training.

use crate::{
    coupling,
    denoiser::{Conditioning, Denoiser, real_classes},
    prediction::PredictionType,
    process::{Coupling, Draws, ForwardProcess, Noised},
};
use aigc_core::{
    Error, Result, check,
    data::{ImageBatch, SampleBatch, label_tensor},
    encoder::Autoencoder,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, rc::Rc};

/// The weight of an error, by the noise level of the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// Errors of the network's output have the same weight (Ho et al. 2020, equation 14).
    #[default]
    Uniform,
    /// Errors of x̂₀ are weighted by the signal-to-noise ratio, at most γ (Hang et al. 2023,
    /// <https://arxiv.org/abs/2303.09556>).
    MinSnr {
        /// 5 in the paper.
        gamma: f64,
    },
    /// Errors of x̂₀ are weighted by `(s² + σ²)/(s·σ)²`, where `s` is the data's standard
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

    /// The weight of the squared error of the network's output.
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
    /// What the network learns to predict.
    pub prediction: PredictionType,
    /// Weights of the errors.
    pub weighting: LossWeighting,
    /// Share of samples whose condition is dropped: the class label is replaced by the network's
    /// [null class](Denoiser::null_class), encoder hidden states by the null ones. Classifier-free
    /// guidance needs it (Ho & Salimans 2022, <https://arxiv.org/abs/2207.12598>).
    #[serde(alias = "class_dropout")]
    pub conditioning_dropout: f64,
    /// Share of batches in which the network receives its first prediction of the clean sample
    /// beside the noisy one (Chen et al. 2023, <https://arxiv.org/abs/2208.04202>, section 3; a
    /// half there); it needs twice the input channels.
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

/// Encoder hidden states of a batch.
type Encode<B> = dyn Fn(&B, &Device) -> Result<Tensor<3>>;

/// Where encoder hidden states come from.
struct Encoder<B> {
    encode: Rc<Encode<B>>,
    /// `[1, tokens, width]`: those of dropped conditions.
    null: Option<Tensor<3>>,
}

/// Noise is added to samples, and the network learns to predict what the configuration says.
///
/// `B` is the type of the batches, `D` the rank of their tensors.
pub struct DiffusionObjective<N, B = ImageBatch, const D: usize = 4> {
    config: DiffusionObjectiveConfig,
    draws: Draws,
    latent: Option<(Rc<dyn Autoencoder<D, D>>, f64)>,
    encoder: Option<Encoder<B>>,
    model: PhantomData<fn() -> N>,
}

impl<N, B, const D: usize> std::fmt::Debug for DiffusionObjective<N, B, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffusionObjective")
            .field("config", &self.config)
            .field("latent", &self.latent)
            .field("encoder_hidden_states", &self.encoder.is_some())
            .finish_non_exhaustive()
    }
}

impl<N: Denoiser<D>, B: SampleBatch<D>, const D: usize> DiffusionObjective<N, B, D> {
    /// The objective of a configuration, for `network`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or one that the network does not support.
    pub fn new(config: DiffusionObjectiveConfig, network: &N) -> Result<Self> {
        config.weighting.validate()?;
        let dropout = config.conditioning_dropout;
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::config(
                "conditioning_dropout",
                dropout,
                "0 or more, less than 1",
            ));
        }
        let droppable = network.null_class().is_some() || network.cross_attention_dim().is_some();
        if dropout > 0.0 && !droppable {
            return Err(Error::config(
                "conditioning_dropout",
                dropout,
                "0 for a network without a null class",
            ));
        }
        check::fraction("self_conditioning", config.self_conditioning)?;
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
            encoder: None,
            model: PhantomData,
        })
    }

    /// Learns the latents of samples, times `scaling_factor`, instead of the samples (Rombach et
    /// al. 2022, <https://arxiv.org/abs/2112.10752>). A factor of one over their standard deviation
    /// brings them to that of the noise.
    ///
    /// # Errors
    /// [`Error::Config`] unless the factor is above 0.
    pub fn with_autoencoder(
        self,
        autoencoder: impl Autoencoder<D, D> + 'static,
        scaling_factor: f64,
    ) -> Result<Self> {
        check::positive("scaling_factor", scaling_factor)?;
        Ok(Self {
            latent: Some((Rc::new(autoencoder), scaling_factor)),
            ..self
        })
    }

    /// Conditions a network with cross-attention on the vectors that `encode` returns for a batch,
    /// `[len, tokens, width]`, such as a text encoder's for the batch's captions. It receives the
    /// device, without autodiff. `null`, `[1, tokens, width]`, takes the place of dropped ones:
    /// the vectors of the empty caption for instance.
    pub fn with_encoder_hidden_states(
        mut self,
        encode: impl Fn(&B, &Device) -> Result<Tensor<3>> + 'static,
        null: Option<Tensor<3>>,
    ) -> Self {
        self.encoder = Some(Encoder {
            encode: Rc::new(encode),
            null,
        });
        self
    }

    /// The conditions of a batch, some of them dropped.
    fn conditions(
        &self,
        network: &N,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<Conditioning<D>> {
        let mut condition = Conditioning::default();
        let width = network.cross_attention_dim();
        let real = real_classes(network);
        if real.is_none() && width.is_none() {
            return Ok(condition);
        }
        let labels = match (real, batch.labels()) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::config(
                    "labels",
                    "missing",
                    "the class of every sample, for a class-conditional network",
                ));
            }
            (Some(real), Some(labels)) => {
                if let Some(label) = labels.iter().find(|label| **label as usize >= real) {
                    let expected = format!("below {real}, the network's classes");
                    return Err(Error::config("labels", label, expected));
                }
                Some(labels)
            }
        };
        let dropout = self.config.conditioning_dropout;
        let mut drop = |_: usize| {
            dropout > 0.0 && f64::from(context.rng.uniform_vec(1, 0.0, 1.0)[0]) < dropout
        };
        let dropped: Vec<bool> = (0..batch.len()).map(&mut drop).collect();
        if let Some(labels) = labels {
            let label = |(label, dropped): (&u32, &bool)| match network.null_class() {
                Some(null) if *dropped => null,
                _ => *label,
            };
            let labels: Vec<u32> = labels.iter().zip(&dropped).map(label).collect();
            condition.class_labels = Some(label_tensor(&labels, &context.device));
        }
        if let Some(width) = width {
            let states = self.hidden_states(width, batch, &dropped, &context.device)?;
            condition.encoder_hidden_states = Some(states.autodiff());
        }
        Ok(condition)
    }

    /// Encoder hidden states of a batch, some of them replaced by the null ones.
    fn hidden_states(
        &self,
        width: usize,
        batch: &B,
        dropped: &[bool],
        device: &Device,
    ) -> Result<Tensor<3>> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::argument(
                "encoder_hidden_states",
                "missing",
                format!("vectors of width {width}: call `with_encoder_hidden_states`"),
            ));
        };
        let n = batch.len();
        let states = (encoder.encode)(batch, &device.clone().without_autodiff())?;
        let [rows, tokens, found] = states.dims();
        if rows != n || found != width || tokens == 0 {
            let value = format!("{:?}", states.dims());
            let expected = format!("[{n}, tokens, {width}]");
            return Err(Error::argument("encoder_hidden_states", value, expected));
        }
        let null = match &encoder.null {
            _ if self.config.conditioning_dropout == 0.0 => return Ok(states),
            Some(null) if null.dims() == [1, tokens, width] => null,
            null => {
                let value = null
                    .as_ref()
                    .map_or("missing".into(), |null| format!("{:?}", null.dims()));
                let expected = format!("[1, {tokens}, {width}], with conditioning_dropout");
                return Err(Error::argument("null hidden states", value, expected));
            }
        };
        // The null ones stand behind those of the batch.
        let index = |(i, dropped): (usize, &bool)| if *dropped { n as u32 } else { i as u32 };
        let index: Vec<u32> = dropped.iter().enumerate().map(index).collect();
        let index = label_tensor(&index, &states.device());
        Ok(Tensor::cat(vec![states, null.clone()], 0).select(0, index))
    }

    /// Noise for each sample, paired with the samples where the process says so.
    fn noise(
        &self,
        x0: &Tensor<D>,
        labels: Option<&[u32]>,
        context: &mut StepContext,
    ) -> Tensor<D> {
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
        let flat = |x: &Tensor<D>| x.clone().inner().flatten::<2>(1, D - 1);
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

/// `a·x + b·y` with weights for each sample; weights that are all 0 or 1 cost nothing.
pub(crate) fn combine<const D: usize>(
    x: &Tensor<D>,
    a: &[f64],
    y: &Tensor<D>,
    b: &[f64],
) -> Tensor<D> {
    let term = |tensor: &Tensor<D>, weights: &[f64]| {
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

/// A number for each sample, to be multiplied with samples.
fn each<const D: usize>(values: &[f64], like: &Tensor<D>) -> Tensor<D> {
    let mut dims = [1; D];
    dims[0] = values.len();
    Tensor::from_data(
        TensorData::new(values.to_vec(), dims),
        (&like.device(), like.dtype()),
    )
}

fn times(noised: &[Noised], device: &Device) -> Tensor<1> {
    let times: Vec<f32> = noised.iter().map(|noised| noised.time as f32).collect();
    Tensor::from_data(TensorData::new(times, [noised.len()]), device)
}

impl<N, B, const D: usize> Objective for DiffusionObjective<N, B, D>
where
    N: Denoiser<D> + 'static,
    B: SampleBatch<D>,
{
    type Model = N;
    type Batch = B;

    fn losses(&mut self, network: &N, batch: &B, context: &mut StepContext) -> Result<LossOutput> {
        let shape = match &self.latent {
            None => batch.sample_shape(),
            Some((autoencoder, _)) => autoencoder.latent_shape(),
        };
        network.check_trainable(shape)?;
        if let Some((autoencoder, _)) = &self.latent
            && autoencoder.sample_shape() != batch.sample_shape()
        {
            let expected = format!("{}, the autoencoder's", autoencoder.sample_shape());
            return Err(Error::config("samples", batch.sample_shape(), expected));
        }
        let self_conditioned = network.supports_self_conditioning(shape.channels());
        if self.config.self_conditioning > 0.0 && !self_conditioned {
            let expected = "0, for a network without input channels for its previous prediction";
            return Err(Error::config(
                "self_conditioning",
                self.config.self_conditioning,
                expected,
            ));
        }
        let mut condition = self.conditions(network, batch, context)?;
        let x0 = match &self.latent {
            None => batch.normalized(&context.device),
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
        let input = combine(&noisy, &of(&|n| n.input), &noisy, &[0.0]);
        let time = times(&noised, &context.device);
        if self_conditioned
            && f64::from(context.rng.uniform_vec(1, 0.0, 1.0)[0]) < self.config.self_conditioning
        {
            let plain = condition.clone().inner();
            let output =
                network
                    .valid()
                    .predict(input.clone().inner(), time.clone().inner(), &plain);
            let predicted = combine(
                &noisy.clone().inner(),
                &of(&|n| n.reading.x0.0),
                &output,
                &of(&|n| n.reading.x0.1),
            );
            condition.self_cond = Some(predicted.autodiff());
        }
        let error = network.predict(input, time, &condition) - target;
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
        data::{Image, ImageShape, SampleShape, collate_images},
        device::device,
        rng::{InitWeights, Rng},
    };
    use burn::{module::Module, tensor::Device};

    /// Predicts a constant.
    #[derive(Module, Debug)]
    struct Constant {
        value: f32,
        classes: Option<usize>,
    }

    impl Denoiser for Constant {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
            assert_eq!(condition.class_labels.is_some(), self.classes.is_some());
            x.zeros_like() + self.value
        }

        fn check_shape(&self, _shape: SampleShape) -> Result<()> {
            Ok(())
        }

        fn num_classes(&self) -> Option<usize> {
            self.classes
        }
    }

    /// Predicts the mean of its encoder hidden states.
    #[derive(Module, Debug)]
    struct Attends;

    impl Denoiser for Attends {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
            let states = condition.encoder_hidden_states.clone().unwrap();
            let mean = states.mean_dim(2).mean_dim(1).unsqueeze_dim::<4>(3);
            mean.expand(x.dims())
        }

        fn check_shape(&self, _shape: SampleShape) -> Result<()> {
            Ok(())
        }

        fn cross_attention_dim(&self) -> Option<usize> {
            Some(6)
        }
    }

    /// White images are 1, and so are their vectors; the null ones are 0. The loss is the share of
    /// dropped conditions.
    #[test]
    fn encoder_hidden_states_are_passed_and_dropped() {
        let flex = device("flex").unwrap();
        let states = |batch: &ImageBatch, device: &Device| {
            Ok(Tensor::<3>::ones([batch.len(), 2, 6], device))
        };
        let loss = |dropout: f64, null: Option<Tensor<3>>| {
            let config = DiffusionObjectiveConfig {
                prediction: PredictionType::Sample,
                conditioning_dropout: dropout,
                ..DiffusionObjectiveConfig::default()
            };
            let mut objective = DiffusionObjective::new(config, &Attends)
                .unwrap()
                .with_encoder_hidden_states(states, null);
            let mut context = StepContext::new(0, 1, flex.clone().autodiff(), Rng::new(3));
            let losses = objective.losses(&Attends, &batch(255, 1000), &mut context)?;
            Ok::<_, Error>(losses.loss.into_scalar::<f64>())
        };
        let null = Tensor::<3>::zeros([1, 2, 6], &flex);
        assert!(loss(0.0, None).unwrap() < 1e-9);
        assert!((loss(0.25, Some(null.clone())).unwrap() - 0.25).abs() < 0.05);
        let message = loss(0.25, None).unwrap_err().to_string();
        assert!(
            message.contains("`null hidden states` is missing"),
            "{message}"
        );
        let config = DiffusionObjectiveConfig::default();
        let mut objective = DiffusionObjective::new(config, &Attends).unwrap();
        let mut context = StepContext::new(0, 1, flex, Rng::new(3));
        let message = objective
            .losses(&Attends, &batch(255, 2), &mut context)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`encoder_hidden_states` is missing"),
            "{message}"
        );
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

    fn loss(config: DiffusionObjectiveConfig, network: &Constant, flex: &Device) -> f64 {
        let mut objective = DiffusionObjective::new(config, network).unwrap();
        let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
        let losses = objective
            .losses(network, &batch(255, 4096), &mut context)
            .unwrap();
        losses.loss.into_scalar::<f64>()
    }

    /// Of white images, x₀ = 1 everywhere: the mean squares of the targets are known.
    #[test]
    fn losses_are_mean_squares_of_targets() {
        let flex = device("flex").unwrap();
        let says = |value| Constant {
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

    /// The same error of x̂₀ costs the same, whatever is predicted.
    #[test]
    fn weights_agree_between_predictions() {
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
        // EDM's own process: its weighting gives every error of the network's output the same
        // weight.
        let draws = Draws::new(&ForwardProcess::edm(), PredictionType::Epsilon).unwrap();
        let noised = draws.draw(&mut Rng::new(0));
        assert!((LossWeighting::Edm { sigma_data: 0.5 }.of(&noised) - 1.0).abs() < 1e-9);
    }

    /// The velocity of white images is ε − 1, whichever noise goes with which.
    #[test]
    fn flow_target_is_the_velocity() {
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
                &Constant {
                    value: -1.0,
                    classes: None,
                },
            )
            .unwrap();
            let mut context = StepContext::new(0, 1, flex.clone(), Rng::new(3));
            let losses = objective
                .losses(
                    &Constant {
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

    /// Predicts a half more than its previous prediction.
    #[derive(Module, Debug)]
    struct SelfConditioned {
        looks: bool,
    }

    impl Denoiser for SelfConditioned {
        fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
            condition
                .self_cond
                .clone()
                .unwrap_or_else(|| x.zeros_like())
                + 0.5
        }

        fn check_shape(&self, _shape: SampleShape) -> Result<()> {
            Ok(())
        }

        fn supports_self_conditioning(&self, channels: usize) -> bool {
            assert_eq!(channels, 1);
            self.looks
        }
    }

    #[test]
    fn self_conditioning_feeds_predictions_back() {
        let flex = device("flex").unwrap();
        let loss = |self_conditioning: f64, looks: bool| {
            let config = DiffusionObjectiveConfig {
                prediction: PredictionType::Sample,
                self_conditioning,
                ..DiffusionObjectiveConfig::default()
            };
            let network = SelfConditioned { looks };
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
    fn latent_maps_replace_images() {
        let flex = device("flex").unwrap();
        let config = DiffusionObjectiveConfig {
            prediction: PredictionType::Sample,
            ..DiffusionObjectiveConfig::default()
        };
        let network = Constant {
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
            .sample(2, 0)
            .unwrap()
            .values;
        assert_eq!(images.dims(), [2, 1, 4, 4]);
        assert!((images - 1.0).abs().max().into_scalar::<f32>() < 1e-5);
        let small =
            crate::DiffusionSampler::new(&network, &scheduler, 5, ImageShape::new(1, 4, 4), &flex)
                .unwrap();
        let message = small
            .with_autoencoder(&Corner, 3.0)
            .sample(1, 0)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`shape` is 1×4×4, expected 1×2×2"),
            "{message}"
        );
    }

    /// Configurations in run directories of earlier versions.
    #[test]
    fn earlier_names_of_fields_are_read() {
        let config: DiffusionObjectiveConfig = serde_json::from_str(
            r#"{"process": {"kind": "steps", "noise": {"num_train_timesteps": 1000,
            "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
            "trained_betas": null}, "rescale_betas_zero_snr": false}, "prediction": "epsilon",
            "weighting": "uniform", "class_dropout": 0.1, "self_conditioning": 0.0}"#,
        )
        .unwrap();
        let expected = DiffusionObjectiveConfig {
            conditioning_dropout: 0.1,
            ..DiffusionObjectiveConfig::default()
        };
        assert_eq!(config, expected);
        let flow = r#"{"kind": "flow", "draw": {"kind": "uniform"},
            "num_train_timesteps": 1000, "coupling": "independent"}"#;
        let flow: ForwardProcess = serde_json::from_str(flow).unwrap();
        assert_eq!(flow, ForwardProcess::flow());
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
            null_class: Some(3),
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
    fn objective_rejects_configurations_by_name() {
        let flex = device("flex").unwrap();
        let ok = DiffusionObjectiveConfig::default();
        let says = |classes| Constant {
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
            let message = DiffusionObjective::<_>::new(config, &says(classes))
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
