//! The model: its latents, its divergences and densities, its configuration and its files.

use super::{HierarchicalLevel, HierarchicalVae, HierarchicalVaeConfig, top_down::total};
use crate::{Condition, Vae, compress::GaussianLatents, flow::testing::perturbed};
use aigc_core::{
    Error,
    data::{ImageShape, SampleShape},
    encoder::Posterior,
    params::{ParamMapper, map_params},
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
};
use burn::{
    module::Param,
    tensor::{Device, Tensor},
};
use std::f64::consts::PI;

fn level(stride: usize, groups: usize) -> HierarchicalLevel {
    HierarchicalLevel {
        stride,
        channels: 4,
        hidden_channels: 3,
        encoder_blocks: 1,
        groups,
        latent_channels: 2,
    }
}

/// 8×8 images, two groups on maps of 4×4 and one on maps of one pixel.
fn tiny() -> HierarchicalVaeConfig {
    HierarchicalVaeConfig {
        levels: vec![level(2, 2), level(4, 1)],
        ..HierarchicalVaeConfig::new(ImageShape::new(1, 8, 8))
    }
}

/// A model with all weights drawn from a normal distribution, so that groups depend on each
/// other and posteriors differ from their priors.
fn model(config: &HierarchicalVaeConfig) -> HierarchicalVae {
    perturbed(config.init(&Device::flex()).unwrap(), 0.3, 1)
}

fn images(n: usize) -> Tensor<4> {
    Rng::new(2).uniform([n, 1, 8, 8], 0.0, 1.0, &Device::flex())
}

/// The mean and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, squares.sqrt() / n)
}

fn doubles(x: Tensor<1>) -> Vec<f64> {
    values(x).into_iter().map(f64::from).collect()
}

#[test]
fn latents_are_the_maps_of_all_groups() {
    let model = model(&tiny());
    assert_eq!(model.num_groups(), 3);
    assert_eq!(model.latent_shape(), SampleShape::new(&[2 + 2 * 2 * 16]));
    let output = model.forward(images(3), &Condition::none(), &mut Rng::new(5));
    assert_eq!((output.z.dims(), output.kl.len()), ([3, 66], 3));
    assert_eq!(output.likelihood.mean().dims(), [3, 1, 8, 8]);
    let config = HierarchicalVaeConfig::new(ImageShape::new(1, 28, 28));
    let model = config.init(&Device::flex()).unwrap();
    assert_eq!(model.num_groups(), 9);
    assert_eq!(model.latent_dim(), 8 * (3 * 14 * 14 + 4 * 7 * 7 + 2));
}

/// The divergence of a group, given the groups before, is the mean of `log q(z|x) − log p(z)`.
#[test]
fn divergences_are_means_of_log_ratios() {
    let n = 2000;
    let (model, none) = (model(&tiny()), Condition::none());
    let x = images(1).repeat_dim(0, n);
    let output = model.forward(x, &none, &mut Rng::new(5));
    let (z, log_q) = (output.posterior).sample_with_log_prob(&mut Rng::new(5));
    assert_close(&values(z.clone()), &values(output.z), 0.0);
    let ratio = log_q - model.prior_log_prob(z, &none);
    let kl = total(output.kl);
    assert!(values(kl.clone()).iter().all(|kl| *kl > 0.01));
    let (mean, error) = mean_and_error(&doubles(ratio - kl));
    assert!(mean.abs() < 5.0 * error, "{mean} {error}");
}

/// A posterior that does not differ from the prior has no divergence, and the draws of the
/// prior.
#[test]
fn posterior_without_difference_is_the_prior() {
    struct Zero;
    impl ParamMapper for Zero {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match path.contains(".posterior.expand.") {
                true => param.map(|value| value.zeros_like()),
                false => param,
            }
        }
    }
    let model = map_params(model(&tiny()), &mut Zero);
    let (device, none) = (Device::flex(), Condition::none());
    let output = model.forward(images(1), &none, &mut Rng::new(5));
    for kl in output.kl {
        assert_eq!(values(kl), [0.0]);
    }
    let drawn = model.sample_prior(1, &none, 1.0, &mut Rng::new(5), &device);
    assert_close(&values(output.z), &values(drawn), 0.0);
}

