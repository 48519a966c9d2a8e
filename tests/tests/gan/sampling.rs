//! Samplers, and standing statistics.

use super::*;

fn conditional_generator() -> aigc_gan::models::DcganGenerator {
    let config = DcganConfig {
        channels: vec![4, 6],
        classes: Some(ClassConditioning::new(3)),
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    config.generator(&flex()).unwrap().init_weights(1)
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn samples_depend_on_seed_and_index_only() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let sample = |n, seed| values(sampler.sample(n, seed).unwrap().values);
    assert!(sample(30, 1) == sample(30, 1) && sample(30, 1) != sample(30, 2));
    let batched = sampler.clone().with_batch_size(7).sample(30, 1).unwrap();
    let first = sampler.sample(5, 1).unwrap();
    assert_eq!(first.labels.unwrap(), batched.labels.unwrap()[..5]);
    // Convolutions of another batch size may round differently.
    let pairs = values(batched.values).into_iter().zip(sample(30, 1));
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5);
    let pairs = values(first.values).into_iter().zip(sample(30, 1));
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5);
}

#[test]
fn sampler_generates_the_requested_classes() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let labels = sampler.sample(300, 1).unwrap().labels.unwrap();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), 3);
    let twos = sampler.clone().with_classes(ClassLabels::All(2));
    assert_eq!(twos.sample(4, 1).unwrap().labels.unwrap(), [2; 4]);
    // Columns of a grid share their noise.
    let grid = sampler.class_grid(2, 4).unwrap();
    assert_eq!(grid.labels.unwrap(), [0, 0, 1, 1, 2, 2]);
    let z = sampler.sample_latents(2, 4).unwrap();
    let second = sampler.generate(z, Some(&[1, 1])).unwrap();
    assert_eq!(values(grid.values.narrow(0, 2, 2)), values(second));
}

#[test]
fn truncation_bounds_the_noise() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex()).with_truncation(0.5);
    let latents = sampler.sample_latents(200, 1).unwrap().into_data();
    let latents: Vec<f32> = latents.iter().collect();
    assert!(latents.iter().all(|z| z.abs() <= 0.5) && latents.iter().any(|z| z.abs() > 0.45));
}

#[test]
fn interpolation_begins_at_the_samples_of_its_seed() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let frames = sampler.interpolate(3, 5, 6).unwrap();
    assert_eq!((frames.len(), frames[0].dims()), (5, [3, 1, 8, 8]));
    let difference = (frames[0].clone() - sampler.sample(3, 6).unwrap().values).abs();
    assert!(difference.max().into_scalar::<f32>() < 1e-5);
    let moved = (frames[0].clone() - frames[4].clone()).abs();
    assert!(moved.max().into_scalar::<f32>() > 1e-3);
}

#[test]
fn sampling_is_cancelled_between_batches() {
    let generator = conditional_generator();
    let cancel = CancelToken::new();
    let sampler = GanSampler::new(&generator, &flex())
        .with_batch_size(4)
        .with_cancel(cancel.clone())
        .with_callback(|progress| {
            if progress.done == 8 {
                cancel.cancel();
            }
            std::ops::ControlFlow::Continue(())
        });
    let samples = sampler.sample(20, 1).unwrap();
    assert!(!samples.complete);
    assert_eq!(
        (samples.values.dims()[0], samples.labels.unwrap().len()),
        (8, 8)
    );
}

#[test]
fn standing_statistics_are_those_of_the_generator() {
    let config = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let before = bits(&generator);
    // One pass is enough for the old statistics to be gone.
    let measured = standing_statistics(&generator, 1, 4000, 1, &flex()).unwrap();
    let after = bits(&measured);
    let of = |name: &str| {
        after[name]
            .iter()
            .map(|b| f32::from_bits(*b))
            .collect::<Vec<_>>()
    };
    for (name, value) in &before {
        assert_eq!(name.contains("running"), *value != after[name], "{name}");
    }
    assert_eq!(bits(&generator), before, "the generator itself was changed");
    // The first layer is linear in normal noise: each channel's variance is the mean over pixels of
    // Σ w².
    let weights = measured.valid();
    let first = bits(&weights)["layers.0.weight"].clone();
    let weights: Vec<f64> = first
        .iter()
        .map(|b| f64::from(f32::from_bits(*b)))
        .collect();
    let (latent, channels, pixels) = (64, 6, 4);
    for channel in 0..channels {
        let square = |i: usize| {
            (0..pixels)
                .map(|p| weights[(i * channels + channel) * pixels + p].powi(2))
                .sum::<f64>()
        };
        let expected = (0..latent).map(square).sum::<f64>() / pixels as f64;
        let got = f64::from(of("norms.0.norm.running_var")[channel]);
        assert!((got / expected - 1.0).abs() < 0.1, "{got} {expected}");
    }
}

#[test]
fn sampler_rejects_invalid_arguments() {
    let config = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let sampler = GanSampler::new(&generator, &flex());
    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }
    assert!(error(sampler.sample(0, 1)).contains("`n` is 0"));
    assert!(error(sampler.clone().with_batch_size(0).sample(1, 1)).contains("`batch_size` is 0"));
    assert!(error(sampler.class_grid(2, 1)).contains("without classes"));
    let ones = sampler.clone().with_classes(ClassLabels::All(1));
    assert!(error(ones.sample(2, 1)).contains("no classes"));
    let z = Tensor::zeros([2, 3], &flex());
    assert!(error(sampler.generate(z, None)).contains("64 latent dimensions"));
    assert!(error(sampler.interpolate(2, 1, 1)).contains("`frames` is 1"));
    let nan = sampler.clone().with_truncation(f64::NAN);
    assert!(error(nan.sample(1, 1)).contains("`truncation` is NaN"));
    let statistics = standing_statistics(&generator, 1, 1, 1, &flex());
    assert!(error(statistics).contains("`batch_size` is 1"));
}
