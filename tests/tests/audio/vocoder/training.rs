//! Training of vocoders against discriminators.

use super::{flex, mel, small, tones};
use aigc_core::{
    CancelToken, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, InMemory, SampleBatch, SampleShape},
    dsp::{MelConfig, StftConfig},
    rng::{InitWeights, Rng},
    train::{Event, Objective, OptimizerConfig, StartFrom, StepContext, Trainer, TrainerConfig},
};
use aigc_gan::{
    Gan,
    vocoder::{
        HifiGan, MultiPeriodDiscriminatorConfig, MultiResolutionDiscriminatorConfig, UnivNet,
        UnivNetConfig, VocoderGenerator, VocoderMetrics, VocoderObjective, VocoderObjectiveConfig,
        WaveDiscriminators, WaveDiscriminatorsConfig,
    },
};
use aigc_tests::bits;
use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Mutex};

/// Waveforms of one length.
#[derive(Debug)]
struct Clips(Vec<Vec<f32>>);

impl SampleBatch<3> for Clips {
    fn to_tensor(&self, device: &Device) -> Tensor<3> {
        let data = TensorData::new(self.0.concat(), [self.0.len(), 1, self.0[0].len()]);
        Tensor::from_data(data, device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&[1, self.0.first().map_or(0, Vec::len)])
    }
}

type Model<G = HifiGan> = Gan<G, WaveDiscriminators>;

/// A generator and small discriminators.
fn model<G: Module>(generator: G) -> Model<G> {
    let discriminators = WaveDiscriminatorsConfig {
        multi_period: Some(MultiPeriodDiscriminatorConfig {
            periods: vec![2, 3],
            channels: vec![4, 4],
            ..MultiPeriodDiscriminatorConfig::default()
        }),
        multi_scale: None,
        multi_resolution: Some(MultiResolutionDiscriminatorConfig {
            resolutions: vec![[64, 16, 64]],
            channels: 2,
            ..MultiResolutionDiscriminatorConfig::default()
        }),
    };
    Gan {
        generator,
        discriminator: discriminators.init(&flex()).unwrap(),
    }
}

fn objective(start_step: usize) -> VocoderObjectiveConfig {
    VocoderObjectiveConfig {
        start_step,
        mel_weight: 5.0,
        resolutions: vec![StftConfig::new(128, 32), StftConfig::new(64, 16)],
        ..VocoderObjectiveConfig::default()
    }
}

fn hifi_gan() -> HifiGan {
    small().init(&flex()).unwrap()
}

/// A trained model, the losses of every step, and what stays of the run.
type Trained<G> = (Model<G>, Vec<BTreeMap<String, f64>>, tempfile::TempDir);

/// Trains a generator, stopping after each of `stops` and starting again in a new trainer.
fn train<G, C>(steps: usize, stops: &[usize], generator: fn() -> G, settings: &C) -> Trained<G>
where
    G: VocoderGenerator + 'static,
    C: Serialize + DeserializeOwned,
{
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path().join("run")).unwrap();
    let (reports, mut trained) = (Mutex::new(Vec::new()), None);
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let (flag, stop) = (CancelToken::new(), *stop);
        let raise = flag.clone();
        let config = TrainerConfig {
            seed: 3,
            learning_rate: 2e-3,
            optimizer: OptimizerConfig::adam_w(0.8, 0.99, 0.01),
            save_steps: 5,
            ..TrainerConfig::new(steps)
        };
        let start = match attempt {
            0 => StartFrom::Fresh,
            _ => StartFrom::Resume,
        };
        let clips = InMemory(
            tones(6)
                .iter()
                .map(|wave| wave.channel(0).to_vec())
                .collect(),
        );
        let loader = DataLoader::new(
            clips,
            Clips,
            DataLoaderConfig {
                batch_size: 3,
                shuffle_seed: Some(1),
                ..DataLoaderConfig::default()
            },
        );
        let model = model(generator());
        let objective = VocoderObjective::<_, _, Clips>::new(objective(steps / 2), &model).unwrap();
        let output = Trainer::new(config)
            .with_start(start)
            .with_cancel(flag)
            .with_model_config(settings)
            .unwrap()
            .with_callback(|event: &Event<'_>| {
                if let Event::Step(report) = event {
                    let losses = report.losses.iter().cloned().collect();
                    reports.lock().unwrap().push(losses);
                    if report.step == stop {
                        raise.cancel();
                    }
                }
            })
            .fit(objective, model, &loader.unwrap(), &run)
            .unwrap();
        trained = Some(output.model);
        run = RunDir::open(run.path()).unwrap();
    }
    (trained.unwrap(), reports.into_inner().unwrap(), dir)
}

