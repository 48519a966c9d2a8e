//! Training of a small speaker.

use super::*;
use crate::speech::{Lexicon, VitsTokenizer};
use aigc_core::{
    CancelToken, Result,
    audio::{Vocoder, Waveform},
    data::{DataLoader, DataLoaderConfig, Dataset},
    dsp::MelConfig,
    rng::{InitWeights, Rng},
    testing::{assert_close, temp_run, values},
    train::{EmaConfig, Event, Objective, StartFrom, StepContext, Trainer, TrainerConfig},
};
use burn::tensor::{Device, Tensor};

fn mel() -> MelConfig {
    MelConfig::hifi_gan(4000, 64, 32, 8)
}

/// Words of two letters, a tone for each, of other lengths. Neighbours differ: no sound says where
/// one of two equal letters ends.
fn utterances() -> Vec<Utterance> {
    ["ab", "ba", "aba", "bab"]
        .iter()
        .map(|text| {
            let letter = |c: char| {
                let (frequency, len) = if c == 'a' {
                    (300.0, 480)
                } else {
                    (1300.0, 800)
                };
                let sample = move |at: usize| {
                    let phase = std::f64::consts::TAU * frequency * at as f64 / 4000.0;
                    (0.5 * phase.sin()) as f32
                };
                (0..len).map(sample)
            };
            let samples = text.chars().flat_map(letter).collect();
            Utterance {
                wave: Waveform::mono(samples, 4000).unwrap(),
                text: (*text).into(),
                speaker: 0,
            }
        })
        .collect()
}

fn data() -> SpeechDataset {
    let tokenizer = VitsTokenizer::from_texts(&["ab"]).unwrap();
    SpeechDataset::new(utterances(), tokenizer, mel()).unwrap()
}

fn config(data: &SpeechDataset) -> SpeakerConfig {
    let (mel_mean, mel_std) = data.mel_statistics().unwrap();
    SpeakerConfig {
        mel_mean,
        mel_std,
        hidden_size: 16,
        num_hidden_layers: 1,
        ffn_dim: 16,
        duration_filter_channels: 16,
        decoder_channels: 16,
        decoder_dilations: vec![1, 2],
        dropout: 0.0,
        ..SpeakerConfig::new(&VitsTokenizer::from_texts(&["ab"]).unwrap(), mel())
    }
}

fn loader(data: SpeechDataset) -> DataLoader<SpeechBatch> {
    let config = DataLoaderConfig {
        batch_size: 4,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(data, SpeechBatch::collate, config).unwrap()
}

fn train(steps: usize, data: &SpeechDataset) -> Speaker {
    let run = temp_run().unwrap();
    let config_of_run = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(steps)
    };
    let model = config(data).init(&Device::flex()).unwrap();
    let trained = Trainer::new(config_of_run)
        .fit(SpeechObjective::new(), model, &loader(data.clone()), &run)
        .unwrap();
    trained.model
}

fn losses(model: &Speaker, data: &SpeechDataset) -> Vec<f32> {
    let items = (0..data.len()).map(|index| data.get(index).unwrap());
    losses_of(model, items.collect())
}

/// The metrics `prior`, `duration` and `flow` of a batch.
fn losses_of(model: &Speaker, items: Vec<SpeechItem>) -> Vec<f32> {
    let device = Device::flex();
    let batch = SpeechBatch::collate(items);
    let mut context = StepContext::new(0, 1, device, Rng::new(7));
    let output = SpeechObjective::new()
        .losses(model, &batch, &mut context)
        .unwrap();
    let metrics = output
        .metrics
        .into_iter()
        .map(|(_, value)| values(value)[0]);
    metrics.collect()
}

/// What is learned is the length of letters: words that were never heard are as long as theirs.
#[test]
fn letters_have_their_lengths_in_words_never_heard() {
    let data = data();
    let start = config(&data).init(&Device::flex()).unwrap().init_weights(1);
    let model = train(400, &data);
    let (before, after) = (losses(&start, &data), losses(&model, &data));
    for (name, (before, after)) in ["prior", "duration", "flow"]
        .iter()
        .zip(before.iter().zip(&after))
    {
        assert!(after < before, "{name}: {before} became {after}");
    }
    let options = SpeakerOptions {
        temperature: 0.0,
        ..SpeakerOptions::default()
    };
    let spoken = |text: &str| {
        let ids = model.tokenizer().encode(text).unwrap();
        let spoken = model.mel(&[ids], &options, &mut Rng::new(1)).unwrap();
        assert_eq!(spoken.log_mel.dims(), [1, 8, spoken.frames[0]]);
        spoken.frames[0] as f64
    };
    // 15 frames for an a, 25 for a b.
    for (text, frames) in [("abab", 80.0), ("baba", 80.0), ("babab", 105.0)] {
        let found = spoken(text);
        assert!(
            (found - frames).abs() < 0.4 * frames,
            "{text}: {found} frames, {frames} expected"
        );
    }
    let fast = SpeakerOptions {
        speaking_rate: 2.0,
        ..options
    };
    let ids = model.tokenizer().encode("abab").unwrap();
    let fast = model.mel(&[ids], &fast, &mut Rng::new(1)).unwrap();
    assert!((fast.frames[0] as f64) < 0.8 * spoken("abab"));
}

