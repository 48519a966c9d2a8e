//! Training of a small speaker.

use super::*;
use crate::speech::VitsTokenizer;
use aigc_core::{
    CancelToken, Result,
    audio::{Vocoder, Waveform},
    data::{DataLoader, DataLoaderConfig, Dataset},
    dsp::MelConfig,
    rng::{InitWeights, Rng},
    testing::{assert_close, temp_run, values},
    train::{Event, Objective, StartFrom, StepContext, Trainer, TrainerConfig},
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
    let device = Device::flex();
    let items = (0..data.len()).map(|index| data.get(index).unwrap());
    let batch = SpeechBatch::collate(items.collect());
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

#[test]
fn a_stopped_training_goes_on_bit_for_bit() {
    let data = data().with_joined(3, 5).unwrap();
    let run_with = |stop: Option<usize>| {
        let run = temp_run().unwrap();
        let settings = || TrainerConfig {
            save_steps: 3,
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
    let longest = (0..20)
        .map(|epoch| in_epoch(epoch).ids.len())
        .max()
        .unwrap();
    assert!(longest > alone.ids.len());
    assert_eq!(in_epoch(3), in_epoch(3));
    let items: Vec<SpeechItem> = (0..4).map(in_epoch).collect();
    let batch = SpeechBatch::collate(items);
    let most = batch.frames().into_iter().max().unwrap();
    assert_eq!(batch.log_mel(&Device::flex()).dims(), [4, 8, most]);
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

    type Change = fn(&mut Utterance);
    let cases: [(Change, &str); 4] = [
        (
            |item| item.wave = Waveform::silence(1, 900, 8000).unwrap(),
            "`utterances[1]` is 8000 Hz, expected 4000 Hz",
        ),
        (|item| item.text = "abc".into(), "'c'"),
        (
            |item| item.wave = Waveform::silence(1, 64, 4000).unwrap(),
            "5 symbols in 2 frames",
        ),
        (
            |item| item.wave = Waveform::mono(vec![f32::NAN; 900], 4000).unwrap(),
            "finite samples",
        ),
    ];
    for (change, expected) in cases {
        let mut all = utterances();
        change(&mut all[1]);
        let tokenizer = VitsTokenizer::from_texts(&["ab"]).unwrap();
        let message = SpeechDataset::new(all, tokenizer, mel())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
}