#[test]
fn latents_decode_to_the_likelihood_of_the_pass() {
    let (model, none) = (model(&tiny()), Condition::none());
    let output = model.forward(images(3), &none, &mut Rng::new(5));
    let z = model.encode(images(3)).sample(&mut Rng::new(5));
    assert_close(&values(z.clone()), &values(output.z), 0.0);
    let found = values(model.decode(z).mean());
    assert_close(&found, &values(output.likelihood.mean()), 1e-5);
}

#[test]
fn log_weight_is_the_sum_of_its_terms() {
    let (model, none, x) = (model(&tiny()), Condition::none(), images(3));
    let posterior = model.encode(x.clone());
    let weights = model.log_weights(&posterior, x.clone(), &none, 1, &mut Rng::new(5));
    assert_eq!(weights.dims(), [3, 1]);
    let (z, log_q) = posterior.sample_with_log_prob(&mut Rng::new(5));
    let log_p = model.decode(z.clone()).log_prob(x) + model.prior_log_prob(z, &none);
    assert_close(&values(weights), &values(log_p - log_q), 2e-3);
}

/// The mean of the log-weights is the ELBO; the logarithm of their mean is a bound above it.
#[test]
fn log_weights_give_a_bound_above_the_elbo() {
    let n = 500;
    let (model, none, x) = (model(&tiny()), Condition::none(), images(2));
    let weights = model.log_weights(&model.encode(x.clone()), x, &none, n, &mut Rng::new(5));
    assert_eq!(weights.dims(), [2, n]);
    for (index, weights) in values(weights).chunks(n).enumerate() {
        let x = images(2).narrow(0, index, 1).repeat_dim(0, n);
        let elbo = model.forward(x.clone(), &none, &mut Rng::new(6)).elbo(x);
        let (elbo, elbo_error) = mean_and_error(&doubles(elbo.log_likelihood - elbo.kl));
        let weights: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
        let (mean, error) = mean_and_error(&weights);
        let tolerance = 5.0 * error.hypot(elbo_error);
        assert!((mean - elbo).abs() < tolerance, "{mean} {elbo} {tolerance}");
        let largest = weights.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = weights.iter().map(|w| (w - largest).exp()).sum();
        let bound = largest + (sum / n as f64).ln();
        assert!(bound > elbo, "{bound} {elbo}");
    }
}

/// The prior of a single group is the same normal distribution for all samples.
#[test]
fn prior_of_one_group_matches_its_formula() {
    let (device, none) = (Device::flex(), Condition::none());
    let config = HierarchicalVaeConfig {
        levels: vec![level(8, 1)],
        ..tiny()
    };
    let model = model(&config);
    let activated = config.activation.forward(model.start.val());
    let (prior, _) = model.levels[0].groups[0].prior(&activated);
    let (mean, log_std) = (values(prior.mean), values(prior.log_std));
    let noise = Rng::new(7).normal_vec(8);
    for temperature in [1.0, 0.5, 0.0] {
        let z = model.sample_prior(4, &none, temperature, &mut Rng::new(7), &device);
        assert_eq!(z.dims(), [4, 2]);
        let latent = |(index, noise): (usize, &f32)| {
            let (mean, std) = (mean[index % 2], log_std[index % 2].exp());
            mean + std * temperature as f32 * noise
        };
        let expected: Vec<f32> = noise.iter().enumerate().map(latent).collect();
        assert_close(&values(z.clone()), &expected, 1e-5);
        let log_density = |noise: &[f32]| {
            let terms = noise.iter().zip(&log_std).map(|(noise, log_std)| {
                let scaled = f64::from(*noise) * temperature;
                -0.5 * (scaled * scaled + (2.0 * PI).ln()) - f64::from(*log_std)
            });
            terms.sum::<f64>() as f32
        };
        let expected: Vec<f32> = noise.chunks(2).map(log_density).collect();
        assert_close(&values(model.prior_log_prob(z, &none)), &expected, 1e-4);
    }
}

