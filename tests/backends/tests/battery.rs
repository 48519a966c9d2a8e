//! Tests that every backend must pass: results on the device named by `AIGC_DEVICE` are compared
//! with Flex.
//!
//!     AIGC_DEVICE=libtorch cargo test -p aigc-backends --features tch

use aigc_backends::{
    ADAM, assert_close, assert_operations_match_flex, device, device_name, diffusion_step,
    gan_step, gans, gpt2_step, models, parameters, vae_samples, vae_step, values,
};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, collate_images, digits},
    device::available_backends,
    ops::{AdamStep, Quantization, adam_step},
    rng::{InitWeights, Rng},
    train::{StartFrom, Trainer, TrainerConfig},
};
use aigc_tests::Net;
use aigc_vae::{KlWeight, VaeObjective};
use burn::{module::Module, tensor::Device};

/// Relative to the largest value, because GPUs sum in different orders.
const TOLERANCE: f64 = 2e-4;

#[test]
fn operations_and_gradients_match_flex() {
    assert_operations_match_flex(&device(), TOLERANCE);
}

#[test]
fn vae_outputs_and_gradients_match_flex() {
    for (name, config) in models() {
        let ((outputs, grads), (expected, expected_grads)) = (
            vae_step(&config, &device()),
            vae_step(&config, &Device::flex()),
        );
        assert_eq!(
            outputs.each_ref().map(|(shape, _)| shape.as_slice()),
            [&[5, 3][..], &[5, 1, 8, 8], &[5]],
            "{name}"
        );
        for ((shape, got), (expected_shape, expected)) in outputs.iter().zip(&expected) {
            assert_eq!(shape, expected_shape, "{name}");
            assert_close(got, expected, TOLERANCE, name);
        }
        assert!(!grads.is_empty());
        assert_eq!(
            grads.keys().collect::<Vec<_>>(),
            expected_grads.keys().collect::<Vec<_>>()
        );
        for (path, (shape, grad)) in grads {
            let (expected_shape, expected) = &expected_grads[&path];
            assert_eq!(&shape, expected_shape, "{name}, gradient of {path}");
            assert_close(
                &grad,
                expected,
                TOLERANCE,
                &format!("{name}, gradient of {path}"),
            );
        }
    }
}

/// A seed gives the same images on every backend: with stochastic and deterministic schedulers,
/// with classifier-free guidance and with gradient guidance.
#[test]
fn diffusion_samples_and_gradients_match_flex() {
    // Timestep embeddings are sines of numbers up to 1000, which shaders compute less accurately.
    let shader = ["wgpu", "vulkan", "metal"]
        .iter()
        .any(|name| device_name().starts_with(name));
    let tolerance = if shader { 1e-2 } else { TOLERANCE };
    for index in 0..2 {
        let (expected, expected_grads) = diffusion_step(index, &Device::flex());
        let (got, grads) = diffusion_step(index, &device());
        for (output, ((shape, got), (expected_shape, expected))) in
            got.iter().zip(&expected).enumerate()
        {
            assert_eq!(shape, expected_shape);
            assert_close(
                got,
                expected,
                tolerance,
                &format!("images {output} of network {index}"),
            );
        }
        assert_eq!(
            grads.keys().collect::<Vec<_>>(),
            expected_grads.keys().collect::<Vec<_>>()
        );
        for (path, (_, grad)) in grads {
            assert_close(
                &grad,
                &expected_grads[&path].1,
                5.0 * tolerance,
                &format!("network {index}, gradient of {path}"),
            );
        }
    }
}