/// The losses of a padded batch are the means over all values and symbols of its items, not over
/// items, and padding does not count.
#[test]
fn losses_of_a_batch_are_means_over_values() {
    let data = data();
    let model = config(&data).init(&Device::flex()).unwrap().init_weights(3);
    let items = [data.get(0).unwrap(), data.get(3).unwrap()];
    let [first, second] = items.clone().map(|item| losses_of(&model, vec![item]));
    let both = losses_of(&model, items.to_vec());
    let mean = |metric: usize, weights: [usize; 2]| {
        let [a, b] = weights.map(|weight| weight as f32);
        (a * first[metric] + b * second[metric]) / (a + b)
    };
    let values = items.clone().map(|item| item.log_mel.len());
    let symbols = items.map(|item| item.ids.len());
    assert!(values[0] != values[1] && symbols[0] != symbols[1]);
    let expected = [mean(0, values), mean(1, symbols)];
    assert_close(&both[..2], &expected, 1e-4);
}

/// A new decoder gives zeros, so that the loss of the flow is the mean square of the velocity
/// `y − (1 − 10⁻⁴)·noise`, for the normalised spectrogram `y`.
#[test]
fn the_flow_goes_from_noise_to_the_spectrogram() {
    let data = data();
    let model = config(&data).init(&Device::flex()).unwrap().init_weights(3);
    let item = data.get(2).unwrap();
    let noise = Rng::new(7).normal_vec(item.log_mel.len());
    let config = model.config();
    let square = |(value, noise): (&f32, &f32)| {
        let y = (f64::from(*value) - config.mel_mean) / config.mel_std;
        (y - (1.0 - 1e-4) * f64::from(*noise)).powi(2)
    };
    let squares = item.log_mel.iter().zip(&noise).map(square);
    let expected = squares.sum::<f64>() / noise.len() as f64;
    let found = losses_of(&model, vec![item])[2];
    assert_close(&[found], &[expected as f32], 1e-3);
}

#[test]
fn a_stopped_training_goes_on_bit_for_bit() {
    let data = data().with_joined(3, 5).unwrap();
    let run_with = |stop: Option<usize>| {
        let run = temp_run().unwrap();
        let settings = || TrainerConfig {
            save_steps: 3,
            ema: Some(EmaConfig::new(0.9)),
            ..TrainerConfig::new(8)
        };
        if let Some(stop) = stop {
            let flag = CancelToken::new();
            let raise = flag.clone();
            let model = config(&data).init(&Device::flex()).unwrap();
            let stopping = Trainer::new(settings()).with_cancel(flag).with_callback(
                move |event: &Event<'_>| {
                    if let Event::Step(report) = event
                        && report.step == stop
                    {
                        raise.cancel();
                    }
                },
            );
            stopping
                .fit(SpeechObjective::new(), model, &loader(data.clone()), &run)
                .unwrap();
        }
        let start = match stop {
            Some(_) => StartFrom::Resume,
            None => StartFrom::Fresh,
        };
        let model = config(&data).init(&Device::flex()).unwrap();
        let trained = Trainer::new(settings())
            .with_start(start)
            .fit(SpeechObjective::new(), model, &loader(data.clone()), &run)
            .unwrap();
        let ids = trained.model.tokenizer().encode("ab ba").unwrap();
        let options = SpeakerOptions::default();
        let spoken = trained
            .model
            .mel(&[ids], &options, &mut Rng::new(2))
            .unwrap();
        values(spoken.log_mel)
    };
    assert_eq!(run_with(None), run_with(Some(4)));
}

#[test]
fn joined_words_have_spaces_and_follow_from_the_epoch() {
    let joined = data().with_joined(4, 1).unwrap();
    let alone = joined.get(0).unwrap();
    let in_epoch = |epoch| joined.get_in_epoch(0, epoch).unwrap();
    let (len, space) = (alone.ids.len(), 1);
    let mut longer = 0;
    for epoch in 0..20 {
        let ids = in_epoch(epoch).ids;
        assert_eq!(ids[..len], alone.ids);
        if ids.len() > len {
            assert_eq!(ids[len..len + 2], [space, 0]);
            longer += 1;
        }
    }
    assert!((1..20).contains(&longer), "{longer} of 20 are joined");
    assert_eq!(in_epoch(3), in_epoch(3));
    let items: Vec<SpeechItem> = (0..4).map(in_epoch).collect();
    let batch = SpeechBatch::collate(items);
    let most = batch.frames().into_iter().max().unwrap();
    assert_eq!(batch.log_mel(&Device::flex()).dims(), [4, 8, most]);
}