#[test]
fn training_brings_spectra_closer_and_resumes_exactly() {
    let (steps, half) = (24, 12);
    let (whole, losses, dir) = train(steps, &[], hifi_gan, &small());
    let (resumed, resumed_losses, _keep) = train(steps, &[3, 17], hifi_gan, &small());
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(resumed_losses, losses);
    assert_eq!(losses.len(), steps);
    for (term, share) in [("generator.mel", 0.9), ("generator.stft", 1.0)] {
        let [first, last] = [0, steps - 1].map(|step| losses[step][term]);
        assert!(last < share * first, "{term}: {first} {last}");
    }

    // Discriminators begin where they are told to, also those with weight decay.
    assert!(!losses[half - 1].contains_key("generator.adversarial"));
    assert_eq!(losses[half - 1]["discriminator.loss"], 0.0);
    for name in [
        "generator.adversarial",
        "generator.features",
        "discriminator.real",
        "discriminator.fake",
        "discriminator.accuracy",
    ] {
        assert!(losses[half].contains_key(name), "{name}");
    }
    assert!(losses[half]["discriminator.loss"] > 0.0);

    // The final model opens as the vocoder.
    let opened = HifiGan::from_pretrained(dir.path().join("run").join("final"), &flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(bits(&opened.value), bits(&whole.generator));

    // It is better than it was.
    let metrics = VocoderMetrics::new(mel()).unwrap();
    let resolutions = [StftConfig::new(128, 32), StftConfig::new(64, 16)];
    let metrics = metrics.with_resolutions(&resolutions).unwrap();
    let score = |vocoder: &HifiGan| metrics.evaluate(vocoder, &tones(3), &flex()).unwrap();
    let before = score(&hifi_gan().init_weights(3));
    let after = score(&opened);
    assert!(
        after.mel < before.mel && after.stft < before.stft,
        "{before:?} {after:?}"
    );
}

fn small_univ_net() -> UnivNetConfig {
    UnivNetConfig {
        model_in_channels: 8,
        kernel_predictor_hidden_channels: 8,
        model_hidden_channels: 8,
        num_mel_bins: 12,
        resblock_kernel_sizes: vec![3; 2],
        resblock_stride_sizes: vec![4, 4],
        resblock_dilation_sizes: vec![vec![1, 3]; 2],
        mel_config: Some(mel()),
        weight_norm: true,
        ..UnivNetConfig::default()
    }
}

/// A generator that draws noise in every step.
#[test]
fn univnet_comes_closer_and_resumes_exactly() {
    let univ_net: fn() -> UnivNet = || small_univ_net().init(&flex()).unwrap();
    let steps = 24;
    let (whole, losses, dir) = train(steps, &[], univ_net, &small_univ_net());
    let (resumed, resumed_losses, _keep) = train(steps, &[7], univ_net, &small_univ_net());
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(resumed_losses, losses);
    for term in ["generator.mel", "generator.stft"] {
        let [first, last] = [0, steps - 1].map(|step| losses[step][term]);
        assert!(last < first, "{term}: {first} {last}");
    }
    let opened = UnivNet::from_pretrained(dir.path().join("run").join("final"), &flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(bits(&opened.value), bits(&whole.generator));
}

/// Each phase has gradients for its own network alone.
#[test]
fn gradients_go_to_the_network_of_the_phase() {
    let device = flex().autodiff();
    let model = model(hifi_gan()).init_weights(1).train();
    let mut objective = VocoderObjective::<_, _, Clips>::new(objective(0), &model).unwrap();
    let batch = Clips(
        tones(2)
            .iter()
            .map(|wave| wave.channel(0).to_vec())
            .collect(),
    );
    for phase in 0..2 {
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(1));
        context.phase = phase;
        let losses = objective.losses(&model, &batch, &mut context).unwrap();
        let grads = losses.loss.backward();
        let generator = model.generator.conv_pre.weight.val().grad(&grads);
        let multi_period = model.discriminator.multi_period.as_ref().unwrap();
        let judged = GradientsParams::from_grads(grads, multi_period);
        assert_eq!(generator.is_some(), phase == 1, "phase {phase}");
        assert_eq!(judged.is_empty(), phase == 1, "phase {phase}");
    }
}

#[test]
fn batches_that_do_not_fit_are_errors() {
    let device = flex().autodiff();
    let model = model(hifi_gan()).init_weights(1).train();
    let mut objective = VocoderObjective::<_, _, Clips>::new(objective(0), &model).unwrap();
    let mut error = |clips: Vec<Vec<f32>>| -> Result<()> {
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(1));
        objective
            .losses(&model, &Clips(clips), &mut context)
            .map(drop)
    };
    assert!(error(vec![vec![0.1; 800]; 2]).is_ok());
    assert!(error(vec![]).is_err());
    assert!(error(vec![vec![0.1; 20]]).is_err());
    let other = VocoderObjectiveConfig {
        mels: vec![MelConfig::hifi_gan(16_000, 64, 16, 12)],
        ..VocoderObjectiveConfig::default()
    };
    let refused = VocoderObjective::<_, _, Clips>::new(other, &model).unwrap_err();
    assert!(
        refused.to_string().contains("`mels.sample_rate`"),
        "{refused}"
    );
    for (field, config) in [
        (
            "mel_weight",
            VocoderObjectiveConfig {
                mel_weight: -1.0,
                ..VocoderObjectiveConfig::default()
            },
        ),
        (
            "resolutions",
            VocoderObjectiveConfig {
                resolutions: vec![],
                ..VocoderObjectiveConfig::default()
            },
        ),
    ] {
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.contains(&format!("`{field}`")), "{refused}");
    }
}