#[test]
fn gan_outputs_and_gradients_match_flex() {
    for (name, config) in gans() {
        let ((outputs, grads), (expected, expected_grads)) = (
            gan_step(&config, &device()),
            gan_step(&config, &Device::flex()),
        );
        assert_eq!(
            outputs.each_ref().map(|(shape, _)| shape.as_slice()),
            [&[6, 1, 8, 8][..], &[6]],
            "{name}"
        );
        for ((_, got), (_, expected)) in outputs.iter().zip(&expected) {
            assert_close(got, expected, TOLERANCE, name);
        }
        assert!(
            grads.keys().any(|path| path.starts_with("generator.")),
            "{name}"
        );
        assert_eq!(
            grads.keys().collect::<Vec<_>>(),
            expected_grads.keys().collect::<Vec<_>>()
        );
        for (path, (_, grad)) in grads {
            assert_close(
                &grad,
                &expected_grads[&path].1,
                5.0 * TOLERANCE,
                &format!("{name}, gradient of {path}"),
            );
        }
    }
}

/// Logits, gradients and generated tokens, without and with quantised weights.
#[test]
fn gpt2_outputs_and_gradients_match_flex() {
    for quantization in [None, Some(Quantization::Int8), Some(Quantization::Int4)] {
        let (logits, grads, texts) = gpt2_step(quantization, &device());
        let (expected_logits, expected_grads, expected_texts) =
            gpt2_step(quantization, &Device::flex());
        for ((shape, got), (_, expected)) in logits.iter().zip(&expected_logits) {
            assert_eq!(*shape, [3, 12, 40]);
            assert_close(
                got,
                expected,
                TOLERANCE,
                &format!("logits with {quantization:?}"),
            );
        }
        assert_eq!(
            grads.keys().collect::<Vec<_>>(),
            expected_grads.keys().collect::<Vec<_>>()
        );
        for (path, (_, grad)) in grads {
            assert_close(
                &grad,
                &expected_grads[&path].1,
                TOLERANCE,
                &format!("gradient of {path}"),
            );
        }
        assert_eq!(texts, expected_texts, "{quantization:?}");
        assert!(
            texts[0] != texts[2] && texts[2] != texts[4],
            "generation modes give the same tokens: {texts:?}"
        );
    }
}

/// Three consecutive steps; the initial parameter is shared and must not change.
#[test]
fn adam_steps_match_flex() {
    let run = |device: &Device, decays: [f64; 2]| {
        let draw = |seed: u64| Rng::new(seed).normal::<2>([7, 30], device);
        let (mut param, mut moments) = (draw(1), [draw(2) * 0.1, draw(3).powf_scalar(2.0)]);
        let held = param.clone();
        for number in 1..4 {
            let [weight_decay, decoupled_decay] = decays;
            let step = AdamStep {
                learning_rate: 0.01,
                step: number,
                weight_decay,
                decoupled_decay,
                ..ADAM
            };
            (param, moments) = adam_step(param, draw(10 + number as u64), moments, step);
        }
        let [moment_1, moment_2] = moments;
        [held, param, moment_1, moment_2].map(values)
    };
    for decays in [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1]] {
        for (got, expected) in run(&device(), decays)
            .iter()
            .zip(&run(&Device::flex(), decays))
        {
            assert_close(got, expected, 1e-5, &format!("decays {decays:?}"));
        }
    }
}

/// A parameter that is used transposed gets a gradient that is not contiguous.
#[test]
fn adam_accepts_non_contiguous_gradients() {
    let run = |device: &Device| {
        let draw = |seed: u64, shape: [usize; 2]| {
            Rng::new(seed).normal::<2>(shape, &device.clone().autodiff())
        };
        let param = draw(1, [6, 9]).require_grad();
        let loss = draw(2, [4, 9]).matmul(param.clone().transpose()) * draw(3, [4, 6]);
        let grad = param.grad(&loss.sum().backward()).expect("a gradient");
        let transposed = draw(4, [9, 6]).inner().transpose();
        let ((first, _), (second, [moment, _])) = (
            adam_step(
                param.clone().inner(),
                grad.clone(),
                [(); 2].map(|()| grad.zeros_like()),
                ADAM,
            ),
            adam_step(
                transposed,
                grad.clone(),
                [
                    grad.clone().transpose().transpose() * 0.1,
                    grad.powf_scalar(2.0),
                ],
                ADAM,
            ),
        );
        [first, second, moment].map(values)
    };
    for (got, expected) in run(&device()).iter().zip(&run(&Device::flex())) {
        assert_close(got, expected, 1e-5, "an Adam step");
    }
}