/// Without noise, latents are means given the groups before. Those of the first group move away
/// from them in proportion to the temperature.
#[test]
fn temperature_scales_the_noise_of_each_group() {
    let (model, none, device) = (model(&tiny()), Condition::none(), Device::flex());
    let at = |temperature| {
        let rng = &mut Rng::new(7);
        values(model.sample_prior(2, &none, temperature, rng, &device))
    };
    let (means, half, full) = (at(0.0), at(0.5), at(1.0));
    assert_close(&means[..66], &means[66..], 1e-6);
    let gap = |index: usize| (half[index] - 0.5 * (means[index] + full[index])).abs();
    assert!((0..2).all(|index| gap(index) < 1e-5));
    // The means and scales of the other groups depend on the draws.
    assert!((2..66).any(|index| gap(index) > 1e-4));
}

#[test]
fn classes_change_latents_and_likelihoods() {
    let device = Device::flex();
    let config = HierarchicalVaeConfig {
        num_classes: Some(3),
        ..tiny()
    };
    let model = model(&config);
    assert_eq!(model.condition_kind().num_classes, Some(3));
    let z: Tensor<2> = Rng::new(4).normal([2, 66], &device);
    let outputs = |condition: &Condition| {
        [
            values(model.encode_with(images(2), condition).mode()),
            values(model.decode_with(z.clone(), condition).mean()),
            values(model.sample_prior(2, condition, 1.0, &mut Rng::new(7), &device)),
        ]
    };
    let none = outputs(&Condition::none());
    let [a, b] = [[0, 1], [0, 2]].map(|l| outputs(&Condition::classes(&l, &device)));
    for ((a, b), none) in a.iter().zip(&b).zip(&none) {
        let half = a.len() / 2;
        assert_close(&a[..half], &b[..half], 1e-6);
        assert_ne!(a[half..], b[half..]);
        assert_ne!(a[..half], none[..half]);
    }
    // A label that is not a class is not mistaken for the null condition.
    for unknown in outputs(&Condition::classes(&[1, 3], &device)) {
        let (known, unknown) = unknown.split_at(unknown.len() / 2);
        assert!(known.iter().all(|value| value.is_finite()));
        assert!(unknown.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn vectors_change_latents_and_likelihoods() {
    let device = Device::flex();
    let config = HierarchicalVaeConfig {
        num_classes: Some(3),
        vector_dim: Some(2),
        ..tiny()
    };
    let model = model(&config);
    assert_eq!(model.condition_kind().vector_dim, Some(2));
    let outputs = |vectors: Option<[[f32; 2]; 2]>| {
        let condition = Condition {
            vectors: vectors.map(|vectors| Tensor::from_floats(vectors, &device)),
            ..Condition::classes(&[0, 1], &device)
        };
        let output = model.forward(images(2), &condition, &mut Rng::new(5));
        [values(output.z), values(output.likelihood.mean())]
    };
    let none = outputs(None);
    let zeros = outputs(Some([[0.0, 0.0], [0.0, 0.0]]));
    let second = outputs(Some([[0.0, 0.0], [1.0, -2.0]]));
    for ((none, zeros), second) in none.iter().zip(&zeros).zip(&second) {
        let half = none.len() / 2;
        assert_close(zeros, none, 1e-6);
        assert_close(&second[..half], &none[..half], 1e-6);
        assert_ne!(second[half..], none[half..]);
    }
}

#[test]
fn configurations_out_of_range_are_named() {
    let of = |levels| HierarchicalVaeConfig { levels, ..tiny() };
    let blocks = HierarchicalLevel {
        encoder_blocks: 257,
        ..level(2, 1)
    };
    for (config, expected) in [
        (
            of(vec![level(3, 1)]),
            "`levels[0].stride` is 3, expected a divisor of 8 and 8",
        ),
        (
            of(vec![level(2, 2), level(3, 1)]),
            "`levels[1].stride` is 3, expected a divisor of 4 and 4",
        ),
        (of(vec![level(2, 0)]), "`levels[0].groups` is 0"),
        (of(vec![blocks]), "`levels[0].encoder_blocks` is 257"),
        (of(vec![]), "`levels` is 0"),
        (
            of(vec![HierarchicalLevel {
                channels: 1 << 12,
                hidden_channels: 1 << 12,
                ..level(2, 256)
            }]),
            "expected at most 2147483648, for a model",
        ),
        (
            HierarchicalVaeConfig {
                num_classes: Some(0),
                ..tiny()
            },
            "`num_classes` is 0",
        ),
        (
            HierarchicalVaeConfig {
                vector_dim: Some((1 << 14) + 1),
                ..tiny()
            },
            "`vector_dim` is 16385, expected 1 to 16384",
        ),
    ] {
        let message = config.init(&Device::flex()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn saved_models_open_with_equal_outputs() {
    let device = Device::flex();
    let config = HierarchicalVaeConfig {
        num_classes: Some(3),
        vector_dim: Some(2),
        ..tiny()
    };
    let model = config.init(&device).unwrap().init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let opened = HierarchicalVae::from_pretrained(dir.path(), &device).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.config(), &config);
    let condition = Condition {
        vectors: Some(Rng::new(6).normal([2, 2], &device)),
        ..Condition::classes(&[2, 0], &device)
    };
    let outputs = |model: &HierarchicalVae| {
        let output = model.forward(images(2), &condition, &mut Rng::new(5));
        (values(output.z), values(output.likelihood.mean()))
    };
    assert_eq!(outputs(&opened), outputs(&model));
    let missing = HierarchicalVae::from_pretrained_with_variant(dir.path(), "fp16", &device);
    assert!(matches!(missing, Err(Error::Weights { .. })));
}

/// Bits-back coding chooses the latents of one group after the other, in units of the prior.
#[test]
fn chosen_latents_decode_to_the_likelihood_of_the_pass() {
    let (model, device) = (model(&tiny()), Device::flex());
    let (mut rng, mut latents, mut sizes) = (Rng::new(5), Vec::new(), Vec::new());
    let mut choose = |mean: &[f32], log_var: &[f32]| {
        let noise = rng.normal_vec(mean.len());
        let draw = |index: usize| mean[index] + (0.5 * log_var[index]).exp() * noise[index];
        let chosen: Vec<f32> = (0..mean.len()).map(draw).collect();
        latents.extend_from_slice(&chosen);
        sizes.push(chosen.len());
        Ok(chosen)
    };
    GaussianLatents::<2>::encode_latents(&model, images(1), &mut choose).unwrap();
    assert_eq!(sizes, [2, 32, 32]);
    let output = model.forward(images(1), &Condition::none(), &mut Rng::new(5));
    let likelihood = GaussianLatents::<2>::decode_latents(&model, &latents, &device);
    let found = values(likelihood.mean());
    assert_close(&found, &values(output.likelihood.mean()), 1e-4);

    let mut groups = 0;
    let mut failing = |mean: &[f32], _: &[f32]| {
        groups += 1;
        match groups {
            2 => Err(Error::argument("latents", "damaged", "others")),
            _ => Ok(vec![0.0; mean.len()]),
        }
    };
    let failed = GaussianLatents::<2>::encode_latents(&model, images(1), &mut failing);
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("`latents` is damaged"), "{message}");
}
