//! The objective that trains a denoising network.

mod conditions;
mod config;
#[cfg(test)]
mod tests;

pub use config::{DiffusionObjectiveConfig, LossWeighting};

use crate::{
    coupling,
    denoiser::{Denoiser, check_conditions},
    process::{Coupling, Draws, ForwardProcess, Noised},
};
use aigc_core::{
    Error, Result, check,
    data::{ImageBatch, SampleBatch},
    encoder::Autoencoder,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor, TensorData};
use conditions::{Encode, Encoder, Tokenize};
use std::{marker::PhantomData, rc::Rc};

/// The denoising objective: noise is added to samples, and the network learns to predict the
/// quantity that [`DiffusionObjectiveConfig::prediction`] names.
///
/// `B` is the type of the batches, `D` the rank of their tensors.
pub struct DiffusionObjective<N, B = ImageBatch, const D: usize = 4> {
    config: DiffusionObjectiveConfig,
    draws: Draws,
    latent: Option<(Rc<dyn Autoencoder<D, D>>, f64)>,
    encoder: Option<Encoder<B>>,
    class_embeddings: Option<Rc<Encode<B, 2>>>,
    tokenizer: Option<(Rc<Tokenize<B>>, Vec<u32>)>,
    model: PhantomData<fn() -> N>,
}

impl<N, B, const D: usize> std::fmt::Debug for DiffusionObjective<N, B, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffusionObjective")
            .field("config", &self.config)
            .field("latent", &self.latent)
            .field("encoder_hidden_states", &self.encoder.is_some())
            .field("class_embeddings", &self.class_embeddings.is_some())
            .field("input_ids", &self.tokenizer.is_some())
            .finish_non_exhaustive()
    }
}

impl<N: Denoiser<D>, B: SampleBatch<D>, const D: usize> DiffusionObjective<N, B, D> {
    /// The objective of a configuration, for `network`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or one that the network does not support, such
    /// as a process with times that its time embedding [cannot encode](Denoiser::check_min_time);
    /// [`Error::InvalidArgument`] for a network that
    /// [needs more conditions](Denoiser::needs_from_pipeline).
    pub fn new(config: DiffusionObjectiveConfig, network: &N) -> Result<Self> {
        config.weighting.validate()?;
        check_conditions(network)?;
        let dropout = config.conditioning_dropout;
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::config(
                "conditioning_dropout",
                dropout,
                "0 or more, less than 1",
            ));
        }
        let droppable = network.null_class().is_some()
            || network.cross_attention_dim().is_some()
            || network.class_embedding_dim().is_some()
            || network.takes_input_ids();
        if dropout > 0.0 && !droppable {
            return Err(Error::config(
                "conditioning_dropout",
                dropout,
                "0 for a network without a null class",
            ));
        }
        check::fraction("self_conditioning", config.self_conditioning)?;
        let draws = Draws::new(&config.process, config.prediction)?;
        network.check_min_time(draws.min_time())?;
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
            class_embeddings: None,
            tokenizer: None,
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

    /// Conditions a network that [encodes prompts](Denoiser::takes_input_ids) on the token ids that
    /// `tokenize` returns for a batch: as many for each prompt as `null` has, the ids that take the
    /// place of dropped ones, such as those of the empty prompt.
    pub fn with_input_ids(
        mut self,
        tokenize: impl Fn(&B) -> Result<Vec<Vec<u32>>> + 'static,
        null: Vec<u32>,
    ) -> Self {
        self.tokenizer = Some((Rc::new(tokenize), null));
        self
    }

    /// Conditions a network that takes [class embeddings](Denoiser::class_embedding_dim) on the
    /// vectors that `embed` returns for a batch, `[len, width]`. It receives the device, without
    /// autodiff. Zeros take the place of dropped ones.
    pub fn with_class_embeddings(
        mut self,
        embed: impl Fn(&B, &Device) -> Result<Tensor<2>> + 'static,
    ) -> Self {
        self.class_embeddings = Some(Rc::new(embed));
        self
    }

    /// Noise for each sample, paired with the samples by the coupling of the process.
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
