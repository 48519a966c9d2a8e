//! Codecs are trained, with and without a discriminator.

use super::*;
use crate::codec::{DacConfig, DacModel, EncodecConfig, EncodecModel};
use aigc_core::{
    CancelToken,
    adversarial::SampleDiscriminator,
    data::{DataLoader, DataLoaderConfig, InMemory, SampleShape, ValueRange},
    nn::{Activation, Conv1d, Conv1dConfig},
    rng::InitWeights,
    testing::{temp_run, values},
    train::{Event, StartFrom, Trainer, TrainerConfig},
};
use burn::tensor::{Device, TensorData};
use std::collections::BTreeMap;

mod discriminators;

const TIME: usize = 160;
const RATE: u32 = 800;

/// Sines of different frequencies, phases and volumes.
#[derive(Debug)]
struct Sounds(Vec<Vec<f32>>);

impl SampleBatch<3> for Sounds {
    fn to_tensor(&self, device: &Device) -> Tensor<3> {
        let data = TensorData::new(self.0.concat(), [self.0.len(), 1, TIME]);
        Tensor::from_data(data, device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, TIME])
    }
}

fn sines(count: usize) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(9);
    let sine = |_| {
        let drawn = rng.uniform_vec(3, 0.0, 1.0);
        let (frequency, phase, volume) =
            (0.05 + 0.6 * drawn[0], 6.3 * drawn[1], 0.3 + 0.5 * drawn[2]);
        (0..TIME)
            .map(|at| volume * (frequency * at as f32 + phase).sin())
            .collect()
    };
    (0..count).map(sine).collect()
}

fn loader(batch_size: usize) -> DataLoader<Sounds> {
    let config = DataLoaderConfig {
        batch_size,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(InMemory(sines(32)), Sounds, config).unwrap()
}

fn encodec() -> EncodecConfig {
    EncodecConfig {
        target_bandwidths: vec![0.4, 0.8],
        sampling_rate: RATE,
        hidden_size: 8,
        num_filters: 4,
        upsampling_ratios: vec![4, 2],
        kernel_size: 5,
        last_kernel_size: 5,
        num_lstm_layers: 1,
        codebook_size: 16,
        codebook_decay: 0.8,
        revive_below: 0.3,
        quantizer_dropout: 0.25,
        ..EncodecConfig::default()
    }
}

fn dac() -> DacConfig {
    DacConfig {
        encoder_hidden_size: 4,
        downsampling_ratios: vec![2, 4],
        decoder_hidden_size: 16,
        n_codebooks: 2,
        codebook_size: 16,
        codebook_dim: 4,
        quantizer_dropout: 0.25,
        sampling_rate: RATE,
        ..DacConfig::default()
    }
}

fn loss(balance: bool) -> CodecLossConfig {
    CodecLossConfig {
        balance,
        ..CodecLossConfig::new(RATE)
    }
}

fn trainer(steps: usize) -> TrainerConfig {
    TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(steps)
    }
}

/// Trains, and returns the codec with the losses of all steps.
fn train<M>(codec: M, steps: usize) -> (M, Vec<BTreeMap<String, f64>>)
where
    M: TrainableCodec + 'static,
{
    let run = temp_run().unwrap();
    let mut losses = vec![];
    let objective = CodecObjective::new(loss(false), &codec).unwrap();
    let trained = Trainer::new(trainer(steps))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses.iter().cloned().collect());
            }
        })
        .fit(objective, codec, &loader(8), &run)
        .unwrap();
    (trained.model, losses)
}

/// The mean of a metric over the first or the last steps.
fn mean(losses: &[BTreeMap<String, f64>], name: &str) -> f64 {
    let find = |losses: &BTreeMap<String, f64>| {
        let found = losses.iter().find(|(key, _)| key.ends_with(name));
        *found.unwrap_or_else(|| panic!("no {name} in {losses:?}")).1
    };
    losses.iter().map(find).sum::<f64>() / losses.len() as f64
}

fn check_training(losses: &[BTreeMap<String, f64>]) {
    let (first, last) = (&losses[..5], &losses[losses.len() - 5..]);
    for name in ["loss", "mel"] {
        let (before, after) = (mean(first, name), mean(last, name));
        assert!(after < 0.85 * before, "{name} from {before} to {after}");
    }
    for index in 1..=2 {
        let usage = mean(last, &format!("usage_{index}"));
        assert!(usage > 0.5, "codebook {index}: {usage}");
        let perplexity = mean(last, &format!("perplexity_{index}"));
        assert!(perplexity > 3.0, "codebook {index}: {perplexity}");
    }
}

