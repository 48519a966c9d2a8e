//! From symbols to latents.

use super::{VitsModel, VitsText};
use crate::speech::layers::{length_mask, repeat};
use aigc_core::{
    Error, Result,
    check::{non_negative, positive},
    rng::Rng,
};
use burn::tensor::{Bool, Int, Tensor};

/// Limit on the frames of a text: an hour of speech. A damaged model can predict any number.
const MAX_FRAMES: usize = 1 << 18;

/// How a text is spoken. Without a value, that of the model's configuration holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VitsOptions {
    /// Index of the speaker. Without one, models with several speakers have no condition.
    pub speaker: Option<usize>,
    /// Speed; durations are divided by it.
    pub speaking_rate: Option<f64>,
    /// Scale of the noise of the latents.
    pub noise_scale: Option<f64>,
    /// Scale of the noise of durations.
    pub noise_scale_duration: Option<f64>,
}

/// Latents of texts, with the results of the steps before them.
#[derive(Clone, Debug)]
pub struct VitsLatents {
    /// Outputs of the text encoder.
    pub text: VitsText,
    /// Logarithms of durations, `[batch, 1, tokens]`.
    pub log_duration: Tensor<3>,
    /// Frames of each token of each text.
    pub durations: Vec<Vec<usize>>,
    /// Frames of each text.
    pub frames: Vec<usize>,
    /// Latents, `[batch, flow_size, frames]`; 0 in the padding.
    pub latents: Tensor<3>,
    /// Condition of the speaker, `[1, speaker_embedding_size, 1]`.
    pub speaker: Option<Tensor<3>>,
}

impl VitsModel {
    /// Latents of the symbols of texts, with the noise of `rng`.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, true for tokens and false for padding
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`encode_text`](Self::encode_text), for an unknown speaker, or
    /// for more than 2¹⁸ frames; [`Error::Config`] for an option out of range;
    /// [`Error::NotFiniteSamples`] if durations or latents are not finite.
    pub fn latents(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        options: &VitsOptions,
        rng: &mut Rng,
    ) -> Result<VitsLatents> {
        let device = input_ids.device();
        let mut draw = |shape: [usize; 3]| rng.normal(shape, &device);
        self.latents_with(input_ids, attention_mask, options, &mut draw)
    }

    /// [`latents`](Self::latents) with noise of the caller: `draw` is called with the shape of the
    /// noise of durations, `[batch, depth_separable_channels, tokens]`, if they are drawn, and then
    /// with that of the latents, `[batch, flow_size, frames]`; not for noise with a scale of 0.
    ///
    /// # Errors
    /// As [`latents`](Self::latents).
    ///
    /// # Panics
    /// If `draw` returns another shape.
    pub fn latents_with(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        options: &VitsOptions,
        draw: &mut dyn FnMut([usize; 3]) -> Tensor<3>,
    ) -> Result<VitsLatents> {
        let config = self.config();
        let rate = options.speaking_rate.unwrap_or(config.speaking_rate);
        positive("speaking_rate", rate)?;
        let noise_scale = options.noise_scale.unwrap_or(config.noise_scale);
        non_negative("noise_scale", noise_scale)?;
        let duration_scale = options
            .noise_scale_duration
            .unwrap_or(config.noise_scale_duration);
        non_negative("noise_scale_duration", duration_scale)?;
        let (device, [batch, tokens]) = (input_ids.device(), input_ids.dims());
        let speaker = match options.speaker {
            Some(speaker) => self.speaker_embeddings(&[speaker], &device)?,
            None => None,
        };

        let text = self.encode_text(input_ids, attention_mask)?;
        let draws = config.use_stochastic_duration_prediction && duration_scale > 0.0;
        let shape = [batch, config.depth_separable_channels, tokens];
        let noise = draws.then(|| draw(shape) * duration_scale);
        let hidden = text.hidden.clone().swap_dims(1, 2);
        let log_duration = self.log_durations(hidden, &text.mask, speaker.as_ref(), noise);
        // A duration of several channels is that of the first.
        let log_duration = log_duration.narrow(1, 0, 1);
        let exact = log_duration.clone().exp() * text.mask.clone() * (1.0 / rate);
        let durations = whole_durations(&exact.ceil(), tokens)?;

        let frames: Vec<usize> = durations.iter().map(|row| row.iter().sum()).collect();
        let most = frames.iter().copied().max().unwrap_or(0);
        let mask = length_mask(&frames, most, &device);
        let frames_of = |x: &Tensor<3>| repeat(x.clone().swap_dims(1, 2), &durations, most);
        let mut z = frames_of(&text.prior_mean);
        if noise_scale > 0.0 {
            let noise = draw([batch, config.flow_size, most]) * noise_scale;
            z = z + noise * frames_of(&text.prior_log_variance).exp();
        }
        let latents = self.flow_inverse(z, &mask, speaker.as_ref()) * mask;
        if !latents.clone().sum().into_scalar::<f32>().is_finite() {
            return Err(Error::NotFiniteSamples {
                what: "the latents".into(),
                step: None,
                hint: "the weights may be damaged; lower `noise_scale` otherwise".into(),
            });
        }
        Ok(VitsLatents {
            text,
            log_duration,
            durations,
            frames,
            latents,
            speaker,
        })
    }
}

