//! Several discriminators together.

use super::*;
use aigc_core::{adversarial::Verdict, check::ensure_argument, testing::assert_close};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Two discriminators with different numbers of patches.
#[derive(Module, Debug)]
struct Pair {
    critics: Vec<Critic>,
    /// Samples of the shortest sound.
    #[module(skip)]
    least: usize,
    #[module(skip)]
    passes: Arc<AtomicUsize>,
}

impl Pair {
    fn new(device: &Device, least: usize) -> Self {
        let second = Critic {
            hidden: Conv1dConfig::new([1, 4], 5).with_stride(7).init(device),
            ..Critic::new(device)
        };
        Self {
            critics: vec![Critic::new(device), second],
            least,
            passes: Arc::default(),
        }
    }
}

impl SampleDiscriminator<3> for Pair {
    fn logits(&self, x: Tensor<3>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
        let verdicts = self.verdicts(x, class).into_iter();
        Tensor::cat(verdicts.map(|of| of.logits).collect(), 1)
    }

    fn verdicts(&self, x: Tensor<3>, _class: Option<Tensor<1, Int>>) -> Vec<Verdict> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        let critics = self.critics.iter();
        critics
            .flat_map(|critic| critic.verdicts(x.clone(), None))
            .collect()
    }

    fn check_sample(&self, shape: SampleShape) -> aigc_core::Result<()> {
        let time = shape.spatial()[0];
        let expected = format!("at least {} samples", self.least);
        ensure_argument(time >= self.least, "wave", time, &expected)
    }
}

type Judged = AdversarialCodecObjective<EncodecModel, Pair, Sounds>;

fn judged(
    device: &Device,
    least: usize,
    start_step: usize,
) -> (AdversarialCodecConfig, AdversarialCodec<EncodecModel, Pair>) {
    let (config, model) = adversarial(device, start_step);
    let model = AdversarialCodec {
        codec: model.codec,
        discriminator: Pair::new(device, least).init_weights(3),
    };
    (config, model)
}

/// The mean over discriminators of the mean of a function of their numbers.
fn over(of_each: &[Vec<f32>], f: impl Fn(f32) -> f32) -> f32 {
    let mean = |numbers: &Vec<f32>| {
        let values = numbers.iter().map(|x| f(*x));
        values.sum::<f32>() / numbers.len() as f32
    };
    of_each.iter().map(mean).sum::<f32>() / of_each.len() as f32
}

/// A discriminator with few patches counts as much as one with many. Without balanced gradients
/// there are two passes in the phase of the codec, over decoded sounds and over the sounds.
#[test]
fn losses_are_means_over_discriminators() {
    let device = Device::flex().autodiff();
    let batch = Sounds(sines(4));
    for (balance, passes) in [(false, 2), (true, 3)] {
        let (mut config, model) = judged(&device, 1, 0);
        config.loss.balance = balance;
        let mut objective = Judged::new(config, &model).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(5));
        let of_codec = objective.losses(&model, &batch, &mut context).unwrap();
        assert_eq!(model.discriminator.passes.load(Ordering::Relaxed), passes);
        context.phase = 1;
        let of_critics = objective.losses(&model, &batch, &mut context).unwrap();

        let wave = batch.normalized(&device);
        let decoded = model.codec.reconstruct(wave.clone(), &mut Rng::new(5)).wave;
        let decoded = decoded.narrow(2, 0, TIME);
        let critics = &model.discriminator.critics;
        let logits = |x: &Tensor<3>| -> Vec<Vec<f32>> {
            let each = critics.iter();
            each.map(|critic| values(critic.logits(x.clone(), None)))
                .collect()
        };
        let (real, fake) = (logits(&wave), logits(&decoded));
        assert_ne!(real[0].len(), real[1].len());
        let metric = |output: &LossOutput, name: &str| {
            let found = output.metrics.iter().find(|(key, _)| *key == name);
            values(found.unwrap_or_else(|| panic!("no {name}")).1.clone())
        };
        assert_close(
            &metric(&of_codec, "adversarial"),
            &[over(&fake, |x| -x)],
            1e-5,
        );
        let right = |x: f32| f32::from(u8::from(x > 0.0));
        for (name, expected) in [
            ("real", over(&real, |x| x)),
            ("fake", over(&fake, |x| x)),
            (
                "accuracy",
                0.5 * (over(&real, right) + over(&fake, |x| right(-x))),
            ),
        ] {
            assert_close(&metric(&of_critics, name), &[expected], 1e-5);
        }
        let hinge = |x: f32| (1.0 + x).max(0.0);
        let expected = 0.5 * (over(&real, |x| hinge(-x)) + over(&fake, hinge));
        assert_close(&values(of_critics.loss), &[expected], 1e-5);

        let features = critics.iter().map(|critic| {
            let [x, y] = [&decoded, &wave].map(|x| values(critic.inner(x.clone())));
            let apart = x.iter().zip(&y).map(|(x, y)| (x - y).abs());
            apart.sum::<f32>() / y.iter().map(|y| y.abs()).sum::<f32>()
        });
        let expected = features.sum::<f32>() / critics.len() as f32;
        assert_close(&metric(&of_codec, "features"), &[expected], 1e-4);
    }
}

/// In both phases, and before the first step with a discriminator.
#[test]
fn sounds_too_short_for_a_discriminator_are_errors() {
    let device = Device::flex().autodiff();
    for (start_step, phase) in [(0, 0), (5, 0), (0, 1)] {
        let (config, model) = judged(&device, TIME + 1, start_step);
        let mut objective = Judged::new(config, &model).unwrap();
        let mut context = StepContext::new(0, 9, device.clone(), Rng::new(5));
        context.phase = phase;
        let batch = Sounds(sines(2));
        let error = objective.losses(&model, &batch, &mut context).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`wave` is 160, expected at least 161"),
            "{message}"
        );
    }
}
