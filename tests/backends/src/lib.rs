//! The device under test, and computations whose results the tests compare between backends.
#![forbid(unsafe_code)]

#[cfg(feature = "families")]
mod diffusion;
#[cfg(feature = "families")]
mod gan;
#[cfg(feature = "families")]
mod text;

#[cfg(feature = "families")]
pub use {diffusion::*, gan::*, text::*};

use aigc_core::{
    data::ImageShape,
    ops::AdamStep,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
};
use aigc_tests::cases::OPERATIONS;
use aigc_vae::{ConvVaeConfig, MlpVaeConfig, Vae, VaeConfig, VaeSampler, elbo};
use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use std::collections::BTreeMap;

/// Settings of a first Adam step without weight decay.
pub const ADAM: AdamStep = AdamStep {
    learning_rate: 0.1,
    beta_1: 0.9,
    beta_2: 0.99,
    epsilon: 1e-8,
    step: 1,
    weight_decay: 0.0,
    decoupled_decay: 0.0,
};

/// The value of `AIGC_DEVICE`, or `flex`.
pub fn device_name() -> String {
    std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into())
}

/// The device named by `AIGC_DEVICE`, or Flex.
///
/// # Panics
/// If there is no such device.
pub fn device() -> Device {
    aigc_core::device::device(&device_name()).unwrap_or_else(|error| panic!("AIGC_DEVICE: {error}"))
}

/// The elements of a tensor on any device.
///
/// # Panics
/// If the tensor cannot be read.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert::<f64>()
        .try_into_vec::<f64>()
        .expect("the data was converted to f64")
}

/// Asserts that `got` equals `expected` within `tolerance` times its largest value (at least one).
///
/// # Panics
/// If a value differs by more.
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, about: &str) {
    assert_eq!(got.len(), expected.len(), "{about}: lengths");
    let scale = expected
        .iter()
        .fold(1.0f64, |top, value| top.max(value.abs()));
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * scale,
            "{about} at {at}: {got}, expected {expected}"
        );
    }
}

/// Compares every operation and its gradients on `device` with Flex, for eight random cases each.
///
/// # Panics
/// If a value differs by more than `tolerance` (or the tolerance of the operation, if that is
/// larger) relative to the largest value of its tensor.
pub fn assert_operations_match_flex(device: &Device, tolerance: f64) {
    let devices = [Device::flex().autodiff(), device.clone().autodiff()];
    for (name, allowed, case) in OPERATIONS {
        for seed in 0..8 {
            let mut rng = Rng::new(seed * 101 + 7);
            let case = case(&mut rng);
            let inputs: Vec<Vec<f32>> = case.lens.iter().map(|len| rng.normal_vec(*len)).collect();
            let mut weights: Option<Vec<f32>> = None;
            let [expected, got] = devices.each_ref().map(|device| {
                let tensor = |values: &[f32]| {
                    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
                };
                let leaves: Vec<Tensor<1>> = inputs
                    .iter()
                    .map(|values| tensor(values).require_grad())
                    .collect();
                let output = (case.compute)(leaves.clone());
                let weights = weights
                    .get_or_insert_with(|| rng.normal_vec(output.dims()[0]))
                    .clone();
                let grads = (output.clone() * tensor(&weights)).sum().backward();
                let of = |leaf: &Tensor<1>| leaf.grad(&grads).map(values).unwrap_or_default();
                [
                    vec![values(output.inner())],
                    leaves.iter().map(of).collect(),
                ]
                .concat()
            });
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_close(
                    got,
                    expected,
                    allowed.max(tolerance),
                    &format!("{name} {}, tensor {index}", case.about),
                );
            }
        }
    }
}

/// Two small VAEs of 8×8 images.
pub fn models() -> [(&'static str, VaeConfig); 2] {
    let shape = ImageShape::new(1, 8, 8);
    let mlp = MlpVaeConfig {
        hidden_dim: 24,
        latent_dim: 3,
        ..MlpVaeConfig::new(shape)
    };
    let conv = ConvVaeConfig {
        channels: vec![4, 8],
        hidden_dim: 16,
        latent_dim: 3,
        ..ConvVaeConfig::new(shape)
    };
    [
        ("mlp", VaeConfig::Mlp(mlp)),
        ("conv", VaeConfig::Conv(conv)),
    ]
}

/// Shape and elements of a tensor.
pub type Shaped = (Vec<usize>, Vec<f64>);

/// The outputs of a forward pass of a VAE (posterior means, images, divergences), and the gradients
/// of one training step.
///
/// # Panics
/// If the model cannot be created.
pub fn vae_step(config: &VaeConfig, device: &Device) -> ([Shaped; 3], BTreeMap<String, Shaped>) {
    let device = device.clone().autodiff();
    let model = config
        .init(&device)
        .expect("a valid model")
        .init_weights(3)
        .train();
    let x = Rng::new(1).normal([5, 1, 8, 8], &device) * 0.1 + 0.5;
    let posterior = model.encode(x.clone());
    let likelihood = model.decode(posterior.sample(&mut Rng::new(2)));
    let bound = elbo(x, &posterior, &likelihood);
    let outputs = [
        shaped(posterior.mean.clone()),
        shaped(likelihood.mean()),
        shaped(bound.kl.clone()),
    ];
    (outputs, gradients(&model, bound.loss(1.0)))
}

/// Six images sampled from an untrained VAE with one seed.
///
/// # Panics
/// If the model cannot be created.
pub fn vae_samples(config: &VaeConfig, device: &Device) -> Shaped {
    let model = config.init(device).expect("a valid model").init_weights(7);
    shaped(
        VaeSampler::new(&model, device)
            .with_temperature(0.8)
            .sample(6, 11)
            .expect("images")
            .values,
    )
}

fn shaped<const D: usize>(tensor: Tensor<D>) -> Shaped {
    (tensor.dims().to_vec(), values(tensor))
}

/// The gradient of every parameter, by path.
pub fn gradients<M: Module>(model: &M, loss: Tensor<1>) -> BTreeMap<String, Shaped> {
    struct Collect(GradientsParams, BTreeMap<String, Shaped>);
    impl ParamVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.remove::<D>(param.id) {
                self.1.insert(path.to_string(), shaped(grad));
            }
        }
    }
    let grads = GradientsParams::from_grads(loss.backward(), model);
    let mut collected = Collect(grads, BTreeMap::new());
    visit_params(model, &mut collected);
    collected.1
}

/// The elements of every float tensor of a model, by path.
pub fn parameters<M: Module>(model: &M) -> BTreeMap<String, Vec<f64>> {
    struct Collect(BTreeMap<String, Vec<f64>>);
    impl ParamVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.insert(path.to_string(), values(param.val()));
        }
    }
    let mut collected = Collect(BTreeMap::new());
    visit_params(model, &mut collected);
    collected.0
}
