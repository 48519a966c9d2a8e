//! The model and its parts.

use super::{
    VitsConfig, VitsPosterior, coupling::CouplingFlow, posterior::PosteriorEncoder,
    stochastic::StochasticDurationPredictor,
};
use crate::speech::{
    duration::DurationPredictor,
    layers::{Embedding, speaker_conditions},
    text_encoder::{TextEncoder, check_length},
};
use aigc_core::{Error, Result, check::ensure_argument};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor},
};

impl VitsConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<VitsModel> {
        self.validate()?;
        let duration_predictor = match self.use_stochastic_duration_prediction {
            true => Durations::Stochastic(StochasticDurationPredictor::new(self, device)),
            false => Durations::Plain(DurationPredictor::new(&self.duration(), device)),
        };
        let speakers = [self.num_speakers, self.speaker_embedding_size];
        Ok(VitsModel {
            text_encoder: TextEncoder::new(&self.text_encoder()?, device),
            flow: CouplingFlow::new(self, device),
            duration_predictor,
            embed_speaker: (self.num_speakers > 1).then(|| Embedding::new(speakers, 1.0, device)),
            posterior_encoder: PosteriorEncoder::new(self, device),
            config: self.clone(),
        })
    }
}

/// VITS without its decoder: the text encoder, the predictor of durations, the flow and the
/// posterior encoder (Kim et al. 2021, <https://arxiv.org/abs/2106.06103>).
///
/// [`latents`](Self::latents) goes from symbols to latents, which a decoder turns into sound; the
/// other methods are the parts of a training. Conditions of speakers are those of
/// [`speaker_embeddings`](Self::speaker_embeddings), and are ignored by models with one speaker.
#[derive(Module, Debug)]
pub struct VitsModel {
    text_encoder: TextEncoder,
    flow: CouplingFlow,
    duration_predictor: Durations,
    embed_speaker: Option<Embedding>,
    posterior_encoder: PosteriorEncoder,
    #[module(skip)]
    config: VitsConfig,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has one.
enum Durations {
    Plain(DurationPredictor),
    Stochastic(StochasticDurationPredictor),
}

/// Outputs of the text encoder.
#[derive(Clone, Debug)]
pub struct VitsText {
    /// Hidden states, `[batch, tokens, hidden_size]`.
    pub hidden: Tensor<3>,
    /// Means of the prior, `[batch, tokens, flow_size]`.
    pub prior_mean: Tensor<3>,
    /// Logarithms of the prior's standard deviations, `[batch, tokens, flow_size]`. The name is
    /// that of transformers.
    pub prior_log_variance: Tensor<3>,
    /// 1 for tokens and 0 for padding, `[batch, 1, tokens]`.
    pub mask: Tensor<3>,
}

impl VitsModel {
    /// Configuration of the model.
    pub fn config(&self) -> &VitsConfig {
        &self.config
    }

    /// The conditions of speakers; none for a model with one speaker.
    ///
    /// # Shapes
    /// - output: `[speakers, speaker_embedding_size, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming a speaker that the model does not have.
    pub fn speaker_embeddings(
        &self,
        speakers: &[usize],
        device: &Device,
    ) -> Result<Option<Tensor<3>>> {
        let (table, known) = (self.embed_speaker.as_ref(), self.config.num_speakers);
        speaker_conditions(table, known, speakers, device)
    }