#[test]
fn batch_norm_matches_flex_in_both_modes() {
    let run = |device: Device| {
        let net = Net::without_dropout(&device.clone().autodiff()).init_weights(1);
        let net = (0..3).fold(net, |net, step| {
            net.forward(Rng::new(step).normal([16, 4], &device.clone().autodiff()));
            net
        });
        let (x, net) = (Rng::new(9).normal([7, 4], &device), net.valid());
        (values(net.forward(x)), parameters(&net))
    };
    let ((got, state), (expected, expected_state)) = (run(device()), run(Device::flex()));
    assert_close(&got, &expected, TOLERANCE, "inference");
    assert!(state.keys().any(|path| path.contains("running_var")));
    for (path, values) in state {
        assert_close(&values, &expected_state[&path], TOLERANCE, &path);
    }
}

#[test]
fn samples_of_a_seed_match_flex() {
    for (name, config) in models() {
        let ((shape, images), (_, expected)) = (
            vae_samples(&config, &device()),
            vae_samples(&config, &Device::flex()),
        );
        assert_eq!(shape, [6, 1, 8, 8], "{name}");
        assert_close(&images, &expected, TOLERANCE, name);
    }
}

fn digits_loader() -> DataLoader<aigc_core::data::ImageBatch> {
    let config = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(digits::load(), collate_images, config).unwrap()
}

/// Trains until step `steps`, resuming the run if it has a checkpoint. Returns every tensor.
fn train_to(
    steps: usize,
    device: &Device,
    run: &RunDir,
) -> std::collections::BTreeMap<String, Vec<f64>> {
    let [_, (_, config)] = models();
    let start = if run.latest_checkpoint().is_ok() {
        StartFrom::Resume
    } else {
        StartFrom::Fresh
    };
    let trainer_config = TrainerConfig {
        save_steps: 3,
        ..TrainerConfig::new(9)
    };
    let token = aigc_core::CancelToken::new();
    let cancel = token.clone();
    let trained = Trainer::new(trainer_config)
        .with_start(start)
        .with_cancel(token)
        .with_callback(|event: &aigc_core::train::Event<'_>| {
            if let aigc_core::train::Event::Step(report) = event
                && report.step == steps
            {
                cancel.cancel();
            }
        })
        .fit(
            VaeObjective::new(KlWeight::default()).unwrap(),
            config.init(device).unwrap(),
            &digits_loader(),
            run,
        )
        .unwrap();
    parameters(&trained.model)
}

/// Trains three steps each on the device under test and on up to two other backends, resuming from
/// the checkpoint of the previous one. The result must match training on Flex only.
#[test]
fn checkpoint_resumes_on_another_backend() {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["moving", "staying"].map(|name| RunDir::create(dir.path().join(name)).unwrap());
    let requested = device_name();
    let mut names = vec![requested.as_str(), "flex", "libtorch", "wgpu", "ndarray"];
    names.retain(|name| available_backends().contains(name));
    names.dedup();
    assert!(
        requested == "flex" || names.len() > 1,
        "only Flex is compiled in"
    );
    names.resize(3, "flex");
    println!("resumes on {}", names.join(", then "));
    let (mut moved, mut stayed) = Default::default();
    for (part, name) in names.iter().enumerate() {
        moved = train_to(
            3 * (part + 1),
            &aigc_core::device::device(name).unwrap(),
            &runs[0],
        );
        stayed = train_to(3 * (part + 1), &Device::flex(), &runs[1]);
    }
    for (path, values) in moved {
        assert_close(&values, &stayed[&path], 5e-4, &path);
    }
}