/// Spectrograms with as many mels, of another floor.
#[test]
fn mels_of_another_configuration_are_refused_by_field() {
    let tokenizer = VitsTokenizer::from_texts(&["ab"]).unwrap();
    let other = MelConfig {
        floor: 1e-3,
        ..mel()
    };
    let other = SpeechDataset::new(utterances(), tokenizer, other).unwrap();
    let model = config(&data()).init(&Device::flex()).unwrap();
    let batch = SpeechBatch::collate(vec![other.get(0).unwrap()]);
    let mut context = StepContext::new(0, 1, Device::flex(), Rng::new(7));
    let losses = SpeechObjective::new().losses(&model, &batch, &mut context);
    let message = losses.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("`floor` is 0.001"), "{message}");
}

#[test]
fn a_batch_speaks_as_each_text_alone() {
    let data = data();
    let model = config(&data).init(&Device::flex()).unwrap().init_weights(3);
    let options = SpeakerOptions {
        temperature: 0.0,
        ..SpeakerOptions::default()
    };
    let ids: Vec<Vec<u32>> = ["ab", "b"]
        .iter()
        .map(|text| model.tokenizer().encode(text).unwrap())
        .collect();
    let both = model.mel(&ids, &options, &mut Rng::new(0)).unwrap();
    let one = model.mel(&ids[1..], &options, &mut Rng::new(0)).unwrap();
    assert_eq!(both.frames[1], one.frames[0]);
    let found = both.log_mel.narrow(0, 1, 1).narrow(2, 0, one.frames[0]);
    assert_close(&values(found), &values(one.log_mel), 1e-4);
}

#[test]
fn models_open_as_they_were_saved() {
    let config = SpeakerConfig {
        num_speakers: 3,
        ..config(&data())
    };
    let model = config.init(&Device::flex()).unwrap().init_weights(3);
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let opened = Speaker::from_pretrained(dir.path(), &Device::flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    let speak = |model: &Speaker| {
        let options = SpeakerOptions {
            speaker: 2,
            ..SpeakerOptions::default()
        };
        let ids = model.tokenizer().encode("ab").unwrap();
        values(
            model
                .mel(&[ids], &options, &mut Rng::new(1))
                .unwrap()
                .log_mel,
        )
    };
    assert_eq!(speak(&opened), speak(&model));
}

/// Makes a sound of as many samples as the frames have.
#[derive(Debug)]
struct Silent(MelConfig);

impl Vocoder for Silent {
    fn mel_config(&self) -> &MelConfig {
        &self.0
    }

    fn vocode(&self, log_mel: Tensor<3>) -> Result<Tensor<2>> {
        let [batch, _, frames] = log_mel.dims();
        Ok(Tensor::zeros(
            [batch, frames * self.0.hop_length],
            &log_mel.device(),
        ))
    }
}

#[test]
fn bad_input_is_named() {
    let data = data();
    let model = config(&data).init(&Device::flex()).unwrap().init_weights(3);
    let (options, rng) = (SpeakerOptions::default(), &mut Rng::new(0));
    let wave = model.speak("ab", &options, &Silent(mel()), rng).unwrap();
    assert_eq!((wave.sample_rate(), wave.len() % 32), (4000, 0));
    let other = MelConfig {
        floor: 1e-9,
        ..mel()
    };
    let message = model
        .speak("ab", &options, &Silent(other), rng)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`floor`"), "{message}");
    let message = model
        .speak(" ", &options, &Silent(mel()), rng)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`text` is \" \""), "{message}");
    let lexicon = Lexicon::from_text("six a b").unwrap();
    let spelled = model.tokenizer().with_lexicon(lexicon).unwrap();
    let ids = spelled.encode("six").unwrap();
    let wave = model.speak_symbols(ids, &options, &Silent(mel()), rng);
    assert!(!wave.unwrap().is_empty());
    let long = vec![vec![1; 20_000]];
    let message = model.mel(&long, &options, rng).unwrap_err().to_string();
    assert!(message.contains("at most 16384 symbols"), "{message}");
    let message = model
        .speak("six", &options, &Silent(mel()), rng)
        .unwrap_err()
        .to_string();
    assert!(message.contains("'s', 'i', 'x'"), "{message}");
    let wrong = SpeakerOptions {
        steps: 0,
        ..options
    };
    let message = model.mel(&[vec![1]], &wrong, rng).unwrap_err().to_string();
    assert!(message.contains("`steps` is 0"), "{message}");
    let message = model
        .mel(&[vec![1], vec![]], &options, rng)
        .unwrap_err()
        .to_string();
    assert!(message.contains("text 1"), "{message}");
    let message = model
        .mel(&[vec![99]], &options, rng)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`ids` is 99"), "{message}");
}
