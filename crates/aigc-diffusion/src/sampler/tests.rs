//! Samplers with exact networks.

use super::*;
use crate::{
    AnyScheduler, ClassifierGuidance, Conditioning, DdimInverseScheduler, DdimScheduler,
    DdpmScheduler, DpmMultistepScheduler, GuideContext, Kdpm2Scheduler, NoisyClassifier,
    PlanRunner, PredictionType, UNet2dConditionConfig, UNet2dConfig, UNet2dModel, VarianceType,
    models::{
        ClassEmbedType, CrossDownBlockType, CrossUpBlockType, DownBlockType, PerBlock, UpBlockType,
    },
    plan::{ModelCall, Term},
    schedule::NoiseScheduleConfig,
    scheduler::{Clipping, DpmAlgorithm},
    testing::Gaussian,
};
use aigc_core::{data::ImageShape, device::device, rng::InitWeights, testing::moments};
use burn::module::Module;
use std::cell::Cell;

const SHAPE: ImageShape = ImageShape::new(1, 4, 4);

fn ddim() -> DdimScheduler {
    DdimScheduler {
        clipping: Clipping::NONE,
        ..DdimScheduler::default()
    }
}

fn sampler<'a>(
    network: &'a Gaussian,
    scheduler: &impl Scheduler,
    steps: usize,
) -> DiffusionSampler<'a, Gaussian> {
    DiffusionSampler::new(network, scheduler, steps, SHAPE, &device("flex").unwrap()).unwrap()
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.to_data().iter::<f32>().collect()
}