#[test]
fn encodec_learns_sines_with_all_codebooks() {
    let codec = encodec().init(&Device::flex()).unwrap().init_weights(1);
    let (codec, losses) = train(codec, 160);
    check_training(&losses);
    let started = codec.quantizer().stages.iter();
    assert!(
        started
            .map(|stage| values(stage.started.val()))
            .all(|flag| flag == [1.0])
    );
}

#[test]
fn dac_learns_sines() {
    let codec = dac().init(&Device::flex()).unwrap().init_weights(1);
    let (_, losses) = train::<DacModel>(codec, 120);
    let (first, last) = (&losses[..5], &losses[losses.len() - 5..]);
    for name in ["loss", "mel"] {
        let (before, after) = (mean(first, name), mean(last, name));
        assert!(after < 0.85 * before, "{name} from {before} to {after}");
    }
}

/// A convolution over samples, and a logit for every place.
#[derive(Module, Debug)]
struct Critic {
    hidden: Conv1d,
    output: Conv1d,
}

impl Critic {
    fn new(device: &Device) -> Self {
        let conv = |channels| Conv1dConfig::new(channels, 5).with_stride(2).init(device);
        Self {
            hidden: conv([1, 4]),
            output: conv([4, 1]),
        }
    }

    fn inner(&self, x: Tensor<3>) -> Tensor<3> {
        Activation::LeakyRelu(0.2).forward(self.hidden.forward(x))
    }
}

impl SampleDiscriminator<3> for Critic {
    fn logits(&self, x: Tensor<3>, _class: Option<Tensor<1, Int>>) -> Tensor<2> {
        self.output.forward(self.inner(x)).flatten(1, 2)
    }

    fn features(&self, x: Tensor<3>, _class: Option<Tensor<1, Int>>) -> Vec<Tensor<2>> {
        vec![self.inner(x).flatten(1, 2)]
    }
}

type Adversarial = AdversarialCodecObjective<EncodecModel, Critic, Sounds>;

fn adversarial(
    device: &Device,
    start_step: usize,
) -> (
    AdversarialCodecConfig,
    AdversarialCodec<EncodecModel, Critic>,
) {
    let config = AdversarialCodecConfig {
        loss: CodecLossConfig {
            balance: true,
            ..CodecLossConfig::new(RATE)
        },
        start_step,
        ..AdversarialCodecConfig::new(RATE)
    };
    let model = AdversarialCodec {
        codec: encodec().init(device).unwrap(),
        discriminator: Critic::new(device),
    };
    (config, model.init_weights(1))
}

/// The discriminator starts at its step, and both networks are trained from then on.
#[test]
fn codec_is_trained_against_a_discriminator() {
    let (config, model) = adversarial(&Device::flex(), 2);
    let weight = |model: &AdversarialCodec<EncodecModel, Critic>| {
        values(model.discriminator.output.weight.val())
    };
    let before = weight(&model);
    let run = temp_run().unwrap();
    let mut names: Vec<Vec<String>> = vec![];
    let objective = Adversarial::new(config, &model).unwrap();
    let trained = Trainer::new(trainer(4))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                names.push(report.losses.iter().map(|(name, _)| name.clone()).collect());
            }
        })
        .fit(objective, model, &loader(4), &run)
        .unwrap();
    let has = |names: &[String], end: &str| names.iter().any(|name| name.ends_with(end));
    for (step, names) in names.iter().enumerate() {
        for name in ["adversarial", "features", "accuracy"] {
            assert_eq!(
                has(names, name),
                step >= 2,
                "{name} in step {step}: {names:?}"
            );
        }
        assert!(has(names, "mel") && has(names, "usage_2"), "{names:?}");
    }
    assert_ne!(weight(&trained.model), before);
}

