//! What every backend must pass. `AIGC_DEVICE` names the device; what it computes is held against
//! Flex.
//!
//!     AIGC_DEVICE=libtorch cargo test -p aigc-backends --features tch

use aigc_backends::{
    ADAM, assert_close, assert_operations_equal_flex, device, device_name, diffuse, game, gans,
    models, parameters, pass, pictures, values, write,
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

/// Of the largest value: GPUs order sums in their own way.
const TOLERANCE: f64 = 2e-4;

#[test]
fn operations_and_their_gradients_equal_flex() {
    assert_operations_equal_flex(&device(), TOLERANCE);
}

#[test]
fn forward_passes_and_one_step_s_gradients_equal_flex() {
    for (name, config) in models() {
        let ((outputs, grads), (expected, expected_grads)) =
            (pass(&config, &device()), pass(&config, &Device::flex()));
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

/// One seed is one image on every backend: with fresh noise, without, guided, and led by gradients.
#[test]
fn diffusion_is_that_of_flex() {
    // Times are told as sines of numbers up to a thousand, of which shaders know fewer digits.
    let shader = ["wgpu", "vulkan", "metal"]
        .iter()
        .any(|name| device_name().starts_with(name));
    let tolerance = if shader { 1e-2 } else { TOLERANCE };
    for which in 0..2 {
        let (expected, expected_grads) = diffuse(which, &Device::flex());
        let (got, grads) = diffuse(which, &device());
        for (index, ((shape, got), (expected_shape, expected))) in
            got.iter().zip(&expected).enumerate()
        {
            assert_eq!(shape, expected_shape);
            assert_close(
                got,
                expected,
                tolerance,
                &format!("images {index} of network {which}"),
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
                &format!("network {which}, gradient of {path}"),
            );
        }
    }
}

#[test]
fn the_game_of_every_pair_equals_flex_s() {
    for (name, config) in gans() {
        let ((outputs, grads), (expected, expected_grads)) =
            (game(&config, &device()), game(&config, &Device::flex()));
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

/// As it is, and with weights of few bits: scores and gradients, and the same tokens.
#[test]
fn a_language_model_writes_what_it_writes_on_flex() {
    for quantization in [None, Some(Quantization::Int8), Some(Quantization::Int4)] {
        let (scores, grads, texts) = write(quantization, &device());
        let (expected_scores, expected_grads, expected_texts) =
            write(quantization, &Device::flex());
        for ((shape, got), (_, expected)) in scores.iter().zip(&expected_scores) {
            assert_eq!(*shape, [3, 12, 40]);
            assert_close(
                got,
                expected,
                TOLERANCE,
                &format!("scores with {quantization:?}"),
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
            "ways of generating do not differ: {texts:?}"
        );
    }
}

/// Three steps, each from what the one before left; the first parameter is held by somebody else,
/// who must not see it change.
#[test]
fn adam_s_steps_equal_flex() {
    let run = |device: &Device, decays: [f64; 2]| {
        let draw = |seed: u64| Rng::new(seed).normal::<2>([7, 30], device);
        let (mut param, mut moments) = (draw(1), [draw(2) * 0.1, draw(3).powf_scalar(2.0)]);
        let held = param.clone();
        for time in 1..4 {
            let [weight_decay, decoupled_decay] = decays;
            let step = AdamStep {
                learning_rate: 0.01,
                step: time,
                weight_decay,
                decoupled_decay,
                ..ADAM
            };
            (param, moments) = adam_step(param, draw(10 + time as u64), moments, step);
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

/// A parameter that is used transposed gets a gradient whose numbers do not lie in order.
#[test]
fn adam_takes_gradients_as_they_lie() {
    let run = |device: &Device| {
        let draw = |seed: u64, shape: [usize; 2]| {
            Rng::new(seed).normal::<2>(shape, &device.clone().autodiff())
        };
        let param = draw(1, [6, 9]).require_grad();
        let loss = draw(2, [4, 9]).matmul(param.clone().transpose()) * draw(3, [4, 6]);
        let grad = param.grad(&loss.sum().backward()).expect("a gradient");
        let turned = draw(4, [9, 6]).inner().transpose();
        let ((first, _), (second, [moment, _])) = (
            adam_step(
                param.clone().inner(),
                grad.clone(),
                [(); 2].map(|()| grad.zeros_like()),
                ADAM,
            ),
            adam_step(
                turned,
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
        assert_close(got, expected, 1e-5, "a step");
    }
}

#[test]
fn batch_norm_trains_and_infers_as_on_flex() {
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
fn one_seed_gives_the_same_pictures() {
    for (name, config) in models() {
        let ((shape, drawn), (_, expected)) = (
            pictures(&config, &device()),
            pictures(&config, &Device::flex()),
        );
        assert_eq!(shape, [6, 1, 8, 8], "{name}");
        assert_close(&drawn, &expected, TOLERANCE, name);
    }
}

fn digits_loader() -> DataLoader<aigc_core::data::ImageBatch> {
    let config = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(digits::load(), collate_images, config).unwrap()
}

/// Trains to `steps`, going on where the run is; gives back every tensor.
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
    let config_of = TrainerConfig {
        save_steps: 3,
        ..TrainerConfig::new(9)
    };
    let stop = aigc_core::CancelToken::new();
    let raise = stop.clone();
    let trained = Trainer::new(config_of)
        .with_start(start)
        .with_cancel(stop)
        .with_callback(|event: &aigc_core::train::Event<'_>| {
            if let aigc_core::train::Event::Step(report) = event
                && report.step == steps
            {
                raise.cancel();
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

/// Three steps each on the device asked for and two more backends, where so many were built in,
/// each going on from the checkpoint of the one before, end where as many steps on Flex end.
#[test]
fn a_checkpoint_of_one_backend_resumes_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let runs = ["moving", "staying"].map(|name| RunDir::create(folder.path().join(name)).unwrap());
    let asked = device_name();
    let mut names = vec![asked.as_str(), "flex", "libtorch", "wgpu", "ndarray"];
    names.retain(|name| available_backends().contains(name));
    names.dedup();
    assert!(asked == "flex" || names.len() > 1, "only Flex was built in");
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