    /// Encodes symbols.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, true for tokens and false for padding
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no tokens, more tokens than attention has memory
    /// for, a token is not below `vocab_size`, or the mask has another shape or a row without
    /// tokens.
    pub fn encode_text(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Result<VitsText> {
        let dims @ [batch, tokens] = input_ids.dims();
        ensure_argument(
            batch > 0 && tokens > 0,
            "input_ids",
            format!("of shape {dims:?}"),
            "at least one token",
        )?;
        check_length("input_ids", dims, self.config.num_attention_heads)?;
        let known = self.config.vocab_size as i64;
        let ids = input_ids.to_data();
        if let Some(unknown) = ids.iter::<i64>().find(|id| !(0..known).contains(id)) {
            return Err(Error::argument(
                "input_ids",
                unknown,
                format!("0 to {}", known - 1),
            ));
        }
        let device = input_ids.device();
        let mask = match attention_mask {
            Some(mask) => {
                let (found, expected) = (mask.dims(), format!("{dims:?}, as the tokens"));
                let name = "attention_mask";
                ensure_argument(
                    found == dims,
                    name,
                    format!("of shape {found:?}"),
                    &expected,
                )?;
                let mask = mask.float().reshape([batch, 1, tokens]);
                let counts = mask.clone().sum_dim(2).to_data();
                let empty = counts.iter::<f32>().position(|count| count == 0.0);
                if let Some(row) = empty {
                    let value = format!("false for all tokens of row {row}");
                    return Err(Error::argument(name, value, "at least one token in a row"));
                }
                mask
            }
            None => Tensor::ones([batch, 1, tokens], &device),
        };
        let (hidden, stats) = self.text_encoder.forward(input_ids, &mask, None);
        let [mean, log_std] = super::coupling::halves(stats);
        Ok(VitsText {
            hidden: hidden.swap_dims(1, 2),
            prior_mean: mean.swap_dims(1, 2),
            prior_log_variance: log_std.swap_dims(1, 2),
            mask,
        })
    }

    /// Logarithms of durations in frames, `[batch, 1, tokens]`. A stochastic predictor makes them
    /// of noise, by default zeros; a plain one ignores it. No gradients flow to the hidden states.
    ///
    /// # Shapes
    /// - hidden: `[batch, hidden_size, tokens]`, mask: `[batch, 1, tokens]`
    /// - speaker: `[batch or 1, speaker_embedding_size, 1]`
    /// - noise: `[batch, depth_separable_channels, tokens]`
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn log_durations(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        speaker: Option<&Tensor<3>>,
        noise: Option<Tensor<3>>,
    ) -> Tensor<3> {
        match &self.duration_predictor {
            Durations::Plain(predictor) => predictor.forward(hidden, mask, speaker),
            Durations::Stochastic(predictor) => {
                let ([batch, _, tokens], device) = (hidden.dims(), hidden.device());
                let channels = self.config.depth_separable_channels;
                let noise =
                    noise.unwrap_or_else(|| Tensor::zeros([batch, channels, tokens], &device));
                predictor.draw(hidden, mask, speaker, noise)
            }
        }
    }

    /// The bound on `−log p(durations)` of a stochastic predictor in nats, `[batch]`, for a draw of
    /// standard normal noise (Kim et al. 2021, §2.2.2).
    ///
    /// # Shapes
    /// - hidden, mask, speaker: as [`log_durations`](Self::log_durations)
    /// - durations: `[batch, 1, tokens]` in frames, 0 in the padding
    /// - noise: `[batch, depth_separable_channels, tokens]`
    ///
    /// # Errors
    /// [`Error::Config`] if durations are not drawn, or the flow has other than two channels.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn duration_negative_log_likelihood(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        speaker: Option<&Tensor<3>>,
        durations: Tensor<3>,
        noise: Tensor<3>,
    ) -> Result<Tensor<1>> {
        let channels = self.config.depth_separable_channels;
        match &self.duration_predictor {
            Durations::Plain(_) => {
                let field = "use_stochastic_duration_prediction";
                Err(Error::config(
                    field,
                    false,
                    "true, for a likelihood of durations",
                ))
            }
            Durations::Stochastic(_) if channels != 2 => {
                let expected = "2, for a duration and a further variable";
                Err(Error::config(
                    "depth_separable_channels",
                    channels,
                    expected,
                ))
            }
            Durations::Stochastic(predictor) => {
                Ok(predictor.negative_log_likelihood(hidden, mask, speaker, durations, noise))
            }
        }
    }

    /// The posterior of latents, given linear spectrograms.
    ///
    /// # Shapes
    /// - spectrogram: `[batch, spectrogram_bins, frames]`, mask: `[batch, 1, frames]`
    /// - speaker: `[batch or 1, speaker_embedding_size, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn posterior(
        &self,
        spectrogram: Tensor<3>,
        mask: Tensor<3>,
        speaker: Option<&Tensor<3>>,
    ) -> VitsPosterior {
        self.posterior_encoder.forward(spectrogram, mask, speaker)
    }

    /// From latents of sound to latents of the prior. The flow does not change volumes.
    ///
    /// # Shapes
    /// - z and output: `[batch, flow_size, frames]`, mask: `[batch, 1, frames]`
    /// - speaker: `[batch or 1, speaker_embedding_size, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn flow_forward(
        &self,
        z: Tensor<3>,
        mask: &Tensor<3>,
        speaker: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        self.flow.forward(z, mask, speaker)
    }

    /// The inverse of [`flow_forward`](Self::flow_forward), with the same shapes.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn flow_inverse(
        &self,
        z: Tensor<3>,
        mask: &Tensor<3>,
        speaker: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        self.flow.inverse(z, mask, speaker)
    }

    /// The log-likelihood of every frame under the prior of every token, in nats, of which
    /// [`monotonic_alignment`](crate::speech::monotonic_alignment) makes durations.
    ///
    /// # Shapes
    /// - z: `[batch, flow_size, frames]`, latents of the prior
    /// - output: `[batch, tokens, frames]`
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn frame_log_likelihood(&self, text: &VitsText, z: Tensor<3>) -> Tensor<3> {
        let (mean, log_std) = (text.prior_mean.clone(), text.prior_log_variance.clone());
        let precision = (log_std.clone() * -2.0).exp();
        let constant = (2.0 * std::f64::consts::PI).ln() * 0.5;
        let scaled = mean.clone() * precision.clone();
        let of_tokens = (log_std + mean * scaled.clone() * 0.5 + constant).sum_dim(2);
        let square = precision.matmul(z.clone() * z.clone()) * 0.5;
        scaled.matmul(z) - square - of_tokens
    }
}