/// The state of the objective is part of what resumes exactly.
#[test]
fn state_continues_bit_for_bit() {
    let device = Device::flex().autodiff();
    let (config, model) = adversarial(&device, 0);
    let batch = Sounds(sines(4));
    let next = |objective: &mut Adversarial, step: usize| {
        let rng = Rng::new(step as u64);
        let mut context = StepContext::new(step, 9, device.clone(), rng);
        let output = objective.losses(&model, &batch, &mut context).unwrap();
        let metrics = output.metrics.iter().map(|(_, value)| value);
        let metrics = metrics.chain([&output.loss]);
        let bits = metrics
            .flat_map(|value| values(value.clone()))
            .map(f32::to_bits);
        bits.collect::<Vec<u32>>()
    };
    let mut first = Adversarial::new(config.clone(), &model).unwrap();
    for step in 0..3 {
        next(&mut first, step);
    }
    let mut second = Adversarial::new(config, &model).unwrap();
    let text = serde_json::to_string(&first.state()).unwrap();
    let state = serde_json::from_str(&text).unwrap();
    second.load_state(state).unwrap();
    assert_eq!(next(&mut first, 3), next(&mut second, 3));
    assert_eq!(first.state(), second.state());
    let message = second.load_state(Value::Null).unwrap_err().to_string();
    assert!(message.contains("`state.objective` is null"), "{message}");
}

/// Trains four steps, with a stop after `stop` of them; returns the final weights and the newest
/// state, as bytes.
fn train_adversarially(stop: Option<usize>) -> [Vec<u8>; 2] {
    let run = temp_run().unwrap();
    for (attempt, stop) in [stop, Some(usize::MAX)].into_iter().flatten().enumerate() {
        let (config, model) = adversarial(&Device::flex(), 1);
        let objective = Adversarial::new(config, &model).unwrap();
        let flag = CancelToken::new();
        let raise = flag.clone();
        let start = match attempt {
            0 => StartFrom::Fresh,
            _ => StartFrom::Resume,
        };
        let config = TrainerConfig {
            gradient_accumulation_steps: 2,
            save_steps: 2,
            ..trainer(4)
        };
        Trainer::new(config)
            .with_start(start)
            .with_cancel(flag)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == stop
                {
                    raise.cancel();
                }
            })
            .fit(objective, model, &loader(4), &run)
            .unwrap();
    }
    let state = run.latest_checkpoint().unwrap().path("state.json");
    let files = [run.final_dir().join("model.safetensors"), state];
    files.map(|path| std::fs::read(path).unwrap())
}

/// Both networks, the codebooks and the balanced gradients continue bit for bit.
#[test]
fn training_against_a_discriminator_resumes_exactly() {
    assert!(train_adversarially(None) == train_adversarially(Some(3)));
}

/// Sounds whose values are stored from 0 to 1.
#[derive(Debug)]
struct UnitSounds(Sounds);

impl SampleBatch<3> for UnitSounds {
    fn to_tensor(&self, device: &Device) -> Tensor<3> {
        (self.0.to_tensor(device) + 1.0) * 0.5
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        self.0.sample_shape()
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unit
    }
}

/// Codecs get sounds from −1 to 1, in whatever range a batch stores them.
#[test]
fn sounds_are_normalized() {
    let device = Device::flex().autodiff();
    let codec = dac().init(&device).unwrap().init_weights(1);
    let context = || StepContext::new(0, 1, device.clone(), Rng::new(1));
    let mut plain = CodecObjective::<DacModel, Sounds>::new(loss(false), &codec).unwrap();
    let batch = Sounds(sines(4));
    let expected = plain.losses(&codec, &batch, &mut context()).unwrap();
    let mut unit = CodecObjective::<DacModel, UnitSounds>::new(loss(false), &codec).unwrap();
    let found = unit.losses(&codec, &UnitSounds(batch), &mut context());
    let (found, expected) = (values(found.unwrap().loss), values(expected.loss));
    assert!(
        (found[0] - expected[0]).abs() < 1e-3 * expected[0],
        "{found:?}, {expected:?}"
    );
}

#[test]
fn configuration_and_batches_are_checked() {
    let codec = encodec()
        .init(&Device::flex().autodiff())
        .unwrap()
        .init_weights(1);
    let new = |config| CodecObjective::<_, Sounds>::new(config, &codec);
    let message = new(CodecLossConfig::new(8000)).unwrap_err().to_string();
    assert!(
        message.contains("`mels.sample_rate` is 8000, expected 800"),
        "{message}"
    );
    let mut config = loss(false);
    config.mels[0].n_fft = 1024;
    config.mels[0].win_length = 1024;
    let mut objective = new(config).unwrap();
    let device = Device::flex().autodiff();
    let mut context = StepContext::new(0, 1, device, Rng::new(1));
    // Shorter than half a frame of a mel.
    assert!(
        objective
            .losses(&codec, &Sounds(sines(2)), &mut context)
            .is_err()
    );
}