/// The durations in `exact`, `[batch, 1, tokens]`, as whole numbers; each text has a frame at
/// least.
fn whole_durations(exact: &Tensor<3>, tokens: usize) -> Result<Vec<Vec<usize>>> {
    let values: Vec<f32> = exact.to_data().iter::<f32>().collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFiniteSamples {
            what: "the durations of tokens".into(),
            step: None,
            hint: "the weights may be damaged; lower `noise_scale_duration` otherwise".into(),
        });
    }
    values
        .chunks_exact(tokens)
        .map(|row| {
            let total: f64 = row.iter().map(|value| f64::from(*value)).sum();
            if total > MAX_FRAMES as f64 {
                let expected = format!("a text of at most {MAX_FRAMES} frames of speech");
                return Err(Error::argument(
                    "input_ids",
                    format!("{total} frames"),
                    expected,
                ));
            }
            let mut durations: Vec<usize> = row.iter().map(|value| *value as usize).collect();
            if total == 0.0 {
                durations[0] = 1;
            }
            Ok(durations)
        })
        .collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::speech::VitsConfig;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    fn tiny(stochastic: bool) -> VitsModel {
        let config = VitsConfig {
            vocab_size: 8,
            hidden_size: 8,
            num_hidden_layers: 1,
            ffn_dim: 8,
            flow_size: 4,
            spectrogram_bins: 5,
            use_stochastic_duration_prediction: stochastic,
            num_speakers: 2,
            speaker_embedding_size: 3,
            depth_separable_num_layers: 1,
            duration_predictor_num_flows: 2,
            duration_predictor_filter_channels: 6,
            prior_encoder_num_flows: 2,
            prior_encoder_num_wavenet_layers: 1,
            posterior_encoder_num_wavenet_layers: 1,
            ..VitsConfig::default()
        };
        config.init(&Device::flex()).unwrap().init_weights(1)
    }

    fn ids(rows: &[[i32; 4]]) -> Tensor<2, Int> {
        let data: Vec<i32> = rows.concat();
        let data = burn::tensor::TensorData::new(data, [rows.len(), 4]);
        Tensor::from_data(data, &Device::flex())
    }

    #[test]
    fn twice_the_rate_gives_no_longer_speech() {
        for stochastic in [true, false] {
            let model = tiny(stochastic);
            let frames = |rate: f64| {
                let options = VitsOptions {
                    speaker: Some(1),
                    speaking_rate: Some(rate),
                    ..VitsOptions::default()
                };
                let rng = &mut Rng::new(3);
                let speech = model
                    .latents(ids(&[[1, 2, 3, 4]]), None, &options, rng)
                    .unwrap();
                assert_eq!(speech.latents.dims(), [1, 4, speech.frames[0]]);
                speech.frames[0]
            };
            assert!(frames(0.1) > frames(1.0) && frames(1.0) >= frames(2.0));
            assert_eq!(frames(1e9), 4);
        }
    }

    #[test]
    fn a_padded_batch_gives_each_text_alone() {
        let model = tiny(false);
        let options = VitsOptions {
            noise_scale: Some(0.0),
            ..VitsOptions::default()
        };
        let rng = &mut Rng::new(0);
        let mask = Tensor::<2, Bool>::from_data(
            [[true, true, true, true], [true, true, false, false]],
            &Device::flex(),
        );
        let both = ids(&[[1, 2, 3, 4], [5, 6, 0, 0]]);
        let both = model.latents(both, Some(mask), &options, rng).unwrap();
        let alone = ids(&[[5, 6, 0, 0]]).narrow(1, 0, 2);
        let alone = model.latents(alone, None, &options, rng).unwrap();
        assert_eq!(both.frames[1], alone.frames[0]);
        let found = both.latents.narrow(0, 1, 1).narrow(2, 0, alone.frames[0]);
        assert_close(&values(found), &values(alone.latents), 1e-5);
    }

    #[test]
    fn bad_input_is_named() {
        let model = tiny(true);
        let error = |ids: Tensor<2, Int>, mask, options: &VitsOptions| {
            let result = model.latents(ids, mask, options, &mut Rng::new(0));
            result.unwrap_err().to_string()
        };
        let plain = VitsOptions::default();
        let message = error(ids(&[[1, 2, 3, 8]]), None, &plain);
        assert!(
            message.contains("`input_ids` is 8, expected 0 to 7"),
            "{message}"
        );
        let none = Tensor::<2, Bool>::from_data([[false; 4]], &Device::flex());
        let message = error(ids(&[[1, 2, 3, 4]]), Some(none), &plain);
        assert!(message.contains("all tokens of row 0"), "{message}");
        let long = Tensor::<2, Int>::zeros([1, 20_000], &Device::flex());
        let message = error(long, None, &plain);
        assert!(
            message.contains("1 texts of 20000 symbols, expected at most 16384"),
            "{message}"
        );
        let options = VitsOptions {
            speaker: Some(2),
            ..plain
        };
        let message = error(ids(&[[1, 2, 3, 4]]), None, &options);
        assert!(
            message.contains("`speaker` is 2, expected below 2"),
            "{message}"
        );
        let options = VitsOptions {
            speaking_rate: Some(0.0),
            ..plain
        };
        let message = error(ids(&[[1, 2, 3, 4]]), None, &options);
        assert!(message.contains("`speaking_rate` is 0"), "{message}");
        let options = VitsOptions {
            speaking_rate: Some(1e-9),
            ..plain
        };
        let message = error(ids(&[[1, 2, 3, 4]]), None, &options);
        assert!(message.contains("at most 262144 frames"), "{message}");
    }

    /// Damaged weights are an error, not a sound of `NaN`.
    #[test]
    fn latents_that_are_not_finite_are_an_error() {
        let (options, rng) = (VitsOptions::default(), &mut Rng::new(0));
        let mut noise = 0;
        let mut draw = |shape: [usize; 3]| {
            noise += 1;
            match noise {
                // The noise of durations is usable, that of latents is not.
                1 => rng.normal(shape, &Device::flex()),
                _ => Tensor::full(shape, f32::NAN, &Device::flex()),
            }
        };
        let found = tiny(true).latents_with(ids(&[[1, 2, 3, 4]]), None, &options, &mut draw);
        let message = found.unwrap_err().to_string();
        assert!(message.contains("the latents"), "{message}");
    }

    /// The table of log-likelihoods is that of normal distributions.
    #[test]
    fn frames_have_the_likelihood_of_their_tokens() {
        let model = tiny(false);
        let mut text = model.encode_text(ids(&[[1, 2, 3, 4]]), None).unwrap();
        let mut rng = Rng::new(2);
        text.prior_log_variance = rng.normal([1, 4, 4], &Device::flex());
        let z: Tensor<3> = rng.normal([1, 4, 3], &Device::flex());
        let found = values(model.frame_log_likelihood(&text, z.clone()));
        let (mean, log_std, z) = (
            values(text.prior_mean),
            values(text.prior_log_variance),
            values(z),
        );
        for (token, frame) in (0..4).flat_map(|token| (0..3).map(move |frame| (token, frame))) {
            let expected: f32 = (0..4)
                .map(|channel| {
                    let at = token * 4 + channel;
                    let share = (z[channel * 3 + frame] - mean[at]) / log_std[at].exp();
                    -0.5 * (share * share + (2.0 * std::f32::consts::PI).ln()) - log_std[at]
                })
                .sum();
            let found = found[token * 3 + frame];
            assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0));
        }
    }

    #[test]
    fn flow_is_inverted_and_posterior_follows_noise() {
        let (model, device) = (tiny(true), Device::flex());
        let speaker = model.speaker_embeddings(&[0, 1], &device).unwrap();
        let mask = length_mask(&[6, 4], 6, &device);
        let spectrogram = Rng::new(4).uniform([2, 5, 6], 0.0, 1.0, &device);
        let posterior = model.posterior(spectrogram, mask.clone(), speaker.as_ref());
        let z = posterior.sample(Rng::new(5).normal([2, 4, 6], &device));
        assert!(
            values(z.clone().narrow(0, 1, 1).narrow(2, 4, 2))
                .iter()
                .all(|x| *x == 0.0)
        );
        let there = model.flow_forward(z.clone(), &mask, speaker.as_ref());
        let back = model.flow_inverse(there, &mask, speaker.as_ref());
        assert_close(&values(back), &values(z), 1e-5);
    }
}