fn difference(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
    values(a)
        .iter()
        .zip(values(b))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn samples_match_mean_and_spread_of_data() {
    let network = Gaussian::new(0.2, 0.3, &device("flex").unwrap());
    let ddpm = DdpmScheduler {
        clipping: Clipping::NONE,
        ..DdpmScheduler::default()
    };
    for images in [
        sampler(&network, &ddim(), 1000)
            .with_batch_size(1000)
            .sample(1000, 0)
            .unwrap()
            .values,
        sampler(&network, &ddpm, 1000)
            .with_batch_size(1000)
            .sample(1000, 0)
            .unwrap()
            .values,
    ] {
        let (mean, deviation) = moments(&images);
        assert!(
            (mean - 0.6).abs() < 0.005 && (deviation - 0.15).abs() < 0.005,
            "{mean} {deviation}"
        );
    }
}

/// Whatever the batch size, an image depends on its seed and its number, with fresh noise on the
/// way too.
#[test]
fn samples_are_independent_of_batch() {
    let network = Gaussian::new(0.0, 0.5, &device("flex").unwrap()).with_classes(7);
    let ddpm = DdpmScheduler::default();
    let make = |batch_size: usize, n: usize| {
        let samples = sampler(&network, &ddpm, 20)
            .with_batch_size(batch_size)
            .sample(n, 3)
            .unwrap();
        (samples.values, samples.labels.unwrap())
    };
    let (all, classes) = make(64, 10);
    for batch_size in [1, 3] {
        let (parts, same) = make(batch_size, 10);
        assert_eq!(same, classes);
        assert!(
            difference(&all, &parts) < 1e-6,
            "{batch_size}: {}",
            difference(&all, &parts)
        );
    }
    let other = sampler(&network, &ddpm, 20).sample(10, 4).unwrap().values;
    assert!(difference(&all, &other) > 0.05);
}

#[test]
fn callback_sees_progress_and_stops_sampling() {
    let network = Gaussian::new(0.0, 0.5, &device("flex").unwrap());
    let seen = Cell::new(0);
    let whole = sampler(&network, &ddim(), 5).with_batch_size(4);
    let whole = whole.with_callback(|progress| {
        seen.set(seen.get() + 1);
        assert_eq!((progress.num_steps, progress.total), (5, 10));
        assert_eq!(progress.preview().dims()[0], progress.images.len());
        // At the end both are the image.
        let apart = difference(&progress.preview(), &progress.noisy_images());
        assert_eq!(apart == 0.0, progress.step == 5, "{apart}");
        assert!((1..=5).contains(&progress.step));
        ControlFlow::Continue(())
    });
    let samples = whole.sample(10, 0).unwrap();
    assert!(samples.complete && seen.get() == 15);
    // Stopped in the second part, after its third call.
    let stopping = sampler(&network, &ddim(), 5)
        .with_batch_size(4)
        .with_callback(|progress| {
            if progress.images.start == 4 && progress.step == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    let stopped = stopping.sample(10, 0).unwrap();
    assert!(!stopped.complete);
    assert_eq!(stopped.values.dims(), [8, 1, 4, 4]);
    let first = |x: &Tensor<4>| x.clone().narrow(0, 0, 4);
    assert_eq!(
        difference(&first(&stopped.values), &first(&samples.values)),
        0.0
    );
    // Between parts, and after everything.
    let after = |images: usize| {
        sampler(&network, &ddim(), 5)
            .with_batch_size(4)
            .with_callback(move |progress| {
                let there = progress.images.end == images && progress.step == 5;
                if there {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
    };
    let half = after(4).sample(10, 0).unwrap();
    assert_eq!((half.complete, half.values.dims()[0]), (false, 4));
    assert!(after(10).sample(10, 0).unwrap().complete);
}

/// Guidance of a normal with a mean for each class: away from none's mean.
#[test]
fn guidance_moves_away_from_the_null_class() {
    let network = Gaussian::new(0.0, 0.1, &device("flex").unwrap()).with_classes(11);
    let mean = |scale: f64| {
        let sampler = sampler(&network, &ddim(), 50)
            .with_classes(ClassLabels::All(2))
            .with_guidance(ClassifierFreeGuidance::new(scale));
        moments(&sampler.sample(200, 0).unwrap().values).0 * 2.0 - 1.0
    };
    // none: 0.1, class 2: 0.02. The network is linear in the mean, so guidance is too.
    for (scale, expected) in [(1.0, 0.02), (0.0, 0.1), (3.0, 0.1 - 3.0 * 0.08)] {
        let found = mean(scale);
        assert!(
            (found - expected).abs() < 0.01,
            "{scale}: {found}, expected {expected}"
        );
    }
    // Where it does not act, there is none.
    let off = ClassifierFreeGuidance {
        interval: Some((1e6, 1e7)),
        ..ClassifierFreeGuidance::new(3.0)
    };
    let off = sampler(&network, &ddim(), 50)
        .with_classes(ClassLabels::All(2))
        .with_guidance(off)
        .sample(4, 0)
        .unwrap()
        .values;
    let plain = sampler(&network, &ddim(), 50)
        .with_classes(ClassLabels::All(2))
        .sample(4, 0)
        .unwrap()
        .values;
    assert_eq!(difference(&off, &plain), 0.0);
    let guided = sampler(&network, &ddim(), 5).with_guidance(ClassifierFreeGuidance::new(2.0));
    assert!(
        guided
            .sample(100, 0)
            .unwrap()
            .labels
            .unwrap()
            .iter()
            .all(|class| *class < 10)
    );
}

/// Predicts its previous prediction and a little more: a hundredth for its class, or half a
/// hundredth.
#[derive(Module, Debug)]
struct SelfConditioned {
    classes: Option<usize>,
    /// Whether it predicts a variance too: low for a class, high for none (class 2).
    variance: bool,
}

impl Denoiser for SelfConditioned {
    fn predict(&self, x: Tensor<4>, _time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let batch = x.dims()[0];
        let each = |values: Tensor<1>| values.reshape([batch, 1, 1, 1]);
        let before = condition
            .self_cond
            .clone()
            .unwrap_or_else(|| x.zeros_like());
        let Some(class) = condition.class_labels.clone().filter(|_| !self.variance) else {
            // Of the last sample, and so of its noise, or of the previous prediction.
            let output = if self.variance {
                x.clone() * 0.5
            } else {
                before + 0.005
            };
            return match condition.class_labels.clone() {
                // −1 where the class is below 2, 1 where it is 2.
                Some(class) => {
                    let high = class.greater_elem(1).float() * 2.0 - 1.0;
                    Tensor::cat(vec![output, x.zeros_like() + each(high)], 1)
                }
                None => output,
            };
        };
        before + each(class.float() * 0.01)
    }

    fn check_shape(&self, _shape: SampleShape) -> Result<()> {
        Ok(())
    }

    fn num_classes(&self) -> Option<usize> {
        self.classes
    }

    fn null_class(&self) -> Option<u32> {
        self.classes.map(|classes| classes as u32 - 1)
    }
}

#[test]
fn self_conditioning_feeds_predictions_back() {
    let flex = device("flex").unwrap();
    let of = |network: &SelfConditioned, guided: bool| {
        let scheduler = DdimScheduler {
            prediction_type: PredictionType::Sample,
            ..ddim()
        };
        let sampler = DiffusionSampler::new(network, &scheduler, 5, SHAPE, &flex).unwrap();
        let sampler = if network.classes.is_some() {
            sampler.with_classes(ClassLabels::All(0))
        } else {
            sampler
        };
        let sampler = if guided {
            sampler.with_guidance(ClassifierFreeGuidance::new(2.0))
        } else {
            sampler
        };
        moments(&sampler.sample(3, 0).unwrap().values).0 * 2.0 - 1.0
    };
    let (plain, conditional) = (
        SelfConditioned {
            classes: None,
            variance: false,
        },
        SelfConditioned {
            classes: Some(3),
            variance: false,
        },
    );
    // Five calls; with guidance both halves see the guided sample: 0.02 for none, 0 for the class,
    // twice the difference.
    assert!((of(&plain, false) - 0.025).abs() < 1e-5);
    assert!(of(&conditional, false).abs() < 1e-5);
    assert!((of(&conditional, true) - 5.0 * (0.02 - 2.0 * 0.02)).abs() < 1e-5);
}

/// A variance beside the output is that of the class, however the output is guided.
#[test]
fn guidance_keeps_learned_variance() {
    let flex = device("flex").unwrap();
    let network = SelfConditioned {
        classes: Some(3),
        variance: true,
    };
    let scheduler = DdpmScheduler {
        prediction_type: PredictionType::Sample,
        variance_type: VarianceType::LearnedRange,
        clipping: Clipping::NONE,
        ..DdpmScheduler::default()
    };
    let of = |class: u32| {
        let sampler = DiffusionSampler::new(&network, &scheduler, 5, SHAPE, &flex).unwrap();
        sampler.with_classes(ClassLabels::All(class))
    };
    let plain = of(0).sample(3, 0).unwrap().values;
    let guided = of(0)
        .with_guidance(ClassifierFreeGuidance::new(3.0))
        .sample(3, 0)
        .unwrap()
        .values;
    assert!(difference(&plain, &guided) < 1e-6);
    // None has another variance, and so other images of the same noise.
    let none = DiffusionSampler::new(&network, &scheduler, 5, SHAPE, &flex)
        .unwrap()
        .unconditional();
    assert!(difference(&plain, &none.sample(3, 0).unwrap().values) > 1e-4);
}

/// Guidance by class embeddings compares with zeros.
#[test]
fn guidance_works_with_class_embeddings() {
    let flex = device("flex").unwrap();
    let config = UNet2dConfig {
        class_embed_type: Some(ClassEmbedType::Identity),
        time_embedding_dim: Some(6),
        norm_num_groups: 4,
        block_out_channels: vec![8],
        down_block_types: vec![DownBlockType::DownBlock2D],
        up_block_types: vec![UpBlockType::UpBlock2D],
        ..UNet2dConfig::small(SHAPE, None)
    };
    let network = config.init(&flex).unwrap().init_weights(2);
    let of = || DiffusionSampler::new(&network, &ddim(), 2, SHAPE, &flex).unwrap();
    let mut rng = Rng::new(1);
    let vectors: Tensor<2> = rng.normal([3, 6], &flex);
    let x = of().noise(3, 0);
    let images = |sampler: DiffusionSampler<'_, UNet2dModel>| {
        let sampler = sampler.with_batch_size(2);
        sampler.sample_from_noise(&x, 0).unwrap().values
    };
    let guided = |scale: f64, vectors: &Tensor<2>| {
        let sampler = of().with_class_embeddings(vectors.clone());
        images(sampler.with_guidance(ClassifierFreeGuidance::new(scale)))
    };
    let plain = |vectors: Tensor<2>| images(of().with_class_embeddings(vectors));
    let (none, with) = (plain(vectors.zeros_like()), plain(vectors.clone()));
    assert!(difference(&none, &with) > 1e-3);
    assert!(difference(&none, &guided(0.0, &vectors)) < 1e-4);
    assert!(difference(&none, &guided(3.0, &vectors.zeros_like())) < 1e-4);
    assert!(difference(&with, &guided(1.0, &vectors)) < 1e-4);
    assert!(difference(&with, &guided(3.0, &vectors)) > 1e-3);
    let first = vectors.clone().narrow(0, 0, 1);
    let all = plain(first.clone().repeat_dim(0, 3));
    assert_eq!(difference(&plain(first), &all), 0.0);

    let plan = ddim().plan(1).unwrap();
    let predict = |class_embeddings: Tensor<2>| {
        let condition = Conditioning {
            class_embeddings: Some(class_embeddings),
            ..Conditioning::default()
        };
        let time = Tensor::full([3], plan.calls[0].time, &flex);
        network.predict(x.clone(), time, &condition)
    };
    let output = predict(vectors.zeros_like()) * -1.0 + predict(vectors.clone()) * 2.0;
    let expected = PlanRunner::new(&plan)
        .step(x.clone(), output, || unreachable!("DDIM draws no noise"))
        .prev_sample;
    let sampler = DiffusionSampler::new(&network, &ddim(), 1, SHAPE, &flex)
        .unwrap()
        .with_class_embeddings(vectors.clone())
        .with_guidance(ClassifierFreeGuidance::new(2.0));
    let found = images(sampler);
    assert!(difference(&found, &((expected + 1.0) * 0.5).clamp(0.0, 1.0)) < 1e-4);

    let gaussian = Gaussian::new(0.0, 0.3, &flex);
    for (message, expected) in [
        (
            of().sample(1, 0).unwrap_err(),
            "`class_embeddings` is missing",
        ),
        (
            of().with_class_embeddings(rng.normal([1, 5], &flex))
                .sample(1, 0)
                .unwrap_err(),
            "`class_embeddings` is [1, 5], expected [1 or n, 6]",
        ),
        (
            of().with_class_embeddings(vectors.clone())
                .sample(4, 0)
                .unwrap_err(),
            "`class_embeddings` is 3, expected one vector",
        ),
        (
            sampler_of(&gaussian, 1)
                .with_class_embeddings(vectors)
                .sample(1, 0)
                .unwrap_err(),
            "`class_embeddings` is given",
        ),
    ] {
        let message = message.to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// Guidance by tokens, and by a classifier of noisy samples.
#[test]
fn guidance_works_with_prompts_and_classifiers() {
    let flex = device("flex").unwrap();
    let config = UNet2dConditionConfig {
        sample_size: Some(4.into()),
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D],
        up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D],
        block_out_channels: vec![8],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(4),
        ..UNet2dConditionConfig::default()
    };
    let network = config.init(&flex).unwrap().init_weights(2);
    let of = || DiffusionSampler::new(&network, &ddim(), 1, SHAPE, &flex).unwrap();
    let mut rng = Rng::new(1);
    let (tokens, none) = (rng.normal([2, 3, 6], &flex), rng.normal([1, 3, 6], &flex));
    let (x, plan) = (of().noise(2, 0), ddim().plan(1).unwrap());
    let predict = |tokens: Tensor<3>| {
        network.forward(
            x.clone(),
            Tensor::full([2], plan.calls[0].time, &flex),
            &tokens,
        )
    };
    let output = predict(none.clone().repeat_dim(0, 2)) * -1.0 + predict(tokens.clone()) * 2.0;
    let expected = PlanRunner::new(&plan)
        .step(x.clone(), output, || unreachable!("DDIM draws no noise"))
        .prev_sample;
    let sampler = of()
        .with_prompt_embeds(tokens.clone(), Some(none.clone()))
        .with_guidance(ClassifierFreeGuidance::new(2.0));
    let images = sampler.sample_from_noise(&x, 0).unwrap().values;
    assert!(difference(&images, &((expected + 1.0) * 0.5).clamp(0.0, 1.0)) < 1e-4);
    for (message, expected) in [
        (of().sample(1, 0).unwrap_err(), "`prompt_embeds` is missing"),
        (
            of().with_prompt_embeds(rng.normal([1, 3, 5], &flex), None)
                .sample(1, 0)
                .unwrap_err(),
            "`prompt_embeds` is [1, 3, 5]",
        ),
        (
            of().with_prompt_embeds(tokens.clone(), Some(rng.normal([1, 2, 6], &flex)))
                .sample(1, 0)
                .unwrap_err(),
            "`negative_prompt_embeds` is [1, 2, 6]",
        ),
        (
            of().with_prompt_embeds(tokens.clone(), None)
                .with_guidance(ClassifierFreeGuidance::new(2.0))
                .sample(1, 0)
                .unwrap_err(),
            "`guidance` is 2",
        ),
        (
            of().with_prompt_embeds(tokens.clone(), None)
                .sample(3, 0)
                .unwrap_err(),
            "`prompt_embeds` is 2",
        ),
        (
            sampler
                .with_prompt_embeds(tokens, None)
                .sample(1, 0)
                .unwrap_err(),
            "`guidance` is 2",
        ),
    ] {
        let message = message.to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[derive(Debug)]
    struct Bright;
    impl NoisyClassifier for Bright {
        fn logits(&self, x: Tensor<4>, _time: Tensor<1>) -> Tensor<2> {
            let sum = x.flatten::<2>(1, 3).sum_dim(1);
            Tensor::cat(vec![sum.zeros_like(), sum], 1)
        }
    }
    let network = Gaussian::new(0.0, 0.3, &flex);
    let mean = |class: Option<u32>| {
        let guide = class.map(|class| ClassifierGuidance::new(Bright, class, 1.0).unwrap());
        let sampler = sampler_of(&network, 50);
        let sampler = match &guide {
            Some(guide) => sampler.with_guide(guide),
            None => sampler,
        };
        moments(&sampler.sample(64, 0).unwrap().values).0
    };
    let (dark, plain, bright) = (mean(Some(0)), mean(None), mean(Some(1)));
    assert!(
        dark < plain - 0.01 && plain + 0.01 < bright,
        "{dark} {plain} {bright}"
    );
}

fn sampler_of(network: &Gaussian, steps: usize) -> DiffusionSampler<'_, Gaussian> {
    DiffusionSampler::new(network, &ddim(), steps, SHAPE, &device("flex").unwrap()).unwrap()
}

/// Guided to data with another mean, samples are those of that data. With a solver that calls the
/// network in the middle of a step, the noise level there counts.
#[test]
fn guide_sees_the_noise_level_of_the_call() {
    #[derive(Debug)]
    struct Elsewhere(f64);
    impl Guide for Elsewhere {
        fn score(&self, view: &GuideContext<'_>) -> Result<Tensor<4>> {
            // Of normal data, x ~ N(α·m, α²·d² + σ²): moving the mean by s adds α·s / (α²·d² + σ²).
            let NoiseLevel { alpha, sigma } = view.call().network_level;
            let variance = (alpha * 0.3).powi(2) + sigma * sigma;
            Ok(Tensor::ones_like(&view.x()) * (alpha * self.0 / variance))
        }
    }
    let network = Gaussian::new(0.2, 0.3, &device("flex").unwrap());
    let kdpm2 = Kdpm2Scheduler {
        noise: NoiseScheduleConfig::default(),
        ..Kdpm2Scheduler::default()
    };
    let guide = Elsewhere(0.25);
    let made = sampler(&network, &kdpm2, 40)
        .with_guide(&guide)
        .sample(20, 0)
        .unwrap()
        .values;
    let there = Gaussian::new(0.45, 0.3, &device("flex").unwrap());
    let expected = sampler(&there, &kdpm2, 40).sample(20, 0).unwrap().values;
    assert!(
        difference(&made, &expected) < 1e-3,
        "{}",
        difference(&made, &expected)
    );
}

/// A guide far out of the images' range: DDIM with fresh noise stays DDPM (Song et al.
/// 2021, section 4.1) only if the predicted noise is that of the clipped sample. Noise of another
/// one made restored images the worse the more steps there were.
#[test]
fn guide_beyond_the_clipping_range_keeps_noise_consistent() {
    #[derive(Debug)]
    struct Upwards;
    impl Guide for Upwards {
        fn score(&self, view: &GuideContext<'_>) -> Result<Tensor<4>> {
            let NoiseLevel { alpha, sigma } = view.call().network_level;
            // Early only, so that images end within the range again.
            let by = if sigma > alpha { 3.0 } else { 0.0 };
            Ok(Tensor::ones_like(&view.x()) * (by * alpha / (sigma * sigma)))
        }
    }
    let network = Gaussian::new(0.2, 0.3, &device("flex").unwrap());
    let led = |scheduler: &AnyScheduler| {
        sampler(&network, scheduler, 50)
            .with_guide(&Upwards)
            .sample(20, 0)
            .unwrap()
            .values
    };
    let [ddpm, ddim] = [
        DdpmScheduler::default().into(),
        DdimScheduler {
            eta: 1.0,
            ..DdimScheduler::default()
        }
        .into(),
    ];
    let difference = difference(&led(&ddpm), &led(&ddim));
    assert!(difference < 1e-4, "{difference}");
}

/// Inverting and sampling again meet; the better, the finer the steps.
#[test]
fn inversion_recovers_images() {
    let network = Gaussian::new(0.2, 0.3, &device("flex").unwrap());
    let images = sampler(&network, &ddim(), 50).sample(3, 0).unwrap().values;
    let error = |steps: usize| {
        let inverse = DdimInverseScheduler::from(&ddim());
        let sampler = sampler(&network, &ddim(), steps);
        let noise = sampler.invert(&images, &inverse, steps, 0).unwrap();
        let (mean, deviation) = moments(&noise);
        assert!(
            mean.abs() < 0.6 && (deviation - 1.0).abs() < 0.6,
            "{mean} {deviation}"
        );
        difference(
            &sampler.sample_from_noise(&noise, 0).unwrap().values,
            &images,
        )
    };
    let [coarse, fine] = [20, 200].map(error);
    assert!(fine < 0.02 && fine < 0.2 * coarse, "{coarse} {fine}");
}

#[test]
fn interpolation_ends_are_samples_of_the_noises() {
    let network = Gaussian::new(0.2, 0.3, &device("flex").unwrap());
    let sampler = sampler(&network, &ddim(), 10);
    let (from, to) = (sampler.noise(3, 1), sampler.noise(3, 2));
    let frames = sampler.interpolate(&from, &to, 4, 0).unwrap();
    assert_eq!(frames.len(), 4);
    assert!(
        difference(
            &frames[0],
            &sampler.sample_from_noise(&from, 0).unwrap().values
        ) < 1e-5
    );
    assert!(
        difference(
            &frames[3],
            &sampler.sample_from_noise(&to, 0).unwrap().values
        ) < 1e-5
    );
    assert!(difference(&frames[1], &frames[2]) > 1e-3);
}

/// All solvers of the network's process start in the middle, multistep ones too: nearly where they
/// would have been.
#[test]
fn sampling_starts_at_any_step() {
    let flex = device("flex").unwrap();
    let network = Gaussian::new(0.2, 0.3, &flex);
    // Other processes, the way back, and those that are no solvers, whose samples are not the
    // data's.
    let others = [
        "EDM",
        "Flow",
        "DDIMInverse",
        "LCM",
        "TCD",
        "Cosine",
        "IPNDM",
    ];
    let classes = AnyScheduler::CLASSES
        .iter()
        .filter(|class| !others.iter().any(|other| class.starts_with(other)));
    let schedulers = classes.map(|class| {
        let process = r#""beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "clip_sample": false"#;
        let options = r#""solver_order": 3, "timestep_spacing": "linspace""#;
        AnyScheduler::from_json(&format!(r#"{{"_class_name": "{class}", {process}, {options}}}"#)).unwrap().value
    });
    for scheduler in schedulers {
        let which = scheduler.class();
        let whole = scheduler.plan(200).unwrap();
        for at in [1, whole.len() / 2, whole.len() - 1] {
            let plan = whole.starting_at(at).unwrap();
            assert_eq!(plan.len(), whole.len() - at);
            let n = 500;
            let sampler = sampler(&network, &ddim(), 1).with_batch_size(n);
            let x0 = Rng::new(1).normal([n, 1, 4, 4], &flex) * 0.3 + 0.2;
            let x = plan.add_noise(0, x0, Rng::new(2).normal([n, 1, 4, 4], &flex));
            let job = sampler.job(n, &plan, 0).unwrap();
            let (mean, deviation) = moments(&sampler.carry(x, &job, 0..n).unwrap().x);
            assert!(
                (mean - 0.2).abs() < 0.02 && (deviation - 0.3).abs() < 0.02,
                "{which} {at}: {mean} {deviation}"
            );
        }
    }
    let whole = ddim().plan(5).unwrap();
    assert!(whole.starting_at(5).is_err());
    assert_eq!(whole.starting_at(0).unwrap(), whole);
    // Image to image: a little noise changes little.
    let sampler = sampler(&network, &ddim(), 50);
    let images = sampler.sample(8, 0).unwrap().values;
    let change = |strength: f64| {
        difference(
            &sampler.img2img(&images, strength, 1).unwrap().values,
            &images,
        )
    };
    let [little, much] = [0.1, 1.0].map(change);
    assert!(little < 0.6 * much, "{little} {much}");
}

/// A late start draws noise from the first step on where all steps do, and multistep methods begin
/// with low orders.
#[test]
fn late_starts_are_those_of_the_scheduler() {
    let flex = device("flex").unwrap();
    let network = Gaussian::new(0.2, 0.3, &flex);
    let scheduler = DpmMultistepScheduler {
        algorithm_type: DpmAlgorithm::SdeDpmPlusPlus,
        ..DpmMultistepScheduler::default()
    };
    let plan = scheduler.plan_from(20, 10).unwrap();
    let noisy = |call: &ModelCall| call.update.iter().any(|(term, _)| *term == Term::Noise);
    assert!(noisy(&plan.calls[0]));
    let sampler = sampler(&network, &scheduler, 20);
    assert!(!noisy(&sampler.plan().starting_at(10).unwrap().calls[0]));
    let images = Tensor::full([3, 1, 4, 4], 0.6, &flex);
    let found = sampler.img2img(&images, 0.5, 7).unwrap().values;
    let x = plan.add_noise(0, images * 2.0 - 1.0, sampler.noise(3, 7));
    let job = sampler.job(3, &plan, 7).unwrap();
    let expected = sampler.carry(x, &job, 0..3).unwrap().x;
    assert!(difference(&found, &sampler.space.decode(expected)) < 1e-5);
}

/// Normal images behind normal noise: what comes out is drawn from the posterior, about the best
/// guess with its uncertainty.
#[test]
fn denoising_matches_the_posterior() {
    let flex = device("flex").unwrap();
    let network = Gaussian::new(0.2, 0.3, &flex);
    let noisy = Tensor::full([2000, 1, 4, 4], 0.9, &flex);
    // In [−1, 1]: 0.8, with noise of 0.4; the prior's mean is 0.2, its deviation 0.3.
    let (p, v): (f64, f64) = (0.09, 0.16);
    let expected = ((0.2 * v + 0.8 * p) / (p + v), (p * v / (p + v)).sqrt());
    for scheduler in [ddim(), DdimScheduler { eta: 1.0, ..ddim() }] {
        let sampler = sampler(&network, &scheduler, 1000).with_batch_size(2000);
        let (mean, deviation) = moments(&sampler.denoise(&noisy, 0.2, 0).unwrap().values);
        let (mean, deviation) = (2.0 * mean - 1.0, 2.0 * deviation);
        // Without fresh noise it is the one image that the flow takes this noise to.
        let expected = if scheduler.eta > 0.0 {
            expected
        } else {
            (0.2 + (0.8 - 0.2) * (p / (p + v)).sqrt(), 0.0)
        };
        assert!(
            (mean - expected.0).abs() < 0.01,
            "{mean}, expected {expected:?}"
        );
        assert!(
            (deviation - expected.1).abs() < 0.03,
            "{deviation}, expected {expected:?}"
        );
        for wrong in [0.0, 200.0] {
            let message = sampler.denoise(&noisy, wrong, 0).unwrap_err().to_string();
            assert!(message.contains("`noise_std` is"), "{message}");
        }
    }
}

/// Known pixels are kept; the others follow the model, however often they are resampled.
#[test]
fn repaint_keeps_known_pixels_and_spread() {
    let flex = device("flex").unwrap();
    let network = Gaussian::new(0.2, 0.3, &flex);
    let known = Tensor::<4>::from_floats([[[[1.0; 4], [1.0; 4], [0.0; 4], [0.0; 4]]]], &flex);
    let images = Tensor::full([500, 1, 4, 4], 0.9, &flex);
    let ddpm = DdpmScheduler {
        clipping: Clipping::NONE,
        ..DdpmScheduler::default()
    };
    let sampler = sampler(&network, &ddpm, 500).with_batch_size(500);
    let made = sampler.repaint(&images, &known, 3, 0).unwrap().values;
    assert!(difference(&made.clone().narrow(2, 0, 2), &images.narrow(2, 0, 2)) < 1e-6);
    let (mean, deviation) = moments(&made.narrow(2, 2, 2));
    assert!(
        (mean - 0.6).abs() < 0.02 && (deviation - 0.15).abs() < 0.02,
        "{mean} {deviation}"
    );
}

#[test]
fn sampler_rejects_settings_by_name() {
    let flex = device("flex").unwrap();
    let (plain, conditional) = (
        Gaussian::new(0.0, 1.0, &flex),
        Gaussian::new(0.0, 1.0, &flex).with_classes(3),
    );
    let images = Tensor::<4>::ones([2, 1, 4, 4], &flex);
    let wide = Tensor::<4>::ones([2, 1, 4, 5], &flex);
    let of = |network| sampler(network, &ddim(), 4);
    let expect = |message: Error, expected: &str| {
        let message = message.to_string();
        assert!(message.contains(expected), "{message}");
    };
    expect(of(&plain).sample(0, 0).unwrap_err(), "`n` is 0");
    expect(
        of(&plain)
            .with_classes(ClassLabels::All(1))
            .sample(1, 0)
            .unwrap_err(),
        "the model has no classes",
    );
    expect(
        of(&conditional)
            .with_classes(ClassLabels::All(3))
            .sample(1, 0)
            .unwrap_err(),
        "`classes` is 3, expected below 2",
    );
    expect(
        of(&plain)
            .with_guidance(ClassifierFreeGuidance::new(2.0))
            .sample(1, 0)
            .unwrap_err(),
        "`guidance` is 2",
    );
    expect(
        of(&plain).with_num_classes(2).sample(1, 0).unwrap_err(),
        "`num_classes` is 2",
    );
    expect(
        of(&conditional)
            .with_num_classes(4)
            .sample(1, 0)
            .unwrap_err(),
        "`num_classes` is 4, expected 1 to 3",
    );
    expect(
        of(&plain).unconditional().sample(1, 0).unwrap_err(),
        "`unconditional` is set, expected a network with a null class",
    );
    // All of its classes are real ones.
    expect(
        of(&conditional)
            .unconditional()
            .with_num_classes(3)
            .sample(1, 0)
            .unwrap_err(),
        "`unconditional` is set",
    );
    let none = of(&conditional).unconditional().sample(3, 0).unwrap();
    assert_eq!(none.labels.unwrap(), [2, 2, 2]);
    expect(
        of(&plain).with_batch_size(0).sample(1, 0).unwrap_err(),
        "`batch_size` is 0",
    );
    expect(
        of(&plain).class_grid(2, 0).unwrap_err(),
        "a network with classes",
    );
    expect(of(&conditional).class_grid(0, 0).unwrap_err(), "`n` is 0");
    expect(
        of(&plain).img2img(&images, 0.0, 0).unwrap_err(),
        "`strength` is 0",
    );
    expect(
        of(&plain).img2img(&wide, 0.5, 0).unwrap_err(),
        "`images` is 1×4×5, expected 1×4×4",
    );
    expect(
        of(&plain).sample_from_noise(&wide, 0).unwrap_err(),
        "`noise` is 1×4×5",
    );
    expect(
        of(&plain).interpolate(&images, &images, 1, 0).unwrap_err(),
        "`frames` is 1",
    );
    expect(
        of(&plain).repaint(&images, &wide, 1, 0).unwrap_err(),
        "`mask` is [2, 1, 4, 5]",
    );
    expect(
        of(&plain).repaint(&images, &images, 0, 0).unwrap_err(),
        "`num_resamples` is 0",
    );
    let looking_back = sampler(&plain, &DpmMultistepScheduler::default(), 4);
    expect(
        looking_back.repaint(&images, &images, 1, 0).unwrap_err(),
        "`scheduler`",
    );
    expect(of(&plain).sampler_error(), "`steps` is 0");
}

impl DiffusionSampler<'_, Gaussian> {
    fn sampler_error(&self) -> Error {
        DiffusionSampler::new(self.network, &ddim(), 0, SHAPE, &self.device).unwrap_err()
    }
}

/// Settings are validated together: their order does not matter.
#[test]
fn sampler_settings_have_no_order() {
    let flex = device("flex").unwrap();
    let network = Gaussian::new(0.0, 0.3, &flex).with_classes(5);
    let guidance = ClassifierFreeGuidance::new(2.0);
    let of = || sampler(&network, &ddim(), 3);
    let samples = [
        of().with_num_classes(3)
            .with_guidance(guidance)
            .with_classes(ClassLabels::Random),
        of().with_guidance(guidance)
            .with_classes(ClassLabels::Random)
            .with_num_classes(3),
    ]
    .map(|sampler| sampler.sample(20, 1).unwrap());
    assert_eq!(values(&samples[0].values), values(&samples[1].values));
    assert_eq!(samples[0].labels, samples[1].labels);
    assert!(
        samples[0]
            .labels
            .as_ref()
            .unwrap()
            .iter()
            .all(|class| *class < 3)
    );
    assert_eq!(samples[0].seed, 1);
}

/// A token that is cancelled during sampling keeps what is there.
#[test]
fn cancel_token_stops_sampling() {
    let network = Gaussian::new(0.0, 0.5, &device("flex").unwrap());
    let token = CancelToken::new();
    let cancel = token.clone();
    let calls = Cell::new(0);
    let sampler = sampler(&network, &ddim(), 5)
        .with_cancel(token.clone())
        .with_batch_size(2)
        .with_callback(|progress| {
            calls.set(calls.get() + 1);
            if progress.images.start == 2 {
                cancel.cancel();
            }
            ControlFlow::Continue(())
        });
    let samples = sampler.sample(6, 0).unwrap();
    assert!(!samples.complete && samples.values.dims()[0] == 4 && calls.get() == 6);
    // Cancelled before the start: the network is not called.
    for error in [
        sampler.sample(6, 0).unwrap_err(),
        sampler
            .sample_from_noise(&sampler.noise(2, 0), 0)
            .unwrap_err(),
        sampler.img2img(&samples.values, 0.5, 0).unwrap_err(),
        sampler
            .invert(&samples.values, &DdimInverseScheduler::from(&ddim()), 5, 0)
            .unwrap_err(),
    ] {
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    }
    assert_eq!(calls.get(), 6);
}
